"""Strategies: ways for a handshake to wait for the answer to one of OpenSSL's questions.

**Coroutine** waits where it stands: the callback switches to the hub with OpenSSL's frames on its stack. It needs no
code, here or in the stream; everything else is measured against it.

**Thread** does each step of a handshake in a native thread, so that its private-key operation leaves the loop and other
cores are used. User code never runs there: a question is posted to the hub, a greenlet answers it, and the native
thread sleeps until then, which is why there is a pool of them and why a lookup of 20 ms costs one of them for as long.
The greenlet that does the handshake waits for the thread; what is thrown into it meanwhile (a kill, a timeout) goes to
the greenlet that answers, comes out of the hook there, and the bridge carries it as always. A thread that computes
cannot be interrupted; it comes back by itself within a millisecond or two, and only then does the caller go on.

A native thread that has nothing to do ends, with gevent 26.9 and later, since it holds its hub: threads that come and
go, each with a hub that it destroys, leave nothing behind. If one is destroyed while a hook waits, nobody will ever
answer, and the native thread that waits for that stays, with hub and connection.

After the handshake records are handled on the loop: to encrypt one costs a few microseconds, a trip to a thread and
back fifty.

**Prefetch** reads the ClientHello first, and asks what OpenSSL is going to ask, each question in a greenlet of its own,
before OpenSSL has seen a byte; the callbacks then find the answers ready. Three lookups take as long as the longest of
them. What depends on another answer is asked again if that comes out otherwise: the session, the protocol and the
staple of the Config that the servername hook switches to. What a hello does not foretell (which of several
certificates will be chosen, the peer's chain) waits as a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import gevent
from gevent import get_hub
from gevent.monkey import get_original
from greenlet import getcurrent

from greentls.core.bridge import Operation, question
from greentls.core.callbacks import MAX_SESSION_LOOKUPS
from greentls.core.connection import Connection
from greentls.errors import WireError
from greentls.hub import PerHub
from greentls.wire import ClientHello

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

__all__ = ["STRATEGIES", "Strategy"]

TLS13 = 0x0304
SESSION_ID_SIZE = 32  # of OpenSSL's session ids, and of what it takes for a stateful ticket

# Native threads that do a hub's handshakes. One that waits for a callback's answer does nothing else: 64 lookups of
# 20 ms at once are 3,200 handshakes a second, about what two cores can compute.
THREADS = 64
# Seconds until a native thread ends that has nothing to do. -1: never, since an older gevent loses the task that comes
# while one is on its way out.
IDLE = 10.0 if tuple(map(int, gevent.__version__.split(".")[:2])) >= (26, 9) else -1


class Strategy(NamedTuple):
    """How a stream does the steps of its handshake."""

    name: str
    #: (connection, step): returns what the step returns, raises what it raises. None: the stream does it itself.
    call: Callable[[Connection, Callable[[], int]], int] | None = None
    #: (connection, hello), before a server's OpenSSL sees the hello. May wait; what hooks raise is raised when OpenSSL
    #: asks. None: the hello need not be read.
    client_hello: Callable[[Connection, ClientHello], None] | None = None


# -- thread ------------------------------------------------------------------------------------------------------------

_allocate_lock = get_original("_thread", "allocate_lock")


def _pool() -> ThreadPool:
    from gevent.threadpool import ThreadPool

    return ThreadPool(THREADS, idle_task_timeout=IDLE)


# Not hub.threadpool: hooks may need that to look up an address while handshakes have taken all the threads here.
_pools = PerHub(_pool)


def _spawn(step: Callable[[], int]) -> Any:
    """The AsyncResult of a task in this hub's pool."""
    pool = _pools.get()
    task = pool.spawn(_outcome, step)
    pool.fork_watcher.stop()  # which keeps the pool, and so the hub, also when that is destroyed
    return task


class _Errand:
    """One step, from the greenlet that wants it done to a native thread and back."""

    def __init__(self, operation: Operation, step: Callable[[], int]) -> None:
        self._operation, self._step = operation, step
        self._hub = get_hub()
        self._taken = _allocate_lock()  # by the native thread, or by the greenlet that does not want it any more
        self._interrupt: BaseException | None = None  # what was thrown into the greenlet that waits
        self._question: _Question | None = None

    def run(self) -> int:
        self._operation.ask = self._ask
        self._operation.go_elsewhere()
        try:
            task = _spawn(self._do)
            while not task.ready():
                try:
                    task.wait()
                except BaseException as interrupt:
                    if self._taken.acquire(False):  # it stands in line
                        raise
                    self._cancel(interrupt)
            result, error = task.get()
        finally:
            self._operation.ask = None
            self._operation.come_back()
        failure = error if self._interrupt is None else self._interrupt
        if failure is None:
            return result  # type: ignore[no-any-return]  # gevent is untyped
        try:
            raise failure
        finally:
            del failure, error  # the traceback holds this frame

    def _do(self) -> int:
        """In the native thread."""
        return self._step() if self._taken.acquire(False) else 0

    def _cancel(self, interrupt: BaseException) -> None:
        if self._interrupt is None:
            self._interrupt = interrupt
        if self._question is not None:
            self._question.interrupt(interrupt)

    def _ask(self, body: Callable[..., Any], *arguments: Any) -> Any:
        """In the native thread: has the callback's body run in the hub's thread."""
        question = _Question(self._operation, body, arguments)
        self._hub.loop.run_callback_threadsafe(self._answer, question)
        question.answered.acquire()
        if question.error is not None:
            raise question.error
        return question.value

    def _answer(self, question: _Question) -> None:
        """In the hub."""
        self._question = question
        if self._interrupt is None:
            question.start()
        else:
            question.refuse(self._interrupt)


