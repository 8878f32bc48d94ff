"""Both pumps do the same, at random, and must come to the same; run by test_pump.py and `make sanitize`.

    python -m tests.openssl.fuzz_pump [--seconds 60] [--seed N]

Two connections talk over a wire that gives and takes as much as it likes, now nothing, now an error, and now and then
turns a bit. What is said by whom, and what the wire does, follows from a seed. The plain pump and the compiled one each
play the same game; what each verb answers or raises, and what arrives, must be equal.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
import time
from pathlib import Path

from greentls.openssl import bios, errors, pump
from greentls.openssl.library import ffi, pointer
from tests.openssl.pumps import PUMPS, in_memory
from tests.support.fake_sockets import FakeSocket, fakes
from tests.support.helpers import Pki

VERSIONS = (0x0303, 0x0304)
STEPS = 60  # of a game
SIZES = (1, 2, 5, 100, 1000, pump.BULKY, pump.RECORD_SIZE, pump.RECORD_SIZE + 1, 70_000)
VERBS = ("read",) * 6 + ("read_into", "write", "write", "write_from", "send", "refill", "receive", "odd")
FAILURES = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


class Wire(FakeSocket):
    """One end: what it was sent is the other's to receive. What it takes and gives is settled for each step, as the two
    pumps may cut what they send at other places."""

    def __init__(self, dice, interrupts):
        super().__init__()
        self.dice, self.interrupts = dice, interrupts
        self.coming = bytearray()
        self.patience = random.Random(dice.random())
        self.peer = None
        self.ended = self.whole_records = False

    def settle(self):
        self.room = self.dice.choice((0, 1, 100, 5000, 200_000, 10_000_000, 10_000_000, 10_000_000))
        self.given = self.dice.choice((0, 1, 7, 100, 5000, 200_000, 10_000_000, 10_000_000))
        self.failure = self.dice.choice(FAILURES) if self.dice.random() < 0.01 else 0

    def recv_into(self, buffer, size=0):
        size = size or len(buffer)
        self._misbehave()
        if not self.coming and self.ended:
            return 0
        size = min(size, len(self.coming), self.given, self.dice.choice((1, 7, 100, 5000, 65536, 65536)))
        if not size:
            raise BlockingIOError(errno.EAGAIN, "")
        self.given -= size
        buffer[:size] = self.coming[:size]
        del self.coming[:size]
        if self.dice.random() < 0.002 and not self.whole_records:
            buffer[size - 1] ^= 1 << self.dice.randrange(8)
        return size

    def send(self, data, flags=0):
        self._misbehave()
        size = min(len(data), self.room)
        if not size:
            raise BlockingIOError(errno.EAGAIN, "")
        self.room -= size
        self.peer.coming += data[:size]
        return size

    def pause(self):
        if self.patience.random() < 0.5:
            raise TimeoutError
        self.settle()

    def _misbehave(self):
        if self.interrupts and self.interrupts.random() < 0.05:
            raise InterruptedError(errno.EINTR, "")
        if self.failure:
            raise OSError(self.failure, "")


def play(base, files, seed):
    """What the game with this seed comes to."""
    dice = random.Random(seed)
    compiled = base is not pump.PlainPump
    ends = in_memory(base, files, dice.choice(VERSIONS))
    whole_records = dice.random() < 0.2
    came = []
    with fakes() as known:
        wires = [known(Wire(random.Random(dice.random()), random.Random(seed) if compiled else None)) for _ in ends]
        wires[0].peer, wires[1].peer = wires[1], wires[0]
        for end, wire in zip(ends, wires, strict=True):
            # Then all that comes is records, as what is none has lengths that are another game's.
            wire.whole_records = whole_records
            end.attach(wire, whole_records)
        for _ in range(STEPS):
            side = dice.randrange(2)
            end = ends[side]
            for wire in wires:
                wire.settle()
            try:
                answer = step(end, dice, wires[side])
            except Exception as error:  # the bridge's and the wire's; both pumps must raise the same
                answer = type(error).__name__
            if dice.random() < 0.01:
                wires[1 - side].ended = True
            came.append((answer, end.unsent, end.budget, end.received, end.eof, bool(end.dead), end.bulky, end.busy))
            if dice.random() < 0.5:
                end.budget = pump.TURN
    errors.take()
    return came


def step(end, dice, wire):
    size = dice.choice(SIZES)
    verb = dice.choice(
        ("read",) * 6 + ("read_into", "write", "write", "write_from", "send", "refill", "receive", "odd")
    )
    if verb == "read":
        return end.step_read(size)
    if verb == "read_into":
        room = bytearray(size)
        with ffi.from_buffer(room) as there:
            return end.step_read_into(pointer(there), size), bytes(room[:10])
    if verb == "write":
        return end.step_write(bytes([size % 251]) * size)
    if verb == "write_from":
        data = bytes([size % 251]) * size
        return end.step_write_from(pointer(ffi.from_buffer(data)), size)
    if verb != "odd":
        answer = getattr(end, verb)()
        return len(answer) if isinstance(answer, bytes) else answer
    odd = dice.randrange(9)
    if odd == 0:
        end.look(not end.eager)
        return end.step_shutdown()
    if odd == 1 and not end.whole_records:
        return end.feed(dice.randbytes(size))
    if odd == 2 and not end.whole_records:
        return bios.append(end.outgoing, dice.randbytes(30))
    if odd == 3:
        end.attend(not end.attended)
    elif odd == 4:
        end.established = end.writable = dice.random() < 0.9
    elif odd == 5 and dice.random() < 0.1:
        end.detach()
    elif odd == 6:
        return end.send_or_forget()
    elif odd == 7:
        return end.continue_handshake()
    elif odd == 8:
        end.pause_by(wire.pause if dice.random() < 0.8 else None)
        if dice.random() < 0.5:
            end.watch()
    return None


def compare(files, seed):
    games = {name: play(base, files, seed) for name, base in PUMPS.items()}
    expected = games["plain"]
    for name, came in games.items():
        for number, (ours, theirs) in enumerate(zip(expected, came, strict=True)):
            assert ours == theirs, f"seed {seed}, step {number}: plain {ours!r:.300}, {name} {theirs!r:.300}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="only this one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        files = pki.cert_file, pki.key_file
        if arguments.seed is not None:
            compare(files, arguments.seed)
            return 0
        seed, end = random.SystemRandom().randrange(1 << 40), time.monotonic() + arguments.seconds
        games = 0
        while time.monotonic() < end:
            compare(files, seed + games)
            games += 1
    print(f"{games} games of {' and '.join(PUMPS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
