"""AES-256-GCM alone, record by record.

Other servers use the interpreter's OpenSSL and greentls the cryptography wheel's. This shows which part of the ratios
of bulk data is due to that.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from typing import Any

RECORD = 16384  # bytes
TURN = 200  # records


def gigabytes(function: Callable[..., Any], seconds: float) -> float:
    """Returns GB/s of the best turn through libcrypto's EVP functions, each record with its own nonce as in TLS."""
    record, out, nonce = bytes(RECORD), ctypes.create_string_buffer(RECORD + 16), bytes(12)
    length = ctypes.byref(ctypes.c_int())
    new = function("EVP_CIPHER_CTX_new", ctypes.c_void_p)
    cipher = function("EVP_aes_256_gcm", ctypes.c_void_p)
    init = function("EVP_EncryptInit_ex", ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_char_p, ctypes.c_char_p)
    update = function("EVP_EncryptUpdate", ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_char_p, ctypes.c_int)
    final = function("EVP_EncryptFinal_ex", ctypes.c_int, *[ctypes.c_void_p] * 3)
    context = new()
    init(context, cipher(), None, bytes(32), nonce)
    end, times = time.monotonic() + seconds, []
    while not times or time.monotonic() < end:
        started = time.process_time_ns()
        for _ in range(TURN):
            init(context, None, None, None, nonce)
            update(context, out, length, record, RECORD)
            final(context, out, length)
        times.append((time.process_time_ns() - started) / TURN)
    return RECORD / min(times)


def ours(name: str, *types: Any) -> Any:
    """Returns a function of greentls' OpenSSL by its name and C types."""
    from greentls.openssl import symbols

    return ctypes.CFUNCTYPE(*types)(symbols.address(name))


def the_interpreters(name: str, *types: Any) -> Any:
    import _ssl

    return ctypes.CFUNCTYPE(*types)((name, ctypes.CDLL(_ssl.__file__)))  # dlsym() also searches its dependencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    seconds = parser.parse_args().seconds
    kinds = {"greentls": ours, "gevent.ssl, TCP_NODELAY": the_interpreters}
    print(json.dumps({name: {"GB_s": gigabytes(function, seconds / 2)} for name, function in kinds.items()}))


if __name__ == "__main__":
    main()
