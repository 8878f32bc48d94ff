"""Every hook, whatever happens to it, under both versions, in full and resumed handshakes, by every strategy and hub.

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

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from greentls import keys
from greentls.certificates import CertificateChain
from greentls.core import bridge
from greentls.errors import SigningError
from greentls.hub import here
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE
from tests.support.hubs import together, wait_for
from tests.support.openssl import late
from tests.support.ssl_pairs import TLS_VERSIONS, contexts, outcome, talk
from tests.support.ways import WAYS, as_coroutine, is_free


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
    """install(context, ask, style): the hook calls ask() and gives its ordinary answer, or "no" if that says so. style:
    what makes a hook of a function; calls: the hook may be a coroutine function, so that another style means something.

    side: whose hook it is. full, resumed: whether it is asked then. early: asked of early data, under TLS 1.3. no: what
    that side gets for a "no", and the text of the peer's alert; None: the handshake goes on. raised: the peer's alert
    for what it raises; None: goes on. client, server: attributes of their contexts that have it asked. last: the peer
    has sent its whole handshake by then. unheard: the alert may stand behind a flight whose answer finds nobody.
    foretold: the strategy "prefetch" asks it before OpenSSL is entered.
    """

    name: str
    install: Callable[[Any, Callable[[], bool], Callable[[Any], Any]], None]
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
    calls: bool = True


HOOKS: list[Hook] = []


def hook(name, **facts):
    def add(install):
        HOOKS.append(Hook(name, install, **facts))
        return install

    return add


@hook("client_hello_callback", no=(ssl.SSLError, "access denied"))
def _(context, ask, style):
    context.client_hello_callback = style(lambda sock, hello: ssl.ALERT_DESCRIPTION_ACCESS_DENIED if ask() else None)


@hook("sni_callback", no=(ssl.SSLError, "unrecognized name"))
def _(context, ask, style):
    context.sni_callback = style(lambda sock, name, _: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if ask() else None)


def asks_its_key(context, ask, style):
    chain = context._chains[0]

    def sign(data, algorithm):
        return b"no" if ask() else chain.key.sign(data, ec.ECDSA(hashes.SHA256()))

    context.load_cert_chain(chain.certificate, keys.Callback(chain.key.public_key(), style(sign)))


SIGN = {"no": (SigningError, "internal error"), "resumed": False, "foretold": False}
hook("sign", **SIGN)(asks_its_key)
hook("client_sign", side="client", **SIGN, server={"verify_mode": ssl.CERT_REQUIRED})(asks_its_key)


@hook("certificates", no=(ssl.SSLError, "unrecognized name"), calls=False)
def _(context, ask, style):
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
def _(context, ask, style):
    context.alpn_callback = style(lambda sock, offered: None if ask() else offered[-1])


@hook("session_store", no=None, raised=None, full=False, calls=False)
def _(context, ask, style):
    context.session_store.ask = ask


@hook("ocsp_callback", no=None, raised=None, resumed=False, client={"ocsp": "check"})
def _(context, ask, style):
    context.ocsp_callback = style(lambda sock: None if ask() else TRY_LATER)


TRY_LATER = bytes.fromhex("30030a0103")  # an OCSP response, which tells nothing (RFC 6960 4.2.1)


BAD_CERTIFICATE = {"no": (TypeError, "bad certificate"), "raised": "bad certificate", "foretold": False}


@hook("verify_callback", **BAD_CERTIFICATE, last=True)
@hook("client_verify_callback", side="client", **BAD_CERTIFICATE, resumed=False)
@hook("client_verify_callback", side="client", **BAD_CERTIFICATE, full=False, last=True)
def _(context, ask, style):
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_callback = style(lambda sock, chain, *, resumed: False if ask() else None)


KEYLOG = {"no": None, "raised": "internal error", "foretold": False, "unheard": True}


@hook("keylog_callback", **KEYLOG)
@hook("client_keylog_callback", side="client", **KEYLOG)
def _(context, ask, style):
    context.keylog_callback = style(lambda sock, line: ask() and None)


@hook("replay_guard", no=None, raised=None, full=False, early=True, unheard=True, calls=False)
def _(context, ask, style):
    class Guard:
        shared = True

        def add(self, name, value, lifetime):
            return not ask()

    context.replay_guard = Guard()
    context.max_early_data = 100


def applies(hook, way):
    return (hook.calls or way.style is not as_coroutine) and not (hook.early and way.hub != "gevent")


CASES = [
    pytest.param(each, version, resumed, way, id=f"{each.name}-{version}-{how}-{way.name}")
    for each in HOOKS
    for version in (["1.3"] if each.early else TLS_VERSIONS)
    for how, resumed in (("full", False), ("resumed", True))
    if (each.resumed if resumed else each.full)
    for way in WAYS
    if applies(each, way)
]
every_hook = pytest.mark.parametrize(("hook", "version", "resumed", "way"), CASES)


class Trial:
    """One handshake in which the hook is asked; others before and meanwhile, in which it answers at once."""

    def __init__(self, pki, hook, version, resumed, way):
        self.hook, self.way = hook, way
        self.client, self.server = contexts(pki, version)
        self.client.set_alpn_protocols(["h2", "http/1.1"])
        for name, value in hook.client.items():
            setattr(self.client, name, value)
        self.client.load_cert_chain(*pki.client)
        self.server.load_verify_locations(pki.ca_file)
        for name, value in hook.server.items():
            setattr(self.server, name, value)
        self.server.strategy = way.strategy
        self.server.session_store = Store(lambda: False)
        self.server.set_alpn_protocols(["http/1.1"])
        self.behave: Callable[[], Any] | None = None
        self.asked = 0
        self.inside, self.go_on = here().event(), here().event()
        self.connections: list[weakref.ref[Any]] = []
        self.jobs: list[Any] = []
        self.context = self.server if hook.side == "server" else self.client
        hook.install(self.context, self.ask, way.style)
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
        """(the client's Job, the server's), which end with an end of the connection or with an exception."""
        early_data = b"early" if session is not None and self.hook.early else b""
        jobs = self.way.connect(self.client, self.server, session, early_data)
        self.jobs += jobs
        return jobs

    def finish(self, jobs):
        """(what the peer got, what the hook's side got): an end, or an exception. Who is done before the other one
        has failed gets its alert by reading."""
        ends = [job.get() for job in jobs]
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
        here, there = self.theirs_and_ours(self.finish(self.start(session)))  # twice: the client, the server
        assert not isinstance(here, BaseException), here
        assert not isinstance(there, BaseException), there
        assert self.server.drain_sessions(PATIENCE)
        facts = here.session, there.session_reused, here.getpeercert()["serialNumber"]
        here.close()
        there.close()
        return facts

    def trial(self, behave):
        """The Jobs of the handshake that the test is about."""
        self.asked, self.behave = 0, behave
        return self.start(self.session)

    def check_clean(self):
        while self.jobs:
            self.jobs.pop().leave()
        assert self.server.drain_sessions(PATIENCE)  # tickets follow early data
        here().sleep(0)  # the hub lets go of greenlets that have ended
        gc.collect()
        assert not bridge.occupants()
        if self.way.strategy == "thread":  # a native thread lets go of a task after it has given its answer
            wait_for(lambda: not self.left(), "the native threads to let go")
        assert self.left() == []

    def left(self):
        return [each for each in self.connections if each() is not None]


def reason(error):
    return getattr(error, "reason", None) or str(error)


def refused(trial, here, alert):
    # A transport of asyncio's ends when it cannot send, whatever its peer has said before it left.
    unheard = trial.hook.unheard or (trial.hook.last and trial.way.hub != "gevent")
    if unheard and isinstance(here, BrokenPipeError | ConnectionResetError):
        return
    text = reason(here).replace("_", " ").lower()
    assert isinstance(here, ssl.SSLError), here
    alerts = f"{alert}|{late(alert)}".split("|")  # of verify_callback's in a resumption, for which there is no question
    assert any(f"alert {each}" in text or text.endswith(each) for each in alerts), text


def in_its_hub(test):
    """The test gets its Trial in a greenlet of the hub, where that is made, and checked in the end."""

    @functools.wraps(test)
    def run(self, trial, **arguments):
        def in_hub():
            made = trial()
            test(self, made, **arguments)
            made.check_clean()

        trial.way.run(in_hub)

    return run


@pytest.fixture
def trial(pki, hook, version, resumed, way, new_greenlets):
    made = functools.partial(Trial, pki, hook, version, resumed, way)
    made.way = way
    yield made
    assert [each for each in new_greenlets() if not is_free(each)] == []


@every_hook
class TestEveryHook:
    @in_its_hub
    def test_it_waits_while_others_finish(self, trial):
        jobs = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        for _ in range(3):
            trial.established()
        assert not trial.theirs_and_ours(jobs)[1].ready()
        trial.go_on.set()
        here, there = trial.finish(jobs)
        assert there.session_reused is trial.resumed
        assert bool(here.early_data_accepted) is trial.hook.early
        here.close(), there.close()

    @in_its_hub
    def test_it_says_no(self, trial):
        here, there = trial.finish(trial.trial(lambda: True))
        assert trial.asked == 1 or "keylog" in trial.hook.name
        if trial.hook.no is None:
            assert not here.early_data_accepted
            here.close(), there.close()
            return
        kind, alert = trial.hook.no
        assert isinstance(there, kind)
        refused(trial, here, alert)

    @pytest.mark.parametrize("failure", ["ValueError", "exit"])
    @in_its_hub
    def test_it_raises(self, trial, failure):
        expected = (trial.way.exit if failure == "exit" else ValueError)("from the hook")

        def behave():
            raise expected

        here, there = trial.finish(trial.trial(behave))
        self.check_failed(trial, expected, here, there)

    @pytest.mark.parametrize("how", ["kill", "timeout"])
    @in_its_hub
    def test_its_caller_is_killed_or_out_of_time(self, trial, how):
        jobs = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        is_expected = trial.theirs_and_ours(jobs)[1].interrupt(how)
        here, there = trial.finish(jobs)
        assert is_expected(there)
        assert isinstance(here, BaseException)
        before_openssl = trial.server.strategy == "prefetch" and trial.hook.foretold
        refused(trial, here, (not before_openssl and trial.hook.raised) or "internal error")

    @in_its_hub
    def test_it_waits_past_its_deadline(self, trial):
        trial.context.callback_timeout = 0.05
        here, there = trial.finish(trial.trial(trial.wait))
        if trial.hook.raised is None:
            assert not here.early_data_accepted
            here.close(), there.close()
            return
        assert isinstance(there, TimeoutError)
        refused(trial, here, trial.hook.raised)

    @in_its_hub
    def test_the_peer_goes_away_meanwhile(self, trial):
        jobs = trial.trial(trial.wait)
        assert trial.inside.wait(PATIENCE)
        theirs, ours = trial.theirs_and_ours(jobs)
        theirs.leave()
        trial.go_on.set()
        there = ours.get()
        if trial.hook.early:  # which has come; its end has not
            assert there.recv(10) == b"early"
        if not isinstance(there, BaseException):
            assert trial.hook.last or trial.hook.unheard
            with there:
                there = outcome(there.recv, 1) or OSError("close_notify")
        assert isinstance(there, OSError), there  # ssl.SSLEOFError among them

    @in_its_hub
    def test_the_context_is_changed_meanwhile(self, trial, pki):
        jobs = trial.trial(trial.wait)
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
        refused(trial, here, trial.hook.raised or "internal error")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_a_hundred_clients_wait_for_every_hook_at_once(pki, version, way):
    way.run(lambda: a_hundred_clients(pki, version, way))


def a_hundred_clients(pki, version, way):
    """Every hook waits 20 ms. None of them holds up the others: each is waited for by many at once, and all by all."""
    waiting, most = Counter(), Counter()
    first, everybody = Counter(), here().event()
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
        here().sleep(0.02)
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
    server.strategy, server.callback_timeout = way.strategy, PATIENCE
    server.session_store = Store(lambda: None)
    hooks = {each.name: each for each in HOOKS if each.side == "server" and not each.early}
    for each in hooks.values():
        each.install(server, functools.partial(ask, each.name), way.style if each.calls else lambda function: function)

    def one(client, session):
        """(the session, whether it was resumed)"""
        ends = [job.get() for job in way.connect(client, server, session)]
        talk(*ends)
        facts = ends[0].session, ends[1].session_reused
        for end in ends:
            end.close()
        return facts

    session, _ = one(client, None)
    assert server.drain_sessions(PATIENCE)
    sessions += [session] * (CLIENTS // 2) + [None] * (CLIENTS // 2)
    resumed = together(lambda session: one(client if session else asking, session)[1], *sessions)
    assert sorted(resumed) == [False] * (CLIENTS // 2) + [True] * (CLIENTS // 2)
    assert most["client_hello_callback"] == CLIENTS
    assert set(first) == set(hooks)
    assert min(most.values()) > 1, most
    assert +waiting == Counter()


CLIENTS = 100
