"""What real clients and servers send (tests/data/), against what they were told to send and against tshark."""

from __future__ import annotations

import base64

import pytest

from greentls.errors import WireError
from greentls.wire.extensions import Body
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.messages import Certificate, CertificateRequest, NewSessionTicket, ServerKeyExchange
from greentls.wire.parser import _EVENTS, Parser
from greentls.wire.record import RecordReader
from greentls.wire.registry import ExtensionType as E
from greentls.wire.registry import is_grease
from tests.support.wire_helpers import TRAILING, byte_by_byte, message, proper_prefixes
from tests.wire.captured import FLIGHTS, HELLOS

FIRST_HELLOS = [pytest.param(next(RecordReader().feed(param.values[0])), id=param.id) for param in HELLOS]


def read(*pieces):
    reader = RecordReader()
    return [found for piece in pieces for found in reader.feed(piece)]


def numbers(texts):
    return [int(text, 0) for text in texts]


def test_there_are_captures():
    assert len(HELLOS) >= 20
    assert len(FLIGHTS) >= 10


@pytest.mark.parametrize(("stream", "expected"), HELLOS)
def test_fed_four_ways(stream, expected):
    messages = read(stream)
    assert len(messages) == expected["told"].get("hellos", 1)
    assert read(*byte_by_byte(stream)) == messages
    found = []
    with pytest.raises(WireError):
        for each in RecordReader().feed(stream + TRAILING):
            found.append(each)
    assert found == messages
    for prefix in proper_prefixes(stream):
        assert read(prefix) in (messages[:1], []) if len(messages) == 2 else read(prefix) == []


@pytest.mark.parametrize(("stream", "expected"), HELLOS)
def test_the_parser_sees_the_same(stream, expected):
    for pieces in ([stream], byte_by_byte(stream)):
        hellos = []
        parser = Parser(on_client_hello=hellos.append)
        for piece in pieces:
            assert parser.feed(piece) == len(piece)
        parser.eof()
        assert [hello.to_bytes() for hello in hellos] == read(stream)


@pytest.mark.parametrize("encoded", FIRST_HELLOS)
def test_round_trip_and_every_attribute(encoded):
    hello = ClientHello.parse(encoded)
    assert hello.to_bytes() == encoded
    known = set()
    for name in dir(ClientHello):
        if isinstance(body := getattr(ClientHello, name), Body):
            known.add(body._type)
            getattr(hello, name)
    unknown = [number for number in hello.extensions.types if number not in known and not is_grease(number)]
    assert set(unknown) <= {E.trust_anchors}
    assert len(ja4(hello)) == 36
    assert ja4_r(hello).startswith(ja4(hello)[:10])


@pytest.mark.parametrize(("stream", "expected"), HELLOS)
def test_what_the_client_was_told(stream, expected):
    hellos = [ClientHello.parse(each) for each in read(stream)]
    hello = hellos[0]
    told = expected["told"]
    found = {
        "server_name": hello.server_name,
        "alpn_protocols": list(hello.alpn_protocols),
        "supported_groups": list(hello.supported_groups),
        "supported_versions": list(hello.supported_versions),
        "cipher_suites": list(hello.cipher_suites),
        "legacy_version": hello.legacy_version,
        "max_fragment_length": hello.max_fragment_length,
        "status_request": hello.status_request is not None,
        "psk_identities": len(hello.psk_identities),
        "legacy_session_id": hello.legacy_session_id.hex(),
        "session_ticket": (hello.session_ticket or b"").hex(),
        "hellos": len(hellos),
        "key_share_groups": [[share.group for share in each.key_share] for each in hellos],
    }
    assert {name: found[name] for name in told} == told
    assert len(hello.psk_binders) == len(hello.psk_identities)


