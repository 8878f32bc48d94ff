"""What comes in place of a ClientHello."""

from __future__ import annotations

NOISE = {
    "bytes": lambda rng: rng.randbytes(rng.choice((1, 4, 5, 100, 5000))),
    "http": lambda rng: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssl2": lambda rng: b"\x80\x2e\1\0\2\0\x15\0\0\0\x10" + rng.randbytes(40),
    "data": lambda rng: b"\x17\3\3\x40\0" + bytes(16384),
    "data_flood": lambda rng: (b"\x17\3\3\x40\0" + bytes(16384)) * 64,
    "alerts": lambda rng: b"\x15\3\1\0\2\1\x5a" * rng.choice((1, 3000)),
    "close_notify": lambda rng: b"\x15\3\1\0\2\1\0",
    "change_cipher_specs": lambda rng: b"\x14\3\1\0\1\1" * rng.choice((1, 3000)),
    "empty_handshake": lambda rng: b"\x16\3\1\0\0" * rng.choice((1, 3000)),
    "endless": lambda rng: (b"\x16\3\1\x40\0\1\xff\xff\xff" + bytes(16380)) + (b"\x16\3\1\x40\0" + bytes(16384)) * 16,
    "one_byte_records": lambda rng: b"\x16\3\1\0\1\1" + b"\x16\3\1\0\1\0" * rng.choice((10, 20_000)),
    "records_of_other_types": lambda rng: bytes((rng.randrange(256),)) + b"\3\1\0\2" + rng.randbytes(2),
}
