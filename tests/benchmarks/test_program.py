"""`python -m benchmarks`: every suite runs, peers that are absent are named, results become tables.

No speed is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peers, program, report, running, suites, targets
from greentls.errors import ConfigurationError
from greentls.openssl import foundation, pump
from tests.support.helpers import PATIENCE, ROOT, tethered, wait_until
from tests.support.openssl import SYSTEM

TINY = ("--rounds", "1", "--connections", "4")
SECONDS = (0.1, 1, 5, 20)  # for each measurement: the next one where the one before was too short, on a busy machine
NODE = ("resumed, TLS 1.3", "Node, memcached")  # which never resumes
ENOUGH = 20  # handshakes, of which some are resumed


def command(*words):
    return [sys.executable, "-m", "benchmarks", *words]


def run(*words, **options):
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=600, cwd=ROOT, **options)


@pytest.fixture(scope="module")
def everything():
    """All suites but the profile, as small as can be; handshakes with every peer that is here."""
    others = [name for name in suites.SUITES if name not in ("handshake", "profile")]
    return measured(["handshake"]) | measured(others, "--peers", "lean,floor")


def measured(names, *words):
    """The suites' results, of as many seconds as they need."""
    found = {}
    for seconds in SECONDS:
        done = run(*(name for name in names if name not in found), *words, *TINY, "--seconds", str(seconds), "--json")
        results = json.loads(done.stdout)["suites"]
        found |= {name: result for name, result in results.items() if is_enough(name, result, seconds)}
        if len(found) == len(names):
            return {name: found[name] for name in names}
    raise AssertionError(f"{results}\n{done.stderr}")


def is_enough(name, result, seconds):
    one_by_one = [
        (work, who, metrics) for work, by_name in result["measured"].items() for who, (metrics,) in by_name.items()
    ]
    if name == "handshake" and min(metrics["rate"] for _, _, metrics in one_by_one) * seconds < ENOUGH:
        return False
    resumed = all(metrics.get("resumed", 0) >= least_resumed(name, *which) for *which, metrics in one_by_one)
    return resumed and not result["failed"]


def least_resumed(name, work, who):
    """The share of handshakes that resume: all lookups of sessions, and half where a session may come too late into
    memcached for its client's next handshake."""
    if name == "lookup" and "session" in work:
        return 1
    return 0.5 if name == "handshake" and "resumed" in work and (work, who) != NODE else 0


def test_every_suite_measures_what_it_says(everything):
    assert [name for name in suites.SUITES if name != "profile"] == list(everything)
    for name, result in everything.items():
        assert result["failed"] == []
        assert result["measured"], name
        first = suites.SUITES[name].metrics[0]
        for by_name in result["measured"].values():
            for who, rounds in by_name.items():
                assert len(rounds) == 1, (name, who)
        assert any(
            rounds[0].get(first) is not None for by_name in result["measured"].values() for rounds in by_name.values()
        ), (name, first)


def test_sessions_resume_where_they_should(everything):
    for work, by_name in everything["handshake"]["measured"].items():
        always = {"greentls, tickets", "greentls, memory", "greentls, memcached", "gevent.ssl", "lean pump", "C"}
        assert always <= set(by_name)
        assert ("lean pump, memory" in by_name) == ("resumed" in work)
        for who, (metrics,) in by_name.items():
            least = least_resumed("handshake", work, who)
            assert metrics["resumed"] >= least if least else metrics["resumed"] == 0, (work, who)
    for work, by_name in everything["lookup"]["measured"].items():
        for who, (metrics,) in by_name.items():
            assert metrics["resumed"] == (1 if "session" in work else 0), (work, who)
    for by_name in everything["hooks"]["measured"].values():
        assert [metrics["resumed"] for (metrics,) in by_name.values()] == [0] * len(by_name)


def test_three_lookups_take_at_least_as_long_as_the_longest(everything):
    for by_name in everything["hooks"]["measured"].values():
        assert by_name["coroutine"][0]["p50_ms"] > 3 * 20
        assert all(metrics["p50_ms"] > 20 for (metrics,) in by_name.values())


