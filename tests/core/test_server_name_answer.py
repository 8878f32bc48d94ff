"""When a server says that it has used the server name: RFC 6066 3 and RFC 8446 4.2."""

from __future__ import annotations

import pytest

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.wire.extensions import Extensions
from greentls.wire.hello import ServerHello
from greentls.wire.registry import ExtensionType, HandshakeType
from tests.support.pairs import VERSIONS, Sessions, client, client_context, handshake, server_context

ENCRYPTED_EXTENSIONS = 8


class Answers:
    """A client's message hook: the extensions of the servers' answers, whichever message they are in."""

    def __init__(self):
        self.extensions: list[Extensions] = []

    def __call__(self, connection, sent, version, content_type, message):
        if sent or content_type != 22:
            return
        if message[0] == ENCRYPTED_EXTENSIONS:
            self.extensions.append(Extensions(message[6:]))
        elif message[0] == HandshakeType.server_hello and connection.config.maximum_version == VERSIONS["1.2"]:
            self.extensions.append(ServerHello.parse(message).extensions)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kept", ["store", "ticket"])
def test_a_resumption_does_not_answer_the_name(pki, version, kept):
    """OpenSSL by itself answers it under TLS 1.3."""
    answers = Answers()
    hooks = {"servername": lambda connection, name: None}
    there = server_context(
        pki, VERSIONS[version], hooks=Sessions().hooks(**hooks) if kept == "store" else Hooks(**hooks)
    )
    here = client_context(pki, VERSIONS[version], hooks=Hooks(message=answers))
    first = client(here)
    handshake(first, Connection(there))
    second, server = client(here, first.session), Connection(there)
    handshake(second, server)
    assert server.session_reused and server.server_name == "localhost"
    assert [ExtensionType.server_name in each for each in answers.extensions] == [True, False]


def test_an_external_psk_is_no_resumption_and_the_name_is_answered(pki):
    """OpenSSL counts it as one."""
    answers = Answers()

    def key_of(connection, identity):
        connection.handshake.use_external_psk(True)
        return bytes(32)

    hooks = Hooks(servername=lambda connection, name: None, psk_server=key_of)
    there = server_context(pki, VERSIONS["1.3"], hooks=hooks, ciphersuites="TLS_AES_128_GCM_SHA256")
    psk = Hooks(message=answers, psk_client=lambda connection, hint: ("someone", bytes(32)))
    here, server = client(client_context(pki, VERSIONS["1.3"], hooks=psk)), Connection(there)
    handshake(here, server)
    assert server.session_reused, "it was not the key that was used"
    assert [ExtensionType.server_name in each for each in answers.extensions] == [True]
