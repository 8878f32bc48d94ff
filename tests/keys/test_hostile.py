"""A key process that lies, dies or babbles, and clients that do so to an honest one: refused, counted, forgotten."""

from __future__ import annotations

import errno
import gc
import os

import gevent
import gevent.socket
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from gevent.event import Event

from greentls import keys
from greentls.errors import SigningError
from greentls.keys import process as process_module
from greentls.keys import protocol
from greentls.keys.process import KeyProcess, read_key
from greentls.keys.protocol import DONE, LIST, MAX_ANSWER, MAX_REQUEST, REFUSED, SIGN
from greentls.openssl import provider
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import both_versions, connected, contexts, failure

ALGORITHM = "ecdsa_secp256r1_sha256"


def header(number, length):
    return number.to_bytes(4, "big") + length.to_bytes(4, "big")


class Liar:
    """A key process at a path. behave(socket, number, answer): says something, in place of the answer, to each SIGN.

    A behaviour that returns True has ended its connection. connections, requests: their numbers. open: the connections
    that are there.
    """

    def __init__(self, path, key_file):
        self.path, self.honest = path, KeyProcess([read_key(key_file)], {os.getuid()})
        self.behave, self.connections, self.requests = self.answer, 0, 0
        self.open = set()
        self.free = Event()  # for a behaviour that waits
        self._listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._jobs = [gevent.spawn(self._serve)]

    @staticmethod
    def answer(sock, number, answer):
        protocol.send(sock, number, answer)

    def _serve(self):
        while True:
            sock, _ = self._listener.accept()
            self.connections += 1
            self._jobs.append(gevent.spawn(self._talk, sock))

    def _talk(self, sock):
        self.open.add(sock)
        try:
            with sock:
                while request := protocol.receive(sock, MAX_REQUEST):
                    number, body = request
                    signs = body.startswith(SIGN)
                    self.requests += signs
                    if (self.behave if signs else self.answer)(sock, number, self.honest.answer(body)):
                        return
        except OSError:
            pass  # it was hung up on
        finally:
            self.open.discard(sock)

    def close(self):
        gevent.killall(self._jobs)
        self._listener.close()


@pytest.fixture
def lied_to(pki, tmp_path):
    """lied_to(version): (a client's context, a server's, the Liar that has its key, its Agent)."""
    liars = []

    def make(version="1.3"):
        certificate, key = pki.issue("localhost")
        liars.append(Liar(str(tmp_path / "keys.sock"), key))
        agent = keys.Agent(liars[-1].path)
        client, server = contexts(pki, version)
        server._chains = []
        server.load_cert_chain(certificate, agent)
        return client, server, liars[-1], agent

    yield make
    for each in liars:
        each.close()


# -- a key process that lies -------------------------------------------------------------------------------------------


def say(*parts):
    def behave(sock, number, answer):
        for part in parts:
            sock.sendall(part(number, answer) if callable(part) else part)
        return True

    return behave


def babbles(sock, number, answer):
    """For as long as anybody listens."""
    while True:
        sock.sendall(header(number, MAX_ANSWER + 1) + bytes(1 << 16))


LIES = {
    "closes": say(),
    "garbage": say(bytes(range(256))),
    "half a header": say(b"\0\0\0"),
    "nothing announced": say(lambda number, answer: header(number, 0)),
    "too little": say(lambda number, answer: header(number, len(answer)) + answer[:-1]),
    "less than it announces, and nothing": say(lambda number, answer: header(number, 1)),
    "too much announced": say(lambda number, answer: header(number, MAX_ANSWER + 1) + answer),
    "too much": babbles,
    "as much as there may be": say(lambda number, answer: header(number, MAX_ANSWER) + DONE + bytes(MAX_ANSWER - 1)),
    "another request's number": say(lambda number, answer: header(number + 1, len(answer)) + answer),
    "the number before": say(lambda number, answer: header(number - 1, len(answer)) + answer),
    "nothing signed": say(lambda number, answer: header(number, 1) + DONE),
    "a damaged signature": say(lambda number, answer: header(number, len(answer)) + answer[:-1] + b"!"),
    "a longer signature": say(lambda number, answer: header(number, len(answer) + 1) + answer + b"\0"),
    "neither done nor refused": say(lambda number, answer: header(number, 2) + b"??"),
    "a refusal": say(lambda number, answer: header(number, 8) + REFUSED + b"no\nkey\x1b"),
    "a long refusal": say(lambda number, answer: header(number, MAX_ANSWER) + REFUSED + b"\xff" * (MAX_ANSWER - 1)),
}


