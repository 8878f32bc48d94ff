"""KeyProcess: the keys of a process that does nothing but sign. ``greentls keys serve`` runs one.

It reads the keys, and answers the requests of greentls.keys.protocol. Whoever may connect may have anything signed: so
the socket's file is for its owner only, and each peer is asked by the kernel who it is (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from greentls.errors import ConfigurationError
from greentls.hub import here
from greentls.keys.algorithms import ALGORITHMS, algorithms_of
from greentls.keys.protocol import DONE, FINGERPRINT, LIST, MAX_REQUEST, REFUSED, SIGN, receive, send
from greentls.secret_file import read_secret_file

__all__ = ["MAX_CONNECTIONS", "KeyProcess", "read_key", "sign"]

log = logging.getLogger("greentls.keys")

MAX_CONNECTIONS = 1024  # each may hold a request of MAX_REQUEST bytes; a worker has at most agent.CONNECTIONS

_HEAD = 2 + FINGERPRINT  # of a SIGN, up to the algorithm's name
_PEER = struct.Struct("iII")  # struct ucred

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def read_key(path: str | os.PathLike[str]) -> PrivateKey:
    """The private key of a PEM file that nobody else can read. Raises ConfigurationError, OSError."""
    subject = f"key file {os.fspath(path)}"
    try:
        data = read_secret_file(path, subject)
        key: Any = serialization.load_pem_private_key(data, None)  # Any: algorithms_of() knows the kind
        algorithms_of(key.public_key())
    except TypeError:
        remedy = f"decrypt it: openssl pkey -in {os.fspath(path)} -out FILE"
        raise ConfigurationError(subject, "the key is encrypted", remedy) from None
    except ConfigurationError as error:
        raise ConfigurationError(subject, error.problem, error.remedy) from None
    except (UnsupportedAlgorithm, ValueError):
        raise ConfigurationError(subject, "no PEM private key in it", "give the key's PEM file") from None
    loaded: PrivateKey = key
    return loaded


class KeyProcess:
    """Signs by keys, for peers whose user id is one of uids."""

    def __init__(self, keys: Iterable[PrivateKey], uids: Collection[int]) -> None:
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        public = {key.public_key().public_bytes(*form): key for key in keys}
        self._keys = {sha256(der).digest(): key for der, key in public.items()}
        self._list = b"".join(len(der).to_bytes(2, "big") + der for der in public)
        self._uids = frozenset(uids)
        self._connections: set[object] = set()

    def serve(self, listener: socket.socket) -> None:
        """Accepts from one of the hub's sockets, for ever."""
        hub = here()
        while True:
            sock, _ = listener.accept()
            if self._admits(sock):
                self._connections.add(sock)
                hub.spawn(self._talk, sock)
            else:
                sock.close()

    def _admits(self, sock: socket.socket) -> bool:
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in self._uids:
            log.warning("process %d of user %d was refused", pid, uid)
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("process %d was refused: there are %d connections", pid, MAX_CONNECTIONS)
            return False
        return True

    def _talk(self, sock: socket.socket) -> None:
        try:
            with sock:
                while (request := receive(sock, MAX_REQUEST)) is not None:
                    send(sock, self.answer(request))
        except OSError as error:
            log.warning("a connection has ended: %s", error)
        finally:
            self._connections.discard(sock)

    def answer(self, request: bytes) -> bytes:
        """What a request is answered with."""
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
        return DONE + sign(key, message, name)


def sign(key: PrivateKey, message: bytes, algorithm: str) -> bytes:
    """Signs a message by one of ALGORITHMS."""
    facts = ALGORITHMS[algorithm]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    assert facts.hash is not None
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, facts.rsa_padding, facts.hash)
    return key.sign(message, ec.ECDSA(facts.hash))
