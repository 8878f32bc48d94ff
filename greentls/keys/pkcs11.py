"""PKCS11: keys in a hardware module (HSM, TPM, smart card) that has a PKCS #11 library.

A call of PKCS #11 blocks its thread, so every call is made in one of the hub's native threads. python-pkcs11
initialises a library for programs of one thread (C_Initialize(NULL), PKCS #11 3.0, 5.4), so each library gets one call
at a time. The lock for that is taken and released in the native thread. The greenlet that waits for the thread could
not release it: it may be killed while the token still computes.

A token need not tell which public key belongs to a private key. So each private key that fits the URI signs a message,
and the key is the one whose signature verifies.

After a fork a library must be initialised again (PKCS #11 3.0, 5.6.1). The sessions from before the fork are forgotten.
"""

from __future__ import annotations

import _thread
import os
import sys
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import pkcs11
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import MGF, Attribute, Mechanism, ObjectClass
from pkcs11 import lib as load

from greentls.errors import ConfigurationError, SigningError
from greentls.hub import PerHub, here
from greentls.keys.algorithms import PublicKey, algorithms_of, check, digest
from greentls.keys.signer import MAX_WAITING
from greentls.secret_file import read_passphrase

__all__ = ["PKCS11"]

# A lock of native threads. gevent replaces the standard library's allocate_lock() by one for greenlets.
_monkey = sys.modules.get("gevent.monkey")
allocate_lock = _monkey.get_original("_thread", "allocate_lock") if _monkey else _thread.allocate_lock

# Native threads of one hub that may wait for a token. The hub has ten, and needs some for name lookups and files.
THREADS = 4

_WHICH = b"greentls: which key is this?"

_PATH = {"token", "serial", "manufacturer", "model", "object", "id", "type"}
_QUERY = {"module-path", "pin-value", "pin-source"}

Thing = Any  # a library, token, session or key of python-pkcs11, which is untyped

# By algorithm: the mechanism and its parameter. The token makes the digest, except for ECDSA (see _signed()).
_MECHANISMS: dict[str, tuple[Mechanism, object]] = {
    "ed25519": (Mechanism.EDDSA, None),
    "ecdsa_secp256r1_sha256": (Mechanism.ECDSA, None),
    "ecdsa_secp384r1_sha384": (Mechanism.ECDSA, None),
    "rsa_pkcs1_sha256": (Mechanism.SHA256_RSA_PKCS, None),
    "rsa_pkcs1_sha384": (Mechanism.SHA384_RSA_PKCS, None),
    "rsa_pkcs1_sha512": (Mechanism.SHA512_RSA_PKCS, None),
    "rsa_pss_rsae_sha256": (Mechanism.SHA256_RSA_PKCS_PSS, (Mechanism.SHA256, MGF.SHA256, 32)),
    "rsa_pss_rsae_sha384": (Mechanism.SHA384_RSA_PKCS_PSS, (Mechanism.SHA384, MGF.SHA384, 48)),
    "rsa_pss_rsae_sha512": (Mechanism.SHA512_RSA_PKCS_PSS, (Mechanism.SHA512, MGF.SHA512, 64)),
}


def parse_uri(uri: str) -> dict[str, bytes]:
    """The decoded attributes of a PKCS #11 URI (RFC 7512). Raises ConfigurationError, which shows no values."""
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if scheme.lower() != "pkcs11":
        raise ConfigurationError("PKCS #11 URI", "it does not begin with pkcs11:", "see RFC 7512")
    attributes: dict[str, bytes] = {}
    for part, separator, known in ((path, ";", _PATH), (query, "&", _QUERY)):
        for each in filter(None, part.split(separator)):
            name, equals, value = each.partition("=")
            if not equals or name not in known:
                problem, remedy = f"unknown attribute {name!r}", f"known are {', '.join(sorted(_PATH | _QUERY))}"
                raise ConfigurationError("PKCS #11 URI", problem, remedy)
            if name in attributes:
                raise ConfigurationError("PKCS #11 URI", f"{name} occurs twice", "leave one out")
            attributes[name] = unquote_to_bytes(value)
    if attributes.get("type", b"private") != b"private":
        raise ConfigurationError("PKCS #11 URI", "type is not private", "leave it out")
    if "module-path" not in attributes:
        problem, remedy = "there is no module-path", "add one, such as ?module-path=/usr/lib/softhsm/libsofthsm2.so"
        raise ConfigurationError("PKCS #11 URI", problem, remedy)
    if {"pin-value", "pin-source"} <= attributes.keys():
        raise ConfigurationError("PKCS #11 URI", "both pin-value and pin-source", "leave one out")
    return attributes


