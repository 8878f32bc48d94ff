#!/usr/bin/env python3
"""Hostile peers against servers and clients of ours, and what must hold after each of them.

python -m tests.adversary.adversary [--seconds 600] [--seed FAMILY:NUMBER] [--loop asyncio]

A case is a seed: the attack, the version, the side that is attacked, the way it is used, its strategy and its hooks all
come from it, and so does every byte that the peer says. A failure names its seed, which runs that case alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import ssl
import sys
import tempfile
import time
import traceback
import warnings
import weakref
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

import greentls.ssl
from greentls.core import bridge
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import GreenTLSError, WireError
from greentls.hub import Deadline, here
from greentls.stores.memory import MemoryStore
from greentls.strategy import STRATEGIES
from tests.adversary import attacks, lite, puppet
from tests.adversary.targets import BIOTarget, ConnectionTarget, SocketTarget, TransportTarget
from tests.support import pairs
from tests.support.helpers import PATIENCE, Pki
from tests.support.hubs import LOOPS, run_under

FACES = ("socket", "socket", "bio", "connection")
PEERS = {
    (True, "1.3"): puppet.Client13,
    (True, "1.2"): puppet.Client12,
    (False, "1.3"): puppet.Server13,
    (False, "1.2"): puppet.Server12,
}


class Refused(Exception):
    """What a hook of the target raises."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Guard(MemoryStore):
    """Says that it is shared."""

    name, shared = "guard", True


