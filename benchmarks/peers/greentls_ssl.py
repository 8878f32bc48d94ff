"""greentls under StreamServer, by its public API.

--store: the session store (a URL of open_store()); without it sessions are in tickets. --strategy: SSLContext.strategy.
--pure: without the compiled pump.
--hello: at the port "reading", a client_hello_callback that reads server_name.
"""

import os
import ssl

import gevent
from common import announce, arguments, end_with_stdin
from gevent_handlers import handlers, listen

given = arguments(
    ("--store", {"default": ""}), ("--strategy", {"default": ""}), ("--hello", {"action": "store_true"}),
    ("--pure", {"action": "store_true"}),
)  # fmt: skip
if given.pure:
    os.environ["GREENTLS_PURE"] = "1"
import greentls  # noqa: E402  # which looks at it


def context():
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, given.key)
    if given.strategy:
        context.strategy = given.strategy
    if given.store:
        context.session_store = greentls.open_store(given.store)
    return context


plain = context()
ports = {name: listen(handle, plain) for name, handle in handlers(given.block).items()}
if given.hello:
    reading = context()
    reading.client_hello_callback = lambda sock, hello: None if hello.server_name else 112  # unrecognized_name
    ports["reading"] = listen(handlers(given.block)["echo"], reading)
announce(ports)
end_with_stdin()
gevent.wait()
