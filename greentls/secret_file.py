"""Files that hold a secret: what is refused before it is used.

- A file that the group can write, or that others can read or write. Whoever has read a fleet's secret or a ticket key
  opens what was recorded; whoever has written one knows it already. ssh and PostgreSQL refuse the same. The group may
  read: so it is with Debian's ssl-cert, and with secrets that are mounted into a container (Kubernetes' fsGroup). The
  owner is not looked at, because a container's owners are other numbers; nor is the directory. Of a symbolic link the
  file counts that was opened.
- Bytes that repeat: a file of zeros, or of one character, has the length that is asked for and no secret in it. GnuTLS
  sealed tickets with a key of zeros for two years (CVE-2020-13777).
"""

from __future__ import annotations

import os

from greentls.errors import ConfigurationError

__all__ = ["read_secret_file", "repeats"]

OTHERS = 0o026  # st_mode: the group writes; others read, write

# Different values among a secret's bytes. 16 random bytes have fewer once in 10^11; hexadecimal digits are 16.
MIN_DISTINCT = 8


def repeats(secret: bytes) -> bool:
    """Whether it is no secret, however long it is."""
    return len(set(secret)) < MIN_DISTINCT


def read_secret_file(path: str | os.PathLike[str], subject: str, size: int = -1) -> bytes:
    """What is in it, size bytes at most. subject: what it is, for the error.

    Raises OSError, and ConfigurationError if others have access. Where there are no modes, on Windows, all pass.
    """
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & OTHERS and os.name == "posix":
            who = "others can write it" if mode & 0o022 else "others can read it"
            raise ConfigurationError(subject, f"{who} (mode {mode:04o})", f"chmod 600 {os.fspath(path)}, or 440")
        return file.read(size)
