"""First flights of real servers."""

from __future__ import annotations

import base64
import shutil
import ssl
import tempfile
from pathlib import Path

from tests.capture.captures import Captures
from tests.capture.servers import Serving, s_server
from tests.capture.tap import ALPN, NAME, Tap, run, version_of
from tests.support.helpers import Pki, free_port, loopback_only


def openssl_flights(captures: Captures, pki: Pki) -> None:
    peer = version_of("openssl", "version") + ", s_server"
    variants: dict[str, tuple[list[str], list[str], str, dict[str, object]]] = {
        "openssl-3.0-ecdhe": (["-tls1_2", "-curves", "P-256"], [], "ec", {"named_curve": 23}),
        "openssl-3.0-dhe": (["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], [], "rsa", {"dhe": True}),
        "openssl-3.0-rsa": (["-tls1_2", "-cipher", "AES128-GCM-SHA256"], [], "rsa", {"cipher_suite": 0x009C}),
        "openssl-3.0-verify": (
            ["-tls1_2", "-Verify", "1", "-CAfile", pki.ca_file],
            [],
            "ec",
            {"certificate_authorities": 1},
        ),
        "openssl-3.0-tls11": (
            ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-Verify", "1", "-CAfile", pki.ca_file],
            ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            "rsa",
            {"legacy_version": 0x0302, "certificate_authorities": 1},
        ),
        "openssl-3.0-tls13": ([], [], "ec", {"selected_version": 0x0304}),
        "openssl-3.0-alpn": (["-tls1_2", "-alpn", "h2"], ["-alpn", ",".join(ALPN)], "ec", {"alpn_protocols": ["h2"]}),
    }
    for name, (server_options, client_options, kind, told) in variants.items():
        if captures.wants(name):
            with s_server(pki, *server_options, kind=kind) as server:
                tap = Tap(server.port)
                run("openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", "-servername", NAME, *client_options)
                flight = bytes(tap.connections[-1][1])
                if "tls13" not in name:
                    told = {**told, "certificate": base64.b64encode(server.der).decode()}
                captures.keep("flights", name, flight, peer, told)


def stapled_flight(captures: Captures, pki: Pki) -> None:
    """A response, signed by the CA itself, as s_server reads it from a file."""
    if not captures.wants("openssl-3.0-status"):
        return
    port = free_port()
    certificate, key = pki.issue(NAME)
    with tempfile.TemporaryDirectory() as directory:
        response, ca_key, index = (Path(directory, name) for name in ("response.der", "ca.key", "index"))
        from cryptography.hazmat.primitives import serialization

        plain = serialization.NoEncryption()
        ca_key.write_bytes(pki._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        index.write_text("")
        made = run(
            *("openssl", "ocsp", "-index", index, "-rsigner", pki.ca_file, "-rkey", ca_key, "-CA", pki.ca_file),
            *("-issuer", pki.ca_file, "-cert", certificate, "-respout", response, "-ndays", "30"),
        )
        assert response.exists(), made
        with Serving(
            *(
                "openssl",
                "s_server",
                "-accept",
                f"127.0.0.1:{port}",
                "-cert",
                certificate,
                "-key",
                key,
                "-tls1_2",
                "-www",
            ),
            *("-status_file", response),
            port=port,
        ):
            tap = Tap(port)
            run("openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", "-servername", NAME, "-status")
        told = {"response": base64.b64encode(response.read_bytes()).decode()}
        peer = version_of("openssl", "version") + ", s_server"
        captures.keep("flights", "openssl-3.0-status", bytes(tap.connections[-1][1]), peer, told)


def gnutls_flight(captures: Captures, pki: Pki) -> None:
    if captures.wants("gnutls-tls12") and shutil.which("gnutls-serv"):
        port = free_port()
        certificate, key = pki.issue(NAME, kind="rsa")
        command = ["gnutls-serv", "--http", "--disable-client-cert", f"--x509certfile={certificate}"]
        command += [f"--x509keyfile={key}", "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2", f"--port={port}"]
        with Serving(*command, port=port, **loopback_only(pki.directory)):
            tap = Tap(port)
            run("openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", "-servername", NAME)
        der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
        told = {"certificate": base64.b64encode(der).decode()}
        peer = version_of("gnutls-serv", "--version")
        captures.keep("flights", "gnutls-tls12", bytes(tap.connections[-1][1]), peer, told)


def node_flight(captures: Captures, pki: Pki) -> None:
    if captures.wants("node-tls12") and shutil.which("node"):
        port = free_port()
        certificate, key = pki.issue(NAME)
        script = (
            "const fs = require('fs'), [port, cert, key] = process.argv.slice(1);"
            "const options = {cert: fs.readFileSync(cert), key: fs.readFileSync(key), maxVersion: 'TLSv1.2'};"
            "require('tls').createServer(options, (socket) => socket.end('done')).listen(port, '127.0.0.1')"
        )
        with Serving("node", "-e", script, str(port), certificate, key, port=port):
            tap = Tap(port)
            run("openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", "-servername", NAME)
        der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
        told = {"certificate": base64.b64encode(der).decode()}
        captures.keep(
            "flights", "node-tls12", bytes(tap.connections[-1][1]), f"Node.js {version_of('node', '-v')}", told
        )
