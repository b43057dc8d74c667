"""
The one place through which everything is changed: who may, and the record of who did.

The API, the control socket and the console ask the same guarded parts, so that none of them can change
anything that is not recorded.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec.structs import fields
from twisted.logger import Logger

from cubehook.api.errors import UnavailableError
from cubehook.api.operations import Caller, Operation, Tagged, check_access, operations
from cubehook.config_rules import rule_of
from cubehook.events import iso
from cubehook.interfaces import StoreFullError
from cubehook.net.urls import MASK, masked_url
from cubehook.store.errors import StoreError
from cubehook.text import printable
from cubehook.times import parse_time

_TEXT = 500
"""Characters of a text that are kept."""

_ITEMS = 50


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """
    What somebody changed: `who` did `action` (an operation's name) to `subject`, an id or several.

    `detail` has the fields that were given, secrets masked.
    """

    who: str
    action: str
    subject: str
    detail: dict[str, Any]


Keep = Callable[[Change], Awaitable[None]]
"""Keeps a change in the record; StoreError if that cannot be."""

_log = Logger()


class Guarded:
    """The operations of a part, each of which checks its caller and has what it changed kept."""

    def __init__(self, part: object, keep: Keep, away: Callable[[], bool]) -> None:
        for declared, handler in operations(part):
            setattr(self, declared.name, _guarded(declared, handler, keep, away))


def guarded(parts: Iterable[object], keep: Keep, away: Callable[[], bool] = lambda: False) -> list[Guarded]:
    """
    `parts`, whose operations may be asked by anyone: they look after themselves.

    While the database is `away`, which is to say that it cannot be written, what needs it is refused at
    once: it would wait for as long as that takes.
    """
    return [Guarded(part, keep, away) for part in parts]


def _guarded(
    declared: Operation, handler: Callable[..., Awaitable[Any]], keep: Keep, away: Callable[[], bool]
) -> Any:
    async def ask(caller: Caller, **arguments: Any) -> Any:
        check_access(caller, declared)
        body = arguments.get("body")
        if declared.stores and declared.changes(body) and away():
            raise UnavailableError(
                "The database cannot be written at the moment, so nothing was changed: /readyz tells when it "
                "can be again",
                headers={"Retry-After": "10"},
            )
        result = await handler(caller, **arguments)
        if declared.method != "GET" and declared.changes(body):
            detail = {} if body is None else fit_to_keep(body)
            recorded = detail if declared.recorded is None else declared.recorded(result)
            if recorded is not None:
                await keep_or_tell(keep, _change(caller, declared, arguments, result, recorded))
        return result

    ask.operation = declared  # type: ignore[attr-defined]
    return ask


def _change(
    caller: Caller,
    declared: Operation,
    arguments: Mapping[str, Any],
    result: Any,
    detail: dict[str, Any],
) -> Change:
    parts = [value for value in arguments.values() if isinstance(value, str)]
    if not parts:
        # What was made has been given its id only now.
        made = result.result if isinstance(result, Tagged) else result
        parts = [id for id in [getattr(made, "id", None)] if isinstance(id, str)]
    return Change(
        who=printable(caller.name),
        action=declared.name,
        subject=printable(" ".join(parts)),
        detail=detail,
    )


async def keep_or_tell(keep: Keep, change: Change) -> None:
    """Have what was changed kept in the record; if that cannot be, the log tells of it."""
    try:
        await keep(change)
    except (StoreError, StoreFullError) as error:
        # It has been done; to say that it failed would be a second mistake.
        _log.critical(
            "{who} did {action} {subject}, and that is missing in the record of changes: {error}",
            who=change.who,
            action=change.action,
            subject=change.subject,
            error=str(error),
        )


def fit_to_keep(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of `body` that differ from what they are when not given; what may be secret is masked."""
    kept = {}
    for field in fields(type(body)):
        value = getattr(body, field.name)
        if value is msgspec.UNSET or (not field.required and value == _default(field)):
            continue
        kept[field.encode_name] = _fit(field.type, value)
    return kept


def _default(field: Any) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _fit(kind: Any, value: Any) -> Any:
    """`value` of a type, as it may be kept: what a rule says of it, or of its parts, holds."""
    origin = get_origin(kind)
    if value is None:
        return None
    if origin is Annotated:
        inner, *metas = get_args(kind)
        for meta in metas:
            rule = rule_of(getattr(meta, "extra", None))
            if rule is None:
                continue
            if rule.show is None:
                return MASK
            if isinstance(value, str):
                return _text(rule.show(value))
            return iso(value) if rule.read is parse_time else _plain(value)
        return _fit(inner, value)
    if origin is Union or origin is types.UnionType:
        inner = [member for member in get_args(kind) if member not in (types.NoneType, msgspec.UnsetType)]
        return _fit(inner[0], value) if len(inner) == 1 else _plain(value)
    if isinstance(value, msgspec.Struct):
        return fit_to_keep(value)
    if isinstance(value, dict):
        # A table without a type for its values is a transport's options: any of them may be a secret.
        of = (get_args(kind) or (Any, Any))[1]
        return {
            printable(str(name)): MASK if of is Any or of is object else _fit(of, each)
            for name, each in list(value.items())[:_ITEMS]
        }
    if isinstance(value, list | tuple):
        of = (get_args(kind) or (Any,))[0]
        return [_fit(of, each) for each in value[:_ITEMS]]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _text(str(value))
    return value if isinstance(value, bool | int | float) else _text(str(value))


def _text(text: str) -> str:
    return printable(masked_url(text) if "://" in text else text, _TEXT)
