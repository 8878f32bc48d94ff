"""The servers whose other ends are tested: of PyPI and of the standard library, with its ssl or pyOpenSSL, no greentls.

python peers.py NAME CERTIFICATE KEY [...]     prints the port, and serves until it is ended
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def server_context(certificate, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def tell(port):
    print(port, flush=True)


def https(*pair):
    """HTTP/1.1 over TLS. It answers with the connection's number, whether it was resumed, and what it was sent. It is a
    proxy by CONNECT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            facts = {"connection": self.client_address[1], "resumed": self.connection.session_reused}
            body = json.dumps({**facts, "path": self.path, "sent": sent}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def do_CONNECT(self):
            host, _, port = self.path.rpartition(":")
            self.close_connection = True
            with socket.create_connection((host, int(port))) as beyond, beyond.makefile("rwb", 0) as far:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=shutil.copyfileobj, args=(far, self.wfile))
                back.start()
                while data := self.rfile.read1(65536):
                    far.write(data)
                beyond.shutdown(socket.SHUT_WR)
                back.join()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = server_context(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    tell(server.server_address[1])
    server.serve_forever()


def smtp(*pair):
    from aiosmtpd.smtp import SMTP

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            cipher = session.ssl["cipher"][0] if session.ssl else "nothing"
            return f"250 {len(envelope.content)} bytes under {cipher}"

    async def serve():
        context = server_context(*pair)
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(Handler(), tls_context=context, require_starttls=True), "127.0.0.1", 0
        )
        tell(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def ftp(certificate, key, directory):
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import TLS_FTPHandler
    from pyftpdlib.servers import FTPServer

    class Handler(TLS_FTPHandler):
        certfile, keyfile = certificate, key
        tls_control_required = tls_data_required = True
        authorizer = DummyAuthorizer()

    Handler.authorizer.add_user("user", "secret", directory, perm="elradfmw")
    server = FTPServer(("127.0.0.1", 0), Handler)
    tell(server.address[1])
    server.serve_forever()


def ftp_ccc(*pair):
    """The few commands around CCC, which pyftpdlib has not: the control connection goes on without TLS."""
    context = server_context(*pair)
    listener = socket.create_server(("127.0.0.1", 0))
    tell(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        sock.sendall(b"220 ready\r\n")
        try:
            while command := _line(sock):
                if command == b"AUTH TLS":
                    sock.sendall(b"234 go on\r\n")
                    sock = context.wrap_socket(sock, server_side=True)
                elif command == b"CCC":
                    sock.sendall(b"200 go on\r\n")
                    sock = sock.unwrap()
                elif command.startswith(b"USER"):
                    sock.sendall(b"331 which password?\r\n")
                elif command.startswith(b"PASS"):
                    sock.sendall(b"230 hello\r\n")
                else:
                    sock.sendall(b"200 in %s\r\n" % (b"TLS" if getattr(sock, "_sslobj", None) else b"clear"))
        except OSError:
            pass  # the client that did not trust the certificate
        sock.close()


def _line(sock):
    line = b""
    while not line.endswith(b"\n") and (byte := sock.recv(1)):
        line += byte
    return line.strip()


def websocket(*pair):
    from websockets.asyncio.server import serve

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def run():
        async with serve(echo, "127.0.0.1", 0, ssl=server_context(*pair)) as server:
            tell(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
