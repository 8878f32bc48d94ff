"""KeyProcess: the inside of a process that does nothing but sign. ``greentls keys serve`` runs one.

It holds the keys, and answers the requests of greentls.keys.protocol. A peer that may connect can have anything
signed. So only the owner has access to the socket's file, and the kernel tells the user of each peer (SO_PEERCRED,
unix(7)).
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from greentls.errors import ConfigurationError
from greentls.hub import Readable, here
from greentls.keys.algorithms import ALGORITHMS, algorithms_of
from greentls.keys.protocol import DONE, FINGERPRINT, LIST, MAX_REQUEST, REFUSED, SIGN, receive, send
from greentls.log_limit import LogLimit
from greentls.secret_file import read_secret_file

__all__ = ["MAX_CONNECTIONS", "MAX_OF_ONE", "KeyProcess", "read_key", "sign"]

log = logging.getLogger("greentls.keys")

IDLE = 600.0  # seconds: a connection without a request ends after that, and an Agent makes another one
PAUSE = 0.1  # seconds before the next accept() if one has failed
MAX_CONNECTIONS = 1024  # each may hold a request of MAX_REQUEST bytes
MAX_OF_ONE = 256  # of one process, for eight hubs with agent.CONNECTIONS each; other workers then have room

_HEAD = 2 + FINGERPRINT  # the bytes of a SIGN before the algorithm's name
_PEER = struct.Struct("iII")  # struct ucred

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def read_key(path: str | os.PathLike[str], passphrase: bytes | None = None) -> PrivateKey:
    """Reads the private key from a PEM file, which nobody else may be able to read. Raises ConfigurationError, OSError.

    passphrase: the one that opens an encrypted file.
    """
    subject = f"key file {os.fspath(path)}"
    data = read_secret_file(path, subject)
    try:
        try:
            key = serialization.load_pem_private_key(data, None)
        except TypeError:
            if not passphrase:
                raise ConfigurationError(subject, "the key is encrypted", "give --passphrase FILE") from None
            key = _decrypted(data, passphrase, subject)
        algorithms_of(key.public_key())
    except ConfigurationError as error:
        raise ConfigurationError(subject, error.problem, error.remedy) from None
    except (UnsupportedAlgorithm, ValueError):
        raise ConfigurationError(subject, "no PEM private key in it", "give the key's PEM file") from None
    return cast(PrivateKey, key)  # algorithms_of() has refused other kinds


def _decrypted(data: bytes, passphrase: bytes, subject: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(data, passphrase)
    except ValueError:
        raise ConfigurationError(subject, "the passphrase does not open the key") from None


class KeyProcess:
    """Signs with its keys, for peers that run under one of the user ids."""

    def __init__(self, keys: Iterable[PrivateKey], uids: Collection[int]) -> None:
        self._held: dict[bytes, PrivateKey] = {}  # by the public key, in DER
        self._keys: dict[bytes, PrivateKey] = {}  # by its SHA-256
        self._list = b""
        self._uids = frozenset(uids)
        self._connections: dict[object, int] = {}  # socket: the peer's process
        self.hold(keys)

    def hold(self, keys: Iterable[PrivateKey]) -> None:
        """Signs with these keys from now on. The previous keys stay until the next change, as servers may still use
        them."""
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        held = {key.public_key().public_bytes(*form): key for key in keys}
        if held.keys() == self._held.keys():
            return
        before, self._held = self._held, held
        public = {**before, **self._held}
        self._keys = {sha256(der).digest(): key for der, key in public.items()}
        self._list = b"".join(len(der).to_bytes(2, "big") + der for der in public)

    def serve(self, listener: socket.socket) -> None:
        """Accepts connections for ever. listener: a socket of the hub's."""
        hub, limit = here(), LogLimit()
        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:  # for example, there are no descriptors left
                if limit.allows():
                    log.warning("no connection was accepted: %s", error)
                hub.sleep(PAUSE)
                continue
            if self._admits(sock):
                hub.spawn(self._talk, sock)
            else:
                sock.close()

    def _admits(self, sock: socket.socket) -> bool:
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in self._uids:
            log.warning("process %d of user %d was refused", pid, uid)
            return False
        peers = list(self._connections.values())
        its = peers.count(pid)
        if len(peers) >= MAX_CONNECTIONS or its >= MAX_OF_ONE:
            log.warning("process %d was refused: there are %d connections, %d of them its own", pid, len(peers), its)
            return False
        self._connections[sock] = pid
        return True

    def _talk(self, sock: socket.socket) -> None:
        """Serves one connection. It waits in the hub before each request, even if the request is there already. So a
        peer that sends many requests at once gets no more answers than the others."""
        with sock:
            sock.settimeout(IDLE)
            readable = here().readable(sock.fileno(), IDLE)
            try:
                while _has_come(readable) and (request := receive(sock, MAX_REQUEST)) is not None:
                    send(sock, request[0], self.answer(request[1]))
            except OSError as error:
                log.warning("a connection has ended: %s", error)
            finally:
                readable.close()
                del self._connections[sock]

    def answer(self, request: bytes) -> bytes:
        """Returns the answer to a request."""
        if request == LIST:
            return DONE + self._list
        if not request.startswith(SIGN) or len(request) < _HEAD or len(request) < _HEAD + request[_HEAD - 1]:
            return REFUSED + b"no such request"
        key, at = self._keys.get(request[1 : 1 + FINGERPRINT]), _HEAD + request[_HEAD - 1]
        name, message = request[_HEAD:at].decode("ascii", "replace"), request[at:]
        if key is None:
            return REFUSED + b"no such key"
        if name not in algorithms_of(key.public_key()):
            return REFUSED + b"not an algorithm of this key"
        try:
            return DONE + sign(key, message, name)
        except ValueError as error:  # an RSA key of 1024 bits is too short for the longest digests
            return REFUSED + str(error).encode("ascii", "replace")


def _has_come(readable: Readable) -> bool:
    try:
        readable.wait()
    except TimeoutError:
        return False
    return True


def sign(key: PrivateKey, message: bytes, algorithm: str) -> bytes:
    """Returns the signature of a message. algorithm: one of ALGORITHMS."""
    facts = ALGORITHMS[algorithm]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    assert facts.hash is not None
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, facts.rsa_padding, facts.hash)
    return key.sign(message, ec.ECDSA(facts.hash))
