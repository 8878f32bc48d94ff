"""A token in software: SoftHSM 2, with keys that it is given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "98765432"


class SoftHSM:
    """One token, of the name web. A process has one: the library is initialised once, and reads then where it is."""

    def __init__(self, directory: Path) -> None:
        (directory / "tokens").mkdir()
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        self.pin_file = directory / "pin"
        self.pin_file.touch(0o600)
        self.pin_file.write_text(PIN + "\n")
        self._ids = 0
        self._run("--init-token", "--free", "--label", "web", "--pin", PIN, "--so-pin", "12345678")

    def _run(self, *arguments: object) -> None:
        command = ["softhsm2-util", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True)

    def add(self, key_file: object, label: str) -> str:
        """Its id, in hexadecimal."""
        self._ids += 1
        number = f"{self._ids:02x}"
        self._run("--import", key_file, "--token", "web", "--label", label, "--id", number, "--pin", PIN)
        return number

    def uri(self, **attributes: object) -> str:
        path = ";".join(f"{name}={value}" for name, value in {"token": "web", **attributes}.items())
        return f"pkcs11:{path}?module-path={MODULE}&pin-source={self.pin_file}"
