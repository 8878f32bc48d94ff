"""The CA and certificates that `greentls serve` makes: kept, reused, remade when need be, never in place of others'."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from greentls.cli import pki as made
from greentls.errors import ConfigurationError
from tests.cli.clients import run
from tests.support.helpers import PATIENCE

NAMES = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "new" / "ca"


def files(place: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in place.iterdir()}


def test_it_is_made_once(place):
    path = made.certificate(place, NAMES)
    before = files(place)
    assert sorted(before) == ["ca.key", "ca.pem", "localhost.pem"]
    assert made.certificate(place, NAMES) == path == str(place / "localhost.pem")
    assert made.certificate(place, NAMES[:2]) == path
    assert files(place) == before


@pytest.mark.programs
def test_openssl_accepts_it(place):
    path = made.certificate(place, ["example.org", *NAMES])
    for name in ["-verify_hostname", "example.org"], ["-verify_ip", "::1"]:
        told = run(
            "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", place / "ca.pem", *name, path
        )
        assert told == f"{path}: OK\n"


def test_keys_are_their_owners(place):
    before = os.umask(0)
    try:
        made.certificate(place, NAMES)
    finally:
        os.umask(before)
    modes = {each.name: each.stat().st_mode & 0o777 for each in place.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "localhost.pem": 0o600}


def test_other_names_need_another_certificate_but_no_other_ca(place):
    made.certificate(place, NAMES)
    before = files(place)
    made.certificate(place, ["localhost", "host.example"])
    made.certificate(place, ["example.org"])
    after = files(place)
    assert after.pop("example.org.pem")
    assert after["localhost.pem"] != before["localhost.pem"]
    assert [after["ca.pem"], after["ca.key"]] == [before["ca.pem"], before["ca.key"]]


@pytest.mark.programs
@pytest.mark.parametrize("life", [timedelta(days=-1), timedelta(days=29)], ids=["over", "nearly over"])
def test_an_old_certificate_is_remade(place, monkeypatch, life):
    with monkeypatch.context() as earlier:
        earlier.setattr(made, "CLOCK_SKEW", timedelta(days=400))
        earlier.setattr(made, "SERVER_LIFE", life)
        path = made.certificate(place, NAMES)
    before = files(place)
    made.certificate(place, NAMES)
    after = files(place)
    assert after["localhost.pem"] != before["localhost.pem"]
    assert after["ca.pem"] == before["ca.pem"]
    assert "OK" in run("openssl", "verify", "-CAfile", place / "ca.pem", path)


@pytest.mark.programs
def test_an_old_ca_is_remade_with_what_it_signed(place, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(made, "CA_LIFE", timedelta(days=300))
        path = made.certificate(place, NAMES)
    before = files(place)
    made.certificate(place, NAMES)
    after = files(place)
    assert all(after[name] != before[name] for name in before)
    assert "OK" in run("openssl", "verify", "-CAfile", place / "ca.pem", path)


@pytest.mark.parametrize("name", ["ca.pem", "localhost.pem"])
@pytest.mark.parametrize("what", ["text", "foreign"])
def test_what_others_put_there_stays(place, pki, name, what):
    made.certificate(place, NAMES)
    pair = Path(pki.cert_file).read_bytes() + Path(pki.key_file).read_bytes()
    (place / name).write_bytes(b"hello\n" if what == "text" else pair)
    if what == "foreign":
        (place / "ca.key").write_bytes(pair if name == "ca.pem" else (place / "ca.key").read_bytes())
    before = files(place)
    with pytest.raises(ConfigurationError) as caught:
        made.certificate(place, NAMES)
    assert str(caught.value) == (
        f"certificate file {place / name}: "
        + ("not a PEM certificate" if what == "text" else "not made by greentls")
        + "; remove it, or give another directory by --ca-dir"
    )
    assert files(place) == before


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o604, 0o620])
@pytest.mark.parametrize("name", ["ca.key", "localhost.pem"])
def test_a_key_that_others_have_access_to_is_refused(place, name, mode):
    """hazard: whoever could write ca.key, or read it, signs for those who trust this CA."""
    made.certificate(place, NAMES)
    (place / name).chmod(mode)
    before = files(place)
    with pytest.raises(ConfigurationError) as caught:
        made.certificate(place, NAMES)
    what = "read" if not mode & 0o022 else "write"
    assert str(caught.value) == (
        f"key file {place / name}: others can {what} it (mode {mode:04o}); chmod 600 {place / name}, or 440"
    )
    assert files(place) == before
    (place / name).chmod(0o640)
    made.certificate(place, NAMES)
    assert files(place) == before


@pytest.mark.programs
def test_a_crash_between_the_ca_s_key_and_its_certificate_is_made_good(place):
    made.certificate(place, NAMES)
    (place / "ca.pem").unlink()  # the key is written first
    path = made.certificate(place, NAMES)
    assert "OK" in run("openssl", "verify", "-CAfile", place / "ca.pem", path)


def test_a_write_that_fails_leaves_what_was_there(place, monkeypatch):
    made.certificate(place, NAMES)
    before = files(place)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        made.certificate(place, ["localhost", "other"])
    assert {name: data for name, data in files(place).items() if name in before} == before
    monkeypatch.undo()
    made.certificate(place, ["localhost", "other"])
    assert sorted(files(place)) == sorted(before)


def test_processes_that_start_together_agree(place):
    program = f"from greentls.cli import pki; pki.certificate({str(place)!r}, {NAMES!r})"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(6)]
    assert [process.wait(PATIENCE) for process in processes] == [0] * 6
    assert sorted(files(place)) == ["ca.key", "ca.pem", "localhost.pem"]
    ca, server = (x509.load_pem_x509_certificate((place / name).read_bytes()) for name in ("ca.pem", "localhost.pem"))
    server.verify_directly_issued_by(ca)
    before = files(place)
    made.certificate(place, NAMES)
    assert files(place) == before


@pytest.mark.parametrize(("name", "file"), [("::1", "--1.pem"), ("*.example.org", "_.example.org.pem")])
def test_file_names(place, name, file):
    assert Path(made.certificate(place, [name])).name == file
