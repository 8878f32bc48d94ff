"""tlslite-ng as the peer: an implementation that shares no code with ours, OpenSSL's or puppet.py's.

It speaks what it always speaks, and one of its handshake records is forged on the way out, under the right key. Its
keys and randoms do not come from the case's seed.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from tests.adversary.puppet import HANDSHAKE

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore where there is one
    from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
    from tlslite.errors import TLSError
    from tlslite.messages import Message

VERSIONS = {"1.2": (3, 3), "1.3": (3, 4)}


class Wire:
    """What tlslite takes for its socket."""

    def __init__(self, target):
        self.target, self.heard = target, b""

    def sendall(self, data):
        self.target.send(bytes(data))

    def send(self, data):
        self.sendall(data)
        return len(data)

    def recv(self, size):
        self.heard = self.heard or self.target.turn()
        data, self.heard = self.heard[:size], self.heard[size:]
        return data

    def close(self):
        pass


class Connection(TLSConnection):
    """peer: what has become of it, and what becomes of its handshake records."""

    def __init__(self, target, peer):
        super().__init__(Wire(target))
        self.peer = peer

    def _sendMsgThroughSocket(self, msg):
        for content_type, data in self.peer.records(msg.contentType, bytes(msg.write())):
            yield from super()._sendMsgThroughSocket(Message(content_type, bytearray(data)))


class LitePeer:
    """forge: what becomes of the at-th handshake record."""

    def __init__(self, rng, forge, at):
        self.rng, self.forge, self.at = rng, forge, at
        self.count = 0
        self.early_said, self.said = b"", b"hello from tlslite"
        self.forged = self.doomed = self.closed = self.expected = False

    def records(self, content_type, data):
        self.count += content_type == HANDSHAKE
        if content_type == HANDSHAKE and self.count == self.at:
            self.forged = True
            return self.forge(self, data)
        return [(content_type, data)]

    def drive(self, target, version, certificate, key):
        """The whole of its part. certificate, key: files."""
        connection = Connection(target, self)
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = VERSIONS[version]
        settings.eccCurves, settings.keyShares, settings.cipherNames = (
            ["x25519", "secp256r1"],
            ["x25519"],
            ["aes128gcm"],
        )
        try:
            if target.server_side:
                connection.handshakeClientCert(settings=settings, serverName="localhost")
            else:
                chain = X509CertChain()
                chain.parsePemList(Path(certificate).read_text())
                private = parsePEMKey(Path(key).read_text(), private=True)
                connection.handshakeServer(certChain=chain, privateKey=private, settings=settings, alpn=[b"h2"])
            self.expected = not self.forged
            connection.write(self.said)
            self.closed = True
            connection.close()
        except (TLSError, OSError):
            pass
