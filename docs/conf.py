"""Sphinx's settings. `make docs` builds docs/_build/index.html; no network is needed."""

from greentls import __version__

project = "greentls"
author = "the greentls developers"
project_copyright = "the greentls developers, MIT license"
version = release = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

smartquotes = False  # they would turn b"" into something else

html_theme = "alabaster"
html_theme_options = {
    "description": "TLS for gevent whose callbacks may wait",
    "page_width": "1280px",
    "fixed_sidebar": True,
}
html_static_path = ["_static"]
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

# :test:`test_...`: a test that holds a sentence; tests/docs/test_docs.py looks whether it exists.
rst_prolog = ".. role:: test(literal)\n   :class: test\n"


def setup(app):
    app.connect("autodoc-process-signature", readable)
    app.connect("autodoc-process-docstring", tell_extensions)


def readable(app, what, name, thing, options, signature, returns):
    """What dataclasses say of a default that is made anew each time is no Python."""
    return signature and signature.replace("<factory>", "..."), returns


def tell_extensions(app, what, name, thing, options, lines):
    """Behind a hello's docstring, its attributes that are parsed extensions; they have no docstrings of their own."""
    from greentls.wire.extensions import Body

    names = [each for each, value in vars(thing).items() if isinstance(value, Body)] if what == "class" else []
    if names:
        numbers = {"cipher_suite": 0} if "ServerHello" in name else {"cipher_suites": ()}
        session_id = "legacy_session_id_echo" if "ServerHello" in name else "legacy_session_id"
        hello = thing(legacy_version=0x0303, random=bytes(32), **{session_id: b""}, **numbers)
        lines += ["Attributes made from extensions, by what they are in a hello that has none:", ""]
        for absent in (None, False, ()):
            these = [f"``{each}``" for each in names if getattr(hello, each) is absent]
            lines += [f"- {absent!r}: {', '.join(these)}", ""] if these else []
