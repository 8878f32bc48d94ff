"""The soak: many greenlets, every hook waiting at random, kills and timeouts at random; run by test_soak.py.

    python -m tests.soak.soak --seconds 20 --greenlets 300 --seed 1

Every connection is drawn as either clean, which must succeed, or troubled: then some hook raises, or a greenlet is
killed, or runs out of time, anywhere. What comes out of an operation must be what was put into that very connection, or
the alert, the end or the reset that the peer's trouble makes. Prints what it counted as JSON, and the hub's longest
gap; exit status 1 and a sentence for each thing that must not be.
"""

from __future__ import annotations

import _socket
import argparse
import collections
import gc
import json
import logging
import math
import random
import resource
import socket
import sys
import tempfile
import time
import weakref
from pathlib import Path

import gevent
from gevent.pool import Pool

from greentls.core import bridge
from greentls.core.config import VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.early_data import server_connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from greentls.sessions.server import SessionCache
from greentls.stores.memory import MemoryStore
from greentls.stream import TLSStream
from tests.support.helpers import PATIENCE, Pki
from tests.support.pairs import TLS12, TLS13, chain, client_context, server_context

EARLY = "TLS 1.3 with early data"
MOST_EARLY = 3000
LONGEST_WAIT = 0.02  # seconds in a hook
# How often each of these has to happen, so that the whole means something. A busy machine takes longer for it.
ENOUGH = {
    **dict.fromkeys(("clean", "resumed", "early data", "context switched"), 20),
    **{f"carried out: {each}": 20 for each in ("Trouble", "LateTrouble", "GreenletExit")},
}
ENOUGH_AT_ONCE = 100  # hooks that wait


class Trouble(Exception):
    """Raised by a hook, or thrown by a timeout: knows whose it is."""

    def __init__(self, plan):
        super().__init__("trouble")
        self.plan = plan


class LateTrouble(gevent.Timeout):
    plan = None


class Plan:
    """What shall happen to one connection."""

    def __init__(self, rng):
        self.version = rng.choice((TLS12, TLS13, EARLY))
        self.kind = rng.choice(("clean", "clean", "hook", "kill", "timeout"))
        self.side = rng.choice(("client", "server"))
        hooks = ("servername", "alpn", "verify", "ocsp", "certificate", "keylog", "message", "get", "early_data")
        self.hook = rng.choice(hooks)
        self.after = rng.random() * LONGEST_WAIT * 4
        self.size = rng.choice((1, 1000, 40_000, 300_000))
        self.resume = rng.random() < 0.6


class Store(MemoryStore):
    def __init__(self, soak):
        super().__init__(max_entries=500)
        self._soak = soak

    def get(self, session_id):
        self._soak.wait()
        if self._soak.rng.random() < 0.05:
            raise ConnectionError("the store is down")
        return super().get(session_id)

    def put(self, session_id, session, lifetime):
        self._soak.wait()
        super().put(session_id, session, lifetime)


