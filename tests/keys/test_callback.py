"""A function in a private key's place, by both versions, on both sides."""

from __future__ import annotations

import gc
import hashlib
import shutil
import ssl
import weakref

import gevent
import gevent.socket
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519
from gevent.event import Event
from prometheus_client import CollectorRegistry

import greentls.ssl
from greentls import keys
from greentls.certificates import Callback, CertificateChain, Directory
from greentls.errors import ConfigurationError, SigningError, UnsupportedOpenSSL
from greentls.openssl import errors, provider, symbols
from greentls.prometheus import Metrics
from greentls.ssl.compiled import compile
from greentls.strategy import STRATEGIES
from greentls.strategy.thread import THREADS
from tests.keys.signing import KINDS, Remote, private_key
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.openssl import hide
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, handshake, handshakes, sides

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def issued(pki):
    """{kind: (certificate, key)}"""
    return {kind: pki.issue("localhost", kind=kind) for kind in KINDS}


@pytest.fixture(params=STRATEGIES)
def served(pki, issued, request):
    """served(version, kind): (a client's context, a server's with a signing key, its Remote), by each strategy."""

    def make(version="1.3", kind="ec", **options):
        certificate, key = issued[kind]
        remote = Remote(key, **options)
        client, server = contexts(pki, version)
        server._chains = []
        server.load_cert_chain(certificate, remote.signing)
        server.strategy = request.param
        return client, server, remote

    return make


@every_kind
@both_versions
def test_a_server_signs_by_it(served, version, kind):
    client, server, remote = served(version, kind)
    with connected(client, server) as (here, there):
        assert here.version() == f"TLSv{version}"
        assert "sign" in there.hook_seconds
        assert "sign" not in here.hook_seconds
    assert remote.asked == [KINDS[kind]]


@every_kind
@both_versions
def test_a_client_signs_by_it(pki, version, kind):
    client, server = contexts(pki, version)
    certificate, key = pki.issue("somebody", kind=kind, client=True)
    remote = Remote(key)
    client.load_cert_chain(certificate, remote.signing)
    server.load_verify_locations(pki.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    with connected(client, server) as (here, there):
        assert there.getpeercert()["subjectAltName"] == (("DNS", "somebody"),)
        assert "sign" in here.hook_seconds
    assert remote.asked == [KINDS[kind]]


def test_a_client_signs_by_it_after_the_handshake(pki):
    client, server = contexts(pki)
    remote = Remote(pki.issue("somebody", client=True)[1])
    certificate, key = pki.issue("somebody", client=True)
    remote = Remote(key)
    client.load_cert_chain(certificate, remote.signing)
    client.post_handshake_auth = server.post_handshake_auth = True
    server.load_verify_locations(pki.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    with connected(client, server) as (here, there):
        assert remote.asked == []
        there.verify_client_post_handshake()
        there.sendall(b"x")
        assert here.recv(1) == b"x"
        here.sendall(b"y")
        assert there.recv(1) == b"y"
        assert there.getpeercert()
    assert len(remote.asked) == 1


@pytest.mark.parametrize("modules", [(ssl, greentls.ssl), (greentls.ssl, greentls.ssl)], ids=["stdlib", "ours"])
@pytest.mark.parametrize(
    ("offered", "algorithm"),
    [
        ("RSA+SHA256", "rsa_pkcs1_sha256"),
        ("RSA+SHA384", "rsa_pkcs1_sha384"),
        ("RSA+SHA512", "rsa_pkcs1_sha512"),
        ("rsa_pss_rsae_sha256", "rsa_pss_rsae_sha256"),
        ("rsa_pss_rsae_sha384", "rsa_pss_rsae_sha384"),
        ("rsa_pss_rsae_sha512", "rsa_pss_rsae_sha512"),
    ],
)
def test_what_an_rsa_key_is_asked(served, offered, algorithm, modules):
    client, server, remote = served("1.2", "rsa")
    client.set_server_sigalgs(offered + ":ecdsa_secp256r1_sha256")  # which the CA has signed by
    with connected(client, server):
        pass
    assert remote.asked == [algorithm]


def test_a_curve_signs_by_its_own_digest(served):
    client, server, remote = served("1.2")
    client.set_server_sigalgs("ECDSA+SHA384:ECDSA+SHA512:ECDSA+SHA256")
    with connected(client, server):
        pass
    assert remote.asked == ["ecdsa_secp256r1_sha256"]
    client.set_server_sigalgs("ECDSA+SHA384:ECDSA+SHA512")
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    refused, _ = failure(client, server)
    assert "handshake failure" in str(refused).replace("_", " ").lower()
    assert len(remote.asked) == 1


def test_a_key_that_does_one_padding_only(served):
    """A peer that wants the other one is refused."""
    client, server, remote = served("1.2", "rsa", algorithms=["rsa_pss_rsae_sha256"])
    client.set_server_sigalgs("RSA+SHA256:ecdsa_secp256r1_sha256")
    _, refused = failure(client, server)
    assert isinstance(refused, SigningError), refused
    assert "SHA256: the key does not support it" in str(refused)
    client.set_server_sigalgs("RSA+SHA256:rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256")
    server.set_server_sigalgs("rsa_pss_rsae_sha256")
    with connected(client, server):
        pass
    assert remote.asked == ["rsa_pss_rsae_sha256"]


def test_two_kinds_of_keys(served, pki):
    client, server, ecdsa = served("1.2")
    certificate, key = pki.issue("localhost", kind="rsa")
    rsa = Remote(key)
    server.load_cert_chain(certificate, rsa.signing)
    with connected(client, server):
        assert (len(ecdsa.asked), len(rsa.asked)) == (1, 0)
    client.set_ciphers("aRSA")
    with connected(client, server):
        assert (len(ecdsa.asked), len(rsa.asked)) == (1, 1)


# -- what it refuses ---------------------------------------------------------------------------------------------------

NO_SIGNATURES = {
    "another key's": lambda made: Remote.other.sign(b"x", "ecdsa_secp256r1_sha256"),
    "of something else": lambda made: Remote.same.sign(b"something else", "ecdsa_secp256r1_sha256"),
    "damaged": lambda made: made[:-1] + bytes([made[-1] ^ 1]),
    "cut short": lambda made: made[:-1],
    "longer": lambda made: made + b"\0",
    "too long for the buffer": lambda made: made * 20,
    "empty": lambda made: b"",
    "none": lambda made: None,
    "text": lambda made: "signature",
    "a list": lambda made: list(made),
}


@pytest.mark.parametrize("what", NO_SIGNATURES)
@both_versions
def test_what_is_no_signature_refuses(served, pki, what, version, monkeypatch):
    client, server, remote = served(version, behave=NO_SIGNATURES[what])
    monkeypatch.setattr(Remote, "other", Remote(pki.issue("other")[1]), raising=False)
    good = Remote(pki.issue("other")[1])
    good.key = remote.key
    monkeypatch.setattr(Remote, "same", good, raising=False)
    here, there = failure(client, server)
    assert isinstance(there, SigningError)
    assert "internal error" in str(here).replace("_", " ").lower()


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "p384"])
def test_a_damaged_signature_of_each_kind_refuses(served, kind):
    client, server, _ = served("1.3", kind, behave=NO_SIGNATURES["damaged"])
    assert isinstance(failure(client, server)[1], SigningError)


