"""SSLContext.certificates: each name's own, in the handshake, while they change."""

from __future__ import annotations

import gc
import os
import queue
import re
import shutil
import ssl
import subprocess
import weakref
from pathlib import Path

import gevent
import pytest
from cryptography import x509

import greentls
import greentls.ssl.context
from greentls.certificates import Callback, CertificateChain, Directory
from greentls.core.config import Config
from greentls.stores.memory import MemoryStore
from tests.support.clients import exchange, in_thread, stdlib_context
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import TLS_VERSIONS, both_versions, connected, failure, handshake, sides, talk


@pytest.fixture
def place(tmp_path, pki):
    return Place(tmp_path / "certificates", pki)


class Place:
    """A directory of certificates."""

    def __init__(self, path, pki):
        self.path, self.pki = path, pki
        path.mkdir()

    def put(self, *names, **options):
        """Issues a certificate, in the place of an older one of the same kind; gives its serial number."""
        certificate, key = self.pki.issue(*names, **options)
        file = self.path / f"{names[0].replace('*', '_')}-{options.get('kind', 'ec')}.pem"
        both = Path(certificate).read_bytes() + Path(key).read_bytes()
        os.unlink(certificate), os.unlink(key)
        new = file.with_suffix(".new")
        new.write_bytes(both)
        os.replace(new, file)
        return x509.load_pem_x509_certificate(both).serial_number


class Source:
    """Names from a dict; counts."""

    def __init__(self, **names):
        self.names, self.asked = names, []

    def get(self, server_name):
        self.asked.append(server_name)
        return self.names.get(str(server_name).partition(".")[0])


def server_context(certificates, version=None, **settings):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificates = certificates
    if version:
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def client_context(pki, version=None):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca_file)
    if version:
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
    return context


def serial(sock):
    return int(sock.getpeercert()["serialNumber"], 16)


def s_client(address, pki, name, *options):
    command = ["openssl", "s_client", "-connect", "{}:{}".format(*address), "-CAfile", pki.ca_file]
    command += ["-servername", name, "-verify_hostname", name, "-verify_return_error", *options]
    done = in_thread(subprocess.run, command, input=b"Q\n", capture_output=True, timeout=PATIENCE, check=False)
    return done.stdout.decode()


# -- from a directory --------------------------------------------------------------------------------------------------


@pytest.mark.programs
def test_a_thousand_names_are_served_while_the_directory_changes(pki, place, serve):
    """Clients in native threads, each of which checks that it gets the certificate of the name that it asks for."""
    count = 1000
    for number in range(count):
        place.put(f"{number}.example")
    source = Directory(place.path, interval=0.05)
    address = serve(server_context(source))
    todo = queue.SimpleQueue()
    for number in range(count):
        todo.put(f"{number}.example")
    served, renewed = [], {}

    def work():
        context = stdlib_context(pki)
        while True:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            served.append((name, exchange(address, context, b"x", server_hostname=name).certificate["serialNumber"]))

    def renew():
        while len(served) < count - 100:
            name = f"{len(renewed) * 7 % count}.example"
            renewed[name] = place.put(name)
            gevent.sleep(0.01)

    jobs = [gevent.spawn(in_thread, work) for _ in range(4)] + [gevent.spawn(renew)]
    gevent.joinall(jobs, timeout=10 * PATIENCE, raise_error=True)
    assert len({name for name, _ in served}) == len(served) == count
    assert len(renewed) > 20
    source.reload()
    context = stdlib_context(pki)
    for name, number in [*renewed.items()][-5:]:
        answer = in_thread(exchange, address, context, b"x", server_hostname=name)
        assert int(answer.certificate["serialNumber"], 16) == number
    assert "Verification: OK" in s_client(address, pki, "999.example")


