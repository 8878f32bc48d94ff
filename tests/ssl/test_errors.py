"""What an ssl.SSLError says: programs compare its reason, and the standard library is the oracle."""

from __future__ import annotations

import ssl

import greentls.ssl
from greentls.errors import TLSError
from greentls.openssl import bios, connections, errors
from tests.support.openssl import lib
from tests.support.pairs import attempt, client, client_context
from tests.support.ssl_pairs import Side, finished, outcome

NO_RECORDS = {
    "an unknown content type": b"\x2a\x03\x03\x00\x01\x00",
    "too long": b"\x16\x03\x03\xff\xff",
    "a wrong version": b"\x16\x09\x09\x00\x01\x00",
    "plain HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "early application data": b"\x17\x03\x03\x00\x01\x00",
}


def queued(context, ciphertext):
    """The reasons in OpenSSL's error queue, oldest first, after a client has had this answer to its hello."""
    connection, incoming, _ = connections.new(context, False)
    connections.do_handshake(connection)
    bios.append(incoming, ciphertext)
    errors.clear()
    connections.do_handshake(connection)
    return [errors.describe(code)[1] for code in errors.take()]


def test_the_last_of_several_errors_is_told_and_the_others_are_kept(pki):
    several = 0
    context = client_context(pki)
    for what, ciphertext in NO_RECORDS.items():
        reasons = queued(context.ssl_context, ciphertext)
        one = client(context)
        attempt(one.do_handshake)
        one.receive_data(ciphertext)
        error = outcome(one.do_handshake)
        assert isinstance(error, TLSError), what
        assert [*error.details, error.reason] == reasons, what
        side = Side(greentls.ssl.create_default_context(), server_hostname="localhost")
        assert not finished(side.tls.do_handshake)
        side.incoming.write(ciphertext)
        told = outcome(side.tls.do_handshake)
        assert told.reason == reasons[-1].upper().replace(" ", "_"), what
        assert [*told.__cause__.details, told.__cause__.reason] == reasons, what
        several += len(reasons) > 1
    assert several or lib.OpenSSL_version_num() < 0x30200000, "one error for each: the test tells nothing"


def test_an_alert_has_the_standard_librarys_reason():
    contexts = [module.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for module in (greentls.ssl, ssl)]

    def told(context, alert):
        side = Side(context, server_hostname="localhost")
        assert not finished(side.tls.do_handshake)
        side.incoming.write(b"\x15\x03\x03\x00\x02\x02" + bytes([alert]))
        error = outcome(side.tls.do_handshake)
        return type(error), error.errno, error.library, error.reason

    named = 0
    for alert in range(256):
        ours, theirs = (told(context, alert) for context in contexts)
        if theirs[3] is None:  # it may be their _ssl that does not know its name
            assert ours[:3] == theirs[:3], alert
            assert ours[3] is None or ours[3].startswith("TLSV1"), alert
        else:
            assert ours == theirs, alert
            named += 1
    assert named > 25
