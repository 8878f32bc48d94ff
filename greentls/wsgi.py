"""WSGI over early data (RFC 8470): a handler for gevent.pywsgi's WSGIServer whose ssl_context has max_early_data.

    WSGIServer(address, application, handler_class=greentls.wsgi.WSGIHandler, ssl_context=context)

A request that arrived before the end of the handshake may be a replay. The application gets it at once, with
HTTP_EARLY_DATA set to "1" in its environ. If the request must not happen twice, the application answers with 425 Too
Early, so that the client sends it again. Or it calls environ["greentls.socket"].do_handshake(), which returns when the
request is known not to be a replay. A client's own Early-Data header is kept: a gateway sends it for its client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent.pywsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["WSGIHandler"]


class WSGIHandler(gevent.pywsgi.WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """gevent's handler. environ["greentls.socket"] is the request's SSLSocket."""

    def get_environ(self) -> WSGIEnvironment:
        environ: WSGIEnvironment = super().get_environ()
        environ["greentls.socket"] = self.socket
        if self._unfinished or "HTTP_EARLY_DATA" in environ:
            environ["HTTP_EARLY_DATA"] = "1"  # RFC 8470 5.1: repeated headers and other values mean the same
        return environ

    def handle_one_request(self) -> object:
        """Handles a request, then finishes the handshake.

        Otherwise the client's Finished could meet a closed socket, and the reset could destroy the answer.
        """
        result = super().handle_one_request()
        if self._unfinished:
            try:
                self.socket.do_handshake()
            except OSError:
                return None
        return result

    @property
    def _unfinished(self) -> bool:
        return not getattr(self.socket, "handshake_finished", True)  # a plain socket has no such attribute
