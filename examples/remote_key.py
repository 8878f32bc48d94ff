"""A server whose private key stays in the service that signs with it, such as a KMS.

The service gets the digest by POST and answers with the signature.

    python examples/remote_key.py cert.pem http://127.0.0.1:9000/sign
    openssl s_client -connect 127.0.0.1:8443
"""

import ssl
import sys
import urllib.request
from pathlib import Path

from cryptography import x509
from gevent import monkey
from gevent.server import StreamServer

import greentls
from greentls import keys


def greet(sock, address):
    sock.sendall(b"%.3f s for the signature\n" % sock.hook_seconds.get("sign", 0))


def main(certificate, url, bind="127.0.0.1:8443"):
    def sign(data, algorithm):
        digest = keys.digest(data, algorithm)
        with urllib.request.urlopen(f"{url}?algorithm={algorithm}", digest) as answer:
            return answer.read()

    leaf = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, keys.Callback(leaf.public_key(), sign))
    server = StreamServer(bind, greet, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    monkey.patch_socket()  # so that urllib does not block
    main(*sys.argv[1:])
