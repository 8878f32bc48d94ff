"""TLS as bytes: records, handshake messages and what goes before them, parsed. Sans-IO, standard library only.

    RecordReader   a byte stream in, whole handshake messages out
    ClientHello    and ServerHello: parse(message), attributes, to_bytes()
    Parser         the events of one direction of a connection, in the manner of http-parser
    ProxyReader    the PROXY protocol, in front of TLS
    fingerprint    JA3 and JA4
    recognise      what a stream is that is not TLS

A violation is a WireError: it names the field, and the alert that the RFC asks for.
"""

from __future__ import annotations

from greentls.errors import WireError
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.messages import (
    Alert,
    Certificate,
    CertificateRequest,
    CertificateStatus,
    Finished,
    NewSessionTicket,
    ServerKeyExchange,
)
from greentls.wire.opening import NotTLS, recognise
from greentls.wire.parser import Parser
from greentls.wire.proxy import ProxyHeader, ProxyReader
from greentls.wire.record import RecordReader

__all__ = [
    "Alert",
    "Certificate",
    "CertificateRequest",
    "CertificateStatus",
    "ClientHello",
    "Finished",
    "NewSessionTicket",
    "NotTLS",
    "Parser",
    "ProxyHeader",
    "ProxyReader",
    "RecordReader",
    "ServerHello",
    "ServerKeyExchange",
    "WireError",
    "ja3",
    "ja3_string",
    "ja4",
    "ja4_r",
    "recognise",
]
