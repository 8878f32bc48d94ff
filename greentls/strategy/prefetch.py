"""Prefetch: the questions are asked before OpenSSL asks them.

The ClientHello is read first. Before OpenSSL sees a byte, the questions that OpenSSL is going to ask are asked, each in
its own greenlet, and the callbacks then find the answers ready. Three lookups take as long as the longest one. If the
servername hook switches to another Config, that Config's session, protocol and staple are asked for again. Questions
that a hello does not foretell (which of several certificates is chosen, the peer's chain) wait as under coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from greenlet import GreenletExit

from greentls.core.callbacks import MAX_SESSION_LOOKUPS, question
from greentls.core.connection import Connection
from greentls.core.session import TLS13
from greentls.errors import WireError
from greentls.hub import here
from greentls.wire import ClientHello

__all__ = ["client_hello"]

SESSION_ID_SIZE = 32  # bytes of OpenSSL's session ids and stateful tickets


Foreseen = tuple[Callable[..., object], object]  # a hook, and what it is asked


class _Asked:
    """A question that a greenlet of its own asks."""

    def __init__(self, connection: Connection, hook: Callable[..., object], *arguments: object) -> None:
        self._hook, self._arguments = hook, (connection, *arguments)
        self._value: object = None
        self._error: BaseException | None = GreenletExit()
        self.task = here().spawn(self._ask)

    def _ask(self) -> None:
        try:
            self._value, self._error = self._hook(*self._arguments), None
        except BaseException as error:
            self._error = error

    def answer(self) -> object:
        """What the hook returned; raises what it raised."""
        if self._error is None:
            return self._value
        raise self._error


def client_hello(connection: Connection, hello: ClientHello) -> None:
    """Strategy.client_hello."""
    try:
        name = hello.server_name
        foreseen = _foreseen(connection, hello)
    except WireError:
        return  # OpenSSL refuses it too, with the right alert
    asked: dict[object, _Asked] = {}
    answers: dict[object, Callable[[], object]] = {}
    connection.foretell(name)
    try:
        before = connection.config
        choose = connection.session_hooks.servername
        if choose is not None:
            first = question(connection, choose, (name,), bound=False)
            asked[first] = _Asked(connection, choose, name)
        _ask_all(connection, foreseen, asked)
        if choose is not None:
            asked[first].task.join()
            if connection.config is not before:
                foreseen = _foreseen(connection, hello)
                stale = [asked.pop(key) for key in list(asked) if key != first]
                _kill(stale)
                for each in stale:
                    each.task.join()
                _ask_all(connection, foreseen, asked)
        for each in asked.values():
            each.task.join()
        answers = {key: each.answer for key, each in asked.items()}
    except BaseException:
        _kill(asked.values())
        raise
    finally:
        connection.foretold(answers)


def _ask_all(connection: Connection, foreseen: list[Foreseen], asked: dict[object, _Asked]) -> None:
    for hook, argument in foreseen:
        asked[question(connection, hook, (argument,))] = _Asked(connection, hook, argument)


def _kill(asked: Iterable[_Asked]) -> None:
    for each in asked:
        each.task.kill(block=False)


def _foreseen(connection: Connection, hello: ClientHello) -> list[Foreseen]:
    """Returns (hook, arguments) of the questions that OpenSSL will ask under the present Config. Raises WireError."""
    questions: list[Foreseen] = []
    config, hooks = connection.config, connection.hooks
    tls13 = TLS13 in hello.supported_versions and config.maximum_version in (0, TLS13)
    sessions = [each.identity for each in hello.psk_identities] if tls13 else [hello.legacy_session_id]
    sessions = [each for each in sessions if len(each) == SESSION_ID_SIZE][:MAX_SESSION_LOOKUPS]
    if (get := connection.session_hooks.get_session) is not None:
        questions += [(get, each) for each in sessions]
    if hooks.alpn is not None and hello.alpn_protocols and getattr(hooks.alpn, "waits", True):
        offered = (each.encode("ascii", "surrogateescape") for each in hello.alpn_protocols)
        questions.append((hooks.alpn, tuple(offered)))
    resuming = bool(sessions) or (tls13 and bool(hello.psk_identities))
    if hooks.ocsp is not None and hello.status_request is not None and len(config.certificates) == 1 and not resuming:
        questions.append((hooks.ocsp, None))
    return questions
