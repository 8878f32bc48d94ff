"""gunicorn's gevent worker, whose ssl_context hook gives it greentls; asked by curl."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.programs.processes import clean_environment
from tests.support.helpers import PATIENCE, free_port

CONFIG = """
worker_class = "gevent"
http_protocols = "h2,h1"
bind = "127.0.0.1:{port}"
certfile, keyfile = {pair!r}
control_socket_disable = True

def ssl_context(conf, default_ssl_context_factory):
    import ssl
    import greentls

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(conf.certfile, conf.keyfile)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
"""
APPLICATION = """
import json

def application(environ, start_response):
    sock = environ.get("gunicorn.socket")  # not there under HTTP/2
    found = {
        "protocol": environ["SERVER_PROTOCOL"],
        "scheme": environ["wsgi.url_scheme"],
        "sent": len(environ["wsgi.input"].read()),
        "socket": f"{type(sock).__module__}.{type(sock).__name__}",
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
"""


@pytest.fixture(scope="module")
def port(start, pki, tmp_path_factory):
    directory, port = tmp_path_factory.mktemp("gunicorn"), free_port()
    (directory / "config.py").write_text(CONFIG.format(port=port, pair=(pki.cert_file, pki.key_file)))
    (directory / "application.py").write_text(APPLICATION)
    gunicorn = start(sys.executable, "-m", "gunicorn", "-c", "config.py", "application:application", cwd=directory)
    gunicorn.wait_for_port(port)
    return port


def curl(port, ca_file, *options):
    address = f"https://localhost:{port}/"
    command = ["curl", "--silent", "--show-error", "--cacert", ca_file, "--max-time", str(PATIENCE), *options, address]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment())


@pytest.mark.parametrize(("option", "protocol"), [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")])
def test_gunicorn(option, protocol, port, pki):
    done = curl(port, pki.ca_file, option, "--data", "x" * 100_000, "--write-out", r"\n%{http_version}")
    assert (done.stderr, done.returncode) == ("", 0)
    told, version = done.stdout.split("\n")
    found = json.loads(told)
    assert (found["protocol"].removesuffix(".0"), f"HTTP/{version}") == (protocol, protocol)
    assert (found["scheme"], found["sent"]) == ("https", 100_000)
    if protocol == "HTTP/1.1":
        assert found["socket"] == "greentls.ssl.socket.SSLSocket"


def test_curl_verifies(port, strange_pki):
    assert "certificate" in curl(port, strange_pki.ca_file).stderr
