"""verify_callback: one that keeps what it is asked, and how the two sides of a connection end."""

from __future__ import annotations

import gevent
import pytest

from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import connected

both_sides = pytest.mark.parametrize("side", ["client", "server"])


full_and_resumed = pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])


class Verifier:
    """A callback that keeps what it is asked. answer: what to do when it is asked with that `resumed`."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    def __call__(self, sock, chain, *, resumed):
        self.asked.append((sock, [each.subject.rfc4514_string() for each in chain], resumed))
        return self.answers.get(resumed, lambda: None)()


def a_session(client, server):
    with connected(client, server) as (here, _):
        assert server.drain_sessions(PATIENCE)
        return here.session


def ends_of(client, server, session=None):
    """Both ends' greenlets, and what each came to: its socket, or what ended it, GreenletExit too."""
    here, there = gevent.socket.socketpair()
    results = {}

    def run(side, function, *arguments, **options):
        try:
            results[side] = function(*arguments, **options)
        except BaseException as error:
            results[side] = error

    jobs = {
        "client": gevent.spawn(run, "client", client.wrap_socket, here, server_hostname="localhost", session=session),
        "server": gevent.spawn(run, "server", server.wrap_socket, there, server_side=True),
    }
    return jobs, results


def finish(jobs, results):
    """What ended each of them. A side that is done with its handshake reads, and learns that the other one is not."""
    gevent.joinall(list(jobs.values()), PATIENCE)
    for side, end in results.items():
        if not isinstance(end, BaseException):
            with end:
                end.settimeout(PATIENCE)
                try:
                    results[side] = end.recv(1)
                except Exception as error:
                    results[side] = error
    return results


def refusal(client, server, session=None):
    return finish(*ends_of(client, server, session))


class LockedOut(Exception):
    pass


def raises(error):
    def answer():
        raise error

    return answer
