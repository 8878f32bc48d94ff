"""One table: every setting that keeps somebody out does so however the connection comes about.

A row is a policy, of a server or of a client. Each way of the table first makes a connection while the policy is not in
force, so that there is a session to resume, and another one, which has to have been the way that it says. Then the
policy is set, and the peer comes again by the same way. The verdict, in the words of its side, is the full handshake's,
under both versions and every strategy.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent.socket
import pytest
from cryptography import x509

from greentls.core import callbacks
from greentls.stores.memory import MemoryStore
from greentls.strategy import STRATEGIES
from greentls.tickets import TicketKey, TicketKeys
from tests.support.helpers import PATIENCE, Pki
from tests.support.ssl_pairs import TLS_VERSIONS, Side, carry, contexts, finished, outcome

CRL_CHECK_LEAF = ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
FAR_GROUP = "secp384r1"  # of which no client here sends a share at once
SECOND_HELLOS: list[bool] = []  # as they come


@pytest.fixture(autouse=True)
def second_hellos(monkeypatch):
    check = callbacks._check_second_hello
    monkeypatch.setattr(
        callbacks, "_check_second_hello", lambda operation: SECOND_HELLOS.append(True) or check(operation)
    )


# -- the policies ------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What they are made of."""

    pki: Pki
    strange_pki: Pki
    version: str

    def crl_of(self, certificate_file):
        with open(certificate_file, "rb") as file:
            return self.pki.crl(x509.load_pem_x509_certificate(file.read()).serial_number)

    def other_version(self, context):
        other = TLS_VERSIONS["1.2" if self.version == "1.3" else "1.3"]
        if other > context.maximum_version:
            context.maximum_version = other
            context.minimum_version = other
        else:
            context.minimum_version = other
            context.maximum_version = other


@dataclass(frozen=True)
class Policy:
    name: str
    side: str
    set: Callable[[World, Any], object]  # the policy, in a context of that side
    before: Callable[[World, Any, Any], object] = lambda *_: None  # for both contexts, in force or not
    after: Callable[[Any], object] = lambda _: None  # to the server's end, before data
    versions: tuple[str, ...] = ("1.2", "1.3")


POLICIES: list[Policy] = []


def server(function=None, **more):
    return _policy("server", function, **more)


def client(function=None, **more):
    return _policy("client", function, **more)


def either(function=None, **more):
    """Two policies, one of each side."""
    if function is None:
        return lambda function: either(function, **more)
    return client(server(function, **more), **more)


def _policy(side, function, **more):
    if function is None:
        return lambda function: _policy(side, function, **more)
    POLICIES.append(Policy(f"{side}-{function.__name__}", side, function, **more))
    return function


