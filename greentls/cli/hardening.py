"""What a process that holds keys gives up: another user's rights, swap space, core dumps, being looked into."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource

from greentls.errors import ConfigurationError

__all__ = ["become", "forbid_looking_in", "lock_memory", "user_id"]

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # prctl(2)
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # mlockall(2)


def user_id(name: str) -> int:
    """Of a user's name, or of a number. Raises ConfigurationError."""
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(f"user {name}", "there is none", "give a name or a number") from None


def _call(function: str, *arguments: int) -> None:
    """Of the C library. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*map(ctypes.c_ulong, arguments)) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def lock_memory() -> None:
    """Keeps what is in memory out of swap space, and what will be. Raises OSError if this process may not.

    Without root's rights, or RLIMIT_MEMLOCK without a limit, it locks what is there now.
    """
    future = _MCL_FUTURE
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        future = 0  # what grows beyond the limit would find no memory at all
    _call("mlockall", _MCL_CURRENT | future)


def become(name: str) -> None:
    """Another user, for good, with that one's groups. Raises ConfigurationError, OSError."""
    uid = user_id(name)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(f"user {name}", "there is none", "give a name or a number") from None
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(uid, uid, uid)


def forbid_looking_in() -> None:
    """No core dumps, and no debugger or /proc/PID/mem for processes of the same user; no rights by other programs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
