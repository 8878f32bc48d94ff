"""A server that asks for a client certificate only when a request needs it (RFC 8446 4.6.2).

python examples/post_handshake_auth.py cert.pem key.pem ca.pem names.txt
"""

import ssl
import sys
from pathlib import Path

import gevent
from cryptography.x509.oid import NameOID
from gevent.server import StreamServer

import greentls


def main(certificate, key, ca_file, names, bind="127.0.0.1:4433"):
    def verify(sock, chain, *, resumed):
        known = gevent.get_hub().threadpool.apply(Path(names).read_text).split()
        (name,) = chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if name.value not in known:
            raise PermissionError(name.value)

    def serve(sock, address):
        with sock, sock.makefile("rb") as lines:
            for line in lines:  # the certificate arrives with a line, and verify() is called here
                if line.strip() == b"private" and not sock.getpeercert():
                    sock.verify_client_post_handshake()
                    sock.sendall(b"show a certificate and ask again\n")
                else:
                    sock.sendall(b"here you are: " + line)

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = True
    context.verify_callback = verify
    server = StreamServer(bind, serve, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
