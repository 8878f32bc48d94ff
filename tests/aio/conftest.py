from __future__ import annotations

import asyncio

import pytest

import greentls.ssl
from greentls import aio
from tests.support.helpers import PATIENCE

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": aio.new_uvloop, "EventLoop": aio.EventLoop}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """run(coroutine): its result, on each loop. Nothing may be reported to the loop's exception handler."""
    reported = []

    def run(main):
        loop = LOOPS[request.param]()
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        try:
            return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    run.reported = reported
    yield run
    assert reported == []


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def version(request):
    return getattr(greentls.ssl.TLSVersion, request.param)


@pytest.fixture
def server_context(pki, version):
    context = greentls.ssl.SSLContext(greentls.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    context.maximum_version = version
    return context


@pytest.fixture
def client_context(pki):
    return greentls.ssl.create_default_context(cafile=pki.ca_file)
