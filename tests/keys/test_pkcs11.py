"""Keys in a token, by PKCS #11: SoftHSM's, and one that hangs."""

from __future__ import annotations

import ssl

import gevent
import gevent.monkey
import pkcs11
import pytest

from greentls import keys
from greentls.certificates import Directory
from greentls.errors import ConfigurationError, SigningError
from greentls.keys import pkcs11 as module
from tests.keys.signing import KINDS, private_key
from tests.support.forks import forked
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.softhsm import MODULE, PIN
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, handshakes


@pytest.fixture(scope="module")
def issued(pki, softhsm):
    """{kind: (certificate, key)}, whose keys are in the token."""
    pairs = {kind: pki.issue("localhost", kind=kind) for kind in KINDS}
    for kind, (_, key) in pairs.items():
        IDS[kind] = softhsm.add(key, kind)
    return pairs


IDS = {}  # of the keys in the token, in hexadecimal


@pytest.fixture
def served(pki, softhsm, issued):
    def make(version="1.3", kind="ec", **attributes):
        client, server = contexts(pki, version)
        server._chains = []
        server.load_cert_chain(issued[kind][0], keys.PKCS11(softhsm.uri(**attributes)))
        return client, server

    return make


@pytest.mark.parametrize("kind", KINDS)
@both_versions
def test_it_signs(served, version, kind):
    client, server = served(version, kind)
    for _ in range(2):
        with connected(client, server) as (_, there):
            assert "sign" in there.hook_seconds


@pytest.mark.parametrize("algorithm", [name for name in module._MECHANISMS if name.startswith("rsa")])
def test_every_algorithm_of_rsa(softhsm, issued, algorithm):
    public = private_key(issued["rsa"][1]).public_key()
    signature = keys.PKCS11(softhsm.uri()).get(public).sign(b"message" * 1000, algorithm)
    keys.algorithms.check(public, signature, b"message" * 1000, algorithm)


def test_several_at_once(served):
    client, server = served(kind="rsa")
    server.callback_timeout = None
    jobs = [gevent.spawn(handshakes, client, server) for _ in range(30)]
    for job in jobs:
        for end in job.get(timeout=PATIENCE):
            end.close()


def test_the_uri_chooses(served, softhsm, issued):
    number = f"%{IDS['ec']}"
    served(object="ec"), served(id=number), served(object="ec", id=number, type="private")
    public = private_key(issued["ec"][1]).public_key()
    for other in ({"object": "rsa"}, {"id": "%77"}, {"object": "rsa", "id": number}):
        assert keys.PKCS11(softhsm.uri(**other)).get(public) is None
    with pytest.raises(ssl.SSLError, match="does not have it"):
        served(object="rsa")


def test_a_certificate_whose_key_is_not_there(pki, softhsm):
    public = private_key(pki.issue("elsewhere")[1]).public_key()
    assert keys.PKCS11(softhsm.uri()).get(public) is None


def test_a_token_that_is_not_there(softhsm, issued):
    public = private_key(issued["ec"][1]).public_key()
    for attributes in ({"token": "other"}, {"serial": "1"}, {"model": "x"}, {"manufacturer": "x"}):
        with pytest.raises(ConfigurationError, match="no such token"):
            keys.PKCS11(softhsm.uri(**attributes)).get(public)


def test_a_directory_of_certificates(pki, softhsm, issued, tmp_path):
    (tmp_path / "site.pem").symlink_to(issued["ec"][0])
    client, server = contexts(pki)
    server._chains = []
    directory = server.certificates = Directory(tmp_path, keys=keys.PKCS11(softhsm.uri()))
    directory.reload()
    with connected(client, server):
        pass


def test_a_forked_process_has_sessions_of_its_own(served):
    client, server = served()
    with connected(client, server):
        pass
    key = server._chains[0].key
    before = key._use.session

    def child():
        with connected(client, server):
            pass
        return 0 if key._use.session is not before else 2

    assert forked(child) == 0
    with connected(client, server):
        pass
    assert key._use.session is before


def test_a_session_that_was_lost_costs_one_handshake(served):
    client, server = served()
    key = server._chains[0].key
    key._use.session.close()
    assert isinstance(failure(client, server)[1], SigningError)
    with connected(client, server):
        pass


def test_a_session_in_which_nothing_is_found_is_closed(softhsm, issued, monkeypatch):
    """A token has only so many."""
    public = private_key(issued["ec"][1]).public_key()
    source, sessions = keys.PKCS11(softhsm.uri()), []

    class Session:
        closed = False

        def get_objects(self, wanted):
            if len(sessions) == 1:
                raise pkcs11.exceptions.DeviceError
            return ()

        def close(self):
            self.closed = True

    monkeypatch.setattr(source, "open", lambda: sessions.append(Session()) or sessions[-1])
    with pytest.raises(SigningError, match="DeviceError"):
        source.get(public)
    assert source.get(public) is None
    assert [each.closed for each in sessions] == [True, True]


# -- one that hangs ----------------------------------------------------------------------------------------------------