def test_all_that_wait_wait_at_once(everything):
    parked = everything["suspended"]["measured"]["parked"]
    assert [parked[way][0]["parked"] for way in ("coroutine", "suspend", "replay")] == [4, 4, 4]


def test_a_key_has_each_place_and_a_signer_each_distance(everything):
    measured = everything["keys"]["measured"]
    assert list(measured.pop("storm, RSA-2048")) == ["coroutine", "thread", "thread, all cores", "key process"]
    assert {work: list(by_name) for work, by_name in measured.items()} == {
        f"signer {milliseconds} ms away": ["waits", "blocks"] for milliseconds in (0, 1, 5, 20)
    }


def test_every_peer_that_is_here_takes_part_and_the_others_are_named(everything):
    result = everything["handshake"]
    took_part = set(result["measured"]["full, TLS 1.3"])
    here = {peer.name for peer in peers.PEERS if not peer.absent()}
    assert here <= took_part
    assert took_part.isdisjoint(result["absent"])
    assert {peer.name for peer in peers.PEERS} <= took_part | set(result["absent"])


def echoes(who, *others, **more):
    """The results of the suite echo in this process, where who is measured, with so many seconds as that takes."""
    for seconds in SECONDS:
        few = {"suites": ["echo"], "rounds": 1, "connections": 2, "peers": frozenset(others)}
        options = argparse.Namespace(**few, seconds=seconds, **{"pure": False, "system": False} | more)
        results = program.measure(options)
        if who in results["suites"]["echo"]["measured"].get("64 bytes", {}):
            break
    return results


@pytest.mark.stderr
def test_what_is_not_installed_is_absent_and_the_tables_say_how_to_get_it(monkeypatch, capfd):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    results = echoes("greentls", "node", "go", "uvloop")
    assert set(results["suites"]["echo"]["absent"]) == {"Node", "Go", "uvloop"}
    text = report.markdown(results)
    assert "- Node: absent, there is no node: apt-get install nodejs\n" in text
    assert "- uvloop: absent, pip install uvloop\n" in text
    assert list(results["suites"]["echo"]["measured"]["64 bytes"]) == ["greentls"]


@pytest.mark.stderr
def test_each_server_is_built_as_its_name_says(monkeypatch):
    """They are asked by which modules they have loaded."""

    def loaded(bench, server):
        modules = Path(f"/proc/{server.pid}/maps").read_text()
        return {"cpu_us": 1.0, "compiled": "_pump." in modules, "system": "_native." in modules}

    monkeypatch.setattr(suites, "echo", loaded)
    result = echoes("greentls", "lean", pure=True, system=True)["suites"]["echo"]
    measured = {who: metrics for who, (metrics,) in result["measured"]["64 bytes"].items()}
    assert {*measured} | {*result["absent"]} == {
        *("greentls", "greentls, pure", "greentls, system"),
        *("lean pump", "lean pump, system"),
    }
    for who, metrics in measured.items():
        assert metrics["compiled"] == (who in ("greentls", "greentls, system") and pump.COMPILED)
        assert metrics["system"] == (who.endswith(", system") or SYSTEM)


@pytest.mark.stderr
def test_where_the_systems_openssl_cannot_be_used_its_servers_are_absent(monkeypatch):
    def load(name):
        raise ConfigurationError("OpenSSL of 'system'", "greentls was built without it", "build it")

    monkeypatch.setattr(foundation, "load", load)
    result = echoes("greentls", "lean", system=True)["suites"]["echo"]
    said = "OpenSSL of 'system': greentls was built without it; build it"
    assert result["absent"] == {"greentls, system": said, "lean pump, system": said}
    assert list(result["measured"]["64 bytes"]) == ["greentls", "lean pump"]


@pytest.mark.stderr
def test_what_fails_is_named_and_the_rest_is_measured(monkeypatch):
    broken = suites.Contestant("broken", {"64 bytes": suites.echo}, (sys.executable, "-c", "raise SystemExit('no')"))
    whole = suites.SUITES["echo"]
    monkeypatch.setitem(
        suites.SUITES, "echo", dataclasses.replace(whole, contestants=lambda bench: [broken, *whole.contestants(bench)])
    )
    result = echoes("greentls")["suites"]["echo"]
    assert list(result["measured"]["64 bytes"]) == ["greentls"]
    (failed,) = result["failed"]
    assert (failed["who"], failed["work"]) == ("broken", "64 bytes")
    assert failed["why"].endswith("did not listen\nno")


