"""The standard library's server, and what connects to it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from gevent.socket import create_connection

import greentls
from tests.support.helpers import PATIENCE


class StdlibServer:
    """Echoes, by the standard library's ssl, in threads."""

    def __init__(self, pki, **settings):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pki.cert_file, pki.key_file)
        for name, value in settings.items():
            setattr(self.context, name, value)
        self.errors = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                raw.settimeout(PATIENCE)
                try:
                    with self.context.wrap_socket(raw, server_side=True) as sock:
                        while data := sock.recv(65536):
                            sock.sendall(data)
                except OSError as error:
                    self.errors.append(error)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()


def client_context(pki, version="1.3", **settings):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca_file)
    context.minimum_version = context.maximum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[version]
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def connect(address, context, **options):
    options.setdefault("server_hostname", "localhost")
    return context.wrap_socket(create_connection(address, timeout=PATIENCE), **options)
