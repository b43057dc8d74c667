"""What a list is narrowed to, as its form and its addresses have it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from urllib.parse import urlencode

from cubehook.console.routes import Form
from cubehook.console.zones import typed_time

TIMES = frozenset({"since", "until"})

_LONGEST = 200


class Filters:
    """
    The fields `names` of a query, those that are empty left out.

    Times are typed in `zone`.  Everything else of the query is left to the page.
    """

    def __init__(self, query: Form, names: tuple[str, ...], zone: tzinfo) -> None:
        self._zone = zone
        given = ((name, query.text(name)[:_LONGEST]) for name in names)
        self.given: dict[str, str] = {name: text for name, text in given if text}

    def __getitem__(self, name: str) -> str:
        return self.given.get(name, "")

    def __bool__(self) -> bool:
        return bool(self.given)

    def asked(self, **more: str | None) -> dict[str, str | None]:
        """The same as the API's query has it, and `more`."""
        found: dict[str, str | None] = {
            name: typed_time(text, self._zone) if name in TIMES else text for name, text in self.given.items()
        }
        return {**found, **more}

    def address(self, path: str, **more: str | None) -> str:
        """`path` with the same filters, but `more` (None takes one away)."""
        return address(path, {**self.given, **more})


def address(path: str, query: Mapping[str, str | None]) -> str:
    """`path` with what `query` has, without its empty ones."""
    given = {name: text for name, text in query.items() if text}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path