class Soak:
    def __init__(self, directory, seed):
        self.rng = random.Random(seed)
        self.counts = collections.Counter()
        self.wrong = []
        self.connections = weakref.WeakSet()
        self.waiting = self.most_waiting = 0
        pki = Pki(Path(directory))
        self.cache = SessionCache(Store(self))
        trust = TrustAnchors(files=(pki.ca_file,))
        server_hooks = {**self._hooks("server"), "store_session": self.cache.put, "remove_session": self.cache.remove}
        server_hooks["get_session"] = self._get
        client_hooks = self._hooks("client", without=("servername", "alpn"))
        self.sessions = collections.defaultdict(lambda: collections.deque(maxlen=50))
        self.others = {  # to which the servername hook switches now and then; sessions are not shared between the two
            version: server_context(
                pki,
                version,
                hooks=Hooks(**server_hooks),
                trust=trust,
                verify_mode=VERIFY_PEER,
                session_id_context=b"another",
            )
            for version in (TLS12, TLS13)
        }
        self.contexts = {
            version: (
                client_context(
                    pki,
                    version,
                    hooks=Hooks(**client_hooks),
                    alpn_protocols=(b"h2",),
                    certificates=[chain(*pki.client)],
                ),
                server_context(
                    pki,
                    version,
                    hooks=Hooks(**server_hooks),
                    trust=trust,
                    verify_mode=VERIFY_PEER,
                ),
            )
            for version in (TLS12, TLS13)
        }
        del server_hooks["verify"]  # early data is taken where clients are not verified
        del client_hooks["verify"]  # and sent where nobody is to be asked about the server first
        self.contexts[EARLY] = (
            client_context(pki, TLS13, hooks=Hooks(**client_hooks), alpn_protocols=(b"h2",)),
            server_context(pki, TLS13, hooks=Hooks(**server_hooks, early_data=self._take), max_early_data=MOST_EARLY),
        )

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def wait(self):
        if self.rng.random() < 0.5:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            try:
                gevent.sleep(self.rng.random() * LONGEST_WAIT)
            finally:
                self.waiting -= 1

    def _here(self, connection, side, hook):
        self.wait()
        plan = connection.owner()
        if side == "client" and hook == "ocsp":
            connection.handshake.vouch(math.inf)  # else none of its sessions would be resumed
        if plan.kind == "hook" and plan.side == side and plan.hook == hook:
            self.counts["raised in a hook"] += 1
            raise Trouble(plan)

    def _take(self, connection, client_random):
        self._here(connection, "server", "early_data")
        return self.rng.random() < 0.8

    def _get(self, connection, session_id):
        self._here(connection, "server", "get")
        return self.cache.get(connection, session_id)

    def too_few(self):
        """What has not happened often enough yet."""
        few = {name: self.counts[name] for name, least in ENOUGH.items() if self.counts[name] < least}
        return few if self.most_waiting >= ENOUGH_AT_ONCE else few | {"waiting at once": self.most_waiting}

    def _hooks(self, side, without=()):
        def alpn(connection, offered):
            self._here(connection, side, "alpn")
            return offered[0]

        def servername(connection, name):
            self._here(connection, side, "servername")
            other = self.others.get(connection.owner().version)
            if other is not None and self.rng.random() < 0.3:
                self.counts["context switched"] += 1
                connection.switch_config(other)

        hooks = {"alpn": alpn, "servername": servername}
        for name in ("verify", "ocsp", "certificate", "keylog", "message"):
            hooks[name] = lambda connection, *_, name=name: self._here(connection, side, name)
        return {name: hook for name, hook in hooks.items() if name not in without}

    # -- connections ---------------------------------------------------------------------------------------------------

    def one(self):
        plan = Plan(self.rng)
        session = None
        if plan.resume and self.sessions[plan.version]:
            session = self.rng.choice(self.sessions[plan.version])
            self.counts["with a session"] += 1
        ours, theirs = self.contexts[plan.version]
        streams = []
        for sock, connection in zip(
            socket.socketpair(),
            (
                Connection(ours, owner=lambda: plan, server_hostname="localhost", session=session),
                server_connection(theirs, owner=lambda: plan, early_data=True),
            ),
            strict=True,
        ):
            raw = _socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
            raw.setblocking(False)
            self.connections.add(connection)
            streams.append(TLSStream(raw, connection, 60.0))
        client, server = streams
        jobs = {
            "client": gevent.spawn(self._guard, plan, "client", client, self._client, plan, client),
            "server": gevent.spawn(self._guard, plan, "server", server, self._serve, plan, server),
        }
        gevent.sleep(0)  # one that is killed before it has begun closes nothing
        killer = None
        if plan.kind == "kill":
            killer = gevent.spawn_later(plan.after, jobs[plan.side].kill, block=False)
        results = [job.get() for job in jobs.values()]
        if killer is not None:
            killer.kill()
        self.counts[plan.kind] += 1
        self.counts["resumed"] += client.connection.session_reused
        if plan.kind == "clean" and results != ["done", "done"]:
            self.wrong.append(f"a clean connection ended with {results}")

    def _guard(self, plan, side, stream, function, *arguments):
        """Runs one side; tells how it ended, and judges it."""
        late = None
        try:
            try:
                if plan.kind == "timeout" and plan.side == side:
                    late = LateTrouble.start_new(plan.after)
                    late.plan = plan
                function(*arguments)
                return "done"
            finally:
                if late is not None:
                    late.close()
        except (Trouble, LateTrouble) as error:
            if error.plan is not plan or plan.side != side:
                self.wrong.append(f"{side}: {error!r} is another connection's")
            self.counts[f"carried out: {type(error).__name__}"] += 1
            return type(error).__name__
        except gevent.GreenletExit:
            if plan.kind != "kill" or plan.side != side:
                self.wrong.append(f"{side}: killed, and nobody meant it")
            self.counts["carried out: GreenletExit"] += 1
            return "killed"
        except (TLSError, OSError) as error:
            return repr(error)
        except BaseException as error:
            self.wrong.append(f"{side}: {error!r}")
            return repr(error)
        finally:
            try:
                stream.close()
            except Trouble as error:  # close_notify asks the message hook
                if error.plan is not plan:
                    self.wrong.append(f"{side}: {error!r} is another connection's")

    def _client(self, plan, stream):
        data = self.rng.randbytes(plan.size)
        connection = stream.connection
        if connection.early_data_limit:
            connection.early_data = data[:MOST_EARLY]
        stream.do_handshake()
        early = len(connection.early_data) if connection.early_data_accepted else 0
        self.counts["early data"] += early > 0
        writer = gevent.spawn(self._write, stream, data[early:])
        try:
            got = bytearray()
            while len(got) < len(data):
                chunk = stream.read(65536)
                if not chunk:
                    raise EOFError("the server closed early") if plan.kind == "clean" else OSError("closed")
                got += chunk
        finally:
            writer.kill()
        if got != data:
            self.wrong.append("the echo differs")
        session = stream.connection.session
        if session is not None and session.resumable:
            self.sessions[plan.version].append(session)

    @staticmethod
    def _write(stream, data):
        try:
            stream.write(data)
        except (TLSError, OSError, Trouble):
            pass  # the reader gets it too

    def _serve(self, plan, stream):
        stream.do_handshake()
        while data := stream.read(65536):
            stream.write(data)


