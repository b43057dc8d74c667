"""The state folder and the database, looked at without changing anything, whether or not a service runs."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from cubehook.config import Cube, Webhook
from cubehook.doctor.findings import Finding, failed, ok, skipped, warning
from cubehook.records import Attempt
from cubehook.store import keyfile, schema
from cubehook.store.keyfile import KeyFileError
from cubehook.store.migrate import MIGRATIONS
from cubehook.store.sealing import Sealer, UnsealError, is_sealed
from cubehook.store.sqlite import advice

FOLDER = "state folder"
DATABASE = "database"
NAME = "cubehook.db"

QUICK_CHECK_SECONDS = 4.0
_STEPS = 20_000
"""SQLite's instructions between two looks at the clock."""

_LITTLE = 1 << 30
_TOO_LITTLE = 100 << 20
_ATTEMPTS = 100
_PRIVATE = (keyfile.NAME, NAME, "admin-token", "ssh_host_ed25519_key")
"""What only the service's user may read."""


class Kept(msgspec.Struct):
    """
    What the database keeps: cubes and webhooks that were made while the service ran, webhooks that are
    disabled since their receivers failed and why, and the latest attempts.
    """

    cubes: list[Cube] = []
    webhooks: list[Webhook] = []
    disabled: dict[str, str] = {}
    attempts: list[Attempt] = []


_OTHER_USER = "Run this command as the service's user, as in `sudo -u cubehook cubehook doctor`."


def _is_there(path: Path) -> bool:
    """Whether there is something at `path`; OSError if this user may not know."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def folder_findings(folder: Path) -> Iterator[Finding]:
    """The folder's owner and modes, those of the secrets in it, and the room on its disk."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield from _not_made(folder)
        return
    except OSError as error:
        yield failed(FOLDER, f"{folder} cannot be looked at: {error.strerror}", _OTHER_USER)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield failed(FOLDER, f"{folder} is no folder", "Move it away, or set another state_dir.")
        return
    problems = list(_modes(folder, found))
    yield from problems
    if not problems:
        yield ok(FOLDER, f"{folder} belongs to {_user(found.st_uid)}, and nobody else may write there")
    yield _room(folder)


def _not_made(folder: Path) -> Iterator[Finding]:
    parent = next(each for each in folder.parents if _is_there(each))
    if os.access(parent, os.W_OK | os.X_OK):
        yield skipped(FOLDER, f"{folder} is not there yet: it is made at the first start")
    else:
        yield failed(
            FOLDER,
            f"{folder} is not there, and this user ({_user(os.geteuid())}) may not make it in {parent}",
            "Make it, and let it belong to the service's user; or run this command as that user.",
        )


def _modes(folder: Path, found: os.stat_result) -> Iterator[Finding]:
    mode, me = stat.S_IMODE(found.st_mode), os.geteuid()
    if mode & 0o002:
        yield failed(
            FOLDER, f"{folder} may be written by everybody (mode {mode:04o})", f"chmod 0750 {folder}"
        )
    elif mode & 0o005:
        yield warning(
            FOLDER, f"{folder} may be entered or read by everybody (mode {mode:04o})", f"chmod 0750 {folder}"
        )
    if me not in (0, found.st_uid):
        yield warning(
            FOLDER,
            f"{folder} belongs to {_user(found.st_uid)}, and this is {_user(me)}: not all can be seen",
            f"Run this command as {_user(found.st_uid)}, if that is the service's user.",
        )
    for name in _PRIVATE:
        path = folder / name
        try:
            file = path.stat()
        except OSError:
            continue
        if stat.S_IMODE(file.st_mode) & 0o077:
            yield failed(
                FOLDER,
                f"{path} may be read by others (mode {stat.S_IMODE(file.st_mode):04o}), and holds secrets",
                f"chmod 0600 {path}; if somebody did read it, change what it protects.",
            )
        if file.st_uid != found.st_uid:
            yield failed(
                FOLDER,
                f"{path} belongs to {_user(file.st_uid)}, the folder to {_user(found.st_uid)}: a service of "
                "one of them cannot use both",
                f"chown {_user(found.st_uid)} {path}",
            )


def _room(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return skipped(FOLDER, f"How much room its disk has cannot be told: {error.strerror}")
    told = f"{free / (1 << 30):,.1f} GiB are free on its disk"
    if free < _TOO_LITTLE:
        return failed(
            FOLDER,
            f"{free / (1 << 20):,.0f} MiB are free on its disk: soon nothing can be kept",
            "Make room: a shorter [retention], or a larger disk.",
        )
    if free < _LITTLE:
        return warning(FOLDER, told, "Make room before it is full: a shorter [retention], or a larger disk.")
    return ok(FOLDER, told)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


# The database


def database_findings(
    folder: Path, *, running: bool, limit: float = QUICK_CHECK_SECONDS
) -> Iterator[Finding]:
    """Whether it opens, is of this version, and is sound as far as `limit` seconds let that be seen."""
    path = folder / NAME
    try:
        is_there = _is_there(path)
    except OSError as error:
        yield failed(DATABASE, f"{path} cannot be looked at: {error.strerror}", _OTHER_USER)
        return
    if not is_there:
        if running:
            yield failed(DATABASE, f"{path} is gone, and the service runs", "Stop it, and restore a backup.")
        else:
            yield skipped(DATABASE, f"{path} is not there yet: it is made at the first start")
        return
    try:
        with closing(_opened(path)) as connection:
            size = path.stat().st_size / (1 << 20)
            yield from _version(connection, path, size)
            yield _sound(connection, limit)
    except (sqlite3.Error, OSError) as error:
        yield failed(DATABASE, f"{path} cannot be read: {advice(error)}")


def _opened(path: Path) -> sqlite3.Connection:
    """
    A connection that only reads.

    Without a log and its index beside it, nobody has the database open and nothing is to be replayed: as
    immutable it is read without making files next to it.
    """
    quiet = not any(path.with_name(path.name + end).exists() for end in ("-wal", "-shm"))
    options = "mode=ro&immutable=1" if quiet else "mode=ro"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}", uri=True, timeout=2.0, isolation_level=None
    )


