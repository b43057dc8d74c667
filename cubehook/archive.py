"""
Backups: a state folder as one file, written while the service runs, and put back.

The file is an ordinary tar with a manifest in front, which tells what is in it, when it was made, and a
digest of each file, so that a damaged one is known before anything is touched.  Nothing here needs the
service.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from cubehook import __version__
from cubehook.events import Micros
from cubehook.store import copying, keyfile, schema
from cubehook.store.copying import CopyError, Facts
from cubehook.store.private_file import sync_folder
from cubehook.store.sqlite import Lock

MANIFEST = "backup.json"
DATABASE = "cubehook.db"
STATE = "state"
CONFIGURATION = "configuration"
ASIDE = "before-restore-"
"""Begins the names of folders with what a restored backup took the place of."""

_FORMAT = 1
_CHUNK = 1 << 20
_SQLITE = b"SQLite format 3\0"

_LOGS = "log"
_LEFT_OUT = {copying.FOLDER, "cubehook.lock", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
_TEMPORARY = (".new", ".part")
_BACKUP = re.compile(r"cubehook-\d{8}T\d{6}Z\.tar")
_WORKPLACE = ".cubehook-"
"""Begins the names of folders in which a backup is made or read."""
_STAYS = {copying.FOLDER, "cubehook.lock", _LOGS}
"""What is there before a first start, or is not the backup's to judge."""


class ArchiveError(Exception):
    """A backup cannot be made, is no good, or cannot be put back; the text says why and what to do."""


class Member(msgspec.Struct, frozen=True):
    """One file of a backup: its size, its SHA-256 in hex, and its mode."""

    size: int
    sha256: str
    mode: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a backup is: its files by their names in it, and what the database holds (`facts`).

    `state_dir` is where the folder was; `configuration` the name in it of the configuration file, None if
    it has none.
    """

    format: int
    cubehook: str
    made_at: Micros
    state_dir: str
    configuration: str | None
    facts: Facts
    files: dict[str, Member]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made: where it is, how large, what is in it, and what was left out of it and why."""

    path: Path
    size: int
    manifest: Manifest
    left_out: list[str]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was put back.

    `made_at` is None for a copy of a database alone.  `aside` is where what was there before is, None if
    nothing was; `forgotten` counts deliveries that are not sent any more.
    """

    made_at: Micros | None
    cubehook: str | None
    facts: Facts
    files: int
    aside: Path | None
    forgotten: int
    migrates: bool


# Making one


def write(
    state: Path, target: Path, now: Micros, *, configuration: Path | None, logs: bool, key: bool
) -> Written:
    """
    Write a backup of the folder `state`, and of the file `configuration` with those it names, to `target`.

    What was committed before this began is in it.  `logs` are wanted or not, as is the `key` to the
    webhooks' secrets.  Raises ArchiveError; then there is no `target`.
    """
    if not (state / DATABASE).is_file():
        raise ArchiveError(f"there is no database in {state}: is that the state folder?")
    if target.exists():
        raise ArchiveError(f"{target} is there already; it is not written over")
    part = target.with_name(target.name + ".part")
    left_out: list[str] = []
    try:
        with _temporary(target.parent) as folder:
            copying.see_that_there_is_room(folder, 2 * copying.size(state / DATABASE), "a backup")
            database = folder / DATABASE
            copying.copy(state / DATABASE, database)
            copying.check(database)
            found = _state_files(state, logs, left_out)
            if not key:
                found.pop(f"{STATE}/{keyfile.NAME}", None)
                left_out.append(f"{keyfile.NAME} (as asked)")
            else:
                copying.see_that_key_fits(database, state / keyfile.NAME)
            if configuration is not None:
                found |= _configuration_files(configuration, left_out)
            copies = {f"{STATE}/{DATABASE}": (database, 0o600)} | _snapshots(found, folder)
            facts = copying.facts(database)
            with _new_file(part) as file:
                manifest = _write_tar(
                    file,
                    copies,
                    Manifest(
                        format=_FORMAT,
                        cubehook=__version__,
                        made_at=now,
                        state_dir=str(state),
                        configuration=None if configuration is None else configuration.name,
                        facts=facts,
                        files={},
                    ),
                )
        # What is relied on some day was read once.
        with part.open("rb") as file:
            _read(file, None)
        part.rename(target)
        sync_folder(target.parent)
    except CopyError as error:
        raise ArchiveError(str(error)) from error
    except OSError as error:
        raise ArchiveError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return Written(path=target, size=target.stat().st_size, manifest=manifest, left_out=left_out)


def _state_files(state: Path, logs: bool, left_out: list[str]) -> dict[str, Path]:
    found = {}
    for folder, folders, names in os.walk(state):
        here = Path(folder)
        if here == state:
            folders[:] = [
                each
                for each in folders
                if each != copying.FOLDER
                and not each.startswith((ASIDE, _WORKPLACE))
                and (logs or each != _LOGS)
            ]
        folders.sort()
        for name in sorted(names):
            path = here / name
            relative = path.relative_to(state)
            if str(relative) in _LEFT_OUT or name.endswith(_TEMPORARY) or _BACKUP.fullmatch(name):
                continue
            if stat.S_ISREG(path.lstat().st_mode):
                found[f"{STATE}/{relative.as_posix()}"] = path
            elif not path.is_socket():
                left_out.append(f"{relative} (not an ordinary file)")
    return found


def _configuration_files(configuration: Path, left_out: list[str]) -> dict[str, Path]:
    """The configuration, and the manhole's files that it names."""
    found = {f"{CONFIGURATION}/{configuration.name}": configuration}
    try:
        manhole = tomllib.loads(configuration.read_text("utf-8")).get("manhole", {})
    except ValueError:
        return found
    for name in ("authorized_keys", "password_file"):
        value = manhole.get(name) if isinstance(manhole, dict) else None
        if isinstance(value, str) and "${" not in value:
            path = configuration.parent / value
            if path.is_file():
                found[f"{CONFIGURATION}/{path.name}"] = path
            else:
                left_out.append(f"{path} (manhole.{name}: there is no such file)")
    return found


