"""Stores of sessions, so that another worker, or the same one after a restart, can resume them.

A store knows nothing of TLS: it returns the bytes that it was given. Those bytes are a master secret. They let anybody
impersonate either side of a resumption and, under TLS 1.2, read every connection of that session, recorded ones too. So
a store that sends them out of the process is wrapped in a SealedStore. open_store() insists on that, unless
``insecure=1`` is given.

A store also keeps shared values: a few small values, by name, on which all its users agree.
"""

from greentls.stores.contract import BatchStore, Change, SessionStore, SharedValues, Store, check_value
from greentls.stores.urls import open_store

__all__ = ["BatchStore", "Change", "SessionStore", "SharedValues", "Store", "check_value", "open_store"]
