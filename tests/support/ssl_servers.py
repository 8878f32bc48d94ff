"""Servers over greentls, for the tests beside."""

from __future__ import annotations

import ssl

import gevent
from gevent.server import StreamServer

import greentls


def server_context(pki, **settings):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class Server(StreamServer):
    """What its connections raise is kept, instead of printed."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.errors = []

    def wrap_socket_and_handle(self, sock, address):
        try:
            return super().wrap_socket_and_handle(sock, address)
        except (Exception, gevent.Timeout) as error:
            self.errors.append(error)
