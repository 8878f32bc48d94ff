"""A setting that cannot be used: one line on standard error that names it, exit status 2."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from greentls.cli import main

PREFIX = "greentls serve: "


@pytest.fixture
def files(tmp_path, pki):
    """The files that the table below speaks of, in the process's directory; {port} is taken by somebody else."""
    certificate, key = Path(pki.cert_file).read_bytes(), Path(pki.key_file).read_bytes()
    encrypted = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for name, data in {
        "good.pem": certificate,
        "good.key": key,
        "other.key": Path(pki.issue("other")[1]).read_bytes(),
        "encrypted.key": encrypted,
        "open.key": key,
        "open.secret": bytes(range(32)),
        "zeros.secret": bytes(32),
        "text.pem": b"hello\n",
        "directory.pem/file": b"",
        "foreign-ca/ca.pem": certificate,
        "foreign-ca/ca.key": key,
        "good_app.py": b"number = 1\n",
        "bad_app.py": b"\n\n1 / 0\n",
        "lost_app.py": b"import no_such_module\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in ("open.key", "open.secret"):
        (tmp_path / name).chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {"port": taken.getsockname()[1]}


PAIR = "--cert good.pem --key"

TABLE = [
    # certificates
    ("--cert text.pem", "certificate file text.pem: not a PEM certificate; give a PEM file"),
    ("--cert none.pem", "none.pem: No such file or directory; check the path and its permissions"),
    ("--cert directory.pem", "directory.pem: Is a directory; check the path and its permissions"),
    (f"{PAIR} none.key", "none.key: No such file or directory; check the path and its permissions"),
    ("--cert good.pem", "key file good.pem: no PEM private key in it; give the key's PEM file"),
    (f"{PAIR} text.pem", "key file text.pem: no PEM private key in it; give the key's PEM file"),
    (f"{PAIR} other.key", "key file other.key: the key does not fit certificate file good.pem; give the pair"),
    (
        f"{PAIR} encrypted.key",
        "key file encrypted.key: the key is encrypted; give --passphrase FILE",
    ),
    (f"{PAIR} open.key", "key file open.key: others can read it (mode 0644); chmod 600 open.key, or 440"),
    ("--cert=", "'': No such file or directory; check the path and its permissions"),
    ("--key good.key", "--key good.key: there is no --cert; give the pair"),
    ("--ca-dir text.pem", "text.pem: File exists; check the path and its permissions"),
    (
        "--ca-dir foreign-ca",
        "certificate file foreign-ca/ca.pem: not made by greentls; remove it, or give another directory by --ca-dir",
    ),
    # sessions
    ("--sessions nosuch://host", "session store 'nosuch://host': unknown kind of store; known are "),
    ("--sessions memory", "session store 'memory': unknown kind of store; known are "),
    ("--sessions memcached://127.0.0.1:1", "session store 'memcached://127.0.0.1:1': sessions would leave"),
    ("--sessions memcached://127.0.0.1:1?secret_file=none", "secret_file 'none': No such file or directory"),
    (
        "--sessions memcached://127.0.0.1:1?secret_file=open.secret",
        "secret_file 'open.secret': others can read it (mode 0644); chmod 600 open.secret, or 440",
    ),
    (
        "--sessions memcached://127.0.0.1:1?secret_file=zeros.secret",
        "secret_file 'zeros.secret' has 32 bytes that are nearly all the same; give 32 random bytes or more in it",
    ),
    # addresses
    ("--bind localhost:{port}", "--bind localhost:{port}: Address already in use; choose another port, or stop what"),
    ("--bind localhost", "--bind localhost: not HOST:PORT; write localhost:8443 or [::1]:8443"),
    ("--bind localhost:https", "--bind localhost:https: not HOST:PORT; write localhost:8443 or [::1]:8443"),
    ("--bind localhost:65536", "--bind localhost:65536: not HOST:PORT; write localhost:8443 or [::1]:8443"),
    ("--bind ::1:8443", "--bind ::1:8443: not HOST:PORT; write localhost:8443 or [::1]:8443"),
    ("--bind :8443", "--bind :8443: not HOST:PORT; write localhost:8443 or [::1]:8443"),
    ("--bind 192.0.2.1:0", "--bind 192.0.2.1:0: Cannot assign requested address; give a name or an address of this"),
    ("--bind a..b:0", "--bind a..b:0: not a host name; give a name or an address of this machine"),
    ("--bind nosuch.invalid:0", "--bind nosuch.invalid:0: "),
    # applications
    ("--app good_app", "--app good_app: not MODULE:NAME; write shop.wsgi:application"),
    ("--app good_app:", "--app good_app:: not MODULE:NAME; write shop.wsgi:application"),
    ("--app good_app:nix", "--app good_app:nix: AttributeError: module 'good_app' has no attribute 'nix'; name"),
    ("--app good_app:number", "--app good_app:number: not callable; name a WSGI application"),
    ("--app nix:app", "--app nix:app: ModuleNotFoundError: No module named 'nix'; name what can be imported from here"),
    ("--app bad_app:app", "--app bad_app:app: ZeroDivisionError: division by zero (bad_app.py, line 3); name"),
    ("--app lost_app:app", "ModuleNotFoundError: No module named 'no_such_module' (lost_app.py, line 1)"),
    # options
    ("--nosuch", "unknown option: --nosuch; see greentls serve --help"),
    ("--work 2", "unknown option: --work 2; see greentls serve --help"),
    ("--workers 0", "argument --workers: '0' is not a number above 0; see greentls serve --help"),
    ("--workers two", "argument --workers: 'two' is not a number above 0; see greentls serve --help"),
    ("--drain-seconds -1", "argument --drain-seconds: '-1' is not a number of seconds; see greentls serve --help"),
    ("--drain-seconds nan", "argument --drain-seconds: 'nan' is not a number of seconds; see greentls serve --help"),
    ("--max-version 1.1", "argument --max-version: invalid choice: '1.1' (choose from "),
    ("--min-version 1.3 --max-version 1.2", "--min-version 1.3: above --max-version; leave one out"),
]


@pytest.mark.parametrize(("options", "told"), TABLE, ids=[options for options, _ in TABLE])
def test_one_line_that_names_it(start, files, options, told):
    server = start(*options.format(**files).split())
    assert server.wait() == 2
    assert server.out == ""
    [line] = server.err.splitlines()
    server.expected_errors = server.errors
    assert line.startswith(PREFIX)
    assert told.format(**files) in line


def test_one_line_for_any_number_of_workers(start, files):
    server = start("--workers", 8, "--cert", "text.pem")
    assert server.wait() == 2
    server.expected_errors = [PREFIX + "certificate file text.pem: not a PEM certificate; give a PEM file"]


def test_a_first_worker_that_just_ends(start, tmp_path):
    (tmp_path / "last_app.py").write_text("import os\nos._exit(7)\n")
    server = start("--app", "last_app:app")
    assert server.wait() == 1
    server.expected_errors = ["greentls serve [pid]: the first worker ended before it served: exit status 7"]


def test_no_command_and_an_unknown_one(capfd):
    for arguments, told in (
        ([], "greentls: the following arguments are required: COMMAND; see greentls --help\n"),
        (["nosuch"], "greentls: argument COMMAND: invalid choice: 'nosuch' (choose from "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith(told)
        assert err.count("\n") == 1
