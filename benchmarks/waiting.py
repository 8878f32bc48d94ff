"""What waiting costs: resumptions whose session lookup takes 20 ms, in a callback that waits and in one that blocks.

    python benchmarks/waiting.py --lookup 0.02 --concurrent 200

The same server twice: its store sleeps with gevent.sleep() or, as every OpenSSL callback without a bridge has to, with
time.sleep(). The ratio of the two rates is the claim; server and clients each have a core of their own.
`make bench` builds the clients and runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def server(pki, wait, seconds, pipe):
    """Serves until it is told to stop; then tells its CPU seconds and how many lookups waited at once."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import gevent
    from gevent.server import StreamServer

    import greentls
    from greentls.stores.memory import MemoryStore

    sleep = {"cooperative": gevent.sleep, "blocking": time.sleep}[wait]
    inside = most = 0

    class SlowStore(MemoryStore):
        def get(self, session_id):
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            try:
                sleep(seconds)
                return super().get(session_id)
            finally:
                inside -= 1

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    context.session_store = SlowStore()
    context.callback_timeout = 60.0

    def serve(sock, address):
        while sock.recv(1):  # the first connection's, for its ticket
            sock.sendall(b"y")

    class Quiet(StreamServer):
        """The clients hang up in the middle when their time is over: no news."""

        def wrap_socket_and_handle(self, sock, address):
            with contextlib.suppress(OSError):
                super().wrap_socket_and_handle(sock, address)

    listener = Quiet(("127.0.0.1", 0), serve, ssl_context=context, backlog=1024)
    listener.start()
    pipe.send(listener.address)
    while not pipe.poll():
        gevent.sleep(0.05)
    used = os.times()
    pipe.send((used.user + used.system, most))
    os._exit(0)


def load(address, version, options):
    """What benchmarks/load.c counted, on a core of its own."""
    core = max(os.sched_getaffinity(0))
    command = [options.load, *map(str, address), version, "resumed", str(options.concurrent), str(options.seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    counts = json.loads(done.stdout)
    if counts["failures"] or counts["resumed"] != counts["handshakes"]:
        raise SystemExit(f"not every handshake resumed: {counts}")
    return counts


def one(pki, wait, version, options):
    """A round: handshakes per second, lookups at once, the client's share of its core."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=server, args=(pki, wait, options.lookup, there))
    process.start()
    counts = load(here.recv(), version, options)
    here.send("stop")
    _, most = here.recv()
    process.join(30)
    return counts["handshakes"] / counts["seconds"], most, counts["own_cpu"]


class Files:
    """The paths of a test CA's files; a Pki holds keys, which do not travel to another process."""

    def __init__(self, pki):
        self.ca_file, self.cert_file, self.key_file = pki.ca_file, pki.cert_file, pki.key_file


def measure(options, say=lambda line: None):
    from helpers import Pki

    results = {}
    with tempfile.TemporaryDirectory() as directory:
        pki = Files(Pki(Path(directory)))
        for version in options.versions:
            rates = {"cooperative": [], "blocking": []}
            most, client = {}, {}
            for turn in range(options.rounds):
                for wait in rates:
                    rate, most[wait], client[wait] = one(pki, wait, version, options)
                    rates[wait].append(rate)
                    say(f"{version} round {turn + 1}/{options.rounds} {wait}: {rate:.0f} handshakes/s")
            medians = {wait: statistics.median(each) for wait, each in rates.items()}
            results[version] = {
                "handshakes per second": {wait: round(each, 1) for wait, each in medians.items()},
                "lookups at once": most,
                "the client's share of its core": client,
                "ratio": round(medians["cooperative"] / medians["blocking"], 1),
            }
    return results


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lookup", type=float, default=0.02, help="seconds that a lookup takes (0.02)")
    parser.add_argument("--concurrent", type=int, default=200, help="clients at once (200)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round (4)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each kind (3)")
    parser.add_argument("--versions", nargs="+", default=["1.2", "1.3"], choices=["1.2", "1.3"])
    parser.add_argument("--load", default=str(Path(__file__).with_name("load")), help="the built load.c (make bench)")
    return parser.parse_args(arguments)


def main():
    options = parse()
    report(options, measure(options, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    main()
