"""What a check found, and all of it as lines for a person or values for a program.  Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from cubehook.text import printable

_TEXT = 1000
"""Characters of one sentence at most."""


class Level(enum.StrEnum):
    """How it stands: well, suspicious, wrong, or not looked at."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """
    One check's outcome, about `area` (`database`, `cube hq`), in a sentence.

    `advice` are steps to take.  `lines` are to be typed as they are: in a router's configuration mode, or
    into the configuration file, as the advice before them says.  What was received stands in them as it came.
    """

    area: str
    level: Level
    text: str
    advice: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def ok(area: str, text: str) -> Finding:
    """It is well."""
    return Finding(area, Level.OK, text)


def warning(area: str, text: str, *advice: str, lines: Sequence[str] = ()) -> Finding:
    """It may be meant so, or do no harm yet."""
    return Finding(area, Level.WARNING, text, advice, tuple(lines))


def failed(area: str, text: str, *advice: str, lines: Sequence[str] = ()) -> Finding:
    """It is wrong."""
    return Finding(area, Level.FAILED, text, advice, tuple(lines))


def skipped(area: str, text: str, *advice: str) -> Finding:
    """It could not be looked at, or need not be."""
    return Finding(area, Level.SKIPPED, text, advice)


_SIGNS = {Level.OK: "✓", Level.WARNING: "!", Level.FAILED: "✗", Level.SKIPPED: "-"}
_PLAIN_SIGNS = {Level.OK: "+", Level.WARNING: "!", Level.FAILED: "x", Level.SKIPPED: "-"}
_COLOURS = {
    Level.OK: "\x1b[32m",
    Level.WARNING: "\x1b[33m",
    Level.FAILED: "\x1b[31m",
    Level.SKIPPED: "\x1b[2m",
}


def rendered(
    findings: Sequence[Finding], *, unicode: bool, colour: Callable[[str, str], str]
) -> Iterable[str]:
    """
    Lines for a terminal: one for each finding, those for what to do below it, and a summary.

    `colour` is given a terminal's command and a text; with `unicode` the signs are not of ASCII.
    """
    signs = _SIGNS if unicode else _PLAIN_SIGNS
    width = max((len(finding.area) for finding in findings), default=0)
    margin = " " * (width + 4)
    for finding in findings:
        sign = colour(_COLOURS[finding.level], signs[finding.level])
        yield f"{sign} {printable(finding.area):{width}}  {printable(finding.text, _TEXT)}"
        for step in finding.advice:
            yield f"{margin}{printable(step, _TEXT)}"
        for line in finding.lines:
            yield f"{margin}    {printable(line, _TEXT)}"
    if findings:
        yield ""
    yield summary(findings)


def summary(findings: Iterable[Finding]) -> str:
    """How many of which, in a sentence."""
    levels = [finding.level for finding in findings]
    count = {level: levels.count(level) for level in Level}
    said = [
        f"{count[Level.OK]} well",
        counted(count[Level.WARNING], "warning"),
        f"{count[Level.FAILED]} wrong",
    ]
    if count[Level.SKIPPED]:
        said.append(f"{count[Level.SKIPPED]} not looked at")
    return ", ".join(said) + "."


def counted(number: int, name: str) -> str:
    """`1 cube`, `2 cubes`."""
    return f"{number} {name}" if number == 1 else f"{number:,} {name}s"


def as_builtins(findings: Sequence[Finding]) -> dict[str, Any]:
    """For JSON: all findings, how many there are of each level, and whether nothing is wrong."""
    levels = [finding.level for finding in findings]
    return {
        "ok": Level.FAILED not in levels,
        "summary": {level.value: levels.count(level) for level in Level},
        "findings": [msgspec.to_builtins(finding) for finding in findings],
    }
