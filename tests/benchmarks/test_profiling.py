"""benchmarks.profiling: perf's samples are split into the parts of a program."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from benchmarks import profiling, program, suites

WORK = "resumed, TLS 1.3"


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("[kernel.kallsyms]", "kernel_us"),
        ("_rust.abi3.so", "openssl_us"),
        ("_native.abi3.so", "openssl_us"),
        ("libcrypto.so.3", "openssl_us"),
        ("libpython3.11.so.1.0", "python_us"),
        ("python3.12", "python_us"),
        ("_ssl.cpython-311-x86_64-linux-gnu.so", "extensions_us"),
        ("_pump.abi3.so", "extensions_us"),
        ("libc.so.6", "rest_us"),
        ("floor", "rest_us"),
        ("[vdso]", "rest_us"),
    ],
)
def test_the_part_of_a_file(file, part):
    assert profiling.part_of(file) == part


def profile_of(seconds):
    options = argparse.Namespace(
        suites=["profile"], rounds=1, seconds=seconds, connections=4, pure=False, system=False, peers={"floor"}
    )
    return program.measure(options)["suites"]["profile"]


def of_two(bench):
    """One work of two contestants, to save time."""
    return [
        dataclasses.replace(each, measures={WORK: each.measures[WORK]})
        for each in suites.profiles(bench)
        if each.name in ("greentls, memory", "C")
    ]


def is_enough(profile):
    """All was measured, and of a Python program some samples are in the interpreter."""
    return not profile["failed"] and profile["measured"][WORK]["greentls, memory"][0]["python_us"] > 0


@pytest.mark.stderr
def test_the_parts_of_handshakes(monkeypatch):
    small = dataclasses.replace(suites.SUITES["profile"], contestants=of_two)
    monkeypatch.setitem(suites.SUITES, "profile", small)
    without = profiling.absent()
    for seconds in (0.1, 1, 5):  # for each measurement: the next one where the one before was too short
        profile = profile_of(seconds)
        if without or is_enough(profile):
            break
    if without:  # perf is not here, or may not look
        assert set(profile["absent"].values()) == {without}
        return
    assert profile["failed"] == []
    assert set(profile["measured"][WORK]) == {"greentls, memory", "C"}
    for who, (metrics,) in profile["measured"][WORK].items():
        assert sum(metrics[part] for part in profiling.PARTS) == pytest.approx(metrics["cpu_us"], rel=0.05)
        assert (metrics["python_us"] == 0) == (who == "C")
        assert metrics["openssl_us"] > 0


def test_without_perf_it_is_absent(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert profiling.absent() == "there is no perf: apt-get install linux-perf"


def test_a_perf_that_may_not_look(monkeypatch, tmp_path):
    (tmp_path / "perf").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profiling.absent() == "perf may not look: sysctl kernel.perf_event_paranoid=2"
