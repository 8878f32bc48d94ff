"""ResponseFiles: responses in a directory, whole or not at all."""

from __future__ import annotations

import os

import pytest

from greentls.ocsp.files import ResponseFiles
from greentls.ocsp.response import MAX_RESPONSE
from greentls.stores import SessionStore

ID = b"\x01" * 32


@pytest.fixture
def files(tmp_path):
    return ResponseFiles(tmp_path / "made" / "when needed")


def test_it_is_a_store_with_its_directory_for_a_name(files):
    assert isinstance(files, SessionStore)
    assert files.name == f"directory {files.directory}"
    files.close()


def test_what_is_put_is_there_for_the_next_one(files):
    assert files.get(ID) is None
    files.put(ID, b"first", 60)
    files.put(ID, b"second", 60)
    assert ResponseFiles(files.directory).get(ID) == b"second"
    assert files.get(bytes(32)) is None
    assert os.listdir(files.directory) == [f"{ID.hex()}.ocsp"]


def test_removed_is_removed_also_twice(files):
    files.put(ID, b"response", 60)
    for _ in range(2):
        files.remove(ID)
    assert files.get(ID) is None


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_one_that_cannot_be_written_leaves_the_old_one_and_nothing_else(files, monkeypatch, function):
    files.put(ID, b"old", 60)

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"greentls.ocsp.files.os.{function}", full)
        with pytest.raises(OSError, match="no space"):
            files.put(ID, b"new", 60)
    assert files.get(ID) == b"old"
    assert len(os.listdir(files.directory)) == 1


def test_a_file_of_any_size_is_read_so_far(files):
    files.put(ID, bytes(MAX_RESPONSE * 2), 60)
    assert len(files.get(ID)) == MAX_RESPONSE + 1, "too long, which the reader sees"
