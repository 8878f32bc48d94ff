"""What is left when TLS ends on a connection that goes on in clear (FTP's CCC, LDAP, proxies)."""

from __future__ import annotations

from typing import Any

from gevent import socket

__all__ = ["UnwrappedSocket"]


class UnwrappedSocket(socket.socket):  # type: ignore[misc]
    """A gevent socket that first gives what the peer sent behind its close_notify.

    The pump receives as much as there is, so some of the plain text may have come along with the last record. select()
    and friends do not see it: read until ahead is empty before polling the descriptor.
    """

    ahead = b""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if not self.ahead:
            return super().recv(bufsize, flags)  # type: ignore[no-any-return]
        data = self.ahead[:bufsize]
        if not flags & socket.MSG_PEEK:
            self.ahead = self.ahead[bufsize:]
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if not self.ahead:
            return super().recv_into(buffer, nbytes, flags)  # type: ignore[no-any-return]
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(nbytes or len(octets), flags)
            octets[: len(data)] = data
            return len(data)
