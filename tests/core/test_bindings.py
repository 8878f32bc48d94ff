"""A server remembers the names that it was asked for: the next hello with one of them is the compiled pump's work."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from greenlet import GreenletExit

from greentls.core import callbacks
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from greentls.openssl import connections, facts
from greentls.openssl.pump import COMPILED
from tests.support.helpers import PATIENCE
from tests.support.pairs import (
    VERSIONS,
    Sessions,
    attempt,
    both_versions,
    client,
    client_context,
    handshake,
    move,
    server_context,
)


@pytest.fixture
def read(monkeypatch):
    """The hellos that Python has read."""
    seen, hello = [], facts.hello
    monkeypatch.setattr(facts, "hello", lambda asker: seen.append(hello(asker)) or seen[-1])
    return seen


def meet(contexts, name="localhost", session=None):
    here = Connection(contexts[0], server_hostname=name, session=session, verify_hostname=False)
    there = Connection(contexts[1])
    handshake(here, there)
    return here, there


@both_versions
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", None])
def test_the_second_time_is_as_the_first(pki, version, name, read):
    sessions = Sessions()
    contexts = client_context(pki, version), server_context(pki, version, hooks=sessions.hooks())
    told, session = [], None
    for _ in range(3):
        here, there = meet(contexts, name, session)
        session = here.session
        told.append((there.server_name, there.handshake.server_name, there.session_id_context, session.server_name))
    assert told[0] == told[1] == told[2]
    assert told[0][0] == (None if name is None else "localhost")
    assert here.session_reused and there.session_reused
    assert there.session.id_context == there.session_id_context
    assert len(read) == (1 if COMPILED else 3)


@both_versions
def test_a_session_resumes_under_its_own_name_only(pki, version):
    contexts = client_context(pki, version), server_context(pki, version, hooks=Sessions().hooks())
    for name in ("a.example", "b.example", None):
        meet(contexts, name)
    first, _ = meet(contexts, "a.example")
    for name, resumes in (("b.example", False), (None, False), ("A.Example", True)):
        assert meet(contexts, name, first.session)[1].session_reused == resumes


def test_what_a_stranger_can_make_it_remember_is_bounded(pki, monkeypatch):
    """hazard: each hello asks for another name."""
    monkeypatch.setattr(callbacks, "MAX_BINDINGS", 2)
    contexts = client_context(pki), server_context(pki)
    for name in "abcde":
        assert meet(contexts, name)[1].server_name == name
        assert len(contexts[1].bindings) <= 2
    record = client(contexts[0], name="x" * 255)
    attempt(record.do_handshake)
    there = Connection(contexts[1])
    move(record, there)
    attempt(there.do_handshake)
    assert all(extension is None or len(extension) <= 260 for extension in contexts[1].bindings)


def test_a_second_hello_is_compared_with_a_first_one_that_python_has_not_read(pki):
    theirs = server_context(pki, VERSIONS["1.3"], groups="P-256")
    meet((client_context(pki), theirs))
    here = client(client_context(pki, VERSIONS["1.3"], groups="X25519:P-256"))
    there = Connection(theirs)
    for ready in (here.do_handshake, there.do_handshake):
        assert attempt(ready) is None
        move(here, there)
        move(there, here)
    connections.set_server_name(here.ssl, "admin.example")
    attempt(here.do_handshake)
    move(here, there)
    with pytest.raises(TLSError, match=r"after the HelloRetryRequest another server_name"):
        there.do_handshake()


@both_versions
def test_a_name_that_one_config_remembers_is_asked_of_anothers_hook(pki, version):
    """hazard: the hook of the first Config is passed over, as OpenSSL has the callbacks of the second."""
    ours, chosen = client_context(pki, version), server_context(pki, version)
    meet((ours, chosen))
    names = []
    first = server_context(pki, version, hooks=Hooks(servername=lambda _, name: names.append(name)))
    for _ in range(2):
        here, there = client(ours), Connection(first)
        there.switch_config(chosen)
        handshake(here, there)
        assert there.session_id_context != chosen.session_id_context
    assert names == ["localhost"] * 2
    assert first.bindings is None
    names.clear()
    switching = server_context(pki, version, hooks=Hooks(servername=lambda one, name: one.switch_config(chosen)))
    theirs, _ = meet((ours, switching))[1], meet((ours, chosen))
    assert theirs.session_id_context != chosen.session_id_context


@both_versions
@pytest.mark.parametrize("kind", [ValueError, GreenletExit, SystemExit, gevent.Timeout])
def test_what_a_lookup_raises_refuses(pki, version, kind):
    """hazard: a lookup can only miss, and behind it there is C that acknowledges the name."""
    sessions, failure = Sessions(), kind()

    def get(connection, session_id):
        raise failure

    contexts = client_context(pki, version), server_context(pki, version, hooks=sessions.hooks(get_session=get))
    first, _ = meet(contexts)
    here, there = client(contexts[0], first.session), Connection(contexts[1])
    with pytest.raises(kind) as caught:
        handshake(here, there)
    assert caught.value is failure
    assert not there.established
    move(there, here)
    with pytest.raises(TLSError, match="internal error"):
        here.do_handshake()


@both_versions
def test_a_lookup_goes_on_after_others_were_inside(pki, version):
    sessions, asked, go_on = Sessions(), Event(), Event()

    def get(connection, session_id):
        meet(contexts)  # inside of the callback
        asked.set()
        go_on.wait()
        return sessions.get(connection, session_id)

    contexts = client_context(pki, version), server_context(pki, version, hooks=sessions.hooks(get_session=get))
    first, _ = meet(contexts)
    job = gevent.spawn(meet, contexts, session=first.session)
    assert asked.wait(PATIENCE)
    meet(contexts)
    go_on.set()
    here, there = job.get(timeout=PATIENCE)
    assert here.session_reused and there.session_reused


@both_versions
def test_what_goes_wrong_in_c_refuses(pki, version):
    contexts = client_context(pki, version), server_context(pki, version)
    meet(contexts)
    for extension in contexts[1].bindings:
        contexts[1].bindings[extension] = "localhost", "not bytes"
    here, there = client(contexts[0]), Connection(contexts[1])
    if COMPILED:
        with pytest.raises(TypeError):
            handshake(here, there)
        assert not there.established
