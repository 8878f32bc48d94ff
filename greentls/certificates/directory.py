"""Directory: a directory's certificates, by the names in them, as they are now.

A look at the directory compares each file's stamp (inode, size, times) with that of the look before, reads what has
changed, and puts a whole new state in the place of the old one: a handshake sees all of a change, or nothing of it.

Certificates are renewed while others look. A pair that cannot be read, or whose key does not fit (certbot replaces one
link after the other), stays what it was until it is whole again; it is logged once. One that is gone is used until a
second look has missed it too, for certbot removes a link before it makes the new one.

The watching is one greenlet for each hub that asks, begun by the first handshake, so that a forked worker watches for
itself. The files are read in one of the hub's native threads.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from greentls.certificates.chain import CertificateChain
from greentls.certificates.names import find, normalised
from greentls.errors import ConfigurationError
from greentls.hub import PerHub, Task, here

if TYPE_CHECKING:
    from greentls.keys import KeySource

__all__ = ["Directory"]

log = logging.getLogger("greentls.certificates")

INTERVAL = (
    10.0  # seconds between two looks: 2,000 stat() calls for 1,000 names, some ten milliseconds in another thread
)

_CERTIFICATES = (".pem", ".crt", ".cer")
_KEY = ".key"
_FULL_CHAIN, _PRIVATE_KEY = "fullchain.pem", "privkey.pem"  # certbot's


class _Pair(NamedTuple):
    stamp: tuple[Any, ...]  # of its files at the last look; empty if it was not there
    chain: CertificateChain | None  # the last good one
    names: tuple[str, ...] = ()


class _State(NamedTuple):
    number: int  # of the look that made it
    pairs: dict[str, _Pair]  # by the certificate's path
    names: dict[str, tuple[CertificateChain, ...]]
    ends: datetime  # when one of the certificates becomes valid or invalid, so that another may be the better one


_NEVER = datetime.max.replace(tzinfo=timezone.utc)


class Directory:
    """A source of certificates: NAME.pem with NAME.key beside it or the key in it (also .crt and .cer), and
    directories with fullchain.pem and privkey.pem, as in certbot's live/. File names do not matter. A certificate
    without such a file has its key from keys, a greentls.keys.KeySource, if there is one.

    An exact name goes before a wildcard, which stands for one label. Of several certificates for a name there is one
    for each kind of key: one that is valid now goes before one that is not, then the one that is valid longest.

    default: a name; its certificates are for clients that send no name, or one that is not known. interval: seconds
    between two looks. Raises ConfigurationError if there is no such directory.
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
        self._trouble = ""  # with the directory as a whole, as it was logged
        self._watches = PerHub(_watch)
        self._tell(self._look(patient=False))

    def get(self, server_name: str | None) -> tuple[CertificateChain, ...] | None:
        """Does not wait."""
        self._watches.get(self)
        names = self._state.names
        name = normalised(server_name)
        found = find(names, name) if name is not None else None
        if found is None and self.default is not None:
            found = find(names, self.default)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """All that certificates are here for, wildcards as they stand there. Sorted."""
        return tuple(sorted(self._state.names))

    def reload(self) -> None:
        """Looks at the directory now, and takes what is gone for gone. Waits for the disk."""
        self._tell(here().in_thread(self._look, False))

    def _tell(self, troubles: list[str]) -> None:
        for trouble in troubles:
            log.warning("certificate directory %s: %s", self.path, trouble)

    # -- a look, in a native thread ------------------------------------------------------------------------------------

    def _look(self, patient: bool = True) -> list[str]:
        """patient: what is gone may only just be replaced. What is wrong, and was not at the last look; raises
        nothing."""
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
        if now >= old.ends or [*map(_chain, pairs.values())] != [*map(_chain, old.pairs.values())]:
            state = _State(number, pairs, _by_name(pairs, now), _next_change(pairs, now))
        if number > self._state.number:  # or another look has overtaken this one
            self._state = state
        return troubles


def _watch(directory: Directory) -> Task:
    return here().spawn(_look_again, weakref.ref(directory))


def _look_again(reference: weakref.ref[Directory]) -> None:
    process = os.getpid()
    while (directory := reference()) is not None:
        interval = directory.interval
        del directory  # which may go while this sleeps
        here().sleep(interval)
        if os.getpid() != process:
            return  # a copy, in a forked worker
        if (directory := reference()) is not None:
            directory._tell(here().in_thread(directory._look))
            del directory


def _files(path: str, without_keys: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(certificate's path, the files that make a pair) of each pair in a directory. Raises OSError."""
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
    """What is in the files, or what was there before."""
    stamp: tuple[Any, ...] = ()
    trouble: Exception
    try:
        stamp = tuple(map(_stamp, files))
        if old is not None and old.stamp == stamp:
            return old
        chain = CertificateChain.load(files[0], files[1] if len(files) > 1 else keys)
        return _Pair(stamp, chain, tuple(name.lower() for name in chain.names))
    except OSError as error:
        stamp, trouble = (*files, error.errno), error  # read again at each look
    except Exception as error:  # whatever a parser makes of it
        trouble = error
    if old is None or old.stamp != stamp:
        rest = "left out" if old is None or old.chain is None else "the old certificate is used on"
        troubles.append(f"{trouble}; {rest}")
    return _Pair(stamp, None) if old is None else old._replace(stamp=stamp)


def _stamp(path: str) -> tuple[int, ...]:
    """Another one if the file was written, replaced, or made readable, or if a link leads somewhere else."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _chain(pair: _Pair) -> int:
    return id(pair.chain)


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
