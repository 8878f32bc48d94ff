"""The built-in page, a WSGI application: shows the result of its connection's handshake.

Every answer closes its connection, so that the next request shows another handshake.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from greentls.ssl import SSLSocket

__all__ = ["page"]

Facts = dict[str, Any]  # Any: values of JSON

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 4rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 }
table { border-collapse: collapse; width: 100%; margin: 2rem 0 }
th, td { text-align: left; padding: .4rem 1rem .4rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere }
th { font-weight: normal; opacity: .7; width: 11rem }
"""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>greentls: {title}</title>
<style>{style}</style>
<h1>{title}</h1>
<p>{explanation}</p>
<table>
{rows}
</table>
<p>Load the page again for another handshake. For JSON, send <code>Accept: application/json</code>.</p>
</html>
"""

_RESUMED = "The client offered a session and the server found it, so no certificate and no signature were needed."
_FULL = "No session was resumed: there was a certificate, a key exchange and a signature."


def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers GET /. The server has put the connection into environ as "greentls.socket"."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return _answer(environ, start_response, "405 Method Not Allowed", "text/plain", "GET or HEAD\n")
    if environ["PATH_INFO"] != "/":
        return _answer(environ, start_response, "404 Not Found", "text/plain", "The only page is /\n")
    facts = _facts(environ["greentls.socket"])
    if "application/json" in environ.get("HTTP_ACCEPT", ""):
        return _answer(environ, start_response, "200 OK", "application/json", json.dumps(facts, indent=2) + "\n")
    return _answer(environ, start_response, "200 OK", "text/html", _html(facts))


def _answer(environ: WSGIEnvironment, start_response: StartResponse, status: str, kind: str, text: str) -> list[bytes]:
    body = text.encode("utf-8", "backslashreplace")  # a server_name may contain bytes that are not text
    headers = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("Connection", "close"),
    ]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _facts(sock: SSLSocket) -> Facts:
    lookup, cipher = sock.session_lookup, sock.cipher()
    return {
        "protocol": sock.version(),
        "cipher": cipher[0] if cipher else None,
        "group": sock.group(),
        "server_name": sock.server_name,
        "alpn": sock.selected_alpn_protocol(),
        "resumed": sock.session_reused,
        "session_source": lookup.store if lookup and sock.session_reused else None,
        "lookup": lookup
        and {"store": lookup.store, "outcome": lookup.outcome, "milliseconds": round(lookup.seconds * 1000, 3)},
        "pid": os.getpid(),
    }


def _html(facts: Facts) -> str:
    lookup = facts["lookup"]
    rows = {
        "Protocol": facts["protocol"],
        "Cipher": facts["cipher"],
        "Key exchange group": facts["group"],
        "Server name": facts["server_name"],
        "ALPN": facts["alpn"],
        "Session from": facts["session_source"],
        "Lookup": lookup and f"{lookup['outcome']} in {lookup['store']}, {lookup['milliseconds']} ms",
        "Worker": f"pid {facts['pid']}",
    }
    return _PAGE.format(
        title="Session resumed" if facts["resumed"] else "Full handshake",
        explanation=_RESUMED if facts["resumed"] else _FULL,
        style=_STYLE,
        rows="\n".join(f"<tr><th>{name}<td>{html.escape(value or '-')}" for name, value in rows.items()),
    )
