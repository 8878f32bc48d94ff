"""Serves HTTP/2 (hyper-h2) to clients that offer it with TLS 1.3, and HTTP/1.1 to others: ALPN by the whole hello.

python examples/http2_server.py cert.pem key.pem
"""

import ssl
import sys

from gevent.pywsgi import WSGIServer
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

import greentls
from greentls.wire.registry import ProtocolVersion


def choose(sock, offered):
    # RFC 9113 9.2.2 forbids some ciphers of TLS 1.2 and none of TLS 1.3.
    ours = ["h2", "http/1.1"] if ProtocolVersion.TLSv1_3 in sock.client_hello.supported_versions else ["http/1.1"]
    return next((protocol for protocol in ours if protocol in offered), None)


class Server(WSGIServer):
    def handle(self, sock, address):
        (http2 if sock.selected_alpn_protocol() == "h2" else super().handle)(sock, address)


def http2(sock, address):
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/plain")])
                connection.send_data(event.stream_id, b"hello over HTTP/2\n", end_stream=True)
        sock.sendall(connection.data_to_send())


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello over HTTP/1.1\n"]


def main(certificate, key, bind="127.0.0.1:8443"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.client_hello_callback = lambda sock, hello: None  # so that sock.client_hello is set
    context.alpn_callback = choose
    server = Server(bind, app, log=None, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