@both_versions
def test_a_cap_on_those_that_wait(served, version):
    inside, go_on = [], Event()

    def wait(made):
        inside.append(made)
        assert go_on.wait(PATIENCE)
        return made

    client, server, _ = served(version, behave=wait, max_waiting=2)
    server.callback_timeout = PATIENCE
    waiting = [gevent.spawn(handshakes, client, server) for _ in range(2)]
    wait_for(lambda: len(inside) == 2, "two inside")
    here, there = failure(client, server)
    assert isinstance(there, SigningError)
    assert "2 signatures are outstanding" in str(there)
    assert isinstance(here, ssl.SSLError)
    go_on.set()
    for job in waiting:
        for end in job.get(timeout=PATIENCE):
            end.close()
    with connected(client, server):
        pass


def test_a_hundred_overlap(served):
    """Handshakes with a signer that takes 20 ms. The strategy thread has only so many at once."""
    client, server, remote = served()
    count = THREADS if server.strategy == "thread" else 100
    now, most, all_in = [], [], Event()

    def wait(made):
        now.append(None)
        most.append(len(now))
        if len(most) == count:
            all_in.set()
        assert all_in.wait(PATIENCE)  # nobody is done before the last one has come
        gevent.sleep(0.02)
        now.pop()
        return made

    remote.behave, server.callback_timeout = wait, PATIENCE
    jobs = [gevent.spawn(handshakes, client, server) for _ in range(count)]
    for job in gevent.joinall(jobs, timeout=PATIENCE, raise_error=True):
        for end in job.value:
            end.close()
    assert max(most) == len(most) == count


