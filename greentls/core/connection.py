"""Connection: TLS over two memory BIOs. Ciphertext goes in and comes out as bytes; there is no socket.

    receive_data(ciphertext)   ->  incoming BIO -> SSL_* -> plaintext: read()
    data_to_send()  ciphertext <-  outgoing BIO <- SSL_* <- plaintext: write()

Every operation enters OpenSSL through the bridge, so it may wait in a hook, and what the hook raises comes out of it.
After an operation that returned *or raised*, data_to_send() may have something for the peer: a flight, an alert.

Each verb has a twin, step_*, that tells by its result what the verb tells by an exception: "more, please" is the
ordinary answer, and comes several times per record. The twins are the pump's (greentls.openssl.pump): a Connection is
one.

How a connection ends matters to the session cache. OpenSSL forgets a session whose connection is freed without a
close_notify, as TLS 1.0 once demanded; peers that just close TCP would so empty a cache shared by many servers. A
connection therefore counts as closed before it is freed, and the end of the ciphertext is not told to OpenSSL, which
would call it fatal. A fatal alert, sent or received, still removes the session (RFC 8446 6.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

from greentls.certificates import CertificateChain
from greentls.core.bridge import Operation, tls_error
from greentls.core.callbacks import count_messages, verify_resumption
from greentls.core.config import VERIFY_POST_HANDSHAKE, Config
from greentls.core.handshake import FRESH, HANDSHAKING, Handshake, Unread
from greentls.core.hooks import HookConnection, Hooks, Owner
from greentls.core.session import TLS13, Session
from greentls.errors import ConfigurationError, TLSError, UnexpectedEOF, WantRead
from greentls.openssl import bios, connections, facts
from greentls.openssl.library import pointer
from greentls.openssl.pump import BOTH, CLOSED, DONE, ENDED, WANT_READ, Pump, nobody

__all__ = ["Connection"]

_OP_NO_TLS13 = 1 << 29  # SSL_CTX_set_options(3)


class Connection(Operation):
    """One TLS connection, either side.

    config: kept as long as the connection. owner: whose connection this is, for its hooks: a weak reference.
    server_hostname: a client's server_name; with verify_hostname the peer's certificate must be valid for it. session:
    a client's, to resume. Belongs to the thread of its first operation, and has one operation at a time:
    ConcurrentUseError.
    """

    expected: tuple[str | None, bool] = None, False  # whom a client wants to talk to: its name, and whether it must be
    # The verify hooks of all the Configs it has had, each once.
    verify_hooks: tuple[Callable[[HookConnection, list[bytes], bool], None], ...] = ()
    resumed: bool  # once the handshake is finished: session_reused
    early_data = b""  # a client's to send, before its handshake; at a server what came (early_data.EarlyConnection)

    def __init__(
        self,
        config: Config,
        owner: Owner = nobody,
        *,
        server_hostname: str | None = None,
        verify_hostname: bool = True,
        session: Session | None = None,
    ) -> None:
        Pump.__init__(self, config.address, config.server_side)  # super() costs 0.2 us
        self.config = self._original = config  # the latter's session and servername hooks stay in force
        self.owner = owner
        if config.hooks.verify is not None:
            self.verify_hooks = (config.hooks.verify,)
        self.handshake = Handshake()
        # An attribute that first comes when there are many connections is one too many for CPython, which then makes a
        # dictionary for each connection, 460 bytes.
        self.finished = self.resumed = False
        if config.server_side:
            return
        self.expected = server_hostname, verify_hostname
        if server_hostname:
            if connections.packed_ip(server_hostname) is None:  # RFC 6066 3: no literal addresses
                connections.set_server_name(self.ssl, server_hostname)
            if verify_hostname:
                connections.check_host(self.ssl, server_hostname, config.hostname_checks_common_name)
        if config.hooks.ocsp:
            connections.request_ocsp_response(self.ssl)
        if session is not None:
            self.offer(session)

    # -- ciphertext ----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes ciphertext from the peer; b"" says that there will be no more. Allowed while an operation waits."""
        self.feed(bytes(data))

    def data_to_send(self) -> bytes:
        """The ciphertext for the peer, b"" if there is none. Allowed while an operation waits.

        Reading makes answers to KeyUpdates, as many bytes as such come: whoever calls receive_data() while the peer
        takes nothing bounds them by `unsent`.
        """
        return bytes(bios.take(self.outgoing))

    def release(self) -> bool:
        """Gives back the memory of the BIOs, if they are empty: they keep the size of the most that they ever held. The
        keys of the key exchange are destroyed.

        Not in the handshake, when OpenSSL has a buffer of its own in front of the outgoing one. Nobody may move
        ciphertext meanwhile.
        """
        if not self.finished or self.dead or self.taken or self.unread or self.unsent:
            return False
        bios.shrink(self.incoming, self.outgoing)
        connections.forget_all_keys(self.ssl)
        self.bulky = self.watched = False
        return True

    @property
    def drained(self) -> bool:
        """OpenSSL wants more ciphertext than it was given."""
        return self.received == self.drained_at

    # -- operations ----------------------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Returns once the handshake is finished. Raises WantRead, UnexpectedEOF, TLSError, or what a hook raised."""
        if self.step_handshake() == WANT_READ:
            raise WantRead

    def step_handshake(self) -> int:
        """As far as it goes without waiting: DONE, and what is to be sent has not been yet; or what a Pump waits for.

        Raises UnexpectedEOF, TLSError, or what a hook raised.
        """
        if self.state is not HANDSHAKING:
            if self.established:
                return DONE
            if self.begin() and self.early_data and len(self.early_data) <= self.early_data_limit:
                early = self.ssl, self.early_data, len(self.early_data)
                self.run("do_handshake", connections.write_early_data, early)
        step = self.continue_handshake()
        if step != WANT_READ:
            self._shaken("do_handshake", step)
        return step

    def _shaken(self, name: str, step: int) -> None:
        """What follows from a step of the handshake."""
        if step == DONE:
            if self.verify_hooks:
                self.run(name, verify_resumption, (self.ssl,))
            self.finish()
            self.resumed = resumed = facts.settle(self, self.config.ssl_context, count_messages)
            if not resumed:
                self.bulky = True  # certificates are
        elif step == ENDED:
            raise UnexpectedEOF(name)
        elif step == CLOSED:
            raise TLSError(name, reason="the peer closed the connection during the handshake")

    def read(self, max_bytes: int = bios.RECORD_SIZE) -> bytes:
        """Plaintext: 1 to max_bytes bytes, or b"" after the peer's close_notify.

        Raises WantRead, UnexpectedEOF, TLSError, or what a hook raised.
        """
        said = self.step_read(max_bytes)
        if isinstance(said, bytes):
            return said
        _wanted("read", said)
        return b""

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """read() into a writable buffer: its length, 0 after the peer's close_notify."""
        with bios.writable(buffer) as room:
            return _wanted("read", self.step_read_into(pointer(room), len(room)))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypts all of it; returns its length. Raises TLSError, or what a hook raised.

        WantRead, and nothing was taken: read() has met a post-handshake message of which only a part has come.
        """
        if isinstance(data, bytes):
            _wanted("write", self.step_write(data))
        else:
            with bios.readable(data) as readable:
                _wanted("write", self.step_write_from(pointer(readable), len(readable)))
        return len(data)

    def shutdown(self) -> bool:
        """Says close_notify the first time, and looks for the peer's from the second time on (RFC 8446 6.1): True once
        that has come. Nothing behind it is read, nor data before it.

        Where a part of a post-handshake message has come, close_notify waits for the rest of it. Raises TLSError if
        there is data before the peer's, or a fatal alert in its place; UnexpectedEOF.
        """
        step = self.step_shutdown()
        if step == ENDED:
            raise UnexpectedEOF("shutdown")
        if step != WANT_READ:
            self.close()
        return step in (BOTH, CLOSED)

    def offer(self, session: Session, *, of_equal_settings: bool = False, chain_ends: float | None = None) -> None:
        """A client's, before the handshake: to resume this one. Raises ConfigurationError.

        A resumption verifies nothing. So a session is left out, and the handshake is a full one, unless the certificate
        in it would be found good here and now, with the chain that the session knows: for this name, by these trust
        anchors. of_equal_settings: whoever offers it knows that this was so under settings that are equal in everything
        that matters, the name included. With an ocsp hook a response must vouch for the session, too. chain_ends: the
        expiry of its chain of resumptions, seconds since the epoch; None: the session's own.
        """
        ssl, config = self.ssl, self.config
        connections.set_session(ssl, session.pointer)
        good = of_equal_settings or connections.offers_cipher(ssl, session.pointer)
        if config.verify_mode:
            good = good and connections.verify_result(ssl)[0] == 0  # set_session() has it from the session
            good = good and (
                connections.knows_peer(ssl) if of_equal_settings else connections.would_verify(ssl, config.ssl_context)
            )
        if self.hooks.ocsp:
            good = good and session.vouched_for
        if not good:
            connections.forget_session(ssl)
        own = session.made + session.lifetime
        self.handshake.offer(session, own if chain_ends is None else chain_ends)

    def offer_early_data(self, data: bytes) -> None:
        """A client's, before the handshake: sent along with the ClientHello if early_data_limit allows it."""
        self.early_data = data

    def take_over(self, before: Connection) -> None:
        """Comes in the place of another connection, before its handshake, with what that has received."""
        self.handshake.inherit(before.handshake)
        if unread := before.take_unread():
            self.receive_data(unread)

    @property
    def early_data_limit(self) -> int:
        """Bytes of early data that the session to be resumed allows, to a server of the same name that speaks the same
        protocol (RFC 8446 4.2.10)."""
        # Where OpenSSL would silently make another session, or these two differ, it fails over the early data.
        config, session = self.config, self.session
        if config.options & _OP_NO_TLS13 or 0 < config.maximum_version < TLS13:
            return 0
        if session is None or not session.resumable or session.remaining <= 0:
            return 0
        if self.verify_hooks:  # which are asked about the resumed server behind the handshake, and may say no
            return 0
        if session.server_name not in (None, connections.server_name(self.ssl)):
            return 0
        if session.alpn_protocol and session.alpn_protocol not in config.alpn_protocols:
            return 0
        return session.max_early_data

    @property
    def early_data_accepted(self) -> bool | None:
        """Whether the server took the early data; None if there was none, and before the handshake."""
        return connections.early_data_accepted(self.ssl) if self.established else None

    def request_client_certificate(self) -> None:
        """Post-handshake authentication (RFC 8446 4.6.2): the request goes out with the next write.

        Raises TLSError if the client has not offered it; the connection goes on.
        """
        self.check_entry("request_client_certificate")
        if codes := connections.request_client_certificate(self.ssl):
            raise tls_error("request_client_certificate", codes)

    def refuse(self, alert: int, reason: str) -> None:
        """Ends a handshake that OpenSSL has not begun: a fatal alert is in data_to_send() (RFC 8446 6).

        alert: an AlertDescription. reason: what later operations raise ConnectionDead with.
        """
        self.check_entry("refuse")
        bios.append(self.outgoing, b"\x15\x03\x03\x00\x02\x02" + bytes([alert]))
        self.die(reason)

    @property
    def started(self) -> bool:
        """The handshake has begun: the Config is switched from now on, and the Connection stays."""
        return self.state is not FRESH

    @property
    def unfinished(self) -> bool:
        """Data are sent and received, but the client's Finished has not come: what was read may be a replay."""
        return self.established and not self.finished

    @property
    def may_ask(self) -> bool:
        """Hooks may be asked after the handshake: about a certificate that comes later (RFC 8446 4.6.2), or because the
        handshake ends in a read."""
        return self.unfinished or self.config.post_handshake_auth or self._original.post_handshake_auth

    # -- for hooks -----------------------------------------------------------------------------------------------------

    @property
    def hooks(self) -> Hooks:
        return self.config.hooks

    @property
    def session_hooks(self) -> Hooks:
        return self._original.hooks

    @property
    def session_id_context(self) -> bytes:
        """A server's: its sessions are bound to this, and it resumes no others (SSL_set_session_id_context(3)).

        The Config's own where no name was asked for and none was chosen. Else a digest of both Configs' and the name:
        the first one's versions are in force still, and RFC 6066 3 has a session resumed under its own name only.
        """
        first, chosen, name = self._original, self.config, self.handshake.server_name
        if isinstance(name, Unread) or (name is None and chosen is first):
            return chosen.session_id_context
        return _bound(first.session_id_context, chosen.session_id_context, name)

    @property
    def bindings(self) -> dict[bytes | None, tuple[str | None, bytes]] | None:
        """Config.bindings, as long as it is the only Config."""
        return self.config.bindings if self.config is self._original else None

    def switch_config(self, config: Config) -> None:
        """Goes on with another Config's certificates, ALPN and trust: for the servername hook (SSL_set_SSL_CTX(3)).

        What stays with the first Config: versions, options, groups, session and servername hooks, ticket keys. Of the
        two verify modes the stricter one holds, and the verify hooks of both are asked. Raises ConcurrentUseError;
        ConfigurationError for a client that has a verify hook, and whose new Config has none, and so would ask nobody.
        """
        self.check_entry("switch_config")
        hook = config.hooks.verify
        if hook is not None:
            self.verify_hooks = tuple(dict.fromkeys((*self.verify_hooks, hook)))
        elif self.verify_hooks and not self.server_side:
            raise ConfigurationError("switch_config", "the verify hook would not be asked", "give both of them one")
        connections.switch_context(self.ssl, config.ssl_context)
        if config.verify_mode:
            mode = connections.verify_mode(self.ssl) | config.verify_mode
            if not config.post_handshake_auth:
                mode &= ~VERIFY_POST_HANDSHAKE
            connections.set_verify_mode(self.ssl, mode)
        self.config = config

    # -- facts about the connection ------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Plaintext bytes that read() has at hand."""
        return connections.pending(self.ssl)

    @property
    def unread(self) -> int:
        """Ciphertext bytes that were received and not yet read by OpenSSL."""
        return bios.pending(self.incoming)

    def take_unread(self) -> bytes:
        """The same bytes, taken away: behind the peer's close_notify they are no ciphertext any more."""
        return bytes(bios.take(self.incoming))

    @property
    def closed_by_peer(self) -> bool:
        """The peer's close_notify has come, and nothing has failed: a fatal alert sets OpenSSL's flag as well."""
        return connections.received_shutdown(self.ssl) and not self.dead

    @property
    def server_name(self) -> str | None:
        """RFC 6066 server_name: what the client asked for, at a server in lower case."""
        name = self.handshake.server_name
        return connections.server_name(self.ssl) if isinstance(name, Unread) else name

    @property
    def session(self) -> Session | None:
        """What a later connection can resume; with TLS 1.3 not before read() has seen a ticket: Session.resumable."""
        pointer = connections.current_session(self.ssl)
        return Session(pointer, self.vouched_until) if pointer is not None else None

    @property
    def vouched_until(self) -> float | None:
        """Session.vouched_until of its sessions. A resumption's are as good as the one that it resumed."""
        offered = self.handshake.offered
        return offered.vouched_until if offered is not None and self.session_reused else self.handshake.vouched_until

    @property
    def session_reused(self) -> bool:
        return connections.session_reused(self.ssl)

    @property
    def alpn_protocol(self) -> bytes:
        """b"" if none was agreed on."""
        return connections.alpn_protocol(self.ssl)

    @property
    def tls13(self) -> bool:
        """TLS 1.3, agreed on or, before that, to be offered."""
        return connections.protocol_version(self.ssl) >= TLS13

    @property
    def version(self) -> str | None:
        """ "TLSv1.3", ...; None before the handshake is finished."""
        return connections.version(self.ssl) if self.established else None

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """(name, the version that defines it, secret bits); None before the handshake is finished."""
        return connections.cipher(self.ssl) if self.established else None

    @property
    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """A server's: what the client offered of its own. None for a client, and before the ClientHello."""
        return connections.shared_ciphers(self.ssl) if self.server_side else None

    @property
    def group(self) -> str | None:
        """The key-exchange group; None before the handshake is finished, and where there was no key exchange."""
        return connections.group_name(self.ssl) if self.established else None

    @property
    def peer_certificates(self) -> list[bytes]:
        """DER of what the peer sent, its own first. On resumption outside OpenSSL's cache only its own is known."""
        return connections.peer_certificates(self.ssl, self.server_side)

    @property
    def verified_chain(self) -> list[bytes]:
        """DER of the chain that was built for the peer's certificate, up to the trust anchor. Empty without one."""
        return connections.verified_peer_chain(self.ssl)

    @property
    def certificate(self) -> bytes | None:
        """DER of this side's own."""
        return connections.own_certificate(self.ssl)

    @property
    def certificate_chain(self) -> CertificateChain | None:
        """That of the Config's certificates which this side has chosen; inside a server's ocsp hook, too."""
        chosen = self.certificate
        return next((chain for chain in self.config.certificates if chain.der == chosen), None)

    def verify_data(self, ours: bool) -> bytes:
        """Of this side's Finished, or the peer's; empty before it."""
        return connections.finished(self.ssl, ours)

    def export_keying_material(self, label: bytes, length: int, context: bytes | None = None) -> bytes:
        """RFC 5705, RFC 8446 7.5. Under TLS 1.2 an empty context is another one than None. Raises ValueError for a
        length that cannot be had, for a label that TLS 1.2 uses itself, and before there is any."""
        if not self.established:
            raise ValueError("handshake not done yet")
        if length < 1:
            raise ValueError(f"{length} bytes of keying material")
        return connections.exported_keying_material(self.ssl, label, length, context)


@lru_cache(1024)  # asked several times in a handshake; and most names are asked for again
def _bound(first: bytes, chosen: bytes, name: str | None) -> bytes:
    digest = hashlib.sha256(b"greentls session-id context 2")
    host = b"" if name is None else b"n" + name.encode("ascii", "surrogateescape")
    for part in (first, chosen, host):
        digest.update(len(part).to_bytes(2, "big") + part)
    return digest.digest()


def _wanted(name: str, said: int) -> int:
    """What a verb of a pump's answers, as who has no socket is told: a length, 0 at the peer's close_notify."""
    if said == ENDED:
        raise UnexpectedEOF(name)
    if said == WANT_READ:
        raise WantRead
    return max(said, 0)
