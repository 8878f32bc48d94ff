"""A scheduler that is malicious: between any two bytecodes of greentls somebody else runs; run by test_malice.py.

    python -m tests.core.malice switch|collect|kill [--step N] [--signers]

switch: at each bytecode a signal handler, as it were, switches to whoever else is ready. collect: at each bytecode the
collector runs, and every now and then finds a closed TLS socket with its finalizer, which sends and receives. kill: an
exception is thrown in at one bytecode after the other, wherever Python looks for signals, each time in a fresh pair of
connections. What must hold: each side gets what its peer has sent, no connection stays busy, no turn stays taken, and
what was interrupted neither hangs nor breaks another connection. --signers: both sides have certificates, and keys that
wait.
"""

from __future__ import annotations

import argparse
import dis
import functools
import gc
import random
import sys
import tempfile
from pathlib import Path

import gevent

import greentls
from greentls import stream
from greentls.certificates import CertificateChain
from greentls.core import bridge
from greentls.core.config import VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.errors import GreenTLSError
from greentls.keys import Callback
from greentls.openssl import provider
from greentls.stream import TLSStream
from tests.keys.signing import private_key, signature
from tests.support.helpers import Pki
from tests.support.pairs import VERSIONS, Sessions, client, client_context, raw_pair, server_context

PATIENCE = 60.0  # seconds: a limit for broken code
PACKAGE = str(Path(greentls.__file__).parent)
EACH_WAY = 40_000  # bytes


class Interrupt(BaseException):
    """What a signal handler raises."""


# -- where somebody else may run ---------------------------------------------------------------------------------------


@functools.cache
def checkpoints(code):
    """Offsets of the instructions before which Python looks for signals: behind calls, at a function's beginning, at
    jumps backwards, and on CPython 3.10 at the targets of all jumps, unless a try or a with begins there.

    Behind a call an exception belongs to the call. Where the next instruction has another handler, as at the end of a
    try, there is no place to raise it as Python would.
    """
    found, call = {0}, None
    for each in dis.get_instructions(code):
        if call is not None and handler(code, call) == handler(code, each.offset):
            found.add(each.offset)
        call = each.offset if each.opname.startswith(("CALL", "RESUME")) else None
        if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
            if sys.version_info < (3, 11):
                found.add(each.argval)
            elif each.opname == "JUMP_BACKWARD":
                found.add(each.offset)
    return found - {each.offset for each in dis.get_instructions(code) if each.opname.startswith("SETUP_")}


def handler(code, offset):
    if sys.version_info < (3, 11):
        return None
    return next((each.target for each in dis._parse_exception_table(code) if each.start <= offset < each.end), None)


def of_greentls(frame):
    return frame.f_code.co_filename.startswith(PACKAGE)


class Tracer:
    """Calls act(frame) at each bytecode of greentls, in each greenlet that calls watch()."""

    def __init__(self, act):
        self._act = act
        self.bytecodes = 0

    def watch(self, function):
        def traced():
            sys.settrace(self._call)  # the thread's, as soon as one greenlet has said so; but a new one has to
            return function()

        return traced

    def _call(self, frame, event, _):
        if not of_greentls(frame):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._step

    def _step(self, frame, event, _):
        if event == "opcode":
            self.bytecodes += 1
            self._act(frame)
        return self._step


# -- what goes on meanwhile --------------------------------------------------------------------------------------------


