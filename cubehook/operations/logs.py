"""
Log files: `cubehook.log` (the service), `events.log` (events and attempts), `access.log` (HTTP).

All go through `twisted.logger` to files rotated by size.  The service's log hangs on the global
publisher; the other two have observers of their own, so that thousands of lines a second neither
drown it nor pay for its formatting.  The level of their namespaces, `cubehook.events` and
`cubehook.access`, turns them off.

Received text is data here: a line is made from fixed templates, control characters in it are
escaped, and nothing received is ever used as a format.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from cubehook.config import Log, Webhook
from cubehook.events import Event, Micros, Notice, iso
from cubehook.net.site import LimitedRequest
from cubehook.records import Attempt, Delivery
from cubehook.text import printable

FLUSH_SECONDS = 0.25
"""How long a line of events.log or access.log may wait in memory for others to be written with."""

FLUSH_BYTES = 1 << 16

_NEWLINE = ord("\n")

_json = msgspec.json.Encoder(enc_hook=str)


def _json_text(**record: object) -> str:
    try:
        return _json.encode(record).decode() + "\n"
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(record, default=str) + "\n"


@lru_cache(maxsize=256)
def _shown(method: bytes, uri: bytes) -> tuple[str, str]:
    """A request's method and path as text; a gateway's are the same thousands of times a second."""
    return printable(method.decode("latin-1"), 20), printable(uri.decode("latin-1"), 500)


class RotatedFile:
    """
    A text file rotated by size, written in groups of lines.

    Lines wait at most `FLUSH_SECONDS`; `write_now` writes at once.  The file grows past `rotate_bytes`
    only by a line that alone is longer; `keep` files set aside stay beside it, `.1` the newest.  A file
    that somebody took away is begun again.  While it cannot be written, lines are lost and nothing else.
    """

    _log = Logger()

    def __init__(self, path: Path, rotate_bytes: int, keep: int, reactor: IReactorTime) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._reactor = reactor
        self._lines: list[str] = []
        self._waiting = 0
        self._full = min(FLUSH_BYTES, rotate_bytes)
        self._timer: IDelayedCall | None = None
        self._torn = False
        self._lost = 0
        self._file = self._open()

    def write(self, line: str) -> None:
        """Write `line`, which ends in a newline, soon."""
        self._waiting += len(line)
        if self._waiting > self._full:
            self.flush()
            self._waiting = len(line)
        self._lines.append(line)
        if self._timer is None:
            self._timer = self._reactor.callLater(FLUSH_SECONDS, self.flush)

    def write_now(self, line: str) -> None:
        """Write `line`, and what waits before it."""
        self.write(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if not self._lines:
            return
        count = len(self._lines)
        # Text from the operating system may hold halves of surrogate pairs.
        data = "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        self._waiting = 0
        try:
            self._append(data)
        except OSError as error:
            self._lost += count
            if self._lost == count:
                self._log.error(
                    "{path} cannot be written: {reason}; its lines are lost until it can",
                    path=str(self._path),
                    reason=error.strerror,
                )
        else:
            if self._lost:
                lost, self._lost = self._lost, 0
                self._log.warn(
                    "{path} is written again; {lost} of its lines are lost", path=str(self._path), lost=lost
                )

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        self._file.close()

    def rotate_at(self, rotate_bytes: int, keep: int) -> None:
        """Rotate at this size from now on, and keep so many files."""
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._full = min(FLUSH_BYTES, rotate_bytes)

    def reopen(self) -> None:
        """Let go of a file that was moved away, also if nothing is to be written."""
        self.flush()
        try:
            self._reopen()
        except OSError as error:
            self._log.error(
                "{path} cannot be opened again: {reason}; the file that was open is written on",
                path=str(self._path),
                reason=error.strerror,
            )

    def _open(self) -> FileIO:
        # Appending, so that a second process with the same folder by mistake overwrites nothing.
        file = FileIO(self._path, "a", opener=lambda path, flags: os.open(path, flags, 0o640))
        status = os.fstat(file.fileno())
        self._size = status.st_size
        self._identity = (status.st_dev, status.st_ino)
        return file

    def _append(self, data: bytes) -> None:
        if not self._is_there():
            self._reopen()
        elif self._size and self._size + len(data) > self._rotate_bytes:
            # What is open can still be written if this fails.
            with suppress(OSError):
                self._set_aside()
                self._reopen()
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            # A disk that fills up takes a part of it first.
            written = self._file.write(rest)
            self._size += written
            self._torn = rest[written - 1] != _NEWLINE
            rest = rest[written:]

    def _reopen(self) -> None:
        # The folder may have been taken away as well.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        opened = self._open()
        self._file.close()
        self._file = opened
        self._torn = False

    def _is_there(self) -> bool:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _set_aside(self) -> None:
        name = re.compile(re.escape(self._path.name) + r"\.([1-9][0-9]*)", re.ASCII).fullmatch
        found = (name(entry) for entry in os.listdir(self._path.parent))
        for number in sorted((int(match[1]) for match in found if match), reverse=True):
            if number >= self._keep:
                self._numbered(number).unlink()
            else:
                self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _text_line(event: LogEvent) -> str:
    when = iso(int(event["log_time"] * 1_000_000))
    level = event.get("log_level")
    line = f"{when} {level.name if level else '-'} {event.get('log_namespace', '-')}: "
    line += printable(formatEvent(event), 4000) + "\n"
    failure = event.get("log_failure")
    if failure is not None:
        line += "".join(f"    {printable(part, 1000)}\n" for part in failure.getTraceback().splitlines())
    return line


def _json_line(event: LogEvent) -> str:
    record: dict[str, Any] = {
        "time": iso(int(event["log_time"] * 1_000_000)),
        "level": getattr(event.get("log_level"), "name", None),
        "namespace": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    for key, value in event.items():
        if not key.startswith("log_") and isinstance(value, str | int | float | bool | None):
            # What an event calls its own never takes the place of these.
            record.setdefault(key, value)
    failure = event.get("log_failure")
    if failure is not None:
        record["traceback"] = failure.getTraceback()
    return _json_text(**record)


@implementer(ILogObserver)
class _FileObserver:
    """Writes each event at once as a line."""

    def __init__(self, file: RotatedFile, line: Callable[[LogEvent], str]) -> None:
        self._file = file
        self._line = line

    def __call__(self, event: LogEvent) -> None:
        self._file.write_now(self._line(event))


@implementer(ILogObserver)
class _LineObserver:
    """Writes events whose `line` was rendered by `Logs` already."""

    def __init__(self, file: RotatedFile) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        self._file.write(event["line"])


def level_predicate(settings: Log) -> LogLevelFilterPredicate:
    """Which service messages are written: the level, and those of single namespaces."""
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(settings.level))
    # It tells of every step of every visitor's; the manhole itself says who came and what was typed.
    predicate.setLogLevelForNamespace("twisted.conch", LogLevel.warn)
    for namespace, level in settings.levels.items():
        predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))
    return predicate


class Logs:
    """
    The three log files under `folder`.

    `open` creates them; `close` writes what waits and takes the observer off the publisher.  `predicate`
    tells which of the service's messages are written.
    """

    def __init__(self, folder: Path, settings: Log, reactor: IReactorTime, now: Callable[[], Micros]) -> None:
        self._folder = folder
        self._settings = settings
        self._reactor = reactor
        self._now = now
        self._as_json = settings.format == "json"
        self.predicate = level_predicate(settings)
        self._files: dict[str, RotatedFile] = {}
        self._observer: ILogObserver | None = None
        self._events: Logger | None = None
        self._access: Logger | None = None

    def open(self) -> None:
        """Create the folder and the files; OSError if that cannot be done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in ("cubehook", "events", "access"):
            self._files[name] = RotatedFile(
                self._folder / f"{name}.log", self._settings.rotate_bytes, self._settings.keep, self._reactor
            )
        self._observe()

    def _observe(self) -> None:
        """Write to the files what the settings say."""
        before, self._observer = (
            self._observer,
            FilteringLogObserver(
                _FileObserver(self._files["cubehook"], _json_line if self._as_json else _text_line),
                [self.predicate],
            ),
        )
        globalLogPublisher.addObserver(self._observer)
        if before is not None:
            globalLogPublisher.removeObserver(before)
        self._events = self._lines("cubehook.events")
        self._access = self._lines("cubehook.access")

    def change(self, settings: Log) -> None:
        """Log as `settings` say from now on; levels that were set otherwise meanwhile are forgotten."""
        self._settings = settings
        self._as_json = settings.format == "json"
        self.predicate = level_predicate(settings)
        for file in self._files.values():
            file.rotate_at(settings.rotate_bytes, settings.keep)
        if self._observer is not None:
            self._observe()

    def reopen(self) -> None:
        """Let go of files that were moved away, by logrotate for instance."""
        for file in self._files.values():
            file.reopen()

    def _lines(self, namespace: str) -> Logger | None:
        file = self._files[namespace.removeprefix("cubehook.")]
        if self.predicate.logLevelForNamespace(namespace) > LogLevel.info:
            return None
        return Logger(namespace, observer=_LineObserver(file))

    def close(self) -> None:
        """Write what waits and let go of the files; safe to call twice."""
        if self._observer is not None:
            globalLogPublisher.removeObserver(self._observer)
            self._observer = None
        self._events = self._access = None
        for file in self._files.values():
            file.close()
        self._files.clear()

    def access(self, request: LimitedRequest) -> None:
        """Log a finished HTTP request."""
        log = self._access
        if log is None:
            return
        now = self._now()
        peer = getattr(request.client, "host", None) or "-"
        method, path = _shown(request.method, request.uri)
        # A clock that was set back makes no negative times.
        took = max(0, now - request.received_at) / 1000
        if self._as_json:
            line = _json_text(
                time=iso(now),
                address=peer,
                method=method,
                path=path,
                status=request.code,
                bytes=request.sentLength,
                ms=round(took, 1),
            )
        else:
            line = f'{iso(now)} {peer} "{method} {path}" {request.code} {request.sentLength} {took:.1f}ms\n'
        log.info("{line}", line=line)

    def event(self, event: Event) -> None:
        """Log an event, once, when it happens."""
        log = self._events
        if log is None:
            return
        call = event.payload
        if isinstance(call, Notice):
            log.info("{line}", line=self._notice(call))
            return
        if self._as_json:
            line = _json_text(
                time=call.timestamp,
                kind="event",
                event_id=call.event_id,
                cube=call.cube,
                granularity=event.granularity,
                state=call.call_state,
                calling=call.calling_number,
                called=call.called_number,
                outcome=call.outcome,
                cause=call.disconnect_cause,
                inferred=call.inferred,
            )
        else:
            calling = printable(call.calling_number or "-", 80)
            called = printable(call.called_number or "-", 80)
            outcome = f" {call.outcome}" if call.outcome else ""
            inferred = " (inferred)" if call.inferred else ""
            line = (
                f"{call.timestamp} event {call.event_id} {call.cube} {call.call_state} "
                f"{calling} -> {called}{outcome}{inferred}\n"
            )
        log.info("{line}", line=line)

    def _notice(self, notice: Notice) -> str:
        if self._as_json:
            return _json_text(
                time=notice.timestamp,
                kind="notice",
                event_id=notice.event_id,
                type=notice.type,
                **{f"data_{name}": value for name, value in notice.data.items()},
            )
        told = " ".join(f"{name}={printable(str(value), 300)}" for name, value in notice.data.items())
        return f"{notice.timestamp} notice {notice.event_id} {notice.type} {told}\n"

    def expired(self, webhook: Webhook, delivery: Delivery, at: Micros) -> None:
        """Log that a delivery is over because its event is worth nothing any more."""
        log = self._events
        if log is None:
            return
        event_id = delivery.event.payload.event_id
        if self._as_json:
            line = _json_text(
                time=iso(at),
                kind="expired",
                event_id=event_id,
                webhook=webhook.id,
                attempts=delivery.attempts,
                happened=iso(delivery.event.at),
            )
        else:
            line = (
                f"{iso(at)} expired {event_id} -> {webhook.id} after {delivery.attempts} attempts, "
                f"happened {iso(delivery.event.at)}\n"
            )
        log.info("{line}", line=line)

    def attempt(self, webhook: Webhook, delivery: Delivery, attempt: Attempt) -> None:
        """Log one attempt of a delivery."""
        log = self._events
        if log is None:
            return
        took = round(attempt.duration / 1000, 1)
        event_id = delivery.event.payload.event_id
        at = iso(attempt.started_at)
        if self._as_json:
            line = _json_text(
                time=at,
                kind="attempt",
                event_id=event_id,
                webhook=webhook.id,
                number=attempt.number,
                delivered=attempt.delivered,
                delivery_status=delivery.status,
                status=attempt.status,
                error_class=attempt.error_class,
                error=attempt.error,
                note=attempt.note,
                ms=took,
            )
        else:
            said = f" {attempt.status}" if attempt.status is not None else ""
            why = (
                "" if attempt.delivered else f" {attempt.error_class}: {printable(attempt.error or '', 300)}"
            )
            note = "" if attempt.note is None else f" [{printable(attempt.note, 300)}]"
            line = (
                f"{at} attempt {event_id} -> {webhook.id} #{attempt.number} "
                f"{'delivered' if attempt.delivered else 'not delivered'}{said} {took}ms{why}{note}\n"
            )
        log.info("{line}", line=line)
