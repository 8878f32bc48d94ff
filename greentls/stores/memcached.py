"""MemcachedStore: sessions and shared values in memcached, one node or many, through pymemcache over gevent's sockets.

pymemcache's HashClient spreads the keys over the nodes and leaves out a node that failed. Its pool is not used: a
greenlet that is killed, or runs out of time, while it waits for an answer must not leave a connection behind that
answers the next one with this one's data. pymemcache 4.0's ObjectPool.get_and_release() looks for Exception, which
GreenletExit and gevent.Timeout are not, and would count that connection as in use for ever.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from gevent import get_hub, socket
from gevent.lock import BoundedSemaphore
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient
from pymemcache.client.rendezvous import RendezvousHash
from pymemcache.exceptions import MemcacheUnexpectedCloseError

from greentls.errors import ConfigurationError
from greentls.stores import check_value

__all__ = ["MemcachedStore"]

PORT = 11211
CONNECT_TIMEOUT = 0.25  # seconds: a handshake in the same data centre is a millisecond; a lost SYN is given up
IO_TIMEOUT = 0.5  # seconds for each answer: both together stay below the callback's own deadline of 1 s
DEAD_SECONDS = 2.0  # for which a node that failed is left out: lookups miss at once instead of waiting for it
POOL = 32  # connections to a node per process: 20 workers stay below memcached's default limit of 1,024

# memcached takes a longer relative time for a date in 1970: https://github.com/memcached/memcached/wiki/Programming
RELATIVE_LIMIT = 30 * 86400

_CONTEXT = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a key is 250 bytes at most, without blanks


class MemcachedStore:
    """Sessions under the keys ``greentls:1:<context>:s:<hex session id>``, values ``greentls:1:<context>:v:<name>``.

    nodes: (host, port) each; all servers of a fleet must name the same ones. context: keeps apart what shares a
    memcached. connect_timeout, timeout: seconds, for a connection and for each answer. pool: connections per node.
    Raises OSError and pymemcache's errors where memcached does not do its part.
    """

    name = "memcached"
    shared = True
    private = False

    def __init__(
        self,
        nodes: Sequence[tuple[str, int]],
        context: str = "default",
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = IO_TIMEOUT,
        pool: int = POOL,
    ) -> None:
        if not nodes:
            raise ConfigurationError("memcached store", "no node", "give one host:port or more")
        if not _CONTEXT.fullmatch(context):
            raise ConfigurationError(
                f"memcached store: context {context!r}", "1 to 64 of A-Z a-z 0-9 . _ - are allowed"
            )
        if pool < 1:
            raise ConfigurationError(f"memcached store: pool={pool}", "must be 1 or more")
        self._prefix = f"greentls:1:{context}:"
        self._nodes = tuple(nodes)
        self._options = {"connect_timeout": connect_timeout, "timeout": timeout, "pool": pool}
        # Sockets belong to the hub that made them, and to the process: a forked worker must not share them.
        self._clusters: WeakKeyDictionary[Any, tuple[int, _Cluster]] = WeakKeyDictionary()

    def get(self, session_id: bytes) -> bytes | None:
        value: bytes | None = self._cluster().get(self._key(session_id))
        return value

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        if lifetime > 0:
            self._cluster().set(self._key(session_id), session, _expiry(lifetime))

    def remove(self, session_id: bytes) -> None:
        self._cluster().delete(self._key(session_id))

    def gets(self, name: str) -> tuple[bytes | None, bytes | None]:
        found: tuple[bytes | None, bytes | None] = self._cluster().gets(self._value_key(name))
        return found

    def cas(self, name: str, value: bytes, token: bytes | None, lifetime: float) -> bool:
        key = self._value_key(name, lifetime)
        if token is None:
            return bool(self._cluster().add(key, value, _expiry(lifetime)))
        return bool(self._cluster().cas(key, value, token, _expiry(lifetime)))

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        return bool(self._cluster().add_at_home(self._value_key(name, lifetime), value, _expiry(lifetime)))

    def close(self) -> None:
        """Ends this hub's connections; another thread's hub has its own, which end with it."""
        _, cluster = self._clusters.pop(get_hub(), (0, None))
        if cluster is not None:
            cluster.close()

    def _key(self, session_id: bytes) -> str:
        return f"{self._prefix}s:{session_id.hex()}"

    def _value_key(self, name: str, lifetime: float = 1) -> str:
        check_value(name, lifetime)
        return f"{self._prefix}v:{name}"

    def _cluster(self) -> _Cluster:
        hub, process = get_hub(), os.getpid()
        owner, cluster = self._clusters.get(hub, (0, None))
        if cluster is None or owner != process:
            cluster = _Cluster(self._nodes, self._options)
            self._clusters[hub] = process, cluster
        return cluster


def _expiry(lifetime: float) -> int:
    seconds = math.ceil(lifetime)  # 0 would mean "for ever" to memcached
    return seconds if seconds <= RELATIVE_LIMIT else int(time.time()) + seconds


class _Node:
    """One memcached and the connections to it. Has the methods of pymemcache's Client that HashClient calls."""

    def __init__(self, server: tuple[str, int], connect_timeout: float, timeout: float, pool: int) -> None:
        self.server = server
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._places = BoundedSemaphore(pool)
        self._idle: list[Client] = []

    def get(self, key: str, default: None) -> Any:
        return self._run(Client.get, key)

    def set(self, key: str, value: bytes, expires: int) -> None:
        self._run(
            Client.set, key, value, expires, False
        )  # an answer is awaited: it may be "too large", "out of memory"

    def delete(self, key: str) -> None:
        self._run(Client.delete, key, False)

    def gets(self, key: str) -> Any:
        return self._run(Client.gets, key)

    # Repeated after a connection broke, these two may meet their own work and answer with no: never twice with yes.

    def cas(self, key: str, value: bytes, token: bytes, expires: int) -> Any:
        return self._run(Client.cas, key, value, token, expires, False)

    def add(self, key: str, value: bytes, expires: int) -> Any:
        return self._run(Client.add, key, value, expires, False)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _run(self, command: Any, *arguments: Any) -> Any:
        with self._places:
            if self._idle:
                try:
                    return self._run_on(self._idle.pop(), command, *arguments)
                except (ConnectionError, MemcacheUnexpectedCloseError):
                    self.close()  # memcached was started anew: the others are as dead as this one
            try:
                return self._run_on(self._connected(), command, *arguments)
            except MemcacheUnexpectedCloseError as error:
                raise ConnectionResetError(f"memcached {self.server[0]}:{self.server[1]} hung up") from error

    def _run_on(self, client: Client, command: Any, *arguments: Any) -> Any:
        try:
            result = command(client, *arguments)
        except BaseException:  # an answer may still be on its way
            client.close()
            raise
        self._idle.append(client)
        return result

    def _connected(self) -> Client:
        # Client's own connect looks at a name's first address only, and keeps its socket open when it is killed.
        client = Client(self.server, timeout=self._timeout, socket_module=socket)
        client.sock = sock = _connect(self.server, self._connect_timeout)
        sock.settimeout(self._timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client


def _connect(server: tuple[str, int], timeout: float) -> Any:
    problem: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(*server, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    raise ConnectionError(f"memcached {server[0]}:{server[1]}: {problem}") from problem


class _Cluster(HashClient):  # type: ignore[misc]
    """HashClient that leaves a node out at its first failure, and may be used by many greenlets."""

    def __init__(self, nodes: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        self._made = {node: _Node(node, **options) for node in nodes}
        self._homes = RendezvousHash()
        for node in nodes:
            self._homes.add_node(self._make_client_key(node))
        super().__init__(list(nodes), retry_attempts=0, dead_timeout=DEAD_SECONDS)

    def client_class(self, server: tuple[str, int], **_: Any) -> _Node:
        return self._made[server]

    def _mark_failed_server(self, server: tuple[str, int]) -> None:
        if server not in self._dead_clients:  # the second greenlet that finds the same node dead
            super()._mark_failed_server(server)

    def add_at_home(self, key: str, value: bytes, expires: int) -> Any:
        """add() on the node that has the key while all are well, or not at all."""
        if self._dead_clients:
            self._retry_dead()
        home = self._homes.get_node(key)
        node = next(each for server, each in self._made.items() if self._make_client_key(server) == home)
        if node.server in self._dead_clients:
            raise ConnectionError(f"memcached {home} failed less than {DEAD_SECONDS} s ago")
        return self._safely_run_func(node, node.add, False, key, value, expires)

    def close(self) -> None:
        for node in self._made.values():
            node.close()
