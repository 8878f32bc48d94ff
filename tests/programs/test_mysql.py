"""pymysql against a MariaDB that wants TLS: it makes its own context, or is given one."""

from __future__ import annotations

import subprocess

import pytest

from tests.programs.processes import NOBODY, directory_for_nobody
from tests.programs.program import facts
from tests.support.helpers import PATIENCE, free_port


@pytest.fixture(scope="module")
def port(start, pki):
    port = free_port()
    with directory_for_nobody(pki.cert_file, pki.key_file) as (directory, certificate, key):
        data = directory / "data"
        settings = ["--no-defaults", f"--datadir={data}", "--innodb-log-file-size=8M"]
        install = ["mariadb-install-db", *settings, "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run(install, capture_output=True, text=True, timeout=2 * PATIENCE, **NOBODY)
        assert done.returncode == 0, done.stdout + done.stderr
        mariadb = start(
            "/usr/sbin/mariadbd",
            *settings,
            f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--ssl-cert={certificate}",
            f"--ssl-key={key}",
            "--require-secure-transport=ON",
            **NOBODY,
        )
        mariadb.wait_for_port(port)
        yield port
        mariadb.stop()


def select(port, **options):
    import pymysql

    with pymysql.connect(host="localhost", port=port, user="root", **options) as connection:
        found = facts(connection._sock)
        with connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            cipher = cursor.fetchone()[1]
            cursor.execute("SELECT REPEAT('0123456789abcdef', 20000)")
            return {**found, "at the server": cipher, "length": len(cursor.fetchone()[0])}


def alone(context, ca, port):
    return select(port, ssl_ca=ca, ssl_verify_identity=True)


def given_a_context(context, ca, port):
    return select(port, ssl=context)


@pytest.mark.parametrize(
    ("how", "function"), [("patched", alone), ("context", given_a_context)], ids=["patched", "context"]
)
def test_pymysql(how, function, program, port, is_ours):
    found = program(how, function, port)
    is_ours(found)
    assert found["at the server"] == found["cipher"]
    assert found["length"] == 320_000
