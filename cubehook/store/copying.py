"""
Copies of a database that is in use: made, looked at, and kept from before an upgrade.

A copy is what was committed when it began.  It is made with one reading transaction, so the service
goes on writing meanwhile; nothing here needs the service, or a reactor.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from twisted.logger import Logger

from cubehook.events import Micros, iso
from cubehook.store import keyfile, schema
from cubehook.store.errors import StoreError
from cubehook.store.private_file import sync_folder

FOLDER = "backup"
"""Where copies from before upgrades are, in the state folder."""

KEPT = 3
"""How many of them, each of another revision."""

SPARE_BYTES = 64 * 1024 * 1024
"""Room that shall be left for what goes on beside a copy."""

_LOCK_WAIT = 10.0
_VERSIONS = Path(__file__).parent / "migrations" / "versions"
_COPY = re.compile(r"cubehook-(?P<revision>\w+)-\d{8}T\d{6}Z\.db")

_log = Logger()


class CopyError(Exception):
    """A copy cannot be made, or is no good; the text says why and what to do."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is in a database: the revision of its schema, and how many rows of what.

    `last_event_at` is None if there was none.
    """

    revision: str
    calls: int
    events: int
    deliveries: int
    pending: int
    last_event_at: Micros | None


def known_revisions() -> list[str]:
    """The revisions that this version reads, or migrates from; the newest last."""
    return sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py"))


def size(database: Path) -> int:
    """About how many bytes a copy takes."""
    log = database.with_name(database.name + "-wal")
    return database.stat().st_size + (log.stat().st_size if log.exists() else 0)


def see_that_there_is_room(folder: Path, wanted: int, purpose: str) -> None:
    """CopyError if `folder` has not that many bytes left, and some to spare, for `purpose`."""
    free = shutil.disk_usage(folder).free
    if free < wanted + SPARE_BYTES:
        needed = megabytes(wanted + SPARE_BYTES)
        raise CopyError(
            f"{purpose} needs {needed} in {folder}, where {megabytes(free)} are free: make room there"
        )


def megabytes(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 1e6:,.1f} MB"


def copy(database: Path, target: Path) -> None:
    """
    Write what is committed in `database` to the new file `target`, of mode 0600.

    It is on the disk when this returns, and in no state between.  Raises CopyError and OSError; then
    there is no `target`.
    """
    if not database.is_file():
        raise CopyError(f"there is no database {database}")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(_reading(database)) as source, closing(sqlite3.connect(part)) as copied:
            # What a crash leaves of it is thrown away.
            copied.execute("PRAGMA journal_mode = OFF")
            copied.execute("PRAGMA synchronous = OFF")
            source.backup(copied)
            # One file, which can be looked at where nothing may be written.
            copied.execute("PRAGMA journal_mode = DELETE")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
        sync_folder(target.parent)
    except sqlite3.Error as error:
        raise CopyError(f"{database} cannot be copied to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def check(database: Path, *, quick: bool = False) -> None:
    """CopyError if the file is no sound database; `quick` leaves out whether indexes fit their tables."""
    try:
        with closing(_alone(database)) as connection:
            words = "PRAGMA quick_check(1)" if quick else "PRAGMA integrity_check(1)"
            found = connection.execute(words).fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise CopyError(f"{database.name} is damaged: {found}")


def facts(database: Path) -> Facts:
    """What is in a copy; CopyError if that is not a database of cubehook's, or of a newer one."""
    try:
        with closing(_alone(database)) as connection:
            revision = _revision(connection)
            if revision not in known_revisions():
                raise CopyError(
                    f"{database.name} was written by a newer cubehook (its schema is {revision}, this "
                    f"version knows {schema.REVISION})"
                )
            return Facts(
                revision=revision,
                calls=_one(connection, "SELECT count(*) FROM calls"),
                events=_one(connection, "SELECT count(*) FROM events"),
                deliveries=_one(connection, "SELECT count(*) FROM deliveries"),
                pending=_one(connection, "SELECT count(*) FROM deliveries WHERE status = 'pending'"),
                last_event_at=connection.execute(
                    "SELECT (SELECT at FROM events ORDER BY id DESC LIMIT 1)"
                ).fetchone()[0],
            )
    except sqlite3.Error as error:
        raise CopyError(f"{database.name} is not a cubehook database: {error}") from error


