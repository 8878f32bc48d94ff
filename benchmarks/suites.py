"""What is measured, and on which servers.

A suite has contestants. Each is a server, or a probe without one, and does some works. Every round restarts all
servers. Then the contestants do each work in turn; every second round reverses their order.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import machine, profiling, running
from benchmarks.peers import HERE as PEERS_DIRECTORY
from benchmarks.peers import PEERS, Peer
from greentls.errors import ConfigurationError
from greentls.openssl import foundation

Metrics = dict[str, Any]  # metric name (report.METRICS): number or None
Measure = Callable[["Bench", "running.Server | None"], Metrics]

MILLISECONDS = (0, 1, 5, 20)  # durations of lookups
CLIENTS = 32
WAITING_CLIENTS = 200  # clients of slow lookups
BLOCKED_CLIENTS = 8
FEW_CLIENTS = 8  # so that none waits for the processor
SMALL = 64  # bytes of a small write
IDLE = 5000
PARKED = 1000
VERSIONS_AND_MODES = tuple(itertools.product(("1.3", "1.2"), ("full", "resumed")))
WAYS = ("coroutine", "thread", "prefetch", "suspend", "replay")


@dataclass(frozen=True)
class Contestant:
    """A server or a probe. measures: by work; each returns Metrics, or Metrics by name for several results."""

    name: str
    measures: dict[str, Measure]
    words: tuple[str, ...] = ()  # the server's command; equal commands are one server
    everywhere: bool = False  # the server may use all cores
    absent: str = ""  # the reason why it cannot take part


@dataclass
class Bench:
    """The settings, files and cores of a run."""

    directory: str
    seconds: float  # of each measurement
    connections: int = 10**9  # limit for every suite
    peers: frozenset[str] | None = None  # chosen by --peers; None: all
    memcached: str = ""  # HOST:PORT, or ""
    pure: bool = False  # measure greentls without its compiled pump as well
    system: bool = False  # measure what stands on greentls' OpenSSL over the system's as well
    files: dict[str, tuple[str, str]] = field(default_factory=dict)  # certificate and key, by kind
    server_core: set[int] = field(default_factory=set)
    client_core: set[int] = field(default_factory=set)
    cores: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        from tests.support.helpers import Pki

        self.server_core, self.client_core, self.cores = machine.cores()
        pki = Pki(Path(self.directory))
        self.files = {kind: pki.issue("localhost", kind=kind) for kind in ("ec", "rsa")}
        self.secret = Path(self.directory, "secret")
        self.secret.touch(0o600)
        self.secret.write_bytes(os.urandom(32))

    def many(self, count: int) -> int:
        return min(count, self.connections)

    def arguments(self, kind: str = "ec") -> tuple[str, ...]:
        return (*self.files[kind], str(running.BLOCK))

    def python(self, name: str, *more: str, kind: str = "ec") -> tuple[str, ...]:
        return (sys.executable, str(PEERS_DIRECTORY / name), *self.arguments(kind), *more)

    def load(self, mode: str, server: running.Server, port: str, **options: Any) -> Any:
        """Runs the load generator in a with block. port: the service; a server without echo does handshakes."""
        number = server.ports["handshake" if port == "echo" and port not in server.ports else port]
        return running.load(mode, number, machine.family(server.pid), self.client_core, **options)

    def wants(self, choice: str) -> bool:
        return self.peers is None or choice in self.peers


@contextlib.contextmanager
def memcached(core: set[int], directory: str) -> Iterator[str]:
    """Runs memcached on a core during a with block. Yields HOST:PORT, or "" if it is not installed."""
    if not shutil.which("memcached"):
        yield ""
        return
    with running.server([sys.executable, str(PEERS_DIRECTORY / "memcached.py")], core, directory) as server:
        yield f"127.0.0.1:{server.ports['memcached']}"


# -- measures ----------------------------------------------------------------------------------------------------------


def counted(load: running.Load, of: str) -> Metrics:
    """Returns the load generator's counts. Raises BenchmarkError if there were none, or if many failed."""
    counts = load.result()
    if not counts[of] or counts["failures"] > counts[of] / 100:
        raise running.BenchmarkError(f"{counts[of]} {of}, {counts['failures']} failures")
    return counts


