"""
Filters: what a template's author can do to a value.

JSON's null passes through those that have nothing to say of it; what is not there reaches `default` only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context, LoopContext

from cubehook.delivery import readable
from cubehook.delivery.presets import escape_slack
from cubehook.delivery.templating.errors import TemplateError, shown
from cubehook.delivery.templating.meter import MAX_OUTPUT, METER, Meter, no_longer_than


class Json(str):
    """A text that is JSON already."""

    __slots__ = ()


def text_of(value: Any) -> str:
    """`value` as it is written inside a text."""
    match value:
        case str():
            return str(value)
        case None:
            return ""
        case _:
            return encoded(value)


def encoded(value: Any) -> str:
    """`value` as JSON; TemplateError if it has none."""
    if isinstance(value, Json):
        return str.__str__(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise TemplateError(f"a value that JSON has, and not {_kind(value)}") from None


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "a number that is not finite"
    return "a loop" if isinstance(value, LoopContext) else f"a {type(value).__name__}"


def _whole(value: Any) -> int:
    if not isinstance(value, int) or abs(value) > MAX_OUTPUT:
        raise TemplateError("a whole number, and no great one")
    return value


def _sized(value: Any) -> Any:
    if not isinstance(value, str | list | tuple | dict):
        raise TemplateError("a text, a list or an object")
    return value


def listed(value: Any) -> list[Any]:
    """The items of a list, or the keys of an object; TemplateError if `value` is neither."""
    if not isinstance(value, list | tuple | dict):
        raise TemplateError("a list")
    return list(value)


def there(value: Any) -> Any:
    """`value`; TemplateError if it stands for what is not there."""
    if isinstance(value, Undefined):
        raise TemplateError(value._undefined_message)
    return value


def _upper(value: Any) -> str:
    return text_of(value).upper()


def _lower(value: Any) -> str:
    return text_of(value).lower()


def _trim(value: Any) -> str:
    return text_of(value).strip()


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = text_of(value), text_of(old), text_of(new)
    if not old:
        raise TemplateError("something to replace")
    no_longer_than(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _truncate(value: Any, length: Any = 255) -> str:
    text, most = text_of(value), _whole(length)
    if most < 1:
        raise TemplateError("a length of at least 1")
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _length(value: Any) -> int:
    return len(_sized(value))


def _first(value: Any) -> Any:
    items = _sized(value)
    return next(iter(items), None)


def _last(value: Any) -> Any:
    items = _sized(value)
    return list(items)[-1] if items else None


def _join(value: Any, separator: Any = "") -> str:
    texts, between = [text_of(each) for each in listed(value)], text_of(separator)
    no_longer_than(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _map(value: Any, attribute: Any) -> list[Any]:
    name = text_of(attribute)
    items = listed(value)
    for item in items:
        if not isinstance(item, dict) or name not in item:
            raise TemplateError(f"a list of which each has {shown(name)}")
    return [item[name] for item in items]


def _items(value: Any) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict):
        raise TemplateError("an object, of which to take the items")
    return list(value.items())


def _default(value: Any, other: Any = "", boolean: Any = False) -> Any:
    missing = isinstance(value, Undefined) or value is None or (boolean and not value)
    return other if missing else value


def _string(value: Any) -> str:
    return text_of(value)


def _int(value: Any, default: Any = 0) -> Any:
    if isinstance(value, str):
        try:
            value = float(value[:40]) if not value[:40].strip().lstrip("+-").isdecimal() else int(value[:40])
        except ValueError:
            return default
    if not isinstance(value, int | float) or not math.isfinite(value):
        return default
    return int(value)


def _round(value: Any, digits: Any = 0) -> Any:
    places = _whole(digits)
    if not isinstance(value, int | float) or not 0 <= places <= 10:
        raise TemplateError("a number to round, to 10 digits at most")
    return round(value, places) if places else round(value)


def _tojson(value: Any) -> Json:
    return Json(encoded(value))


def _duration(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TemplateError("seconds, such as talk_seconds, for a duration")
    return readable.duration(value)


def _number(value: Any, style: Any = "international") -> str:
    return readable.number(text_of(value), text_of(style))


def _localtime(value: Any, zone: Any, format: Any = readable.TIME_FORMAT) -> str:
    return readable.local_time(text_of(value), text_of(zone), text_of(format))


def _slack(value: Any) -> str:
    return escape_slack(text_of(value))


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "default": _default,
    "duration": _duration,
    "first": _first,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _last,
    "length": _length,
    "localtime": _localtime,
    "lower": _lower,
    "map": _map,
    "number": _number,
    "replace": _replace,
    "round": _round,
    "slack": _slack,
    "string": _string,
    "tojson": _tojson,
    "trim": _trim,
    "truncate": _truncate,
    "upper": _upper,
}
ALIASES: Final = {"d": "default", "count": "length"}
_TAKE_NULL: Final = frozenset(("default", "string", "tojson"))
_COSTLY: Final = {"localtime": 100, "number": 100}


def metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as Jinja2 calls it: paid for, and never given what is not there."""

    @pass_context
    def filtered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter: Meter = context.parent[METER]
        meter.spend(_COSTLY.get(name, 1))
        for each in (value, *args, *kwargs.values()):
            if not (isinstance(each, Undefined) and name == "default"):
                meter.weigh(there(each))
        if value is None and name not in _TAKE_NULL:
            return None
        try:
            return meter.weigh(function(value, *args, **kwargs))
        except TypeError:
            raise TemplateError(f"other arguments for the filter {name}") from None
        except ValueError as error:
            raise TemplateError(f"{error}, for the filter {name}") from None

    return filtered
