"""greentls under StreamServer, by its public API.

--store: the session store (a URL of open_store()); without it sessions are in tickets. --strategy: SSLContext.strategy.
--key-core: the key is in a key process on this core.
--hello: at the port "reading", a client_hello_callback that reads server_name.
"""

import os
import ssl
import subprocess
import sys
import tempfile

import gevent
from common import announce, arguments, end_with_stdin
from gevent_handlers import handlers, listen

import greentls.keys
from benchmarks import machine

given = arguments(
    ("--store", {"default": ""}), ("--strategy", {"default": ""}), ("--hello", {"action": "store_true"}),
    ("--key-core", {"type": int}),
)  # fmt: skip


def key_process():
    """What stands in the key's place."""
    path = os.path.join(tempfile.mkdtemp(), "keys.sock")
    command = [sys.executable, "-m", "greentls", "keys", "serve", "--socket", path, "--key", given.key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=machine.on({given.key_core}))
    process.stdout.readline()  # it listens
    return greentls.keys.Agent(path)


def context():
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, key)
    if given.strategy:
        context.strategy = given.strategy
    if given.store:
        context.session_store = greentls.open_store(given.store)
    return context


key = given.key if given.key_core is None else key_process()
plain = context()
ports = {name: listen(handle, plain) for name, handle in handlers(given.block).items()}
if given.hello:
    reading = context()
    reading.client_hello_callback = lambda sock, hello: None if hello.server_name else 112  # unrecognized_name
    ports["reading"] = listen(handlers(given.block)["echo"], reading)
announce(ports)
end_with_stdin()
gevent.wait()
