"""The states of a connection, and the record of its handshake.

A connection is in one State at a time, and each step from one to the next is one of TRANSITIONS. All steps are taken in
this file, by a method of States that says what has happened; any other step is an IllegalTransition.

    FRESH --> HELLO --> HANDSHAKING --> EARLY --> ESTABLISHED --> CLOSING        and from any of them: DEAD

A Connection is a States: what may be done now is written into fields of its pump, which asks them. Its Handshake, the
record, has what the handshake finds out. What only the handshake needs is forgotten as soon as data flow; the rest
stays, for the sessions that come later and for whoever asks how it went.

The peer's close_notify is no state here. OpenSSL keeps it (SSL_get_shutdown(3)), and it ends nothing but read().
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from greentls.core.session import Session

__all__ = [
    "TRANSITIONS", "UNREAD", "Handshake", "IllegalTransition", "Outcome", "SessionLookup", "State", "States", "Unread",
]  # fmt: skip


class State(str, Enum):  # str: to hash one is C's work
    """The states of a connection, which decide what may be done with it."""

    #: Nothing has been done. Settings may still change, and a session or early data be offered.
    FRESH = "fresh"
    #: A strategy has read the client's hello and asks hooks, before OpenSSL sees the hello.
    HELLO = "reading the hello"
    #: do_handshake() has been called, and OpenSSL may have answered to what was received.
    HANDSHAKING = "handshaking"
    #: A server sends and receives data, but the client's Finished has not come: what was read may be a replay.
    EARLY = "early"
    #: The handshake is finished.
    ESTABLISHED = "established"
    #: This side has said close_notify. It sends no more data, and may read what the peer still sends.
    CLOSING = "closing"
    #: An operation has failed for good, or the handshake was refused. Nothing can be done any more.
    DEAD = "dead"


FRESH, HELLO, HANDSHAKING, EARLY, ESTABLISHED, CLOSING, DEAD = State

TRANSITIONS: dict[State, tuple[State, ...]] = {
    FRESH: (HELLO, HANDSHAKING, DEAD),
    HELLO: (HANDSHAKING, DEAD),
    HANDSHAKING: (EARLY, ESTABLISHED, DEAD),
    EARLY: (ESTABLISHED, CLOSING, DEAD),
    ESTABLISHED: (CLOSING, DEAD),
    CLOSING: (DEAD,),
    DEAD: (),
}


class IllegalTransition(RuntimeError):
    """A step that is not in TRANSITIONS. This is a mistake in greentls."""


class Unread(Enum):
    """Stands for a server name as long as no hello has been read."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD

# By greentls.core.callbacks.question().
Answers = dict[object, Callable[[], Any]]  # Any: each kind of hook has its own answer

Outcome = Literal["hit", "miss", "expired", "unsealable", "timeout", "error"]


class SessionLookup(NamedTuple):
    """The result of looking up one connection's session.

    outcome: "hit": it was found; whether OpenSSL resumes it depends on more (session-id context, version, cipher).
    "miss": it was not found. "expired": it was found too late, by this machine's clock. "unsealable": it does not open,
    because it was sealed with another secret, damaged or forged. "timeout", "error": the store gave no answer.
    """

    store: str
    outcome: Outcome
    seconds: float


