#!/usr/bin/env python3
"""Makes tests/data/hellos/ and tests/data/flights/: what real clients and servers send, on loopback.

    python -m tests.data.capture_hellos [NAME...]

Each capture is NAME.bin, the bytes of one direction as they went over the wire, and NAME.json, what to expect of them:
"told" is what the peer was configured to send, "tshark" is how Wireshark dissects the same bytes. greentls parses
nothing here. Clients and tools that are not installed are passed over (apt-get install gnutls-bin libnss3-tools tshark
chromium); names as arguments: these captures only.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend
from OpenSSL import SSL

from tests.support.helpers import Pki, free_port, loopback_only, wait_until

HERE = Path(__file__).parent

NAME = "www.example.com"
ALPN = ["h2", "http/1.1"]


# Bytes --------------------------------------------------------------------------------------------------------------


def records(stream: bytes):
    at = 0
    while at + 5 <= len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        yield stream[at], at, end
        at = end


def in_clear(stream: bytes, messages: int) -> bytes | None:
    """The records of stream up to the one that ends its handshake message of this number, None if it is not there."""
    handshake = b""
    for content_type, start, end in records(stream):
        if content_type == 22 and end <= len(stream):
            handshake += stream[start + 5 : end]
            rest, count = handshake, 0
            while len(rest) >= 4 and len(rest) >= 4 + int.from_bytes(rest[1:4], "big"):
                rest, count = rest[4 + int.from_bytes(rest[1:4], "big") :], count + 1
            if count >= messages and not rest:
                return stream[:end]
    return None


class Tap:
    """A port that records what comes, and hands it on to another port if there is one."""

    def __init__(self, upstream: int | None = None) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections: list[tuple[bytearray, bytearray]] = []  # what the client, what the server sent
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            streams = bytearray(), bytearray()
            self.connections.append(streams)
            server = socket.create_connection(("127.0.0.1", self._upstream)) if self._upstream else None
            threading.Thread(target=self._pipe, args=(client, server, streams[0]), daemon=True).start()
            if server:
                threading.Thread(target=self._pipe, args=(server, client, streams[1]), daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket | None, stream: bytearray) -> None:
        try:
            while data := source.recv(65536):
                stream += data
                if sink:
                    sink.sendall(data)
                elif in_clear(bytes(stream), 1):
                    break
        except OSError:
            pass
        for sock in (source, sink):
            if sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def hello(self, messages: int = 1, connection: int = 0) -> bytes:
        """The client's records, up to the one with its hello of this number."""
        return wait_until(lambda: self._look(messages, connection), "a hello")

    def _look(self, messages: int, connection: int) -> bytes | None:
        with_hello = [streams for streams in self.connections if in_clear(bytes(streams[0]), 1)]
        return in_clear(bytes(with_hello[connection][0]), messages) if len(with_hello) > connection else None

    def close(self) -> None:
        self._listener.close()


