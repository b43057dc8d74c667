"""JSON as it is being written: where values stand in it, and what is wrong with it in the end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NoReturn

from cubehook.delivery.templating.errors import TemplateError, shown
from cubehook.delivery.templating.filters import encoded, text_of
from cubehook.delivery.templating.meter import MAX_OUTPUT

_IN_TEXT: Final = re.compile(r'(?:[^"\\]+|\\.)*', re.DOTALL)
_OUTSIDE, _INSIDE, _ESCAPING = range(3)

_MAX_NESTING: Final = 100
_TOO_DEEP: Final = "JSON that is not nested so deeply"
_NO_COMMA: Final = "JSON: no comma after the last of a list or object"

# What Python's parser says, and what it should have found instead.
_EXPECTED: Final = {
    "Expecting ',' delimiter": "JSON: a comma, or the end of the list or object",
    "Expecting ':' delimiter": "JSON: a colon after the key",
    "Expecting property name enclosed in double quotes": "JSON: a key in double quotes",
    "Illegal trailing comma before end of object": _NO_COMMA,
    "Illegal trailing comma before end of array": _NO_COMMA,
    "Expecting value": "JSON: a value",
    "Extra data": "JSON: nothing after its end",
    "Invalid control character": r"JSON: \n for a line break inside a text, \t for a tab",
    "Invalid \\escape": "JSON: no such backslash; one itself is written twice",
    "Invalid \\uXXXX escape": r"JSON: four hexadecimal digits after \u",
    "Unterminated string starting": "JSON: the end of the text that begins here",
}
_LAST_COMMA: Final = re.compile(r",\s*\Z")


@dataclass(frozen=True, slots=True)
class _Span:
    """Whence a part comes: the line of the template, and its text if it is the template's own."""

    start: int
    line: int
    text: str | None


class Draft:
    """JSON in the making, from a template's own texts and from values."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._spans: list[_Span] = []
        self._length = 0
        self._state = _OUTSIDE

    def add_text(self, text: str, line: int) -> None:
        """Add what the template itself says at `line`."""
        self._add(text, line, text)
        self._state = after(text, self._state)

    def add_value(self, value: Any, line: int) -> None:
        """
        Add a value: a part of the text that is open, a value of its own if none is.

        Raises TemplateError if JSON has no such value, or it cannot stand there.
        """
        if self._state == _ESCAPING:
            raise TemplateError("no backslash before a value", line)
        try:
            text = encoded(text_of(value))[1:-1] if self._state == _INSIDE else encoded(value)
        except TemplateError as error:
            raise TemplateError(error.expected, line) from None
        self._add(text, line, None)

    def _add(self, text: str, line: int, own: str | None) -> None:
        self._spans.append(_Span(self._length, line, own))
        self._parts.append(text)
        self._length += len(text)
        if self._length > MAX_OUTPUT:
            raise TemplateError(f"a payload of at most {MAX_OUTPUT:,} characters", line)

    def parsed(self, source: Sequence[str]) -> Any:
        """
        What the JSON says; `source` are the template's lines, to find the column of an error in.

        Raises TemplateError if it is no JSON, or has a key twice.
        """
        text = "".join(self._parts)
        try:
            value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            if not text.strip():
                raise TemplateError("JSON, and not nothing") from None
            raise self._not_json(error, text, source) from None
        except RecursionError:
            raise TemplateError(_TOO_DEEP) from None
        except ValueError:  # a number of thousands of digits
            raise TemplateError("numbers of fewer digits") from None
        if _is_deep(value):
            raise TemplateError(_TOO_DEEP)
        return value

    def _not_json(self, error: json.JSONDecodeError, text: str, source: Sequence[str]) -> TemplateError:
        at, message = error.pos, error.msg.partition(" at")[0].removesuffix(":")
        expected = _EXPECTED.get(message, "JSON")
        comma = _LAST_COMMA.search(text, 0, at)
        if comma is not None and text[at : at + 1] in ("]", "}"):
            # Before 3.13 Python tells of the bracket, and then of the comma.
            at, expected = comma.start(), _NO_COMMA
        span = next(each for each in reversed(self._spans) if each.start <= at)
        if span.text is None:
            return TemplateError(expected, span.line)
        before = span.text[: at - span.start]
        return TemplateError(expected, span.line + before.count("\n"), _column(span, before, source))


def _column(span: _Span, before: str, source: Sequence[str]) -> int | None:
    """The column where `before`, the beginning of the span's text, ends; None if it cannot be told."""
    assert span.text is not None
    _, newline, rest = before.rpartition("\n")
    if newline:
        return len(rest) + 1
    # It begins somewhere in its line, behind values or tags.
    first = span.text.partition("\n")[0]
    line = source[span.line - 1] if span.line <= len(source) else ""
    return line.index(first) + len(rest) + 1 if first and line.count(first) == 1 else None


def after(text: str, state: int) -> int:
    """Where JSON stands after `text`: outside of its texts, inside of one, or there after a backslash."""
    at = 0
    if state == _ESCAPING and text:
        at, state = 1, _INSIDE
    while at < len(text):
        if state == _OUTSIDE:
            quote = text.find('"', at)
            if quote < 0:
                break
            at, state = quote + 1, _INSIDE
        else:
            found = _IN_TEXT.match(text, at)
            assert found is not None
            at = found.end()
            if at < len(text):
                state = _OUTSIDE if text[at] == '"' else _ESCAPING
                at += 1
    return state


def _is_deep(value: Any) -> bool:
    """Whether `value` is nested more deeply than whoever writes or reads it should have to bear."""
    level = [value]
    for _ in range(_MAX_NESTING):
        inside: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inside += each.values()
            elif isinstance(each, list):
                inside += each
        if not inside:
            return False
        level = inside
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = sorted(key for key, _ in pairs)
        twice = next(key for key, following in pairwise(keys) if key == following)
        raise TemplateError(f"each key of an object once, and not {shown(twice)} twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise TemplateError(f"a value that JSON has, and not {name}")
