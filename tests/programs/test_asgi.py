"""uvicorn and hypercorn over greentls.aio: HTTP and WebSocket, sessions in memcached, certificates in SQLite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
import subprocess
import sys

import pytest

from tests.cli.clients import Balancer, documents, handshakes, run, s_client
from tests.programs.processes import clean_environment
from tests.support.helpers import PATIENCE, ROOT, free_port

SERVERS = ("uvicorn", "uvicorn-uvloop", "hypercorn")
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n"


@pytest.fixture(scope="module")
def serve(start, pki):
    """serve(server, ...): the port of one that has begun to listen."""

    def serve(server, *options):
        port = free_port()
        pair = pki.cert_file, pki.key_file
        command = sys.executable, "-m", "tests.programs.asgi", server, port, *pair, *options
        start(*command, cwd=ROOT).wait_for_port(port)
        return port

    return serve


@pytest.fixture(scope="module", params=SERVERS)
def server(request, serve):
    return request.param, serve(request.param)


def curl(port, ca_file, *options):
    command = ["curl", "-sS", "--cacert", ca_file, "--max-time", str(PATIENCE), *options, f"https://localhost:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    assert (done.stderr, done.returncode) == ("", 0)
    return json.loads(done.stdout)


def test_http_1(server, pki):
    _, port = server
    found = curl(port, pki.ca_file, "--http1.1", "--data", "x" * 100_000)
    assert (found["http"], found["scheme"], found["sent"]) == ("1.1", "https", 100_000)
    assert (found["version"], found["alpn"]) == ("TLSv1.3", "http/1.1")


def test_http_2(server, pki):
    name, port = server
    found = curl(port, pki.ca_file, "--http2", "--data", "x" * 100_000)
    assert (found["http"], found["alpn"]) == (("2", "h2") if name == "hypercorn" else ("1.1", "http/1.1"))
    assert found["sent"] == 100_000


def test_websocket(server, pki):
    from websockets.asyncio.client import connect

    async def messages():
        sent = [f"{number} ".encode() * 10_000 for number in range(20)]
        trusting = ssl.create_default_context(cafile=pki.ca_file)
        async with connect(f"wss://localhost:{server[1]}/", ssl=trusting, proxy=None) as connection:
            for each in sent:
                await connection.send(each)
            return sent, [await connection.recv() for _ in sent]

    sent, received = asyncio.run(asyncio.wait_for(messages(), PATIENCE))
    assert received == sent


@pytest.fixture
def two(serve, memcached, tmp_path):
    """The ports of two servers that share their sessions."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_bytes(bytes(range(32)))
    store = memcached.url(secret_file=secret)
    return [serve("uvicorn", "--store", store) for _ in range(2)]


@pytest.fixture(params=["1.2", "1.3"])
def kept(request, memcached):
    """The version of TLS, and what waits until the sessions of a full handshake of it are in memcached."""
    wanted = {"1.2": 1, "1.3": 2}[request.param]

    def kept(*_):
        memcached.wait_for(wanted)

    return request.param, kept


def assert_resumed_elsewhere(output, version):
    first, second = documents(output)
    assert first["pid"] != second["pid"]
    assert first["version"] == second["version"] == f"TLSv{version}"
    assert (first["resumption"], first["lookup"]) == ("full", None)
    assert (second["resumption"], second["lookup"]) == ("session_id" if version == "1.2" else "stateful", "hit")


def test_curl_resumes_in_another_process(two, kept, pki):
    version, wait = kept
    with Balancer(*two, wait) as balancer:
        url = f"https://localhost:{balancer.port}/"
        options = [f"--tlsv{version}", "--tls-max", version, "-H", "Connection: close"]
        output = run("curl", "-sS", "--cacert", pki.ca_file, *options, url, url)
    assert_resumed_elsewhere(output, version)


def test_s_client_resumes_in_another_process(two, kept, pki, tmp_path):
    version, wait = kept
    session, option = tmp_path / "session.pem", "-tls" + version.replace(".", "_")
    request = GET % b"Connection: close\r\n"
    first = s_client(two[0], pki.ca_file, option, "-sess_out", session, request=request)
    wait()
    second = s_client(two[1], pki.ca_file, option, "-sess_in", session, request=request)
    assert (handshakes(first), handshakes(second)) == (["New"], ["Reused"])
    assert_resumed_elsewhere(first + second, version)


class Connection:
    """A client of the standard library's, in asyncio."""

    def __init__(self, port, context, name):
        self._where = {"host": "127.0.0.1", "port": port, "ssl": context, "server_hostname": name}

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection(**self._where)
        return self

    async def __aexit__(self, *_):
        self._writer.close()
        await self._writer.wait_closed()

    async def get(self):
        self._writer.write(GET % b"")
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return json.loads(await self._reader.readexactly(int(length.partition(b":")[2])))

    def names(self):
        return [value for kind, value in self._writer.get_extra_info("peercert")["subjectAltName"] if kind == "DNS"]


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_handshakes_wait_for_a_database_and_other_connections_run(name, version, serve, pki, tmp_path):
    """The database is locked, so that each lookup waits. A connection that exists tells how many do."""
    path = tmp_path / "certificates.sqlite"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE certificates (name, certificate, key)")
    names = "localhost", "one.test", "two.test"
    database.executemany("INSERT INTO certificates VALUES (?, ?, ?)", [(name, *pki.issue(name)) for name in names])
    port = serve(name, "--database", str(path))
    context = ssl.create_default_context(cafile=pki.ca_file)
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    customers = names[1:] * 10

    async def visit(customer):
        async with Connection(port, context, customer) as connection:
            await connection.get()
            return connection.names()

    async def main():
        async with Connection(port, context, "localhost") as existing:
            await existing.get()
            database.execute("BEGIN EXCLUSIVE")
            visits = [asyncio.create_task(visit(customer)) for customer in customers]
            while (found := await existing.get())["waiting"]["now"] < len(customers):
                assert not any(visit.done() for visit in visits)
            database.execute("COMMIT")
            assert await asyncio.gather(*visits) == [[customer] for customer in customers]
            return found["waiting"], (await existing.get())["waiting"]

    during, after = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    database.close()
    assert (during, after["now"]) == ({"now": 20, "most": 20}, 0)
