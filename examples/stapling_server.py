"""A server that staples: its clients learn from it that its certificate was not revoked, and need no other source.

python examples/stapling_server.py fullchain.pem key.pem responses/
"""

import logging
import ssl
import sys
import time

from gevent.server import StreamServer

import greentls
from greentls.certificates import CertificateChain


def main(chain, key, directory, bind="127.0.0.1:4433"):
    logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
    stapler = greentls.Stapler(directory=directory, policy="strict", wait_for_first=True)
    stapler.add(CertificateChain.load(chain, key))  # fetches now, not at the first handshake
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.ocsp_callback = stapler

    def tell(sock, address):
        for staple in stapler.facts():
            left = "" if staple.good_until is None else f", good for {(staple.good_until - time.time()) / 60:.0f} min"
            sock.sendall(f"{staple.names[0]}: {staple.status}{left}{staple.error}\n".encode())

    server = StreamServer(bind, tell, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        stapler.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
