"""
Wire traces: what a cube's gateway and we say to each other, as it is said, for some minutes.

Each message is written to `trace-CUBE.log` with its time, its direction and its HTTP head.  Lines that
begin at the margin are ours; whatever was received is indented and its control characters escaped, so that
nothing received can be taken for a line of ours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from cubehook.config import Log
from cubehook.events import Micros, iso
from cubehook.operations.logs import RotatedFile
from cubehook.text import printable

LONGEST = 24 * 60.0
"""Minutes that a trace may be asked to go on for: it is for looking into something, not for keeping."""

SHOWN = 2
"""Digits at the end of a masked number that stay, so that two calls can be told apart."""

_WHOLLY_MASKED = 3
"""Numbers of so many digits have none that could stay."""

_INDENT = "    "

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})

_WITHHELD = frozenset({"anonymous", "private", "restricted", "unavailable", "unknown", "withheld"})

_SENSITIVE = re.compile(
    # An element in whatever namespace, which is not closed if the message was cut off.
    r"(?P<tag><(?:[^<>\s/:]+:)?addr(?:\s[^<>]*)?>)(?P<addr>.*?)(?=</(?:[^<>\s/:]+:)?addr\s*>|\Z)"
    # A URI that stands elsewhere, as in the text of a fault, and a number that does.
    r"|\b(?P<scheme>sips?:|tel:)(?P<user>[^\s@<>\"';?]+)"
    r"|(?P<number>\+[0-9][0-9 ().-]{3,}[0-9])",
    re.DOTALL | re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?P<scheme>\s*(?:[A-Za-z0-9]+:)?)(?P<user>[^@]*)(?P<host>.*)", re.DOTALL)


class TraceError(Exception):
    """A trace cannot be made; the text tells why and what to do."""


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a cube's trace stands: it goes on until `until`, None if it is off.

    `messages` were written to `file` since it began.
    """

    cube: str
    until: Micros | None
    masked: bool
    messages: int
    file: Path


class Traces:
    """
    The traces that are on; `folder` is where their files go.

    `taps` are what the gateway's side looks at.
    """

    _log = Logger()

    def __init__(self, folder: Path, settings: Log, reactor: Any, now: Callable[[], Micros]) -> None:
        self._folder = folder
        self._settings = settings
        self._reactor = reactor
        self._now = now
        self._on: dict[str, FileTap] = {}
        self.taps: Mapping[str, FileTap] = MappingProxyType(self._on)

    def trace(self, cube: str, minutes: float, masked: bool = False) -> Tracing:
        """
        Trace a cube for so many minutes from now, whether or not it is being traced; 0 ends its trace.

        With `masked`, telephone numbers are written with all but their last two digits hidden.  Raises
        ValueError unless 0 <= `minutes` <= `LONGEST`, TraceError if the file cannot be written.
        """
        if not 0 <= minutes <= LONGEST:
            raise ValueError(f"a trace goes on for 0 to {LONGEST:g} minutes")
        if minutes == 0:
            tap = self._on.get(cube)
            self._end(cube, "it was asked to")
            return self.status(cube) if tap is None else tap.status()
        tap = self._on.get(cube)
        if tap is None:
            tap = self._on[cube] = self._open(cube)
        seconds = minutes * 60
        tap.go_on(self._now() + round(seconds * 1_000_000), masked)
        if tap.timer is not None:
            tap.timer.cancel()
        tap.timer = self._reactor.callLater(seconds, self._end, cube, "its time is over")
        self._log.warn(
            "Cube {cube} is traced until {until}: what it says and is told goes to {file}{masked}",
            cube=cube,
            until=iso(tap.until or 0),
            file=str(tap.path),
            masked=", numbers masked" if masked else ", numbers included",
        )
        return tap.status()

    def status(self, cube: str) -> Tracing:
        """How a cube's trace stands."""
        tap = self._on.get(cube)
        if tap is not None:
            return tap.status()
        return Tracing(cube=cube, until=None, masked=False, messages=0, file=self._path(cube))

    def running(self) -> list[Tracing]:
        """The traces that are on, by cube."""
        return [self._on[cube].status() for cube in sorted(self._on)]

    def change(self, settings: Log) -> None:
        """Rotate files as `settings` say from now on."""
        self._settings = settings
        for tap in self._on.values():
            tap.rotate_at(settings.rotate_bytes, settings.keep)

    def stop(self) -> None:
        """End them all."""
        for cube in list(self._on):
            self._end(cube, "the service stops")

    def _path(self, cube: str) -> Path:
        return self._folder / f"trace-{cube}.log"

    def _open(self, cube: str) -> FileTap:
        path = self._path(cube)
        try:
            file = RotatedFile(path, self._settings.rotate_bytes, self._settings.keep, self._reactor)
        except OSError as error:
            raise TraceError(
                f"{path} cannot be written ({error.strerror}): let the service's user write there"
            ) from None
        return FileTap(cube, path, file, self._now)

    def _end(self, cube: str, why: str) -> None:
        tap = self._on.pop(cube, None)
        if tap is None:
            return
        if tap.timer is not None and tap.timer.active():
            tap.timer.cancel()
        tap.close(why)
        self._log.info(
            "The trace of cube {cube} has ended, as {why}; it has {messages} messages in {file}",
            cube=cube,
            why=why,
            messages=tap.messages,
            file=str(tap.path),
        )


