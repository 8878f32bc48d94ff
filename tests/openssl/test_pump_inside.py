"""The contract of a pump, held by both: callbacks that wait inside of OpenSSL, and who may enter meanwhile."""

from __future__ import annotations

import gc
import threading
import weakref

import gevent
import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from greentls.errors import ConcurrentUseError, TLSError, WrongThreadError
from greentls.openssl import bios, errors, pump
from greentls.openssl.library import lib
from greentls.openssl.pump import (
    CLOSED,
    DONE,
    UNSENT,
    WANT_READ,
)  # fmt: skip
from tests.openssl.pumps import (
    TLS13,
    client_context,
    established,
    every_verb,
    in_memory,
    read,
    sockets,
    subject,
    tls_verbs,
    waiting_callback,
)  # fmt: skip
from tests.support.fake_sockets import FakeSocket, compiled

# -- callbacks that wait -----------------------------------------------------------------------------------------------


def hellos(base, context, number=1):
    """(client, server)s: the client's hello has come, so that the server's next step asks the callback. It has to be
    set: SSL_new() copies it."""
    made = []
    for _ in range(number):
        client, server = (kind := subject(base))(client_context(TLS13), False), kind(context, True)
        for end, sock in zip((client, server), sockets(), strict=True):
            end.attach(sock)
        assert client.continue_handshake() == WANT_READ
        made.append((client, server))
    return made


def test_one_occupant(base, own_context, files):
    """hazard: plaintext on the wire, memory used after it was freed."""
    said = []

    def body(ssl):
        assert pump_module(base).occupant(ssl) is server
        assert pump_module(base).occupants()[-1] is server
        for verb, _ in tls_verbs(server):
            server.established = server.writable = verb != server.continue_handshake
            with pytest.raises(ConcurrentUseError):
                verb()
        server.established = server.writable = False
        said.append(server.busy)
        main.switch()
        return 1

    main = getcurrent()
    with waiting_callback(own_context, body):
        [(_client, server)] = hellos(base, own_context)
        other = greenlet(server.continue_handshake)
        other.switch()
        assert said == [True]
        assert server.busy
        assert server.name == "do_handshake"
        server.established = server.writable = True
        for verb, _ in tls_verbs(server):
            with pytest.raises(ConcurrentUseError):
                verb()
        server.established = server.writable = False
        assert server.unsent == 0
        server.awaited = True
        assert other.switch() in (WANT_READ,)
    assert not server.busy
    assert (server.left, server.awaited) == (1, False)
    assert pump_module(base).occupants() == []
    assert pump_module(base).occupant(server.ssl) is None


def pump_module(base):
    if base is not pump.PlainPump:
        return compiled

    class Plain:
        occupant, occupants = staticmethod(pump._occupant), staticmethod(pump._occupants)
        current_thread = staticmethod(pump.current_thread)

    return Plain


def test_many_are_inside_at_once_and_leave_in_any_order(base, own_context, files):
    main = getcurrent()

    def body(ssl):
        main.switch()
        return 1

    with waiting_callback(own_context, body):
        made = hellos(base, own_context, 20)
        inside = [greenlet(server.continue_handshake) for _, server in made]
        for each in inside:
            each.switch()
        assert all(server.busy for _, server in made)
        for each in inside[::2] + inside[1::2][::-1]:
            assert each.switch() in (WANT_READ,)
    assert not any(server.busy for _, server in made)
    for client, server in made:
        assert client.continue_handshake() in (DONE, WANT_READ)
        client.send()
        assert (server.continue_handshake() == DONE) or server.continue_handshake() == DONE


def test_ciphertext_comes_and_goes_while_somebody_is_inside(base, own_context, files):
    main = getcurrent()

    def body(ssl):
        main.switch()
        return 1

    with waiting_callback(own_context, body):
        [(client, server)] = hellos(base, own_context)
        other = greenlet(server.continue_handshake)
        other.switch()
        bios.append(client.outgoing, b"\x15\x03\x03\x00\x02\x01\x5a")  # user_canceled
        client.send()
        bios.append(server.outgoing, b"for the peer")
        assert server.send() == DONE
        assert server.receive() in (WANT_READ, b"\x15\x03\x03\x00\x02\x01\x5a")
        other.switch()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GreenletExit])
