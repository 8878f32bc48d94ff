"""A client that resumes: the second connection asks for less, computes less and arrives sooner.

python examples/resuming_client.py localhost 4433 ca.pem
"""

import ssl
import sys

from gevent.socket import create_connection

import greentls


def main(host, port, ca_file):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    session = None
    for _ in range(2):
        with context.wrap_socket(create_connection((host, int(port))), server_hostname=host, session=session) as sock:
            sock.sendall(b"hello\n")
            answer = sock.recv(100)
            print(f"{sock.version()} resumed={sock.session_reused} answer={answer!r}")
            session = sock.session  # with TLS 1.3 it has come by now: tickets follow the handshake


if __name__ == "__main__":
    main(*sys.argv[1:])
