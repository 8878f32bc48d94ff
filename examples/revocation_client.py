"""A client that refuses servers whose certificate was revoked.

python examples/revocation_client.py localhost 4433 ca.pem require
"""

import logging
import ssl
import sys

from gevent.socket import create_connection

import greentls


def main(host, port, ca_file, mode="require"):
    logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    context.ocsp = mode  # "require" a good staple, or "check" the staple or the responder
    try:
        with context.wrap_socket(create_connection((host, int(port))), server_hostname=host) as sock:
            print(sock.recv(100).decode().strip())
    except ssl.SSLCertVerificationError as refused:
        print("refused:", refused.verify_message)


if __name__ == "__main__":
    main(*sys.argv[1:])