def test_no_suite_has_it_decrypt(served, pki):
    """RSA key exchange."""
    client, server, remote = served("1.2", "rsa")
    ordinary = contexts(pki, "1.2")[1]
    ordinary._chains = []
    ordinary.load_cert_chain(*pki.issue("localhost", kind="rsa"))
    for context in (client, server, ordinary):
        context.set_ciphers("AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    client.set_ciphers("AES128-GCM-SHA256")
    with connected(client, ordinary) as (here, _):
        assert here.cipher()[0] == "AES128-GCM-SHA256"
    _, refused = failure(client, server)
    assert "no shared cipher" in str(refused).replace("_", " ").lower()
    server.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(ConfigurationError, match="none of them"):
        compile(server, True)
    assert remote.asked == []


def test_there_is_nothing_to_export(served):
    _, server, _ = served()
    signer = server._chains[0].signer
    key = signer.private_key.pointer
    take = provider.ffi.callback("int(void *, void *)", lambda *_: 1)
    export = [provider.lib.EVP_PKEY_export(key, selection, take, provider.ffi.NULL) for selection in (0x86, 0x87)]
    assert export == [1, 0]
    i2d = provider.ffi.cast("int (*)(void *, void *)", symbols.address("i2d_PrivateKey"))
    assert i2d(key, provider.ffi.NULL) <= 0
    errors.take()


@both_versions
@pytest.mark.parametrize("place", ["_set", "_Signature"])
def test_what_a_signal_handler_raises_in_the_provider_comes_out(served, monkeypatch, version, place):
    """Between two bytecodes of a callback that is not guarded."""
    client, server, remote = served(version, "rsa")
    expected = KeyboardInterrupt()

    def interrupted(*_):
        monkeypatch.undo()
        raise expected

    monkeypatch.setattr(provider, place, interrupted)
    ends = sockets(client, server)
    jobs = [gevent.spawn(outcome, end.do_handshake) for end in ends]
    here, there = (job.get(timeout=PATIENCE) for job in jobs)
    for end in ends:
        end.close()
    assert there is expected
    assert isinstance(here, ssl.SSLError)
    assert remote.asked == []


def sockets(client, server):
    here, there = gevent.socket.socketpair()
    options = {"do_handshake_on_connect": False}
    return (
        client.wrap_socket(here, server_hostname="localhost", **options),
        server.wrap_socket(there, server_side=True, **options),
    )


def outcome(function):
    try:
        return function()
    except BaseException as error:
        return error


def test_nobody_signs_outside_of_an_operation(served):
    _, server, remote = served()
    assert provider._answer(server._chains[0].signer, b"message", "SHA256", "") is None
    assert remote.asked == []


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(2048),
        x25519.X25519PrivateKey.generate(),
    ],
    ids=["P-521", "secp256k1", "DSA", "X25519"],
)
def test_kinds_of_keys_that_are_not_taken(key):
    with pytest.raises(ConfigurationError, match="not supported"):
        keys.Callback(key.public_key(), lambda data, algorithm: b"")


def test_algorithms_that_are_not_the_keys(pki):
    public = private_key(pki.key_file).public_key()
    for algorithms in (["ed25519"], ["rsa_pkcs1_md5"], []):
        with pytest.raises(ConfigurationError, match="ecdsa_secp256r1_sha256"):
            keys.Callback(public, lambda data, algorithm: b"", algorithms=algorithms)


def test_a_key_without_an_algorithm_of_its_kind(pki):
    """It would be found out in the first handshake."""
    remote = Remote(pki.key_file)
    remote.signing.algorithms = ["rsa_pkcs1_sha256"]
    with pytest.raises(ConfigurationError, match="known are ecdsa_secp256r1_sha256"):
        CertificateChain.load(pki.cert_file, remote.signing)


def test_a_key_that_does_not_fit(pki):
    certificate, _ = pki.issue("localhost")
    with pytest.raises(ConfigurationError, match="does not fit"):
        CertificateChain.load(certificate, Remote(pki.key_file).signing)


def test_an_openssl_without_providers(pki, monkeypatch):
    """Everything else works."""
    hide(monkeypatch, "OSSL_PROVIDER_add_builtin")
    monkeypatch.setattr(provider, "_library_context", provider._library_context.__wrapped__)
    client, server = contexts(pki)
    with pytest.raises(UnsupportedOpenSSL, match="OSSL_PROVIDER_add_builtin"):
        server.load_cert_chain(pki.cert_file, Remote(pki.key_file).signing)
    with connected(client, server):
        pass


# -- who is asked ------------------------------------------------------------------------------------------------------


def test_a_key_whose_service_is_reached_by_tls_with_another_key(served):
    """Both signatures are asked in one greenlet, the inner one while the outer one waits."""
    inner_client, inner_server, inner = served()
    order = []

    def outer_sign(made):
        order.append("outer")
        with connected(inner_client, inner_server):
            pass
        order.append("outer again")
        return made

    inner.behave = lambda made: order.append("inner") or made
    client, server, _ = served(behave=outer_sign)
    client.callback_timeout = server.callback_timeout = PATIENCE
    with connected(client, server):
        pass
    assert order == ["outer", "inner", "outer again"]


