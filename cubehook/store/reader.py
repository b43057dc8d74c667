"""Reading: a few threads with connections of their own, so that a long list never delays a commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from cubehook.store.errors import StoreClosedError, StoreError
from cubehook.store.sqlite import is_trouble, reason
from cubehook.store.writer import IReactor

T = TypeVar("T")


class Reader:
    """Runs reading work in threads; everything one piece of work reads is of one moment."""

    def __init__(self, engine: Engine, reactor: IReactor, threads: int) -> None:
        self._engine = engine
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "cubehook-reader")
        self._busy = 0
        self._open = False
        self._idle: Deferred[None] | None = None

    def start(self) -> None:
        """Let work in."""
        self._pool.start()
        self._open = True

    async def stop(self) -> None:
        """Let no more work in, wait for what is under way, let go of the threads and connections."""
        if not self._open:
            return
        self._open = False
        if self._busy:
            self._idle = Deferred()
            await self._idle
        self._pool.stop()
        self._engine.dispose()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """
        What `work` returns, run with a connection in a transaction that only reads.

        Raises StoreError if the database cannot be read.
        """
        if not self._open:
            raise StoreClosedError("the store is not open")
        self._busy += 1
        try:
            return await deferToThreadPool(self._reactor, self._pool, self._read, work)
        except Exception as error:
            if is_trouble(error):
                raise StoreError(f"the database cannot be read: {reason(error)}") from error
            raise
        finally:
            self._busy -= 1
            if self._idle is not None and not self._busy:
                self._idle.callback(None)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection, connection.begin():
            return work(connection)