@pytest.mark.parametrize("lie", LIES)
@both_versions
def test_a_lie_refuses_one_handshake_and_is_forgotten(lied_to, version, lie):
    client, server, liar, agent = lied_to(version)
    with connected(client, server):
        pass
    idle = agent._connections.get()._idle
    assert (liar.requests, liar.connections, len(idle)) == (1, 1, 1)
    liar.behave = LIES[lie]
    here, refused = failure(client, server)
    assert isinstance(refused, SigningError)
    assert "internal error" in str(here).replace("_", " ").lower()
    assert len(str(refused)) < 400
    assert str(refused).isprintable()
    # By the idle connection, and by a fresh one, unless the first one's answer could be read.
    assert liar.requests in (2, 3)
    liar.behave = liar.answer
    with connected(client, server):
        pass
    assert len(idle) == 1
    assert provider._signatures == {}


@both_versions
def test_a_signature_over_other_data(lied_to, version):
    client, server, liar, _ = lied_to(version)
    fingerprint = next(iter(liar.honest._keys))
    other = liar.honest.answer(SIGN + fingerprint + bytes([len(ALGORITHM)]) + ALGORITHM.encode() + b"other data")
    liar.behave = lambda sock, number, answer: protocol.send(sock, number, other)
    for count in (1, 2, 3):
        _, refused = failure(client, server)
        assert isinstance(refused, SigningError)
        assert "does not confirm" in str(refused)
        assert (liar.requests, liar.connections) == (count, 1)


@both_versions
def test_an_answer_twice_is_not_the_next_ones(lied_to, version):
    client, server, liar, _ = lied_to(version)
    liar.behave = lambda sock, number, answer: liar.answer(sock, number, answer) or liar.answer(sock, number, answer)
    for count in (1, 2, 3):
        with connected(client, server):
            pass
        assert liar.connections == count  # whose connection has more than the answer is left


@both_versions
def test_a_late_answer_is_not_the_next_ones(lied_to, version):
    client, server, liar, agent = lied_to(version)

    def late(sock, number, answer):
        assert liar.free.wait(PATIENCE)
        liar.answer(sock, number, answer)

    liar.behave, agent.timeout, server.callback_timeout = late, 0.01, None
    _, refused = failure(client, server)
    assert isinstance(refused, TimeoutError)
    assert "key process" in str(refused)
    assert agent._connections.get()._idle == []
    liar.behave, agent.timeout = liar.answer, PATIENCE
    liar.free.set()
    with connected(client, server):
        pass


def test_answers_that_change_places(lied_to):
    """Two ask at once, and each gets the other one's answer: the one over an idle connection asks again."""
    _, server, liar, agent = lied_to()
    key = server._chains[0].key
    assert len(agent._connections.get()._idle) == 1
    held = []

    def exchange(sock, number, answer):
        held.append((sock, number, answer))
        if len(held) == 2:
            (one, first, its), (other, second, others) = held
            liar.behave = liar.answer
            protocol.send(one, second, others)
            protocol.send(other, first, its)

    liar.behave = exchange
    jobs = [gevent.spawn(tried, key, data) for data in (b"first", b"second")]
    again, refused = (job.get(timeout=PATIENCE) for job in jobs)
    assert isinstance(refused, SigningError)
    assert "another request" in str(refused)
    keys.algorithms.check(key.public_key, again, b"first", ALGORITHM)


def tried(key, data):
    try:
        return key.sign(data, ALGORITHM)
    except SigningError as error:
        return error


def test_as_many_questions_as_idle_connections_and_one(lied_to):
    _, server, liar, agent = lied_to()
    key, count = server._chains[0].key, 5

    def together(sock, number, answer):
        if liar.requests == count:
            liar.free.set()
        assert liar.free.wait(PATIENCE)
        liar.answer(sock, number, answer)

    liar.behave = together
    jobs = [gevent.spawn(key.sign, b"data", ALGORITHM) for _ in range(count)]
    gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
    assert (liar.requests, len(agent._connections.get()._idle)) == (count, count)
    liar.behave = LIES["closes"]
    with pytest.raises(SigningError):
        key.sign(b"data", ALGORITHM)
    assert (liar.requests, len(agent._connections.get()._idle)) == (2 * count + 1, 0)


