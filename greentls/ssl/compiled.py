"""Compiles an SSLContext to a Config of the core, and makes its connections.

A Config is immutable, but programs set attributes of a used SSLContext every day, and existing connections must not
notice. So a change leads to a new Config for the next connection. Configs are kept, and looked up in three steps:

1. If nothing was set since the last time (SSLContext counts what is set), the Config is still the right one.
2. Otherwise the settings are read. If they are equal to the last ones, hooks included, the Config still serves.
3. Otherwise they are compiled, which takes about a millisecond.

A source of certificates may answer with other certificates for each server name. Each set of certificates has its own
Config, which is equal to the first one in everything else. The Configs used last are kept.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_NONE, VERIFY_PEER, Config
from greentls.core.connection import Connection
from greentls.core.early_data import server_connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError
from greentls.hub import as_function
from greentls.openssl import connections
from greentls.ssl.context import SSLContext
from greentls.ssl.errors import configuration_error, ssl_error
from greentls.ssl.hooks import callbacks
from greentls.ssl.hooks.replay_guard import ReplayGuard
from greentls.ssl.hooks.signature import Signature
from greentls.ssl.replacement import STDLIB_CONTEXT

__all__ = ["compile", "has_side", "make_connection", "read_settings"]

# Configs with other certificates that are kept for one SSLContext: each takes 25 KiB, and 0.5 ms to make it again.
MAX_CONFIGS = 1024

# Protocols that are one version each.
_VERSIONS = {
    _stdlib_ssl.PROTOCOL_TLSv1: _stdlib_ssl.TLSVersion.TLSv1,
    _stdlib_ssl.PROTOCOL_TLSv1_1: _stdlib_ssl.TLSVersion.TLSv1_1,
    _stdlib_ssl.PROTOCOL_TLSv1_2: _stdlib_ssl.TLSVersion.TLSv1_2,
}

Settings = dict[str, Any]  # Any: the arguments of Config, which checks their types


@dataclass
class Compiled:
    """The Config of one side of an SSLContext, and those that differ from it in their certificates only."""

    changes: object
    settings: Settings
    stamps: dict[str, tuple[int, int]]
    config: Config
    others: OrderedDict[tuple[CertificateChain, ...], Config] = field(default_factory=OrderedDict)


def compile(context: SSLContext, server_side: bool, certificates: tuple[CertificateChain, ...] | None = None) -> Config:
    """Returns the Config for these settings. An early call finds errors before the first connection does.

    server_side: whether the connections are a server's. certificates: replace those that were loaded. Raises
    ConfigurationError, UnsupportedOpenSSL.
    """
    compiled = context._compiled.get(server_side)
    changes = context._changes if server_side else (context._changes, context.client_sessions)  # perhaps the class's
    if compiled is None or compiled.changes != changes:
        settings, stamps = read_settings(context, server_side), context._stamps
        if compiled is None or (settings, stamps) != (compiled.settings, compiled.stamps):
            compiled = Compiled(changes, settings, stamps, Config(**settings))
            context._configs.add(compiled.config)
            context._compiled[server_side] = compiled
        compiled.changes = changes
    if certificates is None:
        return compiled.config
    other = compiled.others.pop(certificates, None)
    if other is None:
        other = Config(**{**compiled.settings, "certificates": certificates})
        context._configs.add(other)
    compiled.others[certificates] = other  # behind those that were used before it
    if len(compiled.others) > MAX_CONFIGS:
        compiled.others.popitem(last=False)
    return other


def has_side(context: SSLContext, server_side: bool) -> bool:
    """Whether the context makes servers (True), or clients (False)."""
    return _protocol(context) != (_OF_CLIENTS if server_side else _OF_SERVERS)


_OF_CLIENTS, _OF_SERVERS = _stdlib_ssl.PROTOCOL_TLS_CLIENT, _stdlib_ssl.PROTOCOL_TLS_SERVER
# SSLContext.protocol makes an enum of the number, which is slow for each connection.
_protocol: Callable[[SSLContext], int] = STDLIB_CONTEXT.__mro__[1].protocol.__get__


def make_connection(
    context: SSLContext,
    server_side: bool,
    server_hostname: str | None,
    session: Session | None,
    owner: object,
    early_data: bool = False,
) -> Connection:
    """Makes a Connection with these settings.

    server_hostname, session: a client's. owner: the object that callbacks are called with; it is not kept alive.
    early_data: whether the owner can take early data, which SSLContext.max_early_data may allow. Raises ValueError,
    TypeError, ssl.SSLError.
    """
    if server_hostname is not None:
        if not server_hostname or server_hostname.startswith("."):
            raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
        if "\0" in server_hostname:
            raise TypeError("argument must be encoded string without null bytes")
        if len(server_hostname) > connections.MAX_SERVER_NAME:
            raise ssl_error(
                f"[SSL: SSL3_EXT_INVALID_SERVERNAME] ssl3 ext invalid servername: {len(server_hostname)} bytes",
                "SSL",
                "SSL3_EXT_INVALID_SERVERNAME",
            )
    if session is not None and not isinstance(session, Session):
        raise TypeError("Value is not a SSLSession.")
    if _protocol(context) == (_OF_CLIENTS if server_side else _OF_SERVERS):
        side = "server" if server_side else "client"
        raise ssl_error(f"Cannot create a {side} socket with a {context.protocol.name} context")
    changes = context._changes
    try:
        config = compile(context, server_side)
    except ConfigurationError as error:
        raise configuration_error(error, "BAD_CONFIGURATION") from error
    if server_side:
        connection = server_connection(config, weakref.ref(owner), early_data)
        if early_data:
            context.__dict__["_server"] = changes, type(connection), config
        return connection
    return Connection(
        config,
        weakref.ref(owner),
        server_hostname=server_hostname,
        verify_hostname=context.check_hostname,
        session=session,
    )


def read_settings(context: SSLContext, server_side: bool) -> Settings:
    """Returns the arguments of the Config for the context's present settings. Raises ConfigurationError."""
    mode = VERIFY_NONE
    if context.verify_mode != _stdlib_ssl.CERT_NONE:
        mode = VERIFY_PEER
        if server_side and context.verify_mode == _stdlib_ssl.CERT_REQUIRED:
            mode |= VERIFY_FAIL_IF_NO_PEER_CERT
    elif server_side and context.verify_callback:
        problem = "a server asks for no certificate while verify_mode is CERT_NONE"
        raise ConfigurationError("verify_callback", problem, "set verify_mode to CERT_REQUIRED or CERT_OPTIONAL")
    elif context.crl or (context.ocsp and not server_side):
        raise ConfigurationError("SSLContext", "crl and ocsp look at a verified chain", "set verify_mode")
    fixed = _VERSIONS.get(context.protocol)
    settings: Settings = {
        "server_side": server_side,
        "certificates": tuple(context._chains),
        "trust": context._trust,
        "crls": context.crl,
        "minimum_version": fixed or _bound(context.minimum_version),
        "maximum_version": fixed or _bound(context.maximum_version),
        "options": int(context.options),
        "verify_mode": mode,
        "verify_flags": int(context.verify_flags),
        "ciphers": context._ciphers,
        "ciphersuites": context._ciphersuites,
        "groups": context._groups,
        "signature_algorithms": context._server_sigalgs,
        "client_signature_algorithms": context._client_sigalgs,
        "alpn_protocols": context._alpn,
        "dh_parameters": context._dh_parameters,
        "post_handshake_auth": bool(context.post_handshake_auth),
        "hostname_checks_common_name": context.hostname_checks_common_name,
        "session_id_context": context.session_id_context,
        "session_lifetime": context.session_lifetime,
        "hooks": _hooks(context, server_side),
    }
    if server_side:
        settings["psk_identity_hint"] = context._psk_identity_hint
        settings["max_early_data"] = context.max_early_data
        settings["num_tickets"] = context.num_tickets if context.num_tickets != 2 else None
    return settings


