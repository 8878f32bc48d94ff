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

from greentls.core.config import Config
from greentls.core.connection import Connection
from greentls.core.hooks import Owner
from greentls.openssl import bios, connections
from greentls.openssl.library import SSL, Memory
from greentls.openssl.pump import DONE, ENDED, UNSENT, WANT_READ, nobody

__all__ = ["EarlyConnection", "server_connection"]


class EarlyConnection(Connection):
    """early_data: what has come of it so far; Config.max_early_data bytes at most."""

    def __init__(self, config: Config, owner: Owner = nobody) -> None:
        super().__init__(config, owner)
        self._kept: deque[bytes] = deque()  # early data that do_handshake() received, and read() has not given yet
        self._more_early_data = True
        self._answering = False  # the client's Finished has not come, and SSL_write() would wait for it

    def step_handshake(self) -> int:
        """DONE: finished, or, the first time, some early data has come."""
        self.begin()
        was_established = self.established
        while not self.established or (was_established and not self.finished):
            said = self._step_early("do_handshake", bios.RECORD_SIZE)
            if isinstance(said, bytes):
                self._kept.append(said)
            elif said != DONE:
                return said
        return DONE

    def step_read(self, size: int) -> bytes | int:
        if self.finished and not self._kept:
            self.__class__ = Connection  # type: ignore[assignment]  # its base: it is as any other from now on
            return self.step_read(size)
        while self.established and not (self.finished or self._kept):
            said = self._step_early("read", min(size, bios.RECORD_SIZE))
            if said != DONE:
                return said
        try:
            data = self._kept.popleft()
        except IndexError:
            return super().step_read(size)
        if len(data) > size:
            self._kept.appendleft(data[size:])
        return data[:size]

    def step_read_into(self, address: int, room: int) -> int:
        said = self.step_read(room)
        return said if isinstance(said, int) else bios.fill(address, said)

    def step_write(self, data: Memory | bytes) -> int:
        return self._write_early(data, len(data)) if self._answering else super().step_write(data)

    def step_write_from(self, address: int, length: int) -> int:
        if self._answering:
            return self._write_early(bios.at(address), length)
        return super().step_write_from(address, length)

    def _write_early(self, data: Memory | bytes, length: int) -> int:
        if self.attached and self.unsent and (step := self.send()) != DONE:
            return step
        if length:
            self.run("write", connections.write_early_data, (self.ssl, data, length))
        return DONE if not self.attached or self.send() == DONE else UNSENT

    def _step_early(self, name: str, room: int) -> bytes | int:
        """Early data. DONE: the handshake is finished. Or what a Pump waits for."""
        buffer = bios.read_buffer(room)
        while True:
            length = self.run(name, self._accept, (self.ssl, buffer, room))
            if length > 1:
                data = bios.read_bytes(buffer, length - 1)
                self.early_data += data
                self.accept_early_data()
                return data
            step = ENDED if length == WANT_READ and self.eof else length
            self._shaken(name, step)
            if step != WANT_READ:
                return step
            step = self.refill()
            if step != DONE:
                return step

    def _accept(self, ssl: SSL, buffer: Memory, room: int) -> int:
        if self._more_early_data:
            length = connections.read_early_data(ssl, buffer, room)
            if length > 0:
                self._answering = True  # inside of the operation, before anybody may write
                return length + 1
            if length:
                return length
            self._more_early_data = False
        # At once: SSL_read_early_data() has found by now, and hides, what is wrong with the client's Finished.
        result = connections.do_handshake(ssl)
        if result == 1:
            self._answering = False
        return result

    @property
    def pending(self) -> int:
        return sum(map(len, self._kept)) or super().pending


def server_connection(config: Config, owner: Owner, early_data: bool) -> Connection:
    """early_data: it may be accepted, as whoever reads from the connection can tell what may be a replay."""
    return (EarlyConnection if early_data and config.max_early_data else Connection)(config, owner)