def _revision(connection: sqlite3.Connection) -> str | None:
    try:
        row = connection.execute(f"SELECT version_num FROM {schema.version.name}").fetchone()  # noqa: S608
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return None if row is None else str(row[0])


def _version(connection: sqlite3.Connection, path: Path, size: float) -> Iterator[Finding]:
    found = _revision(connection)
    known = {each.name.partition("_")[0] for each in (MIGRATIONS / "versions").glob("*_*.py")}
    if found == schema.REVISION:
        yield ok(DATABASE, f"{path} ({size:,.1f} MiB) has this version's schema, {found}")
    elif found is None:
        yield failed(
            DATABASE, f"{path} is not cubehook's, or empty", "Move it away, or set another state_dir."
        )
    elif found in known:
        yield warning(
            DATABASE,
            f"{path} has the schema {found}: the next start copies it, and brings it to {schema.REVISION}",
            "There is no way back but that copy.",
        )
    else:
        yield failed(
            DATABASE,
            f"{path} was written by a newer cubehook (its schema is {found}, this version knows "
            f"{schema.REVISION})",
            "Run that version, or start with another state_dir.",
        )


def _sound(connection: sqlite3.Connection, limit: float) -> Finding:
    end = time.monotonic() + limit
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        said = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return ok(DATABASE, f"It is too large to be checked in {limit:g} s; what was seen is sound")
    finally:
        connection.set_progress_handler(None, 0)
    if said == ["ok"]:
        return ok(DATABASE, "It is sound (quick_check)")
    return failed(
        DATABASE,
        f"It is damaged: {'; '.join(said)}",
        "Stop the service, keep a copy, and restore a backup; or try `sqlite3 cubehook.db .recover`.",
    )


# What is in it


def kept(folder: Path) -> tuple[Kept, list[Finding]]:
    """What the database keeps, and whether the key in the folder fits to it."""
    result, path = Kept(), folder / NAME
    try:
        if not _is_there(path):
            return result, []
        with closing(_opened(path)) as connection:
            if _revision(connection) != schema.REVISION:
                return result, []
            result.cubes = _cubes(connection)
            result.attempts = _attempts(connection)
            rows = connection.execute(
                "SELECT id, provisioned, settings, secret, disabled_reason FROM webhooks ORDER BY id"
            ).fetchall()
    except (sqlite3.Error, OSError):
        # Why, the database's own findings tell.
        return result, []
    result.disabled = {row[0]: row[4] for row in rows if row[4] is not None}
    sealer, findings = _sealer(folder, any(is_sealed(text) for row in rows for text in row[2:4]))
    if sealer is not None:
        findings += _unsealed(folder, rows, sealer, result)
    return result, findings


def _cubes(connection: sqlite3.Connection) -> list[Cube]:
    found = []
    for (settings,) in connection.execute("SELECT settings FROM cubes WHERE NOT provisioned ORDER BY id"):
        try:
            found.append(msgspec.json.decode(settings, type=Cube))
        except msgspec.MsgspecError:
            continue
    return found


def _attempts(connection: sqlite3.Connection) -> list[Attempt]:
    found = []
    query = "SELECT detail FROM attempts ORDER BY id DESC LIMIT ?"
    for (detail,) in connection.execute(query, (_ATTEMPTS,)):
        try:
            found.append(msgspec.json.decode(detail, type=Attempt))
        except msgspec.MsgspecError:
            continue
    return found


def _sealer(folder: Path, is_needed: bool) -> tuple[Sealer | None, list[Finding]]:
    path = folder / keyfile.NAME
    try:
        # Not as the service reads it, which mends the mode.
        text = path.read_text(encoding="ascii", errors="replace")
        return Sealer(keyfile.parsed(text, path)), []
    except FileNotFoundError:
        if not is_needed:
            return None, []
        return None, [
            failed(
                DATABASE,
                f"{path} is missing, and settings of webhooks were sealed with it",
                "Restore it from the backup: the service does not start without it.",
            )
        ]
    except KeyFileError as error:
        return None, [failed(DATABASE, str(error), "Restore it from the backup.")]
    except OSError as error:
        return None, [skipped(DATABASE, f"{path} cannot be read by this user: {error.strerror}")]


def _unsealed(folder: Path, rows: list[Any], sealer: Sealer, result: Kept) -> list[Finding]:
    closed = []
    for id, provisioned, settings, secret, _ in rows:
        try:
            opened = [sealer.unseal(text) if is_sealed(text) else text for text in (settings, secret)]
        except UnsealError:
            closed.append(id)
            continue
        if not provisioned:
            try:
                result.webhooks.append(msgspec.json.decode(opened[0], type=Webhook))
            except msgspec.MsgspecError:
                continue
    path = folder / keyfile.NAME
    if closed:
        return [
            failed(
                DATABASE,
                f"{path} is not the key that the webhooks {', '.join(closed)} were sealed with",
                "Restore it from the backup: the service does not start with another one.",
            )
        ]
    return [ok(DATABASE, f"{path} opens what the webhooks keep secret")] if rows else []
