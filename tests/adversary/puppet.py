"""A TLS peer of the tests' own, which says whatever it is told: TLS 1.3 and 1.2, either side, one cipher suite each.

A Peer holds the keys and the transcript, and so its flights are right in all but what an attack changes: a message that
is cut, doubled or forged goes out under the right key, and a changed hello is in the transcript as it was changed.

- say() takes a handshake message, record() anything else; go() sends what was said.
- message() reads what the target answers, one handshake message at a time. It raises Over if there is none.
- said and early_said hold the application data that the target may give to its caller; forged says that it may give
  none, since the peer has not proved who it is.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from greentls.wire import ClientHello, ServerHello
from greentls.wire.extensions import Extensions
from greentls.wire.handshake import message_bytes, opaque, uint16s
from greentls.wire.hello import HELLO_RETRY_REQUEST_RANDOM
from greentls.wire.registry import ContentType, ExtensionType, HandshakeType

CCS, ALERT, HANDSHAKE, DATA = (
    ContentType.change_cipher_spec,
    ContentType.alert,
    ContentType.handshake,
    ContentType.application_data,
)
X25519, P256 = 0x001D, 0x0017
ECDSA_P256 = 0x0403
SUITES = {"1.3": 0x1301, "1.2": 0xC02B}  # AES-128-GCM and SHA-256 both times
MAX_FRAGMENT = 2**14


class Over(Exception):
    """The target has ended the connection, or says nothing more."""


# -- keys --------------------------------------------------------------------------------------------------------------


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def digest(data):
    return hashlib.sha256(data).digest()


def expand(secret, label, context, length=32):
    """HKDF-Expand-Label (RFC 8446 7.1); 32 bytes at most."""
    info = length.to_bytes(2, "big") + opaque(1, b"tls13 " + label) + opaque(1, context)
    return mac(secret, info + b"\1")[:length]


def prf(secret, label, seed, length):
    """RFC 5246 5."""
    seed, out, a = label + seed, b"", label + seed
    while len(out) < length:
        a = mac(secret, a)
        out += mac(secret, a + seed)
    return out[:length]


class Keys13:
    """One direction's, RFC 8446 5.2."""

    def __init__(self, secret):
        self.secret, self.number = secret, 0
        self.aead = AESGCM(expand(secret, b"key", b"", 16))
        self.iv = int.from_bytes(expand(secret, b"iv", b"", 12), "big")

    def _nonce(self):
        self.number += 1
        return (self.iv ^ (self.number - 1)).to_bytes(12, "big")

    def seal(self, content_type, fragment, padding=0, outer=DATA, version=0x0303):
        inner = fragment + (b"" if content_type is None else bytes((content_type,))) + bytes(padding)
        header = bytes((outer,)) + version.to_bytes(2, "big") + (len(inner) + 16).to_bytes(2, "big")
        return header + self.aead.encrypt(self._nonce(), inner, header)

    def open(self, header, fragment):
        inner = self.aead.decrypt(self._nonce(), fragment, header).rstrip(b"\0")
        return inner[-1], inner[:-1]

    def update(self):
        return Keys13(expand(self.secret, b"traffic upd", b""))


class Keys12:
    """RFC 5288."""

    def __init__(self, key, salt):
        self.aead, self.salt, self.number = AESGCM(key), salt, 0

    def _associated(self, number, header, length):
        return number + header[:3] + length.to_bytes(2, "big")

    def seal(self, content_type, fragment, padding=0, outer=None, version=0x0303):
        number = self.number.to_bytes(8, "big")
        self.number += 1
        header = bytes((content_type if outer is None else outer,)) + version.to_bytes(2, "big")
        sealed = self.aead.encrypt(self.salt + number, fragment, self._associated(number, header, len(fragment)))
        return header + opaque(2, number + sealed)

    def open(self, header, fragment):
        number = self.number.to_bytes(8, "big")
        self.number += 1
        associated = self._associated(number, header, len(fragment) - 24)
        return header[0], self.aead.decrypt(self.salt + fragment[:8], fragment[8:], associated)


# -- the peer ----------------------------------------------------------------------------------------------------------


