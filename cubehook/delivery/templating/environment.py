"""Jinja2 with our filters, tests and operators, and nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar, Final

from jinja2 import StrictUndefined, Undefined, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from cubehook.delivery.templating.errors import TemplateError, perhaps, shown
from cubehook.delivery.templating.filters import ALIASES, FILTERS, listed, metered, text_of, there
from cubehook.delivery.templating.meter import METER, Meter, no_longer_than

TESTS_KNOWN: Final = (
    "boolean", "defined", "eq", "equalto", "false", "ge", "gt", "in", "le", "lt", "mapping", "ne", "none",
    "number", "string", "true", "undefined",
)  # fmt: skip
OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_LOOP: Final = ("first", "index", "index0", "last", "length", "previtem", "nextitem", "revindex", "revindex0")
METHODS: Final = ("startswith", "endswith")
_LARGEST: Final = 2**63


class Piece(str):
    """Part of what a template renders: a value and its line, or its own text of that number."""

    __slots__ = ("line", "text", "value")
    line: int
    text: int | None
    value: Any

    def __str__(self) -> str:
        return self


# What a template's nodes are replaced by: filters of names that nobody can write.


@pass_context
def _own_text(context: Context, index: int) -> Piece:
    piece = Piece()
    piece.text = index
    return piece


@pass_context
def _out(context: Context, value: Any, line: int) -> Piece:
    piece = Piece()
    piece.text = None
    piece.value = context.parent[METER].weigh(there(value))
    piece.line = line
    return piece


@pass_context
def _each(context: Context, value: Any, weight: int) -> list[Any]:
    meter: Meter = context.parent[METER]
    items = listed(meter.weigh(there(value)))
    meter.spend(weight * len(items))
    return items


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    return value if isinstance(value, Undefined) else context.parent[METER].weigh(value)


@pass_context
def _concat(context: Context, *values: Any) -> str:
    meter: Meter = context.parent[METER]
    texts = [text_of(meter.weigh(there(each))) for each in values]
    no_longer_than(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _startswith(context: Context, value: Any, other: Any) -> bool:
    return _both_texts(value, other, "startswith")[0].startswith(other)


@pass_context
def _endswith(context: Context, value: Any, other: Any) -> bool:
    return _both_texts(value, other, "endswith")[0].endswith(other)


def _both_texts(value: Any, other: Any, method: str) -> tuple[str, str]:
    if not (isinstance(there(value), str) and isinstance(there(other), str)):
        raise TemplateError(f"texts for {method}, as in: calling_number and calling_number.{method}('+1')")
    return value, other


INNER: Final[dict[str, Callable[..., Any]]] = {
    " text": _own_text,
    " out": _out,
    " each": _each,
    " weighed": _weighed,
    " concat": _concat,
    " startswith": _startswith,
    " endswith": _endswith,
}


class Missing(StrictUndefined):
    """What is not there; it says so when it is used, with what may have been meant."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        name = shown(str(self._undefined_name))
        if isinstance(self._undefined_obj, dict):
            known = [each for each in self._undefined_obj if isinstance(each, str)]
            return f"a key that is there{perhaps(name, known)}, and not {name}"
        if self._undefined_obj is None:
            return f"something to take {name} from: there is null, which {{% if %}} can ask for"
        return f"a name that is set, and not {name}"


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2 with our filters and nothing else."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(OPERATORS)  # type: ignore[misc]

    def __init__(self) -> None:
        # Constants are not folded when compiling, for nobody would pay for that.
        super().__init__(undefined=Missing, optimized=False, autoescape=False, cache_size=0)
        self.globals.clear()
        self.filters = {name: metered(name, function) for name, function in FILTERS.items()}
        self.filters |= {alias: self.filters[name] for alias, name in ALIASES.items()}
        self.filters |= INNER
        self.tests = {name: TESTS[name] for name in TESTS_KNOWN}

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            if attribute in _LOOP:
                return getattr(obj, attribute)
            raise TemplateError(f"one of loop.{', loop.'.join(_LOOP)}")
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        there(obj)
        there(argument)
        if isinstance(obj, dict):
            try:
                return obj[argument]
            except (KeyError, TypeError):
                pass
        elif isinstance(obj, list | tuple | str) and isinstance(argument, int):
            try:
                return obj[argument]
            except IndexError:
                return Missing(f"a list or text that is long enough for [{argument}]")
        elif obj is not None:
            return Missing(f"an object, of which to take {shown(str(argument)[:60])}")
        return Missing(obj=obj, name=str(argument)[:60])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        there(left)
        there(right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        alike = isinstance(left, str) and isinstance(right, str)
        alike = alike or (isinstance(left, list) and isinstance(right, list))
        if not numbers and not (operator == "+" and alike):
            raise TemplateError(f"numbers on both sides of {operator}; texts are joined by ~")
        try:
            value = OPERATORS[operator](left, right)
        except ZeroDivisionError:
            raise TemplateError("no division by zero") from None
        except OverflowError:
            value = math.inf
        if numbers and not -_LARGEST < value < _LARGEST:
            raise TemplateError("numbers below 2 to the power of 63")
        return context.parent[METER].weigh(value)
