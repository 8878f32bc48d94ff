"""The checks of greentls doctor. Each returns what it found, or raises.

A check imports what it needs when it runs: an import that fails is its finding, not the end of the others.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from greentls.errors import ConfigurationError, OCSPError, ResponderUnavailable, UnsupportedOpenSSL

if TYPE_CHECKING:
    from greentls.core.config import Config
    from greentls.core.connection import Connection
    from greentls.core.hooks import Hooks
    from greentls.core.session import Session
    from greentls.stores import SharedValues

__all__ = ["GENERAL", "Finding", "examine", "ocsp", "shown", "store", "wheel"]

PACKAGES = ("gevent", "greenlet", "pyopenssl", "cryptography", "pymemcache")
VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
REPORT = "attach greentls doctor --json to a bug report"
PROTOCOL = b"greentls-doctor"
MARK = "doctor"  # the name of a shared value that reveals servers with different secrets
MARK_SECONDS = 3600.0


class Finding(NamedTuple):
    """The result of a check. remedy: what to do if it is not ok."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


class Problem(Exception):
    """A check has found something that is not ok. remedy: what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Runs a check."""
    silence = logging.NullHandler()  # what goes wrong is in the finding
    logger = logging.getLogger("greentls")
    logger.addHandler(silence)
    try:
        return Finding(name, True, check())
    except Problem as problem:
        return Finding(name, False, problem.found, problem.remedy)
    except ConfigurationError as error:
        return Finding(name, False, error.problem, error.remedy)
    except UnsupportedOpenSSL as error:
        return Finding(name, False, f"{error.function}: {error.problem}", error.remedy)
    except ImportError as error:
        return Finding(name, False, str(error), "pip install --upgrade --force-reinstall greentls")
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", REPORT)
    finally:
        logger.removeHandler(silence)


# -- what is installed -------------------------------------------------------------------------------------------------


def _greentls() -> str:
    from greentls._version import __version__

    try:
        metadata.version("greentls")
    except metadata.PackageNotFoundError:
        found = f"{__version__} runs from a directory, so that it is unknown which versions it needs"
        raise Problem(found, "install it: pip install DIRECTORY") from None
    return f"{__version__}, Python {platform.python_version()}, {platform.platform()}"


def package(name: str) -> str:
    """Returns the installed version of a package. Raises Problem if it is older than greentls needs."""
    bound = _bound(name)
    remedy = f"pip install --upgrade '{name}>={bound}'"
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise Problem("not installed", remedy) from None
    if _numbers(installed) < _numbers(bound):
        raise Problem(f"{installed} is older than {bound}", remedy)
    if name == "pyopenssl":
        _check_limit(installed, metadata.requires(name) or [], metadata.version("cryptography"))
    return installed


def _check_limit(pyopenssl: str, needed: Iterable[str], cryptography: str) -> None:
    """Raises Problem if this pyOpenSSL is too old for this cryptography, which has removed functions that it calls."""
    for limit in re.findall(r"\bcryptography\b.*?<(\d+)", " ".join(needed)):
        if _numbers(cryptography) >= [int(limit)]:
            remedy = f"pip install --upgrade pyopenssl, or pip install 'cryptography<{limit}'"
            raise Problem(f"{pyopenssl} needs cryptography below {limit}, and {cryptography} is installed", remedy)


def _bound(name: str) -> str:
    """Returns the highest of setup.py's lower bounds for this Python."""
    bounds = ["0"]
    try:
        needed = metadata.requires("greentls") or []
    except metadata.PackageNotFoundError:
        needed = []
    for line in needed:
        found = re.fullmatch(rf"{name}>=([\d.]+)(?:; python_version >= \W(\d+\.\d+)\W)?", line, re.IGNORECASE)
        if found and _numbers(found[2] or "0") <= [*sys.version_info[:2]]:
            bounds.append(found[1])
    return max(bounds, key=_numbers)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _openssl() -> str:
    from greentls.openssl import symbols

    return symbols.origin()