class Peer:
    """What both sides and both versions share. tamper: (message) -> [(content type, bytes)], what goes out instead."""

    version = "1.3"

    def __init__(self, rng, wire, credentials=None):
        self.rng, self.wire, self.credentials = rng, wire, credentials
        self.transcript = b""
        self.sealing = self.opening = None
        self.flight = []  # of records
        self.together = b""  # handshake messages that share a record
        self.tamper = None
        self.cut = rng.choice(("whole", "whole", "together", "pieces"))  # messages into records
        self.heard, self.half = b"", b""
        self.alerts, self.tickets = [], []
        self.said, self.early_said = bytearray(), bytearray()
        self.forged = False
        self.answered = bytearray()  # application data from the target

    # -- out

    def record(self, content_type, fragment, sealed=True, **how):
        self._flush()
        self._record(content_type, fragment, sealed, **how)

    def _record(self, content_type, fragment, sealed=True, **how):
        if self.sealing is not None and sealed:
            self.flight.append(self.sealing.seal(content_type, fragment, **how))
        else:
            version = how.get("version", 0x0303)
            self.flight.append(bytes((content_type,)) + version.to_bytes(2, "big") + opaque(2, fragment))

    def say(self, message):
        """A handshake message, into the transcript and, if nothing tampers with it, out."""
        self.transcript += message
        for content_type, content in self.tamper(message) if self.tamper else [(HANDSHAKE, message)]:
            if content_type == HANDSHAKE:
                self.together += content
                if self.cut == "whole":
                    self._flush()
            else:
                self.record(content_type, content)

    def _flush(self):
        together, self.together = self.together, b""
        size = self.rng.randrange(1, 60) if self.cut == "pieces" else MAX_FRAGMENT
        for at in range(0, len(together), size):
            self._record(HANDSHAKE, together[at : at + size])

    def use(self, keys):
        """From the next record on."""
        self._flush()
        self.sealing = keys

    def data(self, data):
        self.said += data
        self.record(DATA, data)

    def go(self, pieces=None):
        """Sends what was said, in as many pieces as the case likes, and lets the target have its turn."""
        self._flush()
        flight, self.flight = b"".join(self.flight), []
        self.wire.send(flight, pieces or self.rng.choice((1, 1, 1, 2, 5, 40)))
        self.heard += self.wire.turn()

    # -- in

    def hear(self):
        """The next record as (type, content)."""
        if len(self.heard) < 5 or len(self.heard) < 5 + int.from_bytes(self.heard[3:5], "big"):
            raise Over
        header, end = self.heard[:5], 5 + int.from_bytes(self.heard[3:5], "big")
        fragment, self.heard = self.heard[5:end], self.heard[end:]
        if self.opening is None or header[0] == CCS:
            return header[0], fragment
        return self.opening.open(header, fragment)

    def message(self, *kinds):
        """The next handshake message, which is one of these kinds; alerts and data on the way are kept."""
        while len(self.half) < 4 or len(self.half) < 4 + int.from_bytes(self.half[1:4], "big"):
            content_type, content = self.hear()
            if content_type == HANDSHAKE:
                self.half += content
            else:
                self._aside(content_type, content)
        end = 4 + int.from_bytes(self.half[1:4], "big")
        message, self.half = self.half[:end], self.half[end:]
        assert not kinds or message[0] in kinds, (message[0], kinds)
        self.transcript += message
        return message

    def _aside(self, content_type, content):
        if content_type == ALERT:
            self.alerts.append(tuple(content))
        elif content_type == DATA:
            self.answered += content
        elif content_type != CCS:
            raise AssertionError(f"a record of type {content_type} from the target")

    def listen(self):
        """Takes all that has come since: tickets, data, alerts."""
        try:
            while True:
                before = self.transcript
                message = self.message()
                self.transcript = before
                if message[0] == HandshakeType.new_session_ticket:
                    self.tickets.append(message)
                elif message[0] == HandshakeType.key_update:
                    self.opening = self.opening.update()
        except Over:
            pass


def hello_bytes(fields, extensions):
    return ClientHello(*fields, extensions=Extensions.of(*extensions.items())).to_bytes()


