"""
Everything that is SQLite's own: connecting, what its errors mean, who may open the file.

Another database stands in by offering the same names.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, create_engine, event
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from cubehook.store.errors import StoreError

__all__ = [
    "BEGIN_WRITING",
    "Lock",
    "advice",
    "clean",
    "compiled",
    "insert",
    "is_busy",
    "is_clean",
    "is_trouble",
    "mark_clean",
    "mark_soiled",
    "reader_engine",
    "reason",
    "whereabouts",
    "writer_engine",
]

BEGIN_WRITING = "BEGIN IMMEDIATE"
"""Takes the write lock at once: taken later, it could fail halfway."""

LOCK_WAIT = 0.25
"""Seconds a statement waits for another process's lock; the writer itself asks again for ever."""

READER_LOCK_WAIT = 2.0

CHECKPOINT_PAGES = 1000
"""
Pages of 4 KiB in the write-ahead log after which a commit also copies them into the database.

The log is then written over from its start, so it stays near this size.
"""

_WAL_KEPT_BYTES = 64 * 1024 * 1024
_WRITER_CACHE_KIB = 2 * 1024
_READER_CACHE_KIB = 1024


_dialect = dialect()

# A number in the file's header that SQLite leaves to us: 0 in databases of schema 0001, which kept
# secrets in plain text.
_CLEAN = 1


def writer_engine(path: Path) -> Engine:
    """An engine whose connections write: durable when a commit returns, one transaction at a time."""

    def connect() -> sqlite3.Connection:
        # The database holds the webhooks' secrets; its log files take over its mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=LOCK_WAIT, isolation_level=None)
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                f"journal_size_limit = {_WAL_KEPT_BYTES}",
                f"cache_size = -{_WRITER_CACHE_KIB}",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    return _engine(connect, BEGIN_WRITING, poolclass=NullPool)


def reader_engine(path: Path, connections: int) -> Engine:
    """An engine whose connections can only read; each is used by one thread at a time."""
    address = path.absolute().as_uri() + "?mode=ro"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, uri=True, timeout=READER_LOCK_WAIT, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        return connection

    return _engine(connect, "BEGIN", poolclass=QueuePool, pool_size=connections, max_overflow=0)


def whereabouts(path: Path) -> tuple[int, int] | None:
    """Which file `path` leads to; None if to none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _engine(connect: Any, begin: str, **pool: Any) -> Engine:
    engine = create_engine("sqlite://", creator=connect, **pool)

    # The connections are in autocommit mode: a transaction begins where SQLAlchemy says so.
    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def is_clean(engine: Engine) -> bool:
    """Whether nothing that was deleted or overwritten in the file can be a secret in plain text."""
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("PRAGMA user_version").scalar() == _CLEAN)


def mark_clean(connection: Connection) -> None:
    """Say of a new database that it `is_clean`."""
    connection.exec_driver_sql(f"PRAGMA user_version = {_CLEAN}")


def mark_soiled(connection: Connection) -> None:
    """Say that plain text was in the file, and that `clean` is to be called."""
    connection.exec_driver_sql("PRAGMA user_version = 0")


def clean(engine: Engine) -> None:
    """
    Rewrite the whole file, so that nothing deleted or overwritten is left in it or in its log.

    Takes some twenty seconds for each gigabyte, and twice its room meanwhile.  Raises what SQLite does.
    """
    with engine.connect() as connection:
        # Beneath SQLAlchemy, which would begin a transaction.
        database: Any = connection.connection.dbapi_connection
        try:
            database.execute("VACUUM")
        finally:
            # Also a rewriting that failed may have left a long log.
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("another program has it open")
        database.execute(f"PRAGMA user_version = {_CLEAN}")


def compiled(statement: Executable) -> str:
    """The SQL text of `statement`, its parameters written `?` in order."""
    return str(statement.compile(dialect=_dialect))  # type: ignore[attr-defined]


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def is_trouble(error: BaseException) -> bool:
    """
    Whether `error` says that the database is in trouble (locked, full, unreadable), so that
    the same work may succeed later; otherwise the work itself is at fault.
    """
    cause = _cause(error)
    return isinstance(cause, MemoryError | OSError) or (
        isinstance(cause, sqlite3.DatabaseError)
        and not isinstance(
            cause,
            sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError | sqlite3.NotSupportedError,
        )
    )


def is_busy(error: BaseException) -> bool:
    """Whether `error` says that another process holds the write lock."""
    code = getattr(_cause(error), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def reason(error: BaseException) -> str:
    """What `error` says, without the statement and the values that SQLAlchemy adds."""
    return str(_cause(error)) or type(error).__name__


def advice(error: BaseException) -> str:
    """`reason`, and what an operator can do about a database that cannot be opened."""
    code = getattr(_cause(error), "sqlite_errorcode", 0) & 0xFF
    hint = {
        sqlite3.SQLITE_NOTADB: "move it away, or set another state_dir",
        sqlite3.SQLITE_BUSY: "another program has locked it",
        sqlite3.SQLITE_CANTOPEN: "is it a file, and may this user write there?",
        sqlite3.SQLITE_READONLY: "make it writable for this user",
        sqlite3.SQLITE_FULL: "make room on the disk",
    }.get(code)
    return f"{reason(error)}; {hint}" if hint else reason(error)


class Lock:
    """
    An advisory lock beside a database, so that two services cannot share one.

    The kernel lets go of it when its holder dies, however it dies.  The file stays: taking it
    away would let two processes hold locks on two files of one name.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_suffix(".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; StoreError, naming the holder, if another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreError(
                f"{self._path.parent} is in use by another cubehook (process {holder}): "
                "stop that one, or give this one a state_dir of its own"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock, if held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
