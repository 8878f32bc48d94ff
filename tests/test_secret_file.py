"""Files with a secret in them: read only where nobody else can have read or written it."""

from __future__ import annotations

import os
import random

import pytest

from greentls.errors import ConfigurationError
from greentls.secret_file import read_secret_file, repeats
from greentls.stores import open_store
from greentls.tickets import TicketKeys

SECRET = bytes(range(80))


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "secret"
    made.write_bytes(SECRET)
    return made


OPENERS = {
    "secret_file": lambda path: open_store(f"memcached://127.0.0.1?secret_file={path}"),
    "ticket keys": TicketKeys.file,
}
openers = pytest.mark.parametrize("use", OPENERS.values(), ids=OPENERS)


@openers
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640, 0o700, 0o750])
def test_what_its_owner_and_its_group_can_read_is_used(path, use, mode):
    path.chmod(mode)
    use(path)


@openers
@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o644, "read"), (0o444, "read"), (0o604, "read"), (0o660, "write"), (0o602, "write"), (0o666, "write")],
)
def test_what_others_can_read_or_write_is_refused(path, use, mode, said):
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        use(path)
    line = str(caught.value)
    assert f"{path}" in line
    assert line.endswith(f": others can {said} it (mode {mode:04o}); chmod 600 {path}, or 440")
    assert "\n" not in line
    path.chmod(0o600)
    use(path)


@openers
def test_of_a_link_the_file_counts(path, use):
    link = path.with_name("link")
    link.symlink_to(path)  # whose own mode is 0777
    use(link)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read it"):
        use(link)


@openers
@pytest.mark.parametrize("secret", [bytes(80), b"x" * 80, b"abc" * 26 + b"ab", b"\n" * 80], ids=repr)
def test_bytes_that_repeat_are_no_secret(path, use, secret):
    """hazard: a file of zeros, which a crash leaves, has the length and everybody knows it."""
    path.write_bytes(secret)
    with pytest.raises(ConfigurationError, match="nearly all the same"):
        use(path)


def test_random_bytes_and_their_hexadecimal_digits_do_not_repeat():
    rng = random.Random(1)  # the digits of others repeat, once in 30 million times
    for _ in range(1000):
        secret = rng.randbytes(16)
        assert not repeats(secret)
        assert not repeats(secret.hex().encode() * 2)


def test_keys_that_become_others_while_they_are_used_are_not_read_again(path, caplog):
    now = 0.0
    keys = TicketKeys.file(path, clock=lambda: now)
    before = keys.keys
    path.write_bytes(SECRET[::-1])
    path.chmod(0o646)
    now = 1.0
    assert keys.keys == before
    assert "others can write it (mode 0646)" in caplog.text
    path.chmod(0o600)
    now = 2.0
    assert keys.keys != before


def test_a_pipe_has_an_owner_too():
    reading, writing = os.pipe()
    os.write(writing, SECRET)
    os.close(writing)
    assert read_secret_file(f"/dev/fd/{reading}", "secret") == SECRET
    os.close(reading)


def test_where_there_are_no_modes_all_pass(path, monkeypatch):
    path.chmod(0o666)
    monkeypatch.setattr("greentls.secret_file.os.name", "nt")
    try:
        assert read_secret_file(str(path), "secret") == SECRET
    finally:
        monkeypatch.undo()
