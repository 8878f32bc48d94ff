"""CPython's own tests of ssl, with greentls in its place: as many pass as over gevent.ssl, and those that do not are
listed with their reasons."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import tethered

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.txt"


@pytest.fixture(scope="module")
def results():
    """What became of each test, by implementation; the two run side by side."""
    commands = {name: tethered(sys.executable, HERE / "run_test_ssl.py", name) for name in ("greentls", "gevent")}
    processes = {
        name: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for name, command in commands.items()
    }
    return {name: json.loads(process.communicate()[0]) for name, process in processes.items()}


def having(results, what):
    return {name for name, said in results.items() if said.split(":")[0] == what}


def test_what_does_not_pass_is_what_is_listed(results):
    listed = set(re.findall(r"^[\w.]+$", EXPECTED.read_text("utf-8"), re.MULTILINE))
    ours = results["greentls"]
    assert {name: ours[name] for name in ours.keys() - having(ours, "ok") - having(ours, "skipped") - listed} == {}
    assert listed <= having(ours, "failed")


def test_as_many_pass_as_over_gevent(results):
    assert len(having(results["greentls"], "ok")) >= len(having(results["gevent"], "ok")) > 100


def test_nothing_is_skipped_that_gevent_runs(results):
    assert having(results["greentls"], "skipped") <= having(results["gevent"], "skipped")
