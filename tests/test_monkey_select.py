"""After greentls.monkey.patch() whatever waits for a descriptor sees what a socket has read ahead. Each order of the
patches has a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.helpers import PATIENCE

STEPS = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "patch": "greentls.monkey.patch()",
}
PROGRAM = """
import sys
import select, selectors
from select import poll as imported_poll, select as imported_select
import gevent.select, gevent.selectors
from gevent.select import select as imported_gevent_select
import greentls.monkey

KINDS = [kind for module in (selectors, gevent.selectors) for kind in vars(module).values()
         if isinstance(kind, type) and issubclass(kind, selectors.BaseSelector)]
BEFORE = [(each, dict(vars(each))) for each in (select, selectors, gevent.select, gevent.selectors, *KINDS)]
{steps}
import gevent, gevent.monkey, gevent.socket, ssl
SOCKETS = gevent.socket.socketpair
PATIENCE, WAIT = {patience}, {patience} * 1000


def by_select(select):
    def ask(thing, other, timeout):
        read, write, _ = select([other, thing], (), [], timeout)
        return [each for each in (thing, other) if each in read]
    return ask


def by_poll(make):
    def ask(thing, other, timeout):
        poll = make()
        poll.register(other, select.POLLIN)
        poll.register(thing)
        poll.modify(thing, select.POLLOUT)
        assert select.POLLOUT in dict(poll.poll(WAIT)).values()
        poll.modify(thing, select.POLLIN)
        found = dict(poll.poll(None if timeout is None else timeout * 1000))
        poll.unregister(thing)
        assert not poll.poll(0)
        descriptor = thing if isinstance(thing, int) else thing.fileno()
        return [thing] if found.pop(descriptor, 0) & select.POLLIN else [*found]
    return ask


def by_selector(kind):
    def ask(thing, other, timeout):
        with kind() as selector:
            selector.register(other, selectors.EVENT_READ)
            selector.register(thing, selectors.EVENT_READ, "it")
            found = selector.select(timeout)
            assert all(events == selectors.EVENT_READ for _, events in found)
            return [thing] if [key.data for key, _ in found] == ["it"] else [key.fileobj for key, _ in found]
    return ask


WAYS = {{
    "select.select": by_select(select.select),
    "imported select": by_select(imported_select),
    "gevent.select.select": by_select(gevent.select.select),
    "imported from gevent": by_select(imported_gevent_select),
    "select.poll": by_poll(select.poll),
    "imported poll": by_poll(imported_poll),
    "gevent.select.poll": by_poll(gevent.select.poll),
    **{{kind.__name__: by_selector(kind) for kind in KINDS
       if kind is not selectors.BaseSelector and not kind.__name__.startswith("_")
       and (kind.__module__ != "selectors" or hasattr(selectors, kind.__name__))}},
    "DefaultSelector": by_selector(selectors.DefaultSelector),
}}

from greentls.openssl.library import lib

client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
client.load_verify_locations({ca!r})
server.load_cert_chain({cert!r}, {key!r})
here, there = SOCKETS()
job = gevent.spawn(server.wrap_socket, there, server_side=True)
here = client.wrap_socket(here, server_hostname="localhost")
there = job.get(timeout=PATIENCE)
idle, _idle = SOCKETS()


def record(sock, data):
    operation = sock._connection
    operation.run("write", lib.SSL_write, (operation.ssl, data, len(data)))
    return sock._connection.data_to_send()


def together(*messages):
    there._raw.send(b"".join(record(there, message) for message in messages))


class Over:
    def fileno(self):
        return here.fileno()


together(b"one")
assert here.recv(100) == b"one"  # and the tickets before it
for name, ask in WAYS.items():
    for thing in (here, here.fileno(), Over()):
        assert ask(thing, idle, 0) == [], name
        together(b"one", b"two", b"three")
        assert ask(thing, idle, PATIENCE) == [thing], name
        for message in (b"one", b"two"):
            assert here.recv(100) == message, name
            assert ask(thing, idle, None) == [thing], (name, message)  # for ever, if it does not see them
        assert here.recv(2) == b"th" and ask(thing, idle, None) == [thing], name  # half of a record
        assert here.recv(100) == b"ree"
        assert ask(thing, idle, 0) == [], name
        whole = record(there, b"whole")
        there._raw.send(whole[:9])
        assert ask(thing, idle, PATIENCE) == [thing], name
        here.settimeout(0)
        try:
            here.recv(100)
        except ssl.SSLWantReadError:
            pass
        assert ask(thing, idle, 0) == [], name  # nobody need turn in a circle for the rest
        here.settimeout(PATIENCE)
        there._raw.send(whole[9:])
        assert here.recv(100) == b"whole"

