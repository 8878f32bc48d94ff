"""greentls with slow lookups, under one of its ways to wait, or blocking.

--way blocking: callbacks block the thread, as they do without greentls. Other ways are values of SSLContext.strategy.

Ports, for each number N of --milliseconds: "session N", whose session store takes N ms for a get(); "certificate N",
whose sni_callback takes N ms; "three N", where a handshake asks for a name, a protocol and a staple, N ms each;
"signature N", whose signer is N ms away. At the port "park", the sni_callback waits until standard input says
"release"; "report" answers with the number that wait.
"""

from __future__ import annotations

import ssl
import time

import gevent
from common import announce, arguments, end_with_stdin
from gevent.event import Event
from gevent_handlers import handlers, listen

import greentls
from greentls.keys import Callback
from greentls.keys.process import read_key, sign
from greentls.stores.memory import MemoryStore

given = arguments(
    ("--way", {"required": True}),
    ("--milliseconds", {"default": "0"}),
)
sleep = time.sleep if given.way == "blocking" else gevent.sleep
echo = handlers(given.block)["echo"]
released = Event()
waiting = {"now": 0, "most": 0}


def look_up(seconds: float) -> None:
    if not seconds:
        return
    waiting["now"] += 1
    waiting["most"] = max(waiting.values())
    try:
        sleep(seconds)
    finally:
        waiting["now"] -= 1


class SlowStore(MemoryStore):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def get(self, session_id: bytes) -> bytes | None:
        look_up(self._seconds)
        return super().get(session_id)


def context(key: object = given.key) -> greentls.SSLContext:
    made = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(given.certificate, key)
    made.callback_timeout = made.handshake_timeout = 120.0
    if given.way not in ("blocking", "coroutine"):
        made.strategy = given.way
    return made


def session(seconds: float) -> greentls.SSLContext:
    made = context()
    made.session_store = SlowStore(seconds)
    return made


def certificate(seconds: float) -> greentls.SSLContext:
    made = context()
    made.sni_callback = lambda sock, name, context: look_up(seconds)
    return made


def signature(seconds: float) -> greentls.SSLContext:
    key = read_key(given.key)

    def away(data: bytes, algorithm: str) -> bytes:
        look_up(seconds)
        return sign(key, data, algorithm)

    return context(Callback(key.public_key(), away))


def three(seconds: float) -> greentls.SSLContext:
    def choose(sock: object, offered: list[str]) -> str:
        look_up(seconds)
        return offered[0]

    made = certificate(seconds)
    made.alpn_callback = choose
    made.ocsp_callback = lambda sock: look_up(seconds)
    return made


def park() -> greentls.SSLContext:
    def wait(sock: object, name: str | None, context: object) -> None:
        waiting["now"] += 1
        try:
            released.wait()
        finally:
            waiting["now"] -= 1

    made = context()
    made.sni_callback = wait
    return made


ports = {"echo": listen(echo, context())}
for number in given.milliseconds.split(","):
    for kind in (session, certificate, three, signature):
        ports[f"{kind.__name__} {number}"] = listen(echo, kind(float(number) / 1e3))
ports["park"] = listen(echo, park())
loop = gevent.get_hub().loop


def release() -> bool:
    """Runs in a thread."""
    loop.run_callback_threadsafe(released.set)
    return True


announce(ports)
end_with_stdin({"report": lambda: waiting, "release": release})
gevent.wait()
