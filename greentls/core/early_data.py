"""A server's connection that takes early data: what a client sends along with its ClientHello (RFC 8446 2.3).

OpenSSL has another way in for it: SSL_read_early_data() is called instead of SSL_do_handshake(). It gives early data as
SSL_read() gives data, until it says that there will be no more; only then may SSL_do_handshake() finish the handshake.
In between, when the server's flight has gone out and the client's Finished has not come, the server may write by
SSL_write_early_data(), whose name is the client's.

So here a connection is established as soon as early data has come (State.EARLY): do_handshake() returns, read() gives
it, write() answers it, and the end of the handshake happens inside a read(), or in a second do_handshake(). Until then
all that was read may be a replay, an attacker's copy of what a client once sent. If no early data was accepted,
everything is as in Connection.
"""

from __future__ import annotations

from collections import deque

from greentls.core.bridge import WANT_READ, nobody
from greentls.core.config import Config
from greentls.core.connection import Connection
from greentls.core.hooks import Owner
from greentls.openssl import bios, connections
from greentls.openssl.library import SSL, Memory

__all__ = ["EarlyConnection", "server_connection"]


class EarlyConnection(Connection):
    """early_data: what has come of it so far; Config.max_early_data bytes at most."""

    def __init__(self, config: Config, *, owner: Owner = nobody) -> None:
        super().__init__(config, owner=owner)
        self._kept: deque[bytes] = deque()  # early data that do_handshake() received, and read() has not given yet
        self._more_early_data = True

    def step_handshake(self) -> int:
        """1: finished, or, the first time, some early data has come. WANT_READ: not yet."""
        handshake = self.handshake
        handshake.begin()
        was_established = handshake.established
        while not handshake.established or (was_established and not handshake.finished):
            buffer = bios.read_buffer(bios.RECORD_SIZE)
            length = self._step_early("do_handshake", buffer, bios.RECORD_SIZE)
            if length <= WANT_READ:
                return length
            if length > 1:
                self._kept.append(bios.read_bytes(buffer, length - 1))
        return 1

    def step_read(self, buffer: Memory, room: int) -> int:
        handshake = self.handshake
        if not handshake.finished and handshake.established and not self._kept:
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

    def _step_early(self, name: str, buffer: Memory, room: int) -> int:
        """1 + n: n bytes of early data are in the buffer. 1: the handshake is finished. WANT_READ."""
        length = self._enter_handshake(name, self._accept, (self._ssl, buffer, room))
        if length > 1:
            self.early_data += bios.read_bytes(buffer, length - 1)
        return length

    def _accept(self, ssl: SSL, buffer: Memory, room: int) -> int:
        if self._more_early_data:
            length = connections.read_early_data(ssl, buffer, room)
            if length > 0:
                self._encrypt = connections.write_early_data  # inside of the operation, before anybody may write
                return length + 1
            if length:
                return length
            self._more_early_data = False
        # At once: SSL_read_early_data() has found by now, and hides, what is wrong with the client's Finished.
        result = connections.do_handshake(ssl)
        if result == 1:
            self._encrypt = connections.write
        return result

    @property
    def pending(self) -> int:
        return sum(map(len, self._kept)) or super().pending


def server_connection(config: Config, owner: Owner, early_data: bool) -> Connection:
    """early_data: it may be accepted, as whoever reads from the connection can tell what may be a replay."""
    return (EarlyConnection if early_data and config.max_early_data else Connection)(config, owner=owner)
