"""A server without a session store: clients keep their sessions in tickets, which every server of the fleet opens.

(umask 077; head -c 32 /dev/urandom > fleet.key)
python examples/ticket_keys.py cert.pem key.pem 'memcached://localhost:11211?secret_file=fleet.key'

Or with keys from a file in nginx's or HAProxy's format:

(umask 077; head -c 80 /dev/urandom > ticket.key)
python examples/ticket_keys.py cert.pem key.pem ticket.key
"""

import ssl
import sys

from gevent.server import StreamServer

import greentls


def tell(sock, address):
    keys = sock.context.ticket_keys
    how = "resumed from its ticket" if sock.session_reused else "full handshake"
    age = f"{len(keys.keys)} keys, agreed on {keys.age:.0f} s ago"
    print(f"{address[0]}: {sock.version()}, {how}; {age}", flush=True)
    sock.sendall(f"{how}\n".encode())


def main(certificate, key, where, bind="127.0.0.1:4433"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if "://" in where:
        context.ticket_keys = greentls.TicketKeys.shared(greentls.open_store(where))
    else:
        context.ticket_keys = greentls.TicketKeys.file(where)
    server = StreamServer(bind, tell, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
