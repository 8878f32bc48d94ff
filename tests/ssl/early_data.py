"""A client and a server with early data."""

from __future__ import annotations

from contextlib import contextmanager

import gevent
import gevent.event
import gevent.socket
import pytest

from greentls.core.connection import Connection
from greentls.errors import WantRead
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import contexts, outcome, talk

REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class Guard(MemoryStore):
    """Says that it is shared, as far as one process can tell."""

    name = "guard"
    shared = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def add(self, name, value, lifetime):
        self.asked.append((name, lifetime))
        return super().add(name, value, lifetime)


class Site:
    """A client's context, a server's, and a session that allows early data."""

    def __init__(self, pki, guard=None, **settings):
        self.client, self.server = contexts(pki)
        self.server.session_store = MemoryStore()
        self.server.replay_guard = Guard() if guard is None else guard
        self.server.max_early_data = 1000
        for name, value in settings.items():
            setattr(self.server, name, value)
        with self.connected() as (ours, theirs):
            assert (theirs.early_data, theirs.early_data_accepted, theirs.handshake_finished) == (b"", None, True)
            self.session = ours.session
        assert self.session.max_early_data == 1000

    @contextmanager
    def connected(self, early=b"", session=None):
        """(client's socket, server's), after their handshakes and hello both ways."""
        here, there = socketpair()
        jobs = [gevent.spawn(outcome, self.visit, here, early, session), gevent.spawn(outcome, self.serve, there)]
        ours, theirs = (job.get(timeout=PATIENCE) for job in jobs)
        try:
            for end in (ours, theirs):
                if isinstance(end, Exception):
                    raise end
            if early and theirs.early_data:
                assert theirs.recv(1000) == early
            talk(ours, theirs)
            self.server.drain_sessions(PATIENCE)
            yield ours, theirs
        finally:
            for end in (ours, theirs):
                if not isinstance(end, Exception):
                    end.close()

    def visit(self, sock, early=b"", session=None):
        sock = self.client.wrap_socket(
            sock, server_hostname="localhost", session=session, do_handshake_on_connect=False
        )
        sock.early_data = early
        sock.do_handshake()
        return sock

    def serve(self, sock):
        return self.server.wrap_socket(sock, server_side=True)

    def offered(self, early=REQUEST):
        """(a Connection whose first flight is on its way, its socket, the server's socket)."""
        connection, flight = self.first_flight(early)
        here, there = socketpair()
        here.sendall(flight)
        return connection, here, there

    def first_flight(self, early):
        connection = Connection(self.client.compile(False), server_hostname="localhost", session=self.session)
        connection.early_data = early
        with pytest.raises(WantRead):
            connection.do_handshake()
        return connection, connection.data_to_send()

    def finish(self, connection, sock):
        """The client's part of it."""
        while True:
            connection.receive_data(sock.recv(65536))
            try:
                connection.do_handshake()
            except WantRead:
                continue
            sock.sendall(connection.data_to_send())
            return


def socketpair():
    pair = gevent.socket.socketpair()
    for sock in pair:
        sock.settimeout(PATIENCE)
    return pair
