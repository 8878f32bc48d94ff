"""Where sessions live, so that another worker, or the same one after a restart, can resume them.

A store knows nothing of TLS: opaque bytes in, the same bytes out. What those bytes are is a master secret: whoever has
them can stand in for either side of a resumption and, under TLS 1.2, read every connection of that session, recorded
ones too. A store that sends them out of the process is therefore wrapped in a SealedStore, and open_store() refuses to
do without unless it is told ``insecure=1``.

Beside sessions a store keeps shared values: few and small, by name, on which all that use the store agree.
"""

from greentls.stores.contract import BatchStore, Change, SessionStore, SharedValues, Store, check_value
from greentls.stores.urls import open_store

__all__ = ["BatchStore", "Change", "SessionStore", "SharedValues", "Store", "check_value", "open_store"]
