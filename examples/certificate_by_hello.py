"""Chooses the certificate by the whole ClientHello: RSA and TLS 1.2 only for clients that cannot use ECDSA.

python examples/certificate_by_hello.py ecdsa.pem ecdsa.key rsa.pem rsa.key
"""

import ssl
import sys

from gevent.server import StreamServer

import greentls
from greentls.wire.registry import SignatureScheme


def context_of(certificate, key, **settings):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def main(ecdsa, ecdsa_key, rsa, rsa_key, bind="127.0.0.1:8443"):
    modern = context_of(ecdsa, ecdsa_key)
    old = context_of(rsa, rsa_key, maximum_version=ssl.TLSVersion.TLSv1_2)

    def choose(sock, hello):
        ecdsa_is_known = SignatureScheme.ecdsa_secp256r1_sha256 in hello.signature_algorithms
        return None if ecdsa_is_known else old

    def tell(sock, address):
        sock.sendall(f"{sock.version()} {sock.cipher()[0]}\n".encode())

    modern.client_hello_callback = choose
    server = StreamServer(bind, tell, ssl_context=modern)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
