"""What the tests start and wait for: certificates, a real memcached, a server that never answers."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import ipaddress
import os
import pwd
import random
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = Path(__file__).parents[2]  # programs beside the tests are started from here: python -m tests.soak.soak
DATA = ROOT / "tests" / "data"
# Seconds until a test that waits gives up: a limit for broken code, never part of what is asserted. Long, for a machine
# that does ten other things.
PATIENCE = 120.0

_reserved: deque[int] = deque()  # descriptors of the sockets that hold the last ports


def free_port(held: bool = True) -> int:
    """A port of 127.0.0.1 for a program that the test starts.

    A socket goes on holding it, without listening, so that the kernel gives it to nobody else meanwhile. The program
    can bind to it as well, as it sets SO_REUSEADDR like nearly every server; until then connections are refused. For
    one that does not, held=False: a port that the kernel gives to nobody by itself (ip_local_port_range, ip(7)).
    """
    sock = socket.socket()
    if held:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        _reserved.append(sock.detach())
        if len(_reserved) > 100:
            os.close(_reserved.popleft())
        return port
    with sock:
        while True:
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", random.randrange(20_000, 30_000)))
                return sock.getsockname()[1]


def loopback_only(directory: Path) -> dict[str, str]:
    """Environment for a program that listens on every address and cannot be told otherwise: whoever else is on the
    network has no business with what the tests start."""
    library = directory / "loopback.so"
    source = Path(__file__).with_name("loopback.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def wait_until(condition, what, timeout=PATIENCE):
    """Polls until condition() is true, and returns its value."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.01)
    return value


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that somebody may be writing; the last one may be half there, and is left out then."""
    return path.read_text().rpartition("\n")[0].splitlines()


def tethered(*command: object, user: str | None = None) -> list[str]:
    """The command, whose program is killed when the thread that has started it ends (prctl(2), PR_SET_PDEATHSIG).

    A fixture ends what it has started, unless pytest itself is killed. So this is for the main thread: those of a hub's
    pool end when they have been idle for some seconds. user: whose process it shall be; a program that changes its user
    itself loses the tether.
    """
    words = ["setpriv", "--pdeathsig", "KILL"]
    if user:
        words += ["--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups"]
    return [*words, *map(str, command)]


class Mallinfo(ctypes.Structure):
    _fields_ = [("fields", ctypes.c_size_t * 10)]


def allocated():
    """Bytes that malloc() has given out (mallinfo(3)): cffi's memory, and OpenSSL's."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    fields = mallinfo().fields
    return fields[4] + fields[7]  # hblkhd, uordblks


def interrupted(process: subprocess.Popen[str]) -> bool:
    """Sends Ctrl-C, and tells whether the program has ended. Once is not always enough: the io module's finalizers
    swallow a KeyboardInterrupt, and pywsgi closes by them."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return process.returncode is not None


KINDS = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class Pki:
    """A test CA and what it issues, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "greentls test CA")])
        self._serial = 1000
        ca = self._builder(self._name, self._key, 365).add_extension(x509.BasicConstraints(True, None), True)
        ca = ca.add_extension(
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), True
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
        self.ca = ca.sign(self._key, hashes.SHA256())
        self.ca_file = self._write("ca.pem", self.ca.public_bytes(serialization.Encoding.PEM))
        self.cert_file, self.key_file = self.issue("localhost", "127.0.0.1", "::1")
        self.client = self.issue("a client", client=True)

    def _builder(self, subject, key, days, starts=-30):
        now = datetime.datetime.now(datetime.timezone.utc)
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(now + datetime.timedelta(days=starts))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.touch(0o600)
        path.write_bytes(data)
        return str(path)

    def issue(
        self, *names: str, kind: str = "ec", days: int = 90, starts: int = -30, client: bool = False
    ) -> tuple[str, str]:
        """(certificate file, key file). starts, days: from when on and until when, from now. kind: one of KINDS."""
        key = KINDS[kind]()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            self._builder(subject, key, days, starts)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )
        stem = f"{names[0].replace('*', '_')}-{self._serial}"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._write(f"{stem}.pem", certificate.public_bytes(pem)), self._write(f"{stem}.key", private)

    def crl(self, *serial_numbers: int) -> x509.CertificateRevocationList:
        """Revokes them, for a day. Begins a day ago: OpenSSL's clock, time(2), may still be in the last second."""
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(now - day)
        for number in serial_numbers:
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - day).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.next_update(now + day).sign(self._key, hashes.SHA256())


def _general_name(name: str):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Memcached:
    """A real memcached on a loopback port."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, **query: object) -> str:
        """For open_store(). A busy machine may hold up memcached: it is waited for, if query does not say otherwise."""
        query = {"connect_timeout": PATIENCE, "timeout": PATIENCE, **query}
        return f"memcached://{self.address}?" + "&".join(f"{name}={value}" for name, value in query.items())

    def start(self) -> None:
        command = ["memcached", "-l", self.host, "-p", self.port, "-U", "0", "-m", "16", "-t", "1"]
        command = tethered(*command, user=None if os.getuid() else "nobody")  # it does not run as root
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "memcached to answer")

    restart = start

    def _answers(self) -> bool:
        try:
            return bool(self.stats())
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stats(self) -> dict[str, str]:
        lines = self._ask(b"stats\r\n").decode().splitlines()
        return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection((self.host, self.port), PATIENCE) as sock:
            sock.sendall(command)
            answer = b""
            while not answer.endswith((b"END\r\n", b"OK\r\n", b"ERROR\r\n")):
                chunk = sock.recv(65536)
                if not chunk:
                    break
                answer += chunk
            return answer

    def flush(self) -> None:
        self._ask(b"flush_all\r\n")

    def wait_for(self, sets: int) -> None:
        """Until it was told so often to keep something: sessions reach it behind their clients' backs."""
        wait_until(lambda: int(self.stats()["cmd_set"]) >= sets, "what is on its way to memcached")

    def close(self) -> None:
        if self.process.poll() is None:
            self.resume()
            self.kill()


class SilentServer:
    """Accepts and never answers: a store behind a full disk, a firewall that drops."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"{self.host}:{self.port}"
        self.accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.accepted.append(self._listener.accept()[0])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        for sock in self.accepted:
            sock.close()