def _functions() -> str:
    from greentls.openssl import inventory

    missing = inventory.missing()
    lost = sorted({inventory.cost(name) for name in missing} - {""})
    if lost:
        needed = [name for name in missing if inventory.cost(name)]
        names = ", ".join(needed[:3]) + (f" and {len(needed) - 3} others" if len(needed) > 3 else "")
        error = missing[needed[0]]
        raise Problem(f"there is no {names}: {error.problem}. These do not work: {'; '.join(lost)}", error.remedy)
    return "all found" + (f" but {', '.join(missing)}, which costs little" if missing else "")


def _pump() -> str:
    from greentls.openssl import pump

    if pump.COMPILED:
        return "compiled"
    if os.environ.get("GREENTLS_PURE"):
        return "plain Python, as GREENTLS_PURE is set"
    return "plain Python; for the faster one, reinstall greentls where a C compiler and Python.h are"


def _hub() -> str:
    import gevent

    from greentls.hub import here

    here().sleep(0)
    loop = gevent.get_hub().loop
    return f"gevent's, {type(loop).__module__}, {loop.backend}"


# -- handshakes in memory ----------------------------------------------------------------------------------------------


def _handshake(version: int) -> str:
    from greentls.core.hooks import Hooks
    from greentls.hub import here

    waited: list[bytes] = []

    def wait(connection: object, offered: Sequence[bytes]) -> bytes:  # needs no function that may be hidden
        here().sleep(0)
        waited.extend(offered)
        return offered[0]

    with _demo(version) as (server, client):
        there = _connect(server(Hooks(alpn=wait)), client)
    if waited != [PROTOCOL]:
        raise Problem("the callback was not called", REPORT)
    return f"works, and a callback waited: {there.cipher[0] if there.cipher else ''}"


@contextmanager
def _demo(version: int) -> Iterator[tuple[Callable[[Hooks], Config], Config]]:
    """Yields a function that makes a server's Config with hooks, and a client's Config that trusts it."""
    from greentls.certificates import CertificateChain
    from greentls.cli import pki
    from greentls.core.config import VERIFY_PEER, Config, TrustAnchors

    with tempfile.TemporaryDirectory() as directory:
        made = CertificateChain.load(pki.certificate(directory, ["localhost"]))
        trust = TrustAnchors(files=(os.path.join(directory, pki.CA_FILE),))
        config = partial(Config, minimum_version=version, maximum_version=version)
        client = config(server_side=False, trust=trust, verify_mode=VERIFY_PEER, alpn_protocols=[PROTOCOL])
        yield lambda hooks: config(server_side=True, certificates=[made], hooks=hooks), client


def _connect(server: Config, client: Config, session: Session | None = None) -> Connection:
    """Does a handshake. Returns the client's end, when it has everything that the server sends."""
    from greentls.core.connection import Connection
    from greentls.errors import WantRead

    here = Connection(client, server_hostname="localhost", session=session)
    there = Connection(server)
    for _ in range(10):
        for one, other in ((here, there), (there, here)):
            try:
                one.do_handshake() if not one.established else one.read()
            except WantRead:
                pass
            if data := one.data_to_send():
                other.receive_data(data)
    if not (here.established and there.established):
        raise Problem("the handshake does not end", REPORT)
    return here


# -- stores ------------------------------------------------------------------------------------------------------------


def shown(url: str) -> str:
    """Returns a store's URL without options and passwords."""
    return f"store {url.partition('?')[0].rpartition('@')[2]}"


