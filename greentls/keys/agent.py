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

# Connections that each hub has at once. The key process makes one signature at a time, so with more connections the
# requests would only wait there instead of here.
CONNECTIONS = 32
MAX_REASON = 200  # bytes of a refusal that an error shows
# Seconds for an answer, including the wait for a connection. It applies beside callback_timeout, so that nothing hangs
# if there is none.
TIMEOUT = 10.0


class Agent:
    """A KeySource that has the keys of the key process listening at path. It connects at the first use.

    timeout: seconds for each answer. max_waiting: signatures by one key that may be outstanding at once. Signing raises
    SigningError if the process refuses or fails, and TimeoutError if it does not answer.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = TIMEOUT, max_waiting: int = MAX_WAITING
    ) -> None:
        self.path, self.timeout, self.max_waiting = os.fspath(path), timeout, max_waiting
        self._connections = PerHub(_Connections)

    def get(self, public_key: PublicKey) -> _AgentKey | None:
        """Asks the process whether it has the key, and waits for the answer. Raises SigningError, TimeoutError."""
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
    """A SigningKey of the key process."""

    def __init__(self, agent: Agent, public_key: PublicKey, fingerprint: bytes) -> None:
        self.public_key, self.algorithms = public_key, algorithms_of(public_key)
        self.max_waiting = agent.max_waiting
        self._agent, self._fingerprint = agent, fingerprint

    def sign(self, data: bytes, algorithm: str) -> bytes:
        request = SIGN + self._fingerprint + bytes([len(algorithm)]) + algorithm.encode() + data
        return self._agent._ask(request, algorithm)


_numbers = count(1)  # requests are numbered


class _Connections:
    """The connections of one hub. Each carries one request at a time, so a greenlet that is killed while it waits
    closes its connection.

    An idle connection is kept as a descriptor. Closing a socket of the hub's would need the hub, which may be gone.
    """

    def __init__(self) -> None:
        self._turns = here().semaphore(CONNECTIONS)
        self._idle: list[int] = []
        finalize(self, _close, self._idle)

    def ask(self, path: str, request: bytes) -> bytes:
        """Returns the answer. Raises OSError.

        An idle connection may be dead because its process has ended. In that case the next one is tried. Asking for a
        signature twice does no harm.
        """
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
            descriptor = self._idle.pop()  # no check before: another greenlet might take the last one after it
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
                raise ConnectionError("it answered another request")
        except BaseException:
            sock.close()
            raise
        self._idle.append(sock.detach())
        return answer[1]


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
