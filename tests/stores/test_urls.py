"""open_store(): which URLs it takes."""

from __future__ import annotations

import pytest

from greentls.errors import ConfigurationError
from greentls.stores import open_store
from greentls.stores.sealed import SealedStore
from tests.stores.samples import SECOND
from tests.support.helpers import free_port


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("", "unknown kind"),
            ("redis", "unknown kind"),
            ("sqlite:///x", "known are memory://, memcached://"),
            ("memory:", "unknown kind"),
            ("memory://host", "memory:// has no host"),
            ("memory://?entries=0", "entries=0"),
            ("memory://?entries=1.5", "entries=1.5"),
            ("memory://?bytes=nan", "bytes=nan"),
            ("memory://?size=3", "unknown option size; known are entries, bytes"),
            ("memory://?entries", "is not a query"),
            ("memory://?entries=1&entries=2", "given 2 times"),
            ("memcached://", "is not HOST:PORT"),
            ("memcached://h:0?insecure=1", "'h:0'"),
            ("memcached://h:99999?insecure=1", "'h:99999'"),
            ("memcached://h:x?insecure=1", "'h:x'"),
            ("memcached://h,,i?insecure=1", "'' is not"),
            ("memcached://::1?insecure=1", "[::1]:11211"),
            ("memcached://[::1?insecure=1", "'[::1'"),
            ("memcached://h/path?insecure=1", "'h/path'"),
            ("memcached://h", "in clear; add secret_file"),
            ("memcached://h?insecure=0", "in clear"),
            ("memcached://h?insecure=yes", "insecure=yes"),
            ("memcached://h?insecure=1&secret_file={secret}", "both"),
            ("memcached://h?secret_file=/nowhere/key", "/nowhere/key"),
            ("memcached://h?secret_file={short}", "has 5 bytes"),
            ("memcached://h?insecure=1&timeout=-1", "timeout=-1"),
            ("memcached://h?insecure=1&timeout=inf", "timeout=inf"),
            ("memcached://h?insecure=1&pool=0", "pool=0"),
            ("memcached://h?insecure=1&context=a%20b", "context 'a b'"),
            ("memcached://h?insecure=1&retries=1", "unknown option retries"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, url, said, secret_file, tmp_path):
        short = tmp_path / "short"
        short.write_bytes(b"short")
        with pytest.raises(ConfigurationError) as caught:
            open_store(url.format(secret=secret_file, short=short))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_options_arrive(self, secret_file, tmp_path):
        memory = open_store("memory://?entries=7&bytes=9000")
        assert (memory.max_entries, memory.max_bytes) == (7, 9000)
        second = tmp_path / "second.key"
        second.write_bytes(SECOND)
        port = free_port()
        sealed = open_store(f"memcached://h1,[::1]:{port}/?secret_file={secret_file}&secret_file={second}&pool=2")
        assert isinstance(sealed, SealedStore)
        assert sealed.store._nodes == (("h1", 11211), ("::1", port))