class Client(Peer):
    """hello(): the fields and extensions of its ClientHello, for an attack to change."""

    server_side = False
    name = b"localhost"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.random, self.session_id = self.rng.randbytes(32), self.rng.randbytes(32)
        self.key = X25519PrivateKey.from_private_bytes(self.rng.randbytes(32))
        self.offer_share = True
        self.change = lambda extensions: None

    def extensions(self):
        found = {
            ExtensionType.server_name: opaque(2, b"\0" + opaque(2, self.name)),
            ExtensionType.supported_groups: uint16s(2, (X25519, P256)),
            ExtensionType.signature_algorithms: uint16s(2, (ECDSA_P256, 0x0804, 0x0401)),
            ExtensionType.application_layer_protocol_negotiation: opaque(2, opaque(1, b"h2") + opaque(1, b"http/1.1")),
        }
        self.add(found)
        self.change(found)
        return found

    def hello(self):
        return (0x0303, self.random, self.session_id, (SUITES[self.version],))


class TLS13:
    """The key schedule (RFC 8446 7.1)."""

    def secrets(self, secret, stage):
        """The server's, and the client's."""
        return (expand(secret, side + stage + b" traffic", digest(self.transcript)) for side in (b"s ", b"c "))

    def finished(self, secret):
        return message_bytes(HandshakeType.finished, mac(expand(secret, b"finished", b""), digest(self.transcript)))


class Client13(TLS13, Client):
    resuming = None  # (identity, obfuscated age, psk)
    early_offer = False
    cookie = b""

    def add(self, extensions):
        share = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        shares = X25519.to_bytes(2, "big") + opaque(2, share) if self.offer_share else b""
        extensions[ExtensionType.supported_versions] = uint16s(1, (0x0304,))
        extensions[ExtensionType.key_share] = opaque(2, shares)
        extensions[ExtensionType.psk_key_exchange_modes] = b"\1\1"
        if self.cookie:
            extensions[ExtensionType.cookie] = opaque(2, self.cookie)
        if self.early_offer:
            extensions[ExtensionType.early_data] = b""

    def _hello(self):
        fields, extensions = self.hello(), self.extensions()
        if self.resuming is None:
            return hello_bytes(fields, extensions)
        identity, age, psk = self.resuming
        identities = opaque(2, opaque(2, identity) + age.to_bytes(4, "big"))
        extensions[ExtensionType.pre_shared_key] = identities + opaque(2, opaque(1, bytes(32)))
        message = hello_bytes(fields, extensions)
        binder_key = expand(mac(bytes(32), psk), b"res binder", digest(b""))
        binder = mac(expand(binder_key, b"finished", b""), digest(self.transcript + message[:-35]))
        return message[:-32] + binder

    def early(self, data):
        """Early data in the flight of the first hello. Call it between open() and answer()."""
        if self.sealing is None:
            secret = mac(bytes(32), self.resuming[2])
            self.use(Keys13(expand(secret, b"c e traffic", digest(self.transcript))))
        self.early_said += data
        self.record(DATA, data)

    def open(self):
        """The first hello, not sent yet."""
        self.say(self._hello())

    def handshake(self, second=lambda: None):
        """second: called before the second hello, after a HelloRetryRequest."""
        self.open()
        self.go()
        self.answer(second)
        self.finish()

    def answer(self, second=lambda: None):
        """Reads the server's flight, up to its Finished."""
        hello = ServerHello.parse(self.message(HandshakeType.server_hello))
        if hello.is_hello_retry_request:
            retry = hello.to_bytes()
            first = self.transcript[: -len(retry)]
            self.transcript = message_bytes(HandshakeType.message_hash, digest(first)) + retry
            self.offer_share, self.early_offer, self.cookie = True, False, hello.cookie or b""
            self.use(None)
            second()
            self.say(self._hello())
            self.go()
            hello = ServerHello.parse(self.message(HandshakeType.server_hello))
        resumed = hello.selected_identity is not None
        early = mac(bytes(32), self.resuming[2] if resumed else bytes(32))
        shared = self.key.exchange(X25519PublicKey.from_public_bytes(hello.key_share.key_exchange))
        secret = mac(expand(early, b"derived", digest(b"")), shared)
        theirs, self.ours = (
            expand(secret, side, digest(self.transcript)) for side in (b"s hs traffic", b"c hs traffic")
        )
        self.opening = Keys13(theirs)
        self.taken_early = False
        self.asked_for_certificate = False
        while (message := self.message())[0] != HandshakeType.finished:
            if message[0] == HandshakeType.encrypted_extensions:
                self.taken_early = b"\0\x2a\0\0" in message
            elif message[0] == HandshakeType.certificate_request:
                self.asked_for_certificate = True
        self.master = mac(expand(secret, b"derived", digest(b"")), bytes(32))
        theirs, self.next = (
            expand(self.master, side, digest(self.transcript)) for side in (b"s ap traffic", b"c ap traffic")
        )
        self.opening = Keys13(theirs)

    def finish(self, end_of_early_data=True):
        if self.taken_early and end_of_early_data:
            self.say(message_bytes(HandshakeType.end_of_early_data, b""))
        self.use(Keys13(self.ours))
        if self.asked_for_certificate:
            self.say(message_bytes(HandshakeType.certificate, bytes(4)))
        self.say(
            message_bytes(HandshakeType.finished, mac(expand(self.ours, b"finished", b""), digest(self.transcript)))
        )
        self.use(Keys13(self.next))
        self.resumption = expand(self.master, b"res master", digest(self.transcript))

    def ticket(self):
        """What the next Client13 can resume, from the last ticket that was heard."""
        body = self.tickets[-1][4:]
        age, nonce_end = int.from_bytes(body[4:8], "big"), 9 + body[8]
        nonce, length = body[9:nonce_end], int.from_bytes(body[nonce_end : nonce_end + 2], "big")
        identity = body[nonce_end + 2 : nonce_end + 2 + length]
        return identity, age, expand(self.resumption, b"resumption", nonce)


