"""patch() and unpatch(), each order of things in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE, tethered, wait_until

# Steps of a program; what it prints says which SSLContext each way of asking gives.
STEPS = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "patch": "import greentls.monkey; greentls.monkey.patch()",
    "truststore": "import truststore; truststore.inject_into_ssl()",
    "urllib3": "import urllib3",
}
PROGRAM = """
import json, ssl, sys, warnings
warnings.simplefilter("ignore")  # gevent's, that ssl has been imported before
before = ssl.create_default_context()
{steps}
import socket, urllib3.util.ssl_, greentls.ssl, greentls.monkey

def exercise(context):
    # The standard library's setters recurse once ssl.SSLContext is another class.
    context.options |= ssl.OP_NO_TLSv1
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()
    with there, context.wrap_socket(here, do_handshake_on_connect=False) as sock:
        modules = [each.__module__ for each in type(sock).__mro__]  # truststore's is a subclass of ours
        return isinstance(sock, ssl.SSLSocket), [each for each in modules if "." in each]

found = {{
    "before": exercise(before),
    "made": exercise(ssl.create_default_context()),
    "urllib3": exercise(urllib3.util.ssl_.create_urllib3_context()),
}}
greentls.monkey.unpatch()
found["after"] = ssl.SSLContext.__module__, ssl.SSLSocket.__module__
print(json.dumps(found))
"""


def run(*steps):
    program = PROGRAM.format(steps="\n".join(STEPS[step] for step in steps))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "steps",
    [
        ("patch",),
        ("urllib3", "patch"),
        ("patch", "urllib3"),
        ("gevent", "patch"),
        ("patch", "gevent"),
        ("gevent", "urllib3", "patch"),
        ("urllib3", "patch", "gevent"),
        ("truststore", "patch"),
        ("truststore", "gevent", "patch"),
        ("patch", "truststore"),
        ("patch", "gevent", "truststore"),
    ],
    ids="-".join,
)
def test_in_any_order(steps):
    found = run(*steps)
    for how in ("made", "urllib3"):
        assert found[how][0]
        assert "greentls.ssl.socket" in found[how][1]
    assert found["before"][1] == []  # a context that was there before goes on, with the class that it had
    if steps[-1] == "truststore":
        assert found["after"][0] == "truststore._api"  # put there after us: not ours to take away
    elif "truststore" not in steps:
        left = "gevent.ssl" if "gevent" in steps else "ssl"
        assert found["after"] == [left, left]


def outcome(source, *arguments):
    program = [sys.executable, *arguments, "-c", source]
    return subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE)


def test_importing_patches_nothing():
    done = outcome("import ssl; was = {**vars(ssl)}; import greentls.monkey, greentls.ssl; assert vars(ssl) == was")
    assert (done.stderr, done.returncode) == ("", 0)


def test_it_tells_where_and_leaves_nothing():
    done = outcome(
        """
import ssl, urllib3.util.ssl_, http.client, greentls.monkey, greentls.ssl
kinds = ssl.SSLContext, ssl.SSLSocket
was = [{**vars(each)} for each in (ssl, urllib3.util.ssl_, *kinds)]
places = greentls.monkey.patch()
assert {"ssl.SSLContext", "ssl.create_default_context", "urllib3.util.ssl_.SSLContext"} <= set(places)
assert ssl.SSLContext is urllib3.util.ssl_.SSLContext is greentls.ssl.SSLContext
assert greentls.monkey.patch() == ()
assert set(greentls.monkey.unpatch()) == set(places)
assert [{**vars(each)} for each in (ssl, urllib3.util.ssl_, *kinds)] == was
assert greentls.monkey.unpatch() == ()
"""
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_what_somebody_else_has_put_there_stays():
    done = outcome(
        """
import ssl, greentls.monkey
greentls.monkey.patch()
ssl.SSLContext = mine = object()
assert "ssl.SSLContext" not in greentls.monkey.unpatch()
assert ssl.SSLContext is mine
"""
    )
    assert (done.stderr, done.returncode) == ("", 0)


BEFORE = """
import json, socket, ssl, sys
{steps}
import gevent.ssl, greentls.ssl, greentls.monkey

def wrapped(module):
    context = module.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    here, there = socket.socketpair()
    there.close()
    return context, context.wrap_socket(here, do_handshake_on_connect=False)

def instances(context, sock):
    return isinstance(context, ssl.SSLContext), isinstance(sock, ssl.SSLSocket)

def ours(context, sock):
    return isinstance(context, greentls.ssl.SSLContext), isinstance(sock, greentls.ssl.SSLSocket)

before = wrapped({module})
was = instances(*before), ours(*before)
greentls.monkey.patch()
after = wrapped(ssl)
found = {{
    "before": instances(*before),
    "of a subclass": isinstance(before[0], type("Mine", (ssl.SSLContext,), {{}})),
    "after": instances(*after),
    "crossed": instances(*reversed(after)) + instances(None, object),
    "subclasses": [issubclass(type(before[0]), ssl.SSLContext), issubclass(type(before[1]), ssl.SSLSocket)],
}}
before[0]._msg_callback = print
found["still patched"] = ssl.SSLContext is greentls.ssl.SSLContext
found["set"] = before[0]._msg_callback is print
server = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
asked = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(
    socket.socketpair()[0], server_side=True, do_handshake_on_connect=False)
