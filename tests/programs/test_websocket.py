"""websocket-client against the websockets package's server."""

from __future__ import annotations

import pytest

from tests.programs.program import facts
from tests.support.helpers import PATIENCE


@pytest.fixture(scope="module")
def port(start, pki):
    return start.peer("websocket", pki.cert_file, pki.key_file).port


def messages(port, **sslopt):
    import websocket

    connection = websocket.create_connection(f"wss://localhost:{port}/", sslopt=sslopt, timeout=PATIENCE)
    try:
        sent = [f"{number} ".encode() * 10_000 for number in range(20)]
        for each in sent:
            connection.send_binary(each)
        received = [connection.recv() for _ in sent]
        return {**facts(connection.sock), "same": received == sent}
    finally:
        connection.close()


def alone(context, ca, port):
    return messages(port, ca_certs=ca)


def given_a_context(context, ca, port):
    return messages(port, context=context)


def dispatched(context, ca, port):
    """WebSocketApp waits with a selector, after it has asked pending()."""
    import websocket

    found, received, errors = {}, [], []

    def on_open(app):
        found.update(facts(app.sock.sock))
        for number in range(50):  # many short ones: several come in one read of the socket
            app.send(str(number))

    def on_message(app, message):
        received.append(message)
        if len(received) == 50:
            app.close()

    def on_error(app, error):
        errors.append(error)  # what is raised here is swallowed

    app = websocket.WebSocketApp(f"wss://localhost:{port}/", on_open=on_open, on_message=on_message, on_error=on_error)
    app.run_forever(sslopt={"context": context})
    for error in errors:
        raise error
    return {**found, "same": received == [str(number) for number in range(50)]}


@pytest.mark.parametrize(
    ("how", "function"),
    [("patched", alone), ("context", given_a_context), ("patched", dispatched), ("context", dispatched)],
    ids=["patched", "context", "patched-app", "context-app"],
)
def test_websocket_client(how, function, program, port, is_ours):
    found = program(how, function, port)
    is_ours(found)
    assert found["same"]
