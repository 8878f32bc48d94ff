"""imaplib and poplib, from the first byte and by STARTTLS, against a dovecot that is nobody's."""

from __future__ import annotations

import imaplib
import poplib

import pytest

from tests.programs.processes import NOBODY, directory_for_nobody, user_and_group
from tests.programs.program import facts
from tests.support.helpers import free_port

CONFIG = """
protocols = imap pop3
base_dir = {directory}/run
state_dir = {directory}/state
log_path = /dev/stderr
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
mail_location = maildir:{directory}/mail
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={directory}
}}
first_valid_uid = 1
service anvil {{
  chroot =
}}
"""
LOGIN = """
service {protocol}-login {{
  chroot =
  inet_listener {protocol} {{
    address = 127.0.0.1
    port = {clear}
  }}
  inet_listener {protocol}s {{
    address = 127.0.0.1
    port = {tls}
  }}
}}
"""
LETTER = b"Subject: long\r\n\r\n" + b"a line of the letter\r\n" * 10_000


@pytest.fixture(scope="module")
def ports(start, pki):
    """By the client's class."""
    names = ("IMAP4", "IMAP4_SSL", "POP3", "POP3_SSL")
    ports = {name: free_port() for name in names}
    with directory_for_nobody(pki.cert_file, pki.key_file) as (directory, certificate, key):
        user, group = user_and_group()
        config = CONFIG.format(directory=directory, certificate=certificate, key=key, user=user, group=group)
        config += LOGIN.format(protocol="imap", clear=ports["IMAP4"], tls=ports["IMAP4_SSL"])
        config += LOGIN.format(protocol="pop3", clear=ports["POP3"], tls=ports["POP3_SSL"])
        (directory / "dovecot.conf").write_text(config)
        (directory / "dovecot.conf").chmod(0o644)
        dovecot = start("/usr/sbin/dovecot", "-F", "-c", directory / "dovecot.conf", **NOBODY)
        for port in ports.values():
            dovecot.wait_for_port(port)
        yield ports
        dovecot.stop()


def read_by_imap(imap):
    found = facts(imap.sock)
    imap.login("imap", "secret")
    imap.append("INBOX", None, None, LETTER)
    imap.select("INBOX")
    _, [(_, letter), *_] = imap.fetch("1", "(RFC822)")
    imap.logout()
    return {**found, "same": letter == LETTER}


def imap_ssl(context, ca, port):
    return read_by_imap(imaplib.IMAP4_SSL("localhost", port, ssl_context=context))


def imap_starttls(context, ca, port):
    imap = imaplib.IMAP4("localhost", port)
    imap.starttls(context)
    return read_by_imap(imap)


def log_in_by_pop(pop):
    found = facts(pop.sock)
    pop.user("pop")
    pop.pass_("secret")
    octets = sum(int(each.split()[1]) for each in pop.list()[1])
    read = sum(pop.retr(number + 1)[2] for number in range(pop.stat()[0]))
    pop.quit()
    return {**found, "same": octets == read}


def pop_ssl(context, ca, port):
    return log_in_by_pop(poplib.POP3_SSL("localhost", port, context=context))


def pop_stls(context, ca, port):
    pop = poplib.POP3("localhost", port)
    pop.stls(context)
    return log_in_by_pop(pop)


@pytest.mark.parametrize("how", ["patched", "context"])
@pytest.mark.parametrize(
    ("function", "client"),
    [(imap_ssl, "IMAP4_SSL"), (imap_starttls, "IMAP4"), (pop_ssl, "POP3_SSL"), (pop_stls, "POP3")],
    ids=["imaps", "imap-starttls", "pop3s", "pop3-stls"],
)
def test_mail_is_read(how, function, client, program, ports, is_ours):
    found = program(how, function, ports[client])
    is_ours(found)
    assert found["same"]
