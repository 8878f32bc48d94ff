from __future__ import annotations

import ssl
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest

from greentls.wire import registry
from greentls.wire.registry import (
    AlertDescription,
    CipherSuite,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    SignatureScheme,
    is_grease,
    name,
)


def test_sixteen_numbers_are_grease():
    found = [number for number in range(0x10000) if is_grease(number)]
    assert found == [0x0A0A + 0x1010 * step for step in range(16)]


@pytest.mark.parametrize(
    ("enum", "number", "text"),
    [
        (ExtensionType, 0, "server_name"),
        (ExtensionType, 0x1A1A, "GREASE 0x1A1A"),
        (ExtensionType, 0x1234, "unknown 0x1234"),
        (HandshakeType, 77, "unknown 77"),
        (HandshakeType, 24, "key_update"),
        (AlertDescription, 50, "decode_error"),
        (ExtensionType, 51, "key_share"),
        (NamedGroup, 23, "secp256r1"),
        (NamedGroup, 4588, "X25519MLKEM768"),
        (SignatureScheme, 0x0804, "rsa_pss_rsae_sha256"),
        (SignatureScheme, 0x0520, "rsa_pkcs1_sha384_legacy"),
    ],
)
def test_name(enum, number, text):
    assert name(enum, number) == text


@pytest.mark.parametrize(
    "enum", [value for value in vars(registry).values() if isinstance(value, type) and issubclass(value, IntEnum)]
)
def test_no_number_has_two_names(enum):
    assert len(enum.__members__) == len(list(enum))


def test_alerts_are_named_as_the_standard_library_names_them():
    for member in ssl.AlertDescription:
        ours = name(AlertDescription, member.value).removesuffix("_RESERVED")
        spelt = member.name.replace("CANCELLED", "CANCELED")
        assert spelt == "ALERT_DESCRIPTION_" + ours.upper()


def test_cipher_suites_are_named_as_iana_names_them():
    listed = Path(__file__).with_name("cipher_suites.txt").read_text().splitlines()
    assert [f"{number:04X} {number.name}" for number in sorted(CipherSuite)] == listed
    assert CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 == 0xC02F


@pytest.mark.programs
def test_cipher_suites_are_named_as_openssl_names_them():
    listed = subprocess.run(
        ["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    of_openssl = {}
    for line in listed.splitlines():
        number, _, standard_name = line.split()[:3]
        high, low = number.split(",")
        of_openssl[int(high, 16) << 8 | int(low, 16)] = standard_name
    assert len(of_openssl) > 100
    assert {number: name(CipherSuite, number) for number in of_openssl} == of_openssl
