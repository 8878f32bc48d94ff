"""A server whose private key is in a key process, or in a token that PKCS #11 reaches.

greentls keys serve --socket keys.sock --key key.pem &
python examples/key_elsewhere.py cert.pem keys.sock
python examples/key_elsewhere.py cert.pem 'pkcs11:token=web?module-path=libsofthsm2.so&pin-source=pin'
openssl s_client -connect 127.0.0.1:8443
"""

import ssl
import sys

from gevent.server import StreamServer

import greentls
from greentls import keys


def greet(sock, address):
    sock.sendall(b"signed elsewhere\n" if "sign" in sock.hook_seconds else b"resumed\n")


def main(certificate, where, bind="127.0.0.1:8443"):
    source = keys.PKCS11(where) if where.startswith("pkcs11:") else keys.Agent(where)
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, source)  # the source is asked for the key that fits
    server = StreamServer(bind, greet, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