def store(url: str) -> str:
    """Resumes through a store under each version. The server that resumes is not the one that made the session."""
    from greentls.core.session import Session
    from greentls.sessions.server import SessionCache
    from greentls.stores import open_store

    opened = open_store(url)
    try:
        try:
            _compare_secrets(opened)
        except Problem:
            raise
        except Exception as error:
            remedy = "start it, or correct the URL; until then each handshake is a full one"
            raise Problem(str(error) or repr(error), remedy) from None
        for name, version in VERSIONS.items():
            with _demo(version) as (server, client):
                first, second = (SessionCache(opened) for _ in range(2))
                made = _connect(server(first.hooks), client).session
                first.drain(first.timeout)
                again = _connect(server(second.hooks), client, Session.from_bytes(bytes(made)) if made else None)
                second.drain(second.timeout)
                if not again.session_reused:
                    raise Problem(f"{name} does not resume: the session is gone again", "give the store more memory")
    finally:
        opened.close()
    return f"{' and '.join(VERSIONS)} resume" + ("" if opened.shared else "; other processes do not share it")


def _compare_secrets(values: SharedValues) -> None:
    """Leaves a sealed value for the next server, or opens the one that another has left."""
    value, token = values.gets(MARK)
    if value is None and token is not None and values.shared:
        raise Problem(
            "it has a value that another server sealed, and that this secret_file does not open",
            "copy one secret file to all servers of this store, or keep fleets apart by context=NAME",
        )
    if value is None:
        values.add(MARK, b"%d" % time.time(), MARK_SECONDS)


# -- OCSP --------------------------------------------------------------------------------------------------------------


def ocsp(path: str) -> str:
    """Asks the responder of a certificate. path: a PEM file with the certificate and its issuer's."""
    from cryptography import x509

    from greentls.ocsp.fetch import fetch
    from greentls.ocsp.response import build_request, check_response, issuer_of, responder_url

    try:
        with open(path, "rb") as file:
            certificate, *others = x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        raise Problem(error.strerror or str(error), "give a file that can be read") from None
    except ValueError:
        raise Problem("not a PEM certificate", "give the server's chain, such as fullchain.pem") from None
    url = responder_url(certificate)
    if url is None:
        return "names no OCSP responder over HTTP, so there is nothing to staple"
    issuer = issuer_of(certificate, others)
    if issuer is None:
        raise Problem("its issuer's certificate is not in the file", "append it, or give fullchain.pem")
    try:
        answer = check_response(fetch(url, build_request(certificate, issuer), 10.0), certificate, issuer, time.time())
    except ResponderUnavailable as error:
        raise Problem(str(error), "allow connections to it from this machine, or try again later") from None
    except OCSPError as error:
        raise Problem(str(error), "ask the CA; a response like this is not stapled") from None
    if answer.status != "good":
        raise Problem(f"{answer.status}, says {answer.responder}", "replace the certificate")
    return f"good until {time.strftime('%Y-%m-%d %H:%M', time.gmtime(answer.good_until))} UTC, says {answer.responder}"


# -- wheels ------------------------------------------------------------------------------------------------------------


def wheel(path: str) -> str:
    """Counts the needed functions in a wheel."""
    from greentls.openssl import inventory

    try:
        count, absent, problem = inventory.in_wheel(path)
    except OSError as error:
        raise Problem(error.strerror or str(error), "give a file that can be read") from None
    if problem:
        raise Problem(f"none: {problem}", "on its platform, use another build of cryptography")
    if lost := sorted({inventory.cost(name) for name in absent} - {""}):
        raise Problem(f"{count} of {count + len(absent)}, not {', '.join(absent)}", f"do without {'; '.join(lost)}")
    return f"{count} of {count + len(absent)}" + (f", not {', '.join(absent)}, which costs little" if absent else "")


GENERAL: list[tuple[str, Callable[[], str]]] = [
    ("greentls", _greentls),
    *((name, partial(package, name)) for name in PACKAGES),
    ("OpenSSL", _openssl),
    ("functions", _functions),
    ("pump", _pump),
    ("hub", _hub),
    *((f"{name} handshake", partial(_handshake, version)) for name, version in VERSIONS.items()),
]