class Server(Peer):
    """credentials: (DER certificate, its key)."""

    server_side = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.random = self.rng.randbytes(32)
        self.key = X25519PrivateKey.from_private_bytes(self.rng.randbytes(32))
        self.public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, data):
        return self.credentials[1].sign(data, ec.ECDSA(hashes.SHA256()))

    def read_hello(self):
        self.heard += self.wire.turn()
        self.client_hello = ClientHello.parse(self.message(HandshakeType.client_hello))
        return self.client_hello


class Server13(TLS13, Server):
    more_extensions = ()  # of EncryptedExtensions
    ask_for_certificate = False

    def retry(self, extensions):
        """A HelloRetryRequest, and the hello that answers it."""
        first = self.transcript
        self.transcript = message_bytes(HandshakeType.message_hash, digest(first))
        suite, session_id = SUITES["1.3"], self.client_hello.legacy_session_id
        block = Extensions.of((ExtensionType.supported_versions, b"\3\4"), *extensions)
        self.say(ServerHello(0x0303, HELLO_RETRY_REQUEST_RANDOM, session_id, suite, extensions=block).to_bytes())
        self.go()
        return self.read_hello()

    def handshake(self, before=lambda: None):
        """before: called when the client's hello has been read."""
        hello = self.read_hello()
        before()
        hello = self.client_hello
        share = dict(hello.key_share).get(X25519)
        if share is None:  # it was asked for another one
            raise Over
        extensions = Extensions.of(
            (ExtensionType.supported_versions, b"\3\4"),
            (ExtensionType.key_share, X25519.to_bytes(2, "big") + opaque(2, self.public)),
        )
        self.say(ServerHello(0x0303, self.random, hello.legacy_session_id, 0x1301, extensions=extensions).to_bytes())
        early = mac(bytes(32), bytes(32))
        secret = mac(
            expand(early, b"derived", digest(b"")), self.key.exchange(X25519PublicKey.from_public_bytes(share))
        )
        ours, theirs = self.secrets(secret, b"hs")
        self.use(Keys13(ours))
        self.opening = Keys13(theirs)
        block = Extensions.of(*self.more_extensions).to_bytes()
        self.say(message_bytes(HandshakeType.encrypted_extensions, block))
        if self.ask_for_certificate:
            self.say(certificate_request(b""))
        self.say(message_bytes(HandshakeType.certificate, b"\0" + opaque(3, opaque(3, self.credentials[0]) + b"\0\0")))
        signed = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + digest(self.transcript)
        body = ECDSA_P256.to_bytes(2, "big") + opaque(2, self.sign(signed))
        self.say(message_bytes(HandshakeType.certificate_verify, body))
        self.say(self.finished(ours))
        master = mac(expand(secret, b"derived", digest(b"")), bytes(32))
        ours, theirs = self.secrets(master, b"ap")
        self.use(Keys13(ours))
        self.go()
        while self.message()[0] != HandshakeType.finished:
            pass
        self.opening = Keys13(theirs)


