"""
The one writer: a thread that commits what the reactor hands it, in groups.

Whatever is handed in while a commit is under way makes the next group, so the price of a
commit is shared by all who wait for it, and the more there are the less each pays.

All bookkeeping is the reactor thread's: the items not yet handed over, the group under way, how
the database does.  The writer's thread owns the connection and sees one group at a time; they
meet in a queue one way and `callFromThread` the other, once a group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread
from time import monotonic
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook.store.errors import StoreClosedError
from cubehook.store.rows import Item, Job, Rows
from cubehook.store.sqlite import BEGIN_WRITING, is_busy, is_trouble, reason

PATIENCE = 2.0
"""Seconds that a commit may take before the store is called degraded."""

GONE = "its file was deleted or replaced: what is kept is lost when the service stops, unless it is put back"
"""Why the store counts as degraded though it commits: nobody will ever read that file."""

Whereabouts: TypeAlias = tuple[int, int]
"""What tells a file from any other: its device and number there."""

_WAITS = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds to wait after each failure of one group; the last for ever."""

_GROUP_ITEMS = 512

STUCK_SECONDS = 120.0
"""How long the thread may be at one try of a commit before something must be wrong with it."""

_TASKS = Path("/proc/self/task")


class IReactor(IReactorTime, IReactorFromThreads):
    """What the writer needs of a reactor."""


