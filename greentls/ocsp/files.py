"""Keeps OCSP responses in a directory, so that a restarted server staples from its first handshake on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from greentls.ocsp.response import MAX_RESPONSE

__all__ = ["ResponseFiles"]


class ResponseFiles:
    """A SessionStore with one file for each response, made at the first put().

    Responses are public, and verified when they are read. Somebody who can write to the directory can at most hide a
    newer response until the old one expires.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.name = f"directory {self.directory}"

    def get(self, session_id: bytes) -> bytes | None:
        try:
            with open(self._path(session_id), "rb") as file:
                return file.read(MAX_RESPONSE + 1)
        except FileNotFoundError:
            return None

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        """Writes the whole file or none, also beside other writers. lifetime: ignored, the response has its own."""
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        try:
            with open(descriptor, "wb") as file:
                file.write(session)
                file.flush()
                os.fsync(descriptor)
            os.replace(path, self._path(session_id))
        except BaseException:
            os.unlink(path)
            raise

    def remove(self, session_id: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(session_id).unlink()

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, session_id: bytes) -> Path:
        return self.directory / f"{session_id.hex()}.ocsp"
