"""A server's connection that takes early data: what a client sends along with its ClientHello (RFC 8446 2.3).

OpenSSL has another way in for it: SSL_read_early_data() is called instead of SSL_do_handshake(). It gives early data as
SSL_read() gives data, until it says that there will be no more; only then may SSL_do_handshake() finish the handshake.
In between, when the server's flight has gone out and the client's Finished has not come, the server may write by
SSL_write_early_data(), whose name is the client's.

So here a connection is established as soon as early data has come: do_handshake() returns, read() gives it, write()
answers it, and the end of the handshake happens inside a read(), or in a second do_handshake(). Until then it is
unfinished: all that was read so far may be a replay, somebody's copy of what a client once sent. Where no early data
was taken, everything is as in Connection.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from greentls.core.bridge import WANT_READ
from greentls.core.config import Config
from greentls.core.connection import Connection
from greentls.openssl import bios, connections
from greentls.openssl.library import lib

__all__ = ["EarlyConnection", "connection_for"]


class EarlyConnection(Connection):
    """early_data: what has come of it so far; Context.max_early_data bytes at most."""

    def __init__(self, context: Config) -> None:
        super().__init__(context)
        self._kept: deque[bytes] = deque()  # of early data, what do_handshake() received and read() has not given yet
        self._more_early_data = True

    def step_handshake(self) -> int:
        """1: finished, or, the first time, some early data has come. WANT_READ: not yet."""
        was_established = self.established
        while not self.established or (self.unfinished and was_established):
            buffer = bios.read_buffer(bios.RECORD_SIZE)
            length = self._step_early("do_handshake", buffer, bios.RECORD_SIZE)
            if length <= WANT_READ:
                return length
            if length > 1:
                self._kept.append(bios.read_bytes(buffer, length - 1))
        return 1

    def step_read(self, buffer: Any, room: int) -> int:
        if self.unfinished and not self._kept:
            length = self._step_early("read", buffer, room)
            if length != 1:
                return length - 1 if length > 1 else length
        try:
            data = self._kept.popleft()
        except IndexError:
            return super().step_read(buffer, room)
        if len(data) > room:
            self._kept.appendleft(data[room:])
        return bios.fill(buffer, data[:room])

    def _step_early(self, name: str, buffer: Any, room: int) -> int:
        """1 + n: n bytes of early data are in the buffer. 1: the handshake is finished. WANT_READ."""
        length = self._enter_handshake(name, self._accept, (self._ssl, buffer, room))
        if length > 1:
            self.early_data += bios.read_bytes(buffer, length - 1)
        elif length == 1:
            self.unfinished, self._encrypt = False, lib.SSL_write
        return length

    def _accept(self, ssl: Any, buffer: Any, room: int) -> int:
        if self._more_early_data:
            length = connections.read_early_data(ssl, buffer, room)
            if length > 0:
                # Inside of the operation: nobody may take the connection for established and finished in between.
                self.unfinished, self._encrypt = True, connections.write_early_data
                return length + 1
            if length:
                return length
            self._more_early_data = False
        # At once: what is wrong with the client's Finished has been found by now, and SSL_read_early_data() hides it.
        result: int = lib.SSL_do_handshake(ssl)
        return result

    def release(self) -> bool:
        return not self.unfinished and super().release()

    @property
    def pending(self) -> int:
        return sum(map(len, self._kept)) or super().pending


def connection_for(context: Config, early_data: bool) -> type[Connection]:
    """The class of a server's connection. early_data: whoever reads from it can tell what may be a replay."""
    return EarlyConnection if early_data and context.max_early_data else Connection
