"""What established connections cost, side by side with gevent.ssl: bulk data, small echoes, and just being there.

    python benchmarks/bulk.py --rounds 15
    python benchmarks/bulk.py --version 1.2 --only upload download

Two servers of the same code under gevent's StreamServer, with TCP_NODELAY; only the SSLContext differs. In each round
each of them, in every other round the other one first, is started anew (so that no figure hangs on how one process
happened to lie in memory) and loaded by load.c; servers and load each have a core of their own.

    upload, download   64 KiB a write: bytes per second, and the server's CPU time per GiB
    echo               64 bytes there and back on each of many connections: exchanges per second, and CPU time of each
    idle               how much the server's resident memory grows by a connection that echoed once and now waits
    aes                AES-256-GCM alone, record by record: gevent.ssl has the interpreter's OpenSSL, greentls has that
                       of the cryptography wheel, and this is the part of a ratio that is theirs

A ratio above 1 is in favour of greentls, and is one of medians. `from` and `to` tell how noisy it was. Where "the
client's share of its core" is near 1 the client was the limit: then the rates say less than they could, and the
server's CPU time tells. `make bench` builds the load generator and runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from report import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

KINDS = ("gevent.ssl", "greentls")
CASES = ("upload", "download", "echo", "idle", "aes")
RECORD = 16384  # bytes


class Served(NamedTuple):
    pid: int
    address: tuple[str, int]
    size: int  # bytes of a write


def server(kind, case, files, size, pipe):
    """Sends its address and serves until the pipe ends."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import gevent.ssl
    from gevent.server import StreamServer

    import greentls

    context = {"gevent.ssl": gevent.ssl, "greentls": greentls}[kind].SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    block = bytes(size)

    def upload(sock, address):
        while sock.recv(size):
            pass

    def download(sock, address):
        while True:
            sock.sendall(block)

    def echo(sock, address):
        while data := sock.recv(size):
            sock.sendall(data)

    class Server(StreamServer):
        def wrap_socket_and_handle(self, sock, address):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # greentls does it, gevent.ssl does not
            with contextlib.suppress(OSError):  # the clients just go
                super().wrap_socket_and_handle(sock, address)

    handle = {"upload": upload, "download": download, "echo": echo, "idle": echo}[case]
    listener = Server(("127.0.0.1", 0), handle, ssl_context=context, backlog=4096)
    listener.start()
    pipe.send(listener.address)
    while not pipe.poll():
        gevent.sleep(0.05)
    os._exit(0)


