"""nginx with one process, which answers every request with 200; for handshakes, with tickets."""

import os
import sys
import tempfile

from common import announce, arguments, free_port

given = arguments()
port = free_port()
directory = tempfile.mkdtemp(prefix="greentls-bench-nginx-")  # the caller sets TMPDIR and removes it
config = os.path.join(directory, "nginx.conf")
places = "".join(
    f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
with open(config, "w", encoding="utf-8") as file:
    file.write(f"""
daemon off;
master_process off;
worker_processes 1;
pid {directory}/pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    {places}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {os.path.abspath(given.certificate)};
        ssl_certificate_key {os.path.abspath(given.key)};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on;
        return 200;
    }}
}}
""")
announce({"handshake": port})
sys.stdout.flush()
os.execvp("nginx", ["nginx", "-p", directory, "-e", "stderr", "-c", config])
