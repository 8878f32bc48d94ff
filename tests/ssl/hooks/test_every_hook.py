"""Every hook, whatever happens to it, under both versions, in full and resumed handshakes, by every strategy.

One table says which hooks there are and what "no" means to each; one test for each thing that may happen. What is
checked every time: what the caller gets, which alert the peer gets, that nothing is established that should not be, and
that neither a greenlet nor a connection is left behind.
"""

from __future__ import annotations

import functools
import gc
import ssl
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.socket
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from gevent.event import Event

import greentls.ssl
from greentls import keys
from greentls.certificates import CertificateChain
from greentls.core import bridge
from greentls.errors import SigningError
from greentls.stores.memory import MemoryStore
from greentls.strategy import STRATEGIES
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import TLS_VERSIONS, connected, contexts, outcome


class Store(MemoryStore):
    """Asks before it looks."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def get(self, session_id):
        self.ask()
        return super().get(session_id)


@dataclass(frozen=True)
class Hook:
    """install(context, ask): the hook calls ask() and gives its ordinary answer, or "no" if that says so.

    side: whose hook it is. full, resumed: whether it is asked then. early: asked of early data, under TLS 1.3. no: what
    that side gets for a "no", and the text of the peer's alert; None: the handshake goes on. raised: the peer's alert
    for what it raises; None: goes on. client, server: attributes of their contexts that have it asked. last: the peer
    has sent its whole handshake by then. unheard: the alert may stand behind a flight whose answer finds nobody.
    foretold: the strategy "prefetch" asks it before OpenSSL is entered.
    """

    name: str
    install: Callable[[Any, Callable[[], bool]], None]
    no: tuple[type[BaseException], str] | None
    raised: str | None = "internal error"
    side: str = "server"
    full: bool = True
    resumed: bool = True
    client: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    last: bool = False
    foretold: bool = True
    unheard: bool = False
    early: bool = False


HOOKS: list[Hook] = []


def hook(name, **facts):
    def add(install):
        HOOKS.append(Hook(name, install, **facts))
        return install

    return add


@hook("client_hello_callback", no=(ssl.SSLError, "access denied"))
def _(context, ask):
    context.client_hello_callback = lambda sock, hello: ssl.ALERT_DESCRIPTION_ACCESS_DENIED if ask() else None


@hook("sni_callback", no=(ssl.SSLError, "unrecognized name"))
def _(context, ask):
    context.sni_callback = lambda sock, name, _: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if ask() else None


def asks_its_key(context, ask):
    chain = context._chains[0]

    def sign(data, algorithm):
        return b"no" if ask() else chain.key.sign(data, ec.ECDSA(hashes.SHA256()))

    context.load_cert_chain(chain.certificate, keys.Callback(chain.key.public_key(), sign))


SIGN = {"no": (SigningError, "internal error"), "resumed": False, "foretold": False}
hook("sign", **SIGN)(asks_its_key)
hook("client_sign", side="client", **SIGN, server={"verify_mode": ssl.CERT_REQUIRED})(asks_its_key)


@hook("certificates", no=(ssl.SSLError, "unrecognized name"))
def _(context, ask):
    class Source:
        chains = tuple(context._chains)

        def get(self, server_name):
            chains = self.chains
            return None if ask() else chains

        def load(self, *files):
            self.chains = (CertificateChain.load(*files),)

    context._chains = []  # what load_cert_chain() loaded would be the default
    context.certificates = Source()
    context.load_cert_chain = context.certificates.load


@hook("alpn_callback", no=None, raised="no application protocol")
def _(context, ask):
    context.alpn_callback = lambda sock, offered: None if ask() else offered[-1]


@hook("session_store", no=None, raised=None, full=False)
def _(context, ask):
    context.session_store.ask = ask


@hook("ocsp_callback", no=None, raised=None, resumed=False, client={"ocsp": "check"})
def _(context, ask):
    context.ocsp_callback = lambda sock: None if ask() else TRY_LATER


TRY_LATER = bytes.fromhex("30030a0103")  # an OCSP response, which tells nothing (RFC 6960 4.2.1)


BAD_CERTIFICATE = {"no": (TypeError, "bad certificate"), "raised": "bad certificate", "foretold": False}


@hook("verify_callback", **BAD_CERTIFICATE, last=True)
@hook("client_verify_callback", side="client", **BAD_CERTIFICATE, resumed=False)
@hook("client_verify_callback", side="client", **BAD_CERTIFICATE, full=False, last=True)
def _(context, ask):
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_callback = lambda sock, chain, *, resumed: False if ask() else None


KEYLOG = {"no": None, "raised": "internal error", "foretold": False, "unheard": True}


@hook("keylog_callback", **KEYLOG)
@hook("client_keylog_callback", side="client", **KEYLOG)
def _(context, ask):
    context.keylog_callback = lambda sock, line: ask() and None


@hook("replay_guard", no=None, raised=None, full=False, early=True, unheard=True)
def _(context, ask):
    class Guard:
        shared = True

        def add(self, name, value, lifetime):
            return not ask()

    context.replay_guard = Guard()
    context.max_early_data = 100


CASES = [
    pytest.param(each, version, resumed, strategy, id=f"{each.name}-{version}-{how}-{strategy}")
    for each in HOOKS
    for version in (["1.3"] if each.early else TLS_VERSIONS)
    for how, resumed in (("full", False), ("resumed", True))
    if (each.resumed if resumed else each.full)
    for strategy in STRATEGIES
]
every_hook = pytest.mark.parametrize(("hook", "version", "resumed", "strategy"), CASES)


class Trial:
    """One handshake in which the hook is asked; others before and meanwhile, in which it answers at once."""

    def __init__(self, pki, hook, version, resumed, strategy):
        self.hook = hook
        self.client, self.server = contexts(pki, version)
        self.client.set_alpn_protocols(["h2", "http/1.1"])
        for name, value in hook.client.items():
            setattr(self.client, name, value)
        self.client.load_cert_chain(*pki.client)
        self.server.load_verify_locations(pki.ca_file)
        for name, value in hook.server.items():
            setattr(self.server, name, value)
        self.server.strategy = strategy
        self.server.session_store = Store(lambda: False)
        self.server.set_alpn_protocols(["http/1.1"])
        self.behave: Callable[[], Any] | None = None
        self.asked = 0
        self.inside, self.go_on = Event(), Event()
        self.connections: list[weakref.ref[Any]] = []
        self.clients: list[Any] = []
        self.context = self.server if hook.side == "server" else self.client
        hook.install(self.context, self.ask)
        self.session = self.established()[0] if resumed else None
        self.resumed = resumed

    def ask(self):
        self.asked += 1
        behave, self.behave = self.behave, None
        return bool(behave()) if behave else False

    def wait(self):
        self.inside.set()
        assert self.go_on.wait(PATIENCE)

    def start(self, session=None):
        """(the client's greenlet, the server's), which end with a socket or an exception; and the client's socket."""
        here, there = gevent.socket.socketpair()
        for sock in (here, there):
            sock.settimeout(PATIENCE)
        client = self.client.wrap_socket(
            here, server_hostname="localhost", session=session, do_handshake_on_connect=False
        )
        self.clients.append(client)
        client.early_data = b"early" if session is not None and self.hook.early else b""
        jobs = [
            gevent.spawn(outcome_of, client.do_handshake, client),
            gevent.spawn(outcome_of, self.server.wrap_socket, None, there, server_side=True),
        ]
        return jobs, client

    def finish(self, jobs):
        """(what the peer got, what the hook's side got): a socket, or an exception. Who is done before the other one
        has failed gets its alert by reading."""
        ends = [job.get(timeout=PATIENCE) for job in jobs]
        if not any(isinstance(end, BaseException) for end in ends):
            here, there = ends
            early = there.early_data
            assert not early or there.recv(10) == early
            there.sendall(b"hello")
            assert here.recv(10) == b"hello"
            here.sendall(b"hello")
            assert there.recv(10) == b"hello"
            self.connections += [weakref.ref(each._connection) for each in ends]
        for number, end in enumerate(ends):
            if not isinstance(end, BaseException) and isinstance(ends[not number], BaseException):
                ends[number] = outcome(end.recv, 1)
                end.close()
        return self.theirs_and_ours(ends)

    def theirs_and_ours(self, ends):
        return ends if self.hook.side == "server" else ends[::-1]

    def established(self, session=None):
        """(the session, whether it was resumed, the client's certificate's serial) of a handshake that goes well."""
        here, there = self.theirs_and_ours(self.finish(self.start(session)[0]))  # twice: the client, the server
        assert not isinstance(here, BaseException), here
        assert not isinstance(there, BaseException), there
        assert self.server.drain_sessions(PATIENCE)
        facts = here.session, there.session_reused, here.getpeercert()["serialNumber"]
        here.close()
        there.close()
        return facts

    def trial(self, behave):
        """The greenlets and the client's socket of the handshake that the test is about."""
        self.asked, self.behave = 0, behave
        return self.start(self.session)

    def check_clean(self, new_greenlets):
        while self.clients:
            self.clients.pop().close()
        assert self.server.drain_sessions(PATIENCE)  # tickets follow early data
        gevent.sleep(0)  # the hub lets go of greenlets that have ended
        gc.collect()
        assert not bridge.occupants()
        assert [each for each in self.connections if each() is not None] == []
        assert new_greenlets() == []


