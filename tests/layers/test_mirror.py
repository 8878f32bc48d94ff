"""The tests mirror the package: the tests of greentls/core/config.py are in tests/core/test_config.py.

Some modules work only together with others, and are tested through those. The table below names their test files. No
test file has more than 600 lines.
"""

from __future__ import annotations

import pytest

from tests.layers.floors import modules
from tests.support.helpers import ROOT

TESTS = ROOT / "tests"
MOST_LINES = 600

# By module, the test files that cover it; directories stand for all tests in them.
ELSEWHERE = {
    "_version": "cli/test_serve.py",
    "__main__": "cli/test_serve.py",
    "aio.connecting": "aio/test_transport.py programs/test_asyncio.py",
    "aio.flow": "aio/test_transport.py aio/test_pump.py",
    "aio.loop": "programs/test_asyncio.py programs/test_asgi.py aio/test_cpython.py",
    "aio.ssl_object": "aio/test_hooks.py aio/test_transport.py",
    "aio.workers": "aio/test_cancelled.py aio/test_pump.py",
    "cli.application": "cli/test_serve.py cli/test_serve_bad_input.py",
    "cli.checks": "cli/test_doctor.py",
    "cli.hardening": "cli/test_keys.py cli/test_key_process.py",
    "cli.hello_forms": "cli/test_hello.py",
    "cli.page": "cli/test_serve.py",
    "cli.prefork": "cli/test_serve.py cli/test_key_process.py",
    "cli.worker": "cli/test_serve.py",
    "core.callbacks": "core/test_bridge.py core/test_bridge_names.py core/test_sessions.py core/test_verify.py",
    "core.hooks": "core/test_bridge.py ssl/hooks/test_every_hook.py",
    "errors": "docs/test_docs.py ssl/test_errors.py",
    "hub.asyncio": "hub",
    "hub.asyncio_sockets": "hub",
    "hub.deadline": "hub/test_hub.py",
    "hub.finding": "hub/test_hub.py hub/test_both.py",
    "hub.gevent": "hub",
    "hub.per_hub": "hub/test_hub.py",
    "hub.protocol": "hub",
    "keys.contract": "keys/test_callback.py typing/uses.py",
    "keys.process": "keys/test_agent.py keys/test_hostile.py keys/test_key_files.py",
    "keys.signer": "keys/test_callback.py keys/test_hostile.py",
    "ocsp.client_check": "ssl/hooks/test_revocation.py ssl/hooks/test_responder.py",
    "openssl.client_hello": "core/test_bridge_names.py core/test_second_hello.py",
    "openssl.declarations": "openssl/test_library.py openssl/test_foundation.py",
    "openssl.inventory": "cli/test_doctor.py",
    "openssl.provider": "keys/test_callback.py keys/test_hostile.py",
    "openssl.stacks": "openssl/test_connections.py core/test_verify.py",
    "prometheus": "ssl/test_observed.py",
    "ssl.client_hello": "ssl/hooks/test_client_hello.py ssl/hooks/test_client_hello_memorybio.py",
    "ssl.common": "ssl/test_facts.py ssl/test_observed.py",
    "ssl.compiled": "ssl/test_changes.py ssl/test_policy_table.py",
    "ssl.context": "ssl/test_server.py ssl/test_client.py ssl/test_credentials.py",
    "ssl.hooks.deadline": "ssl/hooks/test_every_hook.py",
    "ssl.hooks.replay_guard": "ssl/test_early_data.py",
    "ssl.hooks.signature": "keys/test_callback.py ssl/hooks/test_every_hook.py",
    "ssl.plain_socket": "ssl/test_unwrap.py ssl/hooks/test_client_hello.py",
    "ssl.polling": "test_monkey_select.py",
    "ssl.replacement": "ssl/test_namespace.py ssl/test_newer_setters.py",
    "ssl.socket": "ssl/test_sockets.py ssl/test_server.py ssl/test_oracle.py",
    "ssl.socket_methods": "ssl/test_sockets.py ssl/test_oracle.py",
    "strategy.prefetch": "test_strategy.py ssl/test_strategies.py",
    "strategy.thread": "test_strategy.py ssl/test_strategies.py",
    "tickets": "tickets",
    "wire.bodies": "wire/test_hello.py wire/test_real_hellos.py",
    "wire.cipher_suites": "wire/test_registry.py",
    "wire.extensions": "wire/test_hello.py",
}

NAMES = [name.removeprefix("greentls.") for _, name, is_package in modules() if not is_package]


def own_test(name):
    *packages, module = name.split(".")
    return TESTS.joinpath(*packages, f"test_{module}.py")


@pytest.mark.parametrize("name", NAMES)
def test_every_module_has_tests_and_they_are_found(name):
    found = own_test(name)
    assert found.exists() is (name not in ELSEWHERE), f"{found.relative_to(ROOT)}, or a line in ELSEWHERE"
    for each in ELSEWHERE.get(name, "").split():
        assert (TESTS / each).exists(), each


def test_the_table_names_no_module_that_is_gone():
    assert set(ELSEWHERE) <= set(NAMES)


def test_no_test_file_is_long():
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in TESTS.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > MOST_LINES} == {}
