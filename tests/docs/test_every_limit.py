"""Each limit of the security page is met in a test: one that names the constant, or one of these, which meet it by the
name of its setting."""

from __future__ import annotations

import re

import pytest

from tests.docs.sources import TESTS, is_there
from tests.support.helpers import ROOT

PAGE = (ROOT / "docs" / "security.rst").read_text("utf-8")
LIMITS = re.findall(r"^   ``greentls\.([\w.]+)``, ", PAGE, re.MULTILINE)

BY_SETTING = {
    "ssl.context.CALLBACK_TIMEOUT": "test_a_callback_that_is_late_refuses_and_says_so",
    "ssl.context.HANDSHAKE_TIMEOUT": "test_a_client_that_never_says_hello_ends_at_the_handshake_timeout",
    "certificates.callback.CALLS": "test_as_many_at_once",
    "certificates.callback.PERIOD": "test_invented_names_cost_so_many_calls_in_a_period_and_no_more",
    "certificates.callback.TIMEOUT": "test_a_call_has_a_time_limit",
    "certificates.callback.MAX_NAMES": "test_unknown_names_push_out_no_certificate",
    "core.config.SESSION_LIFETIME": "test_the_line_of_sessions_ends_with_the_verdict",
    "core.config.MAX_EARLY_DATA": "test_a_server_takes_no_more_than_it_allowed_and_skips_no_more_than_16_kib",
    "sessions.client.MAX_PEERS": "test_memory_is_bounded",
    "sessions.client.PER_PEER": "test_memory_is_bounded",
    "stores.memory.MAX_ENTRIES": "test_the_least_recently_used_goes_first",
    "stores.memory.MAX_BYTES": "test_bytes_are_bounded",
    "stores.memcached.CONNECT_TIMEOUT": "test_one_that_never_accepts_is_a_timeout",
    "stores.memcached.IO_TIMEOUT": "test_one_that_never_answers_is_a_timeout",
    "stores.memcached.POOL": "test_more_greenlets_than_the_pool_wait_for_their_turn",
    "stores.sealed.MIN_SECRET": "test_secrets_that_are_none_are_refused",
    "secret_file.MIN_DISTINCT": "test_bytes_that_repeat_are_no_secret",
    "keys.signer.MAX_WAITING": "test_a_cap_on_those_that_wait",
    "keys.agent.TIMEOUT": "test_one_that_hangs_is_a_timeout",
    "ocsp.stapler.FETCH_TIMEOUT": "test_a_slow_responder_has_a_limit",
    "tickets.AHEAD": "test_keys_from_the_future_that_are_left_out",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_met(limit):
    if limit in BY_SETTING:
        assert is_there(BY_SETTING[limit])
    else:
        assert re.search(rf"\b{limit.rpartition('.')[2]}\b", TESTS), "no test names it"


def test_none_is_listed_that_is_gone():
    assert set(BY_SETTING) <= set(LIMITS)