class States:
    """The state of one connection.

    An exception may be thrown in between any two lines of a step, which is then taken again: so to take it twice does
    no harm.
    """

    handshake: Handshake
    state = FRESH
    finished = False  # the handshake is
    # The pump's.
    dead: str  # why the state is DEAD
    established: bool  # data may be read: the handshake is finished, or far enough for early data
    writable: bool  # data may be written

    def _enter(self, state: State) -> None:
        if state not in TRANSITIONS[self.state] and state is not self.state:
            raise IllegalTransition(f"a connection does not become {state.value} when it is {self.state.value}")
        self.state = state

    def foretell(self, server_name: str | None) -> None:
        """A strategy has read the hello, and asks hooks what OpenSSL will ask. foretold() ends it."""
        self._enter(HELLO)
        self.handshake.server_name = server_name

    def foretold(self, answers: Answers) -> None:
        """OpenSSL reads the hello next, and asks the hooks that have not answered."""
        self.handshake.server_name, self.handshake.answers = UNREAD, answers

    def begin(self) -> bool:
        """do_handshake() has been called. True: for the first time."""
        if self.state is not FRESH and self.state is not HELLO:
            return False
        self.state = HANDSHAKING  # TRANSITIONS has it from both
        return True

    def accept_early_data(self) -> None:
        """Some has come, for the first time or again."""
        if self.state is not CLOSING:
            self._enter(EARLY)
            self.handshake.forget()
            self.established = self.writable = True

    def finish(self) -> None:
        if self.state is not CLOSING:  # a server may say close_notify before the client's Finished has come
            if self.state is HANDSHAKING:
                self.state = ESTABLISHED  # TRANSITIONS has it
            else:
                self._enter(ESTABLISHED)
            self.handshake.forget()
            self.established = self.writable = True
        self.finished = True

    def close(self) -> None:
        """close_notify has been said, now or before."""
        self.writable = False
        if self.state is ESTABLISHED:
            self.state = CLOSING  # TRANSITIONS has it
        else:
            self._enter(CLOSING)

    def die(self, reason: str) -> None:
        self.dead = reason  # which keeps everybody out, so it comes first
        self.writable = False
        self._enter(DEAD)


class Handshake:
    """The record of one handshake. The methods below and OpenSSL's callbacks write it."""

    __slots__ = (
        "answers", "chain_ends", "external_psk", "hello", "hook_seconds", "kept", "lookups", "offered", "offered_psks",
        "psk_lookups", "server_name", "session_key", "session_lookup", "vouched_until",
    )  # fmt: skip

    def __init__(self) -> None:
        # Needed only during the handshake.
        self.hello: bytes | None = None  # at a server, the client's first one, for as long as a second one may come
        self.offered_psks: bytes | None = None  # pre_shared_key of the TLS 1.3 hello that is worked on
        self.lookups = 0  # of sessions
        self.psk_lookups = 0
        self.kept: object = None  # memory that OpenSSL reads after a callback has returned
        self.answers: Answers | None = None  # what hooks have answered before OpenSSL was entered

        # Kept after the handshake.
        self.server_name: str | Unread | None = UNREAD  # at a server, from the client's hello
        self.session_lookup: SessionLookup | None = None  # in a session store
        self.hook_seconds: dict[str, float] | None = None  # how long each hook took, by its name
        self.external_psk = False  # a hook has given the key of one
        self.offered: Session | None = None  # at a client, to be resumed
        self.chain_ends = 0.0  # expiry of the chain of resumptions that this connection goes on with, since the epoch
        self.session_key: object = None  # where ClientSessions keeps what the client gets, None: nowhere
        self.vouched_until: float | None = None  # a client's: expiry of the OCSP response for the peer's certificate

    def forget(self) -> None:
        """Drops what only the handshake needs, when data begin to flow."""
        self.hello = self.offered_psks = self.kept = self.answers = None

    def looked_up(self, lookup: SessionLookup | None) -> None:
        self.session_lookup = lookup

    def resumes_until(self, chain_ends: float) -> None:
        """Sets the expiry of the chain that this connection's sessions belong to, in seconds since the epoch."""
        self.chain_ends = chain_ends

    def keep_sessions_under(self, key: object) -> None:
        """Sets, at a client, where a new_session hook keeps the sessions that it gets."""
        self.session_key = key

    def offer(self, session: Session, chain_ends: float) -> None:
        """Sets the session that a client asks the server to resume."""
        self.offered, self.chain_ends = session, chain_ends

    def vouch(self, until: float | None) -> None:
        """Notes, at a client in a full handshake, until when an OCSP response confirms the peer's certificate."""
        self.vouched_until = until

    def use_external_psk(self, used: bool) -> None:
        """Notes whether a hook has given the key of an external pre-shared key."""
        self.external_psk = used

    def took(self, hook: str, seconds: float) -> None:
        """Adds the seconds that a hook took. A hook may be asked twice, for example after a HelloRetryRequest."""
        if self.hook_seconds is None:
            self.hook_seconds = {}
        self.hook_seconds[hook] = self.hook_seconds.get(hook, 0.0) + seconds

    def inherit(self, before: Handshake) -> None:
        """Takes over the record of a connection that this one replaces before its handshake."""
        self.hook_seconds = before.hook_seconds
