"""What it costs a callback to wait: handshakes between two connections in memory, whose server asks for a name.

In turns the callback answers at once, or only after gevent.sleep(0), which leaves OpenSSL's frames for the hub and
comes back. Taken is the CPU time of the one step of the server's handshake that asks; medians. Beside it stands the
same gevent.sleep(0) in a greenlet without OpenSSL.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import gevent
from helpers import Pki

from greentls.bridge import Hooks
from greentls.certificates import CertificateChain
from greentls.connection import WANT_READ, Connection
from greentls.context import Context

TURN = 20  # handshakes of a kind before the other's


def ask(connection: object, name: str | None) -> None:
    pass


def ask_and_wait(connection: object, name: str | None) -> None:
    gevent.sleep(0)


def nanoseconds_of(function: Callable[[], object]) -> int:
    started = time.process_time_ns()
    function()
    return time.process_time_ns() - started


def handshake(server_context: Context, client_context: Context) -> int:
    """Nanoseconds of the server's first step, which takes the ClientHello."""
    server, client = Connection(server_context), Connection(client_context, server_hostname="localhost")
    client.step_handshake()
    server.receive_data(client.data_to_send())
    taken = nanoseconds_of(server.step_handshake)
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
    client = Context(server_side=False)
    kinds = {
        name: Context(server_side=True, certificates=(chain,), hooks=Hooks(servername=hook))
        for name, hook in (("answers at once", ask), ("waits", ask_and_wait))
    }
    taken: dict[str, list[int]] = {name: [] for name in (*kinds, "gevent.sleep(0) alone")}
    end = time.monotonic() + seconds
    while time.monotonic() < end or not taken["waits"]:
        for name, context in kinds.items():
            taken[name] += [handshake(context, client) for _ in range(TURN)]
        taken["gevent.sleep(0) alone"] += [nanoseconds_of(lambda: gevent.sleep(0)) for _ in range(TURN)]
    rows = {name: {"us": statistics.median(each) / 1e3} for name, each in taken.items()}
    rows["waits"]["on_top_us"] = rows["waits"]["us"] - rows["answers at once"]["us"]
    print(json.dumps(rows))


if __name__ == "__main__":
    gevent.spawn(main).get()
