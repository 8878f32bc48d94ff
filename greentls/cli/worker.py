"""One worker of greentls serve: gevent's WSGI server over greentls."""

from __future__ import annotations

import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from greentls.cli.options import written
from greentls.cli.prefork import Parent
from greentls.ssl import SSLContext

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

__all__ = ["SESSIONS_SECONDS", "run"]

log = logging.getLogger("greentls.serve")

SESSIONS_SECONDS = 2.0  # for the store to take queued sessions: twice the callback timeout


def run(
    listener: socket.socket,
    application: WSGIApplication,
    context: SSLContext,
    parent: Parent,
    drain_seconds: float,
    alone: bool,
) -> int:
    """Serves until SIGTERM or the parent's end, then drains. Returns the exit status.

    drain_seconds: time for running requests. alone: whether this is the only worker.
    """
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    orphaned = gevent.get_hub().loop.io(parent.gone, 1)
    orphaned.start(stop.set)
    server = _Server(
        listener,
        application,
        spawn=Pool(),
        log=_AccessLog(),
        error_log=log,
        handler_class=_Handler,
        environ={"wsgi.multiprocess": not alone},  # true makes the server accept one connection at a time
        ssl_context=context,
    )
    server.start()
    parent.ready()
    stop.wait()
    orphaned.close()
    server.drain(drain_seconds)
    if not context.drain_sessions(SESSIONS_SECONDS):
        log.warning("the session store did not take every session in %g s", SESSIONS_SECONDS)
    if context.session_store is not None:
        context.session_store.close()
    return 0


class _Server(WSGIServer):  # type: ignore[misc]  # gevent is untyped
    """A WSGIServer that can drain, and logs a failed handshake in one line without a traceback."""

    draining = False

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)
        self.idle: set[gevent.Greenlet] = set()  # greenlets that wait for another request on a connection

    def wrap_socket_and_handle(self, client_socket: socket.socket, address: tuple[str, int]) -> None:
        try:
            tls = self.wrap_socket(client_socket, **self.ssl_args)
        except OSError as error:  # ssl.SSLError and TimeoutError are subclasses
            log.warning("%s: no handshake: %s", written(*address), error)
            return
        with tls:
            self.handle(tls, address)

    def drain(self, seconds: float) -> None:
        """Accepts no more connections and lets running requests finish; after so many seconds they are cut off."""
        self.draining = True
        self.close()
        for greenlet in list(self.idle):
            greenlet.kill(block=False)
        if not self.pool.join(timeout=seconds):
            log.warning("cut off after %g s: connections that had not ended: %d", seconds, len(self.pool))
            self.pool.kill(timeout=1)


class _Handler(WSGIHandler):  # type: ignore[misc]  # gevent is untyped
    """A WSGIHandler that puts the connection into environ["greentls.socket"]."""

    requests = 0
    close_connection = False

    def get_environ(self) -> WSGIEnvironment:
        environ: WSGIEnvironment = super().get_environ()
        environ["greentls.socket"] = self.socket
        return environ

    def read_requestline(self) -> str:
        self.requests += 1
        if self.requests == 1:
            return super().read_requestline()  # type: ignore[no-any-return]  # gevent is untyped
        if self.server.draining:
            return ""
        greenlet = gevent.getcurrent()
        self.server.idle.add(greenlet)
        try:
            return super().read_requestline()  # type: ignore[no-any-return]  # gevent is untyped
        finally:
            self.server.idle.remove(greenlet)

    def finalize_headers(self) -> None:
        if self.server.draining and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))
        super().finalize_headers()

    def handle(self) -> None:
        file = self.rfile
        try:
            super().handle()
        except OSError as error:
            log.warning("%s: %s", written(*self.client_address), error)
        finally:
            file.close()  # gevent does not, and a traceback that holds it would keep the socket open

    def _handle_client_error(self, error: Exception) -> object:
        if isinstance(error, OSError):  # the connection is gone: gevent would print a traceback, then answer 400
            raise error
        return super()._handle_client_error(error)


class _AccessLog:
    """Writes to standard output, which may be closed. Escapes control characters, which a peer could send."""

    def write(self, line: str) -> None:
        try:
            os.write(1, line.rstrip("\n").encode("unicode_escape") + b"\n")  # a buffer would fail again at exit
        except OSError:
            pass
