"""WSGI over early data (RFC 8470): gevent.pywsgi's handler, for a WSGIServer whose ssl_context has max_early_data.

    WSGIServer(address, application, handler_class=greentls.wsgi.WSGIHandler, ssl_context=context)

A request that came before the handshake was finished may be a replay. It reaches the application at once, with "1" as
HTTP_EARLY_DATA in its environ. What must not happen twice the application answers with 425 Too Early, and the client
asks again; or it calls environ["greentls.socket"].do_handshake(), which returns when the request is certain to be none.
A client's own Early-Data header stays: a gateway says so of its client.
"""

from __future__ import annotations

from typing import Any

import gevent.pywsgi

__all__ = ["WSGIHandler"]


class WSGIHandler(gevent.pywsgi.WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """environ["greentls.socket"]: the request's SSLSocket."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["greentls.socket"] = self.socket
        if self._unfinished or "HTTP_EARLY_DATA" in environ:
            environ["HTTP_EARLY_DATA"] = "1"  # RFC 8470 5.1: several of them, or another value, mean that as well
        return environ

    def handle_one_request(self) -> Any:
        """Before the next one, or the end, the client's Finished: it would meet a closed socket, whose reset can cost
        the client the answer."""
        result = super().handle_one_request()
        if self._unfinished:
            try:
                self.socket.do_handshake()
            except OSError:
                return None
        return result

    @property
    def _unfinished(self) -> bool:
        return not getattr(self.socket, "handshake_finished", True)  # a socket without TLS has none