def outcome_of(function, result, *arguments, **options):
    try:
        value = function(*arguments, **options)
    except BaseException as error:  # GreenletExit and Timeout too
        return error
    return value if result is None else result


def reason(error):
    return getattr(error, "reason", None) or str(error)


def refused(hook, here, alert):
    if hook.unheard and isinstance(here, BrokenPipeError | ConnectionResetError):
        return
    text = reason(here).replace("_", " ").lower()
    assert isinstance(here, ssl.SSLError), here
    assert any(f"alert {each}" in text or text.endswith(each) for each in alert.split("|")), text


@pytest.fixture
def trial(pki, hook, version, resumed, strategy, new_greenlets):
    made = Trial(pki, hook, version, resumed, strategy)
    yield made
    made.check_clean(new_greenlets)


@every_hook
class TestEveryHook:
    def test_it_waits_while_others_finish(self, trial):
        jobs, _ = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        for _ in range(3):
            trial.established()
        assert not trial.theirs_and_ours(jobs)[1].ready()
        trial.go_on.set()
        here, there = trial.finish(jobs)
        assert there.session_reused is trial.resumed
        assert bool(here.early_data_accepted) is trial.hook.early
        here.close(), there.close()

    def test_it_says_no(self, trial):
        jobs, _ = trial.trial(lambda: True)
        here, there = trial.finish(jobs)
        assert trial.asked == 1 or "keylog" in trial.hook.name
        if trial.hook.no is None:
            assert not here.early_data_accepted
            here.close(), there.close()
            return
        kind, alert = trial.hook.no
        assert isinstance(there, kind)
        refused(trial.hook, here, alert)

    @pytest.mark.parametrize("failure", [ValueError, SystemExit])
    def test_it_raises(self, trial, failure):
        expected = failure("from the hook")

        def behave():
            raise expected

        here, there = trial.finish(trial.trial(behave)[0])
        self.check_failed(trial, expected, here, there)

    @pytest.mark.parametrize("how", [gevent.GreenletExit, gevent.Timeout])
    def test_its_caller_is_killed_or_out_of_time(self, trial, how):
        expected = how()
        jobs, _ = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        trial.theirs_and_ours(jobs)[1].kill(expected, block=False)
        here, there = trial.finish(jobs)
        assert there is expected
        assert not isinstance(here, greentls.ssl.SSLSocket)
        before_openssl = trial.server.strategy == "prefetch" and trial.hook.foretold
        refused(trial.hook, here, (not before_openssl and trial.hook.raised) or "internal error")

    def test_it_waits_past_its_deadline(self, trial):
        trial.context.callback_timeout = 0.05
        here, there = trial.finish(trial.trial(trial.wait)[0])
        if trial.hook.raised is None:
            assert not here.early_data_accepted
            here.close(), there.close()
            return
        assert isinstance(there, TimeoutError)
        refused(trial.hook, here, trial.hook.raised)

    def test_the_peer_goes_away_meanwhile(self, trial):
        jobs, client = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        theirs, ours = trial.theirs_and_ours(jobs)
        theirs.kill()
        if trial.hook.side == "server":
            client.close()
        trial.go_on.set()
        there = ours.get(timeout=PATIENCE)
        if trial.hook.early:  # which has come; its end has not
            assert there.recv(10) == b"early"
        if isinstance(there, greentls.ssl.SSLSocket):
            assert trial.hook.last or trial.hook.unheard
            with there:
                there = outcome(there.recv, 1) or OSError("close_notify")
        assert isinstance(there, OSError), there  # ssl.SSLEOFError among them

    def test_the_context_is_changed_meanwhile(self, trial, pki):
        jobs, _ = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        other = pki.issue("localhost")
        trial.server.load_cert_chain(*other)
        _, _, serial = trial.established()
        trial.go_on.set()
        here, there = trial.finish(jobs)
        assert trial.theirs_and_ours([here, there])[0].getpeercert()["serialNumber"] != serial
        assert there.session_reused is trial.resumed
        here.close(), there.close()

    def check_failed(self, trial, expected, here, there):
        if trial.hook.raised is None and isinstance(expected, Exception):
            assert not isinstance(there, BaseException)
            assert there.session_reused is trial.hook.early
            assert not here.early_data_accepted
            here.close(), there.close()
            return
        assert there is expected
        refused(trial.hook, here, trial.hook.raised or "internal error")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_a_hundred_clients_wait_for_every_hook_at_once(pki, version, strategy):
    """Every hook waits 20 ms. None of them holds up the others: each is waited for by many at once, and all by all."""
    waiting, most = Counter(), Counter()
    first, everybody = Counter(), Event()
    sessions = []

    def ask(name):
        if not sessions:
            return False
        waiting[name] += 1
        most[name] = max(most[name], waiting[name])
        first[name] += 1
        if name == "client_hello_callback":
            if first[name] == CLIENTS:
                everybody.set()
            assert everybody.wait(PATIENCE)  # from here on they are together
        gevent.sleep(0.02)
        waiting[name] -= 1
        return False

    client, server = contexts(pki, version)
    asking, _ = contexts(pki, version)
    for each in (client, asking):
        each.load_cert_chain(*pki.client)
        each.set_alpn_protocols(["h2", "http/1.1"])
    asking.ocsp, asking.callback_timeout = (
        "check",
        PATIENCE,
    )  # for a staple; without one it resumes nothing
    server.load_verify_locations(pki.ca_file)
    server.strategy, server.callback_timeout = strategy, PATIENCE
    server.session_store = Store(lambda: None)
    hooks = {each.name: each for each in HOOKS if each.side == "server" and not each.early}
    for each in hooks.values():
        each.install(server, functools.partial(ask, each.name))
    with connected(client, server) as (here, _):
        session = here.session
    assert server.drain_sessions(PATIENCE)
    sessions += [session] * (CLIENTS // 2) + [None] * (CLIENTS // 2)
    resumed = []

    def one(session):
        with connected(client if session else asking, server, session=session) as (_, there):
            resumed.append(there.session_reused)

    gevent.joinall([gevent.spawn(one, session) for session in sessions], raise_error=True)
    assert sorted(resumed) == [False] * (CLIENTS // 2) + [True] * (CLIENTS // 2)
    assert most["client_hello_callback"] == CLIENTS
    assert set(first) == set(hooks)
    assert min(most.values()) > 1, most
    assert +waiting == Counter()


CLIENTS = 100
