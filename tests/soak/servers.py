"""The servers of clients.py: one WSGI application under gevent.pywsgi, gunicorn and `greentls serve`, and the same
answers from a plain gevent.server.StreamServer. None of them has a hook: they are what a newcomer starts with.

    python -m tests.soak.servers pywsgi|stream PORT certificate.pem key.pem
"""

from __future__ import annotations

import contextlib
import ssl
import sys

import greentls

ANSWER = b"ok\n"
PAGE = b"""<!doctype html><title>soak</title><p id=told></p><script>
let answered = 0
for (let number = 0; number < COUNT; number++) {
  const request = new XMLHttpRequest()
  request.open("GET", "/close?" + number, false)
  request.send()
  answered += request.responseText == "ok\\n"
}
told.textContent = answered + " answered"
</script>"""


def answer(path: str, query: str) -> tuple[str, bytes]:
    """(Content-Type, body). /page?COUNT is a page whose script asks COUNT times, each time in a new connection."""
    if path == "/page":
        return "text/html", PAGE.replace(b"COUNT", str(int(query)).encode())
    return "text/plain", ANSWER


def application(environ, start_response):
    kind, body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    if environ["PATH_INFO"] == "/close":
        headers.append(("Connection", "close"))
    start_response("200 OK", headers)
    return [body]


def handle(sock, address):
    """Enough of HTTP/1.1 for these clients: GET without a body. Some just reset their connections at the end."""
    with contextlib.suppress(ConnectionError), sock, sock.makefile("rb") as lines:
        while request := lines.readline():
            target = request.split()[1].decode()
            headers = b"".join(iter(lines.readline, b"\r\n")).lower()
            path, _, query = target.partition("?")
            kind, body = answer(path, query)
            # ab asks for keep-alive under HTTP/1.0 only with -k, which it is not given
            close = path == "/close" or b"connection: close" in headers or b"HTTP/1.0" in request
            connection = "close" if close else "keep-alive"
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: {connection}"
            sock.sendall(f"{head}\r\n\r\n".encode() + body)
            if close:
                return


def context(certificate, key):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def main(kind, port, certificate, key):
    from gevent.pywsgi import WSGIServer
    from gevent.server import StreamServer

    settings = {"ssl_context": context(certificate, key)}
    if kind == "pywsgi":
        server = WSGIServer(f"127.0.0.1:{port}", application, log=None, **settings)
    else:
        server = StreamServer(f"127.0.0.1:{port}", handle, **settings)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