class _Question:
    """A callback's body that a greenlet runs while the native thread waits for answered."""

    def __init__(self, operation: Operation, body: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._operation, self._body, self._arguments = operation, body, arguments
        self.value: Any = None
        self.error: BaseException | None = None
        self.answered = _allocate_lock()
        self.answered.acquire()
        self._greenlet: Any = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        # Not at the end of _run(): a greenlet that is killed before its first turn never gets there.
        self._greenlet.rawlink(self._done)

    def refuse(self, error: BaseException) -> None:
        self.error = error
        self.answered.release()

    def interrupt(self, error: BaseException) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(error, block=False)

    def _run(self) -> None:
        thread, self._operation.entrant = self._operation.entrant, ref(getcurrent())
        try:
            self.value = self._body(*self._arguments)
        except BaseException as error:
            self.error = error
        finally:
            self._operation.entrant = thread

    def _done(self, greenlet: Any) -> None:
        self._greenlet = None
        if self.error is None and isinstance(greenlet.value, gevent.GreenletExit):
            self.error = greenlet.value
        self.error = self.error or greenlet.exception
        self.answered.release()


def _outcome(step: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """gevent would print what it raises, in a thread or in a greenlet."""
    try:
        return step(), None
    except BaseException as error:
        return None, error


def _in_a_thread(connection: Connection, step: Callable[[], int]) -> int:
    return _Errand(connection.operation, step).run()


# -- prefetch ----------------------------------------------------------------------------------------------------------


def _prefetch(connection: Connection, hello: ClientHello) -> None:
    try:
        name = hello.server_name
        foreseen = _foreseen(connection, hello)
    except WireError:
        return  # OpenSSL finds it, too, and knows the alert
    asked: dict[Any, gevent.Greenlet] = {}
    connection.operation.foretell(name)
    try:
        before = connection.context
        choose = connection.session_hooks.servername
        if choose is not None:
            asked[question(connection, choose, (name,), bound=False)] = _ask(connection, choose, name)
        _ask_all(connection, foreseen, asked)
        if choose is not None:
            next(iter(asked.values())).join()
            if connection.context is not before:
                foreseen = _foreseen(connection, hello)
                stale = list(asked)[1:]
                gevent.killall([asked.pop(key) for key in stale])
                _ask_all(connection, foreseen, asked)
        gevent.joinall(list(asked.values()))
    except BaseException:
        gevent.killall(list(asked.values()), block=False)
        raise
    finally:
        connection.operation.forget_hello()
    connection.operation.answers = {key: partial(_answer, each.value) for key, each in asked.items()}


def _ask_all(connection: Connection, foreseen: list[tuple[Any, ...]], asked: dict[Any, gevent.Greenlet]) -> None:
    for hook, *arguments in foreseen:
        key = question(connection, hook, tuple(arguments))
        asked[key] = _ask(connection, hook, *arguments)


def _foreseen(connection: Connection, hello: ClientHello) -> list[tuple[Any, ...]]:
    """(hook, arguments) of what OpenSSL will ask, as things stand. Raises WireError."""
    questions: list[tuple[Any, ...]] = []
    context, hooks = connection.context, connection.hooks
    tls13 = TLS13 in hello.supported_versions and context.maximum_version in (0, TLS13)
    sessions = [each.identity for each in hello.psk_identities] if tls13 else [hello.legacy_session_id]
    sessions = [each for each in sessions if len(each) == SESSION_ID_SIZE][:MAX_SESSION_LOOKUPS]
    if (get := connection.session_hooks.get_session) is not None:
        questions += [(get, each) for each in sessions]
    if hooks.alpn is not None and hello.alpn_protocols and getattr(hooks.alpn, "waits", True):
        offered = (each.encode("ascii", "surrogateescape") for each in hello.alpn_protocols)
        questions.append((hooks.alpn, tuple(offered)))
    resuming = bool(sessions) or (tls13 and bool(hello.psk_identities))
    if hooks.ocsp is not None and hello.status_request is not None and len(context.certificates) == 1 and not resuming:
        questions.append((hooks.ocsp, None))
    return questions


def _ask(connection: Connection, hook: Callable[..., Any], *arguments: Any) -> Any:
    return gevent.spawn(_outcome, partial(hook, connection, *arguments))


def _answer(outcome: Any) -> Any:
    value, error = outcome
    if error is None:
        return value
    raise error


STRATEGIES = {
    each.name: each
    for each in (
        Strategy("coroutine"),
        Strategy("thread", call=_in_a_thread),
        Strategy("prefetch", client_hello=_prefetch),
    )
}