@pytest.mark.parametrize(("stream", "expected"), HELLOS)
def test_clients_as_tshark_sees_them(stream, expected):
    hellos = [ClientHello.parse(each) for each in read(stream)]
    seen = expected["tshark"]

    def of_all(values):
        return [value for hello in hellos for value in values(hello)]

    def signature_schemes(hello):
        """tshark has one field for the three extensions."""
        bodies = {
            E.signature_algorithms: hello.signature_algorithms,
            E.signature_algorithms_cert: hello.signature_algorithms_cert,
            E.delegated_credential: hello.delegated_credential,
        }
        return [scheme for number in hello.extensions.types for scheme in bodies.get(number, ())]

    for name, values in {
        "legacy_version": lambda hello: [hello.legacy_version],
        "cipher_suites": lambda hello: hello.cipher_suites,
        "compression_methods": lambda hello: hello.legacy_compression_methods,
        "extensions": lambda hello: hello.extensions.types,
        "extension_lengths": lambda hello: [len(extension.extension_data) for extension in hello.extensions],
        "supported_groups": lambda hello: hello.supported_groups,
        "ec_point_formats": lambda hello: hello.ec_point_formats,
        "supported_versions": lambda hello: hello.supported_versions,
        "signature_schemes": signature_schemes,
        "key_share_groups": lambda hello: [share.group for share in hello.key_share],
        "obfuscated_ticket_ages": lambda hello: [psk.obfuscated_ticket_age for psk in hello.psk_identities],
        "psk_key_exchange_modes": lambda hello: hello.psk_key_exchange_modes,
        "compress_certificate": lambda hello: hello.compress_certificate,
        "record_size_limit": lambda hello: [hello.record_size_limit] if hello.record_size_limit else [],
    }.items():
        assert of_all(values) == numbers(seen.get(name, [])), name
    for name, values in {
        "random": lambda hello: [hello.random.hex()],
        "legacy_session_id": lambda hello: [hello.legacy_session_id.hex()] if hello.legacy_session_id else [],
        "server_name": lambda hello: [hello.server_name] if hello.server_name else [],
        "alpn_protocols": lambda hello: hello.alpn_protocols,
        "key_exchanges": lambda hello: [share.key_exchange.hex() for share in hello.key_share],
        "psk_identities": lambda hello: [psk.identity.hex() for psk in hello.psk_identities],
        "ja3_string": lambda hello: [ja3_string(hello)],
        "ja3": lambda hello: [ja3(hello)],
    }.items():
        assert of_all(values) == seen.get(name, []), name


# Servers ------------------------------------------------------------------------------------------------------------


def events_of(*pieces):
    """{event: what it was called with, in order}"""
    events = {event: [] for event in _EVENTS}
    parser = Parser(**{event: lambda *args, event=event: events[event].append(args) for event in _EVENTS})
    for piece in pieces:
        parser.feed(piece)
    parser.eof()
    return events


@pytest.mark.parametrize(("stream", "expected"), FLIGHTS)
def test_what_the_server_was_told(stream, expected):
    events = events_of(stream)
    hello: ServerHello = events["on_server_hello"][0][0]
    told = expected["told"]
    exchanges: list[ServerKeyExchange] = [args[0] for args in events["on_server_key_exchange"]]
    certificates: list[Certificate] = [args[0] for args in events["on_certificate"]]
    requests: list[CertificateRequest] = [args[0] for args in events["on_certificate_request"]]
    found = {
        "hello_retry_request": hello.is_hello_retry_request,
        "group": hello.key_share.group if hello.key_share else None,
        "named_curve": getattr(exchanges[0].params, "named_curve", None) if exchanges else None,
        "dhe": bool(exchanges) and hasattr(exchanges[0].params, "dh_p"),
        "cipher_suite": hello.cipher_suite,
        "legacy_version": hello.legacy_version,
        "selected_version": hello.version,
        "alpn_protocols": list(hello.alpn_protocols),
        "certificate_authorities": sum(len(request.certificate_authorities) for request in requests),
        "certificate": base64.b64encode(certificates[0].certificate_list[0]).decode() if certificates else None,
        "response": "".join(
            base64.b64encode(response).decode()
            for (status,) in events["on_certificate_status"]
            for response in status.responses
        ),
    }
    assert {name: found[name] for name in told} == told
    if requests:
        assert (requests[0].supported_signature_algorithms is None) == (hello.version < 0x0303)


