"""One process, gevent in one thread and an event loop in another: what they share works in both at once."""

from __future__ import annotations

import threading

import pytest

import greentls
import greentls.ssl
from greentls import keys
from greentls.ocsp import Stapler
from greentls.tickets import TicketKeys
from tests.keys.processes import KeyProcess
from tests.support.helpers import PATIENCE
from tests.support.hubs import together
from tests.support.ssl_pairs import TLS_VERSIONS, both_versions, talk
from tests.support.ways import WAYS

CLIENTS = 20  # in each thread


@pytest.fixture
def site(threaded, memcached, tmp_path, version, kept):
    """(the client's context, the server's, what closes the hub's part of what they use)"""
    secret = tmp_path / "fleet.key"
    secret.write_bytes(bytes(range(32)))
    store = greentls.open_store(memcached.url(secret_file=secret))
    issued = threaded.authority.issue()
    stapler = Stapler(store=store, wait_for_first=True)
    process = KeyProcess(tmp_path / "keys.sock", issued.key_file)
    client = greentls.ssl.create_default_context(cafile=threaded.authority.ca_file)
    client.ocsp = "require"
    server = greentls.ssl.SSLContext(greentls.ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(issued.cert_file, keys.Agent(process.path))
    server.ocsp_callback = stapler
    if kept == "store":
        server.session_store = store
    else:
        server.ticket_keys = TicketKeys.shared(store)
    for context in (client, server):
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
        context.callback_timeout = PATIENCE

    def close():
        stapler.close()
        store.close()

    yield client, server, close
    process.close()


@pytest.mark.parametrize("other", [way for way in WAYS if way.hub != "gevent"], ids=lambda way: way.name)
@pytest.mark.parametrize("kept", ["store", "tickets"])
@both_versions
def test_sessions_of_each_resume_in_the_other(site, other, kept):
    """The store, the ticket keys, the stapler, the key process's client and the contexts are the same objects."""
    client, server, close = site
    both = threading.Barrier(2, timeout=PATIENCE)
    sessions, found, problems = {}, [], []

    def part(way):
        def connect(session):
            here, there = ends = [job.get() for job in way.connect(client, server, session)]
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            talk(here, there)
            lookup = there.session_lookup
            found.append((way.hub, there.resumption, lookup and lookup.outcome, "sign" in there.hook_seconds))
            here.close()
            there.close()
            return here.session

        def act():
            sessions[way.hub] = together(connect, *[None] * CLIENTS)
            assert server.drain_sessions(PATIENCE)
            both.wait()
            together(connect, *next(sessions[hub] for hub in sessions if hub != way.hub))
            assert server.drain_sessions(PATIENCE)
            close()

        try:
            way.run(act)
        except BaseException as error:
            both.abort()
            problems.append(error)

    thread = threading.Thread(target=part, args=(other,))
    thread.start()
    part(WAYS[0])
    thread.join(PATIENCE)
    assert problems == []
    kind = "ticket" if kept == "tickets" else server_kind(server)
    for hub in ("gevent", other.hub):
        full, resumed = (hub, "full", None, True), (hub, kind, "hit" if kept == "store" else None, False)
        assert [found.count(full), found.count(resumed)] == [CLIENTS, CLIENTS]
    assert len(found) == 4 * CLIENTS


def server_kind(server):
    return "session_id" if server.maximum_version == greentls.ssl.TLSVersion.TLSv1_2 else "stateful"
