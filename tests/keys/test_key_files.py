"""The files of a key process: which ones it takes, with a passphrase or without, and what SIGHUP does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from greentls import keys
from greentls.errors import ConfigurationError
from greentls.keys.process import KeyProcess, read_key
from greentls.secret_file import read_passphrase
from tests.keys import processes
from tests.keys.signing import KINDS, private_key
from tests.support.helpers import wait_until, whole_lines
from tests.support.ssl_pairs import connected, contexts


def encrypted(key_file, passphrase, path):
    subprocess.run(
        ["openssl", "pkey", "-in", key_file, "-aes256", "-passout", f"pass:{passphrase}", "-out", path], check=True
    )
    os.chmod(path, 0o600)
    return path


def secret(path, content):
    path.touch(0o600)
    path.write_bytes(content)
    return path


def test_files_that_are_not_taken(pki, tmp_path):
    path = tmp_path / "a.key"
    shutil.copy(pki.key_file, path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read it"):
        read_key(path)
    with pytest.raises(ConfigurationError, match="no PEM private key"):
        read_key(pki.cert_file)
    path.chmod(0o600)
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigurationError, match="no PEM private key"):
        read_key(path)
    with pytest.raises(OSError, match="nothing"):
        read_key(tmp_path / "nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_file(pki, tmp_path, kind):
    plain = pki.issue("localhost", kind=kind)[1]
    path = encrypted(plain, "right", tmp_path / "a.key")
    assert read_key(path, b"right").public_key() == private_key(plain).public_key()
    assert read_key(plain, b"right").public_key() == private_key(plain).public_key()  # which has none
    for passphrase in (None, b""):
        with pytest.raises(ConfigurationError, match="the key is encrypted; give --passphrase FILE"):
            read_key(path, passphrase)
    for passphrase in (b"wrong", b"right\n", b"\xff", b"x" * 1024):
        with pytest.raises(ConfigurationError, match="the passphrase does not open the key"):
            read_key(path, passphrase)


@pytest.mark.parametrize("content", [b"right", b"right\n", b"right\r\n", b"right\nanother line\n"])
def test_a_passphrase_is_the_first_line(tmp_path, content):
    assert read_passphrase(secret(tmp_path / "passphrase", content), "it") == b"right"


def test_a_passphrase_that_others_can_read(tmp_path):
    path = secret(tmp_path / "passphrase", b"right")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read it"):
        read_passphrase(path, "it")


# -- read again --------------------------------------------------------------------------------------------------------


def test_the_keys_before_are_held_until_there_are_others(pki):
    """Servers still have their certificates. A second SIGHUP must not take them away."""
    files = [pki.issue("localhost")[1] for _ in range(3)]
    first, second, third = (private_key(each).public_key() for each in files)
    holder = KeyProcess([read_key(files[0])], {os.getuid()})
    assert known(holder) == [first]
    for _ in range(2):
        holder.hold([read_key(files[1])])
        assert known(holder) == [first, second]
    holder.hold([read_key(files[2])])
    assert known(holder) == [second, third]
    holder.hold([read_key(files[1])])
    assert known(holder) == [third, second]


def known(holder):
    return [each.public_key() for each in holder._keys.values()]


@pytest.fixture
def process(pki, tmp_path):
    """A key process with an encrypted key."""
    key_file = encrypted(pki.issue("localhost")[1], "right", tmp_path / "a.key")
    options = ["--passphrase", str(secret(tmp_path / "passphrase", b"right\n"))]
    started = processes.KeyProcess(tmp_path / "keys.sock", key_file, options=options, log=tmp_path / "log")
    yield started
    started.close()


def lines(process, tmp_path):
    """What it has said."""
    return [line.removeprefix(f"greentls keys [{process.pid}]: ") for line in whole_lines(tmp_path / "log")]


def read_again(process, tmp_path):
    """The line that it says."""
    before = len(lines(process, tmp_path))
    process.process.send_signal(signal.SIGHUP)
    return wait_until(lambda: lines(process, tmp_path)[before:], "it to say something")[0]


def test_sighup_reads_the_files_again(pki, tmp_path, process):
    old = pki.issue("localhost")
    new = pki.issue("localhost")
    encrypted(old[1], "right", tmp_path / "a.key")
    assert read_again(process, tmp_path) == "the keys were read again"
    client, server = contexts(pki)
    server._chains = []
    agent = keys.Agent(process.path)
    server.load_cert_chain(old[0], agent)
    with connected(client, server):
        pass
    (connection,) = agent._connections.get()._idle
    encrypted(new[1], "other", tmp_path / "a.key")
    secret(tmp_path / "passphrase", b"other\n")  # which may change, too
    assert read_again(process, tmp_path) == "the keys were read again"
    with connected(client, server):  # which has its old certificate still
        pass
    server._chains = []
    server.load_cert_chain(new[0], agent)
    with connected(client, server):
        pass
    assert agent._connections.get()._idle == [connection]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("gone", "[Errno 2] No such file or directory: "),
        ("garbage", "no PEM private key in it; "),
        ("half", "no PEM private key in it; "),
        ("open", "others can read it (mode 0644); "),
        ("another passphrase", "the passphrase does not open the key"),
        ("no passphrase", "passphrase file "),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(pki, tmp_path, process, what, told):
    public = read_key(tmp_path / "a.key", b"right").public_key()
    path = tmp_path / "a.key"
    if what == "gone":
        path.unlink()
    elif what == "open":
        path.chmod(0o644)
    elif what == "another passphrase":
        encrypted(pki.issue("localhost")[1], "other", path)
    elif what == "no passphrase":
        (tmp_path / "passphrase").chmod(0o644)
    else:
        path.write_bytes(b"garbage" if what == "garbage" else path.read_bytes()[:100])
    said = read_again(process, tmp_path)
    assert said.startswith("the keys stay as they are: ")
    assert told in said
    assert keys.Agent(process.path).get(public)
    assert process.stop() == 0
