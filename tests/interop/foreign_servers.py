"""Servers that others wrote, and the words by which each tells what it saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.foreign_clients import ALPN, java_peer, node_peer, nss_database
from tests.interop.foreign_programs import Program
from tests.support.helpers import free_port, loopback_only


@dataclass
class Setup:
    """What a server is to be. client_auth: to demand a certificate of the CA."""

    version: str
    ca_file: str
    certificate: tuple[str, str]
    directory: Path
    payload: bytes
    client_auth: bool = False


@dataclass
class Serving:
    """A server that listens. What it answers to a request has the payload in it, forwards or backwards.

    words: patterns of what it prints about a connection. OpenSSL sends the alert that refuses a certificate under
    TLS 1.3 in clear (the standard library's, too), which half of the servers call a record that they cannot decrypt.
    """

    program: Program
    port: int
    request: bytes
    answer: bytes
    words: dict[str, str] = field(default_factory=dict)

    def says(self, what: str) -> bool:
        """Waits for its word, if it has one for that."""
        return what not in self.words or bool(self.program.wait_for(self.words[what]))


def openssl(setup: Setup) -> Serving:
    """s_server -rev: each line backwards, in a record of its own."""
    options = ["-Verify", 1, "-CAfile", setup.ca_file, "-verify_return_error"] if setup.client_auth else []
    program = Program(
        *("openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", setup.certificate[0], "-key", setup.certificate[1]),
        *("-rev", "-tls" + setup.version.replace(".", "_"), "-alpn", ALPN, *options),
    )
    port = int(program.wait_for(r"^ACCEPT 127\.0\.0\.1:(\d+)\n")[1])
    answer = b"".join(line[::-1] + b"\n" for line in setup.payload.splitlines())
    words = {
        "version": f"^Protocol version: TLSv{setup.version}$",
        "client": "^Peer certificate: CN = a client\n(.*\n)*?Verification: OK",
        "refusal": "SSL alert number 4[28]",  # bad_certificate, unknown_ca
    }
    return Serving(program, port, setup.payload, answer, words)


def gnutls(setup: Setup) -> Serving:
    port = free_port()
    auth = ["--require-client-cert", "--verify-client-cert", "--x509cafile", setup.ca_file]
    program = Program(
        *("stdbuf", "-oL", "gnutls-serv", "--echo", "--port", port, f"--alpn={ALPN}"),
        *("--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{setup.version}"),
        *("--x509certfile", setup.certificate[0], "--x509keyfile", setup.certificate[1]),
        *(auth if setup.client_auth else ["--disable-client-cert"]),
        **loopback_only(setup.directory),
    )
    program.wait_for(r"Echo Server listening on IPv4 0\.0\.0\.0 port \d+\.\.\.done")
    words = {
        "version": rf"^- Version: TLS{re.escape(setup.version)}$",
        "alpn": f"^- Application protocol: {ALPN}$",
        "client": r"^- Status: The certificate is trusted\.(.*\n)*?.*Subject: CN=a client$",
        "refusal": "^Error in handshake: (A TLS fatal alert has been received|Decryption has failed)",
        "resumed": r"^\*\*\* This is a resumed session$",
    }
    return Serving(program, port, setup.payload, setup.payload, words)


def nss(setup: Setup) -> Serving:
    """selfserv sends files, and takes requests of less than a record."""
    port = free_port()
    database = nss_database(setup.directory / "nss", setup.ca_file, setup.certificate)
    file = setup.directory / "payload"
    file.write_bytes(setup.payload)
    tls = f"tls{setup.version}"
    program = Program(
        *("selfserv", "-n", "own", "-e", "own", "-p", port, "-d", database, "-V", f"{tls}:{tls}", "-u", "-v", "-Q"),
        *(["-r", "-r"] if setup.client_auth else []),
        **loopback_only(setup.directory),
    )
    program.wait_for("About to call accept")
    head = b"HTTP/1.0 200 OK\r\nServer: Generic Web Server\r\nDate: Tue, 26 Aug 1997 22:10:05 GMT\r\n"
    words = {
        "version": rf"^selfserv: SSL version 3\.{int(setup.version[-1]) + 1} ",
        "client": r"^selfserv: Subject: CN=a client\n(.*\n)*?.*Certificate Validated\.",
        "refusal": "^selfserv: HDX PR_Read returned error",
        "resumed": "[1-9][0-9]* stateless resumes",
    }
    request = f"GET {file} HTTP/1.0\r\n\r\n".encode()
    return Serving(program, port, request, head + b"Content-type: text/plain\r\n\r\n" + setup.payload, words)


def _scripted(command: Callable[[], list[object]], **more_words: str) -> Callable[[Setup], Serving]:
    """Our echo server in another language, over that language's TLS. It prints JSON."""

    def server(setup: Setup) -> Serving:
        auth = [setup.ca_file] if setup.client_auth else []
        program = Program(*command(), "server", "TLSv" + setup.version, *setup.certificate, ALPN, *auth)
        port = int(program.wait_for(r'"port":"?(\d+)\D')[1])
        words = {
            "version": f'"version":"TLSv{setup.version}"',
            "alpn": f'"alpn":"{ALPN}"',
            "client": '"client":"a client"',
            "closed": '"closed":true',
            "refusal": '"refused":',
            **more_words,
        }
        return Serving(program, port, setup.payload, setup.payload, words)

    return server


node = _scripted(node_peer, resumed='"resumed":true')
java = _scripted(java_peer)
