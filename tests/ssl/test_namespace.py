"""greentls.ssl has the names of the running Python's ssl, whatever gevent has patched."""

from __future__ import annotations

import ssl
import subprocess
import sys
import textwrap

import pytest

import greentls.ssl
from tests.support.helpers import PATIENCE

OURS = {"CHANNEL_BINDING_TYPES", "SSLContext", "SSLSession", "SSLSocket", "create_connection"}
MAKERS = {
    name
    for name in (
        "_create_default_https_context",
        "_create_stdlib_context",
        "_create_unverified_context",
        "create_default_context",
        "get_server_certificate",
        "wrap_socket",  # until Python 3.11
    )
    if hasattr(ssl, name)
}
A_MODULE = {"socket"}  # the standard library's is what ssl.py happened to import
PUBLIC = sorted(name for name in dir(ssl) if not name.startswith("_"))


def test_every_name_is_there():
    assert set(PUBLIC) <= set(dir(greentls.ssl))
    assert {name for name in dir(ssl) if name.startswith("_")} <= set(dir(greentls.ssl))


def test_all_but_a_few_are_the_standard_librarys_own():
    same = {name for name in PUBLIC if getattr(greentls.ssl, name) is getattr(ssl, name)}
    assert set(PUBLIC) - same <= {*OURS, *MAKERS, *A_MODULE}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_function_that_makes_contexts_is_the_standard_librarys_code_over_our_names(name):
    ours, theirs = getattr(greentls.ssl, name), getattr(ssl, name)
    assert ours.__code__ is theirs.__code__
    assert ours.__globals__ is vars(greentls.ssl)
    assert (ours.__defaults__, ours.__kwdefaults__, ours.__doc__) == (
        theirs.__defaults__,
        theirs.__kwdefaults__,
        theirs.__doc__,
    )


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("SSLContext", set()),
        ("SSLSocket", {"sendmsg_afalg"}),  # which is for the kernel's own ciphers
    ],
)
def test_a_class_of_ours_has_the_public_members(kind, absent):
    ours, theirs = getattr(greentls.ssl, kind), getattr(ssl, kind)
    untold = {"client_sigalg", "server_sigalg"}  # Python 3.15; cryptography's wheels leave out what tells them
    assert {name for name in dir(theirs) if not name.startswith("_") and not hasattr(ours, name)} - untold == absent


@pytest.mark.parametrize("purpose", [ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH])
def test_create_default_context_is_one_of_ours_with_the_same_settings(pki, purpose):
    ours, theirs = (module.create_default_context(purpose, cafile=pki.ca_file) for module in (greentls.ssl, ssl))
    assert type(ours) is greentls.ssl.SSLContext
    for name in ("protocol", "verify_mode", "check_hostname", "options", "minimum_version", "maximum_version"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.verify_flags == theirs.verify_flags
    assert [each["name"] for each in ours.get_ciphers()] == [each["name"] for each in theirs.get_ciphers()]
    assert ours.get_ca_certs() == theirs.get_ca_certs()
    assert ours.cert_store_stats() == theirs.cert_store_stats()


def test_other_makers_make_ours():
    for name in ("_create_unverified_context", "_create_stdlib_context", "_create_default_https_context"):
        assert type(getattr(greentls.ssl, name)()) is greentls.ssl.SSLContext, name


def test_makers_of_the_standard_library_still_make_its_own():
    assert type(ssl.create_default_context()) is ssl.SSLContext


def test_get_server_certificate_goes_through_ours(pki, serve):
    context = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    address = serve(context, lambda sock, address: None)  # in this thread: who blocks it gets no answer
    with open(pki.cert_file) as file:
        expected = file.read()
    assert greentls.ssl.get_server_certificate(address, ca_certs=pki.ca_file).split() == expected.split()


def run(program, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BEFORE = "from gevent import monkey; monkey.patch_all()\n"
AFTER = "import greentls.ssl, warnings\nwarnings.simplefilter('ignore')\n" + BEFORE
LATER = "import ssl, greentls.ssl, warnings\nwarnings.simplefilter('ignore')\n" + BEFORE


@pytest.mark.parametrize("patch", ["", BEFORE, AFTER, LATER], ids=["never", "before", "after", "after ssl"])
def test_names_and_contexts_are_the_same_whenever_gevent_patches(pki, patch):
    said = run(
        f"""{patch}
import ssl, greentls.ssl
assert [name for name in dir(ssl) if not hasattr(greentls.ssl, name)] == []
for name in dir(ssl):
    if name[0] != "_" and name not in {OURS | MAKERS | A_MODULE!r}:
        theirs, ours = getattr(ssl, name), getattr(greentls.ssl, name)
        assert theirs is ours, name
for purpose in greentls.ssl.Purpose:
    context = greentls.ssl.create_default_context(purpose, cafile={pki.ca_file!r})
    assert type(context) is greentls.ssl.SSLContext
    context.minimum_version = context.maximum_version = greentls.ssl.TLSVersion.TLSv1_3
    context.options |= greentls.ssl.OP_NO_TICKET
    context.verify_flags |= greentls.ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    context.verify_mode = greentls.ssl.CERT_NONE
    print(context.minimum_version.name, context.verify_mode.name, bool(context.options & ssl.OP_NO_TICKET))
"""
    )
    assert said == "TLSv1_3 CERT_NONE True\n" * 2


def test_importing_it_patches_nothing():
    said = run(
        """
        import select, socket, ssl, threading, time
        modules = [select, socket, ssl, threading, time, ssl.SSLContext, ssl.SSLSocket, ssl.SSLObject, socket.socket]
        before = [dict(vars(each)) for each in modules]
        import greentls.ssl
        greentls.ssl.create_default_context()
        print([dict(vars(each)) == names for each, names in zip(modules, before)].count(False))
        import gevent.monkey
        print(gevent.monkey.saved)
        """
    )
    assert said == "0\n{}\n"


def test_names_of_ours():
    assert issubclass(greentls.ssl.SSLContext, ssl.SSLContext)
    assert greentls.SSLContext is greentls.ssl.SSLContext
    assert greentls.Session is greentls.ssl.SSLSession
