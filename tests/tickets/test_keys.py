"""TicketKey, and keys that never change."""

from __future__ import annotations

import os

import pytest

from greentls.errors import ConfigurationError
from greentls.tickets import TicketKey, TicketKeys


class TestKey:
    def test_a_new_one_is_random_and_shows_no_secret(self):
        one, other = TicketKey.new(), TicketKey.new()
        assert (len(one.name), len(one.aes), len(one.hmac)) == (16, 32, 32)
        assert not {one.name, one.aes, one.hmac} & {other.name, other.aes, other.hmac}
        assert str(one.aes) not in repr(one)
        assert str(one.hmac) not in repr(one)

    @pytest.mark.parametrize("sizes", [(15, 32, 32), (16, 24, 32), (16, 32, 15), (16, 32, 65), (0, 0, 0)])
    def test_one_of_other_sizes_is_refused(self, sizes):
        with pytest.raises(ConfigurationError, match="give 16, 32"):
            TicketKey(*(bytes(size) for size in sizes))


class TestStatic:
    def test_the_first_seals_and_all_open(self):
        first, second = TicketKey.new(), TicketKey.new()
        keys = TicketKeys.static([first, second])
        assert keys.keys == (first, second)
        assert keys.opening(first.name) == (first, False)
        assert keys.opening(second.name) == (second, True)
        assert keys.opening(os.urandom(16)) is None
        assert keys.age == 0

    def test_none_is_refused(self):
        with pytest.raises(ConfigurationError, match="none is given"):
            TicketKeys.static([])
