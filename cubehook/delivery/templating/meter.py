"""
What rendering may cost: it happens in the reactor's thread.

Every loop pays in advance for what it will do, each value for its size; what has spent `BUDGET` is stopped.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from cubehook.delivery.templating.errors import TemplateError

T = TypeVar("T")

MAX_SOURCE: Final = 16_384
"""Characters of a template."""
MAX_TEXT: Final = 65_536
"""Characters of a value that a template makes."""
MAX_OUTPUT: Final = 262_144
"""Characters of what a template renders."""
BUDGET: Final = 100_000
"""What rendering may cost: about one for each thing done, and one for each 64 characters handled."""
MAX_PARTS: Final = 20_000
"""Values inside a value, at all depths: without it, lists of lists would double with each line."""

METER: Final = " meter"
"""Where a template's variables hold it: no name that a template could write."""


class Meter:
    """What may still be spent on one rendering."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = BUDGET

    def spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise TemplateError("less work: its loops and values cost more than one payload may")

    def weigh(self, value: T) -> T:
        """`value`, paid for by its size."""
        self.spend(weight(value))
        return value


def weight(value: Any) -> int:
    """What it costs to handle `value` once; TemplateError if it is larger than any value may be."""
    parts, cost, todo = 0, 0, [value]
    while todo:
        each = todo.pop()
        parts += 1
        cost += 1
        match each:
            case str():
                if len(each) > MAX_TEXT:
                    raise TemplateError(f"texts of at most {MAX_TEXT:,} characters")
                cost += len(each) >> 6
            case list() | tuple():
                todo += each
            case dict():
                todo += each
                todo += each.values()
        if parts + len(todo) > MAX_PARTS:
            raise TemplateError(f"values of at most {MAX_PARTS:,} parts")
    return cost


def no_longer_than(length: int) -> None:
    """TemplateError if a text of `length` would be too long: asked before it is made."""
    if length > MAX_TEXT:
        raise TemplateError(f"texts of at most {MAX_TEXT:,} characters")
