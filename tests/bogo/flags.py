"""The runner's flags that the shim knows. Any other one is a feature that is not there."""

from __future__ import annotations

import base64

# Nothing to do: what they ask for is always so, or does not exist here, or is another way to the same.
IGNORED = {
    "implicit-handshake",
    "no-op-extra-handshake",
    "partial-write",
    "use-old-client-cert-callback",
    "use-custom-verify-callback",  # a verify hook is always installed
}
BOOLEANS = {
    "async",
    "check-close-notify",
    "decline-alpn",
    "decline-ocsp-callback",
    "enable-early-data",
    "enable-ocsp-stapling",
    "expect-accept-early-data",
    "expect-no-offer-early-data",
    "expect-reject-early-data",
    "expect-session-miss",
    "expect-ticket-supports-early-data",
    "expect-verify-result",
    "fail-cert-callback",
    "fail-ocsp-callback",
    "ipv6",
    "is-handshaker-supported",
    "no-ticket",
    "no-tls1",
    "no-tls11",
    "no-tls12",
    "no-tls13",
    "reject-alpn",
    "require-any-client-certificate",
    "reverify-on-resume",
    "server",
    "set-ocsp-in-callback",
    "shim-shuts-down",
    "shim-writes-first",
    "use-export-context",
    "use-ocsp-callback",
    "verify-fail",
    "verify-peer",
}
NUMBERS = {
    "expect-curve-id",
    "expect-version",
    "export-keying-material",
    "max-version",
    "min-version",
    "port",
    "read-size",
    "resume-count",
    "shim-id",
}
LISTS = {"curves", "signing-prefs", "verify-prefs"}  # of numbers: one flag for each
TEXTS = {
    "advertise-alpn",
    "cert-file",
    "cipher",
    "expect-advertised-alpn",
    "expect-alpn",
    "expect-server-name",
    "export-context",
    "export-label",
    "host-name",
    "key-file",
    "psk",
    "psk-identity",
    "select-alpn",
    "tls13-ciphersuites",
    "trust-cert",
}
BYTES = {"expect-ocsp-response", "ocsp-response"}  # base64
STAGES = ("initial", "resume", "retry")


def attribute(name):
    return name.replace("-", "_") + "_" * (name == "async")


class Unimplemented(Exception):
    """A flag that is not known."""


class Flags:
    """Those of one stage: attributes, with _ for -, and async_. None, False or () where a flag is not given."""

    def __init__(self):
        for name in BOOLEANS:
            self._set(name, False)
        for name in NUMBERS | TEXTS | BYTES:
            self._set(name, None)
        for name in LISTS:
            self._set(name, ())

    def _set(self, name, value):
        setattr(self, attribute(name), value)

    def take(self, name, arguments):
        """One flag; arguments: an iterator that gives its value."""
        if name in IGNORED:
            return
        if name in BOOLEANS:
            self._set(name, True)
        elif name in NUMBERS:
            self._set(name, int(next(arguments)))
        elif name in TEXTS:
            self._set(name, next(arguments))
        elif name in BYTES:
            self._set(name, base64.b64decode(next(arguments)))
        elif name in LISTS:
            self._set(name, (*getattr(self, attribute(name)), int(next(arguments))))
        else:
            raise Unimplemented(name)


def parse(arguments):
    """{stage: Flags}. Raises Unimplemented."""
    stages = {stage: Flags() for stage in STAGES}
    arguments = list(arguments)
    at = 0
    while at < len(arguments):
        name = arguments[at].removeprefix("-")
        chosen = STAGES
        for stage in STAGES:
            if name.startswith(f"on-{stage}-"):
                name, chosen = name.removeprefix(f"on-{stage}-"), (stage,)
        for stage in chosen:
            rest = iter(arguments[at + 1 : at + 2])
            stages[stage].take(name, rest)
        at += 1 + (name not in IGNORED | BOOLEANS)
    return stages
