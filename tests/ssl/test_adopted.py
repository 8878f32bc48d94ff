"""What becomes of the socket that wrap_socket() is given: gevent's are taken as they are, others detached."""

from __future__ import annotations

import errno

import gevent
import gevent.socket
import pytest

from greentls.ssl import adopted
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import contexts, outcome, talk


@pytest.fixture(params=["gevent's own", "detached"])
def way(request, monkeypatch):
    if request.param == "detached":
        monkeypatch.setattr(adopted, "_closed", None)
    return request.param


def wrapped(pki, pair):
    client, server = contexts(pki)
    job = gevent.spawn(server.wrap_socket, pair[1], server_side=True)
    return client.wrap_socket(pair[0], server_hostname="localhost"), job.get(timeout=PATIENCE)


def test_the_given_socket_is_as_after_detach(pki, way):
    pair = gevent.socket.socketpair()
    descriptors = [each.fileno() for each in pair]
    watchers = [each._read_event for each in pair]
    ends = wrapped(pki, pair)
    assert [each.fileno() for each in ends] == descriptors
    for given in pair:
        assert given.fileno() == -1
        with pytest.raises(OSError) as raised:
            given.recv(1)
        assert raised.value.errno == errno.EBADF
        given.close()
    talk(*ends)
    assert [end._stream._readable is watcher for end, watcher in zip(ends, watchers, strict=True)] == [
        way == "gevent's own"
    ] * 2
    for end in ends:
        end.close()


def test_whoever_waits_for_the_given_socket_is_told(pki, way):
    """hazard: its wait is taken over, and it wakes when TLS has something."""
    pair = gevent.socket.socketpair()
    waiting = gevent.spawn(outcome, pair[1].recv, 1)
    gevent.sleep(0)
    ends = wrapped(pki, pair)
    assert isinstance(waiting.get(timeout=PATIENCE), OSError)
    talk(*ends)
    for end in ends:
        end.close()


def test_a_closed_socket_is_refused_as_ever(pki, way):
    here, there = gevent.socket.socketpair()
    here.close()
    with pytest.raises(ValueError), there:
        contexts(pki)[0].wrap_socket(here, server_hostname="localhost")
