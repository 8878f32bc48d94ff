"""greentls serve: what it prints, what its page says, how it ends."""

from __future__ import annotations

import html.parser
import os
import re
import signal
import socket
import ssl
import struct
import sys

import pytest

from greentls.cli import main
from tests.cli.clients import GET_JSON, answer, client_context, connect, documents, fetch, handshakes, run, s_client
from tests.support.helpers import loopback_only, wait_until

APP = """
import os, time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/slow":
        open("begun", "w").close()
        while not os.path.exists("go on"):
            time.sleep(0.01)
    if environ["PATH_INFO"] == "/patched":
        import socket, gevent.socket
        return [str(socket.socket is gevent.socket.socket).encode()]
    return [type(environ["greentls.socket"]).__name__.encode()]
"""


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode("latin-1")


@pytest.fixture
def ca_file(tmp_path):
    return str(tmp_path / "demo-ca" / "ca.pem")


@pytest.fixture
def app(tmp_path):
    """--app's value for an application that can be made to wait. wait_until app.begun(); app.go_on()."""

    class App(str):
        def begun(self):
            return (tmp_path / "begun").exists()

        def go_on(self):
            (tmp_path / "go on").touch()

    (tmp_path / "slow_app.py").write_text(APP)
    return App("slow_app:app")


def refuses(port: int) -> bool:
    """Nobody listens there any more. Asks the system, not the server, which would have to serve the question."""
    with open("/proc/net/tcp") as table:
        sockets = [line.split()[1:4] for line in table]
    return not any(local.endswith(f":{port:04X}") and state == "0A" for local, _, state in sockets)


# -- what it prints ----------------------------------------------------------------------------------------------------


@pytest.mark.programs
def test_the_printed_lines_show_a_resumption(serve, tmp_path):
    server = serve()
    curl, first, second = re.findall(r"^  (.+)$", server.out, re.MULTILINE)
    assert curl.startswith("curl --cacert demo-ca/ca.pem ")
    full, resumed = documents(run("env", "-C", tmp_path, "sh", "-c", curl))
    assert (full["resumed"], full["session_source"]) == (False, None)
    assert (resumed["resumed"], resumed["session_source"]) == (True, "memory")
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", first)) == ["New"]
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", second)) == ["Reused"]


@pytest.mark.programs
def test_the_printed_lines_with_ones_own_certificate(serve, pki, tmp_path):
    server = serve("--cert", pki.cert_file, "--key", pki.key_file)
    curl, first, second = re.findall(r"^  (.+)$", server.out, re.MULTILINE)
    assert [each["resumed"] for each in documents(run("env", "-C", tmp_path, "sh", "-c", curl))] == [False, True]
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", first)) == ["New"]
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", second)) == ["Reused"]
    assert not (tmp_path / "demo-ca").exists()


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.programs
def test_an_ipv6_address(serve, tmp_path, capfd):
    if not has_ipv6():
        assert main(["serve", "--bind", "[::1]:0"]) == 2
        assert capfd.readouterr().err.startswith("greentls serve: --bind [::1]:0: ")
        return
    server = serve("--bind", "[::1]:0")
    assert f"listening on https://[::1]:{server.port}/ " in server.out
    curl, first, second = re.findall(r"^  (.+)$", server.out, re.MULTILINE)
    assert [each["resumed"] for each in documents(run("env", "-C", tmp_path, "sh", "-c", curl))] == [False, True]
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", first)) == ["New"]
    assert handshakes(run("env", "-C", tmp_path, "sh", "-c", second)) == ["Reused"]


@pytest.mark.programs
def test_all_addresses(serve, tmp_path, monkeypatch):
    for name, value in loopback_only(tmp_path).items():
        monkeypatch.setenv(name, value)
    server = serve("--bind", "0.0.0.0:0")
    assert f"listening on https://localhost:{server.port}/ " in server.out
    assert not fetch(server.port, client_context(str(tmp_path / "demo-ca" / "ca.pem")))[0]["resumed"]


def test_standard_output_that_nobody_reads(start, ca_file):
    read, write = os.pipe()
    start(stdout=write)
    os.close(write)
    with open(read, "rb", buffering=0) as output:
        text = output.read(65536).decode()
    port = int(re.search(r"https://localhost:(\d+)/", text)[1])
    assert not fetch(port, client_context(ca_file))[0]["resumed"]
    assert fetch(port, client_context(ca_file))[0]["pid"]


