"""Stapler with openssl's own responder."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greentls.ocsp import stapler as module
from tests.ocsp.staplers import ask, chain_of, until, verdict
from tests.support.helpers import PATIENCE
from tests.support.ocsp_authority import Authority


@pytest.mark.programs
def test_openssls_responder_says_good_and_revoked(openssl, staplers, logged):
    good, revoked = (chain_of(openssl.authority.issue()) for _ in range(2))
    openssl.authority.revoke(revoked.certificate)
    openssl.start(openssl.authority)
    stapler = staplers(wait_for_first=True)
    assert verdict(ask(stapler, good), good) == "good"
    assert ask(stapler, revoked) is None
    assert [each.status for each in stapler.facts()] == ["good", "revoked"]
    (loud,) = [each for each in logged.records if each.levelno == logging.CRITICAL]
    assert "localhost: REVOKED since 2" in loud.getMessage()


@pytest.mark.programs
def test_openssls_responder_with_a_delegate(openssl, staplers):
    chain = chain_of(openssl.authority.issue())
    openssl.start(openssl.authority, openssl.authority.delegate())
    assert verdict(ask(staplers(wait_for_first=True), chain), chain) == "good"


@pytest.mark.programs
def test_openssls_responder_that_does_not_know_the_certificate(openssl, staplers):
    chain = chain_of(openssl.authority.issue())
    openssl.authority.issued.clear()
    openssl.authority.issue()
    openssl.start(openssl.authority)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert stapler.facts()[0].error.endswith("does not know the certificate")


@pytest.mark.programs
def test_openssls_responder_is_down_then_up_then_down(openssl, staplers, monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY", 0.02)
    chain = chain_of(openssl.authority.issue())
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert "refused" in stapler.facts()[0].error
    openssl.start(openssl.authority)
    until(lambda: ask(stapler, chain))
    assert stapler.facts()[0].error == ""
    openssl.stop()
    assert verdict(ask(stapler, chain), chain) == "good"


@pytest.mark.programs
def test_openssls_responder_with_another_cas_key(openssl, staplers, tmp_path):
    chain = chain_of(openssl.authority.issue())
    (tmp_path / "other").mkdir()
    openssl.start(openssl.authority, Authority(tmp_path / "other").ca)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert "wrong signer: the issuer has not issued the certificate" in stapler.facts()[0].error


FORK = """
import os, sys, gevent, gevent.os
from types import SimpleNamespace
from greentls.certificates import CertificateChain
from greentls.ocsp import Stapler
stapler = Stapler(wait_for_first=True)
sock = SimpleNamespace(certificate_chain=CertificateChain.load(*sys.argv[1:]))
assert stapler(sock)
pid = gevent.os.fork()
assert stapler(sock)
assert len(stapler.facts()) == 1
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.programs
def test_a_forked_worker_begins_anew(openssl):
    issued = openssl.authority.issue()
    openssl.start(openssl.authority)
    done = subprocess.run(
        [sys.executable, "-c", FORK, issued.cert_file, issued.key_file],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
    )
    assert (done.returncode, done.stderr) == (0, "")
