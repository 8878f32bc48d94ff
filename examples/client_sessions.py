"""A client whose connections resume, although each makes its own context and none passes a session on.

python examples/client_sessions.py localhost 4433 ca.pem
python examples/client_sessions.py localhost 4433 ca.pem "memcached://localhost?secret_file=fleet.key"

With a store, the next run of the program, or another process, resumes the sessions that this one leaves.
"""

import ssl
import sys

from gevent.socket import create_connection

import greentls


def main(host, port, ca_file, store_url=None):
    store = greentls.open_store(store_url) if store_url else None
    greentls.SSLContext.client_sessions = greentls.ClientSessions(store=store)  # for every context of the program
    for _ in range(2):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca_file)
        with context.wrap_socket(create_connection((host, int(port))), server_hostname=host) as sock:
            sock.sendall(b"hello\n")
            answer = sock.recv(100)  # under TLS 1.3, tickets arrive with the first data
            print(f"{sock.version()} resumed={sock.session_reused} answer={answer!r}")
    greentls.SSLContext.client_sessions.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
