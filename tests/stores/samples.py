"""Sessions and secrets that the stores' tests put somewhere, the stores to put them into, and nodes that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.helpers import PATIENCE

ID, OTHER = bytes(range(32)), bytes(range(1, 33))


MANY = [number.to_bytes(32, "big") for number in range(40)]


SESSION = b"a master secret, and what belongs to it\r\nEND\r\n\0"


SECRET, SECOND = bytes(range(32)), bytes(range(1, 41))


URLS = {
    "memory": "memory://",
    "memcached": "memcached://{0}?insecure=1",
    "sealed": "memcached://{0}?secret_file={secret}",
    "two nodes": "memcached://{0},{1}?secret_file={secret}&context=two.nodes",
}


def read_all(memcached):
    """Every value that memcached has, whatever the key."""
    with socket.create_connection((memcached.host, memcached.port), 120) as sock, sock.makefile("rwb") as file:
        file.write(b"lru_crawler metadump all\r\n")
        file.flush()
        keys = []
        while (line := file.readline()) != b"END\r\n":
            keys.append(line.split()[0].removeprefix(b"key=").replace(b"%3A", b":"))
        values = {}
        for key in keys:
            file.write(b"get " + key + b"\r\n")
            file.flush()
            header = file.readline().split()
            values[key] = file.read(int(header[3]) + 2)[:-2]
            assert file.readline() == b"END\r\n"
        return values


@contextlib.contextmanager
def talking(talk):
    """The address of a server in a thread that talks to one client after the other."""

    def serve():
        with contextlib.suppress(OSError):  # it listens no more
            while True:
                with listener.accept()[0] as sock:
                    talk(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def answered(function, *arguments):
    """What it returns or raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return error
