"""A directory of responses, so that a server that is started anew staples from its first handshake on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from greentls.ocsp.response import MAX_RESPONSE

__all__ = ["ResponseFiles"]


class ResponseFiles:
    """A SessionStore of one file for each response. They are public; who may write here can withhold news for as long
    as an old response is good, and no more than that, since what is read is checked."""

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
        """Whole or not at all, whoever reads or writes meanwhile. The response itself says how long it is good."""
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
        """Holds nothing."""

    def _path(self, session_id: bytes) -> Path:
        return self.directory / f"{session_id.hex()}.ocsp"