there._connection.shutdown()
there._raw.send(there._connection.data_to_send() + b"in clear")
descriptor = here.fileno()
plain = here.unwrap()
for name, ask in WAYS.items():
    assert plain.ahead == b"in clear" and ask(plain, idle, PATIENCE) == [plain], name
assert plain.recv(100) == b"in clear"
for name, ask in WAYS.items():
    assert ask(plain, idle, 0) == [], name
plain.close()
again, other = SOCKETS()
assert descriptor in (again.fileno(), other.fileno())  # used again, by a socket that speaks no TLS
for name, ask in WAYS.items():
    assert ask(descriptor, idle, 0) == [], name

for each in (again, other, idle, _idle, there):
    each.close()
greentls.monkey.unpatch()
if not gevent.monkey.is_module_patched("select"):
    for each, was in BEFORE:
        now = dict(vars(each))
        assert {{key: value for key, value in now.items() if was.get(key) is not value}} == {{}}, each
from greentls.ssl.socket import SSLSocket
from greentls.ssl import polling
assert SSLSocket.by_descriptor is None
for module in (select, selectors, gevent.select, gevent.selectors, sys.modules["__main__"]):
    assert not [name for name, value in vars(module).items() if polling.is_ours(value)]
for kind in KINDS:
    assert getattr(kind.select, "__module__") != "greentls.ssl.polling"
print(sorted(WAYS))
"""


@pytest.mark.parametrize("steps", [("patch",), ("gevent", "patch"), ("patch", "gevent")], ids="-".join)
def test_every_way_to_wait_sees_what_was_read_ahead(pki, steps):
    program = PROGRAM.format(
        steps="\n".join(STEPS[step] for step in steps),
        patience=PATIENCE,
        ca=pki.ca_file,
        cert=pki.cert_file,
        key=pki.key_file,
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert (done.stderr, done.returncode) == ("", 0)
    found = set(eval(done.stdout))
    assert {"select.select", "select.poll", "DefaultSelector", "SelectSelector", "GeventSelector"} <= found


def test_gevents_patches_forget_no_socket():
    program = """
import greentls.monkey, gevent.monkey, gevent.socket, ssl
greentls.monkey.patch()
here, there = gevent.socket.socketpair()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with there, context.wrap_socket(here, server_side=True, do_handshake_on_connect=False) as sock:
    gevent.monkey.patch_all()
    assert type(sock).by_descriptor[sock.fileno()] is sock
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)


# A proxy that speaks TLS and passes on TLS, as urllib3 tests its TLS in TLS with: it waits for both sides by select(),
# and reads one record of a side that is ready.
PROXY = """
import gevent.monkey; gevent.monkey.patch_all()
import select, socket, ssl, threading
import greentls.ssl, greentls.monkey
{patched} and greentls.monkey.patch()
import urllib3

BODY = bytes(range(256)) * 4096


def context():
    made = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain({cert!r}, {key!r})
    made.read_ahead = {patched}
    return made


def until_blank(sock):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += sock.recv(65536)
    return head


def answer(sock):
    with sock, context().wrap_socket(sock, server_side=True) as tls:
        for _ in range(3):
            _, _, body = until_blank(tls).partition(b"\\r\\n\\r\\n")
            while len(body) < len(BODY):
                body += tls.recv(65536)
            assert body == BODY
            tls.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY) + BODY)


def relay(sock):
    with context().wrap_socket(sock, server_side=True) as near:
        port = int(until_blank(near).split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as far:
            near.sendall(b"HTTP/1.1 200 Connected\\r\\n\\r\\n")
            while True:
                readable, _, _ = select.select([near, far], [], [])  # for ever, if it misses something
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)


def serve(handle):
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: handle(listener.accept()[0]), daemon=True).start()
    return listener.getsockname()[1]


client = ssl.create_default_context(cafile={ca!r})
proxy = urllib3.ProxyManager(f"https://localhost:{{serve(relay)}}", proxy_ssl_context=client, ssl_context=client,
                             timeout={patience}, retries=False)
target = f"https://localhost:{{serve(answer)}}/"
print([proxy.request("POST", target, body=BODY).data == BODY for _ in range(3)])
proxy.clear()
"""


@pytest.mark.parametrize("patched", [True, False], ids=["patched", "read_ahead=False"])
def test_tls_in_tls_through_a_proxy_that_selects(pki, patched):
    program = PROXY.format(patched=patched, patience=PATIENCE, ca=pki.ca_file, cert=pki.cert_file, key=pki.key_file)
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (done.stderr, done.stdout, done.returncode) == ("", "[True, True, True]\n", 0)
