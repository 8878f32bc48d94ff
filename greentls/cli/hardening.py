"""Hardens a process that holds keys: no other user's rights, no swap space, no core dumps, no debuggers."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource

from greentls.errors import ConfigurationError

__all__ = ["allow_many_files", "become", "forbid_looking_in", "lock_memory", "user_id"]

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # prctl(2)
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # mlockall(2)


def user_id(name: str) -> int:
    """Returns the id of a user, given by name or number. Raises ConfigurationError."""
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(f"user {name}", "there is none", "give a name or a number") from None


def _call(function: str, *arguments: int) -> None:
    """Calls a function of the C library. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*map(ctypes.c_ulong, arguments)) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def lock_memory() -> None:
    """Keeps present and future memory out of swap space. Raises OSError if this process may not.

    Without root's rights and without an unlimited RLIMIT_MEMLOCK, it locks only the present memory.
    """
    future = _MCL_FUTURE
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        future = 0  # memory beyond the limit could not be allocated
    _call("mlockall", _MCL_CURRENT | future)


def allow_many_files() -> None:
    """Raises the limit of open files, sockets included, as far as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def become(name: str) -> None:
    """Changes permanently to another user with its groups. Raises ConfigurationError, OSError."""
    uid = user_id(name)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(f"user {name}", "there is none", "give a name or a number") from None
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(uid, uid, uid)


def forbid_looking_in() -> None:
    """Forbids core dumps, debuggers and /proc/PID/mem of the same user, and programs that grant rights."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
