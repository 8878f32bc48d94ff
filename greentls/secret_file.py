"""Reads files that hold a secret, and refuses unsafe ones.

- A file is refused if its group can write it, or if others can read or write it. An attacker who reads a fleet's secret
  or a ticket key can open what was recorded; one who can write the file knows the secret already. ssh and PostgreSQL
  refuse the same. The group may read, as with Debian's ssl-cert and with secrets that are mounted into a container
  (Kubernetes' fsGroup). The owner is not checked, because a container has other user numbers, nor is the directory. For
  a symbolic link, the mode of the opened file counts.
- Bytes that repeat are refused: a file of zeros has the right length and no secret in it. GnuTLS sealed tickets with a
  key of zeros for two years (CVE-2020-13777).
"""

from __future__ import annotations

import os

from greentls.errors import ConfigurationError

__all__ = ["read_passphrase", "read_secret_file", "repeats"]

OTHERS = 0o026  # st_mode: write for the group, read and write for others

MAX_PASSPHRASE = 1024  # bytes, as in OpenSSL

# The lowest number of distinct bytes in a secret. 16 random bytes have fewer once in 10^11 times. Hexadecimal text has
# up to 16.
MIN_DISTINCT = 8


def repeats(secret: bytes) -> bool:
    """Whether the bytes repeat so much that they are no secret, whatever their number."""
    return len(set(secret)) < MIN_DISTINCT


def read_secret_file(path: str | os.PathLike[str], subject: str, size: int = -1) -> bytes:
    """Returns the content of a file, at most size bytes. subject: names the file in the error.

    Raises OSError, and ConfigurationError if others have access. On Windows, which has no modes, every file passes.
    """
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & OTHERS and os.name == "posix":
            who = "others can write it" if mode & 0o022 else "others can read it"
            raise ConfigurationError(subject, f"{who} (mode {mode:04o})", f"chmod 600 {os.fspath(path)}, or 440")
        return file.read(size)


def read_passphrase(path: str | os.PathLike[str], subject: str) -> bytes:
    """The first line of a file, without its end. Raises as read_secret_file()."""
    return read_secret_file(path, subject, MAX_PASSPHRASE).partition(b"\n")[0].rstrip(b"\r")
