"""HTTPS clients that know nothing of sessions resume, under greentls.monkey.patch(client_sessions=True).

Each of their connections makes a context of its own; whether it was resumed says the server, which is the standard
library's. That they do not get by a strange CA, though the server would resume, is the program fixture's.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.request

import pytest


@pytest.fixture(scope="module")
def port(start, pki):
    return start.peer("https", pki.cert_file, pki.key_file).port


def with_requests(context, ca, port):
    import requests

    answers = []
    for _ in range(3):
        with requests.Session() as session:
            answers.append(session.get(f"https://localhost:{port}/", verify=ca).json())
    return answers


def with_urllib3(context, ca, port):
    import urllib3

    answers = []
    with urllib3.PoolManager(ca_certs=ca, retries=False) as pool:
        for _ in range(3):
            answers.append(pool.request("GET", f"https://localhost:{port}/", headers={"Connection": "close"}).json())
    return answers


def with_urllib3_in_a_proxys_tls(context, ca, port):
    import urllib3

    answers = []
    for _ in range(3):
        with urllib3.ProxyManager(f"https://localhost:{port}", ca_certs=ca, retries=False) as manager:
            answers.append(manager.request("GET", f"https://localhost:{port}/").json())
    return answers


def with_http_client(context, ca, port):
    answers = []
    for _ in range(3):
        connection = http.client.HTTPSConnection("localhost", port, context=ssl.create_default_context(cafile=ca))
        connection.request("GET", "/")
        answers.append(json.load(connection.getresponse()))
        connection.close()
    return answers


def with_urllib(context, ca, port):
    answers = []
    for _ in range(3):
        context = ssl.create_default_context(cafile=ca)
        with urllib.request.urlopen(f"https://localhost:{port}/", context=context) as response:
            answers.append(json.load(response))
    return answers


PROGRAMS = [with_requests, with_urllib3, with_urllib3_in_a_proxys_tls, with_http_client, with_urllib]


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda function: function.__name__)
def test_each_connection_but_the_first_is_resumed(function, program, port):
    answers = program("resuming", function, port)
    assert len({answer["connection"] for answer in answers}) == 3
    assert [answer["resumed"] for answer in answers] == [False, True, True]


def test_none_is_without_being_told(program, port):
    assert [answer["resumed"] for answer in program("patched", with_requests, port)] == [False] * 3
