"""MemcachedStore: sessions and shared values in memcached, on one node or many.

pymemcache's Client speaks to a node, over a socket that waits in the hub. Its pools and its HashClient are not used:

- If a greenlet is killed, or its deadline passes, while it waits for an answer, its connection must be closed:
  otherwise that answer would be the next greenlet's. pymemcache 4.0's ObjectPool.get_and_release() catches Exception
  only, which a kill is not, and would count the connection as in use for ever.
- HashClient hashes in Python, for a single node too: that took a third of a resumption's bytecode. Here a key belongs
  to the node whose BLAKE2 digest with it is the highest (rendezvous hashing). If that node is down, the key moves to
  the next one; no other key moves.

Puts and removals are sent many at a time, for one wait (write_many), and so are the lookups that greenlets begin in the
same turn of the loop. Puts that are due by then go with the lookups. To wake memcached up takes longer than the rest of
a lookup.
"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from binascii import hexlify
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError, MemcacheUnknownError

from greentls.errors import ConfigurationError
from greentls.hub import PerHub, here
from greentls.stores.contract import Change, check_value

if TYPE_CHECKING:
    from socket import socket as Socket  # or what a hub has in its place

__all__ = ["MemcachedStore"]

T = TypeVar("T")

PORT = 11211
CONNECT_TIMEOUT = 0.25  # seconds: connecting takes a millisecond in one data centre; after a lost SYN it fails
IO_TIMEOUT = 0.5  # seconds for each answer: with the above, less than the callback's own deadline of 1 s
DEAD_SECONDS = 2.0  # for which a node that failed is not used: lookups miss at once instead of waiting for it
MAX_VALUE = 1 << 20  # bytes of an item: memcached's default limit (-I). Ours have at most some 100 KiB
MAX_LINE = 512  # bytes: a key has 250
MAX_ANSWER = MAX_VALUE + 4 * MAX_LINE  # bytes of any answer: it is read no further
RECEIVED = 4096  # bytes at a time: more than nearly any session has
MAX_KEYS = 16  # in one command: a node that lies makes us receive so many times MAX_ANSWER
POOL = 32  # connections of a process to a node: 20 workers stay below memcached's default limit of 1,024

# memcached takes a longer lifetime for a date in 1970: https://github.com/memcached/memcached/wiki/Programming
RELATIVE_LIMIT = 30 * 86400

_WRITTEN = {b"STORED", b"DELETED", b"NOT_FOUND"}  # answers to a set or a delete that has succeeded

_CONTEXT = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a key is 250 bytes at most, without blanks


class MemcachedStore:
    """Sessions under the keys ``greentls:1:<context>:s:<hex session id>``, values ``greentls:1:<context>:v:<name>``.

    nodes: (host, port) of each; all servers of a fleet must name the same ones. context: separates users of one
    memcached. connect_timeout, timeout: seconds, for a connection and for each answer. pool: connections to each node.
    Methods wait, and raise OSError and pymemcache's errors.
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
        self._sessions, self._values = f"greentls:1:{context}:s:".encode(), f"greentls:1:{context}:v:".encode()
        self._nodes = tuple(nodes)
        # Sockets belong to the hub that made them.
        self._cluster = PerHub(partial(_Cluster, self._nodes, connect_timeout, timeout, pool)).get

    def get(self, session_id: bytes) -> bytes | None:
        key = self._sessions + hexlify(session_id)
        return self._cluster().node(key).look_up(key)

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        self._write((session_id, session, lifetime))

    def remove(self, session_id: bytes) -> None:
        self._write((session_id, None, 0))

    def write_many(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        cluster = self._cluster()
        shares: dict[_Node, list[tuple[int, bytes]]] = {}
        for index, (session_id, session, lifetime) in enumerate(changes):
            key = self._sessions + hexlify(session_id)
            if session is None:
                command = b"delete %b\r\n" % key
            elif lifetime > 0:
                command = b"set %b 0 %d %d\r\n%b\r\n" % (key, _expiry(lifetime), len(session), session)
            else:
                yield index, None
                continue
            try:
                shares.setdefault(cluster.node(key), []).append((index, command))
            except ConnectionError as error:
                yield index, error
        for node, share in shares.items():
            try:
                answers = node.write([command for _, command in share])
            except Exception as error:
                answers = [error] * len(share)
            for (index, _), answer in zip(share, answers, strict=True):
                yield index, answer

    def gets(self, name: str) -> tuple[bytes | None, bytes | None]:
        key = self._value_key(name)
        found: tuple[bytes | None, bytes | None] = self._cluster().node(key).run(_Client.gets, key)
        return found

    # After a broken connection these two are repeated. They may then find their own change and return False, but True
    # is never returned twice.

    def cas(self, name: str, value: bytes, token: bytes | None, lifetime: float) -> bool:
        key = self._value_key(name, lifetime)
        node = self._cluster().node(key)
        if token is None:
            return bool(node.run(_Client.add, key, value, _expiry(lifetime), False))
        return bool(node.run(_Client.cas, key, value, token, _expiry(lifetime), False))

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        key = self._value_key(name, lifetime)
        return bool(self._cluster().home(key).run(_Client.add, key, value, _expiry(lifetime), False))

    def close(self) -> None:
        """Closes this hub's connections. Those of another thread's hub end with that thread."""
        self._cluster().close()

    def _write(self, change: Change) -> None:
        for _, error in self.write_many([change]):
            if error is not None:
                raise error

    def _value_key(self, name: str, lifetime: float = 1) -> bytes:
        check_value(name, lifetime)
        return self._values + name.encode()


def _expiry(lifetime: float) -> int:
    seconds = math.ceil(lifetime)  # to memcached 0 means for ever
    return seconds if seconds <= RELATIVE_LIMIT else int(time.time()) + seconds


class _Cluster:
    """The nodes, as one hub sees them. One that failed is not used for a while."""

    def __init__(self, nodes: Sequence[tuple[str, int]], connect_timeout: float, timeout: float, pool: int) -> None:
        self._nodes = [_Node(node, connect_timeout, timeout, pool) for node in nodes]

    def node(self, key: bytes) -> _Node:
        """The key's home; if that is down, the next node. Raises ConnectionError if all are down."""
        home = _home(key, self._nodes)
        if not home.down:
            return home
        up = [each for each in self._nodes if not each.down]
        if not up:
            raise ConnectionError("memcached: all nodes are down")
        return _home(key, up)

    def home(self, key: bytes) -> _Node:
        """The node that has the key if all are up. Raises ConnectionError if it is down."""
        home = _home(key, self._nodes)
        if home.down:
            raise ConnectionError(f"{home} failed less than {DEAD_SECONDS} s ago")
        return home

    def close(self) -> None:
        for node in self._nodes:
            node.close()


def _home(key: bytes, nodes: list[_Node]) -> _Node:
    if len(nodes) == 1:
        return nodes[0]
    return max(nodes, key=lambda node: blake2b(node.name + key, digest_size=8).digest())


class _Question:
    """What greenlets ask of a node at once. It waits in a greenlet of its own, so that a kill of one harms no other."""

    def __init__(self, node: _Node) -> None:
        self.commands: list[bytes] = []  # puts and removals, of one greenlet
        self.keys: dict[bytes, int] = {}  # to look up, and how many greenlets ask for each
        self.answer: tuple[list[Exception | None], dict[bytes, bytes]] | None = None  # _Client.ask()'s
        self.error: Exception = ConnectionError(f"{node}: the question was ended")
        self.task = here().spawn(node.ask, self)

    def wait(self) -> tuple[list[Exception | None], dict[bytes, bytes]]:
        self.task.join()
        if self.answer is None:
            raise copy(self.error)
        return self.answer


class _Node:
    """One memcached and the connections to it."""

    def __init__(self, server: tuple[str, int], connect_timeout: float, timeout: float, pool: int) -> None:
        self._server = server
        self.name = b"%b:%d-" % (server[0].encode(), server[1])
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._places = here().semaphore(pool)
        self._idle: list[_Client] = []
        self._down_until = 0.0
        self._gathering: _Question | None = None  # the one that greenlets may still join

    def __str__(self) -> str:
        return f"memcached {self._server[0]}:{self._server[1]}"

    @property
    def down(self) -> bool:
        return self._down_until > 0 and time.monotonic() < self._down_until

    def look_up(self, key: bytes) -> bytes | None:
        """The value, or None. Asks together with other greenlets."""
        question = self._gathering
        if question is None or len(question.keys) >= MAX_KEYS or question.task.dead:
            self._gathering = question = _Question(self)
        question.keys[key] = question.keys.get(key, 0) + 1
        try:
            return question.wait()[1].get(key)
        except BaseException:  # it was killed, or is where nobody may wait
            if self._gathering is question:
                question.keys[key] -= 1
                if not question.keys[key]:
                    del question.keys[key]
            raise

    def write(self, commands: list[bytes]) -> list[Exception | None]:
        """What went wrong with each. If greenlets are about to ask for keys, it is sent with that."""
        question = self._gathering
        if question is None or question.commands or question.task.dead:
            return self.run(_Client.ask, commands, ())[0]
        question.commands = commands
        try:
            return question.wait()[0]
        except BaseException:
            commands.clear()  # those that were not sent yet must not follow what this greenlet sends next
            raise

    def ask(self, question: _Question) -> None:
        here().sleep(0)  # those who put begin one turn later
        if self._gathering is question:
            self._gathering = None
        if not question.keys and not question.commands:
            return
        try:
            question.answer = self.run(_Client.ask, question.commands, question.keys)
        except Exception as error:
            question.error = error.with_traceback(None)  # which holds this frame

    def run(self, command: Callable[..., T], *arguments: object) -> T:
        """Calls a method of _Client on a connection. After an OSError the node is down for DEAD_SECONDS."""
        try:
            with self._places:
                if self._idle:
                    try:
                        return self._run_on(self._idle.pop(), command, *arguments)
                    except (ConnectionError, MemcacheUnexpectedCloseError):
                        self.close()  # memcached has been restarted: the other connections are dead, too
                try:
                    return self._run_on(self._connected(), command, *arguments)
                except MemcacheUnexpectedCloseError as error:
                    raise ConnectionResetError(f"{self} hung up") from error
        except OSError:
            self._down_until = time.monotonic() + DEAD_SECONDS
            raise

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _run_on(self, client: _Client, command: Callable[..., T], *arguments: object) -> T:
        try:
            result = command(client, *arguments)
        except BaseException:  # its answer may still come
            client.close()
            raise
        self._idle.append(client)
        return result

    def _connected(self) -> _Client:
        # Not by Client: it tries a name's first address only, and leaves its socket open if it is killed.
        client = _Client(self._server)
        client.sock = _Wire(self._connect(), self._timeout)
        return client

    def _connect(self) -> Socket:
        problem: OSError | None = None
        socket = here().socket
        for family, kind, protocol, _, address in socket.getaddrinfo(*self._server, type=socket.SOCK_STREAM):
            sock: Socket = socket.socket(family, kind, protocol)
            _sockets.add(sock)
            try:
                sock.settimeout(self._connect_timeout)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
        raise ConnectionError(f"{self}: {problem}") from problem


_sockets: WeakSet[Socket] = WeakSet()  # all of this process, those that connect included


def _part() -> None:
    """Separates a forked child from its parent's connections.

    The child has copies of idle connections, and of greenlets that wait for answers. Their descriptors become a pipe
    that nobody writes to: to go on with it is an OSError. A closed descriptor could become another file instead.
    """
    if _sockets:
        reading, writing = os.pipe()
        os.close(writing)
        for sock in _sockets:
            if sock.fileno() >= 0:
                os.dup2(reading, sock.fileno(), inheritable=False)
        os.close(reading)
        _sockets.clear()


os.register_at_fork(after_in_child=_part)


class _Client(Client):  # type: ignore[misc]
    """pymemcache's Client, with many sets and deletes for one wait, and limits for what memcached answers."""

    def check_key(self, key: bytes, key_prefix: bytes) -> bytes:
        return key  # keys of sessions are hexadecimal, and those of values were checked

    def ask(self, commands: list[bytes], keys: Collection[bytes]) -> tuple[list[Exception | None], dict[bytes, bytes]]:
        """Sends commands, and asks for the values of keys. Returns what went wrong with each command, and the values
        that were found. Raises if an answer does not tell what it is for.

        pymemcache's get_many() reads line by line: that took three times as much Python, the largest part of a lookup.

        Each command has a line for an answer. Behind these come b"VALUE key flags size" and the value, for each key
        that is found, and b"END". Our flags are 0.
        """
        request, left = b"".join(commands), len(commands)
        if keys:
            request += b"get %b\r\n" % b" ".join(keys)
        self.sock.sendall(request, len(keys) or 1)
        written: list[Exception | None] = []
        found: dict[bytes, bytes] = {}
        answer, start = self._receive(), 0
        while left or keys:
            while (line := answer.find(b"\r\n", start)) < 0:
                if len(answer) - start > MAX_LINE:
                    raise _too_long()
                answer += self._receive()
            if left:
                written.append(_outcome(answer[start:line]))
                left -= 1
                start = line + 2
                continue
            if answer.startswith(b"END\r\n", start):
                start = line + 2
                break
            value, _, size = answer[start:line].rpartition(b" ")
            key = value[6:-2]
            if value != b"VALUE %b 0" % key or key not in keys or not size.isdigit():
                self._raise_errors(answer[start:line], b"get")
                raise MemcacheUnknownError(answer[start : start + 32])
            length = int(size[:8])  # more digits are too much in any case
            if length > MAX_VALUE:
                raise _too_long()
            start = line + 2
            end = start + length
            if (missing := end + 2 - len(answer)) > 0:
                more = bytearray()  # it may come in crumbs
                while len(more) < missing:
                    more += self._receive(max(missing - len(more), RECEIVED))
                answer += more
            if not answer.startswith(b"\r\n", end):
                raise MemcacheUnknownError(b"a value of another size")
            found[key] = answer[start:end]
            start = end + 2
        if len(answer) > start:
            raise MemcacheUnknownError(b"an answer too many")
        return written, found

    def _receive(self, size: int = RECEIVED) -> bytes:
        received: bytes = self.sock.recv(size)
        if not received:
            raise MemcacheUnexpectedCloseError
        return received

    def _extract_value(self, expect_cas: bool, line: bytes, *others: object) -> object:
        if len(line) > MAX_LINE or int(line.split(b" ", 4)[3]) > MAX_VALUE:
            raise _too_long()
        return super()._extract_value(expect_cas, line, *others)

    def _raise_errors(self, line: bytes, name: bytes) -> None:
        super()._raise_errors(line[:MAX_LINE], name)


def _outcome(answer: bytes) -> Exception | None:
    """What the answer to a put or a removal says."""
    if answer in _WRITTEN:
        return None
    if answer.startswith(b"SERVER_ERROR "):
        refused: Exception = MemcacheServerError(answer[13:MAX_LINE])
        return refused
    raise MemcacheUnknownError(answer[:32])


def _too_long() -> OSError:
    """Makes an error that is no ConnectionError: after that the node would be asked again."""
    return OSError(errno.EMSGSIZE, "memcached answers with more than it was ever given to keep")


class _Wire:
    """The part of a socket that Client uses. Limits each answer to MAX_ANSWER bytes, for each key that is asked for.

    Waits before the first recv(): the answer is never there yet.
    """

    def __init__(self, sock: Socket, timeout: float) -> None:
        self._sock = sock
        self._sock.settimeout(timeout)
        self._readable = here().readable(sock.fileno(), timeout)

    def sendall(self, data: bytes, answers: int = 1) -> None:
        self._room = MAX_ANSWER * answers
        sent = self._sock.send(data)
        if sent < len(data):
            self._sock.sendall(memoryview(data)[sent:])

    def recv(self, size: int) -> bytes:
        self._readable.wait()
        received: bytes = self._sock.recv(size)
        self._room -= len(received)
        if self._room < 0:
            raise _too_long()
        return received

    def close(self) -> None:
        self._readable.close()
        self._sock.close()