class PKCS11:
    """A KeySource that has the private keys of a token. The token is named by a URI such as

        pkcs11:token=web;object=site?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/web.pin

    uri: RFC 7512, with token, serial, manufacturer, model, object, id, and module-path, pin-value, pin-source (a file
    that others cannot read). max_waiting: signatures by one key that may be outstanding at once. Needs python-pkcs11:
    pip install greentls[pkcs11]. Raises ConfigurationError; signing raises SigningError if the token refuses.
    """

    def __init__(self, uri: str, *, max_waiting: int = MAX_WAITING) -> None:
        self._attributes = parse_uri(uri)
        self.path = os.fsdecode(self._attributes["module-path"])
        self.max_waiting, self.turns = max_waiting, PerHub(_Turns)

    def get(self, public_key: PublicKey) -> _TokenKey | None:
        """Returns the key, None if the token does not have it. Waits for the token. Raises SigningError,
        ConfigurationError, OSError."""
        key = _TokenKey(self, public_key)
        return key if here().in_thread(key.find) else None

    def open(self) -> Thing:
        """Opens a session of the token. To be called in a native thread."""
        attributes, pin = self._attributes, self._attributes.get("pin-value")
        if "pin-source" in attributes:
            path = os.fsdecode(attributes["pin-source"]).removeprefix("file:")
            pin = read_passphrase(path, f"PIN file {path}")
        token = self._token()
        if pin is None:
            return token.open()
        try:
            return token.open(user_pin=pin.decode("utf-8", "replace"))
        except pkcs11.UserAlreadyLoggedIn:  # a login of another session counts for the whole process
            return token.open()

    def private_keys(self, session: Thing) -> list[Thing]:
        """The private keys that fit the URI."""
        wanted: dict[Attribute, object] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        if "object" in self._attributes:
            wanted[Attribute.LABEL] = self._attributes["object"].decode("utf-8", "replace")
        if "id" in self._attributes:
            wanted[Attribute.ID] = self._attributes["id"]
        return list(session.get_objects(wanted))

    def _token(self) -> Thing:
        for token in _library(self.path).get_tokens():
            facts = {"token": token.label, "serial": token.serial}
            facts |= {"manufacturer": token.manufacturer_id, "model": token.model}
            if all(self._attributes.get(name, _octets(fact)) == _octets(fact) for name, fact in facts.items()):
                return token
        raise ConfigurationError(
            "PKCS #11 URI", "no such token", f"see those of {self.path}: pkcs11-tool --list-token-slots"
        )

    def __repr__(self) -> str:
        return f"<PKCS11 {self._attributes.get('token', b'').decode('utf-8', 'replace')}>"  # without the PIN


def _octets(fact: str | bytes) -> bytes:
    return fact.encode() if isinstance(fact, str) else fact


_processes: dict[str, int] = {}  # by a library's path: the id of the process that has initialised it


def _library(path: str) -> Thing:
    try:
        library = load(path)
    except pkcs11.PKCS11Error as error:
        remedy = "give the path of the token's library"
        raise ConfigurationError(f"PKCS #11 module {path}", str(error), remedy) from None
    if _processes.setdefault(path, os.getpid()) != os.getpid():
        library.reinitialize()
        _processes[path] = os.getpid()
    return library


def _one_at_a_time(path: str) -> Thing:
    """The lock of a library. A forked process gets new locks: nobody in it would release one that was taken."""
    return _locks.setdefault((path, os.getpid()), allocate_lock())


_locks: dict[tuple[str, int], Thing] = {}


class _Turns:
    """Bounds how many greenlets and native threads of one hub wait for a token.

    busy: the native threads that wait, including those whose greenlet has stopped waiting.
    """

    def __init__(self) -> None:
        self.places = here().semaphore(THREADS)
        self.busy: set[object] = set()


class _Use(NamedTuple):
    """A session with the key in it."""

    session: Thing
    key: Thing
    process: int


class _TokenKey:
    """A SigningKey."""

    def __init__(self, source: PKCS11, public_key: PublicKey) -> None:
        self.public_key, self.algorithms = public_key, algorithms_of(public_key)
        self.max_waiting = source.max_waiting
        self._source = source
        self._use: _Use | None = None

    def sign(self, data: bytes, algorithm: str) -> bytes:
        turns, me = self._source.turns.get(), object()
        with turns.places:
            if len(turns.busy) >= THREADS:
                raise SigningError(algorithm, "the token has not answered the earlier requests")
            turns.busy.add(me)
            return here().in_thread(self._sign, data, algorithm, turns.busy, me)

    # -- in a native thread --------------------------------------------------------------------------------------------

    def find(self) -> bool:
        """Whether the token has the key."""
        with _one_at_a_time(self._source.path):
            self._use = self._open("find")
            return self._use is not None

    def _sign(self, data: bytes, algorithm: str, busy: set[object], me: object) -> bytes:
        try:
            with _one_at_a_time(self._source.path):
                use = self._use
                if use is None or use.process != os.getpid():
                    use = self._open(algorithm)
                if use is None:
                    raise SigningError(algorithm, "the token does not have the key any more")
                self._use = None
                try:
                    signature = _signed(use.key, data, algorithm)
                except pkcs11.PKCS11Error as error:
                    _close(use.session)  # the next signature opens another one
                    raise _error(algorithm, error) from error
                self._use = use
                return signature
        finally:
            busy.discard(me)

    def _open(self, what: str) -> _Use | None:
        session = use = None
        try:
            session = self._source.open()
            key = next(filter(self._is_mine, self._source.private_keys(session)), None)
            use = key and _Use(session, key, os.getpid())
            return use
        except pkcs11.PKCS11Error as error:
            raise _error(what, error) from error
        finally:
            if session is not None and use is None:
                _close(session)

    def _is_mine(self, key: Thing) -> bool:
        name = self.algorithms[-1]
        try:
            check(self.public_key, _signed(key, _WHICH, name), _WHICH, name)
        except (pkcs11.PKCS11Error, SigningError):  # a key of another kind, or another key
            return False
        return True


def _signed(key: Thing, data: bytes, algorithm: str) -> bytes:
    mechanism, parameter = _MECHANISMS[algorithm]
    if mechanism is not Mechanism.ECDSA:
        signature: bytes = key.sign(data, mechanism=mechanism, mechanism_param=parameter)
        return signature
    numbers = key.sign(digest(data, algorithm), mechanism=mechanism)
    half = len(numbers) // 2
    return encode_dss_signature(int.from_bytes(numbers[:half], "big"), int.from_bytes(numbers[half:], "big"))


def _error(what: str, error: Exception) -> SigningError:
    return SigningError(what, f"the token: {type(error).__name__} {error}".rstrip())


def _close(session: Thing) -> None:
    try:
        session.close()
    except pkcs11.PKCS11Error:
        pass  # it is closed already
