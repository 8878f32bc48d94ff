"""Clients that are not ours. They block, so they run in gevent's native threads, beside the hub that serves them."""

from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace

import gevent
from gevent._hub_local import get_hub_if_exists  # has no public name

from tests.support.helpers import PATIENCE
from tests.support.pairs import VERSIONS


def in_thread(function, *arguments, **options):
    """Calls a function that blocks; this greenlet waits, the hub does not. gevent would print what it raises."""
    value, error = gevent.get_hub().threadpool.apply(leaving_no_hub, (function, arguments, options))
    if error is not None:
        raise error
    return value


def leaving_no_hub(function, arguments, options):
    """What the function returns, and raises, in a native thread.

    If it has used gevent, its thread has a hub now. In a forked child gevent.reinit() destroys the hubs that the
    threads of the pool were left with: it waits for ever for those of such a hub's own pool, which only the parent has,
    and it cannot destroy one that is destroyed already.
    """
    before = get_hub_if_exists()
    try:
        return function(*arguments, **options), None
    except Exception as error:
        return None, error
    finally:
        hub = get_hub_if_exists()
        if hub is not None and hub is not before:
            hub.destroy(destroy_loop=True)


def stdlib_context(pki, version="1.3", **settings):
    context = ssl.create_default_context(cafile=pki.ca_file)
    context.minimum_version = context.maximum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[version]
    assert set(VERSIONS) == {"1.2", "1.3"}
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def exchange(address, context, send=b"hello", session=None, server_hostname="localhost", answer=None):
    """Connects with the standard library's ssl, sends, reads as much as it sent (or answer bytes), closes.

    Gives .data, .version, .reused and .session, which a later call with the same context can resume.
    """
    with (
        socket.create_connection(address, PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname=server_hostname, session=session) as sock,
    ):
        sock.sendall(send)
        data = b""
        while len(data) < (len(send) if answer is None else answer):
            chunk = sock.recv(65536)
            if not chunk:
                break
            data += chunk
        return SimpleNamespace(
            data=data,
            version=sock.version(),
            reused=sock.session_reused,
            session=sock.session,
            certificate=sock.getpeercert(),
            alpn=sock.selected_alpn_protocol(),
        )
