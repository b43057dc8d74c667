"""How settings, their types and what is wrong with them are told to the person who wrote them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from cubehook.config import ID_PATTERN
from cubehook.config_rules import rule_of

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SHOWN = 80

ANY: Final = inspect.CustomType(object)
ID_WORDS: Final = "an id: small letters, digits, _ and -, the first a letter or digit, 64 at most"


class Problem(msgspec.Struct, frozen=True):
    """
    One thing that is wrong: where, what was expected, and what is there.

    `key` is the dotted path in the file (`webhooks.crm.states[0]`), empty for the file as
    a whole.  No part repeats a secret.
    """

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}expected {self.expected}; found {self.found}"


def described(kind: Any) -> str:
    """What a value of this type looks like in the file."""
    match kind:
        case inspect.Metadata():
            rule = rule_of(kind.extra)
            return rule.expected if rule else described(kind.type)
        case inspect.UnionType():
            members = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            return " or ".join(map(described, members))
        case inspect.StrType() if kind.pattern is not None:
            return ID_WORDS if kind.pattern == ID_PATTERN else f"a text that matches {kind.pattern}"
        case inspect.StrType() if kind.min_length or kind.max_length is not None:
            most = "" if kind.max_length is None else f" to {kind.max_length}"
            return f"a text of {kind.min_length or 0}{most or ' or more'} characters"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(kind)
        case inspect.FloatType():
            return "a number" + _bounds(kind)
        case inspect.LiteralType():
            return "one of " + ", ".join(quoted(str(value)) for value in kind.values)
        case inspect.EnumType():
            return "one of " + ", ".join(quoted(member.value) for member in kind.cls)
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType():
            least = f" with at least {kind.min_length}" if kind.min_length else ""
            return f"a list{least}, each {described(kind.item_type)}"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.CustomType() if kind.cls is Path:
            return "a path"
        case _:
            return "a text"


def _bounds(kind: Any) -> str:
    least = kind.ge if kind.ge is not None else kind.gt
    most = kind.le if kind.le is not None else kind.lt
    above = "above " if kind.gt is not None else ""
    if least is not None and most is not None:
        return f" {above or 'from '}{least} {'up ' if above else ''}to {most}"
    return "" if least is None else f" {above or 'of at least '}{least}"


def hint(name: str, known: Iterable[str]) -> str:
    """The one of `known` that `name` may have been meant for, else all of them, for the end of a phrase."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    if close:
        return f", perhaps {joined('', close[0])}"
    return f" ({', '.join(joined('', each) for each in names)})" if names else ""


def joined(key: str, name: str) -> str:
    written = name if _BARE_KEY.fullmatch(name) else quoted(name)
    return f"{key}.{written}" if key else written


def key_path(steps: Iterable[str | int]) -> str:
    key = ""
    for step in steps:
        key = f"{key}[{step}]" if isinstance(step, int) else joined(key, step)
    return key


def inside(kind: Any, step: str | int) -> Any:
    """The type of what is found at `step` inside a value of type `kind`."""
    match kind:
        case inspect.Metadata():
            return inside(kind.type, step)
        case inspect.UnionType():
            return inside(of_union(kind), step)
        case inspect.StructType():
            return next((field.type for field in kind.fields if field.name == step), ANY)
        case inspect.VarTupleType():
            return kind.item_type
        case inspect.DictType():
            return kind.value_type
        case _:
            return ANY


def of_union(kind: inspect.UnionType) -> Any:
    # A union here is a type or None, and None is not written in TOML: a field's default only.
    (member,) = (member for member in kind.types if not isinstance(member, inspect.NoneType))
    return member


def presented(kind: Any, found: Any) -> str:
    """A value of the file as an error may show it."""
    match kind:
        case inspect.UnionType():
            return presented(of_union(kind), found)
        case inspect.Metadata() if (rule := rule_of(kind.extra)) is not None:
            if not isinstance(found, str):
                return kind_of(found)
            return quoted(rule.show(found)) if rule.show else "a text that is not shown"
        case inspect.Metadata():
            return presented(kind.type, found)
        case inspect.CustomType() if kind.cls is object:
            return kind_of(found)
        case _:
            return shown(found)


def kind_of(found: Any) -> str:
    match found:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def shown(found: Any) -> str:
    match found:
        case bool():
            return "true" if found else "false"
        case int() | float():
            return str(found)[:_SHOWN]
        case str():
            return quoted(found)
        case _:
            return kind_of(found)


def quoted(text: str) -> str:
    return json.dumps(text if len(text) <= _SHOWN else text[:_SHOWN] + "...", ensure_ascii=True)


def in_line(text: str) -> str:
    return text if text.isprintable() else quoted(text)
