"""open_store(): opens a session store by a URL, which a configuration file can name."""

from __future__ import annotations

import math
from typing import TypeVar
from urllib.parse import parse_qs

from greentls.errors import ConfigurationError
from greentls.secret_file import read_secret_file
from greentls.stores.contract import Store

__all__ = ["open_store"]

Number = TypeVar("Number", int, float)


def open_store(url: str) -> Store:
    """Returns a session store. It connects at its first use.

    ``memory://?entries=20480&bytes=33554432``
        keeps the sessions in this process.
    ``memcached://host:11211,host2:11211?secret_file=/etc/fleet.key``
        is shared by all servers that name the same nodes and secrets. secret_file: a file with 32 random bytes or more,
        not text that somebody thought of, which others can neither read nor write. To rotate secrets, give several
        files, the newest first. context=NAME separates users of one memcached. connect_timeout, timeout: seconds. pool:
        connections to a node. insecure=1 instead of a secret sends sessions out in clear; greentls.stores says what
        that gives away.

    Raises ConfigurationError, which names the part of the URL.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in _OPENERS or not separator:
        known = ", ".join(f"{each}://" for each in _OPENERS)
        raise ConfigurationError(f"session store {_shown(url)!r}", "unknown kind of store", f"known are {known}")
    place, _, query = rest.partition("?")
    options = _Options(url, query)
    store = _OPENERS[scheme](place.rstrip("/"), options)
    options.finish()
    return store


def _shown(url: str) -> str:
    """Returns the part of a URL that may be logged: there may be a password before an @, or in the query."""
    return f"{url[: url.find(':') + 1]}..." if "@" in url else url.partition("?")[0]


class _Options:
    """The query of a URL. Every option is taken once; finish() refuses the rest."""

    def __init__(self, url: str, query: str) -> None:
        self.subject = f"session store {_shown(url)!r}"
        try:
            self._values = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise self.error("what follows the ? is not a query", "write name=value&name=value") from None
        self._known: list[str] = []

    def error(self, problem: str, remedy: str = "") -> ConfigurationError:
        return ConfigurationError(self.subject, problem, remedy)

    def all(self, name: str) -> list[str]:
        self._known.append(name)
        return self._values.pop(name, [])

    def one(self, name: str, default: str) -> str:
        values = self.all(name) or [default]
        if len(values) > 1:
            raise self.error(f"{name} is given {len(values)} times", "give it once")
        return values[0]

    def number(self, name: str, default: Number) -> Number:
        """A number of the default's kind."""
        text = self.one(name, str(default))
        try:
            value = type(default)(text)
        except ValueError:
            value = type(default)(0)
        if not 0 < value < math.inf:
            raise self.error(f"{name}={text}", "must be a number above 0")
        return value

    def finish(self) -> None:
        if self._values:
            left, known = ", ".join(self._values), ", ".join(self._known)
            raise self.error(f"unknown option {left}", f"known are {known}")


def _open_memory(place: str, options: _Options) -> Store:
    from greentls.stores.memory import MAX_BYTES, MAX_ENTRIES, MemoryStore

    if place:
        raise options.error(f"{_shown(place)!r} is not expected", "memory:// has no host")
    return MemoryStore(options.number("entries", MAX_ENTRIES), options.number("bytes", MAX_BYTES))


def _open_memcached(place: str, options: _Options) -> Store:
    from greentls.stores import memcached
    from greentls.stores.sealed import SealedStore

    context = options.one("context", "default")
    store = memcached.MemcachedStore(
        [_host_and_port(each, memcached.PORT, options) for each in place.split(",")],
        context,
        connect_timeout=options.number("connect_timeout", memcached.CONNECT_TIMEOUT),
        timeout=options.number("timeout", memcached.IO_TIMEOUT),
        pool=options.number("pool", memcached.POOL),
    )
    secrets = [_read_secret(path, options) for path in options.all("secret_file")]
    insecure = options.one("insecure", "0")
    if insecure not in ("0", "1"):
        raise options.error(f"insecure={insecure}", "must be 0 or 1")
    if secrets and insecure == "1":
        raise options.error("both secret_file and insecure=1", "give one of them")
    if secrets:
        return SealedStore(store, secrets, context)
    if insecure == "1":
        return store
    raise options.error(
        "sessions would leave this process in clear",
        "add secret_file=PATH (umask 077; head -c 32 /dev/urandom > PATH), or insecure=1 if that is what you want",
    )


def _host_and_port(text: str, default: int, options: _Options) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        separator, port = port[:1], port[1:]
        good = bracket and separator in ("", ":")
    else:
        host, separator, port = text.partition(":")
        good = "/" not in text
    if not separator:
        port = str(default)
    if not host or not good or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise options.error(f"{_shown(text)!r} is not HOST:PORT", "write localhost:11211, or [::1]:11211")
    return host, int(port)


def _read_secret(path: str, options: _Options) -> bytes:
    from greentls.stores.sealed import MIN_SECRET, secret_problem

    try:
        secret = read_secret_file(path, f"{options.subject}: secret_file {path!r}")
    except OSError as error:
        raise options.error(f"secret_file {path!r}: {error.strerror}", "give a file that can be read") from None
    if problem := secret_problem(secret):
        raise options.error(f"secret_file {path!r} has {problem}", f"give {MIN_SECRET} random bytes or more in it")
    return secret


_OPENERS = {"memory": _open_memory, "memcached": _open_memcached}
