"""Gets a name's certificate when its first client connects, by an HTTP request in the middle of the handshake.

The service answers GET /NAME with PEM (the key, the certificate, its chain), or with 404 for an unknown name.

python examples/certificates_on_demand.py http://127.0.0.1:8080
"""

from gevent import monkey

monkey.patch_all()

import ssl  # noqa: E402 - patching comes first
import sys  # noqa: E402
from urllib.error import HTTPError  # noqa: E402
from urllib.request import urlopen  # noqa: E402

from gevent.server import StreamServer  # noqa: E402

import greentls  # noqa: E402
from greentls.certificates import Callback, CertificateChain  # noqa: E402


def tell(sock, address):
    sock.sendall(f"hello from {sock.server_name}\n".encode())


def main(service, bind="127.0.0.1:8443"):
    def order(name):
        try:
            with urlopen(f"{service}/{name}") as answer:
                return CertificateChain.load(answer.read())
        except HTTPError as error:
            if error.code == 404:
                return None
            raise

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificates = Callback(order, lifetime=86400, calls=10, period=60)
    context.callback_timeout = 30  # for the first client of a name
    server = StreamServer(bind, tell, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
