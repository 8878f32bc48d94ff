"""CPython's tests of TLS under asyncio, with greentls.aio's event loop in the place of asyncio's.

Each test has two sides: one in the event loop, and one in a thread with a blocking socket of ssl. The second one is the
standard library's here, as no loop runs in that thread. So each context that a test makes is a pair: the standard
library's, which has one of greentls beside it, with the same settings, for the loop.
"""

from __future__ import annotations

import importlib
import ssl
import types
import unittest

from greentls import aio
from greentls.ssl import SSLContext

# Of asyncio's own SSLProtocol and its transport, over mocks of them; and of an event loop of Windows.
ELSEWHERE = ("SslProtoHandshakeTests", "Proactor")


class Pair(ssl.SSLContext):
    def __init__(self, *arguments):
        self.__dict__["ours"] = SSLContext(*arguments)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        setattr(self.ours, name, value)


def for_both(name):
    def method(self, *arguments, **options):
        getattr(ssl.SSLContext, name)(self, *arguments, **options)
        getattr(self.ours, name)(*arguments, **options)

    return method


for name in ("load_cert_chain", "load_verify_locations", "set_ciphers"):
    setattr(Pair, name, for_both(name))


def ours(context):
    return getattr(context, "ours", context)


class Loop(aio.EventLoop):
    async def create_connection(self, *arguments, ssl=None, **options):
        return await super().create_connection(*arguments, ssl=ours(ssl), **options)

    async def create_server(self, *arguments, ssl=None, **options):
        return await super().create_server(*arguments, ssl=ours(ssl), **options)

    async def connect_accepted_socket(self, *arguments, ssl=None, **options):
        return await super().connect_accepted_socket(*arguments, ssl=ours(ssl), **options)

    async def start_tls(self, transport, protocol, context, **options):
        return await super().start_tls(transport, protocol, ours(context), **options)


def tests():
    """The tests, each an unittest.TestCase."""
    pairs = types.ModuleType("ssl")
    pairs.__dict__.update(ssl.__dict__)
    pairs.SSLContext = Pair
    pairs.create_default_context = lambda *_, **__: Pair(ssl.PROTOCOL_TLS_CLIENT)
    modules = [importlib.import_module("test.test_asyncio.test_sslproto")]
    try:
        modules.append(importlib.import_module("test.test_asyncio.test_ssl"))
    except ImportError:  # Python 3.10 has no such module
        pass
    helpers = [importlib.import_module(f"test.test_asyncio.{name}") for name in ("functional", "utils")]
    for module in (*modules, *helpers):
        if hasattr(module, "ssl"):
            module.ssl = pairs
    for module in modules:
        for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
            for test in suite:
                if not any(word in test.id() for word in ELSEWHERE):
                    type(test).new_loop = lambda self: Loop()
                    yield test
