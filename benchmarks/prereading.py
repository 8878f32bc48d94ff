"""What it costs a server to read the ClientHello before OpenSSL does: full TLS 1.3 handshakes with and without.

    python benchmarks/prereading.py --rounds 15

One server, greentls under gevent's StreamServer, listens twice, with one certificate: plainly, and with a
client_hello_callback that looks at server_name. Clients (load.c) do handshakes with the one and then with the other,
in every other round the other way about; server and clients each have a core of their own. The ratio of the medians of
the server's CPU time per handshake is the claim. `make bench` builds the clients and runs this.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from report import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

KINDS = ("plain", "pre-reading")


def server(cert_file, key_file, pipe):
    """Sends its addresses, and for each word it gets what it has done so far; ends with the pipe."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import gevent
    from gevent.server import StreamServer

    import greentls

    handshakes, names, sizes = Counter(), Counter(), set()

    def look(sock, hello):
        names[hello.server_name] += 1
        if not sizes:
            sizes.add(len(hello.to_bytes()))

    class Server(StreamServer):
        def wrap_socket_and_handle(self, sock, address):
            try:
                super().wrap_socket_and_handle(sock, address)
            except OSError:
                pass  # the clients go in the middle of handshakes

    def listen(kind):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file)
        if kind == "pre-reading":
            context.client_hello_callback = look

        def serve(sock, address):
            handshakes[kind] += 1
            sock.recv(1)  # the client's close_notify

        listener = Server(("127.0.0.1", 0), serve, ssl_context=context, backlog=1024)
        listener.start()
        return listener.address

    pipe.send({kind: listen(kind) for kind in KINDS})
    while True:
        while not pipe.poll():
            gevent.sleep(0.05)
        try:
            pipe.recv()
        except EOFError:
            os._exit(0)
        pipe.send((time.process_time(), dict(handshakes), dict(names), max(sizes, default=0)))


def load(address, options):
    """What benchmarks/load.c counted, on a core of its own."""
    core = max(os.sched_getaffinity(0))
    command = [options.load, *map(str, address), "1.3", "full", str(options.concurrent), str(options.seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    counts = json.loads(done.stdout)
    if counts["failures"] or counts["resumed"] or not counts["handshakes"]:
        raise SystemExit(f"not every handshake was a full one: {counts}")
    return counts


def asked(pipe):
    pipe.send("so far?")
    return pipe.recv()


def measure(options, say=lambda line: None):
    from helpers import Pki

    costs = {kind: [] for kind in KINDS}
    clients = {kind: [] for kind in KINDS}
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        files = Pki(Path(directory)).issue("localhost", kind=options.key)
        process = multiprocessing.get_context("spawn").Process(target=server, args=(*files, there), daemon=True)
        process.start()
        there.close()
        addresses = here.recv()
    for kind in KINDS:  # caches, and what is made at the first connection
        load(addresses[kind], options)
    for turn in range(options.rounds):
        for kind in KINDS if turn % 2 else KINDS[::-1]:
            before, handshakes_before, _, _ = asked(here)
            clients[kind].append(load(addresses[kind], options)["own_cpu"])
            after, handshakes_after, _, _ = asked(here)
            costs[kind].append((after - before) / (handshakes_after[kind] - handshakes_before[kind]) * 1e6)
        say(f"round {turn + 1}/{options.rounds}: " + ", ".join(f"{kind} {costs[kind][-1]:.1f} us" for kind in KINDS))
    _, handshakes, names, size = asked(here)
    here.close()
    process.join(30)
    plain, reading = (costs[kind] for kind in KINDS)
    medians = [statistics.median(each) for each in (plain, reading)]
    by_round = [b / a for a, b in zip(plain, reading, strict=True)]
    return {
        "server CPU per handshake, microseconds": {
            kind: {"median": round(statistics.median(each), 1), "from": round(min(each), 1), "to": round(max(each), 1)}
            for kind, each in costs.items()
        },
        "ratio": round(medians[1] / medians[0], 4),
        "ratio by round": [round(each, 3) for each in by_round],
        "handshakes": handshakes,
        "server names seen": names,
        "bytes of the ClientHello": size,
        "the client's share of its core": {kind: statistics.median(each) for kind, each in clients.items()},
    }


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrent", type=int, default=64, help="clients at once (64)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each kind in each round (1)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (15)")
    parser.add_argument("--key", choices=("ec", "rsa"), default="ec", help="P-256 or RSA with 2048 bits (ec)")
    parser.add_argument("--load", default=str(Path(__file__).with_name("load")), help="the built load.c (make bench)")
    return parser.parse_args(arguments)


def main():
    options = parse()
    report(options, measure(options, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    main()
