"""What is shown in a terminal: tables and details fitted to its width, in colour where it has it."""

from __future__ import annotations

import enum
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cubehook.text import printable

_GAP = "  "

_READABLE = 16
"""Cells that a column which is cut keeps while others can be spared."""

_LEAST = 6
"""Cells that it keeps whatever comes."""

_LONGEST_VALUE = 2_000
"""Characters of one value among details."""


class Style(enum.StrEnum):
    """What a text is, as the number of a terminal's colour."""

    GOOD = "32"
    BAD = "1;31"
    WARN = "33"
    DIM = "2"
    BOLD = "1"
    PROMPT = "1;36"


class Screen:
    """A terminal's size, and whether it has colours.  Mutable: people resize theirs."""

    def __init__(self, width: int = 80, height: int = 24, *, colour: bool = False) -> None:
        self.colour = colour
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Have this size; what cannot be one, such as the 0 of terminals that do not know, is 80 by 24."""
        self.width = min(width, 1_000) if width > 0 else 80
        self.height = min(height, 1_000) if height > 0 else 24

    def paint(self, text: str, style: Style | None) -> str:
        """`text` in the style's colour, if there are colours."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and style is not None and text else text


class Painted(str):
    """Text that is fit for a terminal as it is, its colours included."""

    __slots__ = ()


class Cell(NamedTuple):
    """A text in a table, with its style."""

    text: str
    style: Style | None = None


class Column(NamedTuple):
    """
    A column of a table.

    One with `cut` is made narrower where the table is too wide; then those with the greatest `spare` are
    left out first, those with 0 never.
    """

    title: str
    right: bool = False
    cut: bool = False
    spare: int = 0


def cells(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    return len(text) if text.isascii() else sum(map(cell, text))


def cell(character: str) -> int:
    """How many cells one printable character takes: 0, 1 or 2."""
    if character.isascii():
        return 1
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """`text`, its end replaced by an ellipsis if it takes more than `width` cells."""
    if cells(text) <= width:
        return text
    kept, taken = [], 1
    for character in text:
        taken += cell(character)
        if taken > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def table(screen: Screen, columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> Painted:
    """These rows under their columns' titles, fitted to the screen's width."""
    shown = [[_cell(each) for each in row] for row in rows]
    widths = [
        max(cells(column.title), *(cells(row[number].text) for row in shown), 0)
        for number, column in enumerate(columns)
    ]
    kept = _fit(columns, widths, screen.width)
    lines = [[Cell(column.title, Style.BOLD) for column in columns], *shown]
    return Painted("\n".join(_line(screen, line, columns, widths, kept) for line in lines))


def _cell(value: str | Cell) -> Cell:
    text, style = value if isinstance(value, Cell) else (value, None)
    return Cell(printable(text), style)


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Make `widths` fit together; the numbers of the columns that stay."""
    kept = list(range(len(columns)))
    whole = list(widths)
    while True:
        widths[:] = whole
        spare = [number for number in kept if columns[number].spare]
        least = _READABLE if spare else _LEAST
        over = sum(widths[number] for number in kept) + len(_GAP) * (len(kept) - 1) - width
        while over > 0:
            cuttable = [number for number in kept if columns[number].cut and widths[number] > least]
            if not cuttable:
                break
            widest = max(cuttable, key=lambda number: widths[number])
            widths[widest] -= 1
            over -= 1
        if over <= 0 or not spare:
            return kept
        kept.remove(max(spare, key=lambda number: columns[number].spare))


def _line(
    screen: Screen,
    line: Sequence[Cell],
    columns: Sequence[Column],
    widths: Sequence[int],
    kept: Sequence[int],
) -> str:
    parts = []
    for number in kept:
        text = shortened(line[number].text, widths[number])
        space = " " * (widths[number] - cells(text))
        painted = screen.paint(text, line[number].style)
        parts.append(space + painted if columns[number].right else painted + space)
    return _GAP.join(parts).rstrip()


def details(screen: Screen, pairs: Iterable[tuple[str, str | Cell]]) -> Painted:
    """Names with their values, one below the other; long values go on under themselves."""
    shown = [(name, value if isinstance(value, Cell) else Cell(value)) for name, value in pairs]
    indent = max((cells(name) for name, _ in shown), default=0) + len(_GAP)
    lines = []
    for name, (text, style) in shown:
        parts = [
            part
            for line in text[:_LONGEST_VALUE].split("\n")
            for part in textwrap.wrap(
                printable(line, _LONGEST_VALUE),
                max(screen.width - indent, 20),
                break_on_hyphens=False,
            )
            or [""]
        ]
        head = screen.paint(name, Style.BOLD) + " " * (indent - cells(name))
        for part in parts:
            lines.append((head + screen.paint(part.rstrip(), style)).rstrip())
            head = " " * indent
    return Painted("\n".join(lines))


def columns_of(screen: Screen, names: Sequence[str]) -> str:
    """Names side by side, as many columns as fit, read downwards."""
    widest = max(map(cells, names), default=0) + len(_GAP)
    count = max(1, (screen.width + len(_GAP)) // widest)
    height = -(-len(names) // count)
    lines = []
    for row in range(height):
        parts = names[row::height]
        lines.append("".join(part + " " * (widest - cells(part)) for part in parts).rstrip())
    return "\n".join(lines)