def handshakes(
    mode: str, version: str, port: str = "echo", clients: int = CLIENTS, seconds: float | None = None, **options: Any
) -> Measure:
    def measure(bench: Bench, server: running.Server | None) -> Metrics:
        assert server
        options_now = {"v": version, "c": bench.many(clients), "t": seconds or bench.seconds, **options}
        with bench.load(mode, server, port, **options_now) as load:
            counts = counted(load, "handshakes")
        return {
            "rate": counts["handshakes"] / counts["seconds"],
            "cpu_us": counts["server_cpu"] / counts["handshakes"] * 1e6,
            "p50_ms": counts["p50_ms"],
            "p99_ms": counts["p99_ms"],
            "resumed": counts["resumed"] / counts["handshakes"],
            "client": counts["own_cpu"],
        }

    return measure


def profile(measure: Measure) -> Measure:
    """The server's CPU time of a measure, and how much of it is spent in which part of the program."""

    def measured(bench: Bench, server: running.Server | None) -> Metrics:
        assert server
        with profiling.samples(server.pid, bench.client_core, bench.directory) as path:
            each = measure(bench, server)["cpu_us"]
        return {"cpu_us": each, **{part: each * share for part, share in profiling.shares(path).items()}}

    return measured


def bulk(mode: str) -> Measure:
    def measure(bench: Bench, server: running.Server | None) -> Metrics:
        assert server
        with bench.load(mode, server, mode, c=bench.many(4), t=bench.seconds, s=running.BLOCK) as load:
            counts = counted(load, "bytes")
        return {
            "MiB_s": counts["bytes"] / counts["seconds"] / 2**20,
            "cpu_ns": counts["server_cpu"] / counts["bytes"] * 1e9,
            "client": counts["own_cpu"],
        }

    return measure


def records(bench: Bench, server: running.Server | None) -> Metrics:
    """Each write of the client is a record. There is one client, so that the sockets' buffers are full when it counts:
    from then on it writes as much as the server reads.
    """
    assert server
    options = {"c": 1, "t": bench.seconds, "w": bench.seconds, "s": SMALL}
    with bench.load("upload", server, "upload", **options) as load:
        counts = counted(load, "bytes")
    return {
        "rate": counts["bytes"] / SMALL / counts["seconds"],
        "cpu_us": counts["server_cpu"] / counts["bytes"] * SMALL * 1e6,
        "client": counts["own_cpu"],
    }


def echo(bench: Bench, server: running.Server | None) -> Metrics:
    assert server
    with bench.load("echo", server, "echo", c=bench.many(CLIENTS), t=bench.seconds, s=SMALL) as load:
        counts = counted(load, "exchanges")
    return {
        "rate": counts["exchanges"] / counts["seconds"],
        "cpu_us": counts["server_cpu"] / counts["exchanges"] * 1e6,
        "p50_ms": counts["p50_ms"],
        "p99_ms": counts["p99_ms"],
        "client": counts["own_cpu"],
    }


def idle(together: int) -> Measure:
    """Measures the growth from few connections to many, because the first ones also load code and caches."""

    def measure(bench: Bench, server: running.Server | None) -> Metrics:
        assert server
        count = bench.many(IDLE)
        with bench.load("idle", server, "echo", c=bench.many(50), t=60) as few:
            all_there(few, bench.many(50))
            machine.settle(server.pid)
            before = machine.resident(server.pid)
            with bench.load("idle", server, "echo", c=count, b=together, t=60) as many:
                all_there(many, count)
                machine.settle(server.pid)
                return {"KiB": (machine.resident(server.pid) - before) / count}

    return measure


def all_there(load: running.Load, count: int) -> Metrics:
    counts = counted(load, "exchanges")
    if counts["exchanges"] != count:
        raise running.BenchmarkError(f"{counts['exchanges']} of {count} connections came about")
    return counts


def parked(bench: Bench, server: running.Server | None) -> Metrics:
    """Runs many handshakes that all wait in a callback at once, then as many whose callback does not wait."""
    assert server
    count = bench.many(PARKED)
    with bench.load("idle", server, "certificate 0", c=bench.many(20), t=30) as few:
        all_there(few, bench.many(20))
        before = machine.resident(server.pid)
        with bench.load("idle", server, "park", c=count, t=60) as load:
            most = wait_until_parked(server, count)
            while_parked = machine.resident(server.pid)
            server.ask("release")
            waiting = all_there(load, count)
            established = machine.resident(server.pid)
    machine.settle(server.pid)
    with bench.load("idle", server, "certificate 0", c=count, t=60) as load:
        not_waiting = all_there(load, count)
    return {
        "parked": most,
        "KiB_parked": (while_parked - before) / count,
        "KiB_established": (established - before) / count,
        "cpu_us": waiting["server_cpu"] / count * 1e6,
        "on_top_us": (waiting["server_cpu"] - not_waiting["server_cpu"]) / count * 1e6,
    }


