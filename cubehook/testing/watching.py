"""Seeing what a transport does to its process: what it opens, what blocks it, what it leaves behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

from twisted.internet.task import deferLater

_PATIENCE = 3.0
"""Seconds that the other side of a connection has to notice its end."""

_IO = frozenset(
    (
        "open",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.scandir",
        "os.system",
        "socket.__new__",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "sqlite3.connect",
        "subprocess.Popen",
    )
)
_BLOCKING = frozenset(
    ("socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname", "subprocess.Popen")
)

_watcher: Callable[[str, tuple[Any, ...]], None] | None = None
_hooked = False


@contextmanager
def io_seen() -> Iterator[list[str]]:
    """Collects what this thread reads, writes, connects to or waits for; nothing is hindered."""
    with _seen(_IO) as found:
        yield found


@contextmanager
def blocking_seen() -> Iterator[list[str]]:
    """Collects what holds up this thread: name look-ups of the standard library, and sleeps."""
    with _seen(_BLOCKING) as found:
        yield found


@contextmanager
def _seen(events: frozenset[str]) -> Iterator[list[str]]:
    global _watcher, _hooked
    found: list[str] = []
    thread = threading.get_ident()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in events and threading.get_ident() == thread and not _literal(event, arguments):
            found.append(f"{event} {arguments[0] if arguments else ''}".rstrip())

    if not _hooked:
        # Python has no way to take a hook away again.
        sys.addaudithook(_hook)
        _hooked = True
    sleep = time.sleep

    def watched_sleep(seconds: Any) -> None:
        # Python audits this from 3.13 on only.
        if threading.get_ident() == thread:
            found.append(f"time.sleep {seconds:g}")
        sleep(seconds)

    before, _watcher = _watcher, watch
    time.sleep = watched_sleep
    try:
        yield found
    finally:
        _watcher = before
        time.sleep = sleep


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watcher is not None:
        _watcher(event, arguments)


def _literal(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a look-up is for an address, which asks nobody."""
    if event != "socket.getaddrinfo":
        return False
    host = arguments[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    try:
        ip_address((host or "::").partition("%")[0])
    except ValueError:
        return False
    return True


class Leftovers:
    """What is there that was not there when this was made, by `watch`."""

    @classmethod
    async def watch(cls, reactor: Any) -> Leftovers:
        """From now on, in a turn of a reactor that runs: trial starts it only when a test has to wait."""
        await deferLater(reactor, 0)
        return cls(reactor)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._things = self._now()
        self._files = _files()

    async def none(self) -> list[str]:
        """What there is still, once whoever is at the other end had time to notice; empty if nothing is."""
        deadline = self._reactor.seconds() + _PATIENCE
        while (left := self._left()) and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.01)
        return left

    def _left(self) -> list[str]:
        left = [f"{kind}: {thing}" for kind, thing in self._now() if (kind, thing) not in self._things]
        if not left and _files() > self._files:
            left.append(f"open files: {_files() - self._files}")
        return left

    def _now(self) -> list[tuple[str, Any]]:
        reactor = self._reactor
        found = [("reader", each) for each in reactor.getReaders()]
        found += [("writer", each) for each in reactor.getWriters()]
        found += [("delayed call", each) for each in reactor.getDelayedCalls()]
        # The reactor's own threads stay.
        found += [
            ("thread", each) for each in threading.enumerate() if not each.name.startswith("PoolThread-")
        ]
        return found


def _files() -> int:
    with suppress(OSError):
        return len(os.listdir("/dev/fd"))
    return 0
