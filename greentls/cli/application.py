"""Loads a WSGI application from MODULE:NAME, in a worker, after gevent has patched the standard library."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

from greentls.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["load"]


def load(name: str) -> WSGIApplication:
    """Patches by gevent, then imports. The current directory is on the import path, as with gunicorn and uWSGI.

    Raises ConfigurationError for any exception from the import.
    """
    from gevent import monkey

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"--app {name}", "not MODULE:NAME", "write shop.wsgi:application")
    with warnings.catch_warnings():
        # "... after ssl has already been imported": greentls imported it, and does not need it patched.
        warnings.filterwarnings("ignore", "Monkey-patching ssl ", monkey.MonkeyPatchWarning)
        monkey.patch_all()
    sys.path.insert(0, os.getcwd())
    try:
        application: WSGIApplication = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}{_place(error)}"
        raise ConfigurationError(f"--app {name}", problem, "name what can be imported from here") from None
    if not callable(application):
        raise ConfigurationError(f"--app {name}", "not callable", "name a WSGI application")
    return application


def _place(error: Exception) -> str:
    """Returns the place in the application that raised error, or "" if the import did not get that far."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if frame.filename == __file__ or frame.filename.startswith("<"):  # <frozen importlib._bootstrap>
        return ""
    return f" ({os.path.relpath(frame.filename)}, line {frame.lineno})"