class Site:
    def __init__(self, pki, signers=False):
        self.pki, self._signers = pki, signers
        self._contexts = {}
        self.signatures = 0

    def pair(self, version):
        """Two streams over a pair of sockets, before their handshake."""
        if version not in self._contexts:
            hooks = Sessions().hooks(alpn=self._wait, servername=self._wait)
            ours, theirs = {}, {"hooks": hooks}
            if self._signers:
                ours = {"certificates": [self._signer("client", client=True)]}
                trust = TrustAnchors(files=(self.pki.ca_file,))
                theirs |= {"certificates": [self._signer("localhost")], "verify_mode": VERIFY_PEER, "trust": trust}
            self._contexts[version] = (
                client_context(self.pki, version, **ours),
                server_context(self.pki, version, **theirs),
            )
        ours, theirs = self._contexts[version]
        raw = raw_pair()
        return TLSStream(raw[0], client(ours), PATIENCE), TLSStream(raw[1], Connection(theirs), PATIENCE)

    def _signer(self, name, **options):
        certificate, key_file = self.pki.issue(name, **options)
        key = private_key(key_file)

        def sign(data, algorithm):
            self._wait()
            self.signatures += 1
            return signature(key, data, algorithm)

        return CertificateChain.load(certificate, Callback(key.public_key(), sign))

    @staticmethod
    def _wait(*_):
        gevent.sleep(0)


def text(seed):
    return random.Random(seed).randbytes(EACH_WAY)


def send(one, data):
    sizes = random.Random(len(data) ^ data[0])
    at = 0
    while at < len(data):
        size = sizes.choice([1, 100, 5_000, 20_000])
        one.write(data[at : at + size])
        at += size


def receive(one, expected):
    got = bytearray()
    while len(got) < len(expected):
        chunk = one.read(1 + len(got) % 30_000)
        assert chunk, f"the end after {len(got)} bytes"
        got += chunk
    assert got == expected, "other bytes than the peer has sent"


def talk(pair, seed, watch):
    """Both ways at once, by two greenlets a side; the greenlets."""
    ours, theirs = pair

    def side(one, first, second):
        def act():
            one.do_handshake()
            jobs = [
                gevent.spawn(watch(functools.partial(*each))) for each in ((send, one, first), (receive, one, second))
            ]
            gevent.joinall(jobs, raise_error=True)

        return gevent.spawn(watch(act))

    there, back = text(seed), text(seed + 1)
    return [side(ours, there, back), side(theirs, back, there)]


def finish(jobs, what):
    gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
    assert all(job.ready() for job in jobs), f"{what}: a greenlet hangs"


def nothing_is_taken(pairs, what):
    assert not bridge.occupants(), f"{what}: a connection is busy"
    for one in (one for pair in pairs for one in pair):
        assert bytes(sorted(one._free)) == stream._TURNS, f"{what}: a turn is taken: {one._free}"
        assert not one.connection.waiting, f"{what}: somebody waits to receive"
    assert not stream._awaited, f"{what}: somebody waits for a turn"
    assert not provider._signatures, f"{what}: a signature is not freed"


def end(pairs):
    for pair in pairs:
        for one in pair:
            one.close()


# -- the three of them -------------------------------------------------------------------------------------------------


def storm(site, act):
    tracer = Tracer(act)
    for version in VERSIONS.values():
        pairs = [site.pair(version) for _ in range(2)]
        jobs = [job for seed, pair in enumerate(pairs) for job in talk(pair, 10 * seed, tracer.watch)]
        finish(jobs, hex(version))
        sys.settrace(None)
        end(pairs)
        nothing_is_taken(pairs, hex(version))
    return tracer.bytecodes


def switch(site, step):
    count = iter(range(1 << 60))

    def act(frame):
        if next(count) % step == 0 and gevent.getcurrent() is not gevent.get_hub():
            # So that the others are interrupted, too, while this one is away.
            sys.call_tracing(gevent.sleep, (0,))

    return storm(site, act)


class Finalized:
    """Garbage that knows a TLS connection of its own, and uses it at its end."""

    def __init__(self, pair):
        self.pair = pair
        self.me = self

    def __del__(self):
        ours, theirs = self.pair
        ours.write(b"last words")
        assert theirs.read(100) == b"last words"
        ours.close()
        theirs.close()
        Finalized.count += 1

    count = 0