def test_the_last_idle_connection_may_be_taken_between_two_bytecodes(lied_to):
    """A signal handler switches to another greenlet after this one has seen it."""

    class Idle(list):
        def __bool__(self):
            return True

    _, server, liar, agent = lied_to()
    agent._connections.get()._idle = Idle()
    assert server._chains[0].key.sign(b"data", ALGORITHM)
    assert (liar.requests, liar.connections) == (1, 2)


LISTS = {
    "nothing": b"",
    "half a length": b"\0",
    "a length and nothing": b"\xff\xff",
    "nothing but lengths": bytes(MAX_ANSWER - 1),
    "a long key": b"\xff\xff" + bytes(100),
    "other keys": 400 * (b"\0\x20" + bytes(32)),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_that_is_none(lied_to, monkeypatch, what):
    _, server, liar, agent = lied_to()
    public = server._chains[0].certificate.public_key()
    assert agent.get(public)
    monkeypatch.setattr(liar.honest, "_list", LISTS[what])
    assert agent.get(public) is None


def test_the_connections_of_an_agent_that_is_gone_are_closed(lied_to):
    client, server, liar, agent = lied_to()
    with connected(client, server):
        pass
    assert len(agent._connections.get()._idle) == len(liar.open) == 1
    del client, server, agent
    # The hub has links to notify, too.
    wait_for(lambda: (gc.collect(), not liar.open)[1], "the agent's connections to close")


# -- clients that do so to an honest one -------------------------------------------------------------------------------


@pytest.fixture
def holder(pki):
    return KeyProcess([read_key(pki.key_file)], {os.getuid()})


def test_many_requests_at_once_are_answered_in_turn_with_others(holder, talk, monkeypatch):
    """Otherwise a worker that somebody else has taken over could stop all others' handshakes."""
    many, one = talk(), talk()
    answered, honest = [], holder.answer
    monkeypatch.setattr(holder, "answer", lambda request: answered.append(request) or honest(request))
    many.sendall(1000 * (header(1, 1) + b"x"))
    protocol.send(one, 1, LIST)
    assert protocol.receive(one, MAX_ANSWER)[1].startswith(DONE)
    assert answered.count(b"x") <= 2
    for _ in range(1000):
        assert protocol.receive(many, MAX_ANSWER)[1].startswith(REFUSED)


@pytest.mark.parametrize("said", [b"", header(1, 100) + b"half"], ids=["nothing", "half a request"])
def test_one_that_says_nothing_for_long_is_left(holder, talk, monkeypatch, caplog, said):
    good = talk()
    protocol.send(good, 1, LIST)
    assert protocol.receive(good, MAX_ANSWER)
    monkeypatch.setattr(process_module, "IDLE", 0.01)
    silent = talk()
    silent.sendall(said)
    assert silent.recv(1) == b""
    assert bool(caplog.records) == bool(said)
    protocol.send(good, 1, LIST)
    assert protocol.receive(good, MAX_ANSWER)[1].startswith(DONE)


def test_it_accepts_again_when_there_are_descriptors_again(holder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(process_module, "PAUSE", 0.001)
    listener = gevent.socket.socket(gevent.socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    tries = []

    class Full:
        def accept(self):
            tries.append(None)
            if len(tries) < 4:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return listener.accept()

    job = gevent.spawn(holder.serve, Full())
    with listener, gevent.socket.socket(gevent.socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        protocol.send(sock, 1, LIST)
        assert protocol.receive(sock, MAX_ANSWER)[1].startswith(DONE)
        job.kill()
    wait_for(lambda: not holder._connections, "the connection to end")
    assert [record.getMessage() for record in caplog.records] == [
        "no connection was accepted: [Errno 24] Too many open files"
    ]


def test_a_key_that_is_too_short_for_a_digest_is_a_refusal(tmp_path):
    key = rsa.generate_private_key(65537, 1024)
    holder = KeyProcess([key], {os.getuid()})
    fingerprint = next(iter(holder._keys))

    def ask(name):
        return holder.answer(SIGN + fingerprint + bytes([len(name)]) + name + b"data")

    assert ask(b"rsa_pss_rsae_sha256").startswith(DONE)
    assert ask(b"rsa_pss_rsae_sha512").startswith(REFUSED)
