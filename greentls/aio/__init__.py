"""TLS for asyncio. OpenSSL's callbacks may wait, and may be functions or coroutine functions.

The functions have the signatures of asyncio's own. Their ``ssl`` is a greentls.SSLContext. For a library that makes its
connections itself, use an EventLoop of this module.
"""

from greentls.aio.connecting import connect_accepted_socket, create_connection, open_connection, start_tls
from greentls.aio.loop import EventLoop, new_event_loop, new_uvloop
from greentls.aio.serving import Server, create_server, start_server
from greentls.aio.ssl_object import SSLObject
from greentls.aio.transport import TLSTransport

__all__ = [
    "EventLoop",
    "SSLObject",
    "Server",
    "TLSTransport",
    "connect_accepted_socket",
    "create_connection",
    "create_server",
    "new_event_loop",
    "new_uvloop",
    "open_connection",
    "start_server",
    "start_tls",
]
