"""Which wheels of cryptography greentls can use: python -m tests.openssl.wheels cryptography-*.whl

Prints, for each, how many of the functions that the binding does not export stand in its symbol table. The wheels may
be of any platform; they have to be of the cryptography that is installed here, whose binding says what is not exported.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

from greentls.openssl import library, symbols


def verdict(wheel: Path) -> str:
    """What symbols finds in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if "/_rust." in name and name.endswith((".so", ".pyd")))
        file = io.BytesIO(archive.read(name))
    wanted = library.hidden
    try:
        found = symbols.read_image(file, wanted).symbols.keys()
    except symbols.Unusable as error:
        return f"none: {error}"
    missing = sorted(wanted - found)
    return f"{len(found)} of {len(wanted)}" + (f", not {', '.join(missing)}" if missing else "")


if __name__ == "__main__":
    for each in map(Path, sys.argv[1:]):
        print(f"{each.name}: {verdict(each)}")