def wait_until_parked(server: running.Server, count: int) -> int:
    """Waits until count handshakes wait, or their number stays the same. Returns the number."""
    parked, still = 0, 0
    while parked < count and still < 50:
        time.sleep(0.1)  # asking costs the server time
        now = server.ask("report")["now"]
        still = still + 1 if now == parked else 0
        parked = now
    return parked


def storm(bench: Bench, server: running.Server | None) -> Metrics:
    """Measures four connections that echo every 5 ms while 32 clients do full handshakes as fast as they can."""
    assert server
    calm_options = {"c": bench.many(4), "i": 0.005, "t": bench.seconds, "w": 0.4}
    with (
        bench.load("echo", server, "echo", **calm_options) as calm,
        bench.load("full", server, "echo", c=bench.many(CLIENTS), t=bench.seconds, w=0.4) as busy,
    ):
        shaken = counted(busy, "handshakes")
        echoed = counted(calm, "exchanges")
    return {
        "p50_ms": echoed["p50_ms"],
        "p99_ms": echoed["p99_ms"],
        "rate": shaken["handshakes"] / shaken["seconds"],
        "cpu_us": shaken["server_cpu"] / shaken["handshakes"] * 1e6,
        "client": shaken["own_cpu"],
    }


def probe(name: str, *words: str) -> Measure:
    return lambda bench, server: running.probe(name, bench.server_core, *words, "--seconds", str(bench.seconds))


# -- contestants -------------------------------------------------------------------------------------------------------


def contestant(bench: Bench, peer: Peer, measures: dict[str, Measure]) -> Contestant:
    absent = peer.absent()
    if absent:
        return Contestant(peer.name, measures, absent=absent)
    return Contestant(peer.name, measures, (*peer.command(bench.directory), *bench.arguments(), *peer.more))


def field_of(bench: Bench, measures: dict[str, Measure], *, talking: bool = True) -> list[Contestant]:
    """Returns the other servers. talking: only those that can do more than handshakes."""
    made = []
    for peer in PEERS:
        if bench.wants(peer.choice) and (peer.echoes or not talking):
            made.append(contestant(bench, peer, measures))
            if peer.choice == "lean":
                made += over_system(bench, made[-1])
    return made


def greentls(bench: Bench, name: str, measures: dict[str, Measure], *more: str, **options: Any) -> Contestant:
    return Contestant(name, measures, bench.python("greentls_ssl.py", *more, **options))


def greentlses(bench: Bench, name: str, measures: dict[str, Measure], *more: str) -> list[Contestant]:
    """greentls as it is; without its compiled pump and over the system's OpenSSL, if those are asked for."""
    plain = greentls(bench, name, measures, *more)
    pure = [with_variable(plain, "pure", "GREENTLS_PURE=1")] if bench.pure else []
    return [plain, *pure, *over_system(bench, plain)]


def over_system(bench: Bench, server: Contestant) -> list[Contestant]:
    """The same server over the system's OpenSSL, if that is asked for."""
    if not bench.system:
        return []
    absent = server.absent
    try:
        foundation.load(foundation.SYSTEM)
    except ConfigurationError as error:
        absent = str(error)
    return [replace(with_variable(server, "system", f"{foundation.VARIABLE}={foundation.SYSTEM}"), absent=absent)]


def with_variable(server: Contestant, name: str, variable: str) -> Contestant:
    """The same server with one more variable in its environment. name: what is appended to its own."""
    return replace(server, name=f"{server.name}, {name}", words=("env", variable, *server.words))


def strategy(name: str) -> str:
    """Returns "", or the reason why SSLContext.strategy has no such value."""
    import ssl

    from greentls import SSLContext

    missing = "this greentls has no such SSLContext.strategy"
    if not hasattr(SSLContext(ssl.PROTOCOL_TLS_SERVER), "strategy"):
        return "" if name == "coroutine" else missing
    try:
        SSLContext(ssl.PROTOCOL_TLS_SERVER).strategy = name
    except ValueError:
        return missing
    return ""


