"""Logs each client's ClientHello: server name, ALPN, versions, JA4. The handshake continues as usual.

python examples/hello_logger.py cert.pem key.pem
"""

import ssl
import sys

from gevent.server import StreamServer

import greentls
from greentls.wire import ja4


def log(sock, hello):
    versions = "/".join(f"{version:#06x}" for version in hello.supported_versions) or f"{hello.legacy_version:#06x}"
    protocols = ",".join(hello.alpn_protocols) or "-"
    print(f"{sock.getpeername()[0]} {hello.server_name!a} alpn={protocols!a} {versions} {ja4(hello)}", flush=True)


def main(certificate, key, bind="127.0.0.1:8443"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.client_hello_callback = log
    server = StreamServer(bind, lambda sock, address: sock.sendall(sock.ja4.encode() + b"\n"), ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
