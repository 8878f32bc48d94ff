"""A WSGI server under gevent.pywsgi, without patching. It answers with the result of the connection's handshake.

python examples/wsgi_server.py cert.pem key.pem
"""

import ssl
import sys

from gevent.pywsgi import WSGIHandler, WSGIServer

import greentls


class Handler(WSGIHandler):
    def get_environ(self):
        return {**super().get_environ(), "greentls.socket": self.socket}


def app(environ, start_response):
    sock = environ["greentls.socket"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{sock.version()} {sock.cipher()[0]} {'resumed' if sock.session_reused else 'full'}\n".encode()]


def main(certificate, key, bind="127.0.0.1:8443"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    context.session_store = greentls.open_store("memory://")
    server = WSGIServer(bind, app, log=None, handler_class=Handler, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