class Hanging:
    """In a session's key's place: waits in a native thread, as a token does."""

    def __init__(self, key):
        self.key, self.go_on = key, gevent.monkey.get_original("threading", "Event")()
        self.inside = 0

    def sign(self, data, **options):
        self.inside += 1
        assert self.go_on.wait(PATIENCE)
        return self.key.sign(data, **options)


@pytest.fixture
def hanging(served, monkeypatch):
    """(a client's context, a server's, what its token's keys are): each call waits for go_on."""
    client, server = served()
    key = server._chains[0].key
    use = key._use
    hung = Hanging(use.key)
    key._use = use._replace(key=hung)
    monkeypatch.setattr(key, "_open", lambda what: use._replace(key=hung))
    yield client, server, hung
    hung.go_on.set()
    wait_for(lambda: not key._source.turns.get().busy, "the token's threads to end")


def test_the_loop_goes_on_while_the_token_signs(pki, hanging):
    client, server, hung = hanging
    server.callback_timeout = None
    job = gevent.spawn(handshakes, client, server)
    wait_for(lambda: hung.inside, "the token to be asked")
    with connected(client, contexts(pki)[1]):
        pass
    assert not job.ready()
    hung.go_on.set()
    for end in job.get(timeout=PATIENCE):
        end.close()


def test_a_token_that_hangs_holds_so_many_threads_and_no_more(hanging):
    client, server, hung = hanging
    server.callback_timeout = 0.05
    for _ in range(module.THREADS):
        assert isinstance(failure(client, server)[1], TimeoutError)
    _, refused = failure(client, server)
    assert isinstance(refused, SigningError)
    assert "has not answered" in str(refused)
    assert hung.inside == 1
    hung.go_on.set()
    wait_for(lambda: not server._chains[0].key._source.turns.get().busy, "the token's threads to end")
    server.callback_timeout = PATIENCE
    with connected(client, server):
        pass


def test_an_answer_that_comes_too_late_is_nobody_elses(hanging):
    client, server, hung = hanging
    server.callback_timeout = 0.05
    assert isinstance(failure(client, server)[1], TimeoutError)
    assert server._chains[0].key._use is None  # the native thread has the session
    hung.go_on.set()
    server.callback_timeout = PATIENCE
    for _ in range(3):
        with connected(client, server):
            pass


# -- what it is told ---------------------------------------------------------------------------------------------------

BAD_URIS = {
    "https://localhost": "does not begin with pkcs11:",
    "pkcs11:token=web": "no module-path",
    f"pkcs11:tokn=web?module-path={MODULE}": "unknown attribute 'tokn'",
    f"pkcs11:token?module-path={MODULE}": "unknown attribute 'token'",
    f"pkcs11:token=a;token=b?module-path={MODULE}": "token occurs twice",
    f"pkcs11:type=cert?module-path={MODULE}": "type is not private",
    f"pkcs11:token=web?module-path={MODULE}&pin-value=1&pin-source=x": "both pin-value and pin-source",
    f"pkcs11:token=web?module-path={MODULE}&pin=1": "unknown attribute 'pin'",
}


@pytest.mark.parametrize("uri", BAD_URIS)
def test_uris_that_are_none(uri):
    with pytest.raises(ConfigurationError, match=BAD_URIS[uri]):
        keys.PKCS11(uri)


def test_a_uri_is_decoded():
    told = module.parse_uri("PKCS11:token=my%20token;id=%00%ff?module-path=/a%3Bb.so&pin-value=%31%32")
    assert told == {"token": b"my token", "id": b"\0\xff", "module-path": b"/a;b.so", "pin-value": b"12"}


def test_a_module_that_is_none(pki):
    source = keys.PKCS11("pkcs11:?module-path=/nowhere.so")
    with pytest.raises(ConfigurationError, match=r"PKCS #11 module /nowhere\.so"):
        source.get(private_key(pki.key_file).public_key())


def test_a_pin_is_not_shown_and_its_file_is_nobody_elses(pki, softhsm, tmp_path):
    source = keys.PKCS11(f"pkcs11:token=web?module-path={MODULE}&pin-value={PIN}")
    assert PIN not in repr(source)
    path = tmp_path / "pin"
    path.write_text(PIN)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read it"):
        keys.PKCS11(f"pkcs11:token=web?module-path={MODULE}&pin-source=file:{path}").get(
            private_key(pki.key_file).public_key()
        )


def test_a_pin_that_is_wrong(softhsm, issued, tmp_path):
    """In a process of its own: a login is good for all of it."""
    path = tmp_path / "pin"
    path.touch(0o600)
    path.write_text("wrong")

    def child():
        pkcs11.lib(MODULE).reinitialize()
        source = keys.PKCS11(f"pkcs11:token=web?module-path={MODULE}&pin-source={path}")
        with pytest.raises(SigningError, match="PinIncorrect"):
            source.get(private_key(issued["ec"][1]).public_key())
        return 0

    assert forked(child) == 0