def certificate_request(context):
    algorithms = Extensions.of((ExtensionType.signature_algorithms, uint16s(2, (ECDSA_P256,)))).to_bytes()
    return message_bytes(HandshakeType.certificate_request, opaque(1, context) + algorithms)


# -- TLS 1.2 -----------------------------------------------------------------------------------------------------------


class TLS12:
    """The keys: the master secret is the extended one (RFC 7627)."""

    version = "1.2"

    def derive(self, premaster, client_random, server_random):
        self.master = prf(premaster, b"extended master secret", digest(self.transcript), 48)
        block = prf(self.master, b"key expansion", server_random + client_random, 40)
        self.client_keys = Keys12(block[:16], block[32:36])
        self.server_keys = Keys12(block[16:32], block[36:40])

    def say_finished(self, keys, label):
        self.record(CCS, b"\1")
        self.use(keys)
        self.say(message_bytes(HandshakeType.finished, prf(self.master, label, digest(self.transcript), 12)))

    def hear_finished(self, keys):
        """The target's ChangeCipherSpec and Finished."""
        while True:
            content_type, content = self.hear()
            if content_type == CCS:
                break
            self._aside(content_type, content)
        self.opening = keys
        self.message(HandshakeType.finished)


class Client12(TLS12, Client):
    def add(self, extensions):
        extensions[ExtensionType.ec_point_formats] = b"\1\0"
        extensions[ExtensionType.extended_master_secret] = b""
        extensions[ExtensionType.renegotiation_info] = b"\0"

    def open(self):
        self.say(hello_bytes(self.hello(), self.extensions()))

    def handshake(self, second=None):
        self.open()
        self.go()
        self.answer()
        self.finish()

    def answer(self):
        hello = ServerHello.parse(self.message(HandshakeType.server_hello))
        self.asked_for_certificate = False
        while (message := self.message())[0] != HandshakeType.server_hello_done:
            if message[0] == HandshakeType.server_key_exchange:
                self.share = message[8 : 8 + message[7]]
            elif message[0] == HandshakeType.certificate_request:
                self.asked_for_certificate = True
        self.server_random = hello.random

    def finish(self):
        if self.asked_for_certificate:
            self.say(message_bytes(HandshakeType.certificate, bytes(3)))
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.say(message_bytes(HandshakeType.client_key_exchange, opaque(1, public)))
        if len(self.share) != 32:  # of another group
            raise Over
        premaster = self.key.exchange(X25519PublicKey.from_public_bytes(self.share))
        self.derive(premaster, self.random, self.server_random)
        self.say_finished(self.client_keys, b"client finished")
        self.go()
        self.hear_finished(self.server_keys)


class Server12(TLS12, Server):
    def handshake(self, before=lambda: None):
        hello = self.read_hello()
        before()
        block = ((ExtensionType.extended_master_secret, b""), (ExtensionType.renegotiation_info, b"\0"))
        self.say(ServerHello(0x0303, self.random, os.urandom(32), 0xC02B, extensions=Extensions.of(*block)).to_bytes())
        certificates = opaque(3, opaque(3, self.credentials[0]))
        self.say(message_bytes(HandshakeType.certificate, certificates))
        params = b"\3" + X25519.to_bytes(2, "big") + opaque(1, self.public)
        signature = self.sign(hello.random + self.random + params)
        body = params + ECDSA_P256.to_bytes(2, "big") + opaque(2, signature)
        self.say(message_bytes(HandshakeType.server_key_exchange, body))
        self.say(message_bytes(HandshakeType.server_hello_done, b""))
        self.go()
        share = self.message(HandshakeType.client_key_exchange)[5:]
        self.derive(self.key.exchange(X25519PublicKey.from_public_bytes(share)), hello.random, self.random)
        self.hear_finished(self.client_keys)
        self.say_finished(self.server_keys, b"server finished")
        self.go()
