"""A CA with an OCSP responder: openssl's, and one that can say anything, as long as it is signed."""

from __future__ import annotations

import datetime
import http.server
import subprocess
import threading
from pathlib import Path

import gevent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from gevent.server import StreamServer

from tests.support.helpers import PATIENCE, free_port

PEM = serialization.Encoding.PEM
USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
STATUS = {each.name.lower(): each for each in ocsp.OCSPCertStatus}


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def ago(**time):
    return now() - datetime.timedelta(**time)


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Issued:
    """A certificate with its key, and both as files."""

    def __init__(self, directory: Path, certificate, key, chain=()) -> None:
        self.certificate, self.key = certificate, key
        stem = f"{certificate.serial_number:x}"
        self.cert_file, self.key_file = str(directory / f"{stem}.pem"), str(directory / f"{stem}.key")
        Path(self.cert_file).write_bytes(b"".join(each.public_bytes(PEM) for each in (certificate, *chain)))
        Path(self.key_file).write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


class Authority:
    """Issues certificates that name a responder, and signs what the responder says."""

    def __init__(
        self, directory: Path, url: str | None = None, ca: Issued | None = None, name: str = "greentls OCSP test CA"
    ) -> None:
        self.directory, self.url = directory, url
        self.revoked: dict[int, datetime.datetime] = {}
        self.issued: list[x509.Certificate] = []
        self.key = ca.key if ca else ec.generate_private_key(ec.SECP256R1())
        self.name = ca.certificate.subject if ca else named(name)
        self.ca = ca or self._self_signed()
        self.ca_file = self.ca.cert_file

    def _self_signed(self) -> Issued:
        builder = self._builder(self.name, self.key, ago(days=30), now() + datetime.timedelta(days=365))
        return Issued(
            self.directory,
            builder.add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256()),
            self.key,
        )

    def _builder(self, subject, key, begins, ends):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )

    def issue(self, *, must_staple=False, days=90, url=..., age=1) -> Issued:
        """For localhost. age: days since it became valid. url: of its responder, by default the CA's."""
        key = ec.generate_private_key(ec.SECP256R1())
        begins = ago(days=age)
        builder = (
            self._builder(named("localhost"), key, begins, begins + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.ExtendedKeyUsage(USES), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        )
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
        url = self.url if url is ... else url
        if url is not None:
            place = x509.UniformResourceIdentifier(url)
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        self.issued.append(certificate)
        return Issued(self.directory, certificate, key, [self.ca.certificate])

    def delegate(self, *, name="OCSP delegate", purpose=ExtendedKeyUsageOID.OCSP_SIGNING, days=30, key=None) -> Issued:
        """A certificate that may sign responses."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        ends = now() + datetime.timedelta(days=days)
        builder = self._builder(named(name), key, min(ago(days=1), ends - datetime.timedelta(1)), ends)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        return Issued(self.directory, builder.sign(self.key, hashes.SHA256()), key)

    def revoke(self, certificate) -> None:
        self.revoked[certificate.serial_number] = ago(hours=1)

    def respond(
        self,
        certificate,
        status=None,
        *,
        begins=None,
        ends=...,
        signer=None,
        include=(),
        algorithm=None,
        certid=None,
        by_name=True,
    ) -> bytes:
        """A response about certificate; by default what is true, as of a minute ago and for an hour."""
        signer = signer or self.ca
        if status is None:
            status = "revoked" if certificate.serial_number in self.revoked else "good"
        begins = begins or ago(minutes=1)
        ends = now() + datetime.timedelta(hours=1) if ends is ... else ends
        encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                certificate,
                self.ca.certificate,
                certid or hashes.SHA1(),
                STATUS[status],
                begins,
                ends,
                self.revoked.get(certificate.serial_number, ago(hours=1)) if status == "revoked" else None,
                x509.ReasonFlags.key_compromise if status == "revoked" else None,
            )
            .responder_id(encoding, signer.certificate)
        )
        if include:
            builder = builder.certificates([each.certificate for each in include])
        if algorithm is None and not isinstance(signer.key, ed25519.Ed25519PrivateKey):
            algorithm = hashes.SHA256()
        return builder.sign(signer.key, algorithm).public_bytes(serialization.Encoding.DER)

    def index(self) -> str:
        """The database of `openssl ca`, and of `openssl ocsp`."""
        lines = []
        for certificate in self.issued:
            ends, when = (
                f"{each:%y%m%d%H%M%SZ}" if each else ""
                for each in (certificate.not_valid_after_utc, self.revoked.get(certificate.serial_number))
            )
            serial = f"{certificate.serial_number:x}".upper()
            serial = serial if len(serial) % 2 == 0 else "0" + serial
            lines.append(f"{'R' if when else 'V'}\t{ends}\t{when}\t{serial}\tunknown\t/CN={serial}\n")
        path = self.directory / "index.txt"
        path.write_text("".join(lines))
        return str(path)


class OpenSSLResponder:
    """`openssl ocsp` behind HTTP of ours: as a server itself it listens on every address, and cannot be told otherwise.

    In a thread, for tests that wait without a hub and for clients in other processes.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = None

    def start(self, authority: Authority, signer: Issued | None = None, minutes: int = 60) -> None:
        """Says what is true now, whoever is revoked later on."""
        signer = signer or authority.ca
        command = [
            *("openssl", "ocsp", "-index", authority.index(), "-CA", authority.ca_file, "-nmin", str(minutes)),
            *("-rsigner", signer.cert_file, "-rkey", signer.key_file, "-reqin", "-", "-respout", "-"),
        ]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers["Content-Length"]))
                done = subprocess.run(command, input=request, capture_output=True, timeout=PATIENCE)
                self.send_response(200 if done.returncode == 0 else 500)
                self.send_header("Content-Type", "application/ocsp-response")
                self.end_headers()
                self.wfile.write(done.stdout)

            def log_message(self, *_: object) -> None:
                """Tests look at standard error."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class FakeResponder(StreamServer):
    """Answers by answer(request: ocsp.OCSPRequest) -> DER, or the bytes of a whole HTTP answer; counts."""

    def __init__(self, answer=None) -> None:
        super().__init__(("127.0.0.1", 0), self._answer)
        self.answer = answer
        self.requests: list[ocsp.OCSPRequest] = []
        self.heads: list[bytes] = []
        self.start()
        self.url = f"http://127.0.0.1:{self.server_port}/ocsp"

    def _answer(self, sock, address) -> None:
        with sock, gevent.Timeout(PATIENCE, False):
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += sock.recv(65536)
            self.heads.append(head)
            self.requests.append(ocsp.load_der_ocsp_request(body))
            answer = self.answer(self.requests[-1])
            if not answer.startswith(b"HTTP/"):
                answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n" + answer
            try:
                sock.sendall(answer)
            except OSError:
                pass  # who asked has given up