class Gap:
    """How long a greenlet that only wants its turn has had to wait for it at most: seconds."""

    longest = 0.0

    def watch(self):
        while True:
            before = time.perf_counter()
            gevent.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before - 0.001)


def rss():
    """MiB, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--greenlets", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    logging.disable()  # the store's troubles are meant
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(directory, options.seed)
        gap = Gap()
        watcher = gevent.spawn(gap.watch)
        pool = Pool(options.greenlets)
        started = time.monotonic()
        settled = None
        while (elapsed := time.monotonic() - started) < options.seconds or soak.too_few():
            if elapsed > PATIENCE + options.seconds:
                soak.wrong.append(f"too few to mean something, in {elapsed:.0f} s: {soak.too_few()}")
                break
            pool.spawn(soak.one)
            if settled is None and elapsed > options.seconds / 2:
                settled = rss()
        pool.join()
        soak.cache.drain(10)
        watcher.kill()
    growth = rss() - (settled or rss())
    for _ in range(3):
        gevent.sleep(0)
        gc.collect()
    greenlets = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead]
    for what, left in (
        ("connections", len(soak.connections)),
        ("operations inside OpenSSL", len(bridge.occupants())),
        ("greenlets", len(greenlets)),
        ("hooks that wait", soak.waiting),
    ):
        if left:
            soak.wrong.append(f"{left} {what} are left")
    if growth > 64:
        soak.wrong.append(f"memory grew by {growth:.0f} MiB in the second half")
    report = dict(sorted(soak.counts.items())) | {
        "seed": options.seed,
        "most hooks waiting at once": soak.most_waiting,
        "memory growth in the second half, MiB": round(growth, 1),
        "longest gap between two turns of the hub, ms": round(gap.longest * 1000),
    }
    print(json.dumps(report))
    for sentence in soak.wrong[:20]:
        print(sentence, file=sys.stderr)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
