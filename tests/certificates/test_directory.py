"""Certificates in a directory: found by their names, read again when they change, never worse than before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from greentls.certificates import CertificateChain, Directory, directory
from greentls.errors import ConfigurationError
from tests.support.helpers import PATIENCE
from tests.support.hubs import under_each_hub, wait_for


@pytest.fixture
def put(pki, tmp_path):
    """put("a.pem", "a.example") issues a certificate for names into tmp_path / "here", with its key beside it; gives
    its serial number."""
    (tmp_path / "here").mkdir()

    def put(file, *names, **options):
        target = tmp_path / "here" / file
        pair = pki.issue(*names, **options)
        for source, suffix in zip(pair, (target.suffix, ".key"), strict=True):
            replace(target.with_suffix(suffix), Path(source).read_bytes())
        return CertificateChain.load(*pair).certificate.serial_number

    put.path = tmp_path / "here"
    return put


def replace(path, content):
    """As a tool does that is afraid of readers."""
    new = path.with_name("." + path.name)
    new.write_bytes(content)
    os.replace(new, path)


def serials(source, name):
    return {chain.certificate.serial_number for chain in source.get(name) or ()}


def certbot(pki, root, name, number):
    """A lineage of certbot's as it stands after its number-th renewal. Gives the certificate's serial."""
    archive, live = root / "archive" / name, root / "live" / name
    for path in (archive, live):
        path.mkdir(parents=True, exist_ok=True)
    pair = pki.issue(name)
    shutil.copy(pair[0], archive / f"fullchain{number}.pem")
    shutil.copy(pair[1], archive / f"privkey{number}.pem")
    return CertificateChain.load(*pair).certificate.serial_number


def link(root, name, kind, number):
    """As certbot does it: https://github.com/certbot/certbot, certbot/storage.py, _update_link_to()."""
    path = root / "live" / name / f"{kind}.pem"
    if path.is_symlink():
        path.unlink()
    path.symlink_to(f"../../archive/{name}/{kind}{number}.pem")


class TestLayout:
    def test_pairs_of_files_and_files_with_both_and_directories(self, pki, put, tmp_path):
        wanted = {"a.example": put("one.pem", "a.example"), "b.example": put("two.crt", "b.example", "b2.example")}
        both = [Path(file).read_bytes() for file in pki.issue("c.example")]
        (put.path / "both.pem").write_bytes(b"".join(both))
        serial = certbot(pki, tmp_path, "d.example", 1)
        for kind in ("fullchain", "privkey"):
            link(tmp_path, "d.example", kind, 1)
        (put.path / "README").write_text("none")
        (put.path / ".hidden.pem").write_text("none")
        (put.path / "notes").mkdir()
        source, lineages = Directory(put.path), Directory(str(tmp_path / "live"))
        assert source.names == ("a.example", "b.example", "b2.example", "c.example")
        for name, number in wanted.items():
            assert serials(source, name) == {number}
        assert source.get("b2.example") == source.get("b.example")
        assert lineages.names == ("d.example",) and serials(lineages, "d.example") == {serial}
        assert source.get("d.example") is None

    def test_names_as_clients_write_them(self, put):
        exact, wildcard = put("exact.pem", "www.example"), put("wildcard.pem", "*.example")
        source = Directory(put.path)
        for name in ("www.example", "WWW.EXAMPLE", "www.example."):
            assert serials(source, name) == {exact}
        assert serials(source, "mail.example") == {wildcard}
        for name in ("example", "a.b.example", "*.example", "", None, "\udcff", "127.0.0.1"):
            assert source.get(name) is None

    def test_keys_of_two_kinds_stand_side_by_side(self, put):
        put("ec.pem", "www.example"), put("rsa.pem", "www.example", "mail.example", kind="rsa")
        source = Directory(put.path)
        kinds = [type(chain.key.public_key()) for chain in source.get("www.example")]
        assert len(kinds) == 2 and issubclass(kinds[0], ec.EllipticCurvePublicKey)
        assert issubclass(kinds[1], rsa.RSAPublicKey)
        assert len(source.get("mail.example")) == 1

    def test_the_one_that_is_valid_longest_goes_first(self, put):
        put("a.pem", "www.example", days=20)
        longest = put("b.pem", "www.example", days=40)
        put("c.pem", "www.example", days=30)
        put("d.pem", "www.example", days=-1)
        assert serials(Directory(put.path), "www.example") == {longest}

    def test_one_that_is_valid_goes_before_one_that_is_not_and_time_passes(self, put, monkeypatch):
        """hazard: the choice is made when files change, and then a certificate ends."""
        now = datetime.now(timezone.utc)

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return now

        monkeypatch.setattr(directory, "datetime", Clock)
        now_valid = put("a.pem", "www.example", days=20)
        soon_valid = put("b.pem", "www.example", starts=10, days=40)
        source = Directory(put.path)
        assert serials(source, "www.example") == {now_valid}
        now += timedelta(days=9)
        source.reload()
        assert serials(source, "www.example") == {now_valid}
        now += timedelta(days=2)
        source.reload()
        assert serials(source, "www.example") == {soon_valid}

    def test_the_default_is_a_name_that_is_here(self, put):
        serial = put("a.pem", "www.example")
        source = Directory(put.path, default="WWW.example.")
        for name in ("www.example", "unknown.example", None, "", "\udcff"):
            assert serials(source, name) == {serial}
        assert Directory(put.path, default="missing.example").get("unknown.example") is None
        with pytest.raises(ConfigurationError, match="not a DNS name"):
            Directory(put.path, default="*.example")

    def test_there_must_be_a_directory(self, tmp_path):
        with pytest.raises(ConfigurationError, match="there is none"):
            Directory(tmp_path / "missing")
        assert Directory(tmp_path).get("www.example") is None


