"""Delivery into a file: each event one line of JSON."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.records import ErrorClass

SUFFIX = ".jsonl"


class JsonLinesOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The `options` of a webhook into a file.

    `path` (ending in .jsonl, relative to the state folder) is appended to, and opened anew when it was
    moved away, so that logrotate needs no signal.  With `fsync`, an event counts as delivered only once
    the disk has it.
    """

    path: str
    fsync: bool = False


@implementer(ITransportPlugin)
class JsonLinesPlugin:
    """Announces the transport `jsonl`."""

    name = "jsonl"
    description = "A line of JSON for each event, appended to a file"
    options = JsonLinesOptions

    def check(self, webhook: Webhook, options: JsonLinesOptions) -> list[tuple[str, str]]:
        path = Path(options.path)
        # The suffix keeps the state folder's own files from being written into.
        if "\0" in options.path or path.suffix != SUFFIX:
            return [("options.path", f"the path of a file ending in {SUFFIX}")]
        if not path.is_absolute() and ".." in path.parts:
            return [("options.path", "an absolute path, or one inside the state folder")]
        return []

    def create(self, webhook: Webhook, options: JsonLinesOptions, context: ITransportContext) -> ITransport:
        return JsonLinesTransport(options, context)


@implementer(ITransport)
class JsonLinesTransport:
    """
    Appends each event's body, as one line, in the order of the calls of `deliver`.

    Writing a line blocks no longer than the page cache does; `fsync` waits in a thread, one wait for
    all the lines written before it began.
    """

    def __init__(self, options: JsonLinesOptions, context: ITransportContext) -> None:
        path = context.state_dir / options.path
        self._reactor = context.reactor
        self._where = str(path)
        self._file = _Appender(path, make_folders=not Path(options.path).is_absolute())
        self._sync = _GroupSync(context.reactor, self._file) if options.fsync else None

    async def start(self) -> None:
        """Nothing to do: the file is opened for the first event, and a failure told with it."""

    async def stop(self) -> None:
        if self._sync is not None:
            # One last round comes after any that a cancelled delivery left under way.
            with contextlib.suppress(OSError):
                await self._sync.wait()
        self._file.close()

    async def deliver(self, outbound: Outbound) -> Sent:
        # In JSON a line break stands between tokens only, where a space does as well.
        line = outbound.body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        try:
            self._file.append(line)
            if self._sync is None:
                self._file.close_retired(self._file.retired)
            else:
                await self._sync.wait().addTimeout(outbound.timeout, self._reactor)
        except DeferredTimeoutError:
            return self._failed(ErrorClass.TIMEOUT, f"timed out after {outbound.timeout:g} s while syncing")
        except OSError as error:
            return self._failed(ErrorClass.OTHER, error.strerror or str(error))
        return Sent(delivered=True, url=self._where)

    def _failed(self, error_class: ErrorClass, error: str) -> Sent:
        return Sent(
            delivered=False, url=self._where, error_class=error_class, error=f"{self._where}: {error}"
        )


class _Appender:
    """
    A file that whole lines are appended to; opened when needed, and anew when its name leads elsewhere.

    A line is written whole or not at all: what a full disk cut off is taken back, and a line that a
    crash left unfinished is ended before the next.  `retired` are the descriptors of files that were
    moved away; their owner closes them.
    """

    def __init__(self, path: Path, make_folders: bool) -> None:
        self._path = path
        self._make_folders = make_folders
        self._identity: tuple[int, int] | None = None
        self._descriptor = -1
        self.retired: list[int] = []

    def append(self, line: bytes) -> None:
        """Raises OSError if `line` could not be written; nothing of it is in the file then."""
        if self._named() != self._identity or self._identity is None:
            self._open()
        descriptor = self._descriptor
        written = os.write(descriptor, line)
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise

    def descriptors(self) -> list[int]:
        """All that may hold lines which are not on the disk yet."""
        return [*self.retired, self._descriptor] if self._identity else list(self.retired)

    def close_retired(self, descriptors: Iterable[int]) -> None:
        """Close those of `retired` that are among `descriptors`."""
        for descriptor in set(descriptors).intersection(self.retired):
            self.retired.remove(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        self._retire()
        self.close_retired(self.retired)

    def _named(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> None:
        self._retire()
        try:
            descriptor = os.open(self._path, _FLAGS, _MODE)
        except FileNotFoundError:
            if not self._make_folders:
                raise
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, _FLAGS, _MODE)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
                os.write(descriptor, b"\n")
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._identity = found.st_dev, found.st_ino

    def _retire(self) -> None:
        if self._identity is not None:
            self.retired.append(self._descriptor)
            self._identity = None


# O_NONBLOCK, lest a named pipe hold up the reactor; reading is for the last byte.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_MODE = 0o640


class _GroupSync:
    """Waits for the disk in a thread, a round at a time; what comes during a round shares the next."""

    def __init__(self, reactor: Any, file: _Appender) -> None:
        self._reactor = reactor
        self._file = file
        self._waiting: list[Deferred[None]] = []
        self._round: Deferred[None] | None = None

    def wait(self) -> Deferred[None]:
        """Fires once everything appended so far is on the disk; errbacks with OSError."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if self._round is None:
            self._begin()
        return waiter

    def _begin(self) -> None:
        waiters, self._waiting = self._waiting, []
        descriptors = self._file.descriptors()
        round = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _fsync, descriptors)
        self._round = round.addBoth(self._ended, descriptors, waiters)

    def _ended(self, result: Failure | None, descriptors: list[int], waiters: list[Deferred[None]]) -> None:
        self._file.close_retired(descriptors)
        self._round = None
        if self._waiting:
            self._begin()
        for waiter in waiters:
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)


def _fsync(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)
