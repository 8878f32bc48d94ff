"""What a benchmark's figures are worth: on which machine, over which versions, how busy it was."""

from __future__ import annotations

import json
import os
import platform
import ssl

import cryptography
import gevent
from cryptography.hazmat.backends.openssl.backend import backend


def report(options, results):
    """Prints one JSON document."""
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load average": os.getloadavg()[0],
        "python": platform.python_version(),
        "gevent": gevent.__version__,
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "the interpreter's openssl": ssl.OPENSSL_VERSION,
        "settings": vars(options),
        "results": results,
    }
    print(json.dumps(document, indent=2))
