"""The collector: whatever finalizers do, nothing that was freed is entered; and no failure leaves work for it."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import subprocess
import sys

import gevent
import gevent.socket
import pytest

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import CertificateError, TLSError
from greentls.stream import TLSStream
from tests.support.helpers import PATIENCE, ROOT
from tests.support.pairs import both_versions, client, client_context, handshake, raw_pair, server_context
from tests.support.ssl_pairs import contexts, handshakes, sides
from tests.support.ssl_pairs import handshake as carry_handshake


def test_a_finalizer_may_use_whatever_is_garbage_with_it():
    """In a process of its own: what is tested here ends a process by SIGSEGV when it is not there."""
    environment = {**os.environ, "MALLOC_PERTURB_": "165"}
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "tests.ssl.collected"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, done.stderr, last) == (0, "", ["96 cases"]), done.stdout


# -- no failure leaves a cycle -----------------------------------------------------------------------------------------


class Refused(BaseException):
    """What a hook raises, or what is thrown into it."""


def refuse(*_, **__):
    raise Refused


def left_over(operation, *arguments):
    """What an operation raises, and what of it only the collector finds. The second time: what is made once is made."""
    with contextlib.suppress(BaseException):
        operation(*arguments)
    for _ in range(3):  # what finalizers of other tests' garbage have kept for a while
        gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        try:
            operation(*arguments)
        except BaseException as error:
            raised = type(error)
        else:
            raised = None
        gc.collect()
        return raised, [repr(each)[:200] for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)


def in_memory(pki, version, side, **hooks):
    """A pair, the one of them that is meant first. hooks: that one's."""
    client_hooks, server_hooks = (hooks, {}) if side == "client" else ({}, hooks)
    ends = (
        client(client_context(pki, version, hooks=Hooks(**client_hooks))),
        Connection(server_context(pki, version, hooks=Hooks(**server_hooks))),
    )
    return ends if side == "client" else ends[::-1]


def fail_handshake_by_hook(pki, version, side, hook):
    ours, peer = in_memory(pki, version, side, **{hook: refuse})
    handshake(*((ours, peer) if side == "client" else (peer, ours)))


def fail_read(pki, version, side):
    ours, peer = in_memory(pki, version, side)
    handshake(*((ours, peer) if side == "client" else (peer, ours)))
    ours.receive_data(GARBAGE)
    ours.read()


def fail_dead(pki, version, side):
    ours, peer = in_memory(pki, version, side)
    handshake(*((ours, peer) if side == "client" else (peer, ours)))
    ours.receive_data(GARBAGE)
    with contextlib.suppress(TLSError):
        ours.read()
    ours.write(b"too late")


def fail_end(pki, version, side):
    ours, peer = in_memory(pki, version, side)
    handshake(*((ours, peer) if side == "client" else (peer, ours)))
    ours.receive_data(b"")
    ours.read()


def fail_in_the_middle(pki, version, side):
    ours, _ = in_memory(pki, version, side)
    ours.receive_data(b"GET / HTTP/1.0\r\n\r\n")
    ours.do_handshake()


def fail_verification(pki, version, side):
    ours = client(client_context(pki, version), name="elsewhere.example")
    handshake(ours, Connection(server_context(pki, version)))


IN_MEMORY = fail_read, fail_dead, fail_end, fail_in_the_middle


@both_versions
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("failure", IN_MEMORY, ids=lambda each: each.__name__)
def test_a_connection_that_fails_leaves_no_cycle(pki, version, side, failure):
    raised, found = left_over(failure, pki, version, side)
    assert issubclass(raised, TLSError)
    assert not found


@both_versions
@pytest.mark.parametrize(
    ("side", "hook"),
    [
        *(("server", each) for each in ("servername", "alpn", "get_session", "new_session", "store_session")),
        *(("server", each) for each in ("ocsp", "certificate")),
        *(("client", each) for each in ("verify", "ocsp", "certificate", "message")),
    ],
)
def test_a_hook_that_raises_leaves_no_cycle(pki, version, side, hook):
    raised, found = left_over(fail_handshake_by_hook, pki, version, side, hook)
    assert raised in (Refused, None)  # not every handshake asks for a session, a protocol or a staple
    assert not found


@both_versions
def test_a_refused_certificate_leaves_no_cycle(pki, version):
    raised, found = left_over(fail_verification, pki, version, "client")
    assert raised is CertificateError
    assert not found


def stream_over(pki, side, timeout):
    """A stream and its peer's, after their handshake."""
    here, there = raw_pair()
    ends = in_memory(pki, 0, side)
    handshake(*(ends if side == "client" else ends[::-1]))
    return TLSStream(here, ends[0], timeout), TLSStream(there, ends[1], PATIENCE)


def stream_handshake(pki, side, timeout, received=b""):
    here, there = raw_pair()
    there.send(received)
    ours = TLSStream(here, in_memory(pki, 0, side)[0], timeout)
    try:
        ours.do_handshake()
    finally:
        ours.close()
        there.close()


def stream_handshake_in_vain(pki, side, timeout):
    stream_handshake(pki, side, timeout)


def stream_handshake_with_garbage(pki, side, timeout):
    stream_handshake(pki, side, timeout, b"GET / HTTP/1.0\r\n\r\n")


