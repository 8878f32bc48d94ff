"""Makes tests/data/hellos/ and tests/data/flights/: what real clients and servers send, on loopback.

    python -m tests.capture [NAME...]

Each capture is NAME.bin, the bytes of one direction as they went over the wire, and NAME.json, what to expect of them:
"told" is what the peer was configured to send, "tshark" is how Wireshark dissects the same bytes. greentls parses
nothing here. Clients and tools that are not installed are passed over (apt-get install gnutls-bin libnss3-tools tshark
chromium); names as arguments: these captures only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.capture.captures import Captures
from tests.capture.flights import gnutls_flight, node_flight, openssl_flights, stapled_flight
from tests.capture.hellos import (
    chromium_hellos,
    curl_hello,
    gnutls_hellos,
    java_hellos,
    node_hello,
    nss_hello,
    openssl_hellos,
    openssl_resumptions,
    pyopenssl_hello,
    python_hello,
)
from tests.support.helpers import Pki


def main(only: list[str]) -> None:
    captures = Captures(only)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        for client in (openssl_hellos, python_hello, pyopenssl_hello, curl_hello, node_hello, java_hellos):
            client(captures)
        for client in (gnutls_hellos, nss_hello):
            client(captures)
        for peer in (chromium_hellos, openssl_resumptions, openssl_flights, stapled_flight, gnutls_flight, node_flight):
            peer(captures, pki)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