def test_what_a_callback_noted_is_raised_and_the_connection_is_dead(base, own_context, files, kind):
    failure = kind("of the callback's")

    def body(ssl):
        server.failure = failure
        return 0

    with waiting_callback(own_context, body):
        [(client, server)] = hellos(base, own_context)
        with pytest.raises(kind) as raised:
            server.continue_handshake()
    assert raised.value is failure
    assert server.dead
    assert server.failure is None
    assert not server.busy
    assert server.send() == DONE
    with pytest.raises(TLSError, match="alert"):
        client.continue_handshake()
        client.continue_handshake()


def test_what_a_callback_noted_is_raised_though_openssl_has_succeeded(base, own_context, files):

    def body(ssl):
        server.failure = ValueError("but go on")
        return 1

    with waiting_callback(own_context, body):
        [(_client, server)] = hellos(base, own_context)
        with pytest.raises(ValueError, match="but go on"):
            server.continue_handshake()
    assert server.dead


def test_a_greenlet_that_is_killed_inside_leaves(base, own_context, files):
    main = getcurrent()

    def body(ssl):
        try:
            main.switch()
        except BaseException as failure:
            server.failure = failure
            return 0
        return 1

    with waiting_callback(own_context, body):
        [(_client, server)] = hellos(base, own_context)
        other = greenlet(server.continue_handshake)
        other.switch()
        assert isinstance(other.throw(), GreenletExit)
    assert other.dead
    assert not server.busy
    assert server.dead


def test_a_greenlet_that_nobody_knows_any_more_ends_inside(base, own_context, files):
    """The collector finds it, or the last reference goes: GreenletExit in the middle of SSL_do_handshake()."""
    main = getcurrent()
    ended = []

    def body(ssl):
        try:
            main.switch()
        except BaseException as failure:
            ended.append(type(failure))
            gone().failure = failure
            return 0
        return 1

    with waiting_callback(own_context, body):
        [(client, server)] = hellos(base, own_context)
        gone = weakref.ref(server)
        cycle = [greenlet(server.continue_handshake)]
        cycle.append(cycle)
        cycle[0].switch()
        del server, client, cycle
        gc.collect()
        assert ended == [GreenletExit]
        gc.collect()
        assert gone() is None
    assert pump_module(base).occupants() == []


def test_a_pump_is_garbage_with_what_it_holds(base, files):
    """failure -> traceback -> frame -> pump; entrant; a subclass's own."""
    client, _ = established(base, files, TLS13)
    gone = weakref.ref(client)
    try:
        raise ValueError
    except ValueError as error:
        client.failure = error
    client.me = client
    del client, _
    gc.collect()
    assert gone() is None


def test_errors_of_an_interrupted_operation_stay(base, own_context, files):
    """hazard: SSL_get_error() looks at the queue, which is the thread's and not the connection's."""
    other_client, other_server = established(base, files, TLS13)
    errors.take()

    def body(ssl):
        lib.ERR_put_error(20, 0, 255, b"", 0)
        assert read(other_server) == WANT_READ, "though there was an error in the queue"
        assert errors.take(), "it is still there"
        return 1

    with waiting_callback(own_context, body):
        [(_client, server)] = hellos(base, own_context)
        assert server.continue_handshake() in (WANT_READ,)
    lib.ERR_put_error(20, 0, 255, b"", 0)
    other_client.step_write(b"x")
    assert read(other_server) == b"x", "nobody's errors are no errors"
    errors.take()


def test_another_thread_inside_is_left_alone(base, own_context, files):
    """hazard: it is in SSL_do_handshake() without the GIL, and writes to the BIO that is sent from."""
    inside, go_on = threading.Event(), threading.Event()

    def body(ssl):
        inside.set()
        assert go_on.wait(30)
        return 1

    with waiting_callback(own_context, body):
        [(_client, server)] = hellos(base, own_context)
        thread = threading.Thread(target=server.continue_handshake)
        thread.start()
        assert inside.wait(30)
        try:
            sending = (server.send, server.receive) if base is not pump.PlainPump else ()
            for verb in (server.continue_handshake, *sending):
                with pytest.raises(ConcurrentUseError):
                    verb()
        finally:
            go_on.set()
            thread.join()
    assert not server.busy