def collect(site, step):
    count = iter(range(1 << 60))
    ready = []
    for version in VERSIONS.values():
        for _ in range(60):
            pair = site.pair(version)
            finish([gevent.spawn(one.do_handshake) for one in pair], "before")
            ready.append(pair)
    bytecodes = 0

    def act(frame):
        if gevent.getcurrent() is gevent.get_hub():
            return  # where no finalizer may use TLS: a timer looks at idle connections
        number = next(count)
        if number % (10 * step) == 0 and ready:
            Finalized(ready.pop())
        if number % step == 0:
            gc.collect(0)

    gc.disable()
    try:
        bytecodes = storm(site, act)
        gc.collect()
    finally:
        gc.enable()
    assert Finalized.count > 20, f"only {Finalized.count} finalizers ran"
    return bytecodes


OPERATIONS = {
    "client handshake": lambda ours, theirs: ours.do_handshake,
    "server handshake": lambda ours, theirs: theirs.do_handshake,
    "write": lambda ours, theirs: functools.partial(ours.write, b"written" * 100),
    "read": lambda ours, theirs: functools.partial(ours.read, 100),
    "shutdown": lambda ours, theirs: ours.shutdown,
    "close": lambda ours, theirs: ours.close,
}


def kill(site, step):
    bytecodes = 0
    for version in VERSIONS.values():
        for name, choose in OPERATIONS.items():
            where, ended = 0, False
            while not ended:
                ended = killed_at(site, version, name, choose, where)
                where += step
                bytecodes += 1
    return bytecodes


def killed_at(site, version, name, choose, where):
    """True: the operation was over before so many places where it may be interrupted."""
    what = f"{name} {version:#x} killed at {where}"
    left, where_it_was = [where], []

    def act(frame):
        if frame.f_code.co_name == "_free_quietly":  # a destructor: whatever is raised in one, Python only prints
            return
        if gevent.getcurrent() is job and frame.f_lasti in checkpoints(frame.f_code):  # not the peer
            left[0] -= 1
            if left[0] == -1:
                where_it_was.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                raise Interrupt

    pair = ours, theirs = site.pair(version)
    watch = Tracer(act).watch
    operation = choose(*pair)
    if "handshake" in name:
        other = theirs if operation == ours.do_handshake else ours
        peer = gevent.spawn(outcome, other.do_handshake)
    else:
        finish([gevent.spawn(one.do_handshake) for one in pair], what)
        theirs.write(b"for the reader" * 10)
        peer = gevent.spawn(outcome, theirs.shutdown if name == "shutdown" else functools.partial(theirs.read, 1))
    job = gevent.spawn(outcome, watch(operation))
    job.join(PATIENCE)
    sys.settrace(None)
    assert job.ready(), f"{what}: hangs"
    one = theirs if operation == theirs.do_handshake else ours  # the peer may still wait, for a signature
    assert not one.connection.busy, f"{what}: busy"
    # Whoever uses the same connection next hangs on nothing that the dead one has left.
    one.timeout = 0.0
    for use in (one.do_handshake, functools.partial(one.read, 1), functools.partial(one.write, b"x")):
        raised = outcome(use)
        assert not isinstance(raised, AssertionError | RuntimeError), f"{what}: then {raised!r}"
    end([pair])
    peer.join(PATIENCE)
    assert peer.ready(), f"{what}: the peer hangs"
    assert isinstance(job.value, Interrupt) or left[0] >= 0 or name == "close", (
        f"{what}: swallowed: {job.value!r} {where_it_was}"
    )
    nothing_is_taken([pair], f"{what} {where_it_was}")
    return left[0] >= 0


def outcome(function):
    """What it returns or raises."""
    try:
        return function()
    except Interrupt as error:
        return error
    except (GreenTLSError, OSError) as error:
        return error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["switch", "collect", "kill"])
    parser.add_argument("--step", type=int, default=1, help="only each so many places (default: each)")
    parser.add_argument("--signers", action="store_true", help="with keys that wait, on both sides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Pki(Path(directory)), arguments.signers)
        count = globals()[arguments.kind](site, arguments.step)
    assert bool(site.signatures) == arguments.signers
    print(arguments.kind, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
