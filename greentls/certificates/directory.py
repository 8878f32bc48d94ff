"""Directory: the certificates of a directory, found by the names in them. Changed files are read again.

A look at the directory compares the stamp of each file (inode, size, times) with that of the last look, reads the
changed files, and replaces the whole state. A handshake sees all of a change, or nothing of it.

A look may happen during a renewal, as certbot replaces one link after the other. If a pair cannot be read, or its key
does not fit, the old pair stays in use until the new one is complete. That is logged once. A missing pair stays in use
until a second look misses it, too, because certbot removes a link before it makes the new one.

One greenlet of each hub watches the directory. The first handshake starts it, so a forked worker watches for itself.
The files are read in a native thread.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from greentls.certificates.chain import CertificateChain
from greentls.certificates.names import find, normalised
from greentls.errors import ConfigurationError
from greentls.hub import PerHub, Task, here

if TYPE_CHECKING:
    from greentls.keys import KeySource

__all__ = ["Directory"]

log = logging.getLogger("greentls.certificates")

INTERVAL = 10.0  # seconds between two looks: 2,000 stat() calls for 1,000 names take some 10 ms, in another thread

_CERTIFICATES = (".pem", ".crt", ".cer")
_KEY = ".key"
_FULL_CHAIN, _PRIVATE_KEY = "fullchain.pem", "privkey.pem"  # certbot's


class _Pair(NamedTuple):
    stamp: tuple[object, ...]  # the files' at the last look; empty if they were missing
    chain: CertificateChain | None  # the last good one
    names: tuple[str, ...] = ()


class _State(NamedTuple):
    number: int  # the number of the look that has made it
    pairs: dict[str, _Pair]  # by the certificate's path
    names: dict[str, tuple[CertificateChain, ...]]
    ends: datetime  # a certificate becomes valid or invalid then, and another one may be better


_NEVER = datetime.max.replace(tzinfo=timezone.utc)


class Directory:
    """A source of certificates: the files of a directory.

    A pair is NAME.pem (or .crt, .cer) with the key in it or in NAME.key, or a directory with fullchain.pem and
    privkey.pem, as in certbot's live/. File names do not matter.

    An exact name is preferred to a wildcard, which stands for one label. If a name has several certificates, one for
    each kind of key is used: one that is valid now is preferred, then the one that expires last.

    default: clients that send no name, or an unknown one, get the certificates of this name. interval: seconds between
    two looks. keys: a greentls.keys.KeySource that has the keys of certificates without a key file. Raises
    ConfigurationError if there is no such directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        default: str | None = None,
        interval: float = INTERVAL,
        keys: KeySource | None = None,
    ) -> None:
        self.path = os.path.abspath(os.fsdecode(path))
        self.default = None if default is None else normalised(default)
        self.interval = interval
        self.keys = keys
        if default is not None and self.default is None:
            raise ConfigurationError(f"certificate directory: default={default!r}", "not a DNS name")
        if not os.path.isdir(self.path):
            raise ConfigurationError(f"certificate directory {self.path}", "there is none")
        self._numbers = count(1)
        self._state = _State(0, {}, {}, _NEVER)
        self._trouble = ""  # the last logged problem of the directory itself
        reference = weakref.ref(self)
        self._watches: PerHub[Task] = PerHub(lambda: here().spawn(_look_again, reference))
        self._tell(self._look(patient=False))

    def get(self, server_name: str | None) -> tuple[CertificateChain, ...] | None:
        """Returns the chains for a name, one for each kind of key; None if there are none. Does not wait."""
        self._watches.get()
        names = self._state.names
        name = normalised(server_name)
        found = find(names, name) if name is not None else None
        if found is None and self.default is not None:
            found = find(names, self.default)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the certificates, sorted."""
        return tuple(sorted(self._state.names))

    def reload(self) -> None:
        """Looks at the directory now, and drops missing pairs at once. Waits for the disk."""
        self._tell(here().in_thread(self._look, False))

    def _tell(self, troubles: list[str]) -> None:
        for trouble in troubles:
            log.warning("certificate directory %s: %s", self.path, trouble)

    # -- a look, in a native thread ------------------------------------------------------------------------------------

    def _look(self, patient: bool = True) -> list[str]:
        """Returns the new problems; raises nothing. patient: whether a missing pair is kept for one more look, because
        it may be about to be replaced."""
        number, old = next(self._numbers), self._state
        try:
            found = dict(_files(self.path, self.keys is not None))
        except OSError as error:
            known, self._trouble = self._trouble, str(error)
            return [] if self._trouble == known else [f"{error}; the old certificates are used on"]
        self._trouble = ""
        troubles: list[str] = []
        pairs = {name: _pair(old.pairs.get(name), files, self.keys, troubles) for name, files in found.items()}
        if patient:
            for name, pair in old.pairs.items():
                if name not in pairs and pair.stamp:
                    pairs[name] = pair._replace(stamp=())
        now = datetime.now(timezone.utc)
        state = old._replace(number=number, pairs=pairs)
        chains, before = ([id(each.chain) for each in some.values()] for some in (pairs, old.pairs))
        if now >= old.ends or chains != before:
            state = _State(number, pairs, _by_name(pairs, now), _next_change(pairs, now))
        if number > self._state.number:  # otherwise a later look has overtaken this one
            self._state = state
        return troubles


def _look_again(reference: weakref.ref[Directory]) -> None:
    process = os.getpid()
    while (directory := reference()) is not None:
        interval = directory.interval
        del directory  # nothing here keeps it alive during the sleep
        here().sleep(interval)
        if os.getpid() != process:
            return  # this is the copy in a forked worker
        if (directory := reference()) is not None:
            directory._tell(here().in_thread(directory._look))
            del directory


def _files(path: str, without_keys: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the certificate's path, and the files, of each pair in a directory. Raises OSError."""
    with os.scandir(path) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    names = {entry.name for entry in entries}
    for entry in entries:
        stem, extension = os.path.splitext(entry.name)
        if entry.name.startswith("."):
            continue
        if extension in _CERTIFICATES and not entry.is_dir():
            key = stem + _KEY
            yield entry.path, (entry.path, os.path.join(path, key)) if key in names else (entry.path,)
        elif entry.is_dir():
            files: tuple[str, ...] = os.path.join(entry.path, _FULL_CHAIN), os.path.join(entry.path, _PRIVATE_KEY)
            if without_keys and not os.path.lexists(files[1]):
                files = files[:1]
            if any(map(os.path.lexists, files)):
                yield entry.path, files