def way(bench: Bench, name: str, measures: dict[str, Measure], milliseconds: Iterable[int] = (0,)) -> Contestant:
    """Returns a server with slow lookups."""
    numbers = ",".join(map(str, milliseconds))
    if name in ("suspend", "replay"):
        return Contestant(name, measures, bench.python("raw_ways.py", "--way", name, "--milliseconds", numbers))
    absent = "" if name == "blocking" else strategy(name)
    words = bench.python("ways.py", "--way", name, "--milliseconds", numbers)
    return Contestant(name, measures, words, absent=absent)


# -- suites ------------------------------------------------------------------------------------------------------------


def handshake(bench: Bench) -> Sequence[Contestant]:
    measures = {f"{mode}, TLS {version}": handshakes(mode, version) for version, mode in VERSIONS_AND_MODES}
    secret = f"?secret_file={bench.secret}"
    without = "" if bench.memcached else "there is no memcached: apt-get install memcached"
    stored = [Contestant("greentls, memcached", measures, absent=without)]
    if not without:
        store = f"memcached://{bench.memcached}{secret}"
        stored = greentlses(bench, "greentls, memcached", measures, "--store", store)
    made = [
        *greentlses(bench, "greentls, tickets", measures),
        *greentlses(bench, "greentls, memory", measures, "--store", "memory://"),
        *stored,
    ]
    for each in field_of(bench, measures, talking=False):
        made.append(each)
        if each.name == "Node":
            more = () if without or each.absent else (*each.words, "memcached", bench.memcached)
            made.append(Contestant("Node, memcached", measures, more, absent=each.absent or without))
        if each.name.startswith("lean pump"):
            resumed = {work: measure for work, measure in measures.items() if "resumed" in work}
            name = each.name.replace("pump", "pump, memory")
            made.append(replace(each, name=name, measures=resumed, words=(*each.words, "--store")))
    return made


def profiles(bench: Bench) -> Sequence[Contestant]:
    """The contestants of handshake() whose parts are comparable."""
    without = profiling.absent()
    near = ("greentls", "gevent.ssl, TCP_NODELAY", "lean pump", "C")
    made = [each for each in handshake(bench) if each.name.split(", m")[0].split(", t")[0] in near]
    return [
        replace(each, absent=each.absent or without, measures={work: profile(m) for work, m in each.measures.items()})
        for each in made
    ]


def lookup(bench: Bench) -> Sequence[Contestant]:
    longest = MILLISECONDS[-1]
    works = {f"session, {each} ms": (each, "1.3") for each in MILLISECONDS}  # how long it takes, TLS
    works[f"session, {longest} ms, TLS 1.2"] = (longest, "1.2")

    def asked(milliseconds: int, version: str) -> Measure:
        port = f"session {milliseconds}"
        return handshakes("resumed", version, port, WAITING_CLIENTS, w=min(0.08, bench.seconds))

    def blocked(milliseconds: int, version: str) -> Measure:
        """There are few clients, because each turn of the loop serves all, and a measurement needs several turns.

        The rate does not depend on their number. The time that a client waits does, so it is left out.
        """
        seconds = max(bench.seconds, 30e-3 * milliseconds)
        one = handshakes("resumed", version, f"session {milliseconds}", BLOCKED_CLIENTS, seconds)
        return lambda bench, server: one(bench, server) | {"p50_ms": None, "p99_ms": None}

    measures = {work: asked(*question) for work, question in works.items()}
    made = [way(bench, "blocking", {work: blocked(*each) for work, each in works.items()}, MILLISECONDS)]
    made += [way(bench, name, measures, MILLISECONDS) for name in WAYS]
    node = next(peer for peer in PEERS if peer.name == "Node")
    if bench.wants(node.choice):
        slow = node._replace(name="Node, resumeSession", more=["lookup", str(longest)])
        older = f"session, {longest} ms, TLS 1.2"
        made.append(contestant(bench, slow, {older: measures[older]}))
    return made


