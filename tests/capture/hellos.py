"""ClientHellos of real clients."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend
from OpenSSL import SSL

from tests.capture.captures import Captures
from tests.capture.servers import s_server
from tests.capture.tap import ALPN, NAME, Tap, in_clear, run, version_of
from tests.support.helpers import Pki, wait_until


def openssl_hellos(captures: Captures) -> None:
    peer = version_of("openssl", "version") + ", s_client"
    groups = ["-groups", "P-384:X25519"]
    long_alpn = [f"protocol-{number:03}-" + "x" * 90 for number in range(165)]
    variants: dict[str, tuple[list[str], dict[str, object]]] = {
        "openssl-3.0": (["-alpn", ",".join(ALPN), "-status"], {"alpn_protocols": ALPN, "status_request": True}),
        "openssl-3.0-tls12": (["-tls1_2", *groups], {"supported_groups": [24, 29], "supported_versions": []}),
        "openssl-3.0-tls10": (
            ["-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0", "-noservername"],
            {"server_name": None, "legacy_version": 0x0301, "cipher_suites": [0x002F, 0x00FF]},
        ),
        "openssl-3.0-two-suites": (
            [
                "-ciphersuites",
                "TLS_AES_256_GCM_SHA384",
                "-cipher",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "-maxfraglen",
                "2048",
            ],
            {"cipher_suites": [0x1302, 0xC02F, 0x00FF], "max_fragment_length": 3},
        ),
        "openssl-3.0-17k": (["-alpn", ",".join(long_alpn)], {"alpn_protocols": long_alpn}),
        "openssl-3.0-small-records": (
            ["-max_send_frag", "512", "-alpn", ",".join(long_alpn[:20])],
            {"alpn_protocols": long_alpn[:20]},
        ),
    }
    for name, (options, told) in variants.items():
        if captures.wants(name):
            tap = Tap()
            named = [] if "-noservername" in options else ["-servername", NAME]
            run("openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", *named, *options)
            captures.keep("hellos", name, tap.hello(), peer, {"server_name": NAME, **told})
            tap.close()


def python_hello(captures: Captures) -> None:
    if not captures.wants("python-ssl"):
        return
    context = ssl.create_default_context()
    context.set_alpn_protocols(ALPN)
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    peer = f"Python {sys.version.split()[0]} ssl, {ssl.OPENSSL_VERSION}"
    captures.keep("hellos", "python-ssl", outgoing.read(), peer, {"server_name": NAME, "alpn_protocols": ALPN})


def pyopenssl_hello(captures: Captures) -> None:
    if not captures.wants("openssl-wheel"):
        return
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([protocol.encode() for protocol in ALPN])
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(NAME.encode())
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass
    peer = f"cryptography's wheel, {backend.openssl_version_text()}"
    told = {"server_name": NAME, "alpn_protocols": ALPN}
    captures.keep("hellos", "openssl-wheel", connection.bio_read(65536), peer, told)


def curl_hello(captures: Captures) -> None:
    if captures.wants("curl") and shutil.which("curl"):
        tap = Tap()
        run("curl", "-s", "--http2", "--resolve", f"{NAME}:{tap.port}:127.0.0.1", f"https://{NAME}:{tap.port}/")
        told = {"server_name": NAME, "alpn_protocols": ALPN}
        captures.keep("hellos", "curl", tap.hello(), version_of("curl", "--version"), told)


def node_hello(captures: Captures) -> None:
    if captures.wants("node") and shutil.which("node"):
        tap = Tap()
        script = (
            "const [port, servername, protocols] = process.argv.slice(1);"
            "require('tls').connect({port, host: '127.0.0.1', servername, ALPNProtocols: protocols.split(',')})"
            ".on('error', () => {})"
        )
        run("node", "-e", script, str(tap.port), NAME, ",".join(ALPN))
        told = {"server_name": NAME, "alpn_protocols": ALPN}
        captures.keep("hellos", "node", tap.hello(), f"Node.js {version_of('node', '-v')}", told)


JAVA_CLIENT = """
import javax.net.ssl.*;
import java.util.List;
class Hello {
    public static void main(String[] words) throws Exception {
        SSLSocket socket = (SSLSocket) SSLSocketFactory.getDefault()
            .createSocket("127.0.0.1", Integer.parseInt(words[0]));
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setServerNames(List.of(new SNIHostName(words[1])));
        parameters.setApplicationProtocols(words[2].split(","));
        socket.setSSLParameters(parameters);
        try { socket.startHandshake(); } catch (java.io.IOException expected) { }
    }
}
"""


def java_hellos(captures: Captures) -> None:
    installed = {"java-17": "java", "java-25": "/usr/lib/jvm/temurin-25-jdk-amd64/bin/java"}
    for name, java in installed.items():
        if captures.wants(name) and shutil.which(java):
            with tempfile.TemporaryDirectory() as directory:
                source = Path(directory, "Hello.java")
                source.write_text(JAVA_CLIENT)
                tap = Tap()
                run(java, source, tap.port, NAME, ",".join(ALPN), seconds=60)
            told = {"server_name": NAME, "alpn_protocols": ALPN}
            captures.keep("hellos", name, tap.hello(), version_of(java, "-version"), told)


def gnutls_hellos(captures: Captures) -> None:
    variants: dict[str, tuple[list[str], dict[str, object]]] = {
        "gnutls": (["--alpn=h2", "--alpn=http/1.1"], {"alpn_protocols": ALPN}),
        "gnutls-tls12": (["--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2"], {"legacy_version": 0x0303}),
    }
    for name, (options, told) in variants.items():
        if captures.wants(name) and shutil.which("gnutls-cli"):
            tap = Tap()
            run("gnutls-cli", f"--sni-hostname={NAME}", "--insecure", *options, "-p", tap.port, "127.0.0.1")
            peer = version_of("gnutls-cli", "--version")
            captures.keep("hellos", name, tap.hello(), peer, {"server_name": NAME, **told})


def nss_hello(captures: Captures) -> None:
    if captures.wants("nss") and shutil.which("tstclnt"):
        tap = Tap()
        run("tstclnt", "-D", "-o", "-Q", "-h", "127.0.0.1", "-p", tap.port, "-a", NAME, "-V", "tls1.2:tls1.3")
        package = run("dpkg-query", "-W", "-f", "NSS ${Version}, tstclnt", "libnss3-tools")
        captures.keep("hellos", "nss", tap.hello(), package, {"server_name": NAME})


def chromium_hellos(captures: Captures, pki: Pki) -> None:
    """The first hello, and, from a page that loads another one over a new connection, one that resumes."""
    if not (captures.wants("chromium") or captures.wants("chromium-psk")) or not shutil.which("chromium"):
        return
    certificate, key = pki.issue(NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    page = b"<meta http-equiv=refresh content=1>"
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as connection:
                while connection.recv(65536):
                    connection.sendall(answer % (len(page), page))
                    connection.unwrap()
        except OSError:
            pass

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    tap = Tap(listener.getsockname()[1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [
                *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *(f"--user-data-dir={profile}", "--disable-background-networking", "--ignore-certificate-errors"),
                *(f"--host-resolver-rules=MAP {NAME} 127.0.0.1", f"https://{NAME}:{tap.port}/"),
                "--remote-debugging-port=0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def resuming() -> bytes | None:
            streams = (in_clear(bytes(client), 1) for client, _ in tap.connections)
            return next((stream for stream in streams if stream and b"\0\x29" in stream[-400:]), None)

        first = tap.hello()
        second = wait_until(resuming, "a hello with pre_shared_key")
        browser.kill()
        browser.wait()
    peer = version_of("chromium", "--version")
    told = {"server_name": NAME, "alpn_protocols": ALPN}
    captures.keep("hellos", "chromium", first, peer, told)
    captures.keep("hellos", "chromium-psk", second, peer, {**told, "psk_identities": 1})


def openssl_resumptions(captures: Captures, pki: Pki) -> None:
    """Hellos that resume with a PSK, with a session ID and with a ticket, and the second one after a retry."""
    peer = version_of("openssl", "version") + ", s_client"
    variants: dict[str, tuple[list[str], list[str], dict[str, object]]] = {
        "openssl-3.0-psk": ([], [], {"psk_identities": 1}),
        "openssl-3.0-session-id": (["-tls1_2", "-no_ticket"], ["-no_ticket"], {"legacy_session_id": "the server's"}),
        "openssl-3.0-ticket": (["-tls1_2"], [], {"session_ticket": "the server's"}),
    }
    for name, (server_options, client_options, told) in variants.items():
        if not captures.wants(name):
            continue
        with s_server(pki, *server_options) as server, tempfile.NamedTemporaryFile() as session:
            tap = Tap(server.port)
            client = ["openssl", "s_client", "-connect", f"127.0.0.1:{tap.port}", "-servername", NAME, *client_options]
            # With a request, so that TLS 1.3's tickets have come when it ends.
            run(*client, "-sess_out", session.name, "-ign_eof", stdin=b"GET / HTTP/1.0\r\n\r\n")
            run(*client, "-sess_in", session.name)
            told = dict(told)
            described = run("openssl", "sess_id", "-in", session.name, "-noout", "-text")
            if "legacy_session_id" in told:
                told["legacy_session_id"] = described.split("Session-ID: ")[1].split()[0].lower()
            if "session_ticket" in told:
                told["session_ticket"] = ticket_of(described).hex()
            captures.keep("hellos", name, tap.hello(1, connection=1), peer, {"server_name": NAME, **told})
    if captures.wants("openssl-3.0-retry"):
        with s_server(pki, "-groups", "P-384") as server:
            tap = Tap(server.port)
            run(
                "openssl",
                "s_client",
                "-connect",
                f"127.0.0.1:{tap.port}",
                "-servername",
                NAME,
                "-groups",
                "X25519:P-384",
            )
            told = {"server_name": NAME, "hellos": 2, "key_share_groups": [[29], [24]]}
            captures.keep("hellos", "openssl-3.0-retry", tap.hello(2), peer, told)
            captures.keep(
                "flights",
                "openssl-3.0-retry",
                bytes(tap.connections[-1][1]),
                peer,
                {"hello_retry_request": True, "group": 24},
            )


def ticket_of(described: str) -> bytes:
    """From the hex dump that openssl sess_id prints."""
    lines = described.split("TLS session ticket:\n")[1].split("\n\n")[0].splitlines()
    return b"".join(bytes.fromhex(line.split(" - ")[1][:48].replace("-", " ")) for line in lines if " - " in line)
