"""A session made by one server process resumes in another: two `greentls serve`, one memcached, clients of others."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cli.clients import Balancer, client_context, documents, fetch, handshakes, run, s_client

SESSIONS_PER_HANDSHAKE = {"1.2": 1, "1.3": 2}  # in TLS 1.3 each of the two tickets names a session of its own


@pytest.fixture(params=["1.2", "1.3"])
def version(request):
    return request.param


@pytest.fixture
def options(tmp_path, pki, memcached, patient_app):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(32)))
    url = memcached.url(secret_file=secret)
    return ["--cert", pki.cert_file, "--key", pki.key_file, "--sessions", url, "--app", patient_app]


@pytest.fixture
def a(options, serve):  # in this order: the servers end before memcached does
    return serve(*options)


@pytest.fixture
def b(options, serve):
    return serve(*options)


@pytest.fixture
def kept(memcached, version):
    """Waits until the sessions of one full handshake are in memcached: the server does not make its client wait."""

    def kept(*_):
        wanted = SESSIONS_PER_HANDSHAKE[version]
        memcached.wait_for(wanted)

    return kept


def assert_full(facts, version):
    assert facts["protocol"] == f"TLSv{version}"
    assert (facts["resumed"], facts["session_source"], facts["lookup"]) == (False, None, None)


def assert_resumed_elsewhere(facts, first, version):
    assert facts["pid"] != first["pid"]
    assert facts["protocol"] == f"TLSv{version}"
    assert (facts["resumed"], facts["session_source"]) == (True, "memcached")
    lookup = facts["lookup"]
    assert (lookup["store"], lookup["outcome"]) == ("memcached", "hit")
    assert lookup["milliseconds"] > 0


def test_s_client_sess_out_sess_in(a, b, pki, kept, version, tmp_path):
    session, option = tmp_path / "session.pem", "-tls" + version.replace(".", "_")
    first = s_client(a.port, pki.ca_file, option, "-sess_out", session)
    kept()
    second = s_client(b.port, pki.ca_file, option, "-sess_in", session)
    assert (handshakes(first), handshakes(second)) == (["New"], ["Reused"])
    [first], [second] = documents(first), documents(second)
    assert_full(first, version)
    assert_resumed_elsewhere(second, first, version)


def test_s_client_reconnect(a, b, pki, kept, version):
    with Balancer(a.port, b.port, kept if version == "1.2" else lambda _: None) as balancer:
        output = s_client(balancer.port, pki.ca_file, "-reconnect", "-tls" + version.replace(".", "_"))
    [last] = documents(output)
    assert last["protocol"] == f"TLSv{version}"
    if version == "1.2":
        assert handshakes(output) == ["New"] + ["Reused"] * 5
        assert (last["resumed"], last["session_source"], last["lookup"]["outcome"]) == (True, "memcached", "hit")
    else:
        # s_client leaves before it has read a ticket, whatever the server: https://github.com/openssl/openssl/issues/10714
        assert len(handshakes(output)) == 6


def test_curl(a, b, pki, kept, version):
    with Balancer(a.port, b.port, kept) as balancer:
        url = f"https://localhost:{balancer.port}/"
        versions = [f"--tlsv{version}", "--tls-max", version]
        output = run("curl", "-sS", "--cacert", pki.ca_file, *versions, "-H", "Accept: application/json", url, url)
    first, second = documents(output)
    assert_full(first, version)
    assert_resumed_elsewhere(second, first, version)


def test_python(a, b, pki, kept, version):
    context = client_context(pki.ca_file, version)
    first, session = fetch(a.port, context)
    kept()
    second, _ = fetch(b.port, context, session)
    assert_full(first, version)
    assert_resumed_elsewhere(second, first, version)


def test_a_session_outlives_the_worker_that_made_it(a, pki, kept, version):
    context = client_context(pki.ca_file, version)
    first, session = fetch(a.port, context)
    kept()
    os.kill(first["pid"], signal.SIGKILL)
    second, _ = fetch(a.port, context, session)  # waits in the listener's queue for the next worker
    assert_resumed_elsewhere(second, first, version)
    a.expected_errors.append("greentls serve [pid]: worker N ended after T s: Killed; another one in 0.25 s")
