"""
Log files: `cubehook.log` (the service), `events.log` (events and attempts), `access.log` (HTTP).

All go through `twisted.logger` to files rotated by size.  The service's log hangs on the global
publisher; the other two have publishers of their own, so that thousands of lines a second neither
drown it nor pay for its formatting.

Received text is data here: a line is made from fixed templates, control characters in it are
escaped, and nothing received is ever used as a format.
"""

from __future__ import annotations

from collections.abc import Callable
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
from twisted.python.logfile import LogFile
from zope.interface import implementer

from cubehook.config import Log, Webhook
from cubehook.events import Event, Micros, iso
from cubehook.net.site import LimitedRequest
from cubehook.records import Attempt, Delivery
from cubehook.text import printable

FLUSH_SECONDS = 0.25
"""How long a line of events.log or access.log may wait in memory for others to be written with."""

FLUSH_BYTES = 1 << 16

_json = msgspec.json.Encoder(enc_hook=str)


def _json_text(**record: object) -> str:
    return _json.encode(record).decode() + "\n"


class RotatedFile:
    """
    A text file rotated by size, written in groups of lines.

    Lines wait at most `FLUSH_SECONDS`; `write_now` writes at once.
    """

    def __init__(self, path: Path, rotate_bytes: int, keep: int, reactor: IReactorTime) -> None:
        self._file = LogFile(
            path.name, str(path.parent), rotateLength=rotate_bytes, maxRotatedFiles=keep, defaultMode=0o640
        )
        self._reactor = reactor
        self._lines: list[str] = []
        self._size = 0
        self._timer: IDelayedCall | None = None

    def write(self, line: str) -> None:
        """Write `line`, which ends in a newline, soon."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._reactor.callLater(FLUSH_SECONDS, self.flush)

    def write_now(self, line: str) -> None:
        """Write `line`, and what waits before it."""
        self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits.  A full disk loses log lines, never more than those."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if not self._lines:
            return
        text = "".join(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            self._file.write(text)
            self._file.flush()
        except OSError:
            # There is nowhere left to say it; the store's own trouble is told by its state.
            return

    def close(self) -> None:
        self.flush()
        self._file.close()


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
            record[key] = value
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
    for namespace, level in settings.levels.items():
        predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))
    return predicate


class Logs:
    """
    The three log files under `folder`.

    `open` creates them; `close` writes what waits and takes the observer off the publisher.
    """

    def __init__(self, folder: Path, settings: Log, reactor: IReactorTime, now: Callable[[], Micros]) -> None:
        self._folder = folder
        self._settings = settings
        self._reactor = reactor
        self._now = now
        self._as_json = settings.format == "json"
        self.predicate = level_predicate(settings)
        self._files: list[RotatedFile] = []
        self._observer: ILogObserver | None = None
        self._events: Logger | None = None
        self._access: Logger | None = None

    def open(self) -> None:
        """Create the folder and the files; OSError if that cannot be done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        service = self._file("cubehook.log")
        self._observer = FilteringLogObserver(
            _FileObserver(service, _json_line if self._as_json else _text_line), [self.predicate]
        )
        globalLogPublisher.addObserver(self._observer)
        self._events = self._lines("cubehook.events")
        self._access = self._lines("cubehook.access")

    def _file(self, name: str) -> RotatedFile:
        file = RotatedFile(
            self._folder / name, self._settings.rotate_bytes, self._settings.keep, self._reactor
        )
        self._files.append(file)
        return file

    def _lines(self, namespace: str) -> Logger | None:
        file = self._file(namespace.removeprefix("cubehook.") + ".log")
        if self.predicate.logLevelForNamespace(namespace) > LogLevel.info:
            return None
        return Logger(namespace, observer=_LineObserver(file))

    def close(self) -> None:
        """Write what waits and let go of the files; safe to call twice."""
        if self._observer is not None:
            globalLogPublisher.removeObserver(self._observer)
            self._observer = None
        self._events = self._access = None
        for file in self._files:
            file.close()
        self._files.clear()

    def access(self, request: LimitedRequest) -> None:
        """Log a finished HTTP request."""
        log = self._access
        if log is None:
            return
        now = self._now()
        address = request.getClientAddress()
        peer = getattr(address, "host", None) or "-"
        method = printable(request.method.decode("latin-1"), 20)
        path = printable(request.uri.decode("latin-1"), 500)
        took = round((now - request.received_at) / 1000, 1)
        if self._as_json:
            line = _json_text(
                time=iso(now),
                address=peer,
                method=method,
                path=path,
                status=request.code,
                bytes=request.sentLength,
                ms=took,
            )
        else:
            line = f'{iso(now)} {peer} "{method} {path}" {request.code} {request.sentLength} {took}ms\n'
        log.info("{line}", line=line)

    def event(self, event: Event) -> None:
        """Log an event, once, when it happens."""
        log = self._events
        if log is None:
            return
        call = event.payload
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
                ms=took,
            )
        else:
            said = f" {attempt.status}" if attempt.status is not None else ""
            why = (
                "" if attempt.delivered else f" {attempt.error_class}: {printable(attempt.error or '', 300)}"
            )
            line = (
                f"{at} attempt {event_id} -> {webhook.id} #{attempt.number} "
                f"{'delivered' if attempt.delivered else 'not delivered'}{said} {took}ms{why}\n"
            )
        log.info("{line}", line=line)
