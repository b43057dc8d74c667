"""What is wrong with a form, field by field, as its template shows it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"[.\[]")


class Problems(dict[str, str]):
    """What is wrong by field; None for a field with which nothing is."""

    def __missing__(self, name: str) -> None:
        return None


def by_field(problems: Mapping[str, str]) -> Problems:
    """What the API says is wrong, by the first part of its key: `headers.X-Key` belongs to `headers`."""
    found = Problems()
    for key, words in problems.items():
        name = _PART.split(key, maxsplit=1)[0]
        told = words if name == key else f"{key.removeprefix(name).lstrip('.')}: {words}"
        found[name] = f"{found[name]}; {told}" if name in found else told
    return found