def see_that_key_fits(database: Path, key: Path) -> None:
    """CopyError if the webhooks' secrets in the copy were not sealed with the key in the file `key`."""
    from cubehook.store.sealing import Sealer, UnsealError, is_sealed

    with closing(_alone(database)) as connection:
        rows = connection.execute("SELECT settings, secret FROM webhooks").fetchall()
    sealed = [text for row in rows for text in row if is_sealed(text)]
    if not sealed:
        return
    try:
        sealer = Sealer(keyfile.keys(key, may_make=False))
        for text in sealed:
            sealer.unseal(text)
    except (keyfile.KeyFileError, StoreError) as error:
        raise CopyError(f"the webhooks' secrets in {database.name} cannot be read: {error}") from None
    except UnsealError:
        raise CopyError(f"{key.name} is not the key that {database.name} was sealed with") from None


def forget_pending(database: Path) -> int:
    """Let all pending deliveries of a database that nobody uses be expired; how many there were."""
    with closing(_alone(database)) as connection:
        waits = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('deliveries') WHERE name = 'ready_at')"
        ready = ", ready_at = NULL" if _one(connection, waits) else ""
        gone = connection.execute(
            f"UPDATE deliveries SET status = 'expired'{ready} WHERE status = 'pending'"  # noqa: S608
        ).rowcount
        # What is being sent again is pending, too, in another way.
        if _one(connection, "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'jobs')"):
            connection.execute(
                "UPDATE jobs SET state = 'cancelled', detail = json_set(detail, '$.state', 'cancelled', "
                "'$.reason', 'restored without what was pending') WHERE state = 'running'"
            )
        return gone


# Before an upgrade


def before_migration(database: Path, revision: str, now: Micros) -> Path:
    """
    Keep a copy of `database`, which is at `revision`, and as many of former ones as make `KEPT`; the copy.

    Raises StoreError, for an operator.
    """
    folder = database.parent / FOLDER
    stamp = iso(now)[:19].replace("-", "").replace(":", "")
    target = folder / f"cubehook-{revision}-{stamp}Z.db"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        see_that_there_is_room(folder, size(database), f"a copy of {database} from before its migration")
        copy(database, target)
        check(target, quick=True)
        # Another of this revision is of an upgrade that failed or was undone, and shall push out no other.
        same = [each for each in kept_copies(database, [revision]) if each != target]
        # This one is the newest, whatever the clock said when the others were made.
        others = [each for each in kept_copies(database) if each != target and each not in same]
        for old in same + others[: 1 - KEPT]:
            old.unlink()
        with closing(_alone(target)) as connection:
            clean = _one(connection, "PRAGMA user_version")
    except CopyError as error:
        raise StoreError(f"{error}. Nothing was migrated") from error
    except OSError as error:
        raise StoreError(
            f"a copy of {database} cannot be put into {folder}: {error.strerror}. Nothing was migrated"
        ) from error
    _log.info(
        "Copied {database} to {copy} ({size}), should you want to go back to the version before",
        database=str(database),
        copy=str(target),
        size=megabytes(target.stat().st_size),
    )
    if not clean:
        _log.warn(
            "{copy} holds the webhooks' secrets in plain text, as the version before kept them: delete it "
            "once you will not go back",
            copy=str(target),
        )
    return target


def kept_copies(database: Path, revisions: Sequence[str] | None = None) -> list[Path]:
    """The copies of `database` from before upgrades, the newest last; only those at one of `revisions`."""
    found = []
    for path in (database.parent / FOLDER).glob("cubehook-*.db"):
        match = _COPY.fullmatch(path.name)
        if match and (revisions is None or match["revision"] in revisions):
            found.append(path)
    return sorted(found, key=lambda path: path.name.rpartition("-")[2])


def _reading(database: Path) -> sqlite3.Connection:
    # A connection that could not write would leave the files of its log behind, were it the only one.
    connection = _existing(database)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _alone(database: Path) -> sqlite3.Connection:
    """A connection to a file that nobody else has open, and that leaves no others beside it."""
    connection = _existing(database)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def _existing(database: Path) -> sqlite3.Connection:
    address = database.absolute().as_uri() + "?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=_LOCK_WAIT, isolation_level=None)


def _revision(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _one(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
