"""Which OpenSSL: chosen once, said when it cannot be, and never given a pointer of another one."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import cffi
import pytest
from OpenSSL import crypto

from greentls.certificates import CertificateChain
from greentls.errors import ConfigurationError
from greentls.openssl import contexts, foundation, symbols, use
from greentls.openssl.library import lib
from tests.support.helpers import ROOT
from tests.support.openssl import SYSTEM

HERE, OTHER = ("system", "cryptography") if SYSTEM else ("cryptography", "system")


def test_it_is_chosen_once():
    use(HERE)
    with pytest.raises(ConfigurationError, match=f"{HERE}' is in use already.*GREENTLS_OPENSSL={OTHER}"):
        use(OTHER)
    assert ("the system's" in symbols.origin()) is SYSTEM


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setattr(foundation, "_current", None)
    monkeypatch.setenv(foundation.VARIABLE, "none-such")
    with pytest.raises(ConfigurationError, match="choose 'cryptography' or 'system'"):
        foundation.current()


def test_one_that_was_not_built_says_how_to_build_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(foundation, "import_module", absent)
    with pytest.raises(ConfigurationError, match=r"libssl-dev.*GREENTLS_OPENSSL=system"):
        foundation.load(foundation.SYSTEM)


def test_one_that_was_built_from_other_declarations_is_not_used(monkeypatch):
    older = types.SimpleNamespace(lib=types.SimpleNamespace(GREENTLS_DECLARATIONS=1))
    monkeypatch.setattr(foundation, "import_module", lambda name: older)
    with pytest.raises(ConfigurationError, match="another version"):
        foundation.load(foundation.SYSTEM)


@pytest.mark.programs
def test_an_openssl_that_the_loader_finds_first_is_refused(tmp_path):
    """hazard: a function of this name goes there, and those that it lacks to the system's libssl."""
    (tmp_path / "other.c").write_text("int SSL_pending(const void *ssl) { return !ssl; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", tmp_path / "other.c"], check=True)
    alone = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    prove = "from greentls.openssl import symbols; symbols.prove_alone(['SSL_read', 'SSL_pending'])"
    for program in (prove, *["import greentls.ssl"] * SYSTEM):
        for environment, said in ((alone, ""), (alone | {"LD_PRELOAD": f"{tmp_path}/other.so"}, REFUSED)):
            done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True)
            assert done.stderr.decode().rpartition("Error: ")[2].strip() == said


REFUSED = (
    "OpenSSL of 'system': another OpenSSL in this process has SSL_pending, too, and the loader finds that one first; "
    "unset GREENTLS_OPENSSL"
)


def test_a_pointer_of_another_openssl_is_refused():
    """Address 1: whoever looked there would crash."""
    other = cffi.FFI()
    other.cdef("typedef ... SSL_CTX; typedef ... SSL; typedef ... X509;")
    strange = {name: other.cast(f"{name} *", 1) for name in ("SSL_CTX", "SSL", "X509")}
    ours = contexts.new()
    for call in (
        lambda: contexts.set_versions(strange["SSL_CTX"], 0, 0),
        lambda: contexts.use_certificate(strange["SSL_CTX"], b"", b""),
        lambda: lib.SSL_new(strange["SSL_CTX"]),
        lambda: lib.SSL_read(strange["SSL"], b"", 0),
        lambda: lib.SSL_CTX_use_certificate(ours, strange["X509"]),
    ):
        with pytest.raises((TypeError, ConfigurationError)):
            call()
    lib.ERR_clear_error()


def test_objects_of_pyopenssl_are_refused_and_taken_as_cryptographys(pki):
    with open(pki.key_file, "rb") as key_file, open(pki.cert_file, "rb") as certificate_file:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, key_file.read())
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, certificate_file.read())
    with pytest.raises(ConfigurationError, match=r"^key: not a private key but a PKey; give cryptography's"):
        CertificateChain.load(pki.cert_file, key)
    with pytest.raises(TypeError):
        CertificateChain.load(certificate, key)
    chain = CertificateChain.load(certificate.to_cryptography(), key.to_cryptography_key())
    assert chain.der == CertificateChain.load(pki.cert_file, pki.key_file).der
    contexts.use_certificate(contexts.new(), chain.der, chain.private_key)
