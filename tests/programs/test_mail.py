"""smtplib with STARTTLS, against aiosmtpd."""

from __future__ import annotations

import smtplib

import pytest

from tests.programs.program import facts


@pytest.fixture(scope="module")
def port(start, pki):
    return start.peer("smtp", pki.cert_file, pki.key_file).port


def with_smtplib(context, ca, port):
    with smtplib.SMTP("localhost", port) as smtp:
        smtp.starttls(context=context)
        found = facts(smtp.sock)
        smtp.ehlo()
        smtp.mail("from@example.org")
        smtp.rcpt("to@example.org")
        status, answer = smtp.data(b"Subject: long\r\n\r\n" + b"a line of the letter\r\n" * 10_000)
        return {**found, "status": status, "answer": answer.decode()}


@pytest.mark.parametrize("how", ["patched", "context"])
def test_smtplib_starttls(how, program, port, is_ours):
    found = program(how, with_smtplib, port)
    is_ours(found)
    assert (found["status"], found["answer"]) == (250, f"220017 bytes under {found['cipher']}")
