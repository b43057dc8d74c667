"""`cubehook backup` and `cubehook restore`: the state folder as one file, and back."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cubehook import archive, config_reader
from cubehook.archive import ArchiveError, Restored, Written
from cubehook.commands import place
from cubehook.events import iso
from cubehook.store.copying import Facts, megabytes
from cubehook.store.errors import StoreError
from cubehook.text import printable

_NICE = 10
"""The service's answers come before a backup."""


def backup(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook backup",
        description="Write the state folder, with the database as it is now, and the configuration to one "
        "file of mode 0600.  The service may be running and goes on undisturbed.  Whoever has the file has "
        "the webhooks' secrets and the administrator's token.",
    )
    parser.add_argument(
        "target",
        type=Path,
        metavar="FILE.tar|DIR",
        help="a new file, or a folder in which one is named after the time",
    )
    place.add_arguments(parser)
    parser.add_argument("--logs", action="store_true", help="the log files too")
    parser.add_argument(
        "--without-key", action="store_true", help="leave secret.key out, to be kept in another place"
    )
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    now = time.time_ns() // 1000
    target: Path = arguments.target
    if target.is_dir():
        target = target / f"cubehook-{_stamp(now)}.tar"
    os.nice(_NICE)
    try:
        written = archive.write(
            place.state_dir(arguments),
            target.absolute(),
            now,
            configuration=place.configuration(arguments),
            logs=arguments.logs,
            key=not arguments.without_key,
        )
    except (ArchiveError, config_reader.ConfigErrors) as error:
        return _failed("backup", error)
    seconds = time.monotonic() - began
    if arguments.json:
        place.print_json(_backup_json(written, seconds))
    else:
        print(_backup_text(written, seconds))
    return 0


def _backup_text(written: Written, seconds: float) -> str:
    manifest = written.manifest
    lines = [
        f"{printable(str(written.path), 1000)}: {megabytes(written.size)}, {len(manifest.files)} files, "
        f"in {seconds:.1f} s; read again and sound.",
        f"{_facts(manifest.facts)}; as of {place.local(iso(manifest.made_at))}.",
    ]
    if manifest.configuration is None:
        lines.append("Without a configuration, since --state-dir names none.")
    lines += [f"Left out: {printable(each)}" for each in written.left_out]
    return "\n".join(lines)


def _backup_json(written: Written, seconds: float) -> dict[str, Any]:
    manifest = written.manifest
    return {
        "file": str(written.path),
        "bytes": written.size,
        "seconds": round(seconds, 3),
        "made_at": iso(manifest.made_at),
        "files": sorted(manifest.files),
        "left_out": written.left_out,
        "configuration": manifest.configuration,
        **_facts_json(manifest.facts),
    }


def restore(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook restore",
        description="Put back what `cubehook backup` wrote, or a copy of the database from before an "
        "upgrade.  The file is verified first; no service may be running with the state folder.",
    )
    parser.add_argument("source", type=Path, metavar="FILE")
    place.add_arguments(parser)
    parser.add_argument(
        "--force", action="store_true", help="move what is in the state folder into another in it"
    )
    parser.add_argument(
        "--no-pending",
        action="store_true",
        help="do not send what was still to be delivered then: it becomes expired",
    )
    parser.add_argument(
        "--write-config", type=Path, metavar="FILE", help="write the configuration of then to this new file"
    )
    arguments = parser.parse_args(argv)
    try:
        state = place.state_dir(arguments)
        restored = archive.restore(
            arguments.source,
            state,
            _stamp(time.time_ns() // 1000),
            force=arguments.force,
            pending=not arguments.no_pending,
            configuration=arguments.write_config,
        )
    except (ArchiveError, StoreError, config_reader.ConfigErrors) as error:
        return _failed("restore", error)
    if arguments.json:
        place.print_json(_restore_json(restored, state))
    else:
        print(_restore_text(restored, state))
    return 0


def _restore_text(restored: Restored, state: Path) -> str:
    facts = restored.facts
    when = "" if restored.made_at is None else f" as of {place.local(iso(restored.made_at))}"
    what = "The database" if restored.made_at is None else f"{restored.files} files"
    lines = [f"{what}{when} in {state}, owned by {_owner(state)}.", f"{_facts(facts)}."]
    if restored.aside is not None:
        lines.append(f"What was there is in {restored.aside}: delete it once all is well.")
    lines.append("Before you start the service:")
    notes = [
        "What happened since then is not known to it, and is not told to webhooks again.  Calls that were in "
        "progress then are closed as inferred."
    ]
    if restored.forgotten:
        notes.append(
            f"{restored.forgotten:,} deliveries that were pending then are expired.  `cubehook redeliver` "
            "can send them still."
        )
    elif facts.pending:
        notes.append(
            f"{facts.pending:,} deliveries that were pending then are sent, also those that arrived since: "
            "receivers know them by their webhook-id.  With --no-pending they are not."
        )
    notes.append(
        "Tokens, signing secrets, cubes and webhooks are those of then: one that was removed or changed "
        "since is as it was."
    )
    if restored.migrates:
        notes.append(f"Its schema is {facts.revision}: the start migrates it, after another copy.")
    return "\n".join([*lines, *(f"- {note}" for note in notes)])


def _restore_json(restored: Restored, state: Path) -> dict[str, Any]:
    return {
        "state_dir": str(state),
        "made_at": None if restored.made_at is None else iso(restored.made_at),
        "cubehook": restored.cubehook,
        "files": restored.files,
        "aside": None if restored.aside is None else str(restored.aside),
        "expired": restored.forgotten,
        "migrates": restored.migrates,
        **_facts_json(restored.facts),
    }


def _facts(facts: Facts) -> str:
    last = (
        "no event" if facts.last_event_at is None else f"the last at {place.local(iso(facts.last_event_at))}"
    )
    return (
        f"{facts.calls:,} calls, {facts.events:,} events ({last}), {facts.deliveries:,} deliveries, "
        f"{facts.pending:,} of them pending; schema {facts.revision}"
    )


def _facts_json(facts: Facts) -> dict[str, Any]:
    return {
        "schema": facts.revision,
        "calls": facts.calls,
        "events": facts.events,
        "deliveries": facts.deliveries,
        "pending": facts.pending,
        "last_event_at": None if facts.last_event_at is None else iso(facts.last_event_at),
    }


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        return f"user {folder.stat().st_uid}"


def _stamp(now: int) -> str:
    return iso(now)[:19].replace("-", "").replace(":", "") + "Z"


def _failed(name: str, error: Exception) -> int:
    lines = "\n".join(printable(line, 2000) for line in str(error).splitlines())
    print(f"cubehook {name}: {lines}", file=sys.stderr)
    return 1
