"""The other TLS servers. Each is a program in this directory, which is started if its runtime is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
FLOOR = HERE.parent / "floor"


class Peer(NamedTuple):
    """A server. absent: the reason why it cannot run, or "". command: the program, before the common arguments."""

    name: str
    choice: str  # its name for --peers
    absent: Callable[[], str]
    command: Callable[[str], Sequence[str]]  # takes a directory for built files
    more: Sequence[str] = ()  # arguments after the common ones
    echoes: bool = True  # False: for handshakes only


def needs_module(name: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(name) else f"pip install {name}"


def needs_program(name: str, package: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"there is no {name}: apt-get install {package}"


def python(name: str) -> Callable[[str], Sequence[str]]:
    return lambda directory: [sys.executable, str(HERE / name)]


def go(directory: str) -> Sequence[str]:
    built = f"{directory}/go-server"
    if not Path(built).exists():
        subprocess.run(["go", "build", "-o", built, str(HERE / "server.go")], check=True, capture_output=True)
    return [built]


def here() -> str:
    return ""


PEERS = [
    Peer("gevent.ssl", "gevent.ssl", here, python("gevent_ssl.py")),
    Peer("gevent.ssl, TCP_NODELAY", "gevent.ssl", here, python("gevent_ssl.py"), ["--nodelay"]),
    Peer("eventlet", "eventlet", needs_module("eventlet"), python("eventlet_ssl.py")),
    Peer("threads", "threads", here, python("threads_ssl.py")),
    Peer("asyncio", "asyncio", here, python("asyncio_ssl.py")),
    Peer("uvloop", "uvloop", needs_module("uvloop"), python("asyncio_ssl.py"), ["--uvloop"]),
    Peer("greentls.aio, asyncio", "greentls.aio", here, python("greentls_aio.py")),
    Peer("greentls.aio, uvloop", "greentls.aio", needs_module("uvloop"), python("greentls_aio.py"), ["--uvloop"]),
    Peer("Node", "node", needs_program("node", "nodejs"), lambda directory: ["node", str(HERE / "node.js")]),
    Peer("Go", "go", needs_program("go", "golang-go"), go),
    Peer("nginx", "nginx", needs_program("nginx", "nginx-light"), python("nginx.py"), echoes=False),
    Peer("HAProxy", "haproxy", needs_program("haproxy", "haproxy"), python("haproxy.py"), echoes=False),
    Peer("lean pump", "lean", here, python("lean_pump.py")),
    Peer("C", "floor", here, lambda directory: [str(FLOOR)]),
]
CHOICES = tuple(dict.fromkeys(peer.choice for peer in PEERS))
