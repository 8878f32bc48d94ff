"""Two Connections handshake in memory: TLS without a socket, for tests and other transports.

python examples/memory_handshake.py cert.pem key.pem ca.pem
"""

import sys

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_PEER, Config, TrustAnchors
from greentls.core.connection import Connection
from greentls.errors import WantRead


def step(operation, *arguments):
    try:
        return operation(*arguments)
    except WantRead:
        return None


def main(certificate, key, ca_file):
    server = Connection(Config(server_side=True, certificates=[CertificateChain.load(certificate, key)]))
    trust = TrustAnchors(files=(ca_file,))
    client = Connection(Config(server_side=False, trust=trust, verify_mode=VERIFY_PEER), server_hostname="localhost")
    while not (client.established and server.established):
        for here, there in ((client, server), (server, client)):
            step(here.do_handshake)
            flight = here.data_to_send()
            print("client" if here is client else "server", "->", len(flight), "bytes")
            if flight:
                there.receive_data(flight)
    client.write(b"no socket anywhere")
    server.receive_data(client.data_to_send())
    print(server.version, server.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
