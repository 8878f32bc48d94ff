"""`greentls serve --key-process`: workers sign, and hold no key."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests.cli.clients import VERSIONS, client_context, fetch
from tests.keys.signing import byte_strings, private_key
from tests.keys.test_key_files import encrypted
from tests.support.helpers import wait_until


def children(server):
    """(the key process, the workers): pids. Only the first one has locked its memory."""
    pid = server.process.pid
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    holders = [each for each in found if locked(each)]
    return (holders[0] if holders else None), [each for each in found if each not in holders]


def locked(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended, and was reaped, since its parent named it
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmLck")), 0)  # a dead one has none


def memory_has(pid, strings):
    """Whether one of them is somewhere in a process's memory: what gcore(1) would write."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            where, rights, *_ = line.split(None, 2)
            start, end = (int(each, 16) for each in where.split("-"))
            if rights[0] != "r" or "[v" in line:  # the kernel's own pages
                continue
            memory.seek(start)
            try:
                region = memory.read(end - start)
            except OSError:
                continue  # a file's pages behind its end
            if any(each in region for each in strings):
                return True
    return False


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_workers_memory_has_no_byte_string_of_the_key(serve, pki, kind):
    certificate, key = pki.issue("localhost", kind=kind)
    strings = byte_strings(private_key(key))
    without = serve("--cert", certificate, "--key", key)
    served = serve("--cert", certificate, "--key", key, "--key-process")
    for server in (without, served):
        for version in VERSIONS:
            fetch(server.port, client_context(pki.ca_file, version))
    holder, (worker,) = children(served)
    assert not memory_has(worker, strings)
    assert not memory_has(served.process.pid, strings)
    _, (worker_with_key,) = children(without)
    assert memory_has(worker_with_key, strings)  # so the search finds what is there
    if os.getuid() == 0:  # nobody else may look into the one that has it
        assert memory_has(holder, strings)
    else:
        with pytest.raises(PermissionError):
            memory_has(holder, strings)


@pytest.mark.parametrize("options", [(), ("--key-process",)], ids=["in the workers", "in a key process"])
def test_an_encrypted_key(serve, pki, tmp_path, options):
    passphrase = tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("secret\n")
    key = encrypted(pki.key_file, "secret", tmp_path / "encrypted.key")
    server = serve("--cert", pki.cert_file, "--key", key, "--passphrase", passphrase, *options)
    fetch(server.port, client_context(pki.ca_file))


def test_workers_outlive_it(serve, pki):
    """It is killed: handshakes are refused until its successor is there, and the workers stay."""
    server = serve("--cert", pki.cert_file, "--key", pki.key_file, "--key-process")
    holder, workers = children(server)
    context = client_context(pki.ca_file)
    fetch(server.port, context)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: children(server)[0] not in (None, holder), "another key process")
    wait_until(lambda: answers(server.port, context), "a handshake")
    assert children(server)[1] == workers
    assert server.stop() == 0  # and says no more
    server.expected_errors = server.errors
    [told] = [each for each in server.errors if "no handshake" not in each]
    assert told == f"greentls serve [pid]: key process {holder} ended after T s: Killed; another one in 0.25 s"


def answers(port, context):
    try:
        return fetch(port, context)
    except OSError:
        return None


def test_it_ends_after_the_workers_and_leaves_nothing(serve, pki, monkeypatch):
    with tempfile.TemporaryDirectory() as directory:  # a socket's path has 107 bytes at most; tmp_path may have more
        monkeypatch.setenv("TMPDIR", directory)
        server = serve("--cert", pki.cert_file, "--key", pki.key_file, "--key-process")
        holder, _ = children(server)
        assert len(list(Path(directory).glob("*/keys.sock"))) == 1
        assert server.stop() == 0
        assert not os.path.exists(f"/proc/{holder}")
        assert os.listdir(directory) == []


def test_it_ends_when_the_parent_is_gone(serve, pki):
    server = serve("--cert", pki.cert_file, "--key", pki.key_file, "--key-process")
    holder, workers = children(server)
    server.process.kill()
    for each in (holder, *workers):
        wait_until(lambda each=each: not os.path.exists(f"/proc/{each}") or zombie(each), "it to end")


def zombie(pid):
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--key-process: workers must not read the key with --cert; give it as --key FILE"),
        (("--key", "{missing}"), "{missing}: No such file or directory; check the path and its permissions"),
        (("--key", "{open}"), "key file {open}: others can read it (mode 0644); chmod 600 {open}, or 440"),
        (("--key", "{other}"), "the key of certificate file {cert}: the source of keys does not have it; give it one"),
    ],
)
def test_keys_that_are_not_taken(start, pki, tmp_path, options, told):
    names = {"missing": str(tmp_path / "missing.key"), "open": str(tmp_path / "open.key"), "cert": pki.cert_file}
    names["other"] = pki.issue("localhost")[1]
    shutil.copy(pki.key_file, names["open"])
    os.chmod(names["open"], 0o644)
    options = [each.format(**names) for each in options]
    server = start("--cert", pki.cert_file, "--key-process", *options)
    assert server.wait() == 2
    server.expected_errors = [f"greentls serve: {told.format(**names)}"]
