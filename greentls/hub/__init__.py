"""What waiting needs, once: whoever waits finds its hub here, and knows no loop.

A hub is the greenlet that runs a thread's loop: a greenlet that has to wait switches to it, and is switched back when
what it waits for has come. ``here()`` is the hub of the running greenlet; ``Hub`` says what it offers. ``Deadline``
limits a block that waits. ``PerHub`` holds what there is one of in each hub.
"""

from greentls.hub.coroutines import as_function
from greentls.hub.deadline import Deadline
from greentls.hub.finding import here
from greentls.hub.per_hub import PerHub, ThreadLocal, after_fork, unpatched
from greentls.hub.protocol import Event, Hub, Readable, Task

__all__ = [
    "Deadline",
    "Event",
    "Hub",
    "PerHub",
    "Readable",
    "Task",
    "ThreadLocal",
    "after_fork",
    "as_function",
    "here",
    "unpatched",
]
