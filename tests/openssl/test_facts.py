"""What OpenSSL tells in one call: the compiled way and the plain one tell the same."""

from __future__ import annotations

import pytest

from greentls.core import session as core_session
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import errors, facts, pump
from tests.support.pairs import VERSIONS, both_versions, client, client_context, handshake, move, server_context


def both(compiled, plain, told):
    """A function that asks both, and keeps what they say."""

    def ask(asked):
        told.append((compiled(asked), plain(asked)))
        return told[-1][0]

    return ask


@both_versions
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", None])
def test_a_hello_and_a_session(pki, version, name, monkeypatch):
    hellos, records = [], []

    def stored(_, *told):
        records.append(told)

    monkeypatch.setattr(facts, "hello", both(facts.hello, facts._hello, hellos))
    hooks = Hooks(get_session=lambda *_: None, store_session=stored)
    contexts = client_context(pki, version), server_context(pki, version, hooks=hooks)
    handshake(Connection(contexts[0], server_hostname=name, verify_hostname=False), Connection(contexts[1]))
    assert len(hellos) == 1
    assert hellos[0][0] == hellos[0][1]
    message, server_name = hellos[0][0]
    if version == VERSIONS["1.3"]:
        assert message[0] == 1 and len(message) == 4 + int.from_bytes(message[1:4], "big")
    else:
        assert message is None, "only a TLS 1.3 hello may be followed by a second one"
    assert server_name == (None if name is None else b"\0\x0c\0\0\x09" + name.encode())
    assert len(records) == (2 if version == VERSIONS["1.3"] else 1)
    for session_id, id_context, expires, der, resumed in records:
        restored = core_session.Session.from_bytes(der)
        assert (restored.id, restored.id_context, restored.expires) == (session_id, id_context, expires)
        assert len(session_id) == len(id_context) == 32
        assert resumed is False


@pytest.fixture(params=["as it is", "in Python"])
def parse(request, monkeypatch):
    if request.param == "in Python":
        monkeypatch.setattr(facts, "_twin", lambda: None)
    return facts.parse


@both_versions
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_session_from_bytes_is_resumed(pki, version, parse, kind):
    kept, others = {}, []

    def get(_, session_id):
        other = bytes([session_id[0] ^ 1]) + session_id[1:]
        others.extend(parse(kept[session_id], 0, each) for each in (other, session_id[:-1], b""))
        return parse(kind(b"8 octets" + kept[session_id]), 8, session_id)

    def new(_, session):
        kept[session.id] = session.to_bytes()

    ours = client_context(pki, version)
    theirs = server_context(pki, version, hooks=Hooks(get_session=get, new_session=new))
    session = None
    for resumes in (False, True):
        here, there = client(ours, session), Connection(theirs)
        handshake(here, there)
        assert here.session_reused == there.session_reused == resumes
        there.write(b"x")
        move(there, here)
        assert here.read() == b"x"
        session = here.session
    assert others == [None, None, None], "of another id"


@pytest.mark.parametrize("blob", [b"", b"8 octets", b"8 octets" + bytes(100), b"8 octets\x30\x03\x02\x01\x01"])
def test_bytes_that_are_no_session(parse, blob):
    assert parse(blob, 8, b"") is None
    assert errors.peek() == 0, "nor is an error left behind"


@both_versions
@pytest.mark.parametrize("compiled", [True, False])
def test_a_handshake_that_is_over(pki, version, compiled, monkeypatch):
    """Post-handshake messages are counted, the large keys are gone (test_connections), and it is told what it was."""
    said = []
    settle = facts.settle if compiled else facts._settle
    monkeypatch.setattr(facts, "settle", lambda *arguments: said.append(settle(*arguments)) or said[-1])
    ours, theirs = client_context(pki, version), server_context(pki, version)
    first = client(ours), Connection(theirs)
    handshake(*first)
    first[1].write(b"x")
    move(*first[::-1])
    assert first[0].read() == b"x"
    second = client(ours, first[0].session), Connection(theirs)
    handshake(*second)
    assert said == [False, False, True, True]
    assert [each.resumed for each in (*first, *second)] == said
    assert all(each.session_reused == each.resumed for each in (*first, *second))


def test_a_function_that_is_hidden_leaves_it_to_python(monkeypatch):
    def hidden(name):
        raise UnsupportedOpenSSL(name, "hidden", "here", "none")

    monkeypatch.setattr(facts, "address", hidden)
    assert facts._twin.__wrapped__() is None


def test_the_compiled_ones_take_nothing_else():
    if pump.twin is None:
        assert facts._twin() is None
        return
    with pytest.raises(TypeError):
        pump.twin.hello(object())
    with pytest.raises(RuntimeError, match="__init__"):
        pump.twin.hello(pump.twin.Pump.__new__(pump.twin.Pump))
    with pytest.raises(TypeError):
        pump.twin.settle(object(), 0)
    with pytest.raises(TypeError):
        pump.twin.settle(pump.twin.Pump.__new__(pump.twin.Pump))
    with pytest.raises(RuntimeError, match="__init__"):
        pump.twin.settle(pump.twin.Pump.__new__(pump.twin.Pump), 0)
    with pytest.raises(ValueError):
        pump.twin.parse(b"", -1, b"")
    with pytest.raises(TypeError):
        pump.twin.parse(None, 0, b"")
    with pytest.raises(ValueError, match="addresses"):
        pump.twin.bind_facts((1,))
    with pytest.raises(ValueError, match="addresses"):
        pump.twin.bind_callbacks((1,), None, None, None)
