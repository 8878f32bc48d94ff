"""`greentls keys serve` as a user starts it."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support.helpers import PATIENCE, tethered


class KeyProcess:
    """Holds the keys of files; listens at path."""

    def __init__(self, path, *files, options=(), log=None):
        self.path = str(path)
        command = [sys.executable, "-m", "greentls", "keys", "serve", "--socket", self.path, *options]
        self._command = tethered(*command, "--key", *files)
        self._log = log
        self.start()

    def start(self):
        with open(self._log, "ab") if self._log else open("/dev/null", "wb") as err:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=err, text=True)
        line = self.process.stdout.readline()
        assert line.startswith(f"greentls keys: listening on {self.path} (pid {self.process.pid}, "), line

    @property
    def pid(self):
        return self.process.pid

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self._ended()

    def stop(self):
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self._ended()

    def _ended(self):
        self.process.stdout.close()
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        else:
            self.process.stdout.close()
