"""What a key elsewhere costs and gains: full TLS 1.3 handshakes between sockets of one process.

rate: handshakes per second with a P-256 signer that is so many milliseconds away, where the signature is waited for and
where it blocks the process. storm: RSA-2048 handshakes come at a rate, and a byte is sent over another connection and
back; its latency, with the key in the process, with the strategy "thread", and with the key in a key process. check:
microseconds to check a signature before it is used. Clients and servers share one core; a machine with less than two
idle ones shows nothing.
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.socket

from greentls import keys
from greentls.certificates import CertificateChain
from greentls.keys.algorithms import check
from greentls.keys.process import KeyProcess, read_key
from greentls.keys.protocol import DONE, SIGN
from greentls.ssl import SSLContext
from tests.support.helpers import Pki

TOGETHER = 50  # handshakes at once, for a rate
RATE = 150  # handshakes per second, of a storm
AWAY = 0, 1, 5, 20  # milliseconds


def local(key_file: str, before: Callable[[], object]) -> Callable[[bytes, str], bytes]:
    """A signer: the function is called before each signature."""
    holder = KeyProcess([read_key(key_file)], set())
    fingerprint = next(iter(holder._keys))

    def sign(data: bytes, algorithm: str) -> bytes:
        before()
        answer = holder.answer(SIGN + fingerprint + bytes([len(algorithm)]) + algorithm.encode() + data)
        assert answer.startswith(DONE)
        return answer[1:]

    return sign


def contexts(pki: Pki, certificate: str, key: Any) -> tuple[SSLContext, SSLContext]:
    client, server = SSLContext(ssl.PROTOCOL_TLS_CLIENT), SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.load_verify_locations(pki.ca_file)
    server.load_cert_chain(certificate, key)
    server.callback_timeout = None
    return client, server


def connected(client: SSLContext, server: SSLContext) -> tuple[Any, Any]:
    here, there = gevent.socket.socketpair()
    job = gevent.spawn(server.wrap_socket, there, server_side=True)
    return client.wrap_socket(here, server_hostname="localhost"), job.get()


def handshakes(client: SSLContext, server: SSLContext, seconds: float) -> float:
    """Per second."""
    ends, done = time.perf_counter() + seconds, []

    def work() -> None:
        while time.perf_counter() < ends:
            for sock in connected(client, server):
                sock.close()
            done.append(None)

    started = time.perf_counter()
    gevent.joinall([gevent.spawn(work) for _ in range(TOGETHER)], raise_error=True)
    return len(done) / (time.perf_counter() - started)


def rates(pki: Pki, seconds: float) -> dict[str, dict[str, float]]:
    certificate, key = pki.issue("localhost")
    public = CertificateChain.load(certificate, key).certificate.public_key()
    found: dict[str, dict[str, float]] = {"waits": {}, "blocks": {}}
    for milliseconds in AWAY:
        for name, wait in (("waits", gevent.sleep), ("blocks", time.sleep)):
            signer = local(key, lambda wait=wait, ms=milliseconds: wait(ms / 1000))  # type: ignore[misc]  # defaults
            pair = contexts(pki, certificate, keys.Callback(public, signer))  # type: ignore[arg-type]  # any public key
            found[name][f"{milliseconds} ms"] = round(handshakes(*pair, seconds))
    return found


def storms(pki: Pki, seconds: float) -> dict[str, dict[str, float]]:
    certificate, key = pki.issue("localhost", kind="rsa")
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/keys.sock"
        command = [sys.executable, "-m", "greentls", "keys", "serve", "--socket", path, "--key", key]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for name, held, strategy in (
                ("in the process", key, "coroutine"),
                ("strategy thread", key, "thread"),
                ("key process", keys.Agent(path), "coroutine"),
            ):
                client, server = contexts(pki, certificate, held)
                server.strategy = strategy
                found[name] = storm(client, server, seconds)
            process.terminate()
    return found


def storm(client: SSLContext, server: SSLContext, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    here, there = connected(client, server)

    def echo() -> None:
        while data := there.recv(1):
            there.sendall(data)

    def beside() -> None:
        while True:
            started = time.perf_counter()
            here.sendall(b"x")
            here.recv(1)
            latencies.append(time.perf_counter() - started)
            gevent.sleep(0.001)

    def visit() -> None:
        for sock in connected(client, server):
            sock.close()

    others = [gevent.spawn(echo), gevent.spawn(beside)]
    visits, began = [], time.perf_counter()
    while time.perf_counter() < began + seconds:
        visits.append(gevent.spawn(visit))
        gevent.sleep(max(0.0, began + len(visits) / RATE - time.perf_counter()))
    gevent.joinall(visits, raise_error=True)
    rate = len(visits) / (time.perf_counter() - began)
    gevent.killall(others)
    here.close(), there.close()
    ordered = sorted(latencies)
    return {
        "handshakes per second": round(rate),
        "p50 ms": round(ordered[len(ordered) // 2] * 1000, 2),
        "p99 ms": round(ordered[len(ordered) * 99 // 100] * 1000, 2),
    }


def checks(pki: Pki) -> dict[str, float]:
    found = {}
    for kind, name in (("ec", "ecdsa_secp256r1_sha256"), ("rsa", "rsa_pss_rsae_sha256"), ("ed25519", "ed25519")):
        certificate, key = pki.issue("localhost", kind=kind)
        public: Any = CertificateChain.load(certificate, key).certificate.public_key()
        signature = local(key, lambda: None)(b"x" * 130, name)
        found[name] = microseconds(lambda: check(public, signature, b"x" * 130, name))  # noqa: B023  # called here
    return found


def microseconds(function: Callable[[], object], count: int = 300) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; default %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        result = {
            "rate": rates(pki, arguments.seconds),
            "storm": storms(pki, arguments.seconds),
            "check": checks(pki),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
