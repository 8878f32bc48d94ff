"""Sockets that wait in an event loop, for clients of stores that accept another module in place of ``socket``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from greentls.hub.finding import here
from greentls.hub.per_hub import unpatched

__all__ = ["Addresses", "SocketHub", "module"]

T = TypeVar("T")

Addresses = Sequence["tuple[int, int, int, str, Address]"]


class SocketHub(Protocol):
    """What these sockets need of their hub."""

    def until_ready(self, descriptor: int, writing: bool, timeout: float | None) -> None:
        """Waits until a descriptor can be read, or written. Raises TimeoutError after timeout seconds."""

    def getaddrinfo(self, host: str | None, port: int | str | None, **options: int) -> Addresses:
        """As socket.getaddrinfo()."""


if TYPE_CHECKING:
    from _socket import _Address as Address
    from socket import socket as _Socket

    from _typeshed import ReadableBuffer
else:
    _Socket = unpatched("socket", "socket")


class Socket(_Socket):
    """A client's socket. Each call waits at most as long as settimeout() says, then raises TimeoutError."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        super().settimeout(0.0)
        self._patience: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._patience = seconds

    def gettimeout(self) -> float | None:
        return self._patience

    def setblocking(self, blocking: bool) -> None:
        self._patience = None if blocking else 0.0

    def connect(self, address: Address) -> None:
        """Connects. address: must not contain a name that needs a lookup."""
        code = self.connect_ex(address)
        if code == errno.EINPROGRESS:
            _hub().until_ready(self.fileno(), True, self._patience)
            code = self.getsockopt(module.SOL_SOCKET, module.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def recv(self, *arguments: object) -> bytes:
        return self._wait(super().recv, False, *arguments)

    def recv_into(self, *arguments: object) -> int:
        return self._wait(super().recv_into, False, *arguments)

    def send(self, *arguments: object) -> int:
        return self._wait(super().send, True, *arguments)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        with memoryview(data) as view, view.cast("B") as octets:
            sent = 0
            while sent < len(octets):
                sent += self.send(octets[sent:], flags)

    def _wait(self, call: Callable[..., T], writing: bool, *arguments: object) -> T:
        while True:
            try:
                return call(*arguments)
            except BlockingIOError:
                if self._patience == 0:
                    raise
            _hub().until_ready(self.fileno(), writing, self._patience)


def getaddrinfo(
    host: str | None, port: int | str | None, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> Addresses:
    """socket.getaddrinfo()."""
    return _hub().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)


def create_connection(address: tuple[str, int], timeout: float | None = None) -> Socket:
    """Returns a socket that is connected to the first address of the host that answers. timeout: seconds for each
    address."""
    problem: OSError | None = None
    for family, kind, protocol, _, resolved in getaddrinfo(*address, type=module.SOCK_STREAM):
        sock = Socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            sock.connect(resolved)
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    try:
        raise problem or OSError(f"{address[0]} has no address")
    finally:
        del problem  # its traceback has this frame


def _hub() -> SocketHub:
    return cast("SocketHub", here())


def _constants() -> dict[str, object]:
    import socket

    return {
        name: value
        for name, value in vars(socket).items()
        if name.isupper() or (isinstance(value, type) and issubclass(value, Exception))
    }


module = ModuleType("greentls.hub.asyncio_sockets.module", __doc__)
vars(module).update(_constants(), socket=Socket, getaddrinfo=getaddrinfo, create_connection=create_connection)