@contextlib.contextmanager
def served(kind, case, files, options):
    """A new server, which serves one case."""
    here, there = multiprocessing.Pipe()
    size = options.block if case in ("upload", "download") else options.message
    arguments = (kind, case, files, size, there)
    process = multiprocessing.get_context("spawn").Process(target=server, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        yield Served(process.pid, here.recv(), size)
    finally:
        here.close()
        process.join(10)
        if process.exitcode is None:  # a handler that never waits lets nobody hear of the end
            process.kill()
            process.join()


@contextlib.contextmanager
def load(server, case, clients, options):
    """What benchmarks/load.c counted, on a core of its own. Idle connections last as long as the with block."""
    core = max(os.sched_getaffinity(0))
    seconds = 60 if case == "idle" else options.seconds  # until all are there, at most
    words = [options.load, *server.address, options.version, case, clients, seconds, server.size, server.pid]
    with subprocess.Popen(
        list(map(str, words)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    ) as process:
        counts = json.loads(process.stdout.readline() or "{}")
        if not counts.get("bytes") or counts["failures"]:
            raise SystemExit(f"the load generator failed: {counts}")
        yield counts


def bulk(kind, case, files, options):
    with served(kind, case, files, options) as server, load(server, case, options.streams, options) as counts:
        return {
            "MiB/s": counts["bytes"] / counts["seconds"] / 2**20,
            "server CPU seconds/GiB": counts["server_cpu"] / counts["bytes"] * 2**30,
            "the client's share of its core": counts["own_cpu"],
            "cipher": counts["cipher"],
        }


def echo(kind, case, files, options):
    with served(kind, case, files, options) as server, load(server, case, options.connections, options) as counts:
        return {
            "exchanges/s": counts["exchanges"] / counts["seconds"],
            "server CPU microseconds/exchange": counts["server_cpu"] / counts["exchanges"] * 1e6,
            "the client's share of its core": counts["own_cpu"],
            "cipher": counts["cipher"],
        }


def idle(kind, case, files, options):
    """Growth from a few connections to many, since the first ones bring code and caches with them."""
    with served(kind, case, files, options) as server, load(server, case, 50, options):
        before = resident(server.pid)
        with load(server, case, options.idle, options) as counts:
            if counts["exchanges"] != options.idle:
                raise SystemExit(f"not all connections came about: {counts}")
            return {"KiB/connection": (resident(server.pid) - before) / options.idle, "cipher": counts["cipher"]}


def resident(pid):
    """KiB, counted page by page: /proc/PID/statm may lag."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def aes(kind, case, files, options):
    """GB/s of AES-256-GCM in records, each with a nonce of its own as in TLS, through libcrypto's EVP functions."""
    record, out, nonce = bytes(RECORD), ctypes.create_string_buffer(RECORD + 16), bytes(12)
    length = ctypes.byref(ctypes.c_int())
    function = libcrypto(kind)
    new = function("EVP_CIPHER_CTX_new", ctypes.c_void_p)
    cipher = function("EVP_aes_256_gcm", ctypes.c_void_p)
    init = function("EVP_EncryptInit_ex", ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_char_p, ctypes.c_char_p)
    update = function("EVP_EncryptUpdate", ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_char_p, ctypes.c_int)
    final = function("EVP_EncryptFinal_ex", ctypes.c_int, *[ctypes.c_void_p] * 3)
    context = new()
    init(context, cipher(), None, bytes(32), nonce)
    times = []
    for _ in range(20):
        started = time.process_time_ns()
        for _ in range(200):
            init(context, None, None, None, nonce)
            update(context, out, length, record, RECORD)
            final(context, out, length)
        times.append((time.process_time_ns() - started) / 200)
    return {"GB/s": RECORD / min(times)}


def libcrypto(kind):
    """Makes a function of the OpenSSL that is meant from its name and C types."""
    if kind == "greentls":
        from greentls.openssl import symbols

        return lambda name, *types: ctypes.CFUNCTYPE(*types)(symbols.address(name))
    import _ssl

    library = ctypes.CDLL(_ssl.__file__)  # dlsym() looks in what it is linked against as well
    return lambda name, *types: ctypes.CFUNCTYPE(*types)((name, library))


MEASURES = {"upload": bulk, "download": bulk, "echo": echo, "idle": idle, "aes": aes}
LESS_IS_BETTER = ("server CPU seconds/GiB", "server CPU microseconds/exchange", "KiB/connection")


def measure(options, say=lambda line: None):
    from helpers import Pki

    results = {}
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        files = (pki.cert_file, pki.key_file)
        for case in options.only:
            rounds = {kind: [] for kind in KINDS}
            for turn in range(options.rounds):
                for kind in KINDS if turn % 2 else KINDS[::-1]:
                    rounds[kind].append(MEASURES[case](kind, case, files, options))
                first = next(iter(rounds[KINDS[0]][0]))
                now = ", ".join(f"{kind} {rounds[kind][-1][first]:,.1f}" for kind in KINDS)
                say(f"{case} {turn + 1}/{options.rounds}: {now} {first}")
            results[case] = summary(rounds)
    return results


def summary(rounds):
    result = {}
    for name in rounds[KINDS[0]][0]:
        values = {kind: [each[name] for each in rounds[kind]] for kind in KINDS}
        if name == "cipher":
            result[name] = {kind: sorted(set(each)) for kind, each in values.items()}
            continue
        result[name] = {
            kind: {"median": rounded(statistics.median(each)), "from": rounded(min(each)), "to": rounded(max(each))}
            for kind, each in values.items()
        }
        if not name.startswith("the client"):
            theirs, ours = (statistics.median(values[kind]) for kind in KINDS)
            result[name]["ratio"] = round(theirs / ours if name in LESS_IS_BETTER else ours / theirs, 3)
    return result


def rounded(value):
    return float(f"{value:.4g}")


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="cases to measure (all)")
    parser.add_argument("--version", choices=("1.2", "1.3"), default="1.3", help="of TLS (1.3)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds of each case (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each kind in each round (1)")
    parser.add_argument("--streams", type=int, default=4, help="connections that upload or download (4)")
    parser.add_argument("--block", type=int, default=65536, help="bytes of each of their writes (65536)")
    parser.add_argument("--connections", type=int, default=64, help="connections that echo (64)")
    parser.add_argument("--message", type=int, default=64, help="bytes of each echo (64)")
    parser.add_argument("--idle", type=int, default=2000, help="connections that idle (2000)")
    parser.add_argument("--load", default=str(Path(__file__).with_name("load")), help="the built load.c (make bench)")
    return parser.parse_args(arguments)


def main():
    options = parse()
    report(options, measure(options, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    main()
