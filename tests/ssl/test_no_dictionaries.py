"""The objects of a connection have no dictionaries, however many connections begin at the same time.

From CPython 3.11 on, an object has a place for each attribute that its class knows. Each new object takes one of the
class's 30 places away, until one is left. Attributes that first come when 30 objects exist have none, and each object
of the class makes a dictionary from then on. That is 200 to 460 bytes each, and a microsecond for a connection.
"""

from __future__ import annotations

import subprocess
import sys

from tests.support.helpers import PATIENCE, ROOT

# A process of its own: here the classes may know all attributes from other tests.
PROGRAM = """
import gc, sys
from types import SimpleNamespace
import gevent, gevent.socket
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import contexts, talk


def parts(end):
    return end, end._connection, end._connection.handshake, end._stream


client, server = contexts(SimpleNamespace(ca_file=sys.argv[1], cert_file=sys.argv[2], key_file=sys.argv[3]))
pairs = [gevent.socket.socketpair() for _ in range(40)]
theirs = [gevent.spawn(server.wrap_socket, there, server_side=True) for _, there in pairs]
gevent.idle()  # all of them wait for a hello
ours = [gevent.spawn(client.wrap_socket, here, server_hostname="localhost") for here, _ in pairs]
ends = [job.get(timeout=PATIENCE) for job in theirs + ours]
for here, there in zip(ends[40:], ends):
    talk(here, there)
objects = [each for end in ends for each in parts(end)]
for end in ends:
    end.close()
print(sorted({type(each).__name__ for each in objects if any(type(to) is dict for to in gc.get_referents(each))}))
"""

# CPython 3.10 has a dictionary for each object that may have one; 3.13 for those whose class has a base with slots.
EXPECTED = {(3, 10): ["Connection", "SSLSocket"], (3, 11): [], (3, 12): []}


def test_after_many_connections_at_once(pki):
    command = [sys.executable, "-c", PROGRAM, pki.ca_file, pki.cert_file, pki.key_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    expected = EXPECTED.get(sys.version_info[:2], ["Connection"])
    assert (done.stdout, done.stderr, done.returncode) == (f"{expected}\n", "", 0)
