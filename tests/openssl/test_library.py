"""Every function of OpenSSL by one way: whichever the binding does not export, each feature finds it, or names it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import declarations, library, provider, pump
from greentls.openssl.declarations import NUMBERS, SIGNATURES
from greentls.openssl.library import MACROS, lib
from tests.openssl.features import FEATURES
from tests.support import openssl
from tests.support.helpers import ROOT
from tests.support.openssl import hide, take_from_binding

NAMES = sorted({*SIGNATURES, *MACROS})
# Modules take these out of lib when they are imported, so a test takes them away before that.
AT_IMPORT = {
    "BIO_get_mem_data", "BIO_read", "BIO_s_mem", "BIO_write", "ERR_clear_error", "ERR_peek_error", "SSL_do_handshake",
    "SSL_get_error", "SSL_read", "SSL_write", "OpenSSL_version",
}  # fmt: skip
# Nor are these taken out of lib where the compiled pump calls them: GREENTLS_PURE=1 runs with the plain one.
BY_THE_PUMP = (
    {
        "SSL_free", "SSL_get_shutdown", "SSL_new", "SSL_set_accept_state", "SSL_set_bio", "SSL_set_connect_state",
        "SSL_set_shutdown", "SSL_shutdown", "BIO_new", "SSL_client_hello_get0_ciphers",
        "SSL_client_hello_get0_session_id", "EVP_PKEY_set_type", "SSL_set_info_callback", "SSL_CTX_set_info_callback",
    }
    if pump.COMPILED
    else set()
)  # fmt: skip
if openssl.lib.OpenSSL_version_num() < 0x30500000:
    BY_THE_PUMP.add("EVP_PKEY_set_type")  # by nobody: for groups that it does not have
LATER = sorted(filter(library.have, set(NAMES) - AT_IMPORT - BY_THE_PUMP))
# They free, also where nobody would hear of an exception.
FREE = {
    "BIO_free", "DH_free", "EVP_PKEY_free", "SSL_CTX_free", "SSL_SESSION_free", "SSL_free", "SSL_set_shutdown",
    "X509_CRL_free",
}  # fmt: skip

# Where some functions are missing others are called in their stead.
SITUATIONS = [
    lambda monkeypatch: None,
    lambda monkeypatch: take_from_binding(monkeypatch, *MACROS),
    lambda monkeypatch: hide(
        monkeypatch, "OSSL_ERR_STATE_new", "SSL_get0_group_name", "SSL_set_info_callback"
    ),  # OpenSSL 3.0, cryptography 44
    lambda monkeypatch: (hide(monkeypatch, "OSSL_ERR_STATE_new"), take_from_binding(monkeypatch, "ERR_put_error")),
]


@pytest.fixture(scope="module")
def users(pki):
    """By function, a situation in which it is called, and the features that call it there."""
    found = {}

    def recorder(name, function, situation, feature):
        def record(*arguments):
            where, features = found.setdefault(name, (situation, []))
            if where is situation and feature not in features:
                features.append(feature)
            return function(*arguments)

        return record

    for situation in SITUATIONS:
        for feature in FEATURES:
            with pytest.MonkeyPatch.context() as patch:
                situation(patch)
                for name in filter(library.have, NAMES):
                    patch.setattr(lib, name, recorder(name, getattr(lib, name), situation, feature))
                patch.setattr(provider, "_library_context", provider._library_context.__wrapped__)  # loads it again
                feature(pki)
    return found


@pytest.mark.parametrize("name", LATER)
def test_a_function_that_the_binding_does_not_export_is_found(pki, users, name, monkeypatch):
    situation, features = users[name]
    situation(monkeypatch)
    take_from_binding(monkeypatch, name)
    for feature in features:
        feature(pki)


@pytest.mark.parametrize("name", sorted(set(LATER) - FREE))
def test_a_function_that_is_nowhere_is_named_or_not_missed(pki, users, name, monkeypatch):
    situation, features = users[name]
    for feature in features:
        with monkeypatch.context() as patch:
            situation(patch)
            hide(patch, name)
            patch.setattr(provider, "_library_context", provider._library_context.__wrapped__)  # loads it again
            try:
                feature(pki)
            except UnsupportedOpenSSL as error:
                assert name in (error.function, *MACROS)


PROGRAM = """
import sys, types
from pathlib import Path
from greentls.openssl import foundation
real = foundation.current()
there = set(dir(real.lib)) - set(sys.argv[2:]) if len(sys.argv) > 2 else ()
foundation._current = real._replace(lib=types.SimpleNamespace(**{name: getattr(real.lib, name) for name in there}))
from tests.support import openssl
openssl.lib = openssl.everything(real)
from tests.openssl.features import FEATURES
from tests.support.helpers import Pki
pki = Pki(Path(sys.argv[1]))
for feature in FEATURES:
    feature(pki)
"""


@pytest.mark.parametrize("names", [(), *zip(sorted(AT_IMPORT))], ids=["all", *sorted(AT_IMPORT)])
def test_all_of_them_together_are_found(tmp_path, names):
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), *names], cwd=ROOT, check=True, timeout=300)


def test_nothing_is_missing_but_what_came_later():
    missing = {name for name in NAMES if not library.have(name)}
    assert missing <= {name for name in SIGNATURES if f"{name}(" in declarations.NEWER}
    assert openssl.lib.OpenSSL_version_num() < 0x40000000 or not missing


def test_the_numbers_are_openssls():
    assert {name: getattr(openssl.lib, name, value) for name, value in NUMBERS.items()} == NUMBERS


def test_each_signature_is_the_bindings():
    """But for stacks, which the binding has types of its own for."""
    for name, signature in SIGNATURES.items():
        if hasattr(openssl.lib, name):
            theirs = library.ffi.typeof(getattr(openssl.lib, name)).cname
            assert theirs.replace("Cryptography_STACK_OF_X509_OBJECT", "void").replace(
                "Cryptography_STACK_OF_X509", "void"
            ) == (library.ffi.typeof(signature).cname), name


def test_what_is_declared_is_used_and_what_is_used_is_declared():
    used = set()
    for path in (ROOT / "greentls").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lib":
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and node.value in SIGNATURES:
                used.add(node.value)
    assert used == {*NAMES, *NUMBERS, "__dict__"}
