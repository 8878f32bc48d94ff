"""MODULE:NAME to a WSGI application, in a worker whose standard library is patched before anything else."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from typing import Any

from greentls.errors import ConfigurationError

__all__ = ["load"]


def load(name: str) -> Any:
    """Patches by gevent, then imports; as with gunicorn and uWSGI the current directory counts.

    Raises ConfigurationError, whatever the import raised.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"--app {name}", "not MODULE:NAME", "write shop.wsgi:application")
    _patch()
    sys.path.insert(0, os.getcwd())
    try:
        application = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}{_place(error)}"
        raise ConfigurationError(f"--app {name}", problem, "name what can be imported from here") from None
    if not callable(application):
        raise ConfigurationError(f"--app {name}", "not callable", "name a WSGI application")
    return application


def _patch() -> None:
    from gevent import monkey

    with warnings.catch_warnings():
        # "... after ssl has already been imported": by greentls, which does not need it patched.
        warnings.filterwarnings("ignore", "Monkey-patching ssl ", monkey.MonkeyPatchWarning)
        monkey.patch_all()


def _place(error: Exception) -> str:
    """Where in the application it was raised; nothing if the import did not get that far."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if frame.filename == __file__ or frame.filename.startswith("<"):  # <frozen importlib._bootstrap>
        return ""
    return f" ({os.path.relpath(frame.filename)}, line {frame.lineno})"
