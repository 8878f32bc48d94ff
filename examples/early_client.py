"""A client that sends its second request with its ClientHello (0-RTT), and again if the server did not accept it.

python examples/early_client.py localhost 8443 ca.pem
"""

import ssl
import sys

from gevent.socket import create_connection

import greentls


def ask(context, host, port, session):
    """Returns the answer, whether the request was accepted early, and a session for the next time."""
    request = f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()  # harmless if it is replayed
    raw = create_connection((host, int(port)), 10)
    with context.wrap_socket(raw, server_hostname=host, session=session, do_handshake_on_connect=False) as sock:
        sock.early_data = request  # ValueError if it is longer than session.max_early_data
        sock.do_handshake()
        if not sock.early_data_accepted:  # refused, or not sent because no session allows it
            sock.sendall(request)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        return answer, sock.early_data_accepted, sock.session


def main(host, port, ca_file):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    session = None
    for _ in range(2):
        answer, early, session = ask(context, host, port, session)
        print(answer.splitlines()[-1].decode(), f"early_data_accepted={early}")


if __name__ == "__main__":
    main(*sys.argv[1:])
