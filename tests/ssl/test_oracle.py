"""What is done to a socket before it waits, and while it waits: gevent.ssl is the oracle.

Each program below runs over greentls.ssl and over gevent.ssl: one operation, and one thing that is done to the socket
before it, or by another greenlet while it waits. What each of the two raised or returned, what is left of the socket,
and what the peer saw must be the same. DIFFERENCES has those that are meant, with their reasons.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import ssl

import gevent
import gevent.select
import gevent.socket
import gevent.ssl
import pytest

import greentls.ssl
from tests.support.helpers import PATIENCE

MUCH = bytes(1 << 20)  # more than any socket takes at once


class Program:
    """One module's contexts, and sockets in the states that operations need. The peer is always gevent's."""

    def __init__(self, module, pki, full):
        self.module, self.pki, self.full = module, pki, full
        self.peer = None
        self.files = []

    def context(self, module, server_side):
        context = module.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        if server_side:
            context.load_cert_chain(self.pki.cert_file, self.pki.key_file)
            context.num_tickets = 0
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def wrap(self, sock, server_side, handshake=False):
        context = self.context(self.module, server_side)
        return context.wrap_socket(sock, server_side, do_handshake_on_connect=handshake)

    # -- states --------------------------------------------------------------------------------------------------------

    def listening(self):
        sock = gevent.socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()
        return self.wrap(sock, True)

    def unconnected(self):
        return self.wrap(gevent.socket.socket(), False)

    def fresh(self, server_side):
        here, self.peer = gevent.socket.socketpair()
        return self.wrap(here, server_side)

    def established(self, server_side):
        sock = self.fresh(server_side)
        peer = self.context(gevent.ssl, not server_side)
        job = gevent.spawn(peer.wrap_socket, self.peer, not server_side, suppress_ragged_eofs=False)
        sock.do_handshake()
        self.peer = job.get()
        return sock

    def with_data(self, server_side):
        """A record is read in part, and there are another one and a half."""
        sock = self.established(server_side)
        for _ in range(2):
            self.peer.sendall(b"data")
        assert sock.recv(1) == b"d"
        return sock

    def seen(self):
        """What the peer has seen until now: that the connection is open, or how it ended."""
        if self.peer is None:
            return None
        self.peer.settimeout(0)
        try:
            while self.peer.recv(65536):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return "open"
        except OSError as error:
            # Over a socket pair a peer that has not read all of what came is a reset; Python 3.13 lets it pass.
            return "end" if isinstance(error, ssl.SSLEOFError | ConnectionResetError) else told(error)
        return "end"


def told(value):
    """An exception by its class in Python, not in gevent or greentls, and its errno."""
    if not isinstance(value, BaseException):
        return value
    known = next(each for each in type(value).__mro__ if each.__module__ in ("builtins", "ssl"))
    return known.__name__, str(value) if known is TimeoutError else getattr(value, "errno", None)


def outcome(function, *arguments):
    try:
        result = function(*arguments)
    except BaseException as error:
        return told(error)
    if isinstance(result, (bytes, int, type(None))):
        return result
    if isinstance(result, tuple):
        for each in result:
            getattr(each, "close", int)()
    return type(result).__name__ if isinstance(result, io.IOBase) else "socket"


def call_on(send):
    while send(MUCH):
        pass


def state(name, *arguments):
    return lambda program: getattr(program, name)(*arguments)


# name: (state, operation)
OPERATIONS = {
    "accept": (state("listening"), lambda sock: sock.accept()),
    "connect": (state("unconnected"), lambda sock, full: sock.connect(full)),
    "connect_ex": (state("unconnected"), lambda sock, full: sock.connect_ex(full)),
    "handshake, client": (state("fresh", False), lambda sock: sock.do_handshake()),
    "handshake, server": (state("fresh", True), lambda sock: sock.do_handshake()),
    "select": (state("established", False), lambda sock: gevent.select.select([sock], [], [], PATIENCE) and None),
    "wait_read": (state("established", True), lambda sock: gevent.socket.wait_read(sock.fileno(), PATIENCE)),
    "recv, data at hand": (state("with_data", False), lambda sock: sock.recv(100)),
    "recv_into, data at hand": (state("with_data", True), lambda sock: sock.recv_into(bytearray(100))),
    "recv, client": (state("established", False), lambda sock: sock.recv(100)),
    "recv_into, server": (state("established", True), lambda sock: sock.recv_into(bytearray(100))),
    "read, client": (state("established", False), lambda sock: sock.read(100)),
    "send, server": (state("established", True), lambda sock: call_on(sock.send)),
    "sendall, client": (state("established", False), lambda sock: sock.sendall(MUCH)),
    "write, server": (state("established", True), lambda sock: call_on(sock.write)),
    "sendfile, client": (state("established", False), lambda sock: sock.sendfile(io.BytesIO(MUCH))),
    "unwrap, server": (state("established", True), lambda sock: sock.unwrap()),
    "unwrap, client": (state("established", False), lambda sock: sock.unwrap()),
    "file read, server": (state("established", True), lambda sock: sock.makefile("rb").read(1)),
    "file readline, client": (state("established", False), lambda sock: sock.makefile("r").readline()),
    "unbuffered write, server": (state("established", True), lambda sock: call_on(sock.makefile("wb", 0).write)),
    "buffered write, client": (state("established", False), lambda sock: call_on(sock.makefile("wb").write)),
}


def close_with_a_file(sock, job):
    with sock.makefile("rb"):
        sock.close()


def detach(sock, job):
    descriptor = sock.detach()
    if descriptor != -1:
        os.close(descriptor)


def files(sock, job):
    """A file of each mode and buffering, made and closed."""
    made = []
    for mode in ("r", "w", "rw", "rb", "wb", "rwb", "b", "a", "x"):
        for buffering in (None, -1, 0, 1, 100):
            try:
                with sock.makefile(mode, buffering) as file:
                    made.append((mode, buffering, type(file).__name__, file.readable(), file.writable()))
            except (ValueError, AssertionError) as error:
                made.append((mode, buffering, type(error).__name__))
    return str(made)


class Killed(BaseException):
    pass


def close_twice(sock, job):
    sock.close()
    sock.close()


def shutdown_and_close(sock, job):
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def throw_and_close(sock, job):
    job.kill(OSError(5, "thrown"))
    sock.close()


ANY_TIME = {
    "nothing": lambda sock, job: None,
    "close": lambda sock, job: sock.close(),
    "close twice": close_twice,
    "close with a file": close_with_a_file,
    "shutdown RD": lambda sock, job: sock.shutdown(socket.SHUT_RD),
    "shutdown WR": lambda sock, job: sock.shutdown(socket.SHUT_WR),
    "shutdown RDWR": lambda sock, job: sock.shutdown(socket.SHUT_RDWR),
    "shutdown RDWR, close": shutdown_and_close,
    "detach": detach,
    "dup": lambda sock, job: sock.dup(),
    "files": files,
    "settimeout None": lambda sock, job: sock.settimeout(None),
    "settimeout 0": lambda sock, job: sock.settimeout(0),
    "settimeout 0.01": lambda sock, job: sock.settimeout(0.01),
    "setblocking": lambda sock, job: sock.setblocking(False),
}
ACTIONS = {
    "before": ANY_TIME,
    "during": ANY_TIME
    | {
        "kill": lambda sock, job: job.kill(),
        "kill with another": lambda sock, job: job.kill(Killed),
        "throw and close": throw_and_close,
    },
}


def settle(turns=5):
    """So many turns of the loop, each with a look at the descriptors. gevent.idle() would not end where one spins."""
    hub = gevent.get_hub()
    with hub.loop.idle() as busy, hub.loop.check() as turn:
        busy.start(lambda: None)  # or the loop would sleep
        for _ in range(turns):
            hub.wait(turn)


def run(program, when, operation, action):
    """All that is to be the same."""
    prepare, operate = OPERATIONS[operation]
    sock = prepare(program)
    arguments = (sock, program.full) if operation.startswith("connect") else (sock,)
    job = gevent.Greenlet(outcome, operate, *arguments)
    done = []
    if when == "before":
        done.append(outcome(ACTIONS[when][action], sock, job))
    job.start()
    settle()
    if when == "during":
        done.append("waits" if not job.ready() else job.value)
        done.append(outcome(ACTIONS[when][action], sock, job))
        settle()
    if action == "settimeout 0.01" and when == "before" and operation not in named("select", "wait_read"):
        job.join(PATIENCE)
    ended = job.value if job.ready() else "waits"
    if isinstance(job.value, gevent.GreenletExit):
        ended = told(job.value)
    facts = {"did": done, "operation": ended, "closed": sock.fileno() == -1, "peer": program.seen()}
    if operation == "accept":
        with socket.socket() as client:
            facts["a client"] = client.connect_ex(program.address)
    job.kill()
    with contextlib.suppress(OSError):
        sock.close()
    if program.peer is not None:
        program.peer.close()
    return facts


@pytest.fixture(scope="module")
def both(pki, full):
    """both(when, operation, action): what became of the program, over greentls and over gevent."""

    def both(*what):
        return [run(Program(module, pki, full), *what) for module in (greentls.ssl, gevent.ssl)]

    return both


def named(*beginnings):
    return {name for name in OPERATIONS if name.split(",")[0] in beginnings}


CONNECTS = named("connect", "connect_ex")
HANDSHAKES = named("handshake")
ESTABLISHED = OPERATIONS.keys() - named("accept") - CONNECTS - HANDSHAKES - named("select", "wait_read")
WRITES = named("send", "sendall", "sendfile", "unbuffered write", "buffered write")
AT_HAND = {"recv, data at hand", "recv_into, data at hand"}
CLOSED = {"close", "close twice", "close with a file"}
SHUT = {"shutdown RD", "shutdown WR", "shutdown RDWR"}
AT_ONCE = {"settimeout 0", "setblocking"}

# (operations, what was done before them, why it differs). While an operation waits, nothing differs.
DIFFERENCES = [
    (CONNECTS, CLOSED | {"detach"}, "gevent has a TypeError of its own; EBADF is the standard library's"),
    (HANDSHAKES, CLOSED | SHUT | {"shutdown RDWR, close"}, "AttributeError of None; we say what is the matter"),
    (ESTABLISHED - named("sendall") | HANDSHAKES, {"detach"}, "gevent's TLS goes on without a descriptor; EBADF"),
    (AT_HAND | named("read", "write", "unwrap"), SHUT, "TLS goes on after shutdown(); there, what follows is in clear"),
    (WRITES, {"shutdown RD"}, "the same: there the peer gets what is sent in clear"),
    (
        named("send", "unbuffered write"),
        AT_ONCE,
        "gevent's send() returns 0; SSLWantWriteError is the standard library's",
    ),
    (named("sendall"), AT_ONCE, "the same exception, without its errno"),
    (WRITES | named("unwrap"), {"settimeout 0.01"}, "the text of the TimeoutError is the standard library's"),
]


def spins(operation, action):
    """gevent.ssl never ends, nor lets others run: it tries again as long as send() returns 0."""
    return operation in named("buffered write") and action in AT_ONCE


def meant(when, operation, action):
    return when == "before" and any(operation in each and action in actions for each, actions, _ in DIFFERENCES)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("when", ["before", "during"])
def test_it_is_as_with_gevent(both, when, operation):
    differ = {}
    for action in ACTIONS[when]:
        if when == "before" and spins(operation, action):
            continue
        ours, theirs = both(when, operation, action)
        if (ours != theirs) != meant(when, operation, action):
            differ[action] = {fact: (ours[fact], theirs[fact]) for fact in ours if ours[fact] != theirs[fact]}
    assert differ == {}, "listed, or not"


def unwrapped(program):
    """(the SSLSocket, what unwrap() has returned), after the peer has unwrapped its own."""
    sock = program.established(False)
    jobs = [gevent.spawn(each.unwrap) for each in (sock, program.peer)]
    plain, program.peer = (job.get(timeout=PATIENCE) for job in jobs)
    return sock, plain


def close_by_with(sock, plain):
    with sock:
        pass


def file_of_the_plain(sock, plain):
    with plain.makefile("rb"):
        sock.close()


AFTER_UNWRAP = {
    "nothing": lambda sock, plain: None,
    "close": lambda sock, plain: sock.close(),
    "with": close_by_with,
    "close the plain one": lambda sock, plain: plain.close(),
    "close with a file": lambda sock, plain: close_with_a_file(sock, None),
    "close with a file of the plain one": file_of_the_plain,
    "_sock.close": lambda sock, plain: sock._sock.close(),
    "shutdown": lambda sock, plain: sock.shutdown(socket.SHUT_WR),
    "detach": lambda sock, plain: detach(sock, None),
    "send": lambda sock, plain: sock.send(b"x"),
    "unwrap": lambda sock, plain: sock.unwrap(),
    "accept": lambda sock, plain: sock.accept(),
    "read": lambda sock, plain: sock.read(1),
    "names": lambda sock, plain: str((sock.getpeername(), sock.getsockname())),
    "timeouts": lambda sock, plain: (sock.settimeout(5), plain.gettimeout() == sock.gettimeout() == 5)[1],
    "private": lambda sock, plain: str((sock._sslobj, sock._connected)),
}


@pytest.mark.parametrize("action", AFTER_UNWRAP)
def test_after_unwrap_it_is_as_with_gevent(pki, action):
    facts = []
    for module in (greentls.ssl, gevent.ssl):
        program = Program(module, pki, None)
        sock, plain = unwrapped(program)
        done = outcome(AFTER_UNWRAP[action], sock, plain)
        settle()
        facts.append((done, sock.fileno() == -1, plain.fileno() == -1, program.seen()))
        plain.close()
        program.peer.close()
    assert facts[0] == facts[1]


WAITING = sorted(ESTABLISHED - AT_HAND - {"unwrap, server"})
FILES = named("file read", "file readline", "unbuffered write", "buffered write")


@pytest.mark.parametrize("first", WAITING)
@pytest.mark.parametrize("end", ["close", "detach"])
def test_two_that_wait_at_once_are_both_told(pki, first, end):
    """gevent.ssl raises ConcurrentObjectUseError to the second one. A file that is open keeps close() from closing."""
    for second in WAITING:
        program = Program(greentls.ssl, pki, None)
        sock = program.established(False)
        jobs = [gevent.spawn(outcome, OPERATIONS[name][1], sock) for name in (first, second)]
        settle()
        refused = [job for job in jobs if job.ready()]
        if refused:  # nothing is sent behind a close_notify
            assert {first, second} & named("unwrap")
            assert [job.value for job in refused] == [("SSLError", ssl.SSL_ERROR_SSL)]
        detach(sock, None) if end == "detach" else sock.close()
        settle()
        if sock.fileno() != -1:
            assert end == "close"
            assert FILES & {first, second}
            sock._sock.close()
            settle()
        assert [job.value for job in jobs if job not in refused] == [("OSError", errno.EBADF)] * (2 - len(refused))
        program.peer.close()


def test_what_is_not_sent_after_shutdown_does_not_end_reading(pki):
    program = Program(greentls.ssl, pki, None)
    with program.established(False) as sock:
        sock.shutdown(socket.SHUT_WR)
        for send in (sock.send, sock.sendall, sock.write):
            for _ in range(2):
                with pytest.raises(BrokenPipeError):
                    send(b"x")
        program.peer.sendall(b"data")
        assert sock.recv(100) == b"data"
    program.peer.close()


@pytest.mark.parametrize("connected", [True, False])
def test_a_shutdown_of_nothing_is_refused_and_ends_nothing(pki, connected):
    program = Program(greentls.ssl, pki, None)
    sock = program.established(False) if connected else program.listening()
    with sock, pytest.raises(OSError, match="Invalid argument"):
        sock.shutdown(7)
    if connected:
        program.peer.close()
