"""Hooks that wait, before programs that nobody here wrote: client certificates, pre-shared keys, exporters, PHA."""

from __future__ import annotations

import contextlib
import re
import ssl

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue
from gevent.server import StreamServer
from gevent.socket import create_connection

import greentls
from tests.interop.foreign_clients import ALPN, PAYLOAD, Errand, Refused, curl, java
from tests.interop.foreign_programs import Program
from tests.support.helpers import PATIENCE, free_port

KEY = b"sixteen bytes of"


class Waiting:
    """A callback that waits until it is told to go on; then it answers, or raises."""

    def __init__(self, answer=None, refusal=None):
        self.answer, self.refusal = answer, refusal
        self.asked = Queue()
        self.go_on = Event()

    def __call__(self, *arguments, **more):
        self.asked.put((arguments, more))
        assert self.go_on.wait(PATIENCE)
        if self.refusal is not None:
            raise self.refusal
        return self.answer


@pytest.fixture
def mutual(pki, configure):
    """mutual(callback): a server's context that demands a client certificate and asks the callback about it."""

    def make(callback):
        context = configure(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert_file, pki.key_file)
        context.set_alpn_protocols([ALPN])
        context.verify_mode = ssl.CERT_REQUIRED
        context.callback_timeout = None
        context.verify_callback = lambda sock, chain, *, resumed: callback(chain[0].subject.rfc4514_string(), resumed)
        return context

    return make


@pytest.fixture
def errand(pki, tmp_path):
    def errand(server, **options):
        return Errand(server.port, pki.ca_file, tmp_path, PAYLOAD, certificate=pki.client, **options)

    return errand


both_clients = pytest.mark.parametrize("client", [curl, java], ids=["curl", "java"])


def try_(client, errand):
    try:
        return client(errand)
    except Refused as refused:
        return refused


@both_clients
def test_a_clients_certificate_is_accepted_and_asked_about_again_when_it_resumes(serve, mutual, errand, client):
    callback = Waiting()
    context = mutual(callback)
    context.session_store = greentls.open_store("memory://")
    server = serve(context)
    job = gevent.spawn(try_, client, errand(server, twice=True))
    assert callback.asked.get(timeout=PATIENCE) == (("CN=a client", False), {})
    callback.go_on.set()
    told = job.get(timeout=PATIENCE)
    assert PAYLOAD in told.received
    seen = [server.next_with_data() for _ in range(2)]
    assert [each.reused for each in seen] == [False, True]
    assert [each.client["subject"] for each in seen] == [((("commonName", "a client"),),)] * 2
    assert callback.asked.get(timeout=PATIENCE) == (("CN=a client", True), {})


@both_clients
def test_a_clients_certificate_is_refused_and_nothing_of_its_request_was_read(serve, mutual, errand, client):
    callback = Waiting(refusal=LookupError("not enrolled"))
    server = serve(mutual(callback))
    job = gevent.spawn(try_, client, errand(server))
    assert callback.asked.get(timeout=PATIENCE)
    callback.go_on.set()
    assert isinstance(job.get(timeout=PATIENCE), Refused)
    with pytest.raises(LookupError):
        server.next()


# -- pre-shared keys ---------------------------------------------------------------------------------------------------


@pytest.fixture
def psk_server(version):
    """psk_server(callback): the port of a server that knows clients by their keys, and what becomes of each."""
    servers = []

    def start(callback):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
        context.set_ciphers("kECDHEPSK:kPSK")
        context.callback_timeout = None
        context.set_psk_server_callback(callback)
        ended = Queue()

        def handle(sock, address):
            try:
                with context.wrap_socket(sock, server_side=True) as tls:
                    asked = tls.recv(100)
                    tls.sendall(f"hello by {tls.resumption} over {tls.version()}\n".encode())
                    ended.put(asked)
            except Exception as error:
                ended.put(error)

        servers.append(StreamServer(("127.0.0.1", 0), handle))
        servers[-1].start()
        return servers[-1].address[1], ended

    yield start
    for server in servers:
        server.stop(timeout=1)


def s_client(port, version, identity="device"):
    tls = "-tls" + version.replace(".", "_")
    words = ["-connect", f"127.0.0.1:{port}", tls, "-psk_identity", identity, "-psk", KEY.hex(), "-quiet"]
    return Program("openssl", "s_client", *words)


def gnutls_cli(port, version, identity="device"):
    # Under TLS 1.2 gnutls-cli 3.7 crashes as it prints what an ephemeral exchange beside the key has come to.
    key_exchange = {"1.2": "+PSK", "1.3": "+ECDHE-PSK:+PSK"}[version]
    priority = f"NORMAL:-KX-ALL:{key_exchange}:-VERS-ALL:+VERS-TLS{version}"
    words = ["--port", port, "--priority", priority, "--pskusername", identity, "--pskkey", KEY.hex(), "127.0.0.1"]
    return Program("stdbuf", "-oL", "gnutls-cli", *words)  # else it keeps what it has to say


both_psk_clients = pytest.mark.parametrize("client", [s_client, gnutls_cli], ids=["openssl", "gnutls"])