def _snapshots(found: dict[str, Path], folder: Path) -> dict[str, tuple[Path, int]]:
    """Copies, with their modes, of files that may change any moment; one that is gone by then is left out."""
    copies = {}
    for number, (name, path) in enumerate(found.items()):
        copied = folder / str(number)
        try:
            shutil.copyfile(path, copied)
            copies[name] = copied, stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
    return copies


def _write_tar(file: IO[bytes], found: dict[str, tuple[Path, int]], manifest: Manifest) -> Manifest:
    """Write the files, and the manifest with what they are in front of them."""
    files = {}
    for name, (path, mode) in found.items():
        with path.open("rb") as source:
            files[name] = Member(path.stat().st_size, _digest(source, None), mode)
    manifest = msgspec.structs.replace(manifest, files=files)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        _add(tar, MANIFEST, Member(len(text), "", 0o600), BytesIO(text), manifest.made_at)
        for name, member in files.items():
            with found[name][0].open("rb") as source:
                _add(tar, name, member, source, manifest.made_at)
    file.flush()
    os.fsync(file.fileno())
    return manifest


def _add(tar: tarfile.TarFile, name: str, member: Member, source: IO[bytes], at: Micros) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = member.size, member.mode, at // 1_000_000
    tar.addfile(entry, source)


def _digest(source: IO[bytes], target: IO[bytes] | None) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


# Reading one