# -- who may enter -----------------------------------------------------------------------------------------------------


def test_who_has_entered_last_is_known(base, files):
    _client, server = established(base, files, TLS13)
    assert server.entrant() is getcurrent()
    other = greenlet(lambda: server.step_write(b"x"))
    other.switch()
    assert server.entrant() is other
    del other
    assert server.entrant() is None, "it is not kept"
    server.step_write(b"x")
    assert server.entrant() is getcurrent()


def test_the_hub_may_enter_for_close_notify_only(base, files):
    """hazard: a callback waits in the hub, for ever."""
    _client, server = established(base, files, TLS13)

    def act():
        server.hub = getcurrent()
        for verb, name in every_verb(server):
            if name != "shutdown":
                with pytest.raises(WrongThreadError, match=name):
                    verb()
        assert server.unsent == 0
        assert not server.busy
        return server.step_shutdown()

    assert gevent.spawn(act).get() == DONE


def test_a_pump_belongs_to_one_thread(base, files):
    """hazard: two threads are in OpenSSL with one SSL*, which no lock protects."""
    _client, server = established(base, files, TLS13)
    said = []

    def act():
        for verb, name in every_verb(server):
            try:
                verb()
            except WrongThreadError as error:
                said.append(str(error) == name)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join(30)
    assert said == [True] * 6
    server.thread, server.waits = 0, pump_module(base).current_thread()
    for verb, name in every_verb(server):
        server.entrant = pump.nobody
        with pytest.raises(WrongThreadError, match=name):
            verb()
    assert not server.busy


def test_an_operation_of_pythons(ends):
    client, server = ends
    assert server.run("mine", lambda ssl, number: number, (server.ssl, 7)) == 7
    assert server.name == "mine"
    with pytest.raises(ZeroDivisionError):
        server.run("mine", lambda: 1 // 0, ())
    assert not server.busy
    room = bios.read_buffer(10)
    assert server.run("read", lib.SSL_read, (server.ssl, room, 10)) == WANT_READ
    client.step_shutdown()
    client.send()
    server.refill()
    server.refill()
    assert server.run("read", lib.SSL_read, (server.ssl, room, 10)) == CLOSED


# -- who comes in the middle of a send or a receive --------------------------------------------------------------------


def moving(files, move):
    """A plain pump on a socket of which the next recv() and send() call a function in their middle. The compiled one
    runs no Python there."""
    _client, server = in_memory(pump.PlainPump, files, TLS13)

    def recv_into(buffer, size):
        move()
        raise BlockingIOError

    def send(data):
        move()
        return len(data)

    server.attach(FakeSocket(recv_into, send))
    return server


ALONE = {
    "handshake": lambda server: server.continue_handshake(),
    "read": lambda server: server.step_read(1),
    "write": lambda server: server.step_write(b"x"),
    "send": lambda server: server.send(),
    "receive": lambda server: server.receive(),
    "refill": lambda server: server.refill(),
}


@pytest.mark.parametrize("first", ALONE)
@pytest.mark.parametrize("second", ALONE)
def test_nobody_comes_in_the_middle_of_a_send_or_a_receive(files, first, second):
    """hazard: ciphertext of two that move it at once comes in another order than it went."""
    said = []

    def move():
        try:
            said.append(ALONE[second](server))
        except ConcurrentUseError:
            said.append("refused")

    server = moving(files, move)
    if first == "send":
        bios.append(server.outgoing, b"for the peer")
    ALONE[first](server)
    taken = second == "write" and first in ("send", "receive", "refill")
    assert said == [UNSENT if taken else "refused"]
    assert (server.unsent > 0) == taken, "it is sent by whoever comes next"
    assert not server.busy
    assert not server.moving
