"""A drop-in for the standard library's ssl whose callbacks may wait."""

from greentls.ssl.context import SSLContext
from greentls.ssl.socket import SSLSocket

__all__ = ["SSLContext", "SSLSocket"]