@pytest.mark.programs
@both_versions
def test_each_client_gets_the_kind_of_key_that_it_knows(pki, place, serve, version):
    place.put("www.example"), place.put("www.example", kind="rsa")
    address = serve(server_context(Directory(place.path), version))
    tls = f"-tls{version.replace('.', '_')}"
    for algorithms, wanted in (("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256:RSA+SHA256", "RSA")):
        said = s_client(address, pki, "www.example", tls, "-sigalgs", algorithms)
        assert "Verification: OK" in said, said
        assert re.search(r"Peer signature type: (.+)", said)[1].upper().startswith(wanted), said


def test_certbot_renews_under_a_running_server(pki, tmp_path, serve):
    def renew(number):
        pair = pki.issue("www.example")
        for source, kind in zip(pair, ("fullchain", "privkey"), strict=True):
            shutil.copy(source, archive / f"{kind}{number}.pem")
        for kind in ("privkey", "fullchain"):
            link = live / f"{kind}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../archive/www.example/{kind}{number}.pem")
        return CertificateChain.load(*pair).certificate.serial_number

    archive, live = tmp_path / "archive" / "www.example", tmp_path / "live" / "www.example"
    archive.mkdir(parents=True), live.mkdir(parents=True)
    first = renew(1)
    address = serve(server_context(Directory(tmp_path / "live", interval=0.02)))
    context = stdlib_context(pki)

    def served():
        answer = in_thread(exchange, address, context, b"x", server_hostname="www.example")
        return int(answer.certificate["serialNumber"], 16)

    assert served() == first
    second = renew(2)
    with gevent.Timeout(PATIENCE):
        while served() == first:
            pass
    assert served() == second


@both_versions
class TestUnknownNames:
    def test_are_refused(self, pki, place, version):
        place.put("www.example"), place.put("*.wild.example")
        server, client = server_context(Directory(place.path), version), client_context(pki, version)
        for name in ("www.example", "a.wild.example"):
            with connected(client, server, server_hostname=name) as (here, there):
                assert there.server_name == name
                talk(here, there)
        for name in ("unknown.example", "wild.example", "a.b.wild.example", "127.0.0.1"):
            here, there = failure(client, server, server_hostname=name)
            assert "unrecognized" in here.reason.lower(), name
            assert isinstance(there, ssl.SSLError)

    def test_get_what_load_cert_chain_loaded(self, pki, place, version):
        serial_number = place.put("www.example")
        server, client = server_context(Directory(place.path), version), client_context(pki, version)
        server.load_cert_chain(pki.cert_file, pki.key_file)
        for name in ("localhost", "127.0.0.1"):
            with connected(client, server, server_hostname=name) as (here, _):
                assert ("DNS", "localhost") in here.getpeercert()["subjectAltName"]
        with connected(client, server, server_hostname="www.example") as (here, _):
            assert serial(here) == serial_number

    def test_or_the_directorys_default(self, pki, place, version):
        serial_number = place.put("www.example", "127.0.0.1")
        server = server_context(Directory(place.path, default="www.example"), version)
        with connected(client_context(pki, version), server, server_hostname="127.0.0.1") as (here, _):
            assert serial(here) == serial_number

    def test_over_memory_bios_too(self, pki, place, version):
        serial_number = place.put("localhost")
        client, server = sides(client_context(pki, version), server_context(Directory(place.path), version))
        handshake(client, server)
        assert int(client.tls.getpeercert()["serialNumber"], 16) == serial_number
        client, server = sides(client_context(pki, version), server_context(Source(), version))
        with pytest.raises(ssl.SSLError):
            handshake(client, server)


