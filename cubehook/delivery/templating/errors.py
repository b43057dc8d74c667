"""What is wrong with a template, in words for its author."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from cubehook.text import printable


class TemplateError(Exception):
    """
    Something in a template is wrong: `expected` tells what should be there, `line` and `column` where.

    Both are None if that is not known.  No part repeats what the template says, which may hold secrets, but
    for names.
    """

    def __init__(self, expected: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(expected, line, column)
        self.expected = expected
        self.line = line
        self.column = column

    @property
    def where(self) -> str:
        """Such as `line 3, column 7`; empty if nothing is known."""
        column = "" if self.column is None else f", column {self.column}"
        return "" if self.line is None else f"line {self.line}{column}"

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}" if self.where else f"expected {self.expected}"


class TemplateErrors(Exception):  # noqa: N818 - it is many
    """Everything that is wrong with a template, in the order of its lines."""

    def __init__(self, errors: Sequence[TemplateError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


def perhaps(name: str, known: Sequence[str]) -> str:
    """The one of `known` that `name` may have been meant for, for the end of a phrase."""
    close = difflib.get_close_matches(name[:60], known, n=1)
    return f", perhaps {close[0]}" if close else ""


def shown(name: str) -> str:
    """A name that a template or a caller wrote, fit for an error."""
    return printable(name, 60)