def _pair(old: _Pair | None, files: tuple[str, ...], keys: KeySource | None, troubles: list[str]) -> _Pair:
    """Returns the pair in the files, or the old pair if the files are not complete."""
    stamp: tuple[object, ...] = ()
    trouble: Exception
    try:
        stamp = tuple(map(_stamp, files))
        if old is not None and old.stamp == stamp:
            return old
        chain = CertificateChain.load(files[0], files[1] if len(files) > 1 else keys)
        return _Pair(stamp, chain, tuple(name.lower() for name in chain.names))
    except OSError as error:
        stamp, trouble = (*files, error.errno), error  # so that it is read again at each look
    except Exception as error:  # whatever a parser raises
        trouble = error
    if old is None or old.stamp != stamp:
        rest = "left out" if old is None or old.chain is None else "the old certificate is used on"
        troubles.append(f"{trouble}; {rest}")
    return _Pair(stamp, None) if old is None else old._replace(stamp=stamp)


def _stamp(path: str) -> tuple[int, ...]:
    """A value that changes if the file is written, replaced or made readable, or if a link points elsewhere."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _by_name(pairs: dict[str, _Pair], now: datetime) -> dict[str, tuple[CertificateChain, ...]]:
    best: dict[str, dict[type, CertificateChain]] = {}
    for pair in pairs.values():
        chain = pair.chain
        if chain is None:
            continue
        for name in pair.names:
            kinds = best.setdefault(name, {})
            other = kinds.get(chain.kind)
            if other is None or _rank(chain, now) > _rank(other, now):
                kinds[chain.kind] = chain
    return {name: tuple(kinds.values()) for name, kinds in best.items()}


def _rank(chain: CertificateChain, now: datetime) -> tuple[bool, datetime]:
    begins, ends = chain.certificate.not_valid_before_utc, chain.certificate.not_valid_after_utc
    return begins <= now <= ends, ends


def _next_change(pairs: dict[str, _Pair], now: datetime) -> datetime:
    times = [
        time
        for pair in pairs.values()
        if pair.chain is not None
        for time in (pair.chain.certificate.not_valid_before_utc, pair.chain.certificate.not_valid_after_utc)
        if time >= now
    ]
    return min(times, default=_NEVER)