def _bound(version: int) -> int:
    """0, no bound, for MINIMUM_SUPPORTED and MAXIMUM_SUPPORTED, and for SSLv3, which OpenSSL 4 knows nothing of."""
    return version if version > _stdlib_ssl.TLSVersion.SSLv3 else 0


def _hooks(context: SSLContext, server_side: bool) -> Hooks:
    timeout = context.callback_timeout
    verify, message = context.verify_callback, context._msg_callback
    keylog = context.keylog_filename, as_function(context.keylog_callback)
    signs = context.certificates is not None or any(chain.signer for chain in context._chains)
    hooks = Hooks(
        keylog=callbacks.KeyLog(*keylog, timeout) if any(keylog) else None,
        verify=callbacks.VerifyCallback(as_function(verify), timeout) if verify else None,
        sign=Signature(timeout) if signs else None,
        message=callbacks.MessageCallback(message) if message else None,
    )
    return _server_hooks(context, hooks, timeout) if server_side else _client_hooks(context, hooks, timeout)


def _client_hooks(context: SSLContext, hooks: Hooks, timeout: float | None) -> Hooks:
    if context.client_sessions is not None:
        hooks = replace(hooks, new_session=context.client_sessions.collect)
    if context.ocsp is not None:
        from greentls.ssl.hooks.revocation import OCSPCheck

        hooks = replace(hooks, ocsp=OCSPCheck(context.ocsp, timeout))
    if context._psk_client:
        hooks = replace(hooks, psk_client=callbacks.PSKClient(as_function(context._psk_client), timeout))
    return hooks


def _server_hooks(context: SSLContext, hooks: Hooks, timeout: float | None) -> Hooks:
    if context._cache is not None:
        context._cache.timeout = timeout
        cache = context._cache.hooks
        hooks = replace(
            hooks, get_session=cache.get_session, store_session=cache.store_session, remove_session=cache.remove_session
        )
    if context.max_early_data:
        store = context.session_store if context.replay_guard is None else context.replay_guard
        hooks = replace(hooks, early_data=ReplayGuard(store, timeout))
    if context._psk_server:
        hooks = replace(hooks, psk_server=callbacks.PSKServer(as_function(context._psk_server), timeout))
    if context.ticket_keys is not None:
        hooks = replace(hooks, ticket_key=callbacks.TicketKeyChoice(context.ticket_keys, timeout))
    if context.sni_callback is not None or context.certificates is not None:
        chooser = callbacks.ServerName(as_function(context.sni_callback), context.certificates, timeout, compile)
        hooks = replace(hooks, servername=chooser)
    if context.alpn_callback is not None:
        hooks = replace(hooks, alpn=callbacks.ALPNCallback(as_function(context.alpn_callback), timeout))
    elif context._alpn:
        hooks = replace(hooks, alpn=callbacks.ALPNChoice(context._alpn))
    if context.ocsp_callback is not None:
        from greentls.ssl.hooks.revocation import OCSPCallback

        hooks = replace(hooks, ocsp=OCSPCallback(as_function(context.ocsp_callback), timeout))
    return hooks