class Lab:
    """The contexts of ours, which all cases share: whatever one of them does, the next one must find them whole."""

    def __init__(self, pki, face=None):
        self.case, self.face = None, face
        self.files = pki.cert_file, pki.key_file
        certificate, key = (Path(each).read_bytes() for each in self.files)
        der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        self.credentials = der, load_pem_private_key(key, None)
        self.other_key = ec.generate_private_key(ec.SECP256R1())
        self.servers = {}
        for strategy in STRATEGIES:
            for reads_hello in (False, True):
                self.servers[strategy, reads_hello] = self._server(pki, strategy, reads_hello)
        self.client = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.load_verify_locations(pki.ca_file)
        self.client.set_alpn_protocols(["h2", "http/1.1"])
        self.client.verify_callback = lambda sock, chain, resumed: self.ask()
        hooks = Hooks(servername=lambda connection, name: self.ask(), alpn=lambda connection, offered: offered[0])
        self.bare_server = pairs.server_context(pki, hooks=hooks)
        hooks = Hooks(verify=lambda connection, chain, resumed: self.ask())
        self.bare_client = pairs.client_context(pki, hooks=hooks, alpn_protocols=(b"h2", b"http/1.1"))

    def _server(self, pki, strategy, reads_hello):
        context = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert_file, pki.key_file)
        context.strategy = strategy
        context.session_store = MemoryStore()
        context.replay_guard = Guard()
        context.max_early_data = 1000
        context.alpn_callback = lambda sock, offered: offered[0]
        context.sni_callback = lambda sock, name, context: self.ask()
        context.plain_http_answer = None
        if reads_hello:
            context.client_hello_callback = lambda sock, hello: self.ask()
        return context

    def ask(self):
        """Every hook: what the case wants it to do."""
        case = self.case
        if case is None:
            return
        if case.mood == "waits":
            case.asking += 1
            for _ in range(3):
                here().sleep(0)
            case.asking -= 1
        elif case.mood == "refuses":
            case.refused = True
            raise Refused
        return

    def server(self, case):
        return self.servers[case.strategy, case.reads_hello]

    def target(self, case):
        options = {} if case.server_side else {"server_hostname": "localhost"}
        if case.face == "connection":
            context = self.bare_server if case.server_side else self.bare_client
            return ConnectionTarget(Connection(context, **options))
        context = self.server(case) if case.server_side else self.client
        if case.face == "bio":
            return BIOTarget(context, case.server_side, **options)
        if case.face == "transport":
            return TransportTarget(context, case.server_side, lambda: case.asking, **options)
        options["suppress_ragged_eofs"] = False
        return SocketTarget(context, case.server_side, PATIENCE, lambda: case.asking, **options)

    def hello(self):
        """An ordinary client's, as bytes."""
        connection = Connection(self.bare_client, server_hostname="localhost")
        pairs.attempt(connection.do_handshake)
        return connection.data_to_send()[5:]

    def an_ordinary_client(self, case):
        """Comes, and is served."""
        self.case = None
        if case.face == "connection":
            server, client = Connection(self.bare_server), Connection(self.bare_client, server_hostname="localhost")
            pairs.handshake(client, server)
            client.write(b"hello")
            pairs.move(client, server)
        else:
            up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = self.client.wrap_bio(down, up, server_hostname="localhost")
            server = self.server(case).wrap_bio(up, down, server_side=True)
            for end in (client, server, client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
            client.write(b"hello")
        if server.read(100) != b"hello":
            raise Broken("an ordinary client is not served any more")


class Case:
    """Everything that a seed says."""

    def __init__(self, lab, family, number):
        self.lab, self.family, self.number = lab, family, number
        self.rng = rng = random.Random(f"{family}:{number}")
        self.refused, self.asking, self.replayed = False, 0, None
        if family == "noise":
            self.attack = rng.choice(list(attacks.NOISE))
            self.version, self.server_side = "1.3", True
        elif family == "tlslite":
            self.forgery = rng.choice(attacks.FORGERIES)
            self.attack = self.forgery.__name__
            self.version, self.server_side = rng.choice(("1.2", "1.3")), rng.random() < 0.5
        else:
            names = attacks.FAMILIES[family]
            self.attack = list(names)[number % len(names)]
            self.function, versions, target = names[self.attack]
            self.version = rng.choice(versions)
            self.server_side = rng.random() < 0.5 if target == "both" else target == "server"
        self.face = rng.choice(FACES if family != "early" else ("socket", "socket", "bio"))
        self.face = lab.face or self.face
        self.habit = rng.choice(("reads", "reads", "answers", "leaves"))
        # A native thread costs ten times as much as the rest of a case, and comes rarely.
        self.strategy = rng.choice(("coroutine", "prefetch") * 4 + ("thread",)) if self.server_side else "coroutine"
        self.reads_hello = rng.random() < 0.3
        self.mood = rng.choice(("answers", "answers", "waits", "refuses")) if family != "early" else "answers"

    def __str__(self):
        side = "server" if self.server_side else "client"
        facts = f"TLS {self.version} {side}, {self.face}, {self.strategy}, {self.habit}, hooks: {self.mood}"
        return f"--seed {self.family}:{self.number} ({self.attack}; {facts})"

    def run(self):
        """Raises Broken."""
        lab = self.lab
        lab.case = self
        with silence() as said:
            try:
                with Deadline(PATIENCE, "it hangs"):
                    reference = self._run()
                    lab.an_ordinary_client(self)
            except TimeoutError as error:
                raise Broken(str(error)) from error
            if text := said():
                raise Broken(f"standard error: {text}")
        for _ in range(3):  # an event loop lets go of what it has called
            here().sleep(0)
        gc.collect()
        if reference() is not None:
            raise Broken("the connection is left over")
        if bridge.occupants():
            raise Broken("an operation is left over")

    def _run(self):
        if self.family == "early":
            ticket = self._ticket()
        target = self.lab.target(self)
        target.habit = self.habit
        target.start()
        if self.family == "noise":
            peer = None
            target.send(attacks.NOISE[self.attack](self.rng), self.rng.choice((1, 1, 3, 100)))
            target.turn()
        elif self.family == "tlslite":
            peer = lite.LitePeer(self.rng, self.forgery, self.rng.randrange(8))
            peer.drive(target, self.version, *self.lab.files)
        else:
            peer = self._peer(target)
            if self.family == "early":
                peer.resuming, peer.early_offer = ticket, True
            self._attack(peer)
        target.end(PATIENCE)
        self._check(target, peer)
        return weakref.ref(target.connection)

    def _peer(self, wire):
        peer = PEERS[self.server_side, self.version](self.rng, wire, self.lab.credentials)
        peer.other_key, peer.case = self.lab.other_key, self
        peer.doomed = peer.closed = peer.silent = peer.expected = peer.shaken = False
        peer.second, peer.before, peer.end_of_early_data = lambda: None, lambda: None, True
        return peer

    def _ticket(self):
        """From an ordinary connection, as far as the server can tell."""
        target = self.lab.target(self)
        target.start()
        peer = self._peer(target)
        peer.handshake()
        peer.go()
        peer.listen()
        target.end(PATIENCE)
        return peer.ticket()

    def replay(self, flight):
        """To another target, before the first one gets it."""
        self.replayed = target = self.lab.target(self)
        target.start()
        target.send(flight)
        target.turn()
        target.end(PATIENCE)

    def _attack(self, peer):
        try:
            if self.family == "early":
                peer.open()
                self.function(peer)
                peer.go()
                peer.answer(peer.second)
                peer.finish(peer.end_of_early_data)
            elif self.family == "after":
                self._shake_hands(peer)
                peer.hello_again = self.lab.hello()
                attacks.talk(peer)
                self.function(peer)
            else:
                self.function(peer)
                self._shake_hands(peer)
            peer.tamper = None
            if not peer.silent:
                if not peer.closed:
                    attacks.talk(peer)
                    attacks.leave(peer)
                peer.go()
                peer.listen()
        except (puppet.Over, InvalidTag, WireError):
            peer.over = True

    def _shake_hands(self, peer):
        if self.server_side and self.version == "1.3":
            peer.handshake(peer.second)
        elif self.server_side:
            peer.handshake()
        else:
            peer.handshake(peer.before)
        peer.go()
        peer.shaken = True

    def _check(self, target, peer):
        got, connection = bytes(target.got), target.connection
        if not target.done:
            raise Broken("the operation does not end")
        if connection.busy:
            raise Broken("the connection is busy")
        error = target.error
        if error is not None and not isinstance(error, (GreenTLSError, Refused, *target.errors)):
            raise Broken(f"an undocumented error: {error!r}") from error
        if problem := target.too_much():
            raise Broken(problem)
        if self.refused and (got or target.clean or error is None):
            raise Broken(f"a hook refused, and {got[:50]!r} came")
        if peer is None:
            if error is None or got:
                raise Broken(f"noise was taken for a client: {got[:50]!r}")
            return
        said = bytes(peer.early_said + peer.said), bytes(peer.said)
        if not any(each.startswith(got) for each in said):
            raise Broken(f"plaintext that the peer did not send: {got[:50]!r}, {len(got)} bytes")
        if self.family == "after" and not peer.shaken and not self.refused:
            raise Broken(f"no handshake: {error!r}")
        if peer.forged and (target.clean or got[target.early :]):
            raise Broken(f"a forged handshake was finished: {got[:50]!r}")
        if peer.doomed and target.clean:
            raise Broken(f"it went on to a clean end: {error!r}")
        if self.replayed and self.replayed.got and target.early:
            raise Broken("early data were taken twice")
        if target.clean and not (peer.closed or target.ragged):
            raise Broken("an end without close_notify counts as a clean one")
        if target.clean and got not in said:
            raise Broken(f"a clean end, and {len(said[0]) - len(got)} bytes are missing")
        if peer.expected and self.mood != "refuses" and self.habit != "leaves" and got not in said:
            raise Broken(f"an ordinary peer was not served: {error!r}; {len(got)} of {len(said[0])} bytes")


@contextlib.contextmanager
def silence():
    """What is written to standard error meanwhile, by whomever, as a function that says it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+") as kept:
        before, saved = sys.stderr, os.dup(2)
        os.dup2(kept.fileno(), 2)
        sys.stderr = kept

        def said():
            kept.seek(0)
            return kept.read()

        try:
            yield said
        finally:
            sys.stderr = before
            os.dup2(saved, 2)
            os.close(saved)


FAMILIES = (*attacks.FAMILIES, "tlslite", "noise")


def run(lab, family, numbers):
    """Runs the cases; gives what is wrong, as text."""
    found = []
    for number in numbers:
        case = Case(lab, family, number)
        try:
            case.run()
        except Exception as error:
            cause = error.__cause__ or error
            trace = "" if isinstance(cause, Broken) else "".join(traceback.format_exception(cause))
            found.append(f"{case}: {error!r}\n{trace}")
            del error, cause
    lab.case = None
    return found


def hunt(lab, options):
    """(what is wrong, the number of cases)"""
    if options.seed:
        family, _, number = options.seed.partition(":")
        return run(lab, family, [int(number)]), 1
    found, count, end = [], 0, time.monotonic() + options.seconds
    start = random.randrange(1 << 32)
    while time.monotonic() < end:
        for family in (options.family,) if options.family else FAMILIES:
            found += run(lab, family, [start + count])
        count += 1
    return found, count * len(FAMILIES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", help="runs this case alone")
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--loop", choices=LOOPS, help="against greentls.aio in this event loop")
    options = parser.parse_args()
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Pki(Path(directory)), options.loop and "transport")
        gc.collect()
        gc.freeze()
        found, count = run_under(options.loop or "gevent", lambda: hunt(lab, options))
    for each in found:
        print(each)
    print(f"{count} cases, {len(found)} failures")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
