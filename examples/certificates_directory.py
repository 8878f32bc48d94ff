"""Serves every name that has a certificate in a directory. Renewed certificates are used without a restart.

With certbot, use /etc/letsencrypt/live, and --deploy-hook "kill -HUP PID" to use a renewal at once.

python examples/certificates_directory.py directory
"""

import signal
import ssl
import sys

import gevent
from gevent.server import StreamServer

import greentls
from greentls.certificates import Directory


def tell(sock, address):
    sock.sendall(f"hello from {sock.server_name}\n".encode())


def main(directory, bind="127.0.0.1:8443"):
    certificates = Directory(directory)
    gevent.signal_handler(signal.SIGHUP, certificates.reload)

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificates = certificates
    server = StreamServer(bind, tell, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