def test_ctrl_c_ends_it_and_all_that_it_started():
    process = subprocess.Popen(
        tethered(*command("bulk", "--peers", "floor", "--rounds", "99")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        children = wait_until(lambda: load_and_servers(process.pid), "the load generator to run")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
        wait_until(lambda: not any(alive(pid) for pid in children), "what it started to end")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def load_and_servers(pid):
    """Their pids, once the load generator is among them."""
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children if "load" in map(name_of, children) else []


def name_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def test_without_its_parent_nothing_stays():
    """The program is killed, as by the kernel that is out of memory: it cannot end anything itself."""
    process = subprocess.Popen(
        tethered(*command("handshake", "--peers", "floor", "--rounds", "99")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        children = wait_until(lambda: load_and_servers(process.pid), "the load generator to run")
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(alive(pid) for pid in children), "what it started to end")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -- results -----------------------------------------------------------------------------------------------------------


def results(**measured):
    """As they are kept. measured: {suite: {work: {who: [metrics]}}}"""
    return {
        "when": "2026-11-25T12:00:00Z",
        "machine": {"processor": "abacus, 2 of 2 cores"},
        "versions": {"Python": "3.11"},
        "load average": [0.5, 1.25],
        "suites": {
            suite: {"rounds": 3, "seconds": 1.0, "took": 9.9, "absent": {}, "failed": [], "measured": works}
            for suite, works in measured.items()
        },
    }


ECHOES = {
    "64 bytes": {
        "greentls": [{"cpu_us": 10.0, "rate": 9000.0}, {"cpu_us": 14.0, "rate": 8000.0}, {"cpu_us": 11.0, "rate": 7}],
        "gevent.ssl, TCP_NODELAY": [{"cpu_us": 20.0, "rate": 1234.5, "client": 0.99}],
    }
}
HANDSHAKES = {
    "resumed, TLS 1.3": {
        "greentls, memory": [{"cpu_us": 60.0, "resumed": 1.0}],
        "gevent.ssl, TCP_NODELAY": [{"cpu_us": 100.0, "resumed": 0.25}],
        "C": [{"cpu_us": 50.0, "resumed": 1.0}],
    },
    "full, TLS 1.3": {"gevent.ssl, TCP_NODELAY": [{"cpu_us": 200.0, "resumed": 0.0, "p99_ms": None}]},
}


def test_a_work_is_a_table_with_a_column_for_each_metric():
    (table,) = report.tables("echo", results(echo=ECHOES)["suites"]["echo"])
    assert table.header == ["64 bytes", "CPU of the server, µs each", "per second"]
    assert table.rows == [
        ["greentls", "11.0 (10.0 to 14.0)", "8,000 (7 to 9,000)"],
        ["gevent.ssl, TCP_NODELAY", "20.0", "1,234"],
    ]


def test_several_works_are_a_table_for_each_metric():
    (table,) = report.tables("handshake", results(handshake=HANDSHAKES)["suites"]["handshake"])
    assert table.header == ["CPU of the server, µs each", "resumed, TLS 1.3", "full, TLS 1.3"]
    assert table.rows == [
        ["greentls, memory", "60.0", ""],
        ["gevent.ssl, TCP_NODELAY", "100.0", "200.0"],
        ["C", "50.0", ""],
    ]


def test_what_is_not_as_it_should_be_is_told_beneath_the_table():
    kept = results(echo=ECHOES, handshake=HANDSHAKES)
    kept["suites"]["echo"]["absent"] = {"Go": "there is no go"}
    kept["suites"]["echo"]["failed"] = [{"who": "Node", "work": "64 bytes", "why": "no result\nload -c 32"}] * 2
    assert report.notes(kept["suites"]["echo"]) == [
        "Go: absent, there is no go",
        "Node, 64 bytes: failed in 2 of 3 rounds, no result",
        "gevent.ssl, TCP_NODELAY, 64 bytes: the load generator used 99% of its core and was a limit",
    ]
    assert report.notes(kept["suites"]["handshake"]) == ["gevent.ssl, TCP_NODELAY, resumed, TLS 1.3: only 25% resumed"]


def test_markdown_has_tables_machine_and_versions():
    text = report.markdown(results(echo=ECHOES))
    assert "| gevent.ssl, TCP_NODELAY | 20.0                       | 1,234              |\n" in text
    assert text.endswith(
        "- processor: abacus, 2 of 2 cores\n- Python: 3.11\n- load average before and after: 0.50, 1.25\n"
        "- taken: 2026-11-25T12:00:00Z\n"
    )


def test_targets_are_ratios_of_medians():
    table = targets.table(results(echo=ECHOES, handshake=HANDSHAKES))
    assert table.rows == [
        [
            "handshake, resumed, TLS 1.3: greentls, memory / gevent.ssl, TCP_NODELAY",
            "at most 0.85",
            "0.6",
            "yes",
            "—",
            "0.5",
        ],
        ["echo, 64 bytes: greentls / gevent.ssl, TCP_NODELAY", "at most 0.6", "0.55", "yes", "—", "—"],
    ]
    assert targets.table(results(keys={})) is None


@pytest.mark.parametrize("nothing", [0.0, -4.0])
def test_a_target_is_left_out_where_it_would_be_a_ratio_to_nothing(nothing):
    """Four idle connections may take less memory than the server had free."""
    idle = {"greentls": [{"KiB": 20.0}], "memory BIOs": [{"KiB": nothing}], targets.NODELAY: [{"KiB": 25.0}]}
    table = targets.table(results(idle={"idle": idle}))
    assert [row[:3] for row in table.rows] == [
        ["idle, idle: greentls / gevent.ssl, TCP_NODELAY", "at most 1.15", "0.8"]
    ]


def test_beside_a_target_stands_what_the_floors_come_to():
    def measured(**others):
        return {name: [{"cpu_us": microseconds}] for name, microseconds in {targets.NODELAY: 200.0, **others}.items()}

    floors = {"lean pump": 150.0, "lean pump, memory": 140.0, "C": 100.0}
    kept = results(
        handshake={
            "full, TLS 1.3": measured(**{"greentls, tickets": 180.0}, **floors),
            "resumed, TLS 1.3": measured(**{"greentls, memory": 180.0, "greentls, memcached": 190.0}, **floors),
        },
        echo={"64 bytes": measured(**{"greentls": 110.0, "greentls, pure": 150.0}, **floors)},
    )
    table = targets.table(kept)
    assert table.header == ["target", "limit", "measured", "", "lean pump", "C"]
    assert [row[2:] for row in table.rows] == [
        ["0.9", "yes", "0.75", "0.5"],  # sessions in tickets
        ["1.2", "no", "1", "0.667"],  # against the lean pump
        ["0.9", "no", "0.7", "0.5"],  # in a store
        ["1.29", "no", "1", "0.714"],
        ["0.95", "yes", "0.7", "0.5"],
        ["0.55", "yes", "0.75", "0.5"],
        ["0.733", "yes", "1", "0.667"],
        ["0.75", "no", "0.75", "0.5"],  # without the compiled pump
    ]


def test_the_lean_pump_does_handshakes_echoes_and_bulk(everything):
    for suite in ("handshake", "echo"):
        for by_name in everything[suite]["measured"].values():
            assert by_name["lean pump"][0]["cpu_us"] > 0
    for work in ("upload", "download"):
        assert everything["bulk"]["measured"][work]["lean pump"][0]["cpu_ns"] > 0
    assert "lean pump" not in everything["idle"]["measured"]["idle"]


def test_targets_name_what_suites_measure(everything):
    """Where every strategy and Node are there, all of them can be decided."""
    for target in targets.TARGETS:
        by_name = everything[target.suite]["measured"][target.work]
        ours = target.ours.removesuffix(", pure").removesuffix(", system")
        assert by_name[ours][0][target.metric] is not None
        assert target.theirs in {*by_name, *(peer.name for peer in peers.PEERS)} | {
            "Node, memcached",
            "Node, resumeSession",
        }


def test_documentation_is_written_from_a_kept_result(tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(results(echo=ECHOES, handshake=HANDSHAKES)))
    done = run("--read", str(kept), "--docs", str(tmp_path / "docs"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("## echo: 3 rounds, 10 s\n\n| 64 bytes ")
    written = {path.name: path for path in (tmp_path / "docs").iterdir()}
    names = {f"{suite}.{ending}" for suite in ("echo", "handshake") for ending in ("inc", "svg", "png")}
    assert set(written) == names | {"conditions.inc", "targets.inc"}
    assert '   "greentls","11.0 (10.0 to 14.0)","8,000 (7 to 9,000)"\n' in written["echo.inc"].read_text("utf-8")
    assert ".. image:: benchmarks/echo.svg\n" in written["echo.inc"].read_text("utf-8")
    assert written["echo.png"].read_bytes().startswith(b"\x89PNG")
    drawn = written["handshake.svg"].read_text("utf-8")
    assert all(f">{who}<" in drawn for who in ("greentls, memory", "gevent.ssl, TCP_NODELAY"))
    run("--read", str(kept), "--docs", str(tmp_path / "docs"))
    assert written["handshake.svg"].read_text("utf-8") == drawn  # the same again: no dates, no random ids


def test_without_matplotlib_the_tables_are_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = []
    report.write_docs(results(echo=ECHOES), tmp_path, said.append)
    assert said == [report.NEEDED]
    assert {path.name for path in tmp_path.iterdir()} == {"echo.inc", "conditions.inc"}


# -- the command line --------------------------------------------------------------------------------------------------


def test_help_names_every_suite_and_peer():
    done = run("--help")
    assert done.returncode == 0
    for name, suite in suites.SUITES.items():
        assert f"  {name:<13} {suite.what}\n" in done.stdout
    assert all(peer in done.stdout for peer in peers.CHOICES)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "SUITE: none is named; known are handshake, "),
        (["handshakes"], "SUITE handshakes: unknown; known are handshake, "),
        (["echo", "--peers", "apache"], "argument --peers: 'apache' is unknown; known are none, gevent.ssl, "),
        (["echo", "--seconds", "0"], "argument --seconds: '0' is not a number of seconds above 0 and up to 60"),
        (
            ["echo", "--seconds", "nan"],
            "argument --seconds: 'nan' is not a number of seconds above 0 and up to 60",
        ),
        (["echo", "--rounds", "none"], "argument --rounds: 'none' is not a number above 0; see"),
        (["echo", "--fast"], "unrecognized arguments: --fast; see"),
        (["echo", "--read", "x.json"], "--read: a kept result has its own suites; leave SUITE out"),
        (["--read", "no/such.json"], "no/such.json: No such file or directory; "),
    ],
)
def test_what_cannot_be_used_is_one_line(words, problem):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python -m benchmarks: {problem}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"suites": {"echo": {}}}', '{"suites": {"yodel": {"rounds": 1}}}'])
def test_a_file_that_is_no_result(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    done = run("--read", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python -m benchmarks: {path}: not a kept result: ")
    assert done.stderr.count("\n") == 1


def test_the_load_generator_refuses_what_it_does_not_know():
    assert program.build()
    for words in (["yodel", "127.0.0.1", "1"], ["echo", "localhost", "1"], ["-c", "0", "echo", "127.0.0.1", "1"], []):
        done = subprocess.run([str(running.LOAD), *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: load ")


def test_idle_connections_can_be_made_a_few_at_a_time():
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:  # answers nothing
        listener.setblocking(False)
        port = listener.getsockname()[1]
        with running.load("idle", port, [os.getpid()], {min(os.sched_getaffinity(0))}, c=9, b=4, t=0.1) as load:
            assert load.result()["exchanges"] == 0
            connected = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    connected += 1
            assert connected == 4


def test_a_server_that_is_not_there_is_a_failure_and_no_hang():
    core = {min(os.sched_getaffinity(0))}
    with (
        running.load("resumed", 1, [os.getpid()], core, c=2, t=0.1) as load,
        pytest.raises(running.BenchmarkError, match="0 of 2 clients have got sessions"),
    ):
        load.result()
