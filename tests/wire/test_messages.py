from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.messages import (
    Alert,
    Certificate,
    CertificateRequest,
    CertificateStatus,
    Finished,
    NewSessionTicket,
    ServerDHParams,
    ServerECDHParams,
    ServerKeyExchange,
)
from tests.support.wire_helpers import (
    byte,
    message,
    opaque,
    proper_prefixes,
    tuples,
    u8,
    u16,
    u24,
    u32,
    uint16,
    uint32,
    v8,
    v16,
    v24,
)
from tests.wire.samples import SAMPLES

# A part of one of these may be one too: what comes last in them is whatever is left.
UNBOUNDED = (ServerKeyExchange, Finished)


@pytest.mark.parametrize(("encoded", "parsed"), SAMPLES)
def test_message(encoded, parsed):
    assert type(parsed).parse(encoded) == parsed
    assert parsed.to_bytes() == encoded


@pytest.mark.parametrize(("encoded", "parsed"), SAMPLES)
def test_no_prefix_and_no_more_is_a_message(encoded, parsed):
    for wrong in [*proper_prefixes(encoded), encoded + b"\0"]:
        with pytest.raises(WireError) as caught:
            type(parsed).parse(wrong)
        assert caught.value.alert == 50


@pytest.mark.parametrize(("encoded", "parsed"), SAMPLES)
def test_no_prefix_of_the_body_is_a_message(encoded, parsed):
    body = encoded[4:]
    for prefix in proper_prefixes(body):
        cut = encoded[:1] + u24(len(prefix)) + prefix
        if isinstance(parsed, UNBOUNDED):
            assert type(parsed).parse(cut).to_bytes() == cut
        else:
            with pytest.raises(WireError) as caught:
                type(parsed).parse(cut)
            assert caught.value.alert == 50


@pytest.mark.parametrize(("encoded", "parsed"), SAMPLES)
def test_the_wrong_type_is_an_unexpected_message(encoded, parsed):
    with pytest.raises(WireError, match=r"^msg_type: unknown 99,") as caught:
        type(parsed).parse(b"\x63" + encoded[1:])
    assert caught.value.alert == 10


def test_an_unknown_status_type_has_no_form():
    with pytest.raises(WireError, match=r"^status_type: 3, 1 or 2 expected$"):
        CertificateStatus.parse(message(22, u8(3), v24(b"response")))


def test_alert():
    assert Alert.parse(b"\2\x32") == Alert(2, 50)
    assert Alert(2, 50).to_bytes() == b"\2\x32"
    assert str(Alert(2, 50)) == "fatal decode_error"
    assert str(Alert(7, 200)) == "unknown 7 unknown 200"
    for wrong in (b"", b"\2", b"\2\x32\1"):
        with pytest.raises(WireError, match=rf"^Alert: {len(wrong)} bytes, 2 expected$"):
            Alert.parse(wrong)


def round_trips(encoded, parsed):
    assert type(parsed).parse(encoded) == parsed
    assert parsed.to_bytes() == encoded


@given(tuples(opaque))
def test_certificates_round_trip(certificates):
    round_trips(message(11, v24(*map(v24, certificates))), Certificate(certificates))


@given(uint32, opaque)
def test_tickets_round_trip(hint, ticket):
    round_trips(message(4, u32(hint), v16(ticket)), NewSessionTicket(hint, ticket))


@given(st.sampled_from([23, 24, 29, 30]), opaque, opaque)
def test_ecdhe_round_trips(group, point, rest):
    round_trips(
        message(12, u8(3), u16(group), v8(point), rest), ServerKeyExchange(ServerECDHParams(group, point), rest)
    )


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=3, max_size=3), opaque)
def test_dhe_round_trips(numbers, rest):
    round_trips(message(12, *map(v16, numbers), rest), ServerKeyExchange(ServerDHParams(*numbers), rest))


@given(st.binary(max_size=200))
def test_any_server_key_exchange_round_trips(body):
    assert ServerKeyExchange.parse(message(12, body)).to_bytes() == message(12, body)


@given(tuples(byte), st.none() | tuples(uint16), tuples(opaque))
def test_certificate_requests_round_trip(types, algorithms, authorities):
    vectors = [] if algorithms is None else [v16(*map(u16, algorithms))]
    encoded = message(13, v8(*map(u8, types)), *vectors, v16(*map(v16, authorities)))
    round_trips(encoded, CertificateRequest(types, algorithms, authorities))


@given(opaque, tuples(opaque))
def test_certificate_status_round_trips(response, responses):
    round_trips(message(22, u8(1), v24(response)), CertificateStatus(1, (response,)))
    round_trips(message(22, u8(2), v24(*map(v24, responses))), CertificateStatus(2, responses))


@given(opaque, byte, byte)
def test_finished_and_alerts_round_trip(verify_data, level, description):
    round_trips(message(20, verify_data), Finished(verify_data))
    assert Alert.parse(bytes([level, description])).to_bytes() == bytes([level, description])


@given(st.sampled_from([type(parsed) for _, parsed in SAMPLES]), byte, st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_wire_error(structure, handshake_type, body):
    for data in (body, message(handshake_type, body)):
        try:
            assert structure.parse(data).to_bytes() == data
        except WireError:
            pass