@both_psk_clients
def test_a_key_is_looked_up_while_others_wait_for_theirs(psk_server, version, client):
    callback = Waiting(answer=KEY)
    port, ended = psk_server(callback)
    programs = [client(port, version) for _ in range(2)]
    for _ in programs:
        assert callback.asked.get(timeout=PATIENCE) == (("device",), {})
    callback.go_on.set()
    for program in programs:
        program.write(b"who is there?\n").wait_for(f"hello by psk over TLSv{version}")
        assert ended.get(timeout=PATIENCE) == b"who is there?\n"
        program.finish()


@both_psk_clients
@pytest.mark.parametrize("how", ["unknown", "wrong", "down"])
def test_no_key_no_connection(psk_server, version, client, how):
    callback = Waiting(
        {"unknown": b"", "wrong": KEY[::-1]}.get(how), ConnectionError("down") if how == "down" else None
    )
    callback.go_on.set()
    port, ended = psk_server(callback)
    program = client(port, version)
    raised = ended.get(timeout=PATIENCE)
    assert isinstance(raised, ConnectionError if how == "down" else ssl.SSLError)
    assert program.finish() != 0
    assert "hello" not in program.out.decode("utf-8", "replace")
    said = "alert" if client is s_client else "fatal alert"
    assert said in program.text


def test_a_client_waits_for_its_key_before_a_server_of_openssls(version):
    port = free_port()
    program = Program(
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-nocert", "-psk", KEY.hex(), "-psk_identity", "me"),
        *("-psk_hint", "a hint", "-rev", "-tls" + version.replace(".", "_")),
    )
    program.wait_for("^ACCEPT")
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
    context.set_ciphers("kECDHEPSK")
    context.callback_timeout = None
    callback = Waiting(answer=("me", KEY))
    context.set_psk_client_callback(callback)

    def talk():
        with context.wrap_socket(create_connection(("127.0.0.1", port))) as sock:
            sock.sendall(b"hello\n")
            return sock.recv(100)

    job = gevent.spawn(talk)
    assert callback.asked.get(timeout=PATIENCE) == (({"1.2": "a hint", "1.3": None}[version],), {})
    callback.go_on.set()
    assert job.get(timeout=PATIENCE) == b"olleh\n"


# -- exporters and post-handshake authentication -----------------------------------------------------------------------


@pytest.fixture
def tls_server(pki, configure):
    """tls_server(handle, **settings): the port of a server that trusts the CA."""
    servers = []

    def start(handle, **settings):
        context = configure(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert_file, pki.key_file)
        for name, value in settings.items():
            setattr(context, name, value)
        servers.append(StreamServer(("127.0.0.1", 0), handle, ssl_context=context))
        servers[-1].start()
        return servers[-1].address[1]

    yield start
    for server in servers:
        server.stop(timeout=1)


@pytest.mark.parametrize("length", [20, 77])
def test_openssl_exports_the_same(tls_server, pki, length):
    made = Queue()

    def handle(sock, address):
        made.put(sock.export_keying_material("EXPERIMENTAL greentls", length))
        with contextlib.suppress(OSError):  # it is in no hurry to read its tickets, and leaves with a reset
            sock.recv(1)

    port = tls_server(handle)
    words = ["-connect", f"127.0.0.1:{port}", "-CAfile", pki.ca_file]
    program = Program(
        "openssl", "s_client", *words, "-keymatexport", "EXPERIMENTAL greentls", "-keymatexportlen", length
    )
    ours = made.get(timeout=PATIENCE)
    theirs = program.wait_for(r"Keying material: ([0-9A-F]+)\n")[1]
    assert bytes.fromhex(theirs) == ours
    assert re.search(f"Length: {length} bytes", program.text)
    assert program.finish() == 0


@pytest.mark.parametrize("version", ["1.3"], indirect=True)
@pytest.mark.parametrize("welcome", [True, False], ids=["accepted", "refused"])
def test_openssl_shows_its_certificate_when_it_is_asked_later(tls_server, pki, welcome):
    callback = Waiting(refusal=None if welcome else LookupError("not enrolled"))
    ended = Queue()

    def handle(sock, address):
        try:
            assert sock.recv(100) == b"first\n"
            sock.verify_client_post_handshake()
            sock.sendall(b"ask again\n")
            assert sock.recv(100) == b"second\n"
            sock.sendall(b"hello " + sock.getpeercert()["subject"][0][0][1].encode() + b"\n")
            ended.put(None)
            sock.recv(1)
        except Exception as error:
            ended.put(error)

    port = tls_server(
        handle,
        verify_mode=ssl.CERT_REQUIRED,
        post_handshake_auth=True,
        callback_timeout=None,
        verify_callback=lambda sock, chain, *, resumed: callback(chain[0].subject.rfc4514_string(), resumed),
    )
    program = Program(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", pki.ca_file, "-enable_pha", "-quiet"),
        *("-cert", pki.client[0], "-key", pki.client[1]),
    )
    program.write(b"first\n").wait_for("ask again")
    program.write(b"second\n")
    assert callback.asked.get(timeout=PATIENCE) == (("CN=a client", False), {})
    callback.go_on.set()
    if welcome:
        program.wait_for("hello a client")
        assert ended.get(timeout=PATIENCE) is None
    else:
        assert ended.get(timeout=PATIENCE) is callback.refusal
        program.wait_for("alert bad certificate")
