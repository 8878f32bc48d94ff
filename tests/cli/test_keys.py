"""greentls keys serve: what it is told, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.helpers import PATIENCE, tethered

COMMAND = [sys.executable, "-m", "greentls", "keys", "serve"]


def fails(*options):
    """The line on standard error."""
    done = subprocess.run([*COMMAND, *map(str, options)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("greentls keys serve: ").rstrip("\n")


def start(path, key):
    command = tethered(*COMMAND, "--socket", path, "--key", key)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def running(pki, tmp_path):
    process = start(tmp_path / "s", pki.key_file)
    with process:
        assert process.stdout.readline() == f"greentls keys: listening on {tmp_path}/s (pid {process.pid}, keys: 1)\n"
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_how_it_ends(running, tmp_path, signum, status):
    running.send_signal(signum)
    assert running.wait(PATIENCE) == status
    assert not os.path.exists(tmp_path / "s")


def test_a_path_that_is_in_use(running, pki, tmp_path):
    told = fails("--socket", tmp_path / "s", "--key", pki.key_file)
    assert told == f"--socket {tmp_path}/s: Address already in use; give a path that can be made"
    assert running.poll() is None


def test_what_one_that_was_killed_has_left_is_replaced(running, pki, tmp_path):
    running.kill()
    running.wait()
    assert os.path.exists(tmp_path / "s")
    with start(tmp_path / "s", pki.key_file) as process:
        assert "listening" in process.stdout.readline()
        process.terminate()


def test_a_file_that_is_no_socket_is_left_alone(pki, tmp_path):
    (tmp_path / "s").write_text("mine")
    assert "--socket" in fails("--socket", tmp_path / "s", "--key", pki.key_file)
    assert (tmp_path / "s").read_text() == "mine"


def test_what_it_cannot_use(pki, tmp_path):
    path = tmp_path / "s"
    assert "No such file or directory" in fails("--socket", tmp_path / "no" / "s", "--key", pki.key_file)
    assert "No such file or directory" in fails("--socket", path, "--key", tmp_path / "missing")
    assert "no PEM private key" in fails("--socket", path, "--key", pki.cert_file)
    assert fails("--socket", path, "--key", pki.key_file, "--user", "no-such-user").startswith("user no-such-user: ")
    assert fails("--socket", path, "--key", pki.key_file, "--allow", "no-such-user").startswith("user no-such-user: ")
    assert not os.path.exists(path)


def test_an_encrypted_key(pki, tmp_path):
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pki.key_file, "-aes256", "-passout", "pass:secret", "-out", encrypted], check=True
    )
    os.chmod(encrypted, 0o600)
    told = fails("--socket", tmp_path / "s", "--key", encrypted)
    assert told == f"key file {encrypted}: the key is encrypted; give --passphrase FILE"
    wrong = tmp_path / "passphrase"
    wrong.touch(0o600)
    wrong.write_text("wrong\n")
    told = fails("--socket", tmp_path / "s", "--key", encrypted, "--passphrase", wrong)
    assert told == f"key file {encrypted}: the passphrase does not open the key"


def test_options_that_are_missing():
    for options in ((), ("--socket", "x"), ("--key", "x")):
        done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 2
        assert "required" in done.stderr