def run(*command: object, seconds: float = 20, stdin: bytes = b"") -> str:
    done = subprocess.run(
        [str(word) for word in command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
    )
    return done.stdout.decode(errors="replace")


def version_of(*command: str) -> str:
    """The first line that a program says about itself; on standard error only if it says nothing else (Java)."""
    done = subprocess.run(command, capture_output=True, text=True)
    return next(line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip())


# Wireshark's opinion ------------------------------------------------------------------------------------------------

HELLO_FIELDS = {
    "legacy_version": "tls.handshake.version",
    "random": "tls.handshake.random",
    "legacy_session_id": "tls.handshake.session_id",
    "cipher_suites": "tls.handshake.ciphersuite",
    "compression_methods": "tls.handshake.comp_method",
    "extensions": "tls.handshake.extension.type",
    "extension_lengths": "tls.handshake.extension.len",
    "server_name": "tls.handshake.extensions_server_name",
    "alpn_protocols": "tls.handshake.extensions_alpn_str",
    "supported_groups": "tls.handshake.extensions_supported_group",
    "ec_point_formats": "tls.handshake.extensions_ec_point_format",
    "supported_versions": "tls.handshake.extensions.supported_version",
    "signature_schemes": "tls.handshake.sig_hash_alg",
    "key_share_groups": "tls.handshake.extensions_key_share_group",
    "key_exchanges": "tls.handshake.extensions_key_share_key_exchange",
    "psk_identities": "tls.handshake.extensions.psk.identity.identity",
    "obfuscated_ticket_ages": "tls.handshake.extensions.psk.identity.obfuscated_ticket_age",
    "psk_key_exchange_modes": "tls.extension.psk_ke_mode",
    "compress_certificate": "tls.compress_certificate.algorithm",
    "record_size_limit": "tls.record_size_limit",
    "ja3_string": "tls.handshake.ja3_full",
    "ja3": "tls.handshake.ja3",
    "ja3s_string": "tls.handshake.ja3s_full",
}
FLIGHT_FIELDS = {
    "content_types": "tls.record.content_type",
    "handshake_types": "tls.handshake.type",
    "message_lengths": "tls.handshake.length",
    "certificates": "tls.handshake.certificate",
    "named_curve": "tls.handshake.server_named_curve",
    "point": "tls.handshake.server_point",
    "dh_p": "tls.handshake.p",
    "dh_g": "tls.handshake.g",
    "dh_Ys": "tls.handshake.ys",
    "ticket_lifetime_hint": "tls.handshake.session_ticket_lifetime_hint",
    "ticket": "tls.handshake.session_ticket",
    "certificate_types": "tls.handshake.cert_type",
}


def dissect(stream: bytes, fields: dict[str, str], from_server: bool) -> dict[str, list[str]]:
    """Each field's values, as tshark prints them; a field that the bytes do not have is left out."""
    if not shutil.which("tshark"):
        return {}
    ends = [b"\x0a\0\0\1\x0a\0\0\2", struct.pack(">HH", 50000, 443)]
    if from_server:
        ends = [ends[0][4:] + ends[0][:4], struct.pack(">HH", 443, 50000)]
    packets, sequence = b"", 1
    for at in range(0, len(stream), 60000):
        piece = stream[at : at + 60000]
        tcp = ends[1] + struct.pack(">IIBBHHH", sequence, 1, 5 << 4, 0x18, 65535, 0, 0) + piece
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ends[0] + tcp
        packets += struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
        sequence += len(piece)
    with tempfile.NamedTemporaryFile(suffix=".pcap") as capture:
        capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101) + packets)
        capture.flush()
        wanted = [argument for field in fields.values() for argument in ("-e", field)]
        command = ["tshark", "-r", capture.name, "-o", "tcp.check_checksum:FALSE", "-T", "fields", "-E", "aggregator=;"]
        lines = subprocess.run([*command, *wanted], check=True, capture_output=True, text=True).stdout.splitlines()
    columns = [
        [value for column in row for value in column.split(";") if value]
        for row in zip(*(line.split("\t") for line in lines), strict=True)
    ]
    return {name: values for name, values in zip(fields, columns, strict=True) if values}


def _lines(value: object, indent: str = "") -> str:
    """JSON with a line for each field."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    fields = (f"{indent}  {json.dumps(name)}: {_lines(field, indent + '  ')}" for name, field in value.items())
    return "{\n" + ",\n".join(fields) + f"\n{indent}}}"


class Captures:
    def __init__(self, only: list[str]) -> None:
        self._only = only

    def wants(self, name: str) -> bool:
        return not self._only or name in self._only

    def keep(self, kind: str, name: str, stream: bytes, peer: str, told: dict[str, object]) -> None:
        """kind: "hellos" or "flights"."""
        from_server = kind == "flights"
        fields = {**HELLO_FIELDS, **FLIGHT_FIELDS} if from_server else HELLO_FIELDS
        expected = {
            "peer": peer,
            "told": told,
            "tshark_version": version_of("tshark", "-v") if shutil.which("tshark") else "",
            "tshark": dissect(stream, fields, from_server),
        }
        directory = HERE / kind
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.bin").write_bytes(stream)
        (directory / f"{name}.json").write_text(_lines(expected) + "\n")
        print(f"{kind}/{name}: {len(stream)} bytes from {peer}")


# Clients ------------------------------------------------------------------------------------------------------------


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


class Serving:
    """A server program on a port of its own."""

    def __init__(self, *command: object, port: int, **environment: str) -> None:
        self.port = port
        words = [str(word) for word in command]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        wait_until(self._listens, f"{command[0]} to listen")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def s_server(pki: Pki, *options: object, kind: str = "ec") -> Serving:
    port = free_port()
    certificate, key = pki.issue(NAME, kind=kind)
    serving = Serving(
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-cert",
        certificate,
        "-key",
        key,
        "-www",
        *options,
        port=port,
    )
    serving.der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
    return serving


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


# Servers ------------------------------------------------------------------------------------------------------------


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


def main(only: list[str]) -> None:
    captures = Captures(only)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        for client in (openssl_hellos, python_hello, pyopenssl_hello, curl_hello, node_hello, java_hellos):
            client(captures)
        for client in (gnutls_hellos, nss_hello):
            client(captures)
        for peer in (chromium_hellos, openssl_resumptions, openssl_flights, stapled_flight, gnutls_flight, node_flight):
            peer(captures, pki)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
