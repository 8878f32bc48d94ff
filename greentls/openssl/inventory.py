"""Finds out which functions of OpenSSL are missing, here or in a wheel for another machine, and what that costs."""

from __future__ import annotations

import io
import os
import re
import zipfile

from greentls.errors import ConfigurationError, UnsupportedOpenSSL
from greentls.openssl import foundation, library, symbols
from greentls.openssl.declarations import SIGNATURES

__all__ = ["cost", "in_wheel", "missing"]

# The features that need a function, by its name. The first pattern that fits counts.
_USERS = [
    # Other functions can replace these, or only memory is lost.
    (r"BIO_ctrl|BUF_MEM_|CRYPTO_|ERR_(new|set_)|OSSL_ERR_|SSL_CTX_callback_ctrl|SSL_get1_peer_c|SSL_get0_group_", ""),
    (r"SSL_ctrl|SSL_group_to_|SSL_set_info_c|ossl_statem_|EVP_PKEY_set_type|X509_VERIFY_PARAM_set1_host_input_", ""),
    (r"EVP_PKEY_(?!free)|OSSL_|d2i_PUBKEY", "signing keys (greentls.keys)"),
    (r"EVP_|SSL_CTX_set_tlsext_ticket_", "ticket keys"),
    (r"SSL_(CTX_set_)?client_hello_", "client_hello_callback and sni_callback"),
    (r".*early_data", "early data"),
    (r"SSL_get_(client_)?ciphers|OPENSSL_sk_", "shared_ciphers()"),
    (r"SSL_set_session_id_", "sessions"),
    (r"SSL_CTX_sess_|.*SSL_SESSION|SSL_get(1_supported|_security)_|X509_(STORE_CTX|VERIFY)_.*(param|set)", "sessions"),
    (r"SSL_CTX_set_cert_verify_", "verify_callback"),
    (r"SSL_CTX_ctrl", "signature algorithms and several certificates"),
    (r"X509_OBJECT_|X509_check_ca", "get_ca_certs()"),
    (r"SSL_CTX_set_num_tickets", "num_tickets"),
]


def cost(function: str) -> str:
    """Returns the features that do not work without a function; empty if all work."""
    return next((user for pattern, user in _USERS if re.match(pattern, function)), "TLS")


def missing() -> dict[str, UnsupportedOpenSSL]:
    """Returns the functions that are missing in this process, each with the error that its call raises."""
    found = {}
    for name in sorted(SIGNATURES):
        try:
            library.need(name)
        except UnsupportedOpenSSL as error:
            found[name] = error
    return found


def hidden() -> frozenset[str]:
    """Returns the functions that cryptography's binding does not export."""
    return frozenset(name for name in SIGNATURES if not hasattr(foundation.load(foundation.CRYPTOGRAPHY).lib, name))


def in_wheel(path: str | os.PathLike[str]) -> tuple[int, list[str], str]:
    """Looks for the functions that the binding does not export in a wheel's symbol table.

    Returns how many there are, the missing ones, and the reason if the wheel cannot be read. The wheel may be for any
    platform, but must be of the installed version of cryptography, whose binding decides what is not exported. Raises
    ConfigurationError, OSError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if re.search(r"/_rust\..*(so|pyd)$", name))
            file = io.BytesIO(archive.read(name))
    except (zipfile.BadZipFile, ValueError):
        raise ConfigurationError(f"--wheel {os.fspath(path)}", "not a wheel of cryptography", "give one") from None
    wanted, problem = hidden(), ""
    try:
        found = wanted & symbols.read_image(file, wanted).symbols.keys()
    except symbols.Unusable as error:
        found, problem = frozenset(), str(error)
    return len(found), sorted(wanted - found), problem
