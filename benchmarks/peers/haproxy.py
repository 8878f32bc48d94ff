"""HAProxy with one process and thread, which answers every request with 200; for handshakes, with tickets."""

import os
import sys
import tempfile

from common import announce, arguments, free_port

given = arguments()
port = free_port()
directory = tempfile.mkdtemp(prefix="greentls-bench-haproxy-")  # the caller sets TMPDIR and removes it
config, pem = os.path.join(directory, "haproxy.cfg"), os.path.join(directory, "both.pem")
with open(pem, "w", encoding="utf-8") as both:
    for name in (given.certificate, given.key):
        with open(name, encoding="utf-8") as file:
            both.write(file.read())
with open(config, "w", encoding="utf-8") as file:
    file.write(f"""
global
    nbthread 1
    maxconn 8192
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout client 60s
    timeout http-request 60s
frontend front
    bind 127.0.0.1:{port} ssl crt {pem} backlog 4096
    http-request return status 200
""")
announce({"handshake": port})
sys.stdout.flush()
os.execvp("haproxy", ["haproxy", "-db", "-q", "-f", config])
