"""
Gives the process a small file system of its own at the path that the environment's SMALL_DISK names.

It is seen by this process alone, through `/proc/PID/root` by others, and is gone with it.  No rights are
needed where users may have namespaces of their own.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

BEFORE = "from tests.proof.small_disk import begin; begin()"
SIZE = 32 * 1024 * 1024

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def begin() -> None:
    """Mount it; OSError if that is not permitted."""
    path = os.environ["SMALL_DISK"]
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(libc.mount(b"small", path.encode(), b"tmpfs", 0, f"size={SIZE}".encode()))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