def under_asyncio(bench: Bench) -> Sequence[Contestant]:
    """The TLS of both event loops and greentls.aio in them, and slow lookups. A blocked loop does one at a time."""
    longest = MILLISECONDS[-1]
    talk: dict[str, Measure] = {
        **{f"{mode}, TLS {version}": handshakes(mode, version) for version, mode in VERSIONS_AND_MODES},
        "echo": echo,
        "upload": bulk("upload"),
        "download": bulk("download"),
    }

    def lookups(clients: int, seconds: float) -> dict[str, Measure]:
        return {
            f"session, {longest} ms, TLS {version}": handshakes(
                "resumed", version, f"session {longest}", clients, seconds, w=min(0.08, bench.seconds)
            )
            for version in ("1.3", "1.2")
        }

    slow = ("--milliseconds", str(longest))
    made = [contestant(bench, peer, talk) for peer in PEERS if "asyncio" in peer.name or "uvloop" in peer.name]
    blocked = lookups(BLOCKED_CLIENTS, max(bench.seconds, 30e-3 * longest))
    made.append(Contestant("blocking", blocked, bench.python("greentls_aio.py", "--blocking", *slow)))
    for loop, options in (("asyncio", ()), ("uvloop", ("--uvloop",))):
        words = bench.python("greentls_aio.py", *options, *slow)
        made.append(Contestant(f"coroutine, {loop}", lookups(WAITING_CLIENTS, bench.seconds), words))
    return made


def hooks(bench: Bench) -> Sequence[Contestant]:
    longest = MILLISECONDS[-1]
    measures = {
        f"TLS {version}": handshakes("full", version, f"three {longest}", FEW_CLIENTS, a=True, o=True)
        for version in ("1.3", "1.2")
    }
    return [way(bench, name, measures, (longest,)) for name in ("coroutine", "thread", "prefetch")]


def bulk_data(bench: Bench) -> Sequence[Contestant]:
    measures = {mode: bulk(mode) for mode in ("upload", "download")}
    ciphers = Contestant("AES-256-GCM", {"AES-256-GCM alone": probe("aes.py")})
    return [*greentlses(bench, "greentls", measures), *talkers(bench, measures), ciphers]


def talkers(bench: Bench, measures: dict[str, Measure]) -> list[Contestant]:
    """On established connections, TCP_NODELAY makes no difference, because each write is one flight."""
    return [each for each in field_of(bench, measures) if each.name != "gevent.ssl"]


def echoes(bench: Bench) -> Sequence[Contestant]:
    measures: dict[str, Measure] = {"64 bytes": echo}
    return [*greentlses(bench, "greentls", measures), *talkers(bench, measures)]


def small_records(bench: Bench) -> Sequence[Contestant]:
    measures: dict[str, Measure] = {"64 bytes": records}
    return [*greentlses(bench, "greentls", measures), *talkers(bench, measures)]


def idle_connections(bench: Bench, work: str = "idle", together: int = IDLE) -> Sequence[Contestant]:
    measures: dict[str, Measure] = {work: idle(together)}
    without = ("threads", "eventlet", "asyncio", "greentls.aio, asyncio", "lean pump", "lean pump, system")
    few = [each for each in talkers(bench, measures) if each.name not in without]
    bare = Contestant("memory BIOs", measures, bench.python("memory_bios.py"))
    return [*greentlses(bench, "greentls", measures), bare, *over_system(bench, bare), *few]


def trickle(bench: Bench) -> Sequence[Contestant]:
    return idle_connections(bench, "64 at a time", 64)


def suspended(bench: Bench) -> Sequence[Contestant]:
    return [way(bench, name, {"parked": parked}) for name in WAYS]


def keys(bench: Bench) -> Sequence[Contestant]:
    """An RSA key in several places, and a signer that is away, for a server that waits for it and one that blocks."""
    made = []
    for name, everywhere, *more in (
        ("coroutine", False),
        ("thread", False, "--strategy", "thread"),
        ("thread, all cores", True, "--strategy", "thread"),
        ("key process", False, "--key-core", str(max(bench.client_core))),
    ):
        words = bench.python("greentls_ssl.py", *more, kind="rsa")
        made.append(Contestant(name, {"storm, RSA-2048": storm}, words, everywhere))
    if bench.wants("gevent.ssl"):
        words = bench.python("gevent_ssl.py", "--nodelay", kind="rsa")
        made.append(Contestant("gevent.ssl", {"storm, RSA-2048": storm}, words))
    for name, strategy, clients in (("waits", "coroutine", WAITING_CLIENTS), ("blocks", "blocking", BLOCKED_CLIENTS)):
        measures = {f"signer {each} ms away": signatures(each, clients) for each in MILLISECONDS}
        made.append(replace(way(bench, strategy, measures, MILLISECONDS), name=name))
    return made


