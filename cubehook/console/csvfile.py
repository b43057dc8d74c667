"""
Tables as CSV (RFC 4180) that a spreadsheet may open.

What comes from outside could begin like a formula; it is made a text, as OWASP's "CSV Injection" has it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Cell: TypeAlias = str | int | float | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, full-width forms too."""


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """
    `rows` below `header`, in UTF-8 with the mark by which spreadsheets know it.

    A text that begins like a formula, such as `+12512501663`, has an apostrophe in front.  None is empty.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([_plain(name) for name in header])
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return b"\xef\xbb\xbf" + file.getvalue().encode()


def _plain(cell: Cell) -> Cell:
    if isinstance(cell, str):
        # Some leave out white space in front before they look.
        return f"'{cell}" if cell.startswith(_FORMULA) or cell.lstrip().startswith(_FORMULA) else cell
    return "" if cell is None else cell
