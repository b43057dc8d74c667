"""
Reading what a request gives into the struct that its operation takes, or every error in it at once.

The structs are all that is known of the fields.  A type with a `cubehook.config_rules.rule` is given as
a text, in a query and in JSON alike.  A field that may be UNSET is so when it is not given.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.inspect import type_info
from msgspec.structs import FieldInfo, fields

from cubehook.api.errors import BadRequestError, InvalidError
from cubehook.config_rules import rule_of
from cubehook.config_words import described
from cubehook.text import printable

T = TypeVar("T", bound=msgspec.Struct)

_SHOWN = 80
_ABSENT = (types.NoneType, msgspec.UnsetType)


def from_json(kind: type[T], body: bytes) -> T:
    """The `kind` that a JSON `body` tells of; BadRequestError, or InvalidError naming each wrong field."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise BadRequestError("The body is nested too deeply") from None
    except msgspec.MsgspecError as error:
        raise BadRequestError(f"The body is not JSON: {error}") from None
    return _checked(kind, value, strict=True)


def from_query(kind: type[T], values: Mapping[str, Sequence[str]]) -> T:
    """The `kind` that a query's `values` tell of; InvalidError naming each wrong parameter."""
    once = {name: given[0] if len(given) == 1 else list(given) for name, given in values.items()}
    return _checked(kind, once, strict=False)


def _checked(kind: type[T], value: object, *, strict: bool) -> T:
    check = _Check(strict)
    try:
        made: T = check.struct(kind, value, "")
    except _BrokenError:
        made = None  # type: ignore[assignment]
    if not check.problems:
        return made
    if "" in check.problems:
        raise InvalidError(f"The body is not what is wanted: {check.problems['']}")
    count = len(check.problems)
    message = "A field is not as it must be" if count == 1 else f"{count} fields are not as they must be"
    raise InvalidError(message, fields=check.problems)


class _BrokenError(Exception):
    """A value is of no use; its problems are noted already."""


class _Check:
    """Makes values of types, and notes in `problems` what is wrong on the way, by path."""

    def __init__(self, strict: bool) -> None:
        self.problems: dict[str, str] = {}
        self._strict = strict

    def _fail(self, key: str, expected: str, found: str) -> _BrokenError:
        self.problems.setdefault(key, f"expected {expected}; found {found}")
        return _BrokenError()

    def struct(self, kind: Any, found: Any, key: str) -> Any:
        if not isinstance(found, dict):
            raise self._fail(key, "an object", _shown(found))
        known = {field.encode_name: field for field in fields(kind)}
        whole = True
        for name in found:
            if name not in known:
                _ = self._fail(_join(key, name), f"one of {', '.join(known) or 'no fields'}", "another field")
                whole = False
        values = {}
        for name, field in known.items():
            try:
                values[field.name] = self._field(field, found, _join(key, name))
            except _BrokenError:
                whole = False
        if not whole:
            raise _BrokenError
        return kind(**values)

    def _field(self, field: FieldInfo, found: dict[str, Any], key: str) -> Any:
        if field.encode_name in found:
            return self._value(field.type, found[field.encode_name], key)
        if field.required:
            raise self._fail(key, _expected(field.type), "nothing")
        return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()

    def _value(self, kind: Any, found: Any, key: str) -> Any:
        origin = get_origin(kind)
        if origin is Annotated:
            return self._annotated(kind, found, key)
        if origin is Union or origin is types.UnionType:
            if found is None and types.NoneType in get_args(kind):
                return None
            (member,) = (member for member in get_args(kind) if member not in _ABSENT)
            return self._value(member, found, key)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind, found, key)
        if origin in (list, tuple):
            return origin(self._items(get_args(kind)[0], found, key))
        if origin is dict:
            return self._table(kind, found, key)
        return self._leaf(kind, found, key)

    def _annotated(self, kind: Any, found: Any, key: str) -> Any:
        inner, *metas = get_args(kind)
        for meta in metas:
            rule = rule_of(getattr(meta, "extra", None))
            if rule is None:
                continue
            if not isinstance(found, str):
                raise self._fail(key, rule.expected, _shown(found))
            try:
                return rule.read(found)
            except ValueError as error:
                shown = _shown(rule.show(found)) if rule.show else "a text that is not shown"
                raise self._fail(key, rule.expected, f"{shown}: {error}" if str(error) else shown) from None
        if get_origin(inner) is None:
            return self._leaf(kind, found, key)
        value = self._value(inner, found, key)
        least = max((getattr(meta, "min_length", None) or 0 for meta in metas), default=0)
        if isinstance(value, list | tuple | dict) and len(value) < least:
            raise self._fail(key, f"at least {least} of them", str(len(value)))
        return value

    def _items(self, kind: Any, found: Any, key: str) -> list[Any]:
        if not isinstance(found, list):
            raise self._fail(key, "a list", _shown(found))
        return self._each([(f"{key}[{number}]", kind, item) for number, item in enumerate(found)])

    def _table(self, kind: Any, found: Any, key: str) -> dict[Any, Any]:
        if not isinstance(found, dict):
            raise self._fail(key, "an object", _shown(found))
        name_kind, value_kind = get_args(kind)
        pairs = [(_join(key, name), name, item) for name, item in found.items()]
        both = self._each(
            [(where, name_kind, name) for where, name, _ in pairs]
            + [(where, value_kind, item) for where, _, item in pairs]
        )
        return dict(zip(both[: len(pairs)], both[len(pairs) :], strict=True))

    def _each(self, items: Sequence[tuple[str, Any, Any]]) -> list[Any]:
        values = []
        for key, kind, item in items:
            try:
                values.append(self._value(kind, item, key))
            except _BrokenError:
                continue
        if len(values) < len(items):
            raise _BrokenError
        return values

    def _leaf(self, kind: Any, found: Any, key: str) -> Any:
        try:
            return msgspec.convert(found, kind, strict=self._strict)
        except msgspec.ValidationError:
            raise self._fail(key, _expected(kind), _shown(found)) from None


def _join(key: str, name: str) -> str:
    name = printable(name, _SHOWN)
    return f"{key}.{name}" if key else name


def _expected(kind: Any) -> str:
    """What a value of this type looks like."""
    if get_origin(kind) in (list, tuple):
        return "a list"
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return "an object"
    return described(type_info(kind))


def _shown(found: Any) -> str:
    match found:
        case None:
            return "null"
        case bool():
            return "true" if found else "false"
        case int() | float():
            return str(found)[:_SHOWN]
        case str():
            return f'"{printable(found, _SHOWN)}"'
        case list():
            return "a list"
        case _:
            return "an object"