def over_streams(operation):
    """A test's failure: operation(ours, peer), of two streams after their handshake."""

    def fail(pki, side, timeout):
        ours, peer = stream_over(pki, side, timeout)
        try:
            operation(ours, peer)
        finally:
            ours.close()
            peer.close()

    fail.__name__ = operation.__name__
    return fail


@over_streams
def stream_read_in_vain(ours, peer):
    ours.read(100)


@over_streams
def stream_read_garbage(ours, peer):
    peer._socket.send(GARBAGE)
    ours.read(100)


@over_streams
def stream_read_at_the_end(ours, peer):
    peer._socket.shutdown(socket.SHUT_WR)
    ours.read(100)


@over_streams
def stream_write_in_vain(ours, peer):
    while True:
        ours.write(bytes(100_000))


@over_streams
def stream_send_in_vain(ours, peer):
    while True:
        ours.send(bytes(100_000))


@over_streams
def stream_shutdown_in_vain(ours, peer):
    ours.shutdown()


OVER_A_SOCKET = (
    stream_handshake_in_vain, stream_handshake_with_garbage, stream_read_in_vain, stream_read_garbage,
    stream_read_at_the_end, stream_write_in_vain, stream_send_in_vain, stream_shutdown_in_vain,
)  # fmt: skip


@pytest.mark.parametrize("timeout", [0.0, 0.01], ids=["at once", "late"])
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("failure", OVER_A_SOCKET, ids=lambda each: each.__name__)
def test_a_stream_that_fails_leaves_no_cycle(pki, side, failure, timeout):
    raised, found = left_over(failure, pki, side, timeout)
    assert issubclass(raised, TLSError | TimeoutError)
    assert not found


def a_second_one(pki, operation, kind):
    """A greenlet that waits for another one's turn, and is ended there."""
    ours, peer = stream_over(pki, "client", None)
    if operation == "read":
        first, second = (lambda: ours.read(1)), (lambda: ours.read(1))
    else:
        first, second = (lambda: ours.write(bytes(10_000_000))), (lambda: ours.write(b"second"))
    jobs = [gevent.spawn(outcome, each) for each in (first, second)]
    gevent.idle()
    for job in jobs:
        job.kill(kind)
    ours.close()
    peer.close()


def outcome(function):
    try:
        function()
    except BaseException as error:
        return type(error)


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("kind", [gevent.GreenletExit, Refused])
def test_a_greenlet_that_is_killed_leaves_no_cycle(pki, operation, kind):
    raised, found = left_over(a_second_one, pki, operation, kind)
    assert raised is None
    assert not found


def sock_fails(pki, operation, side, timeout):
    contexts_ = dict(zip(("client", "server"), contexts(pki), strict=True))
    here, there = gevent.socket.socketpair()
    here.settimeout(timeout)
    try:
        if operation == "garbage":
            there.sendall(b"GET / HTTP/1.0\r\n\r\n")
        if operation == "end":
            there.close()
        contexts_[side].wrap_socket(
            here, server_side=side == "server", server_hostname="localhost" if side == "client" else None
        )
    finally:
        there.close()


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("operation", ["garbage", "end", "late"])
def test_a_socket_whose_handshake_fails_leaves_no_cycle(pki, operation, side):
    raised, found = left_over(sock_fails, pki, operation, side, 0.01)
    assert issubclass(raised, OSError)
    assert not found


def established_sock_fails(pki, operation, timeout):
    ours, peer = handshakes(*contexts(pki))
    ours.settimeout(timeout)
    try:
        if operation == "recv":
            while True:
                ours.recv(100)
        if operation == "garbage":
            peer._raw.send(GARBAGE)
            while True:
                ours.recv(100)
        if operation == "recv_into":
            while True:
                ours.recv_into(bytearray(100))
        if operation == "send":
            while True:
                ours.send(bytes(100_000))
        if operation == "sendall":
            ours.sendall(bytes(100_000_000))
        if operation == "unwrap":
            ours.unwrap()
        if operation == "makefile":
            with ours.makefile("rb") as file:
                file.read(100)
    finally:
        ours.close()
        peer.close()


@pytest.mark.parametrize("operation", ["recv", "recv_into", "garbage", "send", "sendall", "unwrap", "makefile"])
@pytest.mark.parametrize("timeout", [0.0, 0.01], ids=["at once", "late"])
def test_a_socket_that_fails_leaves_no_cycle(pki, operation, timeout):
    raised, found = left_over(established_sock_fails, pki, operation, timeout)
    assert raised is None or issubclass(raised, OSError), raised
    assert not found


@pytest.mark.parametrize("operation", ["do_handshake", "read", "garbage", "unwrap"])
def test_a_memory_bio_that_fails_leaves_no_cycle(pki, operation):
    def fail():
        ends = sides(*contexts(pki))
        if operation == "do_handshake":
            ends[1].incoming.write(b"GET / HTTP/1.0\r\n\r\n")
            ends[1].tls.do_handshake()
        carry_handshake(*ends)
        if operation == "garbage":
            ends[0].incoming.write(GARBAGE)
        getattr(ends[0].tls, "read" if operation == "garbage" else operation)()

    raised, found = left_over(fail)
    assert issubclass(raised, ssl.SSLError)
    assert not found
