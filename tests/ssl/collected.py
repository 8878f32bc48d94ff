"""What a finalizer may still do with something of ours that is garbage with it; run by test_collector.py.

The collector calls the finalizers of a cycle in no order that anybody could rely on, and every object of the cycle is
whole until the last of them has run. So whatever a finalizer does, the C object below must still be there. Each case
makes a cycle of a thing and of somebody who uses it when it is finalized, in both orders of their making, lets the
collector find it, and looks at what the use came to. MALLOC_PERTURB_ makes sure that freed memory is not what it was.
"""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
import weakref
from pathlib import Path

from greenlet import getcurrent, greenlet

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from tests.support.helpers import Pki
from tests.support.pairs import TLS12, TLS13, client, client_context, handshake, server_context
from tests.support.ssl_pairs import contexts, handshakes


class Holder:
    """The object that makes the cycle. Its attributes are all that knows the thing."""


class Finalized(Holder):
    def __del__(self):
        self.use(self)


def by_del(thing, use, first):
    holder = Finalized() if first else None
    made = thing()
    holder = holder or Finalized()
    holder.thing, holder.use = made, use


def by_generator(thing, use, first):
    def wait(holder):
        try:
            yield
        finally:
            use(holder)

    holder = Holder()
    if first:
        holder.generator = wait(holder)
        holder.thing = thing()
    else:
        holder.thing = thing()
        holder.generator = wait(holder)
    next(holder.generator)


def by_weakref(thing, use, first):
    """A finalizer that knows the thing, and so keeps it: it is no garbage before the holder is."""
    holder, inner = Holder(), Holder()
    inner.thing = thing()
    inner.me = inner
    holder.me = holder
    if first:
        weakref.finalize(holder, use, inner)
    else:
        weakref.finalize(inner, int)
        weakref.finalize(holder, use, inner)


def by_greenlet(thing, use, first):
    """A greenlet that nobody will ever switch to again is ended with GreenletExit when the cycle lets it go."""

    def wait(inner):
        try:
            getcurrent().parent.switch()
        finally:
            use(inner)

    holder, inner = Holder(), Holder()
    if not first:
        inner.thing = thing()
    holder.greenlet = greenlet(functools.partial(wait, inner))
    holder.greenlet.switch()
    if first:
        inner.thing = thing()
    holder.me = holder


FINALIZERS = by_del, by_generator, by_weakref, by_greenlet


class Cases:
    def __init__(self, pki):
        self.pki = pki
        self.peers = []
        self.results = []

    def connections(self, version):
        ends = client(client_context(self.pki, version)), Connection(server_context(self.pki, version))
        handshake(*ends)
        return ends

    def connection(self, version):
        ours, peer = self.connections(version)
        self.peers.append(peer)
        return ours

    def use_connection(self, holder):
        ours, peer = holder.thing, self.peers.pop()
        ours.write(b"last words")
        ours.shutdown()
        peer.receive_data(ours.data_to_send())
        self.results.append((peer.read(), peer.read()) == (b"last words", b""))

    def unbegun(self, version):
        return client(client_context(self.pki, version, hooks=Hooks(message=lambda *_: None)))

    def use_unbegun(self, holder):
        """The first operation of all, and one that asks hooks: there is nobody any more whom to ask for."""
        try:
            holder.thing.do_handshake()
        except Exception as error:
            self.results.append(type(error).__name__ in ("WantRead", "ConnectionDead"))
        else:
            self.results.append(False)

    def session(self, version):
        ours, _ = self.connections(version)
        return ours.session

    def use_session(self, holder):
        self.results.append(Session.from_bytes(holder.thing.to_bytes()).id == holder.thing.id)

    def context(self, version):
        return server_context(self.pki, version)

    def use_context(self, holder):
        ends = client(client_context(self.pki)), Connection(holder.thing)
        handshake(*ends)
        self.results.append(ends[0].established)

    def sock(self, version):
        """As a pywsgi handler holds it: closed, while a file of it is open."""
        names = {TLS12: "1.2", TLS13: "1.3"}
        ours, peer = handshakes(*contexts(self.pki, names[version]))
        file = ours.makefile("rb", -1)
        ours.close()
        self.peers.append(peer)
        return ours, file

    def use_sock(self, holder):
        _, file = holder.thing
        file.close()
        peer = self.peers.pop()
        self.results.append(peer.recv(100) == b"")
        peer.close()

    def idle_sock(self, version):
        """The same, and nobody closes the file but its own finalizer."""
        return self.sock(version)

    def use_idle_sock(self, holder):
        self.results.append(True)


def main():
    gc.disable()
    with tempfile.TemporaryDirectory() as directory:
        cases = Cases(Pki(Path(directory)))
        count = 0
        for name in ("connection", "unbegun", "session", "context", "sock", "idle_sock"):
            for version in (TLS12, TLS13):
                for finalizer in FINALIZERS:
                    for first in (True, False):
                        print(name, hex(version), finalizer.__name__, "first" if first else "last", flush=True)
                        thing = functools.partial(getattr(cases, name), version)
                        finalizer(thing, getattr(cases, f"use_{name}"), first)
                        gc.collect()
                        gc.collect()  # what a weakref.finalize() has kept until then
                        assert cases.results == [True], cases.results
                        cases.results.clear()
                        for peer in cases.peers:
                            if name == "idle_sock":
                                assert peer.recv(100) == b"", "no close_notify"
                                peer.close()
                        cases.peers.clear()
                        gc.collect()
                        count += 1
    print(count, "cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
