"""Parses the plaintext of TLS: records, handshake messages and PROXY headers. Sans-IO, standard library only.

    RecordReader   turns a byte stream into whole handshake messages
    ClientHello    and ServerHello: parse(message), attributes, to_bytes()
    Parser         turns one direction of a connection into events, like http-parser
    ProxyReader    reads the PROXY protocol in front of TLS
    ja3, ja4       fingerprint a client
    recognise      says what a stream is if it is not TLS

A violation is a WireError. It names the field, and the alert that the RFC asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greentls.errors import WireError
from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.wire.fingerprint import ja3 as ja3
    from greentls.wire.fingerprint import ja3_string as ja3_string
    from greentls.wire.fingerprint import ja4 as ja4
    from greentls.wire.fingerprint import ja4_r as ja4_r
    from greentls.wire.hello import ClientHello as ClientHello
    from greentls.wire.hello import ServerHello as ServerHello
    from greentls.wire.messages import Alert as Alert
    from greentls.wire.messages import Certificate as Certificate
    from greentls.wire.messages import CertificateRequest as CertificateRequest
    from greentls.wire.messages import CertificateStatus as CertificateStatus
    from greentls.wire.messages import Finished as Finished
    from greentls.wire.messages import NewSessionTicket as NewSessionTicket
    from greentls.wire.messages import ServerKeyExchange as ServerKeyExchange
    from greentls.wire.not_tls import NotTLS as NotTLS
    from greentls.wire.not_tls import recognise as recognise
    from greentls.wire.parser import Parser as Parser
    from greentls.wire.proxy import ProxyHeader as ProxyHeader
    from greentls.wire.proxy import ProxyReader as ProxyReader
    from greentls.wire.record import RecordReader as RecordReader

_NAMES = {
    "fingerprint": "ja3 ja3_string ja4 ja4_r",
    "hello": "ClientHello ServerHello",
    "messages": "Alert Certificate CertificateRequest CertificateStatus Finished NewSessionTicket ServerKeyExchange",
    "not_tls": "NotTLS recognise",
    "parser": "Parser",
    "proxy": "ProxyHeader ProxyReader",
    "record": "RecordReader",
}

__all__ = ["WireError", *" ".join(_NAMES.values()).split()]

__getattr__, __dir__ = at_first_use(__name__, _NAMES)