def test_the_innermost_operation_of_a_greenlet_is_meant(served, pki):
    """A hook that is an MemoryBIO handshake of its own, all in one greenlet; what it raises goes to that one."""
    expected = ValueError("inner")

    def inner_fails(made):
        raise expected

    _, inner_server, _ = served(behave=inner_fails)
    seen = []

    def outer_sign(made):
        with pytest.raises(ValueError, match="inner") as caught:
            in_memory(inner_client, inner_server)
        seen.append(caught.value)
        return made

    inner_client, _ = contexts(pki)
    client, server, _ = served(behave=outer_sign)
    in_memory(client, server)
    assert seen == [expected]


def in_memory(client, server):
    handshake(*sides(client, server))


@both_versions
def test_over_memory_bios(served, version):
    client, server, remote = served(version)
    in_memory(client, server)
    assert len(remote.asked) == 1


# -- sources -----------------------------------------------------------------------------------------------------------


class Keys:
    """A KeySource."""

    def __init__(self, *remotes):
        self.known = [remote.signing for remote in remotes]

    def get(self, public_key):
        return next((each for each in self.known if each.public_key == public_key), None)


def test_a_source_of_keys_in_a_keys_place(pki):
    client, server = contexts(pki)
    certificate, key = pki.issue("localhost", kind="rsa")
    remote = Remote(key)
    source = Keys(Remote(pki.issue("other")[1]), remote)
    server._chains = []
    server.load_cert_chain(certificate, source)
    with connected(client, server):
        pass
    assert len(remote.asked) == 1
    with pytest.raises(ssl.SSLError, match="does not have it"):
        server.load_cert_chain(pki.cert_file, source)


@pytest.mark.parametrize("answer", ["a chain", "a pair"])
@both_versions
def test_certificates_of_a_callback(pki, version, answer):
    client, server = contexts(pki, version)
    certificate, key = pki.issue("localhost")
    remote = Remote(key)
    server._chains = []
    pair = certificate, remote.signing
    server.certificates = Callback(lambda name: CertificateChain.load(*pair) if answer == "a chain" else pair)
    for _ in range(2):
        with connected(client, server) as (_, there):
            assert "sign" in there.hook_seconds
    assert len(remote.asked) == 2


@both_versions
def test_certificates_of_a_directory(pki, version, tmp_path):
    certificate, key = pki.issue("localhost")
    remote = Remote(key)
    shutil.copy(certificate, tmp_path / "site.pem")
    client, server = contexts(pki, version)
    server._chains = []
    server.certificates = Directory(tmp_path, keys=Keys(remote))
    with connected(client, server):
        pass
    assert len(remote.asked) == 1


# -- what is told, and what stays --------------------------------------------------------------------------------------


def test_events_and_metrics(served, told):
    client, server, remote = served()
    with connected(client, server):
        pass
    remote.behave = lambda made: b""
    _, refused = failure(client, server)
    remote.behave = lambda made: gevent.sleep(PATIENCE)
    server.callback_timeout = 0.01
    _, late = failure(client, server)
    signatures = [each for each in told if each["event"] == "signature"]
    assert [each["error"] for each in signatures] == [None, refused, late]
    assert {each["side"] for each in signatures} == {"server"}
    assert {each["algorithm"] for each in signatures} == {"ecdsa_secp256r1_sha256"}
    assert signatures[2]["seconds"] > 0
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for event in told:
        metrics(event)
    labels = {"side": "server", "algorithm": "ecdsa_secp256r1_sha256"}
    for outcome in ("done", "SigningError", "TimeoutError"):
        assert registry.get_sample_value("greentls_signatures_total", {**labels, "outcome": outcome}) == 1
    assert registry.get_sample_value("greentls_hook_seconds_count", {"hook": "sign"}) == 3


def test_nothing_is_left_behind(served):
    client, server, remote = served()
    key = weakref.ref(server._chains[0].signer.private_key)
    with connected(client, server):
        pass
    remote.behave = lambda made: b""
    failure(client, server)
    assert key() in provider._keys.values()
    assert provider._signatures == {}
    del client, server, remote
    # The hub has links to notify, and the strategies have threads.
    wait_for(lambda: (gc.collect(), key())[1] is None, "the key to be freed")


def test_sessions_are_the_same_as_with_the_key_itself(pki):
    """A fleet may move to a signing key one server after the other."""
    identities = set()
    for key in (pki.key_file, Remote(pki.key_file).signing):
        _, server = contexts(pki)
        server.load_cert_chain(pki.cert_file, key)
        identities.add(compile(server, True).session_id_context)
    assert len(identities) == 1


def test_digest():
    assert keys.digest(b"message", "rsa_pss_rsae_sha384") == hashlib.sha384(b"message").digest()
    with pytest.raises(ValueError, match="message itself"):
        keys.digest(b"message", "ed25519")