def verified(world, client, server):
    """Each side verifies the other."""
    client.load_cert_chain(*world.pki.client)
    server.load_verify_locations(world.pki.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED


def strange(world, client, server):
    """A server that the client does not know, and does not mind."""
    server.load_cert_chain(world.strange_pki.cert_file, world.strange_pki.key_file)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE


def refuse(*_, **__):
    raise PermissionError("not this one")


@server
def verify_mode(world, context):
    context.load_verify_locations(world.pki.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED


@server(before=lambda world, client, server: client.load_cert_chain(*world.pki.client))
def verify_mode_and_trust(world, context):
    context.load_verify_locations(world.strange_pki.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED


@server(before=verified)
def verify_flags(world, context):
    context.verify_flags |= CRL_CHECK_LEAF  # there is no CRL


@server(before=verified)
def crl(world, context):
    context.crl = world.crl_of(world.pki.client[0])


@server(before=verified)
def verify_callback(world, context):
    context.verify_callback = refuse


@server(before=verified)
def verify_callback_of_the_listener(world, context):
    """Which an sni_callback leaves for a context without one."""
    other = contexts(world.pki, world.version)[1]
    other.load_verify_locations(world.pki.ca_file)
    context.verify_callback = refuse
    context.sni_callback = lambda sock, name, _: setattr(sock, "context", other)


@server
def sni_callback_that_chooses_who_verifies(world, context):
    other = contexts(world.pki, world.version)[1]
    verify_mode(world, other)
    context.sni_callback = lambda sock, name, _: setattr(sock, "context", other)


@server
def client_hello_callback_that_chooses_who_verifies(world, context):
    other = contexts(world.pki, world.version)[1]
    verify_mode(world, other)
    other.session_store, other.ticket_keys = context.session_store, context.ticket_keys
    context.client_hello_callback = lambda sock, hello: other


@server
def client_hello_callback_alert(world, context):
    context.client_hello_callback = lambda sock, hello: ssl.ALERT_DESCRIPTION_ACCESS_DENIED


@server
def client_hello_callback_failure(world, context):
    context.client_hello_callback = refuse


@server
def sni_callback_alert(world, context):
    context.sni_callback = lambda sock, name, _: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@server
def sni_callback_failure(world, context):
    context.sni_callback = refuse


@server
def alpn_callback(world, context):
    context.alpn_callback = refuse


@server
def certificates(world, context):
    class Source:
        get = staticmethod(refuse)

    context.certificates = Source()


@either
def keylog_callback(world, context):
    context.keylog_callback = refuse


@either
def versions(world, context):
    world.other_version(context)


@either(versions=("1.2",))
def ciphers(world, context):
    context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")


def asking_later(world, client, server):
    client.post_handshake_auth = server.post_handshake_auth = True


@server(before=asking_later, after=lambda there: there.verify_client_post_handshake(), versions=("1.3",))
def post_handshake_auth(world, context):
    verify_mode(world, context)


@client(before=strange)
def clients_verify_mode(world, context):
    context.verify_mode = ssl.CERT_REQUIRED


def elsewhere(world, client, server):
    """A server whose certificate is for another name, which the client does not mind."""
    server.load_cert_chain(*world.pki.issue("elsewhere.test"))
    client.check_hostname = False


@client(before=elsewhere)
def check_hostname(world, context):
    context.check_hostname = True


@client
def clients_verify_callback(world, context):
    context.verify_callback = refuse


@client
def clients_verify_flags(world, context):
    context.verify_flags |= CRL_CHECK_LEAF


@client
def clients_crl(world, context):
    context.crl = world.crl_of(world.pki.cert_file)


@client
def ocsp(world, context):
    context.ocsp = "require"


# -- the ways ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    name: str
    kept: str | None = None  # where sessions are; None: nothing is resumed
    retry: bool = False
    early: bool = False
    memory: bool = False  # over wrap_bio()
    versions: tuple[str, ...] = ("1.2", "1.3")


WAYS = [
    Way("full"),
    Way("resumed from a store", kept="store"),
    Way("resumed from a ticket", kept="ticket"),
    Way("HelloRetryRequest", retry=True, versions=("1.3",)),
    Way("HelloRetryRequest, resumed", retry=True, kept="ticket", versions=("1.3",)),
    Way("early data", kept="ticket", early=True, versions=("1.3",)),
    Way("early data and a store", kept="store", early=True, versions=("1.3",)),
    Way("wrap_bio", memory=True),
    Way("wrap_bio, resumed from a store", kept="store", memory=True),
    Way("wrap_bio, resumed from a ticket", kept="ticket", memory=True),
    Way("wrap_bio, HelloRetryRequest", retry=True, memory=True, versions=("1.3",)),
]


def together(*calls):
    """What each of them returns or raises."""
    jobs = [gevent.spawn(outcome, *call) for call in calls]
    return [job.get(timeout=PATIENCE) for job in jobs]


def nothing(_):
    pass


class Trial:
    """Both contexts, by a way."""

    def __init__(self, world, way, strategy, before):
        self.way = way
        self.client, self.server = contexts(world.pki, world.version)
        for context in self.client, self.server:
            context.set_alpn_protocols(["h2"])
            if world.version == "1.2":
                context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        self.server.strategy = strategy
        if way.kept == "store":
            self.server.session_store = MemoryStore()
        elif way.kept == "ticket":
            self.server.ticket_keys = TicketKeys.static([TicketKey(bytes(16), bytes(32), bytes(32))])
        if way.retry:
            self.server.set_ecdh_curve(FAR_GROUP)
        before(world, self.client, self.server)
        if self.may_be_early:
            self.server.max_early_data = 100
            self.server.replay_guard = MemoryStore()
            self.server.replay_guard.shared = True

    @property
    def may_be_early(self):
        return self.way.early and self.server.verify_mode == ssl.CERT_NONE

    def prepared(self):
        """A session to resume, if the way is to resume one; it has been seen that it resumes so."""
        session = self.meet()[0].session if self.way.kept else None
        SECOND_HELLOS.clear()
        here, there = self.meet(session)
        assert there.session_reused is bool(self.way.kept)
        assert len(SECOND_HELLOS) == self.way.retry
        assert not self.may_be_early or here.early_data_accepted
        return here.session if self.way.kept else None

    def meet(self, session=None, after=nothing):
        """[the client's end, the server's], once data have gone both ways; or an exception in the place of one."""
        ends = self._over_bios(session, after) if self.way.memory else self._over_sockets(session, after)
        assert self.server.drain_sessions(PATIENCE)
        return ends

    def _over_sockets(self, session, after):
        here, there = gevent.socket.socketpair()
        for sock in here, there:
            sock.settimeout(PATIENCE)
        here = self.client.wrap_socket(
            here, server_hostname="localhost", session=session, do_handshake_on_connect=False
        )
        here.early_data = b"early" if self.may_be_early and session is not None else b""
        failed, there = together((here.do_handshake,), (self.server.wrap_socket, there, True))
        ends = [failed or here, there]
        try:
            if failures(ends):
                return ends
            # Who is done first, under TLS 1.3 the client, learns of a refusal by reading.
            early = b"early" * bool(here.early_data_accepted)
            told = together((self._ask, here), (self._answer, there, after, early + b"hello"))
            return [error or end for error, end in zip(told, ends, strict=True)]
        finally:
            here.close()
            if not isinstance(there, Exception):
                there.close()

    @staticmethod
    def _ask(here):
        assert here.recv(100) == b"hello"
        here.sendall(b"hello")

    @staticmethod
    def _answer(there, after, expected):
        after(there)
        there.sendall(b"hello")
        got = b""
        while len(got) < len(expected) and (data := there.recv(100)):
            got += data
        assert got == expected

    def _over_bios(self, session, after):
        here = Side(self.client, server_hostname="localhost", session=session)
        there = Side(self.server, server_side=True)
        ends: list[Any] = [False, False]
        for _ in range(5):
            for number, (end, other) in enumerate(((here, there), (there, here))):
                ends[number] = ends[number] or outcome(finished, end.tls.do_handshake)
                carry(end, other)
        if not failures(ends):
            assert ends == [True, True]
            after(there.tls)
            there.tls.write(b"hello")
            carry(there, here)
            ends[0] = outcome(here.tls.read)
            if not failures(ends):
                here.tls.write(b"hello")
                carry(here, there)
                ends[1] = outcome(there.tls.read)
        return [end if isinstance(end, Exception) else side.tls for end, side in zip(ends, (here, there), strict=True)]


def failures(ends):
    return [each for each in ends if isinstance(each, Exception)]


def words(error):
    return f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"


@pytest.fixture(scope="module")
def strange_pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("strange"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("policy", "version"),
    [pytest.param(each, version, id=f"{each.name}-{version}") for each in POLICIES for version in each.versions],
)
def test_the_verdict_is_the_same_by_every_way(pki, strange_pki, policy, version, strategy):
    world = World(pki, strange_pki, version)
    verdicts = {}
    for way in WAYS:
        if version in way.versions:
            trial = Trial(world, way, strategy, policy.before)
            session = trial.prepared()
            policy.set(world, trial.client if policy.side == "client" else trial.server)
            if not trial.may_be_early:
                trial.server.max_early_data = 0  # which would be refused as a setting, and so prove nothing
            verdicts[way.name] = words(trial.meet(session, policy.after)[policy.side == "server"])
    assert set(verdicts.values()) == {verdicts["full"]}, verdicts
    assert "Error" in verdicts["full"]


# -- what is not refused, and not done either --------------------------------------------------------------------------


class No:
    """A replay guard that has seen it all."""

    shared = True

    def add(self, *_):
        return False


LIMITS = [
    ("session_id_context", b"another", [way for way in WAYS if way.kept], lambda here, there: there.session_reused),
    ("max_early_data", 0, [way for way in WAYS if way.early], lambda here, there: here.early_data_accepted),
    ("replay_guard", No(), [way for way in WAYS if way.early], lambda here, there: here.early_data_accepted),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "value", "ways", "happens"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_a_limit_holds_by_every_way(pki, strange_pki, name, value, ways, happens, strategy):
    for way in ways:
        for version in way.versions:
            trial = Trial(World(pki, strange_pki, version), way, strategy, lambda *_: None)
            session = trial.prepared()
            setattr(trial.server, name, value)
            ends = trial.meet(session)
            assert not failures(ends), way
            assert not happens(*ends), way
