"""A key process and its clients: whatever becomes of it, nothing hangs, and no key comes out."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl

import gevent
import gevent.socket
import pytest

from greentls import keys
from greentls.certificates import Directory
from greentls.errors import SigningError
from greentls.keys import agent as agent_module
from greentls.keys import protocol
from greentls.keys.process import MAX_CONNECTIONS, MAX_OF_ONE, KeyProcess, read_key
from greentls.keys.protocol import DONE, LIST, MAX_REQUEST, REFUSED, SIGN
from tests.keys import processes
from tests.keys.signing import KINDS, byte_strings, private_key
from tests.support.forks import forked
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, handshakes


@pytest.fixture(scope="module")
def issued(pki):
    """{kind: (certificate, key)}"""
    return {kind: pki.issue("localhost", kind=kind) for kind in KINDS}


@pytest.fixture
def start(tmp_path):
    """start(*files): a key process, listening."""
    started = []

    def start(*files, **options):
        path = tmp_path / f"keys-{len(started)}.sock"
        started.append(processes.KeyProcess(path, *files, log=tmp_path / "log", **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def served(pki, issued, start):
    """served(version, kind): (a client's context, a server's, the key process that has its key, the Agent)."""

    def make(version="1.3", kind="ec", **options):
        certificate, key = issued[kind]
        process = start(key)
        agent = keys.Agent(process.path, **options)
        client, server = contexts(pki, version)
        server._chains = []
        server.load_cert_chain(certificate, agent)
        return client, server, process, agent

    return make


def idle(agent):
    return agent._connections.get()._idle


@pytest.mark.parametrize("kind", KINDS)
@both_versions
def test_it_signs(served, version, kind):
    client, server, process, agent = served(version, kind)
    for _ in range(3):
        with connected(client, server) as (_, there):
            assert "sign" in there.hook_seconds
    assert len(idle(agent)) == 1
    assert process.stop() == 0
    assert not os.path.exists(process.path)


def test_several_keys_by_one_agent(pki, issued, start):
    process = start(*(key for _, key in issued.values()))
    agent = keys.Agent(process.path)
    client, server = contexts(pki, "1.2")
    server._chains = []
    for certificate, _ in issued.values():
        server.load_cert_chain(certificate, agent)
    for ciphers in ("aRSA", "aECDSA"):
        client.set_ciphers(ciphers)
        with connected(client, server):
            pass
    with pytest.raises(ssl.SSLError, match="does not have it"):
        server.load_cert_chain(pki.cert_file, agent)


def test_a_directory_asks_it_from_a_native_thread(pki, issued, start, tmp_path):
    certificate, key = issued["ec"]
    (tmp_path / "certificates").mkdir()
    client, server = contexts(pki)
    server._chains = []
    directory = server.certificates = Directory(tmp_path / "certificates", keys=keys.Agent(start(key).path))
    shutil.copy(certificate, tmp_path / "certificates" / "site.pem")
    directory.reload()  # in a thread of the hub's
    with connected(client, server) as (_, there):
        assert "sign" in there.hook_seconds


def test_a_forked_process_has_connections_of_its_own(served):
    client, server, _, agent = served()
    with connected(client, server):
        pass
    before = list(idle(agent))

    def child():
        with connected(client, server):
            pass
        return 0 if len(idle(agent)) == 1 else 2

    assert forked(child) == 0
    with connected(client, server):
        pass
    assert idle(agent) == before


# -- when it is away ---------------------------------------------------------------------------------------------------


@both_versions
def test_one_that_was_restarted_is_not_noticed(served, version):
    client, server, process, agent = served(version)
    with connected(client, server):
        pass
    process.kill()
    process.start()
    assert idle(agent)  # of the first one
    with connected(client, server):
        pass
    assert len(idle(agent)) == 1


@both_versions
def test_those_that_wait_when_it_is_killed_fail(served, version):
    client, server, process, _ = served(version)
    server.callback_timeout = None
    process.pause()
    waiting = [gevent.spawn(failure, client, server) for _ in range(10)]
    wait_until_all_wait(server, 10)
    process.kill()
    for job in waiting:
        here, there = job.get(timeout=PATIENCE)
        assert isinstance(there, SigningError)
        assert "key process" in str(there)
        assert "internal error" in str(here).replace("_", " ").lower()
    process.start()
    with connected(client, server):
        pass


def wait_until_all_wait(server, count):
    waiting = server._chains[0].signer._waiting
    wait_for(lambda: len(waiting) >= count, f"{count} to wait")


def test_killed_and_restarted_under_load(served):
    client, server, process, _ = served()
    ended, outcomes = [], {"done": 0, "failed": 0}

    def load():
        while not ended:
            here, there = handshakes(client, server)
            refused = isinstance(there, BaseException)
            assert not refused or isinstance(there, SigningError), there
            outcomes["failed" if refused else "done"] += 1
            for end in (here, there):
                if not isinstance(end, BaseException):
                    end.close()

    def twenty_more(what):
        wanted = outcomes[what] + 20
        wait_for(lambda: outcomes[what] >= wanted, f"twenty more that have {what}")

    jobs = [gevent.spawn(load) for _ in range(20)]
    for _ in range(3):
        twenty_more("done")
        process.kill()
        twenty_more("failed")
        process.start()
    twenty_more("done")
    ended.append(True)
    gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
    assert all(job.ready() for job in jobs)
    with connected(client, server):
        pass


def test_one_that_hangs_is_a_timeout(served):
    client, server, process, agent = served()
    process.pause()
    server.callback_timeout = 0.05
    assert isinstance(failure(client, server)[1], TimeoutError)
    server.callback_timeout, agent.timeout = None, 0.05
    _, refused = failure(client, server)
    assert isinstance(refused, TimeoutError)
    assert "key process" in str(refused)
    process.resume()
    agent.timeout = PATIENCE
    with connected(client, server):
        pass


def test_nobody_gets_the_answer_of_one_who_was_killed(served):
    _, server, process, agent = served()
    key = agent.get(server._chains[0].certificate.public_key())
    process.pause()
    killed = gevent.spawn(key.sign, b"first", "ecdsa_secp256r1_sha256")
    gevent.sleep(0.01)
    killed.kill()
    assert idle(agent) == []
    process.resume()
    signature = key.sign(b"second", "ecdsa_secp256r1_sha256")
    keys.algorithms.check(key.public_key, signature, b"second", "ecdsa_secp256r1_sha256")


def test_more_than_the_connections_wait_for_their_turn(served, monkeypatch):
    client, server, process, agent = served()
    process.pause()
    server.callback_timeout = None
    count = 3 * agent_module.CONNECTIONS
    jobs = [gevent.spawn(handshakes, client, server) for _ in range(count)]
    wait_until_all_wait(server, count)
    process.resume()
    for job in jobs:
        for end in job.get(timeout=PATIENCE):
            end.close()
    assert 1 <= len(idle(agent)) <= agent_module.CONNECTIONS


def test_a_path_where_nobody_listens(pki, tmp_path):
    agent = keys.Agent(tmp_path / "nothing.sock")
    with pytest.raises(SigningError, match="No such file"):
        agent.get(private_key(pki.key_file).public_key())


# -- what it answers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(issued):
    return KeyProcess([read_key(key) for _, key in issued.values()], {os.getuid()})


def fingerprint(holder):
    return next(iter(holder._keys))


def request(fingerprint, name, message=b"message"):
    return SIGN + fingerprint + bytes([len(name)]) + name + message


def test_requests_that_are_refused(holder):
    known = fingerprint(holder)
    algorithm = keys.algorithms.algorithms_of(holder._keys[known].public_key())[0].encode()
    assert holder.answer(request(known, algorithm)).startswith(DONE)
    for wrong in (
        b"x",
        LIST + b"more",
        SIGN,
        SIGN + known[:-1],
        SIGN + known,
        SIGN + known + b"\xff" + algorithm,
        request(bytes(32), algorithm),
        request(known, b"ed25519" if algorithm != b"ed25519" else b"rsa_pkcs1_sha256"),
        request(known, b"rsa_pkcs1_md5"),
        request(known, b"\xff\xfe"),
        request(known, b""),
        b"K" + known,
    ):
        assert holder.answer(wrong).startswith(REFUSED), wrong


def test_no_request_brings_a_key(holder):
    secrets = []
    for key in holder._keys.values():
        secrets += byte_strings(key)
    numbers = random.Random(1)
    for _ in range(2000):
        length = numbers.choice((1, 2, 34, 60, 200))
        body = bytearray(numbers.randbytes(length))
        body[:1] = numbers.choice((LIST, SIGN, bytes(body[:1])))
        if length > 34 and numbers.random() < 0.5:
            body[1:33] = numbers.choice(list(holder._keys))
        answer = holder.answer(bytes(body))
        assert answer[:1] in (DONE, REFUSED)
        assert not any(secret in answer for secret in secrets)


def ask(sock, request):
    protocol.send(sock, 1, request)
    return protocol.receive(sock, protocol.MAX_ANSWER)[1]


def test_an_answer_for_a_request_in_pieces(talk):
    sock = talk()
    for number in (7, 0, 7):
        for each in number.to_bytes(4, "big") + len(LIST).to_bytes(4, "big") + LIST:
            sock.sendall(bytes([each]))
            gevent.sleep(0)
    for number in (7, 0, 7):
        told, answer = protocol.receive(sock, protocol.MAX_ANSWER)
        assert (told, answer[:1]) == (number, DONE)


@pytest.mark.parametrize("length", [0, MAX_REQUEST + 1, 1 << 31, (1 << 32) - 1])
def test_a_length_that_is_none_ends_the_connection_and_no_other(talk, caplog, length):
    bad, good = talk(), talk()
    bad.sendall(bytes(4) + length.to_bytes(4, "big"))
    assert bad.recv(1) == b""
    assert "ended" in caplog.text
    assert ask(good, LIST).startswith(DONE)


def test_the_longest_request(talk, holder):
    known = fingerprint(holder)
    algorithm = keys.algorithms.algorithms_of(holder._keys[known].public_key())[0].encode()
    body = request(known, algorithm, b"")
    sock = talk()
    assert ask(sock, body + bytes(MAX_REQUEST - len(body))).startswith(DONE)


def test_a_peer_that_leaves_in_the_middle(talk, caplog):
    sock = talk()
    sock.sendall(b"\0\0\0\1\0\0\0\x20half")
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    assert "too early" in caplog.text


# -- who may ask -------------------------------------------------------------------------------------------------------


def test_another_user_is_refused(issued, caplog):
    holder = KeyProcess([read_key(issued["ec"][1])], {os.getuid() + 1})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not holder._admits(theirs)
    assert f"process {os.getpid()} of user {os.getuid()} was refused" in caplog.text


def test_so_many_connections_and_no_more(holder, caplog):
    others = range(-MAX_CONNECTIONS, 0)  # no process has such a number
    holder._connections.update(zip(others, others, strict=True))  # each of another process
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not holder._admits(theirs)
        assert f"process {os.getpid()} was refused: there are 1024 connections, 0 of them its own" in caplog.text
        holder._connections.popitem()
        assert holder._admits(theirs)
    holder._connections.clear()


def test_one_process_leaves_room_for_others(holder, caplog):
    """hazard: a worker that leaks connections takes all of them, and the others cannot sign."""
    holder._connections.update(dict.fromkeys(range(MAX_OF_ONE), os.getpid()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not holder._admits(theirs)
        assert f"process {os.getpid()} was refused: there are 256 connections, 256 of them its own" in caplog.text

        def other():
            return 0 if holder._admits(socket.socketpair()[0]) else 2

        assert forked(other) == 0
        holder._connections.popitem()
        assert holder._admits(theirs)
    holder._connections.clear()


def test_the_socket_is_its_owners(issued, start):
    process = start(issued["ec"][1])
    assert os.stat(process.path).st_mode & 0o777 == 0o600


# -- what it gives up --------------------------------------------------------------------------------------------------


def status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def test_what_a_key_process_gives_up(issued, start):
    process = start(issued["ec"][1])
    facts = status(process.pid)
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["VmLck"].split()[0]) > 1000
    with open(f"/proc/{process.pid}/limits") as file:
        core = next(line for line in file if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_it_goes_on_as_another_user(issued, start, pki, tmp_path):
    """Which needs root; and then nobody but root may look into it, or become its peer."""
    certificate, key = issued["ec"]
    if os.getuid():
        with pytest.raises(AssertionError):
            start(key, options=["--user", "nobody"])
        assert "not permitted" in (tmp_path / "log").read_text()
        return
    process = start(key, options=["--user", "nobody"])
    facts = status(process.pid)
    assert set(facts["Uid"].split()) == {str(os.stat(f"/proc/{process.pid}/task").st_uid or 65534)}
    assert "0" not in facts["Uid"].split() + facts["Gid"].split() + facts["Groups"].split()
    assert os.stat(f"/proc/{process.pid}/mem").st_uid == 0  # not dumpable: not even its own user's
    client, server = contexts(pki)
    server._chains = []
    server.load_cert_chain(certificate, keys.Agent(process.path))
    with connected(client, server):
        pass
