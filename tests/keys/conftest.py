"""A connection to a key process that runs in this process."""

from __future__ import annotations

import gevent
import gevent.socket
import pytest

from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for


@pytest.fixture
def talk(holder):
    """talk(): a socket that the KeyProcess holder has admitted. The test module has the fixture holder."""
    socks = []

    def talk():
        ours, theirs = gevent.socket.socketpair()
        ours.settimeout(PATIENCE)
        socks.append(ours)
        assert holder._admits(theirs)
        gevent.spawn(holder._talk, theirs)
        return ours

    yield talk
    for each in socks:
        each.close()
    wait_for(lambda: not holder._connections, "the connections to end")
