"""What a name that was begun may be: names, attributes, and the keys of what has some."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*|\[(?:\"[^\"\\\[\]]*\"|'[^'\\\[\]]*'|\d+)\])*"
_ATTRIBUTE = re.compile(rf"({_DOTTED})\.(\w*)$")
_KEY = re.compile(rf"({_DOTTED})\[([\"']?)([^\"'\[\]]*)$")
_ARGUMENT = re.compile(rf"({_DOTTED})\(([\"'])([^\"'()]*)$")
_NAME = re.compile(r"(?<![\w.\"'])([^\W\d]\w*)$")
_STEP = re.compile(r"\.?([^\W\d]\w*)|\[(?:\"([^\"]*)\"|'([^']*)'|(\d+))\]")

MOST = 400
"""Of so many possibilities nothing is said."""


def completes(names: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function the first argument of which is one of `names()`."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.completes = names  # type: ignore[attr-defined]
        return function

    return mark


def completions(namespace: Mapping[str, Any], before: str) -> tuple[str, list[str]]:
    """
    What stands before the cursor and is to be completed, and what it may become.

    Looks attributes up, but calls nothing.
    """
    line = before.rpartition("\n")[2]
    found = _KEY.search(line)
    if found is not None:
        return found[2] + found[3], _keys(_value(namespace, found[1]), found[2] or '"', found[3])
    found = _ARGUMENT.search(line)
    if found is not None:
        names = getattr(_value(namespace, found[1]), "completes", None)
        if names is None:
            return "", []
        quote = found[2]
        return found[3], sorted(f"{name}{quote}" for name in names() if name.startswith(found[3]))
    found = _ATTRIBUTE.search(line)
    if found is not None:
        return found[2], _attributes(_value(namespace, found[1]), found[2])
    found = _NAME.search(line)
    if found is not None:
        return found[1], _names(namespace, found[1])
    return "", []


def common(names: list[str]) -> str:
    """What all of `names` begin with."""
    first, last = min(names), max(names)
    for at, character in enumerate(first):
        if at >= len(last) or last[at] != character:
            return first[:at]
    return first


def _value(namespace: Mapping[str, Any], path: str) -> Any:
    """What `path` leads to; None if it leads nowhere."""
    value: Any = _Nothing
    try:
        for name, double, single, number in _STEP.findall(path):
            if value is _Nothing:
                value = namespace[name] if name in namespace else getattr(builtins, name)
            elif name:
                value = getattr(value, name)
            else:
                value = value[int(number) if number else double or single]
    except Exception:
        # Whatever a property raises: there is nothing to offer.
        return None
    return None if value is _Nothing else value


class _Nothing:
    pass


def _keys(value: Any, quote: str, begun: str) -> list[str]:
    keys = getattr(value, "keys", None)
    try:
        found = [] if keys is None else [str(key) for key in keys()]
    except Exception:
        return []
    return sorted(f"{quote}{key}{quote}]" for key in found if key.startswith(begun))


def _attributes(value: Any, begun: str) -> list[str]:
    if value is None:
        return []
    found = []
    for name in _directory(value):
        if not name.startswith(begun) or (name.startswith("_") and not begun.startswith("_")):
            continue
        found.append(name + _bracket(value, name))
    return sorted(set(found))


def _directory(value: Any) -> list[str]:
    try:
        return [name for name in dir(value) if name.isidentifier()]
    except Exception:
        return []


def _bracket(value: Any, name: str) -> str:
    # Looked up in the type, so that no property is computed for it.
    return "(" if callable(getattr(type(value), name, None)) else ""


def _names(namespace: Mapping[str, Any], begun: str) -> list[str]:
    own = [name for name in namespace if name.startswith(begun) and not name.startswith("__")]
    if own:
        # What is here is what is meant, not Python's hundred other names.
        return sorted(name + ("(" if _is_function(namespace[name]) else "") for name in own)
    found = {name: name + ("(" if callable(getattr(builtins, name)) else "") for name in dir(builtins)}
    found.update({name: name for name in keyword.kwlist})
    return sorted(shown for name, shown in found.items() if name.startswith(begun))


def _is_function(value: Any) -> bool:
    return callable(value) and not hasattr(value, "keys")