def _read(file: IO[bytes], into: Path | None) -> Manifest:
    """
    Read all of a backup, and write its files below the folder `into`, if given.

    Raises ArchiveError if anything in it is not what its manifest says.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            manifest = _manifest(tar)
            missing = dict(manifest.files)
            while (entry := tar.next()) is not None:
                member = missing.pop(entry.name, None)
                source = tar.extractfile(entry) if entry.isreg() else None
                if member is None or source is None or entry.size != member.size:
                    raise ArchiveError(f"{entry.name} does not belong into a backup, or is not as it was")
                if into is None:
                    digest = _digest(source, None)
                else:
                    digest = _extract(source, into.joinpath(*PurePosixPath(entry.name).parts), member.mode)
                if digest != member.sha256:
                    raise ArchiveError(f"{entry.name} is damaged: its digest is not that of when it was made")
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"it is no backup, or is cut off: {error}") from error
    if missing:
        raise ArchiveError(f"it is cut off: {', '.join(sorted(missing))} is missing")
    return manifest


def _manifest(tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    source = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    if source is None:
        raise ArchiveError(f"it is no backup of cubehook's: it does not begin with {MANIFEST}")
    try:
        manifest = msgspec.json.decode(source.read(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise ArchiveError(f"its {MANIFEST} cannot be read: {error}") from None
    if manifest.format > _FORMAT:
        raise ArchiveError(f"cubehook {manifest.cubehook} made it, and this version is too old to read it")
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or parts[0] not in (STATE, CONFIGURATION) or ".." in parts:
            raise ArchiveError(f"its {MANIFEST} names a file that no backup has: {name!r}")
    own = manifest.configuration
    # Joined to a path, an absolute name would be another file of this machine.
    if own is not None and (PurePosixPath(own).name != own or f"{CONFIGURATION}/{own}" not in manifest.files):
        raise ArchiveError(f"its {MANIFEST} names a configuration that it does not have: {own!r}")
    return manifest


def _extract(source: IO[bytes], path: Path, mode: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _new_file(path) as file:
        digest = _digest(source, file)
        os.fchmod(file.fileno(), mode & 0o777)
        file.flush()
        os.fsync(file.fileno())
    return digest


# Putting one back


def restore(
    source: Path,
    state: Path,
    stamp: str,
    *,
    force: bool = False,
    pending: bool = True,
    configuration: Path | None = None,
) -> Restored:
    """
    Let the folder `state` be what the backup `source` has, or its database what a copy of one is.

    All of it is verified first.  What is there already is moved into a folder named with `stamp` if `force`,
    and otherwise in the way.  Without `pending` what was to be delivered is not sent any more.  The
    configuration is written to the new file `configuration`, if given.  Raises ArchiveError and StoreError
    (a service uses the folder); what was in the folder is then as it was.
    """
    try:
        with source.open("rb") as file:
            alone = file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise ArchiveError(f"{source} cannot be read: {error.strerror}") from None
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = Lock(state / DATABASE)
        lock.acquire()
        try:
            with _temporary(state) as new:
                return _restore(source, state, new, stamp, alone, force, pending, configuration)
        finally:
            lock.release()
    except CopyError as error:
        raise ArchiveError(f"{source}: {error}") from error
    except OSError as error:
        raise ArchiveError(f"{error.filename or state}: {error.strerror or error}") from error


def _restore(
    source: Path,
    state: Path,
    new: Path,
    stamp: str,
    alone: bool,
    force: bool,
    pending: bool,
    configuration: Path | None,
) -> Restored:
    there = _in_the_way(state, alone, new)
    if there and not force:
        raise ArchiveError(
            f"{state} holds {', '.join(sorted(path.name for path in there))} already: with --force that is "
            f"moved to {ASIDE}{stamp} in it"
        )
    if configuration is not None and configuration.exists():
        raise ArchiveError(f"{configuration} is there already; it is not written over")
    copying.see_that_there_is_room(state, source.stat().st_size, "what is restored")
    manifest = None
    if alone:
        if configuration is not None:
            raise ArchiveError(f"{source} is a copy of a database, in which there is no configuration")
        log = source.with_name(f"{source.name}-wal")
        if log.exists() and log.stat().st_size:
            raise ArchiveError(
                f"{source} is a database as a service uses it: what was committed last is in {log}, without "
                "which it is not whole. `cubehook backup` makes a whole one"
            )
        (new / STATE).mkdir()
        shutil.copyfile(source, new / STATE / DATABASE)
    else:
        try:
            with source.open("rb") as file:
                manifest = _read(file, new)
        except ArchiveError as error:
            raise ArchiveError(f"{source}: {error}") from None
        if configuration is not None and manifest.configuration is None:
            raise ArchiveError(f"{source} has no configuration")
    database = new / STATE / DATABASE
    database.chmod(0o600)
    copying.check(database)
    facts = copying.facts(database)
    key = (new / STATE if manifest is not None else state) / keyfile.NAME
    if key.exists():
        copying.see_that_key_fits(database, key)
    forgotten = 0 if pending else copying.forget_pending(database)
    _belong_to_owner_of(state, new)
    aside = state / f"{ASIDE}{stamp}" if there else None
    with ExitStack() as undo:
        if configuration is not None and manifest is not None and manifest.configuration is not None:
            _copy_new(new / CONFIGURATION / manifest.configuration, configuration, undo)
        if aside is not None:
            aside.mkdir(mode=0o700)
            undo.callback(aside.rmdir)
            _belong_to_owner_of(state, aside)
            for path in there:
                _move(path, aside / path.name, undo)
        # The database comes last: a start that comes between finds none, and not another's.
        for path in sorted((new / STATE).iterdir(), key=lambda path: path.name == DATABASE):
            if not (path.name == _LOGS and (state / _LOGS).exists()):
                _move(path, state / path.name, undo)
        sync_folder(state)
        undo.pop_all()
    return Restored(
        made_at=None if manifest is None else manifest.made_at,
        cubehook=None if manifest is None else manifest.cubehook,
        facts=facts,
        files=1 if manifest is None else len(manifest.files),
        aside=aside,
        forgotten=forgotten,
        migrates=facts.revision != schema.REVISION,
    )


def _in_the_way(state: Path, alone: bool, new: Path) -> list[Path]:
    if alone:
        names = [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"]
        return [state / name for name in names if (state / name).exists()]
    return [
        path
        for path in state.iterdir()
        if path.name not in _STAYS and not path.name.startswith(ASIDE) and path != new
    ]


def _move(path: Path, target: Path, undo: ExitStack) -> None:
    path.rename(target)
    undo.callback(target.rename, path)


def _belong_to_owner_of(state: Path, folder: Path) -> None:
    """Root, who restores for the service's user, leaves nothing behind that only root can open."""
    if os.geteuid() != 0:
        return
    owner = state.stat()
    for path in (folder, *folder.rglob("*"), state / "cubehook.lock"):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _copy_new(source: Path, target: Path, undo: ExitStack) -> None:
    with source.open("rb") as file, _new_file(target) as written:
        undo.callback(target.unlink)
        shutil.copyfileobj(file, written)


def _new_file(path: Path) -> IO[bytes]:
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


@contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """A folder in `parent` that only this user sees, while the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix=_WORKPLACE, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
