"""Agent: the keys of a key process (``greentls keys serve``), over its Unix socket."""

from __future__ import annotations

import os
from hashlib import sha256
from itertools import count
from socket import AF_UNIX, SOCK_STREAM
from typing import TYPE_CHECKING
from weakref import finalize

from cryptography.hazmat.primitives import serialization

from greentls.errors import SigningError
from greentls.hub import Deadline, PerHub, here
from greentls.keys.algorithms import PublicKey, algorithms_of
from greentls.keys.protocol import DONE, LIST, MAX_ANSWER, SIGN, receive, send
from greentls.keys.signer import MAX_WAITING

if TYPE_CHECKING:
    from socket import socket as Socket  # or what a hub has in its place

__all__ = ["Agent"]

# At once, of each hub. The key process signs one after the other, so that more of them would wait there, not here.
CONNECTIONS = 32
MAX_REASON = 200  # bytes of a refusal that an error shows
TIMEOUT = 10.0  # seconds for an answer, the turn included: beside a callback_timeout, so that nothing hangs without one


class Agent:
    """A KeySource: the keys of the key process that listens at path. Connects when it is first needed.

    timeout: seconds for each answer. max_waiting: signatures of one key that may be waited for at once. What the
    process refuses or fails is a SigningError; TimeoutError if it does not answer.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = TIMEOUT, max_waiting: int = MAX_WAITING
    ) -> None:
        self.path, self.timeout, self.max_waiting = os.fspath(path), timeout, max_waiting
        self._connections = PerHub(_Connections)

    def get(self, public_key: PublicKey) -> _AgentKey | None:
        """Asks the process whether it has the key. Raises SigningError, TimeoutError."""
        spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        listed, known, at = self._ask(LIST, "list"), [], 0
        while at < len(listed):
            begin = at + 2
            at = begin + int.from_bytes(listed[at:begin], "big")
            known.append(listed[begin:at])
        return _AgentKey(self, public_key, sha256(spki).digest()) if spki in known else None

    def _ask(self, request: bytes, what: str) -> bytes:
        with Deadline(self.timeout, f"key process {self.path}: no answer in {{}} s"):
            try:
                answer = self._connections.get().ask(self.path, request)
            except OSError as error:
                raise SigningError(what, f"key process {self.path}: {error.strerror or error}") from error
        if not answer.startswith(DONE):
            reason = answer[1:MAX_REASON].decode("ascii", "replace")
            raise SigningError(what, f"key process {self.path}: {reason!r}")
        return answer[1:]


class _AgentKey:
    """A SigningKey."""

    def __init__(self, agent: Agent, public_key: PublicKey, fingerprint: bytes) -> None:
        self.public_key, self.algorithms = public_key, algorithms_of(public_key)
        self.max_waiting = agent.max_waiting
        self._agent, self._fingerprint = agent, fingerprint

    def sign(self, data: bytes, algorithm: str) -> bytes:
        request = SIGN + self._fingerprint + bytes([len(algorithm)]) + algorithm.encode() + data
        return self._agent._ask(request, algorithm)


_numbers = count(1)  # of requests


class _Connections:
    """Those of one hub. Each has one request at a time, so whoever is killed while it waits closes its connection.

    An idle one is a descriptor, not a socket of the hub's: to close that takes the hub, which may be gone.
    """

    def __init__(self) -> None:
        self._turns = here().semaphore(CONNECTIONS)
        self._idle: list[int] = []
        finalize(self, _close, self._idle)

    def ask(self, path: str, request: bytes) -> bytes:
        """Raises OSError. A connection that was idle may have ended with the process that it led to, so another one is
        tried: to ask for a signature twice does no harm."""
        with self._turns:
            while (sock := self._idle_one()) is not None:
                try:
                    return self._ask(sock, request)
                except ConnectionError:
                    continue
            sock = here().socket.socket(AF_UNIX)
            try:
                sock.connect(path)
            except BaseException:
                sock.close()
                raise
            return self._ask(sock, request)

    def _idle_one(self) -> Socket | None:
        try:
            descriptor = self._idle.pop()  # without a look before, after which another greenlet might take it
        except IndexError:
            return None
        sock: Socket = here().socket.socket(AF_UNIX, SOCK_STREAM, 0, descriptor)
        return sock

    def _ask(self, sock: Socket, request: bytes) -> bytes:
        number = next(_numbers) & 0xFFFFFFFF
        try:
            send(sock, number, request)
            answer = receive(sock, MAX_ANSWER)
            if answer is None:
                raise ConnectionResetError("it has closed the connection")
            if answer[0] != number:
                raise ConnectionError("the answer to another request")
        except BaseException:
            sock.close()
            raise
        self._idle.append(sock.detach())
        return answer[1]


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
