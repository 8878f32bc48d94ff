"""ClientSessions: sessions that clients resume, for programs that never hand one from a connection to the next.

A resumption verifies no certificate: the session stands for what was verified when it was made. So a session is offered
only where a full handshake would verify the same thing in the same way. Its key is a digest of

- the peer's address as the socket has it, the server name, and whether the certificate has to be valid for that name;
- the Config's session_scope: trust anchors, verify mode and flags, own certificate, ALPN, versions, ciphers, ...

The context itself is not part of the key. Programs make a new context for each connection, and a new one of equal
settings finds what the old one has left.

- Under TLS 1.3 sessions are tickets, which the server may send at any time after the handshake: OpenSSL calls back
  inside SSL_read(). A ticket is offered once (RFC 8446 C.4). It is taken out before the handshake begins, so parallel
  connections offer different ones, and a handshake that fails leaves nothing to forget.
- A TLS 1.2 session stays until it expires, the server declines it, or a handshake that offers it fails.
- A chain of resumptions ends one session_lifetime after its full handshake, or when the first certificate of the peer's
  chain expires, whichever is sooner. Resuming does not prolong it.

A store shares sessions with other processes. The newest ticket of each peer stays in this process, the others go to the
store, and a process that has none asks there. Each ticket is in one place only. If two processes take the same one out
of the store, add() tells which of them may have it. A store that is down or slow costs a full handshake.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from greentls.certificates import read_certificate
from greentls.core.connection import Connection
from greentls.core.hooks import HookConnection, Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError, WantRead, WouldBlock
from greentls.hub import after_fork
from greentls.sessions.stored import Kept, SessionLookup, StoredSessions, unpack
from greentls.stores import SharedValues

if TYPE_CHECKING:
    from greentls.stores import SessionStore

__all__ = ["ClientSessions"]

MAX_PEERS = 500  # Go keeps 64, BoringSSL 1,024; a session with a small certificate in it takes 4 to 7 KB
PER_PEER = 4  # tickets: a full handshake brings two; a pool that opens several connections at once can use more

_PREFIX = b"client sessions:"  # and 32 bytes: longer than the keys of a server's sessions, so the two do not meet
_NO_HOOKS = Hooks()


@dataclass(frozen=True)
class _Key:
    """The peer and the settings. Hooks are compared and not hashed: those of a user need not be hashable."""

    digest: bytes
    hooks: Hooks = field(hash=False)

    @property
    def stored(self) -> bytes:
        """Its key in a store. Empty if a hook took part in the verdict: that means nothing in another process."""
        return _PREFIX + self.digest if self.hooks == _NO_HOOKS else b""


class ClientSessions:
    """Sessions of clients, for SSLContext.client_sessions of any number of contexts.

    max_peers: the number of peers; those used last are kept. per_peer: TLS 1.3 tickets of each; None means 4, or 1 with
    a store. store: one of open_store(), for processes that share their sessions, and for a program that is started
    again and again and calls close() at its end.

    May be used by any number of greenlets and threads. A forked process begins with none. Raises ConfigurationError.
    """

    def __init__(
        self, max_peers: int = MAX_PEERS, per_peer: int | None = None, store: SessionStore | None = None
    ) -> None:
        if per_peer is None:
            per_peer = PER_PEER if store is None else 1
        for option, value in (("max_peers", max_peers), ("per_peer", per_peer)):
            if value < 1:
                raise ConfigurationError(f"ClientSessions: {option}={value}", "must be 1 or more")
        self._claims = store if isinstance(store, SharedValues) else None
        if store is not None and self._claims is None:
            problem = "has no add(), which tells who may use a ticket"
            raise ConfigurationError(f"ClientSessions: store {store.name}", problem, "give one of open_store()'s")
        self.max_peers, self.per_peer, self.store = max_peers, per_peer, store
        self._stored = StoredSessions(store) if store is not None else None
        self._begin()
        after_fork(self._begin)

    @property
    def count(self) -> int:
        """Sessions in this process."""
        return sum(map(len, self._peers.values()))

    @contextmanager
    def resuming(self, connection: Connection, address: object, timeout: float | None) -> Iterator[None]:
        """A with block for a client's handshake: offers a session, and learns what came of it.

        address: the peer's, None if it has none. timeout: seconds for the store's answer, None for no limit. A session
        that the connection already offers is kept. May wait for the store.
        """
        if not connection.started:
            self._offer(connection, address, timeout)
        try:
            yield
        except (WantRead, WouldBlock):
            raise
        except BaseException:
            self._settle(connection)
            raise
        if connection.established:
            self._settle(connection)

    def collect(self, connection: HookConnection, session: Session) -> None:
        """Hooks.new_session. Does not wait."""
        if session.single_use:  # TLS 1.2's are in _settle(), once the handshake is finished
            self._keep(connection, session.copy())

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until the store has what is on its way to it, timeout seconds at most. Whether it has."""
        return self._stored.drain(timeout) if self._stored else True

    def clear(self) -> None:
        """Forgets the sessions in this process."""
        with self._lock:
            self._peers.clear()

    def close(self) -> None:
        """Gives the store what is in this process, and closes the store. May wait for it."""
        with self._lock:
            left = list(self._peers.items())
            self._peers.clear()
        if self._stored is not None:
            for key, kept in left:
                self._write(key, kept[-1])
            self._stored.close()

    # -- the handshake -------------------------------------------------------------------------------------------------

    def _offer(self, connection: Connection, address: object, timeout: float | None) -> None:
        if connection.config.session_scope is None:  # the Config is older than client_sessions
            return
        scope, hooks = connection.config.session_scope
        whom = repr((address, *connection.expected)).encode()
        key, offered = _Key(hashlib.sha256(scope + whom).digest(), hooks), connection.handshake.offered
        connection.handshake.keep_sessions_under(key)
        if offered is not None:
            if offered.single_use:
                self._forget(key, offered)
            return
        kept = self._take(key)
        if kept is None:
            kept, lookup = self._take_from_store(key, timeout)
            connection.handshake.looked_up(lookup)
        if kept is not None:
            connection.offer(kept[1], of_equal_settings=True, chain_ends=kept[0])

    def _settle(self, connection: Connection) -> None:
        handshake = connection.handshake
        key, offered = handshake.session_key, handshake.offered
        if not isinstance(key, _Key):
            return
        resumed = connection.established and connection.session_reused
        if offered is not None and not resumed:
            self._forget(key, offered)
        if not connection.established:
            return
        if not resumed:
            chain_ends = time() + connection.config.session_lifetime
            if connection.config.verify_mode:
                chain_ends = min(chain_ends, _expiry(connection.verified_chain))
            handshake.resumes_until(chain_ends)
        session = connection.session
        if session is not None and not session.single_use and not (resumed and session == offered):
            self._keep(connection, session)

    # -- this process --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Also in a forked process: a ticket that both processes had would be offered twice."""
        # The peer used last is last, and the newest session of each is the last of its list.
        self._peers: OrderedDict[_Key, list[Kept[Session]]] = OrderedDict()
        self._lock = threading.Lock()  # against threads; nothing under it waits

    def _take(self, key: _Key) -> Kept[Session] | None:
        with self._lock:
            kept = self._peers.pop(key, [])
            found = None
            while kept and found is None:
                chain_ends, session = kept.pop()
                if chain_ends > time() and session.resumable:
                    found = chain_ends, session
            if found is not None and not found[1].single_use:
                kept.append(found)
            if kept:
                self._peers[key] = kept
            return found

    def _keep(self, connection: HookConnection, session: Session) -> None:
        key, chain_ends = connection.handshake.session_key, connection.handshake.chain_ends
        chain_ends = min(chain_ends, session.made + session.lifetime, session.vouched_until or math.inf)
        if isinstance(key, _Key) and chain_ends > time() and session.resumable:
            over = self._add(key, (chain_ends, session))
            for kept in over if session.single_use else [(chain_ends, session)]:
                self._write(key, kept)

    def _add(self, key: _Key, new: Kept[Session]) -> list[Kept[Session]]:
        """Keeps a session in this process. Returns those of the peer that are over the limit."""
        with self._lock:
            kept = self._peers.pop(key, [])
            if not new[1].single_use:
                kept.clear()
            kept.append(new)
            self._peers[key] = kept
            if len(self._peers) > self.max_peers:
                self._peers.popitem(last=False)
            return [kept.pop(0)] if len(kept) > self.per_peer else []

    def _forget(self, key: _Key, session: Session) -> None:
        with self._lock:
            kept = self._peers.get(key, [])
            left = [each for each in kept if each[1] != session]
            if len(left) == len(kept):
                return
            if left:
                self._peers[key] = left
            else:
                del self._peers[key]
        if not session.single_use:
            self._write(key, None)

    # -- the store -----------------------------------------------------------------------------------------------------

    def _write(self, key: _Key, kept: Kept[Session] | None) -> None:
        if self._stored is not None and key.stored:
            self._stored.write(key.stored, *((0, None) if kept is None else (kept[0], kept[1].to_bytes())))

    def _take_from_store(self, key: _Key, timeout: float | None) -> tuple[Kept[Session] | None, SessionLookup | None]:
        stored, claims = self._stored, self._claims
        if stored is None or claims is None or not key.stored:
            return None, None

        def question() -> Kept[Session] | None:
            blob = stored.store.get(key.stored)
            if blob is None:
                return None
            chain_ends, packed = unpack(blob)
            session = Session.from_bytes(packed)
            left, claim = chain_ends - time(), f"client-ticket.{session.id.hex()}"
            if session.single_use and left > 0 and not claims.add(claim, b"", left):
                return None
            return chain_ends, session

        kept, lookup = stored.look_up(timeout, question)
        if kept is not None and kept[1].single_use:
            self._write(key, None)
        elif kept is not None:
            self._add(key, kept)
        return kept, lookup


def _expiry(chain: list[bytes]) -> float:
    """When the first of the certificates expires, in seconds since the epoch."""
    return min((read_certificate(each).not_valid_after_utc.timestamp() for each in chain), default=0.0)
