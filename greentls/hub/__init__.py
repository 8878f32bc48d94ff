"""Everything that waiting needs. The packages that wait use this one, and know no event loop.

A greenlet that has to wait switches to its hub, which runs the thread's loop and switches back when the wait is over.
``here()`` returns the hub of the running greenlet: gevent's or an event loop's. ``Hub`` describes its methods.
``Deadline`` limits a block that waits. ``PerHub`` holds one object for each hub.
"""

from greentls.hub.coroutines import as_function
from greentls.hub.deadline import Deadline
from greentls.hub.finding import here
from greentls.hub.per_hub import PerHub, ThreadLocal, after_fork, unpatched
from greentls.hub.protocol import Event, Hub, Readable, Task, Timer

__all__ = [
    "Deadline",
    "Event",
    "Hub",
    "PerHub",
    "Readable",
    "Task",
    "ThreadLocal",
    "Timer",
    "after_fork",
    "as_function",
    "here",
    "unpatched",
]