@pytest.mark.parametrize(("stream", "expected"), FLIGHTS)
def test_servers_as_tshark_sees_them(stream, expected):
    events = events_of(stream)
    seen = expected["tshark"]
    hellos: list[ServerHello] = [args[0] for args in events["on_server_hello"]]
    params = [args[0].params for args in events["on_server_key_exchange"]]
    tickets: list[NewSessionTicket] = [args[0] for args in events["on_new_session_ticket"]]
    requests: list[CertificateRequest] = [args[0] for args in events["on_certificate_request"]]
    for name, values in {
        "legacy_version": [hello.legacy_version for hello in hellos],
        "cipher_suites": [hello.cipher_suite for hello in hellos],
        "compression_methods": [hello.legacy_compression_method for hello in hellos],
        "extensions": [number for hello in hellos for number in hello.extensions.types],
        "extension_lengths": [len(extension.extension_data) for hello in hellos for extension in hello.extensions],
        "supported_versions": [hello.selected_version for hello in hellos if hello.selected_version],
        "ec_point_formats": [number for hello in hellos for number in hello.ec_point_formats],
        "handshake_types": [args[0] for args in events["on_handshake_begin"]],
        "message_lengths": [args[1] for args in events["on_handshake_begin"]],
        "named_curve": [each.named_curve for each in params if hasattr(each, "named_curve")],
        "ticket_lifetime_hint": [ticket.ticket_lifetime_hint for ticket in tickets],
        "certificate_types": [number for request in requests for number in request.certificate_types],
    }.items():
        assert values == numbers(seen.get(name, [])), name
    shares = [hello.key_share for hello in hellos if hello.key_share]
    for name, values in {
        "random": [hello.random.hex() for hello in hellos],
        "legacy_session_id": [hello.legacy_session_id_echo.hex() for hello in hellos if hello.legacy_session_id_echo],
        "alpn_protocols": [protocol for hello in hellos for protocol in hello.alpn_protocols],
        "key_exchanges": [share.key_exchange.hex() for share in shares if share.key_exchange],
        "certificates": [der.hex() for args in events["on_certificate"] for der in args[0].certificate_list],
        "point": [each.public.hex() for each in params if hasattr(each, "public")],
        "dh_p": [each.dh_p.hex() for each in params if hasattr(each, "dh_p")],
        "dh_g": [each.dh_g.hex() for each in params if hasattr(each, "dh_p")],
        "dh_Ys": [each.dh_Ys.hex() for each in params if hasattr(each, "dh_p")],
        "ticket": [ticket.ticket.hex() for ticket in tickets],
    }.items():
        assert values == seen.get(name, []), name


@pytest.mark.parametrize(("stream", "expected"), FLIGHTS)
def test_servers_byte_by_byte_and_in_prefixes(stream, expected):
    whole = events_of(stream)
    pieces = events_of(*byte_by_byte(stream))
    in_pieces = {"on_handshake_body", "on_encrypted", "on_application_data"}
    assert {event: calls for event, calls in pieces.items() if event not in in_pieces} == {
        event: calls for event, calls in whole.items() if event not in in_pieces
    }
    for event in in_pieces:
        assert b"".join(args[-1] for args in pieces[event]) == b"".join(args[-1] for args in whole[event])
    for prefix in proper_prefixes(stream):
        Parser().feed(prefix)
    with pytest.raises(WireError):
        Parser().feed(stream + TRAILING)


@pytest.mark.parametrize(("stream", "expected"), FLIGHTS)
def test_messages_of_servers_round_trip(stream, expected):
    classes = {11: Certificate, 12: ServerKeyExchange, 13: CertificateRequest, 4: NewSessionTicket, 2: ServerHello}
    kinds = []
    for encoded in read(stream):
        kinds.append(encoded[0])
        if encoded[0] in classes:
            assert classes[encoded[0]].parse(encoded).to_bytes() == encoded
        assert message(encoded[0], encoded[4:]) == encoded
    assert kinds == numbers(expected["tshark"]["handshake_types"])


def test_the_real_ones_cover_much():
    """So that nobody loses the captures that matter: with PSK, large, in many records, after a retry, with ECH."""
    hellos = [ClientHello.parse(each) for param in HELLOS for each in read(param.values[0])]
    assert any(hello.psk_identities for hello in hellos)
    assert any(hello.session_ticket for hello in hellos)
    assert any(hello.encrypted_client_hello for hello in hellos)
    assert any(hello.grease for hello in hellos)
    assert any(hello.application_settings for hello in hellos)
    assert any(hello.padding for hello in hellos)
    assert any(hello.status_request_v2 for hello in hellos)
    assert any(4588 in hello.supported_groups for hello in hellos)
    assert max(len(hello.to_bytes()) for hello in hellos) > 17 * 1024
    assert any(not hello.supported_versions for hello in hellos)
