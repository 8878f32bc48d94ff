"""Clients that others wrote: each connects, verifies, sends an HTTP request, and says what it made of it."""

from __future__ import annotations

import atexit
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.interop.foreign_programs import Program, checked

HERE = Path(__file__).parent
ALPN = "http/1.1"
PAYLOAD = b"".join(b"line %010d\n" % number for number in range(6400))  # 100 KiB: seven records
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n%s"


@dataclass
class Errand:
    """What a client is to do. twice: in two connections, the second with the session of the first."""

    port: int
    ca_file: str
    directory: Path
    payload: bytes
    name: str = "localhost"
    certificate: tuple[str, str] | None = None
    twice: bool = False

    def request(self, connection: bytes = b"keep-alive") -> bytes:
        return REQUEST % (connection, len(self.payload), self.payload)

    def file(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path


@dataclass
class Told:
    """What a client said of its last connection. resumed, alpn: None if it never says."""

    version: str
    verified: bool
    received: bytes
    alpn: str | None = None
    resumed: bool | None = None


class Refused(Exception):
    """The client's words, when it ended without an answer."""


def _done(program: Program) -> Program:
    if program.finish():
        raise Refused(program.text)
    return program


def _said(pattern: str, text: str) -> str | None:
    """What the pattern's last match says."""
    return (re.findall(pattern, text, re.M) or [None])[-1]


def curl(errand: Errand) -> Told:
    url = f"https://{errand.name}:{errand.port}/"
    options = ["-H", "Connection: close"] if errand.twice else []
    if errand.certificate:
        options += ["--cert", errand.certificate[0], "--key", errand.certificate[1]]
    body = errand.file("body", errand.payload)
    done = _done(
        Program(
            *("curl", "-sSv", "--cacert", errand.ca_file, "--connect-to", f"::127.0.0.1:{errand.port}"),
            *("--http1.1", "--data-binary", f"@{body}", "-H", "Expect:", *options, *[url] * (1 + errand.twice)),
        )
    )
    text = done.err.decode()
    return Told(
        version=_said(r"^\* SSL connection using (\S+)", text),
        verified=_said(r"^\*  SSL certificate verify (ok)\.", text) == "ok",
        received=bytes(done.out),
        alpn=_said(r"^\* ALPN: server accepted (\S+)", text),
    )


def openssl(errand: Errand) -> Told:
    options = ["-alpn", ALPN]
    if errand.certificate:
        options += ["-cert", errand.certificate[0], "-key", errand.certificate[1]]
    session = errand.directory / "session.pem"
    for session_option in ["-sess_out", "-sess_in"][: 1 + errand.twice]:
        client = Program(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{errand.port}", "-servername", errand.name),
            *("-CAfile", errand.ca_file, "-verify_hostname", errand.name, "-verify_return_error"),
            *(*options, session_option, session),
        )
        client.write(errand.request())
        client.wait_for(re.escape(errand.payload[-16:].decode()) + r"|^Verification error|^verify error")
        _done(client)  # it sends close_notify when its input ends, however much it has still to read
    return Told(
        version=_said(r"^(?:New|Reused), (TLSv[\d.]+),", client.text),
        verified=_said(r"Verify return code: (\d+)", client.text) == "0",
        received=bytes(client.out),
        alpn=_said(r"^ALPN protocol: (\S+)", client.text),
        resumed=_said(r"^(New|Reused), TLSv", client.text) == "Reused",
    )


def gnutls(errand: Errand) -> Told:
    options = [f"--alpn={ALPN}"]
    if errand.certificate:
        options += ["--x509certfile", errand.certificate[0], "--x509keyfile", errand.certificate[1]]
    if errand.twice:
        options += ["--resume", "--waitresumption"]
    log = errand.directory / "log"
    client = Program(
        *("gnutls-cli", "--port", errand.port, "--x509cafile", errand.ca_file, "--sni-hostname", errand.name),
        *("--verify-hostname", errand.name, "--logfile", log, *options, "127.0.0.1"),
    )
    done, text = _done(client.write(errand.request())), log.read_text()
    return Told(
        version="TLSv" + _said(r"^- Description: \(TLS([\d.]+)-", text),
        verified=_said(r"^- Status: (.*)", text).strip() == "The certificate is trusted.",
        received=bytes(done.out),
        alpn=_said(r"^- Application protocol: (\S+)", text),
        resumed="*** This is a resumed session" in text,
    )


def nss_database(directory: Path, ca_file: str, certificate: tuple[str, str] | None = None) -> str:
    """A new one, that trusts the CA and calls our certificate "own"."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    database = f"sql:{directory}"
    checked("certutil", "-N", "-d", database, "--empty-password")
    checked("certutil", "-A", "-d", database, "-n", "ca", "-t", "CT,C,", "-i", ca_file)
    if certificate:
        bundle = directory / "own.p12"
        pair = ["-in", certificate[0], "-inkey", certificate[1]]
        checked("openssl", "pkcs12", "-export", *pair, "-out", bundle, "-passout", "pass:", "-name", "own")
        checked("pk12util", "-d", database, "-i", bundle, "-W", "", "-K", "")
    return database


def nss(errand: Errand) -> Told:
    database = nss_database(errand.directory / "nss", errand.ca_file, errand.certificate)
    options = ["-n", "own"] if errand.certificate else []
    if errand.twice:
        options += ["-L", 2]
    # It leaves when the server does, whatever its input.
    request = errand.file("request", errand.request(b"close"))
    done = _done(
        Program(
            *("tstclnt", "-h", "127.0.0.1", "-p", errand.port, "-a", errand.name, "-d", database, "-v", "-u"),
            *("-V", "tls1.2:tls1.3", "-A", request, *options),
        )
    )
    text = done.err.decode()
    minor = _said(r"^tstclnt: SSL version 3\.(\d)", text)
    return Told(
        version={"3": "TLSv1.2", "4": "TLSv1.3"}.get(minor),
        verified="authentication of server cert failed" not in text,
        received=bytes(done.out),
    )


def node_peer() -> list[object]:
    return ["node", HERE / "peer.js"]


@functools.cache
def java_peer() -> list[object]:
    """Compiled once: java would do it at each start, for most of a second."""
    classes = tempfile.mkdtemp(prefix="greentls-")
    atexit.register(shutil.rmtree, classes, ignore_errors=True)
    checked("javac", "-d", classes, HERE / "Peer.java")
    return ["java", "-cp", classes, "Peer"]


def _scripted(command: Callable[[], list[object]]) -> Callable[[Errand], Told]:
    """Our client in another language, over that language's TLS. It prints JSON."""

    def client(errand: Errand) -> Told:
        words = [errand.port, errand.ca_file, errand.name, ALPN, 1 + errand.twice, *(errand.certificate or ())]
        done = _done(Program(*command(), "client", *words).write(errand.request()))
        facts = [json.loads(line) for line in done.err.decode().splitlines() if line.startswith("{")]
        last = [each for each in facts if "version" in each][-1]
        return Told(last["version"], last["verified"], bytes(done.out), last["alpn"], last.get("resumed"))

    return client


node = _scripted(node_peer)
java = _scripted(java_peer)


def chromium(errand: Errand) -> Told:
    """Loads the page, whose script posts the same payload three times and compares; the net log has the rest."""
    nss_database(errand.directory / ".pki/nssdb", errand.ca_file)
    net_log = errand.directory / "net-log.json"
    done = _done(
        Program(
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={errand.directory / 'profile'}", f"--log-net-log={net_log}"),
            *("--host-resolver-rules=MAP * 127.0.0.1", "--dump-dom"),
            f"https://{errand.name}:{errand.port}/" + ("close" if errand.twice else ""),
            HOME=errand.directory,
        )
    )
    if b"<p>the same</p>" not in done.out:
        raise Refused(done.text)
    log = json.loads(net_log.read_text())
    connect = log["constants"]["logEventTypes"]["SSL_CONNECT"]
    params = [each.get("params", {}) for each in log["events"] if each["type"] == connect]
    made = [each for each in params if "version" in each]
    return Told(
        version=made[-1]["version"].replace("TLS ", "TLSv"),
        verified=True,  # else it shows a page of its own instead
        received=errand.payload,  # says the script
        alpn=made[-1]["next_proto"],
        resumed=any(each["is_resumed"] for each in made),
    )
