"""What the shim does once its flags are read: settings to a Config, a handshake, an echo, an end."""

from __future__ import annotations

import socket
import sys

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_NONE, VERIFY_PEER, Config, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.early_data import EarlyConnection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import GreenTLSError, UnexpectedEOF, UnsupportedOpenSSL, WantRead
from greentls.tickets import TicketKey
from tests.bogo.flags import Unimplemented, parse

GROUPS = {
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    29: "X25519",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
SIGNATURES = {
    0x0201: "rsa_pkcs1_sha1",
    0x0203: "ecdsa_sha1",
    0x0401: "rsa_pkcs1_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
}
VERSIONS = {"tls1": 0x0301, "tls11": 0x0302, "tls12": 0x0303, "tls13": 0x0304}
EARLY_DATA = 14336  # bytes that a ticket allows: what BoringSSL has
TICKET_KEY = TicketKey(b"greentls for BoG", bytes(range(32)), bytes(range(32)))


class Failed(Exception):
    """What the runner expects does not hold, or a hook says no as it is told to."""


def run(arguments):
    """Returns the exit code."""
    try:
        stages = parse(arguments)
        if stages["initial"].is_handshaker_supported:
            print("No")
            return 0
        exchange = Exchange(stages)
        for number in range(1 + (stages["initial"].resume_count or 0)):
            exchange.connection(number)
    except (Unimplemented, UnsupportedOpenSSL) as error:
        print(f"unimplemented: {error}", file=sys.stderr)
        return 89
    except (GreenTLSError, Failed, OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or str(error)
        print(f"{error}\n:{reason.upper().replace(' ', '_')}:", file=sys.stderr)
        return 1
    return 0


def expect(true, what):
    if not true:
        raise Failed(f"expected otherwise: {what}")


def names_of(numbers, names):
    if unknown := [number for number in numbers if number not in names]:
        raise Unimplemented(f"{unknown}")
    return ":".join(names[number] for number in numbers)


class Exchange:
    """All connections of one test."""

    def __init__(self, stages):
        self.stages = stages
        self.session = None
        self.kept = {}  # sessions of a server without tickets
        self.offered = ()  # ALPN

    def connection(self, number):
        flags = self.flags = self.stages["resume" if number else "initial"]
        family, host = (socket.AF_INET6, "::1") if flags.ipv6 else (socket.AF_INET, "127.0.0.1")
        with socket.socket(family) as self.sock:
            self.sock.connect((host, flags.port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.sendall(flags.shim_id.to_bytes(8, "little"))
            self.tls = self.make()
            try:
                self.do(self.tls.do_handshake)
                if self.tls.early_data_accepted is False and not flags.server:
                    self.flags = self.stages["retry"]
                self.check(resuming=number > 0)
                self.talk()
            finally:
                self.hang_up()

    # -- settings

    def make(self):
        flags = self.flags
        allowed = [number for name, number in VERSIONS.items() if not getattr(flags, f"no_{name}")]
        expect(allowed, "a version")
        minimum = max(flags.min_version or 0, allowed[0])
        maximum = min(flags.max_version or 0xFFFF, allowed[-1])
        if minimum not in VERSIONS.values() or maximum not in VERSIONS.values():
            raise Unimplemented("DTLS, or a version of no name")
        verify_mode = VERIFY_PEER if flags.verify_peer else VERIFY_NONE
        if flags.require_any_client_certificate:
            if not flags.trust_cert:
                raise Unimplemented("a certificate that nobody vouches for is not accepted")
            verify_mode = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
        self.verifies = bool(verify_mode)
        early = flags.enable_early_data and flags.server and not verify_mode and not flags.psk
        settings = {
            "minimum_version": minimum,
            "maximum_version": maximum,
            "certificates": [CertificateChain.load(flags.cert_file, flags.key_file)] if flags.cert_file else (),
            "trust": TrustAnchors(files=(flags.trust_cert,) if flags.trust_cert else ()),
            "verify_mode": verify_mode,
            "ciphers": (flags.cipher or "ALL") + ":@SECLEVEL=0",
            "ciphersuites": flags.tls13_ciphersuites or "",
            "groups": names_of(flags.curves, GROUPS),
            "signature_algorithms": names_of(flags.signing_prefs + flags.verify_prefs, SIGNATURES),
            "options": 1 << 14 if flags.no_ticket else 0,  # SSL_OP_NO_TICKET
            "num_tickets": 0 if flags.no_ticket and flags.server else None,
            "psk_identity_hint": (flags.psk_identity or "").encode() if flags.server else b"",
            "max_early_data": EARLY_DATA if early else 0,
            "hooks": self.hooks(early),
        }
        context = Config(server_side=flags.server, alpn_protocols=self.protocols(), **settings)
        if flags.server:
            return EarlyConnection(context) if early else Connection(context)
        client = Connection(context, server_hostname=flags.host_name, verify_hostname=False, session=self.session)
        if flags.enable_early_data and self.session is not None:
            if flags.expect_accept_early_data and not flags.shim_writes_first:
                raise Unimplemented("early data are offered where there are some")
            client.early_data = b"hello" if flags.shim_writes_first else b""
        return client

    def protocols(self):
        """Of -advertise-alpn, which is as RFC 7301 has it on the wire."""
        protocols, rest = [], (self.flags.advertise_alpn or "").encode("latin-1")
        while rest:
            protocols.append(rest[1 : 1 + rest[0]])
            rest = rest[1 + rest[0] :]
        return protocols

    def hooks(self, early):
        flags, hooks = self.flags, {}
        if flags.server:
            if flags.no_ticket:
                hooks.update(get_session=self.get, new_session=self.keep)
            else:
                hooks["ticket_key"] = self.ticket_key
            if flags.select_alpn is not None or flags.decline_alpn or flags.reject_alpn:
                hooks["alpn"] = self.alpn
            if flags.ocsp_response is not None or flags.use_ocsp_callback:
                hooks["ocsp"] = self.staple
            if early:
                hooks["early_data"] = lambda connection, random: True
            if flags.psk is not None:
                hooks["psk_server"] = lambda connection, identity: flags.psk.encode()
        else:
            if flags.enable_ocsp_stapling or flags.use_ocsp_callback:
                hooks["ocsp"] = self.stapled
            if flags.psk is not None:
                hooks["psk_client"] = lambda connection, hint: (flags.psk_identity, flags.psk.encode())
        if flags.verify_fail and self.verifies:
            hooks["verify"] = self.verify
        if flags.fail_cert_callback:
            hooks["certificate"] = self.fail
        return Hooks(**hooks)

    def fail(self, *_):
        raise Failed("as told")

    def get(self, connection, session_id):
        blob = self.kept.get(session_id)
        return Session.from_bytes(blob) if blob else None

    def keep(self, connection, session):
        self.kept[session.id] = bytes(session)

    def ticket_key(self, connection, name):
        return (TICKET_KEY, False) if name in (None, TICKET_KEY.name) else None

    def alpn(self, connection, offered):
        self.offered = offered
        if self.flags.reject_alpn:
            raise Failed("as told")
        return None if self.flags.decline_alpn else self.flags.select_alpn.encode()

    def staple(self, connection, _):
        if self.flags.fail_ocsp_callback:
            raise Failed("as told")
        return None if self.flags.decline_ocsp_callback else self.flags.ocsp_response

    def stapled(self, connection, response):
        connection.handshake.vouch(float("inf"))
        if self.flags.fail_ocsp_callback:
            raise Failed("as told")
        expected = self.flags.expect_ocsp_response
        expect(expected is None or response == expected, "OCSP response")

    def verify(self, connection, chain, resumed):
        if self.flags.verify_fail and (not resumed or self.flags.reverify_on_resume):
            raise Failed("as told")

    # -- the connection

    def do(self, operation, *arguments):
        """Until the operation has what it needs; what it leaves for the peer goes out."""
        while True:
            try:
                return operation(*arguments)
            except WantRead:
                self.send()
                self.tls.receive_data(self.sock.recv(1 if self.flags.async_ else 65536))

    def send(self):
        if ciphertext := self.tls.data_to_send():
            self.sock.sendall(ciphertext)

    def check(self, resuming):
        flags, tls = self.flags, self.tls
        reused = resuming and not flags.expect_session_miss
        expect(tls.session_reused == reused, f"session reused: {tls.session_reused}")
        if flags.expect_version:
            expect(VERSIONS["tls" + tls.version[4:].replace(".", "")] == flags.expect_version, "version")
        if flags.expect_curve_id:
            expect(GROUPS[flags.expect_curve_id].lower() == (tls.group or "").lower(), f"group {tls.group}")
        if flags.expect_alpn is not None:
            expect(tls.alpn_protocol == flags.expect_alpn.encode(), "ALPN")
        if flags.expect_advertised_alpn is not None:
            offered = b"".join(bytes((len(each),)) + each for each in self.offered)
            expect(offered == flags.expect_advertised_alpn.encode("latin-1"), "advertised ALPN")
        if flags.expect_server_name is not None:
            expect(tls.server_name == flags.expect_server_name, "server name")
        if flags.expect_accept_early_data:
            expect(tls.early_data_accepted, "early data accepted")
        if flags.expect_reject_early_data and flags.server:
            expect(not tls.early_data_accepted, "early data rejected")

    def talk(self):
        flags, tls = self.flags, self.tls
        if flags.export_keying_material:
            context = (flags.export_context or "").encode() if flags.use_export_context else None
            length, label = flags.export_keying_material, (flags.export_label or "").encode()
            tls.write(tls.export_keying_material(label, length, context))
        if (flags.shim_writes_first and not tls.early_data_accepted) or (flags.shim_writes_first and flags.server):
            tls.write(b"hello")
        self.send()
        if not flags.shim_shuts_down:
            self.echo()
        if flags.expect_ticket_supports_early_data:
            expect(tls.session is not None and tls.session.max_early_data > 0, "a ticket for early data")
        if not flags.server:
            self.session = tls.session if tls.session is not None and tls.session.resumable else self.session
        self.do(self.finish)
        self.end()

    def finish(self):
        """A server's handshake, where early data has come before its end."""
        self.tls.do_handshake()

    def echo(self):
        """What comes, inverted, until the peer is gone."""
        while True:
            try:
                data = self.do(self.tls.read, self.flags.read_size or 16384)
            except UnexpectedEOF:
                expect(not self.flags.check_close_notify, "close_notify")
                return
            if not data:
                return
            self.tls.write(data.translate(INVERTED))
            self.send()

    def end(self):
        try:
            done = self.tls.shutdown()
            self.send()
            while self.flags.check_close_notify and not done:
                done = self.do(self.look_for_close_notify)
        except UnexpectedEOF:
            expect(not self.flags.check_close_notify, "close_notify")

    def look_for_close_notify(self):
        if not self.tls.shutdown():
            raise WantRead
        return True

    def hang_up(self):
        """Half a close, and then what the peer still says: or its alert would be lost with the connection."""
        try:
            self.send()
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65536):
                pass
        except OSError:
            pass


INVERTED = bytes(octet ^ 0xFF for octet in range(256))
