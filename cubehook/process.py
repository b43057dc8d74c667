"""What the process as a whole is told: about its memory, and its end."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from contextlib import suppress

_M_ARENA_MAX = -8
"""Of glibc's malloc.h; other C libraries know no such thing."""


def share_one_heap() -> None:
    """
    Let all threads allocate from one heap.

    glibc gives each thread its own, so that memory freed in one is of no use in another: with our few
    threads that costs megabytes and gains nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give back to the system what importing and starting took and freed."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def exit_with_1(text: str) -> None:
    """Let the process end as twistd ends it, and then exit with 1 for having failed to start."""

    def leave() -> None:
        print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    atexit.register(leave)
