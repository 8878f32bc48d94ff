"""ftplib.FTP_TLS with protected data connections against pyftpdlib, and CCC against a scripted server."""

from __future__ import annotations

import ftplib
import io

import pytest

from tests.programs.program import facts


@pytest.fixture(scope="module")
def port(start, pki, tmp_path_factory):
    return start.peer("ftp", pki.cert_file, pki.key_file, tmp_path_factory.mktemp("ftp")).port


@pytest.fixture(scope="module")
def port_with_ccc(start, pki):
    return start.peer("ftp_ccc", pki.cert_file, pki.key_file).port


def log_in(context, port):
    ftp = ftplib.FTP_TLS(context=context)
    ftp.connect("localhost", port)
    ftp.login("user", "secret")  # asks for TLS first unless isinstance(ftp.sock, ssl.SSLSocket)
    return ftp


def with_prot_p(context, ca, port):
    sent, received = b"0123456789abcdef" * 20_000, bytearray()
    with log_in(context, port) as ftp:
        ftp.prot_p()
        ftp.storbinary("STOR file", io.BytesIO(sent))
        ftp.retrbinary("RETR file", received.extend)
        lines = []
        ftp.retrlines("NLST", lines.append)
        return {**facts(ftp.sock), "same": received == sent, "lines": lines}


@pytest.mark.parametrize("how", ["patched", "context"])
def test_each_transfer_ends_its_own_tls(how, program, port, is_ours):
    found = program(how, with_prot_p, port)
    is_ours(found)
    assert (found["same"], found["lines"]) == (True, ["file"])


def with_ccc(context, ca, port):
    with log_in(context, port) as ftp:
        found = {**facts(ftp.sock), "before": ftp.sendcmd("NOOP")}
        ftp.ccc()
        return {**found, "after": ftp.sendcmd("NOOP")}  # read through a file that was made of the socket under TLS


@pytest.mark.parametrize("how", ["patched", "context"])
def test_the_control_connection_goes_on_in_clear(how, program, port_with_ccc, is_ours):
    found = program(how, with_ccc, port_with_ccc)
    is_ours(found)
    assert (found["before"], found["after"]) == ("200 in TLS", "200 in clear")