class TestChanges:
    def test_what_is_new_and_what_is_gone(self, put):
        source = Directory(put.path)
        first = put("a.pem", "a.example")
        source.reload()
        assert serials(source, "a.example") == {first}
        second = put("a.pem", "a.example", "b.example")
        source.reload()
        assert serials(source, "a.example") == serials(source, "b.example") == {second}
        (put.path / "a.pem").unlink()
        source.reload()
        assert source.get("a.example") is None

    def test_what_is_gone_for_one_look_may_only_be_replaced(self, put):
        """hazard: a tool removes a file and writes it anew, and in between the name is unknown."""
        serial = put("a.pem", "a.example")
        source = Directory(put.path)
        (put.path / "a.pem").rename(put.path / "a")
        source._look()
        assert serials(source, "a.example") == {serial}
        (put.path / "a").rename(put.path / "a.pem")
        source._look()
        (put.path / "a.pem").unlink()
        source._look()
        assert serials(source, "a.example") == {serial}
        source._look()
        assert source.get("a.example") is None

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"garbage",
            b"\0" * 5000,
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cut",
            "another's",
            "no certificate",
        ],
        ids=str,
    )
    def test_a_broken_file_keeps_the_old_pair_and_says_so_once(self, pki, put, content, caplog):
        old = put("a.pem", "a.example")
        other = put("b.pem", "b.example")
        source = Directory(put.path)
        whole = (put.path / "a.pem").read_bytes()
        content = {
            "cut": whole[: len(whole) // 2],
            "another's": Path(pki.issue("a.example")[0]).read_bytes(),
            "no certificate": (put.path / "a.key").read_bytes(),
        }.get(content, content)
        (put.path / "a.pem").write_bytes(content)
        for _ in range(3):
            source.reload()
            assert serials(source, "a.example") == {old} and serials(source, "b.example") == {other}
        (said,) = [each.message for each in caplog.records]
        assert "a.pem" in said or "a.key" in said
        assert said.endswith("the old certificate is used on")
        new = put("a.pem", "a.example")
        source.reload()
        assert serials(source, "a.example") == {new} and len(caplog.records) == 1

    def test_one_that_never_was_whole_is_left_out(self, put, caplog):
        good = put("b.pem", "b.example")
        (put.path / "a.pem").write_bytes(b"garbage")
        source = Directory(put.path)
        assert source.names == ("b.example",) and serials(source, "b.example") == {good}
        assert caplog.records[0].message.endswith("left out")
        new = put("a.pem", "a.example")
        source.reload()
        assert serials(source, "a.example") == {new}

    def test_one_that_becomes_readable_is_read(self, put, caplog, monkeypatch):
        """hazard: a chmod changes neither size nor modification time. (The tests may run as root, who reads all.)"""
        serial = put("a.pem", "a.example")
        load = CertificateChain.load

        def refuse(*files):
            raise PermissionError(13, "Permission denied", files[1])

        monkeypatch.setattr(CertificateChain, "load", refuse)
        source = Directory(put.path)
        source.reload()
        (said,) = [each.message for each in caplog.records]
        assert "Permission denied" in said and said.endswith("left out")
        monkeypatch.setattr(CertificateChain, "load", load)
        source.reload()
        assert serials(source, "a.example") == {serial}

    def test_certbot_replaces_one_link_after_the_other(self, pki, tmp_path, caplog):
        serial = certbot(pki, tmp_path, "a.example", 1)
        for kind in ("fullchain", "privkey"):
            link(tmp_path, "a.example", kind, 1)
        source = Directory(tmp_path / "live")
        renewed = certbot(pki, tmp_path, "a.example", 2)
        for kind in ("privkey", "fullchain"):
            source._look()
            assert serials(source, "a.example") == {serial}
            (tmp_path / "live" / "a.example" / f"{kind}.pem").unlink()
            source._look(), source._look()
            assert serials(source, "a.example") == {serial}
            link(tmp_path, "a.example", kind, 2)
        source._look()
        assert serials(source, "a.example") == {renewed}
        shutil.rmtree(tmp_path / "live" / "a.example")
        source.reload()
        assert source.get("a.example") is None

    def test_a_directory_that_is_gone_keeps_all_that_was_in_it(self, put, tmp_path, caplog):
        """hazard: a file system that is not mounted for a moment."""
        serial = put("a.pem", "a.example")
        source = Directory(put.path)
        put.path.rename(tmp_path / "away")
        for _ in range(3):
            source.reload()
        assert serials(source, "a.example") == {serial}
        assert len(caplog.records) == 1 and "No such file" in caplog.text
        (tmp_path / "away").rename(put.path)
        source.reload()
        assert serials(source, "a.example") == {serial}

    def test_only_what_has_changed_is_read_again(self, pki, put, monkeypatch):
        pair = [Path(file).read_bytes() for file in pki.issue("a.example")]
        for number in range(1000):
            (put.path / f"{number}.pem").write_bytes(b"".join(pair))
        read = []
        load = CertificateChain.load
        monkeypatch.setattr(CertificateChain, "load", lambda *files: read.append(files[0]) or load(*files))
        source = Directory(put.path)
        assert len(read) == 1000
        read.clear()
        source.reload()
        assert read == []
        put("7.pem", "b.example"), put("999.pem", "c.example")
        source.reload()
        # the new key beside it makes a pair of it
        assert sorted(path for path in read if path.startswith(str(put.path))) == [
            str(put.path / "7.pem"),
            str(put.path / "999.pem"),
        ]

    def test_a_look_that_was_overtaken_changes_nothing(self, put, monkeypatch):
        """hazard: a slow look finishes behind a quick one, and puts what it saw in the place of what is."""
        put("a.pem", "a.example")
        source = Directory(put.path)
        by_name = directory._by_name
        renewed = []

        def slow(pairs, now):
            monkeypatch.setattr(directory, "_by_name", by_name)
            renewed.append(put("a.pem", "a.example"))
            source._look()
            return by_name(pairs, now)

        monkeypatch.setattr(directory, "_by_name", slow)
        put("a.pem", "a.example")
        source._look()
        assert serials(source, "a.example") == set(renewed)


class TestWatching:
    @under_each_hub
    def test_changes_are_seen_without_a_word(self, put):
        old = put("a.pem", "a.example")
        source = Directory(put.path, interval=0.01)
        assert serials(source, "a.example") == {old}
        new = put("a.pem", "a.example")
        wait_for(lambda: serials(source, "a.example") == {new}, "the new certificate")
        (put.path / "a.pem").unlink()
        wait_for(lambda: source.get("a.example") is None, "the name to be gone")

    @under_each_hub
    def test_one_greenlet_watches_and_ends_with_the_directory(self, put, new_greenlets):
        source = Directory(put.path, interval=0.01)
        assert new_greenlets() == [], "a parent of workers has none"
        for _ in range(5):
            source.get("a.example")
        assert len(new_greenlets()) == 1
        del source
        wait_for(lambda: new_greenlets() == [], "the watching to end")

    def test_a_forked_worker_watches_for_itself(self, put, pki):
        """hazard: the watching greenlet stays with the parent."""
        put("a.pem", "a.example")
        program = Path(__file__).with_name("forked_directory.py")
        certificate, key = pki.issue("a.example")
        command = [sys.executable, str(program), str(put.path), certificate, key]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(done.stdout.split()) == ["child:1", "parent:1"]
