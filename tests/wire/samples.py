"""Handshake messages, and what they are as objects."""

from __future__ import annotations

from greentls.wire.messages import (
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
    message,
    u8,
    u16,
    u32,
    v8,
    v16,
    v24,
)

FFDHE6144 = b"\xff" * 768  # its length, 0x0300, begins as a named curve does

SAMPLES = [
    (message(11, v24(v24(b"leaf"), v24(b"issuer"))), Certificate((b"leaf", b"issuer"))),
    (message(11, v24()), Certificate(())),
    (message(4, u32(7200), v16(b"ticket")), NewSessionTicket(7200, b"ticket")),
    (
        message(12, u8(3), u16(23), v8(b"point"), u16(0x0403), v16(b"signature")),
        ServerKeyExchange(ServerECDHParams(23, b"point"), u16(0x0403) + v16(b"signature")),
    ),
    (message(12, u8(3), u16(29), v8(b"point")), ServerKeyExchange(ServerECDHParams(29, b"point"), b"")),
    (
        message(12, v16(b"p" * 256), v16(b"\2"), v16(b"y" * 256), v16(b"signature")),
        ServerKeyExchange(ServerDHParams(b"p" * 256, b"\2", b"y" * 256), v16(b"signature")),
    ),
    (
        message(12, v16(FFDHE6144), v16(b"\2"), v16(b"y" * 768)),
        ServerKeyExchange(ServerDHParams(FFDHE6144, b"\2", b"y" * 768), b""),
    ),
    (message(12, v16(b"a PSK hint")), ServerKeyExchange(None, v16(b"a PSK hint"))),
    (message(12), ServerKeyExchange(None, b"")),
    (
        message(13, v8(u8(1), u8(64)), v16(u16(0x0403), u16(0x0804)), v16(v16(b"dn1"), v16(b"dn2"))),
        CertificateRequest((1, 64), (0x0403, 0x0804), (b"dn1", b"dn2")),
    ),
    (message(13, v8(u8(1)), v16(v16(b"dn1"), v16(b"dn2"))), CertificateRequest((1,), None, (b"dn1", b"dn2"))),
    (message(13, v8(u8(1)), v16()), CertificateRequest((1,), None, ())),
    (message(13, v8(u8(1)), v16(u16(0x0403)), v16()), CertificateRequest((1,), (0x0403,), ())),
    (message(22, u8(1), v24(b"response")), CertificateStatus(1, (b"response",))),
    (message(22, u8(2), v24(v24(b"one"), v24())), CertificateStatus(2, (b"one", b""))),
    (message(20, b"verify data"), Finished(b"verify data")),
]