# -- renewal -----------------------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("keeps", ["store", "tickets"])
class TestRenewal:
    def test_sessions_survive_it_and_never_cross_names(self, pki, place, version, keeps):
        old = place.put("a.example")
        place.put("b.example")
        source = Directory(place.path)
        server, client = server_context(source, version), client_context(pki, version)
        if keeps == "store":
            server.session_store = MemoryStore()

        def connect(name, session=None):
            with connected(client, server, server_hostname=name, session=session) as (here, there):
                assert server.drain_sessions(PATIENCE)
                assert here.session_reused == there.session_reused
                return here.session, here.session_reused, serial(here)

        session, _, number = connect("a.example")
        assert number == old
        new = place.put("a.example")
        source.reload()
        assert connect("a.example")[2] == new
        again, reused, _ = connect("a.example", session)
        assert reused, "the session is of the same name"
        assert connect("b.example", again)[1] is False
        assert connect("a.example", again)[1]

    def test_live_connections_keep_what_they_have(self, pki, place, version, keeps):
        old = place.put("a.example")
        source = Directory(place.path)
        server, client = server_context(source, version), client_context(pki, version)
        if keeps == "store":
            server.session_store = MemoryStore()
        with connected(client, server, server_hostname="a.example") as (here, there):
            place.put("a.example")
            source.reload()
            with connected(client, server, server_hostname="a.example") as (other, _):
                assert serial(other) != old == serial(here)
            there.sendall(b"still here")
            assert here.recv(100) == b"still here"
            talk(here, there)


class TestContexts:
    """What is compiled for the answers."""

    @pytest.fixture
    def compiled(self, monkeypatch):
        """Weak references to all Configs of servers that are made."""
        made = []
        post_init = Config.__post_init__

        def counting(context):
            post_init(context)
            if context.server_side:
                made.append(weakref.ref(context))

        monkeypatch.setattr(Config, "__post_init__", counting)
        return made

    @pytest.fixture
    def chains(self, pki):
        return {name: (CertificateChain.load(*pki.issue(f"{name}.example")),) for name in "abc"}

    def connect(self, pki, server, name):
        with connected(client_context(pki), server, server_hostname=f"{name}.example"):
            pass

    def test_one_for_each_set_of_certificates(self, pki, chains, compiled):
        server = server_context(Source(**chains))
        for name in "aabbaabb":
            self.connect(pki, server, name)
        assert len(compiled) == 3, "one without certificates, one for each name"

    def test_those_used_last_are_kept(self, pki, chains, compiled, monkeypatch):
        monkeypatch.setattr(greentls.ssl.compiled, "MAX_CONFIGS", 2)
        server = server_context(Source(**chains))
        for name in "abac":
            self.connect(pki, server, name)
        gc.collect()
        assert [each() is not None for each in compiled] == [True, True, False, True]
        self.connect(pki, server, "a")
        assert len(compiled) == 4
        self.connect(pki, server, "b")
        assert len(compiled) == 5

    def test_a_change_of_the_settings_is_one_of_theirs(self, pki, chains, compiled):
        server = server_context(Source(**chains))
        self.connect(pki, server, "a")
        server.set_alpn_protocols(["h2"])
        client = client_context(pki)
        client.set_alpn_protocols(["h2"])
        with connected(client, server, server_hostname="a.example") as (here, _):
            assert here.selected_alpn_protocol() == "h2"
        gc.collect()
        assert len(compiled) == 4
        assert [each() is not None for each in compiled] == [False, False, True, True]

    def test_another_source_is_for_the_next_connection(self, pki, chains):
        server = server_context(Source(a=chains["a"]))
        self.connect(pki, server, "a")
        server.certificates = Source(a=chains["a"], b=chains["b"])
        self.connect(pki, server, "b")
        server.certificates = None
        server.load_cert_chain(pki.cert_file, pki.key_file)
        with connected(client_context(pki), server):
            pass


