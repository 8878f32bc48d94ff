"""A parent with shared ticket keys, and a child of it, which has the keys and looks for itself. Exits with 0 if so.

A process of its own, so that the child inherits no greenlets but these.
"""

from __future__ import annotations

import sys

from greentls.tickets import TicketKeys
from tests.support.forks import forked
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.tickets.machines import Clock, Failing


def main():
    store = Failing()
    keys = TicketKeys.shared(store, clock=Clock())
    keys.ready(PATIENCE)
    before, calls = keys.keys, store.calls

    def child():
        keys.ready(None)
        assert keys.keys == before
        wait_for(lambda: store.calls == calls + 1, "a look at the store")
        return 0

    return forked(child)


if __name__ == "__main__":
    sys.exit(main())
