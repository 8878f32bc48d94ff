"""Ticket keys in a file, in the formats of nginx and HAProxy."""

from __future__ import annotations

import os

import pytest

from greentls.errors import ConfigurationError
from greentls.tickets import TicketKey, TicketKeys
from tests.tickets.machines import haproxy, nginx


class TestFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "ticket.key"

    @pytest.mark.parametrize("size", [16, 32])
    def test_nginxs_format(self, path, size):
        key = TicketKey(b"n" * 16, os.urandom(size), os.urandom(size))
        path.write_bytes(nginx(key))
        assert len(path.read_bytes()) == 16 + 2 * size
        assert TicketKeys.file(path).keys == (key,)

    def test_of_several_of_nginxs_files_the_first_seals(self, tmp_path):
        keys = [TicketKey.new(), TicketKey(b"n" * 16, os.urandom(16), os.urandom(16)), TicketKey.new()]
        paths = [tmp_path / f"{number}.key" for number in range(3)]
        for path, key in zip(paths, keys, strict=True):
            path.write_bytes(nginx(key))
        assert TicketKeys.file(*map(str, paths)).keys == tuple(keys)

    @pytest.mark.parametrize("size", [16, 32])
    def test_haproxys_format(self, path, size):
        keys = [TicketKey(bytes([each]) * 16, os.urandom(size), os.urandom(size)) for each in range(4)]
        path.write_bytes(haproxy(*keys))
        assert TicketKeys.file(path).keys == (keys[2], keys[3], keys[1])
        path.write_bytes(haproxy(*keys[1:]).replace(b"\n", b"\r\n") + b"\r\n")
        assert TicketKeys.file(path).keys == (keys[2], keys[3], keys[1])

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"x" * 47,
            b"x" * 81,
            haproxy(TicketKey.new(), TicketKey.new()),
            haproxy(TicketKey.new(), TicketKey.new(), TicketKey(bytes(16), bytes(16), bytes(16))),
            haproxy(*[TicketKey.new()] * 3)[:-5],
            haproxy(*[TicketKey.new()] * 3).replace(b"=", b"!"),
            b"a\n" * 3,
        ],
    )
    def test_what_is_none_is_refused_with_the_files_name(self, path, data):
        path.write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"ticket key file .*ticket\.key") as caught:
            TicketKeys.file(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400, "no key may come out with it"

    def test_of_several_none_may_be_haproxys(self, path, tmp_path):
        path.write_bytes(haproxy(*[TicketKey.new()] * 3))
        (tmp_path / "first").write_bytes(nginx(TicketKey.new()))
        with pytest.raises(ConfigurationError, match="nginx's format has 48 or 80"):
            TicketKeys.file(tmp_path / "first", path)

    def test_one_that_is_not_there_is_refused(self, path):
        with pytest.raises(FileNotFoundError):
            TicketKeys.file(path)
        with pytest.raises(ConfigurationError):
            TicketKeys.file()

    def test_a_change_is_seen_a_second_later_though_time_and_size_are_the_same(self, path, clock):
        first, second = TicketKey.new(), TicketKey.new()
        path.write_bytes(nginx(first))
        times = os.stat(path)
        keys = TicketKeys.file(path, clock=clock)
        path.write_bytes(nginx(second))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert keys.keys == (first,)
        clock.now += 1
        assert keys.keys == (second,)
        assert keys.opening(first.name) is None

    def test_a_broken_or_missing_one_keeps_the_keys_and_is_said_once_in_ten_seconds(self, path, clock, caplog):
        key, new = TicketKey.new(), TicketKey.new()
        path.write_bytes(nginx(key))
        keys = TicketKeys.file(path, clock=clock)
        path.write_bytes(b"half a key")
        for _ in range(12):
            clock.now += 1
            assert keys.keys == (key,)
        assert keys.age == 12
        assert len(caplog.records) == 2
        assert "ticket.key: 10 bytes in 1 lines are no keys" in caplog.text
        assert "read 1 s ago are used on" in caplog.text
        with pytest.raises(ConfigurationError):
            keys.refresh()
        path.unlink()
        clock.now += 10
        assert keys.keys == (key,)
        assert "No such file" in caplog.records[2].message
        path.write_bytes(nginx(new))
        clock.now += 1
        assert keys.keys == (new,)
        assert keys.age == 0
        clock.now += 3600
        assert keys.age == 0, "nobody has used them, and they are in order"