class Writer:
    """
    Commits items in the order they are handed in.

    Commits begin at least `pace` seconds apart: a lone item is written at once, and under load
    each commit has company.  At most `max_items` items and `max_bytes` bytes are held; past
    either the writer is `full`, and it is for the caller to hand nothing more in.  `on_degraded`
    and `on_commit` are called in the reactor's thread.  `whereabouts` tells which file is where the
    database's should be: once it is another one, or none, what is committed will be lost.
    """

    _log = Logger()

    def __init__(
        self,
        engine: Engine,
        reactor: IReactor,
        *,
        on_degraded: Callable[[bool, str], None],
        on_commit: Callable[[float], None],
        pace: float,
        max_items: int,
        max_bytes: int,
        whereabouts: Callable[[], Whereabouts | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._whereabouts = whereabouts
        self._where: Whereabouts | None = None
        """Where the file was when it was opened; the writer's thread's."""
        self._reactor = reactor
        self._on_degraded = on_degraded
        self._on_commit = on_commit
        self._pace = pace
        self._flushed_at = 0.0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._queue: deque[Item] = deque()
        self._group: list[Item] = []
        self._deadline: IDelayedCall | None = None
        self._flush_soon: IDelayedCall | None = None
        self._trouble = ""
        self._idle: list[Deferred[None]] = []
        self._thread: Thread | None = None
        self._busy_since: float | None = None
        self._stopping = False
        self._inbox: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._give_up = Flag()
        self._ended: Deferred[None] = Deferred()
        self.held_items = 0
        self.held_bytes = 0
        self.degraded = False
        self.full = False

    # In the reactor's thread.

    def start(self, prepare: Callable[[], None]) -> Deferred[None]:
        """Run `prepare` in the writer's thread, then begin to write; fails as `prepare` does."""
        started: Deferred[None] = Deferred()
        # A daemon: a write that hangs in a dead file system must not keep the process from ending.
        self._thread = Thread(target=self._run, args=(prepare, started), name="cubehook-writer", daemon=True)
        self._thread.start()
        return started

    def stuck(self, now: float) -> str:
        """
        What is wrong with the thread in a way that only a new process mends, in words; empty if nothing is.

        `now` is of the monotonic clock.  A database that refuses, however long, is no such thing: work is
        held and delivered meanwhile, and a restart would lose it.  Nor is a disk that does not answer.
        """
        if self._thread is None or self._stopping:
            return ""
        if not self._thread.is_alive():
            return "the thread that writes the database has ended"
        since = self._busy_since
        if since is None or now - since < STUCK_SECONDS or _waits_for_disk(self._thread.native_id):
            return ""
        return f"a commit makes no progress, and does not wait for the disk, since over {STUCK_SECONDS:g} s"

    def put(self, item: Item) -> None:
        """Hold `item` until it is committed; then `item.done` fires."""
        self._queue.append(item)
        self.held_items += 1
        self.held_bytes += item.size
        if self.held_items >= self._max_items or self.held_bytes >= self._max_bytes:
            self.full = True
        if not self._group and self._flush_soon is None:
            self._flush_soon = self._reactor.callLater(self._wait(), self._flush)

    async def stop(self, patience: float) -> None:
        """
        Commit what is held, then let go of the database.

        Takes at most `patience` seconds; what could not be committed by then fails with
        StoreClosedError.
        """
        self._stopping = True
        self._pace = 0.0
        if self._flush_soon is not None:
            self._flush_soon.reset(0)
        deadline = self._reactor.callLater(patience, self._abandon)
        if self.held_items:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._inbox.put(None)
        await self._ended
        if deadline.active():
            deadline.cancel()

    def _wait(self) -> float:
        """Seconds to wait before the next group; the clock may have been set back."""
        return min(self._pace, max(0.0, self._flushed_at + self._pace - self._reactor.seconds()))

    def _flush(self) -> None:
        self._flush_soon = None
        self._flushed_at = self._reactor.seconds()
        queue = self._queue
        if isinstance(queue[0], Job):
            self._group = [queue.popleft()]
        else:
            group = self._group = []
            while queue and len(group) < _GROUP_ITEMS and not isinstance(queue[0], Job):
                group.append(queue.popleft())
        self._deadline = self._reactor.callLater(PATIENCE, self._overdue)
        self._busy_since = monotonic()
        self._inbox.put(self._group)

    def _committed(
        self, group: list[Item], refused: Sequence[tuple[Item, Failure]], seconds: float, gone: bool
    ) -> None:
        """The writer's thread is done with `group`; `gone` if its file is not where it was."""
        if group is not self._group:
            return  # It was given up meanwhile.
        self._release(group)
        if gone:
            self._set_degraded(True, GONE)
        elif len(self._queue) < _GROUP_ITEMS:
            # What is left is no more than any busy moment leaves.
            self._set_degraded(False, "")
        self._trouble = ""
        self._tell(self._on_commit, seconds)
        for item, failure in refused:
            if not isinstance(item, Job):
                self._log.failure("The store refuses one item of a group; the others are kept", failure)
            item.done.errback(failure)
        for item in group:
            if not item.done.called:
                item.done.callback(item.result)
        self._go_on()

    def _release(self, group: list[Item]) -> None:
        self._group = []
        self._busy_since = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.held_items -= len(group)
        for item in group:
            self.held_bytes -= item.size
        self.full = self.held_items >= self._max_items or self.held_bytes >= self._max_bytes

    def _go_on(self) -> None:
        if self._queue:
            if self._flush_soon is None:
                wait = 0.0 if len(self._queue) >= _GROUP_ITEMS else self._wait()
                self._flush_soon = self._reactor.callLater(wait, self._flush)
        elif not self._group:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def _failed(self, why: str, busy: bool) -> None:
        """The group under way could not be committed; the thread will try again."""
        self._busy_since = monotonic() if self._group else None
        if why != self._trouble:
            self._trouble = why
            self._log.error("A commit failed and is tried again: {reason}", reason=why)
        # Another process may hold the lock for a moment, as a backup does: no reason for alarm yet.
        if not busy:
            self._set_degraded(True, why)

    def _overdue(self) -> None:
        self._deadline = None
        self._set_degraded(True, self._trouble or f"a commit has been taking longer than {PATIENCE:g} s")

    def _set_degraded(self, degraded: bool, why: str) -> None:
        if degraded == self.degraded:
            return
        self.degraded = degraded
        if degraded:
            self._log.critical("The store cannot be written; work is held in memory: {reason}", reason=why)
        else:
            self._log.warn("The store is written again")
        self._tell(self._on_degraded, degraded, why)

    def _tell(self, hook: Callable[..., None], *arguments: object) -> None:
        try:
            hook(*arguments)
        except Exception:
            self._log.failure("Whoever watches the store failed")

    def _abandon(self) -> None:
        """Closing took too long: everything still held is lost to the database."""
        self._give_up.set()
        lost = [*self._group, *self._queue]
        if lost:
            self._log.critical(
                "The store is closed with {count} items that could not be written: {reason}",
                count=len(lost),
                reason=self._trouble or "the database does not answer",
            )
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        self._queue.clear()
        self._release(lost)
        for item in lost:
            item.done.errback(Failure(StoreClosedError("the store was closed before this could be written")))
        self._go_on()
        # The thread may hang for ever; it is left behind.
        self._thread_ended()

    def _thread_ended(self) -> None:
        if not self._ended.called:
            self._ended.callback(None)

    # In the writer's thread.

    def _run(self, prepare: Callable[[], None], started: Deferred[None]) -> None:
        try:
            prepare()
        except Exception:
            self._reactor.callFromThread(started.errback, Failure())
            self._reactor.callFromThread(self._thread_ended)
            return
        self._reactor.callFromThread(started.callback, None)
        connection: Connection | None = None
        try:
            while (group := self._inbox.get()) is not None:
                connection = self._persist(connection, group)
        finally:
            if connection is not None:
                connection.close()
            self._reactor.callFromThread(self._thread_ended)

    def _persist(self, connection: Connection | None, group: list[Item]) -> Connection | None:
        """Write `group`, however often that has to be tried, unless the writer is told to give up."""
        waits = iter(_WAITS)
        while True:
            try:
                if connection is None:
                    connection = self._engine.connect()
                    self._where = self._whereabouts()
                began = monotonic()
                refused = _commit(connection, group)
            except Exception as error:
                self._reactor.callFromThread(self._failed, reason(error), is_busy(error))
                if self._give_up.wait(next(waits, _WAITS[-1])):
                    return connection
            else:
                seconds = monotonic() - began
                gone = self._whereabouts() != self._where
                self._reactor.callFromThread(self._committed, group, refused, seconds, gone)
                return connection


def _waits_for_disk(thread: int | None) -> bool:
    """Whether the kernel has that thread wait for a device, where it tells."""
    try:
        # The name before it, in parentheses, may hold anything.
        return (_TASKS / str(thread) / "stat").read_text().rpartition(")")[2].split()[0] == "D"
    except (OSError, IndexError):
        return False


def _commit(connection: Connection, group: Sequence[Item]) -> list[tuple[Item, Failure]]:
    """
    Write `group` in one transaction; the items that can never be written, and why.

    Raises what `is_trouble` calls trouble; then nothing was written.
    """
    first = group[0]
    if isinstance(first, Job):
        try:
            with connection.begin():
                first.result = first.work(connection)
        except Exception as error:
            if is_trouble(error):
                raise
            return [(first, Failure())]
        return []
    # Beneath SQLAlchemy: its bookkeeping would cost more than the statements.
    database: Any = connection.connection.dbapi_connection
    cursor = database.cursor()
    try:
        cursor.execute(BEGIN_WRITING)
        Rows(group).write(cursor.executemany)
        cursor.execute("COMMIT")
    except Exception as error:
        database.rollback()
        if is_trouble(error):
            raise
    else:
        return []
    return _commit_each(database, group)


def _commit_each(database: Any, group: Sequence[Item]) -> list[tuple[Item, Failure]]:
    """`_commit`, item by item, since one of them spoils the group."""
    refused = []
    cursor = database.cursor()
    try:
        cursor.execute(BEGIN_WRITING)
        for item in group:
            cursor.execute("SAVEPOINT item")
            try:
                Rows([item]).write(cursor.executemany)
            except Exception as error:
                if is_trouble(error):
                    raise
                cursor.execute("ROLLBACK TO SAVEPOINT item")
                refused.append((item, Failure()))
            cursor.execute("RELEASE SAVEPOINT item")
        cursor.execute("COMMIT")
    except Exception:
        database.rollback()
        raise
    return refused
