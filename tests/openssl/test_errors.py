"""The error queue: what is taken from it, and what is put back."""

from __future__ import annotations

import pytest

from greentls.openssl import contexts, errors
from greentls.openssl.library import lib

SSL_LIBRARY, NO_SHARED_CIPHER, WRONG_VERSION = 20, 193, 267


def put(*reasons):
    for reason in reasons:
        lib.ERR_put_error(SSL_LIBRARY, 0, reason, b"", 0)


@pytest.fixture(autouse=True)
def empty():
    contexts.new()  # with the first one OpenSSL loads its texts
    errors.take()
    yield
    errors.take()


def test_it_is_emptied_oldest_first():
    put(NO_SHARED_CIPHER, WRONG_VERSION)
    assert [errors.describe(code) for code in errors.take()] == [
        ("SSL routines", "no shared cipher"),
        ("SSL routines", "wrong version number"),
    ]
    assert errors.take() == []


def test_the_reason_is_the_oldest_ones():
    put(NO_SHARED_CIPHER, WRONG_VERSION)
    assert errors.reason() == "no shared cipher"
    assert (errors.reason(), errors.reason("no idea")) == ("OpenSSL refuses it", "no idea")


def test_a_number_that_openssl_does_not_know_has_no_texts():
    assert errors.describe(0) == ("", "")


@pytest.mark.parametrize("hidden", [False, True], ids=["with a state", "without"])
def test_what_was_saved_is_there_again_in_place_of_what_came(monkeypatch, hidden):
    if hidden:  # OpenSSL 3.0 and 3.1
        monkeypatch.setattr(errors, "have", lambda *names: False)
    assert errors.save() is None
    put(NO_SHARED_CIPHER, WRONG_VERSION)
    saved = errors.save()
    assert errors.take() == []
    put(WRONG_VERSION)
    errors.restore(saved)
    assert [errors.describe(code)[1] for code in errors.take()] == ["no shared cipher", "wrong version number"]


def test_nothing_that_was_saved_empties_it():
    saved = errors.save()
    put(WRONG_VERSION)
    errors.restore(saved)
    assert errors.take() == []
