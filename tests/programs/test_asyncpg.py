"""asyncpg against a PostgreSQL that wants TLS, over greentls.aio; and handshakes that wait for it."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import greentls.ssl
from greentls import aio
from tests.aio.streams import connected, serving
from tests.programs.processes import NOBODY, directory_for_nobody
from tests.support.helpers import PATIENCE, free_port
from tests.support.hubs import in_loop

CUSTOMERS = 20

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "ssl": "on",
    "max_connections": 2 * CUSTOMERS,
}


@pytest.fixture(scope="module")
def port(start, pki):
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, "the tests run a real PostgreSQL, which is not here: make tools"
    port = free_port()
    with directory_for_nobody(pki.cert_file, pki.key_file) as (directory, certificate, key):
        data = directory / "data"
        command = [found[-1], "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync", "--no-locale"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, cwd=directory, **NOBODY)
        assert done.returncode == 0, done.stdout + done.stderr
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        settings = {**SETTINGS, "port": port, "ssl_cert_file": certificate, "ssl_key_file": key}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = start(found[-1].with_name("postgres"), "-D", data, *options, cwd=directory, **NOBODY)
        postgres.wait_for_port(port)
        yield port
        postgres.stop()


@asynccontextmanager
async def database(port, context):
    """A pool of connections, once the server accepts them."""
    import asyncpg

    where = {"host": "localhost", "port": port, "user": "postgres", "database": "postgres", "ssl": context}
    while True:
        try:
            pool = await asyncpg.create_pool(**where, min_size=1, max_size=CUSTOMERS + 2)
            break
        except asyncpg.CannotConnectNowError:  # it listens before it is ready
            await asyncio.sleep(0.01)
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture(params=[aio.new_event_loop, aio.new_uvloop], ids=["asyncio", "uvloop"])
def run(request):
    return partial(in_loop, request.param)


def test_asyncpg(run, port, pki):
    context = greentls.ssl.create_default_context(cafile=pki.ca_file)
    asked = []

    async def verify(sock, chain, resumed):
        await asyncio.sleep(0)
        asked.append(resumed)

    context.verify_callback = verify

    async def main():
        async with database(port, context) as pool, pool.acquire() as connection:
            tls = connection._transport.get_extra_info("ssl_object")
            row = await connection.fetchrow("SELECT * FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            value = await connection.fetchval("SELECT repeat('0123456789abcdef', 20000)")
            with pytest.raises(asyncio.TimeoutError):  # asyncpg cancels in the server, by a connection of its own
                await connection.execute("SELECT pg_sleep(600)", timeout=0.05)
            assert await connection.fetchval("SELECT 7") == 7
            return tls, row, len(value)

    tls, row, length = run(main())
    assert (type(tls), row["version"], row["cipher"]) == (aio.SSLObject, tls.version(), tls.cipher()[0])
    assert length == 320_000
    assert asked.count(False) == len(asked) >= 1


def test_asyncpg_verifies(run, port, strange_pki):
    import ssl

    async def main():
        async with database(port, greentls.ssl.create_default_context(cafile=strange_pki.ca_file)):
            raise AssertionError("it took a certificate of a strange CA")

    with pytest.raises(ssl.SSLCertVerificationError):
        run(main())


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_handshakes_wait_for_it_and_other_connections_run(run, port, pki, version):
    """The table is locked, so that each lookup waits. PostgreSQL counts those that do; a connection goes on."""
    trusting = greentls.ssl.create_default_context(cafile=pki.ca_file)
    trusting.maximum_version = getattr(greentls.ssl.TLSVersion, version)
    names = ["one.test", "two.test"]
    customers = names * (CUSTOMERS // 2)
    server = greentls.ssl.SSLContext(greentls.ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.cert_file, pki.key_file)
    server.callback_timeout = server.handshake_timeout = PATIENCE

    async def visit(customer, where):
        async with connected(where, trusting, server_hostname=customer) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            return [value for _, value in writer.get_extra_info("peercert")["subjectAltName"]]

    async def main():
        async with database(port, greentls.ssl.create_default_context(cafile=pki.ca_file)) as pool:

            async def choose(sock, name, context):
                pair = await pool.fetchrow("SELECT certificate, key FROM certificates WHERE name = $1", name)
                if pair is not None:
                    chosen = greentls.ssl.SSLContext(greentls.ssl.PROTOCOL_TLS_SERVER)
                    chosen.load_cert_chain(*pair)
                    sock.context = chosen

            server.sni_callback = choose
            await pool.execute("DROP TABLE IF EXISTS certificates")
            await pool.execute("CREATE TABLE certificates (name text, certificate text, key text)")
            rows = [(name, *pki.issue(name)) for name in names]
            await pool.executemany("INSERT INTO certificates VALUES ($1, $2, $3)", rows)
            async with serving(server) as where, connected(where, trusting) as (reader, writer):
                async with pool.acquire() as owner, owner.transaction():
                    await owner.execute("LOCK TABLE certificates IN ACCESS EXCLUSIVE MODE")
                    visits = [asyncio.create_task(visit(each, where)) for each in customers]
                    waiting = 0
                    while waiting < CUSTOMERS:
                        waiting = await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
                        writer.write(b"meanwhile")
                        assert await reader.readexactly(9) == b"meanwhile"
                    assert not any(visit.done() for visit in visits)
                assert await asyncio.gather(*visits) == [[each] for each in customers]
                return waiting

    assert run(main()) == CUSTOMERS
