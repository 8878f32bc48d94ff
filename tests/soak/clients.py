"""The soak with ordinary clients: wget, curl, ab, h2load, wrk, openssl and Chromium, each in turn, against each kind of
server; run by test_clients.py, and by `make soak` for longer.

    python -m tests.soak.clients --seconds 600 --server pywsgi --client wget

Every request must be answered, every client must end well, no server may end, say anything on standard error, or keep
descriptors or memory. Prints what it counted as JSON; exit status 1 and a sentence for each thing that must not be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.servers import ANSWER
from tests.support.helpers import PATIENCE, ROOT, Pki, free_port, interrupted, tethered, wait_until

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
AT_ONCE = 8  # connections, of the clients that keep several
MOST_GROWTH = 16.0  # MiB from round to round: allocators' whims, and caches that fill
FEW = 4  # descriptors that a server may open for itself after it has begun
LEAST, MOST = 100, 1000  # connections of each client in a round, unless their number is given
SECONDS_FOR_LEAST = 7.0  # a round of LEAST connections takes about as long


class Wrong(Exception):
    """Something that must not be, as a sentence."""


def ending(status: int) -> str:
    """How a program ended, from its exit status as subprocess has it."""
    return f"exit status {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"


# -- servers -----------------------------------------------------------------------------------------------------------

GUNICORN = """
worker_class = "gevent"
bind = "127.0.0.1:{port}"
certfile, keyfile = {pair!r}
control_socket_disable = True
loglevel = "warning"
graceful_timeout = 1  # nothing is under way when it is ended
timeout = keepalive = 300

def ssl_context(conf, default_ssl_context_factory):
    from tests.soak.servers import context
    return context(conf.certfile, conf.keyfile)