def test_one_line_for_a_request_without_its_control_characters(serve, ca_file):
    server = serve()
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(get("/\x1b[2J\x9b"))
        assert answer(tls).startswith("HTTP/1.1 404 ")
    wait_until(lambda: "404" in server.out, "the line")
    assert r'"GET /\x1b[2J\x9b HTTP/1.1" 404 ' in server.out
    assert "\x1b" not in server.out


def test_help_says_what_there_is():
    command = [sys.executable, "-m", "greentls"]
    assert "serve" in run(*command, "--help")
    text = run(*command, "serve", "--help")
    options = "bind cert key passphrase key-process ca-dir sessions workers app min-version max-version drain-seconds"
    assert set(options.split()) == set(re.findall(r"^  --([a-z-]+)", text, re.MULTILINE))
    for told in (
        "localhost:8443",
        "examples:",
        "memcached://",
        "secret_file=",
        "SIGTERM",
        "exit status 2",
        "patch_all()",
    ):
        assert told in text
    assert re.match(r"greentls \d", run(*command, "--version"))


# -- the page ----------------------------------------------------------------------------------------------------------


def test_json(serve, ca_file):
    server = serve()
    context = client_context(ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    facts, session = fetch(server.port, context)
    pid = facts.pop("pid")
    assert pid != server.process.pid
    assert facts == {
        "protocol": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "group": facts["group"],
        "server_name": "localhost",
        "alpn": "http/1.1",
        "resumed": False,
        "session_source": None,
        "lookup": None,
    }
    assert re.fullmatch(r"x25519|X25519MLKEM768|secp256r1|prime256v1", facts["group"])
    again, _ = fetch(server.port, context, session)
    assert (again["resumed"], again["session_source"], again["pid"]) == (True, "memory", pid)
    assert sorted(again["lookup"]) == ["milliseconds", "outcome", "store"]
    assert (again["lookup"]["outcome"], again["lookup"]["store"]) == ("hit", "memory")


def test_a_session_that_the_store_has_lost_is_a_miss(serve, pki):
    options = ["--cert", pki.cert_file, "--key", pki.key_file]
    a, b = serve(*options), serve(*options)
    context = client_context(pki.ca_file)
    _, session = fetch(a.port, context)
    facts, _ = fetch(b.port, context, session)
    assert (facts["resumed"], facts["session_source"]) == (False, None)
    assert (facts["lookup"]["store"], facts["lookup"]["outcome"]) == ("memory", "miss")


class Page(html.parser.HTMLParser):
    """The table of the HTML page, and every tag in it."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, _):
        self.tags.add(tag)
        if tag in ("th", "td", "p"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.strip()

    def __getitem__(self, name):
        return self.cells[self.cells.index(name) + 1]


def test_html(serve, ca_file):
    server = serve()
    context = client_context(ca_file)
    _, session = fetch(server.port, context)
    with connect(server.port, context, session) as tls:
        tls.sendall(get("/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8"))
        text = answer(tls)
    assert "Content-Type: text/html; charset=utf-8" in text
    assert "<h1>Session resumed</h1>" in text
    page = Page(text)
    assert page["Protocol"] == "TLSv1.3"
    assert page["Server name"] == "localhost"
    assert page["ALPN"] == "-"
    assert page["Session from"] == "memory"
    assert re.fullmatch(r"hit in memory, [\d.]+ ms", page["Lookup"])
    assert re.fullmatch(r"pid \d+", page["Worker"])
    assert not re.search(r"(src|href)=", text)  # nothing from anywhere else


@pytest.mark.programs
@pytest.mark.parametrize(
    ("sent", "shown"),
    [(b"<script>alert(1)</script>&\"'", "<script>alert(1)</script>&\"'"), (b"a\xff\xc3\xa9", r"a\udcff\udcc3\udca9")],
)
def test_what_the_client_says_is_only_text(serve, ca_file, sent, shown):
    server = serve()
    page = Page(s_client(server.port, ca_file, "-quiet", "-servername", sent, request=get("/")))
    assert page["Server name"] == shown
    assert "script" not in page.tags
    [facts] = documents(s_client(server.port, ca_file, "-quiet", "-servername", sent))
    assert facts["server_name"] == sent.decode("ascii", "surrogateescape")


@pytest.mark.parametrize(
    ("request_", "status", "length"),
    [
        (get("/", method="HEAD"), 200, 0),
        (get("/favicon.ico"), 404, 19),
        (get("/", "Content-Length: 0", method="POST"), 405, 12),
        (b"nonsense\r\n\r\n", 400, 0),
    ],
    ids=["HEAD", "another path", "POST", "nonsense"],
)
def test_other_requests(serve, ca_file, request_, status, length):
    server = serve()
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(request_)
        head, _, body = answer(tls).partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert len(body) == length
    if status == 400:
        [line] = server.expected_errors = server.errors
        assert "Invalid HTTP method" in line


# -- handshakes --------------------------------------------------------------------------------------------------------


def test_versions(serve, ca_file):
    only_12, only_13 = serve("--max-version", "1.2"), serve("--min-version", "1.3")
    for server, version, other in (only_12, "1.2", "1.3"), (only_13, "1.3", "1.2"):
        assert fetch(server.port, client_context(ca_file, version))[0]["protocol"] == f"TLSv{version}"
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            connect(server.port, client_context(ca_file, other))
        [line] = server.expected_errors = wait_until(lambda server=server: server.errors, "the line")
        assert re.fullmatch(r"greentls serve \[pid\]: CLIENT: no handshake: .*unsupported protocol.*", line)


def test_a_failed_handshake_is_one_line(serve, ca_file):
    server = serve()

    def after(told):
        [line] = wait_until(lambda: server.errors[len(server.expected_errors) :], told)
        server.expected_errors.append(line)
        assert re.fullmatch(rf"greentls serve \[pid\]: CLIENT: no handshake: .*{told}.*", line)

    with socket.create_connection(("localhost", server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        after("http request")
    socket.create_connection(("localhost", server.port)).close()
    after("EOF")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server.port, ssl.create_default_context())
    after("unknown ca")
    assert not fetch(server.port, client_context(ca_file))[0]["resumed"]


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "line", "headers"])
def test_a_client_that_resets_its_connection_leaves_one_line_at_most(serve, ca_file, sent):
    server = serve()
    context = client_context(ca_file, "1.2")
    with connect(server.port, context) as tls:
        tls.sendall(sent)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket(fileno=tls.detach()).close()
    fetch(server.port, context)
    assert server.stop() == 0
    server.expected_errors = [line for line in server.errors if line.endswith(" Connection reset by peer")][:1]


# -- workers -----------------------------------------------------------------------------------------------------------


def test_two_workers_share_the_port_and_are_warned_of(serve, ca_file):
    server = serve("--workers", 2)
    server.expected_errors = [
        "greentls serve [pid]: with --sessions memory:// workers do not share sessions; use memcached://"
    ]
    context, pids = client_context(ca_file), set()

    def both():
        pids.add(fetch(server.port, context)[0]["pid"])
        return len(pids) == 2

    wait_until(both, "both workers to have answered")


@pytest.mark.parametrize(("signum", "told"), [(signal.SIGKILL, "Killed"), (signal.SIGRTMIN + 1, "Real-time signal 1")])
def test_a_killed_worker_is_replaced(serve, ca_file, signum, told):
    server = serve()
    context = client_context(ca_file)
    pid = fetch(server.port, context)[0]["pid"]
    os.kill(pid, signum)
    assert fetch(server.port, context)[0]["pid"] != pid  # waited in the listener's queue, was not refused
    server.expected_errors = [f"greentls serve [pid]: worker N ended after T s: {told}; another one in 0.25 s"]


def test_workers_that_end_at_once_are_replaced_more_and_more_slowly(serve, tmp_path, ca_file):
    (tmp_path / "app_of_moods.py").write_text(
        "import os\nif os.path.exists('bad mood'): os._exit(7)\nfrom greentls.cli.page import page\n"
    )
    server = serve("--app", "app_of_moods:page")
    (tmp_path / "bad mood").touch()
    os.kill(fetch(server.port, client_context(ca_file))[0]["pid"], signal.SIGKILL)
    wait_until(lambda: len(server.errors) >= 3, "two replacements to fail")
    (tmp_path / "bad mood").unlink()
    fetch(server.port, client_context(ca_file))
    line = "greentls serve [pid]: worker N ended after T s: {}; another one in {} s"
    ends = [("Killed", 0.25), *(("exit status 7", pause) for pause in (0.5, 1, 2, 4, 8))]
    server.expected_errors = [line.format(*each) for each in ends][: len(server.errors)]


def test_workers_end_when_their_parent_is_gone(serve):
    server = serve("--workers", 2)
    server.expected_errors = server.errors
    server.process.kill()
    server.process.wait()
    wait_until(lambda: refuses(server.port), "the workers to end")


# -- applications ------------------------------------------------------------------------------------------------------


def test_an_application_sees_its_connection_and_a_patched_library(serve, app, ca_file):
    server = serve("--app", app)
    for path, body in ("/", "SSLSocket"), ("/patched", "True"):
        with connect(server.port, client_context(ca_file)) as tls:
            tls.sendall(get(path, "Connection: close"))
            assert answer(tls).endswith("\r\n\r\n" + body)


def test_two_requests_of_an_application_at_once(serve, app, ca_file):
    server = serve("--app", app)
    context = client_context(ca_file)
    with connect(server.port, context) as slow:
        slow.sendall(get("/slow", "Connection: close"))
        wait_until(app.begun, "the slow request to begin")
        with connect(server.port, context) as quick:
            quick.sendall(get("/", "Connection: close"))
            assert answer(quick).endswith("SSLSocket")
        app.go_on()
        assert answer(slow).endswith("SSLSocket")


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_a_running_request_finish(serve, app, ca_file, workers):
    server = serve("--app", app, "--workers", workers, "--drain-seconds", 600, "--sessions", "memory://")
    server.expected_errors = server.errors
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(get("/slow"))
        wait_until(app.begun, "the request to begin")
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server.port), "the listener to close")
        app.go_on()
        text = answer(tls)
    assert text.endswith("SSLSocket")
    assert "\r\nConnection: close\r\n" in text
    assert server.wait() == 0


def test_sigterm_closes_connections_that_idle_between_requests(serve, app, ca_file):
    server = serve("--app", app, "--drain-seconds", 600)
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(get("/"))
        received = b""
        while not received.endswith(b"SSLSocket"):
            received += tls.recv(65536)
        assert server.stop() == 0
        assert tls.recv(65536) == b""


def test_what_does_not_finish_in_time_is_cut_off(serve, app, ca_file):
    server = serve("--app", app, "--drain-seconds", 0.1)
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(get("/slow"))
        wait_until(app.begun, "the request to begin")
        assert server.stop() == 0
    server.expected_errors = ["greentls serve [pid]: cut off after 0.1 s: connections that had not ended: 1"]


def test_ctrl_c(serve, ca_file):
    server = serve()
    fetch(server.port, client_context(ca_file))
    server.ctrl_c()
    assert server.wait() == 130


def test_ctrl_c_twice_does_not_wait_for_requests(serve, app, ca_file):
    server = serve("--app", app, "--drain-seconds", 600)
    with connect(server.port, client_context(ca_file)) as tls:
        tls.sendall(get("/slow"))
        wait_until(app.begun, "the request to begin")
        server.ctrl_c()
        wait_until(lambda: refuses(server.port), "the listener to close")
        server.ctrl_c()
        assert server.wait() == 130
    server.expected_errors = ["greentls serve [pid]: killed: worker N"]


def test_ctrl_c_before_it_listens(start, tmp_path):
    (tmp_path / "stuck_app.py").write_text("import time\nopen('begun', 'w').close()\nwhile True: time.sleep(1)\n")
    server = start("--app", "stuck_app:app")
    wait_until(lambda: (tmp_path / "begun").exists(), "the import to begin")
    server.ctrl_c()
    assert server.wait() == 130
    assert server.out == ""


def test_sessions_are_written_before_it_ends(serve, tmp_path, memcached, pki, patient_app):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(32)))
    sessions = memcached.url(secret_file=secret)
    options = "--cert", pki.cert_file, "--key", pki.key_file, "--app", patient_app, "--drain-seconds", 600
    server = serve(*options, "--sessions", sessions)
    memcached.pause()
    with connect(server.port, client_context(pki.ca_file)) as tls:
        tls.sendall(GET_JSON)
        answer(tls)
    server.signal(signal.SIGTERM)
    wait_until(lambda: refuses(server.port), "the listener to close")
    memcached.resume()
    assert server.wait() == 0
    assert memcached.stats()["cmd_set"] == "2"