def signatures(milliseconds: int, clients: int) -> Measure:
    """Several turns of a loop that each client blocks, as in lookup()."""

    def measure(bench: Bench, server: running.Server | None) -> Metrics:
        seconds = max(bench.seconds, 30e-3 * milliseconds)
        one = handshakes("full", "1.3", f"signature {milliseconds}", clients, seconds, w=min(0.08, bench.seconds))
        return {name: value for name, value in one(bench, server).items() if name in ("rate", "cpu_us", "client")}

    return measure


def bridge(bench: Bench) -> Sequence[Contestant]:
    return [Contestant("bridge", {"in memory": probe("bridge.py")})]


def prereading(bench: Bench) -> Sequence[Contestant]:
    return [
        greentls(bench, name, {work: handshakes("full", "1.3", port, 64)}, "--hello", kind=kind)
        for kind, work in (("ec", "P-256"), ("rsa", "RSA-2048"))
        for name, port in (("plain", "echo"), ("pre-reading", "reading"))
    ]


def parser(bench: Bench) -> Sequence[Contestant]:
    return [
        Contestant(
            "parser",
            {
                "a ClientHello of Chromium's": probe("parser.py"),
                "linear time": probe("parser.py", "--curves"),
            },
        )
    ]


@dataclass(frozen=True)
class Suite:
    """seconds: the default length of a measurement. metrics: the columns of its tables; the first one is drawn."""

    what: str
    contestants: Callable[[Bench], Sequence[Contestant]]
    seconds: float
    metrics: tuple[str, ...]


SUITES = {
    "handshake": Suite(
        "full and resumed handshakes, TLS 1.3 and 1.2, with tickets and with sessions in memory or in memcached",
        handshake,
        0.7,
        ("cpu_us", "rate", "p99_ms"),
    ),
    "profile": Suite(
        "the parts of a handshake's CPU time: the interpreter, OpenSSL, the kernel; needs perf",
        profiles,
        1.5,
        ("cpu_us", "python_us", "extensions_us", "openssl_us", "kernel_us", "rest_us"),
    ),
    "lookup": Suite(
        "200 clients whose session lookups take 0, 1, 5, 20 ms, under each way to wait",
        lookup,
        0.18,
        ("rate", "p50_ms", "p99_ms", "cpu_us"),
    ),
    "asyncio": Suite(
        "under asyncio and uvloop: handshakes, echo, bulk; and 200 clients whose session lookups take 20 ms",
        under_asyncio,
        0.4,
        ("cpu_us", "cpu_ns", "rate", "p50_ms"),
    ),
    "hooks": Suite(
        "three lookups in one handshake: their sum or the longest",
        hooks,
        0.75,
        ("p50_ms", "p99_ms", "rate", "cpu_us"),
    ),
    "bulk": Suite("uploads and downloads, 64 KiB a write", bulk_data, 1.0, ("cpu_ns", "MiB_s", "GB_s")),
    "echo": Suite(
        "echoes of 64 bytes on connections that stay open", echoes, 0.7, ("cpu_us", "rate", "p50_ms", "p99_ms")
    ),
    "records": Suite("uploads, 64 bytes a write", small_records, 1.5, ("cpu_us", "rate")),
    "idle": Suite("memory of each of 5,000 idle connections that came at once", idle_connections, 0.0, ("KiB",)),
    "trickle": Suite("the same, when at most 64 of them are in their handshake at once", trickle, 0.0, ("KiB",)),
    "suspended": Suite(
        "memory and CPU time of 1,000 handshakes that wait in a callback at once",
        suspended,
        0.0,
        ("KiB_parked", "KiB_established", "cpu_us", "on_top_us", "parked"),
    ),
    "keys": Suite(
        "how long others wait during many RSA handshakes, by the key's place; signers 0, 1, 5, 20 ms away",
        keys,
        1.0,
        ("p99_ms", "p50_ms", "rate", "cpu_us"),
    ),
    "bridge": Suite(
        "how much more CPU time a callback that waits takes", bridge, 3.0, ("us", "on_top_us", "inside_us")
    ),
    "prereading": Suite("CPU time of reading the ClientHello before OpenSSL does", prereading, 1.0, ("cpu_us", "rate")),
    "parser": Suite(
        "parsing ClientHellos with greentls.wire and four other parsers", parser, 1.5, ("us", "exponent", "ns_byte")
    ),
}