class TestOtherCallbacks:
    @pytest.fixture
    def chains(self, pki):
        return {name: (CertificateChain.load(*pki.issue(f"{name}.example")),) for name in "ab"}

    @both_versions
    def test_sni_callback_comes_first_and_then_the_source_of_the_context_that_it_chose(self, pki, chains, version):
        one, two = Source(a=chains["a"]), Source(b=chains["b"])
        second = server_context(two, version)
        first = server_context(one, version)
        first.sni_callback = lambda sock, name, _: setattr(sock, "context", second) if name[0] == "b" else None
        for name, context in (("a.example", first), ("b.example", second)):
            with connected(client_context(pki, version), first, server_hostname=name) as (_, there):
                assert there.context is context
        assert (one.asked, two.asked) == (["a.example"], ["b.example"])

    def test_what_sni_callback_refuses_is_not_asked_about(self, pki, chains):
        source = Source(**chains)
        server = server_context(source, sni_callback=lambda *_: ssl.ALERT_DESCRIPTION_ACCESS_DENIED)
        here, _ = failure(client_context(pki), server, server_hostname="a.example")
        assert "ACCESS_DENIED" in here.reason.upper().replace(" ", "_")
        assert source.asked == []

    def test_a_context_without_a_source_has_its_own(self, pki, chains):
        second = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        second.load_cert_chain(pki.cert_file, pki.key_file)
        source = Source(**chains)
        server = server_context(source, sni_callback=lambda sock, *_: setattr(sock, "context", second))
        with connected(client_context(pki), server) as (here, _):
            assert ("DNS", "localhost") in here.getpeercert()["subjectAltName"]
        assert source.asked == []

    @both_versions
    def test_client_hello_callback_may_choose_the_context_whose_source_is_asked(self, pki, chains, version):
        second = server_context(Source(**chains), version, session_store=MemoryStore())
        first = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        first.client_hello_callback = lambda sock, hello: second
        client, session = client_context(pki, version), None
        for _ in range(2):
            with connected(client, first, server_hostname="a.example", session=session) as (here, _):
                assert second.drain_sessions(PATIENCE)
                reused, session = here.session_reused, here.session
        assert reused

    @both_versions
    def test_alpn_callback_has_the_hello_and_the_name(self, pki, chains, version):
        seen = []

        def choose(sock, offered):
            seen.append((sock.server_name, sock.client_hello.alpn_protocols, offered))
            return offered[0]

        server = server_context(Source(**chains), version, alpn_callback=choose)
        server.client_hello_callback = lambda sock, hello: None
        client = client_context(pki, version)
        client.set_alpn_protocols(["h2", "http/1.1"])
        with connected(client, server, server_hostname="a.example") as (here, _):
            assert here.selected_alpn_protocol() == "h2"
        assert seen == [("a.example", ("h2", "http/1.1"), ["h2", "http/1.1"])]

    def test_an_answer_of_another_kind_is_an_exception(self, pki):
        for answer in ([None], ["a string"], 42):
            server = server_context(Source(a=answer))
            here, there = failure(client_context(pki), server, server_hostname="a.example")
            assert "internal error" in here.reason.lower().replace("_", " ")
            assert isinstance(there, (TypeError, AttributeError)), there


@both_versions
def test_on_demand_one_call_for_all_who_come_at_once(pki, version):
    """The handshakes wait inside OpenSSL, each in its own; none finishes before the certificate is there."""
    asked, go_on = [], gevent.event.Event()

    def order(name):
        asked.append(name)
        go_on.wait()
        return pki.issue(name)

    server = server_context(Callback(order), version, callback_timeout=PATIENCE)
    client = client_context(pki, version)

    def visit(name):
        with connected(client, server, server_hostname=name) as (here, _):
            return serial(here)

    jobs = [gevent.spawn(visit, "new.example") for _ in range(10)]
    wait_for(lambda: asked, "the callback")
    other = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(pki.cert_file, pki.key_file)
    with connected(client, other):
        pass
    assert not any(job.ready() for job in jobs)
    go_on.set()
    gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
    assert len({job.value for job in jobs}) == 1
    assert asked == ["new.example"]


def test_a_late_answer_refuses_and_is_there_for_the_next(pki):
    go_on = gevent.event.Event()

    def order(name):
        go_on.wait()
        return pki.issue(name)

    server = server_context(Callback(order), callback_timeout=0.05)
    here, there = failure(client_context(pki), server, server_hostname="new.example")
    assert "internal" in here.reason.lower()
    assert isinstance(there, TimeoutError) and str(there) == "certificates gave no answer in 0.05 s"
    go_on.set()
    server.callback_timeout = PATIENCE
    with connected(client_context(pki), server, server_hostname="new.example"):
        pass
