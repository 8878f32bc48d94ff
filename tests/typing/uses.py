"""Typed uses of the public API. `make types` checks them (mypy --strict); nothing runs them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from gevent.server import StreamServer

import greentls
import greentls.events
import greentls.monkey
import greentls.ssl
from greentls import aio, keys
from greentls.certificates import Callback, CertificateChain, CertificateSource, Directory
from greentls.core.config import Config
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.ssl.plain_socket import PlainSocket
from greentls.stores import Store
from greentls.stream import TLSStream
from greentls.wire import ClientHello, Parser, ProxyReader, RecordReader, ja3, ja4

if TYPE_CHECKING:
    from typing_extensions import assert_type


def a_server_with_every_hook() -> greentls.SSLContext:
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    context.client_hello_callback = on_client_hello
    context.sni_callback = on_server_name
    context.alpn_callback = on_protocols
    context.ocsp_callback = greentls.Stapler()
    context.verify_callback = on_chain
    context.keylog_callback = on_line
    context.session_store = greentls.open_store("memory://")
    context.certificates = Directory("/etc/certificates")
    context.callback_timeout = None
    context.handshake_timeout = 10
    context.strategy = "prefetch"
    context.read_ahead = False
    context.max_early_data = 16384
    context.replay_guard = greentls.open_store("memcached://localhost?insecure=1")
    context.plain_http_answer = None
    context.set_psk_server_callback(on_identity, "hint")
    assert_type(context.counters["full"], int)
    return context


def on_client_hello(sock: greentls.SSLSocket, hello: ClientHello) -> greentls.SSLContext | int | PlainSocket | None:
    if hello.server_name is None:
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return sock.pass_through() if "h2" in hello.alpn_protocols else None


def on_server_name(sock: greentls.SSLSocket, server_name: str | None, context: greentls.SSLContext) -> int | None:
    sock.context = context
    return None


def on_protocols(sock: greentls.SSLSocket, offered: Sequence[str]) -> str | None:
    return "h2" if "h2" in offered else None


def on_chain(sock: greentls.SSLSocket, chain: Sequence[x509.Certificate], *, resumed: bool) -> None:
    if resumed:
        raise PermissionError(chain[0].subject.rfc4514_string())


def on_line(sock: greentls.SSLSocket, line: bytes) -> None:
    print(line)


def on_identity(identity: str | None) -> bytes:
    return b""


def a_client() -> bytes:
    context = greentls.ssl.create_default_context()
    assert_type(context, greentls.SSLContext)
    context.ocsp = "check"
    context.client_sessions = greentls.ClientSessions(store=greentls.open_store("memory://"))
    raw = greentls.ssl.create_connection(("localhost", 443))
    with context.wrap_socket(raw, server_hostname="localhost") as sock:
        return over(sock)


def over(sock: greentls.SSLSocket) -> bytes:
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    lookup = sock.session_lookup
    if lookup is not None:
        print(lookup.outcome == "hit")
        assert_type(lookup.seconds, float)
    session = sock.session
    if session is not None:
        assert_type(session, greentls.Session)
        assert_type(greentls.Session.from_bytes(session.to_bytes()), greentls.Session)
    with sock.makefile("rb") as file:
        print(file.readline())
    return sock.recv(100)


def ticket_keys_in_a_store() -> greentls.TicketKeys:
    store = greentls.open_store("memory://")
    assert_type(store, Store)
    store.put(b"id", b"session", 60)
    value, token = store.gets("name")
    assert_type(value, bytes | None)
    assert_type(store.cas("name", b"value", token, 60), bool)
    return greentls.TicketKeys.shared(store)


class DictStore:
    """A store of one's own."""

    name = "dict"

    def __init__(self) -> None:
        self._sessions: dict[bytes, bytes] = {}

    def get(self, session_id: bytes) -> bytes | None:
        return self._sessions.get(session_id)

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        self._sessions[session_id] = session

    def remove(self, session_id: bytes) -> None:
        self._sessions.pop(session_id, None)

    def close(self) -> None:
        self._sessions.clear()


def a_store_of_ones_own() -> greentls.SessionStore:
    return DictStore()


class Source:
    """A source of certificates."""

    def get(self, server_name: str | None) -> Sequence[CertificateChain] | None:
        return None


def sources() -> list[CertificateSource]:
    return [Source(), Directory("."), Callback(lambda server_name: ("cert.pem", "key.pem"))]


def signing_keys(context: greentls.SSLContext, public_key: PublicKeyTypes) -> None:
    def sign(data: bytes, algorithm: str) -> bytes:
        return keys.digest(data, algorithm)

    context.load_cert_chain("cert.pem", keys.Callback(public_key, sign))
    context.load_cert_chain("cert.pem", keys.Agent("/run/keys.sock"))
    context.certificates = Directory("/etc/certificates", keys=keys.PKCS11("pkcs11:token=a?module-path=/lib/p11.so"))


async def on_server_name_later(
    sock: aio.SSLObject, server_name: str | None, context: greentls.SSLContext
) -> int | None:
    await asyncio.sleep(0)
    assert_type(sock.server_name, str | None)
    return None


async def on_staple_later(sock: aio.SSLObject) -> bytes | None:
    return None


async def under_asyncio(context: greentls.SSLContext, client: greentls.SSLContext) -> bytes:
    context.sni_callback = on_server_name_later
    context.ocsp_callback = on_staple_later

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))

    async with await aio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        assert_type(server, aio.Server)
        host, port = server.sockets[0].getsockname()
        transport, _ = await aio.create_connection(asyncio.Protocol, host, port, ssl=client)
        assert_type(transport, aio.TLSTransport)
        reader, writer = await aio.open_connection(host, port, ssl=client, server_hostname="localhost")
        writer.write(b"hello")
        return await reader.readexactly(5)


def on_event(event: dict[str, Any]) -> None:
    print(event["event"])


def served(context: greentls.SSLContext) -> StreamServer:
    greentls.events.handler = on_event
    assert_type(greentls.monkey.patch(client_sessions=True), tuple[str, ...])
    return StreamServer(("127.0.0.1", 0), ssl_context=context)


def parsed(data: bytes) -> list[str]:
    header = ProxyReader().feed(data)
    if header is not None:
        assert_type(header.source, tuple[str, int] | bytes | None)
    parser = Parser(on_client_hello=lambda hello: print(ja3(hello)))
    assert_type(parser.feed(data), int)
    hellos = [ClientHello.parse(message) for message in RecordReader().feed(data)]
    return [ja4(hello) for hello in hellos if hello.supported_groups]


def lower_floors(chain: CertificateChain, sock: Any) -> TLSStream:
    connection = Connection(Config(server_side=True, certificates=(chain,), hooks=Hooks()))
    connection.receive_data(b"")
    assert_type(connection.data_to_send(), bytes)
    return TLSStream(sock, connection)