"""

BROKEN_OFF = re.compile(
    r"Traceback (?:(?!failed with|Exception ignored).)*"
    r"failed with (?:SSLEOFError|ConnectionResetError|BrokenPipeError)\n+"
    r"|[^\n]*(?:EOF occurred|Connection reset by peer|Broken pipe|Transport endpoint is not connected"
    r"|Closed before TLS handshake)[^\n]*\n+",
    re.DOTALL,
)


class Server:
    """One of SERVERS, while it listens: a context manager."""

    def __init__(self, name: str, pki: Pki, directory: Path) -> None:
        self.name = name
        self.port = free_port()
        if name == "gunicorn":
            config = directory / "gunicorn.conf.py"
            config.write_text(GUNICORN.format(port=self.port, pair=(pki.cert_file, pki.key_file)))
            command = f"-m gunicorn -c {config} tests.soak.servers:application"
        elif name == "greentls serve":
            command = f"-m greentls serve --bind 127.0.0.1:{self.port} --app tests.soak.servers:application"
            command += f" --cert {pki.cert_file} --key {pki.key_file}"
        else:
            command = f"-m tests.soak.servers {name} {self.port} {pki.cert_file} {pki.key_file}"
        self._said = directory / f"{name}.err"
        self.processes: set[int] = set()
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                tethered(sys.executable, "-W", "error", "-X", "faulthandler", *command.split()),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def __enter__(self) -> Server:
        try:
            wait_until(self.answers, f"{self.name} to listen")
        except BaseException:
            self.close()
            raise
        self.processes = self._all_processes()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def answers(self) -> bool:
        self.check()
        command = ["curl", "-q", "--silent", "--insecure", f"https://127.0.0.1:{self.port}/"]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

    def _all_processes(self) -> set[int]:
        """It and its workers."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {pid, *map(int, children)}

    def check(self) -> None:
        """Raises Wrong if it, or a worker of it, has ended, or has said anything but that a handshake was broken off.

        wrk looks first, by a connection that it closes at once, whether anybody listens; and a browser that ends
        resets the connections that it has made in advance.
        """
        # In this order: whoever ends has said why before.
        status = self._process.poll()
        whole = status is None and (not self.processes or self._all_processes() == self.processes)
        if status is None and not whole:  # but gunicorn says it once it has reaped it
            with contextlib.suppress(AssertionError):
                wait_until(self._said.read_text, "it to say why")
        text = self._said.read_text()
        said, before = BROKEN_OFF.sub("", text), None
        while said and said != before:  # it may be in the middle of saying it
            time.sleep(2)
            text = self._said.read_text()
            said, before = BROKEN_OFF.sub("", text), said
        if status is not None:
            raise Wrong(f"{self.name}: {ending(status)}\n{text}")
        if said:
            raise Wrong(f"{self.name}: said on standard error\n{said}")
        if not whole:
            raise Wrong(f"{self.name}: a worker has ended")

    @property
    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes)

    @property
    def memory(self) -> float:
        """MiB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes)
        return pages * resource.getpagesize() / 2**20

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
                self._process.wait()


SERVERS = ("pywsgi", "stream", "gunicorn", "greentls serve")

# -- clients: each makes about `count` connections, and returns how many requests were answered, and how many it made --


class Errand:
    def __init__(self, server: Server, pki: Pki, directory: Path, count: int) -> None:
        self.port, self.ca_file, self.directory, self.count = server.port, pki.ca_file, directory, count
        self.url = f"https://127.0.0.1:{self.port}/"

    def run(self, *command: object, stdin: bytes = b"", **environment: str) -> str:
        """What the program prints; Wrong if it does not end well."""
        done = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            capture_output=True,
            timeout=300,
            env={**os.environ, **environment},
        )
        if done.returncode:
            raise Wrong(f"{command[0]}: {ending(done.returncode)}\n{done.stdout[-500:]!r}\n{done.stderr[-500:]!r}")
        return done.stdout.decode()


def answers(text: str) -> int:
    return text.count(ANSWER.decode())


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if not found:
        raise Wrong(f"{pattern} is not in what it says:\n{text}")
    return int(found[1])


def wget(errand: Errand) -> tuple[int, int]:
    """A program for each connection. It keeps the connection, and leaves it without close_notify."""
    count = errand.count // 2
    options = f"--quiet --no-config --no-hsts --no-proxy --ca-certificate={errand.ca_file} -O - {errand.url}"
    return sum(answers(errand.run("wget", *options.split())) for _ in range(count)), count


def curl(errand: Errand) -> tuple[int, int]:
    options = f"-q --silent --show-error --fail --cacert {errand.ca_file} --parallel --parallel-max {AT_ONCE}"
    return answers(errand.run("curl", *options.split(), f"{errand.url}close?[1-{errand.count}]")), errand.count


def ab(errand: Errand, version: str = "TLS1.3") -> tuple[int, int]:
    told = errand.run("ab", "-q", "-f", version, "-n", errand.count, "-c", AT_ONCE, errand.url)
    if "Non-2xx" in told or number(r"Failed requests: +(\d+)", told):
        raise Wrong(told)
    return number(r"Complete requests: +(\d+)", told), errand.count


def ab_tls12(errand: Errand) -> tuple[int, int]:
    return ab(errand, "TLS1.2")


def h2load(errand: Errand) -> tuple[int, int]:
    """All connections at once, two requests in each."""
    told = errand.run("h2load", "--h1", "-n", 2 * errand.count, "-c", errand.count, errand.url)
    number(r"requests: .* (0) failed, 0 errored, 0 timeout", told)
    return number(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", told), 2 * errand.count


WRK = """
local answered, idle = 0, 0
function response(status)
  if status ~= 200 then error("status " .. status) end
  answered = answered + 1
end
function delay()  -- milliseconds until a connection, which has just been made, asks
  if answered < %d then return 0 end
  idle = idle + 1
  if idle == %d then io.stderr:write("idle\\n") end
  return 60000
