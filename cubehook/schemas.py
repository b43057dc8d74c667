"""JSON Schemas of our structs: msgspec's, but for values that are given as texts (`config_rules.rule`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cubehook.config_rules import GIVEN_AS_TEXT

_ANYTHING = "x-anything"

# What msgspec tells of the value that such a text becomes.
_OF_VALUES = frozenset({"type", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type."""
    made: dict[str, Any] = _with_texts(msgspec.json.schema(kind, schema_hook=_hook))
    return made


def components(kinds: Iterable[Any], reference: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The JSON Schemas of types, and those of the structs in them by name; `reference` has `{name}`."""
    found, named = msgspec.json.schema_components(kinds, ref_template=reference, schema_hook=_hook)
    return [_with_texts(each) for each in found], _with_texts(named)


def _hook(kind: type) -> dict[str, Any]:
    if kind is object:
        return {_ANYTHING: True}  # msgspec takes nothing at all for an answer that is missing
    raise NotImplementedError


def _with_texts(made: Any) -> Any:
    if isinstance(made, list | tuple):
        return [_with_texts(each) for each in made]
    if not isinstance(made, dict):
        return made
    if made.pop(_ANYTHING, False):
        return made
    if made.get(GIVEN_AS_TEXT) is True:
        kept = {key: each for key, each in made.items() if key not in _OF_VALUES and key != GIVEN_AS_TEXT}
        return {"type": "string", **kept}
    return {key: _with_texts(each) for key, each in made.items()}
