"""An HTTPS server with Prometheus metrics on another port: handshakes, resumptions, hooks, the store.

python examples/metrics.py cert.pem key.pem 127.0.0.1:8443 127.0.0.1:9100
"""

import ssl
import sys

from gevent.pywsgi import WSGIServer
from prometheus_client import make_wsgi_app

import greentls.events
import greentls.prometheus


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"counted\n"]


def main(certificate, key, bind="127.0.0.1:8443", metrics="127.0.0.1:9100"):
    greentls.events.handler = greentls.prometheus.Metrics()
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.session_store = greentls.open_store("memory://")
    exporter = WSGIServer(metrics, make_wsgi_app(), log=None)
    exporter.start()
    server = WSGIServer(bind, page, ssl_context=context, log=None)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
