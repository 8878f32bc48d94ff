"""An HTTPS server that answers GET requests before the end of the handshake (0-RTT), and other requests after it.

Any number of servers may share a memcached, which remembers first flights, so that none of them accepts a copy.

    (umask 077; head -c 32 /dev/urandom > fleet.key)
    python examples/early_data.py cert.pem key.pem "memcached://127.0.0.1:11211?secret_file=fleet.key"
    openssl s_client -connect 127.0.0.1:8443 -sess_out session.pem
    printf 'GET / HTTP/1.0\r\n\r\n' > request
    openssl s_client -connect 127.0.0.1:8443 -sess_in session.pem -early_data request
"""

import ssl
import sys

from gevent.pywsgi import WSGIServer

import greentls
from greentls.wsgi import WSGIHandler


def application(environ, start_response):
    early = "HTTP_EARLY_DATA" in environ
    if early and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):  # a replay would repeat it
        start_response("425 Too Early", [("Content-Type", "text/plain")])
        return [b"again, after the handshake\n"]
    if early and environ["PATH_INFO"] == "/wait":
        environ["greentls.socket"].do_handshake()  # afterwards the request is known not to be a replay
    start_response("200 OK", [("Content-Type", "text/plain")])
    finished = environ["greentls.socket"].handshake_finished
    return [f"{'early' if early else 'not early'}, {'finished' if finished else 'unfinished'}\n".encode()]


def main(certificate, key, store, bind="127.0.0.1:8443"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.session_store = greentls.open_store(store)  # also remembers first flights
    context.max_early_data = 4096
    server = WSGIServer(bind, application, log=None, handler_class=WSGIHandler, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
