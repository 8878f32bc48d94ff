"""The states of a connection: each transition of the table is taken, every other one is an error."""

from __future__ import annotations

import itertools

import pytest

from greentls.core.connection import Connection
from greentls.core.handshake import TRANSITIONS, UNREAD, Handshake, IllegalTransition, State, States
from greentls.core.hooks import Hooks
from greentls.errors import ConnectionDead, TLSError
from tests.support.pairs import VERSIONS, client, client_context, handshake, move, server_context

both_versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())

# What has to happen to a fresh connection before it is in a state, and what each step is to its States.
WAYS = {
    State.FRESH: [],
    State.HELLO: [State.HELLO],
    State.HANDSHAKING: [State.HANDSHAKING],
    State.EARLY: [State.HANDSHAKING, State.EARLY],
    State.ESTABLISHED: [State.HANDSHAKING, State.ESTABLISHED],
    State.CLOSING: [State.HANDSHAKING, State.ESTABLISHED, State.CLOSING],
    State.DEAD: [State.DEAD],
}
STEPS = {
    State.HELLO: lambda states: states.foretell("localhost"),
    State.HANDSHAKING: lambda states: states.begin(),
    State.EARLY: lambda states: states.accept_early_data(),
    State.ESTABLISHED: lambda states: states.finish(),
    State.CLOSING: lambda states: states.close(),
    State.DEAD: lambda states: states.die("for the test"),
}
# Steps that are called in these states, and change nothing.
AGAIN = {
    (State.EARLY, State.HANDSHAKING),  # do_handshake() waits for the client's Finished
    (State.ESTABLISHED, State.HANDSHAKING),
    (State.CLOSING, State.HANDSHAKING),
    (State.DEAD, State.HANDSHAKING),  # the bridge tells that it is dead
    (State.CLOSING, State.EARLY),  # close_notify has been said before the client's Finished has come
    (State.CLOSING, State.ESTABLISHED),
}


class Subject(States):
    """Without a pump."""

    dead, established, writable = "", False, False

    def __init__(self):
        self.handshake = Handshake()


def at(state):
    states = Subject()
    for each in WAYS[state]:
        STEPS[each](states)
    assert states.state is state
    return states


def test_the_table_has_every_state_and_leads_nowhere_from_the_last_one():
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.DEAD] == ()
    assert all(State.DEAD in after for state, after in TRANSITIONS.items() if state is not State.DEAD)
    assert not any(State.FRESH in after for after in TRANSITIONS.values())


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, STEPS)), ids=lambda state: state.name)
def test_a_step_is_taken_if_the_table_has_it(before, after):
    states = at(before)
    if before is after or after in TRANSITIONS[before]:
        STEPS[after](states)
        assert states.state is after
    elif (before, after) in AGAIN:
        STEPS[after](states)
        assert states.state is before
    else:
        with pytest.raises(IllegalTransition, match=f"does not become {after.value} when it is {before.value}"):
            STEPS[after](states)
        assert states.state is before


@pytest.mark.parametrize(
    ("state", "established", "writable", "finished"),
    [
        (State.FRESH, False, False, False),
        (State.HELLO, False, False, False),
        (State.HANDSHAKING, False, False, False),
        (State.EARLY, True, True, False),
        (State.ESTABLISHED, True, True, True),
        (State.CLOSING, True, False, True),
        (State.DEAD, False, False, False),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_may_be_done_in_a_state(state, established, writable, finished):
    states = at(state)
    assert (states.established, states.writable, states.finished) == (established, writable, finished)
    states.die("for the test")
    assert (states.established, states.writable, states.finished) == (established, False, finished)
    assert states.dead == "for the test"


def test_what_only_the_handshake_needs_is_forgotten_with_it_and_the_rest_stays():
    states = Subject()
    handshake = states.handshake
    states.foretell("localhost")
    assert handshake.server_name == "localhost"
    states.foretold({"a question": lambda: "its answer"})
    assert handshake.server_name is UNREAD, "OpenSSL reads the hello itself"
    states.begin()
    handshake.hello = handshake.offered_psks = handshake.kept = b"bytes"
    handshake.server_name = "localhost"
    handshake.took("sni_callback", 1.0)
    handshake.took("sni_callback", 0.5)
    handshake.resumes_until(7.0)
    states.finish()
    assert {handshake.hello, handshake.offered_psks, handshake.kept, handshake.answers} == {None}
    assert (handshake.server_name, handshake.hook_seconds, handshake.chain_ends) == (
        "localhost",
        {"sni_callback": 1.5},
        7.0,
    )


@both_versions
def test_a_connection_goes_through_its_states(pki, version):
    seen: list[State] = []
    hooks = Hooks(servername=lambda connection, name: seen.append(connection.state))
    here, there = client(client_context(pki, version)), Connection(server_context(pki, version, hooks=hooks))
    assert here.state is there.state is State.FRESH
    assert not there.started
    handshake(here, there)
    assert seen == [State.HANDSHAKING]
    assert here.state is there.state is State.ESTABLISHED
    here.shutdown()
    assert here.state is State.CLOSING
    move(here, there)
    assert there.read() == b""
    assert there.state is State.ESTABLISHED, "it may go on to write"
    there.refuse(80, "for the test")
    assert there.state is State.DEAD
    with pytest.raises(ConnectionDead, match="for the test"):
        there.read()


@both_versions
def test_a_write_after_close_notify_is_an_error_and_the_peers_data_can_still_be_read(pki, version):
    """hazard: OpenSSL's own error is one of the whole connection."""
    here, there = client(client_context(pki, version)), Connection(server_context(pki, version))
    handshake(here, there)
    here.shutdown()
    for _ in range(2):
        with pytest.raises(TLSError, match="SSL routines: protocol is shutdown"):
            here.write(b"too late")
    move(here, there)
    there.write(b"the rest")
    move(there, here)
    assert here.read() == b"the rest"


def test_a_refused_connection_has_begun_its_handshake(pki):
    """hazard: another connection, with other settings, in the place of one whose client has been refused."""
    there = Connection(server_context(pki, VERSIONS["1.3"]))
    there.refuse(40, "for the test")
    assert there.started