class FileTap:
    """One cube's trace; see `cubehook.xcc.tracing.Tap`."""

    _log = Logger()

    def __init__(self, cube: str, path: Path, file: RotatedFile, now: Callable[[], Micros]) -> None:
        self.cube = cube
        self.path = path
        self.until: Micros | None = None
        self.masked = False
        self.messages = 0
        self.timer: IDelayedCall | None = None
        self._file = file
        self._now = now
        self._exchanges = 0
        self._asked_at: dict[int, Micros] = {}
        self._broken = False

    def status(self) -> Tracing:
        return Tracing(
            cube=self.cube, until=self.until, masked=self.masked, messages=self.messages, file=self.path
        )

    def go_on(self, until: Micros, masked: bool) -> None:
        """Be on until then, or until closed."""
        begins = "begins" if self.until is None else "goes on"
        self.until, self.masked = until, masked
        numbers = "; numbers are masked" if masked else ""
        self._file.write_now(
            f"{iso(self._now())} trace of cube {self.cube} {begins}, until {iso(until)}{numbers}\n"
        )

    def rotate_at(self, rotate_bytes: int, keep: int) -> None:
        """See `cubehook.operations.logs.RotatedFile`."""
        self._file.rotate_at(rotate_bytes, keep)

    def close(self, why: str) -> None:
        """Write nothing more."""
        self.until = None
        self._file.write(f"{iso(self._now())} trace of cube {self.cube} ends, as {why}\n")
        self._file.close()

    def received(self, peer: str, head: Sequence[str], body: bytes | None, at: Micros) -> int:
        return self._begin(f"{peer} -> cubehook", head, body, at)

    def answered(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        self._finish(exchange, f"cubehook -> {peer}", head, body)

    def sent(self, peer: str, head: Sequence[str], body: bytes) -> int:
        return self._begin(f"cubehook -> {peer}", head, body, self._now())

    def heard(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        self._finish(exchange, f"{peer} -> cubehook", head, body)

    def failed(self, exchange: int, words: str) -> None:
        began = self._asked_at.pop(exchange, None)
        self._write(
            f"#{exchange} no answer{self._after(began, self._now())}: {printable(words)}", self._now()
        )

    def _begin(self, way: str, head: Sequence[str], body: bytes | None, at: Micros) -> int:
        self._exchanges = exchange = self._exchanges + 1
        self._asked_at[exchange] = at
        self._message(f"#{exchange} {way}", head, body, at)
        return exchange

    def _finish(self, exchange: int, way: str, head: Sequence[str], body: bytes) -> None:
        at = self._now()
        began = self._asked_at.pop(exchange, None)
        self._message(f"#{exchange} {way}{self._after(began, at)}", head, body, at)

    def _after(self, began: Micros | None, at: Micros) -> str:
        return "" if began is None else f" after {max(0, at - began) / 1000:.1f} ms"

    def _message(self, title: str, head: Sequence[str], body: bytes | None, at: Micros) -> None:
        self.messages += 1
        try:
            lines = [_fit(_discreet(line)) for line in head]
            if body is None:
                lines += ["", "(a body that is longer than any that is taken, and was not kept)"]
            elif body:
                lines += ["", *_body_lines(body, self.masked)]
        except Exception:
            self._log.failure("A message of cube {cube} could not be traced", cube=self.cube)
            lines = ["(could not be written: see cubehook.log)"]
        self._write(title, at, lines)

    def _write(self, title: str, at: Micros, lines: Sequence[str] = ()) -> None:
        # An answer may still come when the trace is over.
        if self.until is not None:
            text = "".join(f"{_INDENT}{line}".rstrip() + "\n" for line in lines)
            self._file.write(f"{iso(at)} {printable(title, 500)}\n{text}")


def _fit(line: str) -> str:
    return printable(line, len(line))


def _discreet(line: str) -> str:
    """A line of a head, without what lets somebody in."""
    name, colon, _ = line.partition(":")
    return f"{name}: ***" if colon and name.strip().lower() in _SECRET_HEADERS else line


def _body_lines(body: bytes, masked: bool) -> list[str]:
    text = _decoded(body)
    if text is None:
        if masked:
            # Numbers cannot be found in what cannot be read.
            return [f"({len(body)} bytes that are no text)"]
        text = body.decode("utf-8", "backslashreplace")
    if masked:
        text = masked_numbers(text)
    return [_fit(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n")]


def _decoded(body: bytes) -> str | None:
    """`body` as the XML parser would read it, None if that is no text."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in body[:2]:
        encoding = "utf-16-be" if body[0] == 0 else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        return None


def masked_numbers(text: str) -> str:
    """
    A message with telephone numbers hidden up to their last digits: what is in `addr` elements, and what
    looks like a number or a caller's URI anywhere.
    """
    return _SENSITIVE.sub(_replacement, text)


def _replacement(found: re.Match[str]) -> str:
    if found["tag"] is not None:
        # Characters may be written as references.
        parts = _ADDRESS.fullmatch(html.unescape(found["addr"]))
        assert parts is not None  # it matches everything
        address = parts["scheme"] + _masked(parts["user"]) + parts["host"]
        return found["tag"] + html.escape(address, quote=False)
    if found["number"] is not None:
        return _masked(found["number"])
    return found["scheme"] + _masked(found["user"])


def _masked(text: str) -> str:
    """A number, or a name that stands for one, with only the last characters shown."""
    if text.strip().lower() in _WITHHELD:
        return text
    letters = sum(character.isalnum() for character in text)
    hidden = letters if letters <= _WHOLLY_MASKED else letters - SHOWN
    masked = []
    for character in text:
        if character.isalnum() and hidden:
            hidden -= 1
            character = "*"
        masked.append(character)
    return "".join(masked)
