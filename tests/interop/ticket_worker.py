"""A worker of several machines: python ticket_worker.py CERTIFICATE KEY STORE SKEW...

Each machine has a clock, that many seconds ahead of the worker's, a store, ticket keys and a context of its own; it
tells a client how the handshake went and which key seals. A number on standard input sets the worker's clock, and has
all machines look at the store; what came of it is told as JSON.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys

from gevent.fileobject import FileObjectThread
from gevent.server import StreamServer

import greentls


class Machine:
    def __init__(self, certificate, key, store, clock):
        self.keys = greentls.TicketKeys.shared(greentls.open_store(store), clock=clock)
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.ticket_keys = self.keys
        self.server = StreamServer(("127.0.0.1", 0), self.tell, ssl_context=context)
        self.server.start()

    @property
    def sealing(self):
        return self.keys.keys[0].name.hex()

    def tell(self, sock, address):
        with contextlib.suppress(OSError):
            sock.sendall(f"{'resumed' if sock.session_reused else 'full'} {self.sealing}\n".encode())
            sock.unwrap()

    def look(self):
        try:
            self.keys.refresh()
        except Exception as error:
            return type(error).__name__
        return "agreed"


def main(certificate, key, store, *skews):
    now = 0.0
    machines = [Machine(certificate, key, store, lambda skew=float(skew): now + skew) for skew in skews]
    print(json.dumps([machine.server.address[1] for machine in machines]), flush=True)
    for line in FileObjectThread(sys.stdin, "r"):
        now = float(line)
        told = [(machine.look(), machine.keys.age, machine.sealing) for machine in machines]
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
