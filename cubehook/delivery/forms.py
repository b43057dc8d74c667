"""Bodies as a browser posts a form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

FORM: Final = "application/x-www-form-urlencoded"


def form_body(fields: Mapping[str, object]) -> bytes:
    """
    `fields` as `application/x-www-form-urlencoded` in UTF-8: null is empty, true is `true`.

    Raises ValueError, with words for whoever wrote them, if one is nested.
    """
    return urlencode([(name, _field(name, value)) for name, value in fields.items()]).encode()


def _field(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value, allow_nan=False)
        case _:
            raise ValueError(f"a text, a number, true, false or null as {name[:60]}: a form is flat")
