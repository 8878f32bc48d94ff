"""Runs one function of a test module as a program of its own, with greentls beneath, and prints what it found as JSON.

    python -m tests.programs.program patched|resuming|context MODULE FUNCTION PORT CA STRANGE_CA

patched: after gevent.monkey.patch_all() and greentls.monkey.patch(), with the contexts that the ssl module makes.
resuming: the same, with client_sessions.
context: nothing is patched, and the contexts are greentls.ssl's.

The function is called as function(context, ca, port): once with the CA that issued the server's certificate, and once
with another, which it must not get by.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module


def facts(sock):
    """What tells that a connection is greentls', and how it is protected."""
    return {
        "socket": f"{type(sock).__module__}.{type(sock).__name__}",
        "version": sock.version(),
        "cipher": sock.cipher()[0],
        "reused": sock.session_reused,
    }


def main(how, module, function, port, *authorities):
    if how in ("patched", "resuming"):
        import gevent.monkey

        gevent.monkey.patch_all()
        import greentls.monkey

        greentls.monkey.patch(client_sessions=how == "resuming")
        import ssl
    else:
        import greentls.ssl as ssl
    talk = getattr(import_module(module), function)
    ca, strange_ca = authorities
    found = talk(ssl.create_default_context(cafile=ca), ca, int(port))
    try:
        talk(ssl.create_default_context(cafile=strange_ca), strange_ca, int(port))
    except Exception:
        refusal = traceback.format_exc()
    else:
        refusal = None
    print(json.dumps({"found": found, "refusal": refusal}))


if __name__ == "__main__":
    main(*sys.argv[1:])
