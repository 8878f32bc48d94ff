"""The cost of waiting in a callback: handshakes between two connections in memory, with a servername callback.

In turns, the callback answers at once; or it calls gevent.sleep(0), which switches to the hub from inside OpenSSL; or
it answers at once, and gevent.sleep(0) is called outside OpenSSL. The result is the median CPU time of the server's
step that calls the callback. For comparison, gevent.sleep(0) is also measured in a loop, where its code stays in the
processor's caches; a handshake evicts it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gevent

from greentls.certificates import CertificateChain
from greentls.core.config import Config
from greentls.core.connection import WANT_READ, Connection
from greentls.core.hooks import Hooks
from tests.support.helpers import Pki

TURN = 20  # handshakes of one kind in a row


def ask(connection: object, name: str | None) -> None:
    pass


def ask_and_wait(connection: object, name: str | None) -> None:
    wait()


def wait() -> None:
    gevent.sleep(0)


def nothing() -> None:
    pass


def nanoseconds_of(function: Callable[[], object]) -> int:
    started = time.process_time_ns()
    function()
    return time.process_time_ns() - started


def handshake(server_context: Config, client_context: Config, after: Callable[[], object]) -> int:
    """Returns the nanoseconds of the server's first step, which takes the ClientHello, and of the work after it."""
    server, client = Connection(server_context), Connection(client_context, server_hostname="localhost")
    client.step_handshake()
    server.receive_data(client.data_to_send())
    taken = nanoseconds_of(lambda: (server.step_handshake(), after()))
    while True:
        client.receive_data(server.data_to_send())
        finished = client.step_handshake() != WANT_READ
        server.receive_data(client.data_to_send())
        if server.step_handshake() != WANT_READ and finished:
            return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        chain = CertificateChain.load(pki.cert_file, pki.key_file, None)
    client = Config(server_side=False)
    kinds = {
        name: (Config(server_side=True, certificates=(chain,), hooks=Hooks(servername=hook)), after)
        for name, hook, after in (
            ("answers at once", ask, nothing),
            ("waits", ask_and_wait, nothing),
            ("waits when OpenSSL is left", ask, wait),
        )
    }
    taken: dict[str, list[int]] = {name: [] for name in (*kinds, "gevent.sleep(0) alone")}
    end = time.monotonic() + seconds
    while time.monotonic() < end or not taken["waits"]:
        for name, (context, after) in kinds.items():
            taken[name] += [handshake(context, client, after) for _ in range(TURN)]
        taken["gevent.sleep(0) alone"] += [nanoseconds_of(wait) for _ in range(TURN)]
    rows = {name: {"us": statistics.median(each) / 1e3} for name, each in taken.items()}
    for name in ("waits", "waits when OpenSSL is left"):
        rows[name]["on_top_us"] = rows[name]["us"] - rows["answers at once"]["us"]
    rows["waits"]["inside_us"] = rows["waits"]["us"] - rows["waits when OpenSSL is left"]["us"]
    print(json.dumps(rows))


if __name__ == "__main__":
    gevent.spawn(main).get()