end
"""


def wrk(errand: Errand) -> tuple[int, int]:
    """It is ended when every connection is idle, so none in the middle of a handshake."""
    script = errand.directory / "wrk.lua"
    script.write_text(WRK % (errand.count, AT_ONCE))
    options = f"-t 1 -c {AT_ONCE} -d 300s --timeout 300s -s {script} {errand.url}close".split()
    with subprocess.Popen(
        tethered("wrk", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = process.stderr.readline()
        wait_until(lambda: interrupted(process), "wrk to end")
        told = process.stdout.read()
    if process.returncode or said != "idle\n" or "Socket errors" in told or "Non-2xx" in told:
        raise Wrong(f"wrk: {ending(process.returncode)}\n{said}\n{told}")
    return number(r"(\d+) requests in", told), errand.count


def s_client(errand: Errand) -> tuple[int, int]:
    """A program for each connection, under each version in turn."""
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{errand.port}", "-CAfile", errand.ca_file, "-quiet")
    count = errand.count // 10
    told = (
        errand.run(*command, "-verify_return_error", ("-tls1_2", "-tls1_3")[each % 2], "-ign_eof", stdin=REQUEST)
        for each in range(count)
    )
    return sum(map(answers, told)), count


def s_time(errand: Errand) -> tuple[int, int]:
    """As many resumed connections as it makes in a second."""
    options = f"-connect 127.0.0.1:{errand.port} -CAfile {errand.ca_file} -verify 3 -www / -reuse -time 1"
    made = number(r"(\d+) connections in \d+ real seconds", errand.run("openssl", "s_time", *options.split()))
    return made, max(made, 1)


def chromium(errand: Errand) -> tuple[int, int]:
    """Its page's script asks, each time in another connection."""
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync --ignore-certificate-errors --dump-dom"
    )
    with tempfile.TemporaryDirectory(dir=errand.directory, ignore_cleanup_errors=True) as home:
        told = errand.run(
            *("chromium", *options.split(), f"--user-data-dir={home}", f"{errand.url}page?{errand.count}"), HOME=home
        )
    return number(r"<p id=.told.>(\d+) answered", told), errand.count


CLIENTS: dict[str, Callable[[Errand], tuple[int, int]]] = {
    "wget": wget,
    "curl": curl,
    "ab": ab,
    "ab, TLS 1.2": ab_tls12,
    "h2load": h2load,
    "wrk": wrk,
    "openssl s_client": s_client,
    "openssl s_time": s_time,
    "chromium": chromium,
}


def soak(server: Server, clients: list[str], errand: Errand, seconds: float) -> dict[str, int]:
    """Runs two rounds of all clients, and more until the time is over. Returns how many requests of each client were
    answered."""
    counts = dict.fromkeys(clients, 0)
    memory: list[float] = []
    started, descriptors = time.monotonic(), server.descriptors
    while len(memory) < 2 or time.monotonic() - started < seconds:
        for name in clients:
            if len(memory) >= 2 and time.monotonic() - started >= seconds:
                break
            try:
                answered, asked = CLIENTS[name](errand)
            except Wrong:
                server.check()  # says more, if it is the server
                raise
            server.check()
            if answered < asked:
                raise Wrong(f"{name}: {answered} of {asked} requests were answered")
            counts[name] += answered
            wait_until(lambda: server.descriptors <= descriptors + FEW, f"descriptors to be closed after {name}")
        memory.append(server.memory)
    if (growth := memory[-1] - memory[(len(memory) - 1) // 2]) > MOST_GROWTH:
        raise Wrong(f"{server.name}: memory grew by {growth:.0f} MiB")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.0, help="in all; 0: two rounds for each server")
    parser.add_argument(
        "--connections", type=int, help="of each client in each round; default: so many that two rounds fit in the time"
    )
    parser.add_argument("--server", choices=SERVERS, action="append")
    parser.add_argument("--client", choices=CLIENTS, action="append")
    options = parser.parse_args()
    report: dict[str, dict[str, int]] = {}
    wrong = []
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        pki = Pki(here)
        servers = options.server or SERVERS
        seconds = options.seconds / len(servers)
        count = options.connections or min(max(LEAST, int(LEAST * seconds / 2 / SECONDS_FOR_LEAST)), MOST)
        for name in servers:
            try:
                with Server(name, pki, here) as server:
                    errand = Errand(server, pki, here, count)
                    report[name] = soak(server, options.client or list(CLIENTS), errand, seconds)
            except (Wrong, AssertionError) as error:
                wrong.append(str(error))
    print(json.dumps(report))
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
