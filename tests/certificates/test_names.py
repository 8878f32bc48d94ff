"""What a server name may be, and which certificate's name it means."""

from __future__ import annotations

import pytest

from greentls.certificates.names import find, normalised


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("localhost", "localhost"),
        ("WWW.Example.COM", "www.example.com"),
        ("www.example.com.", "www.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.a_b.example", "_dmarc.a_b.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".abc", ".".join(["a" * 49] * 5) + ".abc"),
        ("1.example", "1.example"),
    ],
)
def test_a_dns_name_is_taken(sent, name):
    assert normalised(sent) == name


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        ".",
        ".example",
        "a..example",
        "a.example..",
        "-a.example",
        "a-.example",
        "*.example",
        "a b.example",
        "a.example\n",
        "a/../b",
        "a" * 64 + ".example",
        "a." * 126 + "ab",
        "127.0.0.1",
        "::1",
        "b\xfccher.example",
        "\udcff.example",
        "\u212a.example",  # whose lower case is a k
        "a" * 70_000,
    ],
)
def test_what_is_no_dns_name_is_not(sent):
    assert normalised(sent) is None


def test_an_exact_name_goes_before_the_wildcard_which_stands_for_one_label():
    names = {"*.example": "wildcard", "www.example": "exact", "*.*.example": "never", "*": "never"}
    wanted = {
        "www.example": "exact",
        "mail.example": "wildcard",
        "example": None,
        "a.mail.example": None,
        "localhost": None,
    }
    assert {name: find(names, name) for name in wanted} == wanted