try:
    asked.context = before[0]
except TypeError:
    found["refused in our sockets"] = True
greentls.monkey.unpatch()
found["as it was"] = (instances(*before), ours(*before)) == was
for each in (before[1], after[1], asked):
    each.close()
print(json.dumps(found))
"""


@pytest.mark.parametrize("steps", [(), ("gevent",), ("truststore",)], ids="-".join)
@pytest.mark.parametrize("module", ["ssl", "gevent.ssl"])
def test_what_was_made_before_counts_too(steps, module):
    source = BEFORE.format(steps="\n".join(STEPS[step] for step in steps), module=module)
    done = outcome(source, "-W", "ignore")
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == {
        "before": [True, True],
        "of a subclass": False,
        "after": [True, True],
        "crossed": [False] * 4,
        "subclasses": [False, False],
        "still patched": True,
        "set": True,
        "refused in our sockets": True,
        "as it was": True,
    }


@pytest.mark.parametrize(
    ("program", "warned"),
    [
        ("", ""),
        ("import urllib3, requests", ""),
        ("import ssl\nclass Mine(ssl.SSLContext): pass", "__main__.Mine"),
    ],
    ids=["nothing", "imports", "a subclass"],
)
def test_gevent_warns_of_others_only(program, warned):
    """That ssl was imported before matters to who has made a subclass; patch() has seen to the names."""
    done = outcome(
        f"""
import warnings
{program}
import greentls.monkey; greentls.monkey.patch()
import gevent.monkey
with warnings.catch_warnings(record=True) as said:
    gevent.monkey.patch_all()
print(*(each.message for each in said))
"""
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert warned in done.stdout
    assert bool(done.stdout.strip()) is bool(warned)


def test_client_sessions_last_until_it_is_undone():
    done = outcome(
        """
import greentls.monkey, greentls.ssl
kept = greentls.ClientSessions()
for given in (True, kept):
    greentls.monkey.patch(client_sessions=given)
    found = greentls.ssl.SSLContext.client_sessions
    assert isinstance(found, greentls.ClientSessions)
    assert (found is kept) == (given is kept)
    import gevent.monkey; gevent.monkey.patch_all()
    greentls.monkey.patch()
    assert greentls.ssl.create_default_context().client_sessions is found
    greentls.monkey.unpatch()
    assert greentls.ssl.SSLContext.client_sessions is None
greentls.monkey.patch(client_sessions=True)
greentls.SSLContext.client_sessions = kept
greentls.monkey.unpatch()
assert greentls.SSLContext.client_sessions is kept, "somebody else's"
"""
    )
    assert (done.stderr, done.returncode) == ("", 0)


class TestTheCommand:
    def run(self, *arguments, **options):
        command = [sys.executable, "-m", "greentls.monkey", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)

    def test_runs_a_script(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import sys, socket, ssl\n"
            "print(__name__, sys.argv[1:], ssl.SSLContext.__module__, socket.socket.__module__)"
        )
        done = self.run(script, "-x", "--help")
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.split(maxsplit=1)[0] == "__main__"
        assert done.stdout.endswith("['-x', '--help'] greentls.ssl.context gevent._socket3\n")

    def test_gives_a_script_client_sessions(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import ssl, sys; print(ssl.create_default_context().client_sessions is not None, sys.argv[1:])"
        )
        for options, said in (([], "False []"), (["--client-sessions"], "True []")):
            done = self.run(*options, script)
            assert (done.stdout, done.stderr, done.returncode) == (said + "\n", "", 0)

    def test_runs_a_module(self, tmp_path):
        (tmp_path / "amodule.py").write_text("import sys, ssl; print(sys.argv[1:], ssl.SSLContext.__module__)")
        done = self.run("-m", "amodule", "a", cwd=tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == ("['a'] greentls.ssl.context\n", "", 0)

    def test_names_a_script_that_is_not_there(self, tmp_path):
        done = self.run(tmp_path / "none.py")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(f"{tmp_path / 'none.py'}: No such file or directory")

    @pytest.mark.parametrize("interrupted", [True, False], ids=["its sleep", "another thread"])
    def test_ends_cleanly_at_ctrl_c(self, tmp_path, interrupted):
        """One that another thread gets interrupts no sleep, as if it came between gevent's last look and its sleep."""
        script = tmp_path / "script.py"
        script.write_text(
            "import signal, sys, time\n"
            "from gevent.monkey import get_original\n"
            "start, allocate = get_original('_thread', ['start_new_thread', 'allocate_lock'])\n"
            "lock = allocate()\n"
            "lock.acquire()\n"
            "start(lock.acquire, ())\n"
            + ("" if interrupted else "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n")
            + "print('here', flush=True)\n"
            "time.sleep(1000)\n"
        )
        command = tethered(sys.executable, "-m", "greentls.monkey", script)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            late = threading.Timer(PATIENCE, process.kill)  # whatever it is waited for below, that ends then
            late.start()
            try:
                assert process.stdout.readline() == "here\n"
                wait_until(lambda: " S " in Path(f"/proc/{process.pid}/stat").read_text(), "it to sleep")
                process.send_signal(signal.SIGINT)
                assert process.communicate() == ("", "")
                assert process.returncode == 130
            finally:
                late.cancel()
                process.kill()  # an assertion that fails must not wait for it
