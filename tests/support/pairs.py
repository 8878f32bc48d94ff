"""Two Connections that talk in memory: TLS without a socket."""

from __future__ import annotations

import _socket
import functools
import socket

import pytest

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_PEER, Config, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import WantRead

TLS12, TLS13 = 0x0303, 0x0304
VERSIONS = {"1.2": TLS12, "1.3": TLS13}
both_versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())


@functools.cache
def chain(certfile, keyfile):
    return CertificateChain.load(certfile, keyfile)


def server_context(pki, version=0, **settings):
    settings.setdefault("certificates", [chain(pki.cert_file, pki.key_file)])
    return Config(server_side=True, minimum_version=version or TLS12, maximum_version=version, **settings)


def client_context(pki, version=0, **settings):
    settings.setdefault("trust", TrustAnchors(files=(pki.ca_file,)))
    settings.setdefault("verify_mode", VERIFY_PEER)
    return Config(server_side=False, minimum_version=version or TLS12, maximum_version=version, **settings)


def client(context, session=None, name="localhost"):
    return Connection(context, server_hostname=name, session=session)


def move(source, target):
    """Carries ciphertext; returns how many bytes."""
    data = source.data_to_send()
    if data:
        target.receive_data(data)
    return len(data)


def attempt(operation, *arguments):
    """The operation's result (True for None), or None if it wants more ciphertext."""
    try:
        result = operation(*arguments)
    except WantRead:
        return None
    return True if result is None else result


def handshake(client, server):
    """Until both are established. Whatever either raises comes out, its alert still in the outgoing BIO."""
    for _ in range(10):
        attempt(client.do_handshake)
        move(client, server)
        attempt(server.do_handshake)
        move(server, client)
        if client.established and server.established:
            attempt(client.read)  # TLS 1.3 tickets
            return
    raise AssertionError("no handshake in ten rounds")


def hello_with_identities(pki, names):
    """A real TLS 1.3 hello whose pre_shared_key extension is made anew with forged identities and binders."""
    one = client(client_context(pki, VERSIONS["1.3"]))
    attempt(one.do_handshake)
    record = one.data_to_send()
    body = record[9:]
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2 :]
    identities = b"".join(len(name).to_bytes(2, "big") + name + bytes(4) for name in names)
    binders = (b"\x20" + bytes(32)) * len(names)
    psk = len(identities).to_bytes(2, "big") + identities + len(binders).to_bytes(2, "big") + binders
    extensions += b"\x00\x29" + len(psk).to_bytes(2, "big") + psk
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    fragments = [message[start : start + 16384] for start in range(0, len(message), 16384)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2, "big") + each for each in fragments)


class Sessions:
    """Hooks that keep sessions in a dict, as bytes."""

    def __init__(self):
        self.kept: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []
        self.removed: list[bytes] = []

    def get(self, connection, session_id):
        self.asked.append(session_id)
        blob = self.kept.get(session_id)
        return Session.from_bytes(blob) if blob else None

    def new(self, connection, session):
        self.kept[session.id] = bytes(session)

    def remove(self, session_id, id_context):
        self.removed.append(session_id)
        self.kept.pop(session_id, None)

    def hooks(self, **others):
        return Hooks(**{"get_session": self.get, "new_session": self.new, "remove_session": self.remove, **others})


def raw_pair():
    """Two connected sockets as TLSStream takes them."""
    pair = []
    for each in socket.socketpair():
        raw = _socket.socket(each.family, each.type, each.proto, fileno=each.detach())
        raw.setblocking(False)
        pair.append(raw)
    return pair
