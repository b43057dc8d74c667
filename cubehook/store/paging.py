"""
Pages of long tables, newest first, whatever is asked for.

Where an index has what is asked for, a page is a range of it, or the merge of several.  Where none has,
rows are looked at from the newest on, up to a bound; then the page is short, and the next one goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, func, literal, select

from cubehook.events import Micros
from cubehook.ids import first_id
from cubehook.store.numbering import search_key, sought_key
from cubehook.store.schema import numbers

MOST = 200
"""Items of a page, at most."""

BOUND = 15_000
"""Rows that are looked at for one page: some twenty milliseconds."""

NUMBER_BOUND = 2_500
"""The same where each row's numbers are compared."""

_FIRST_STRETCH = 500
_GROWTH = 4
_END_OF_IDS = (1 << 63) - 1

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """
    Up to `limit` items, newest first.

    `next` is the cursor with which the list goes on, None at its end.  There may be more even if this page
    is short or empty: nothing older than `next` has been looked at.
    """

    items: list[T]
    next: int | None


class Within(msgspec.Struct, frozen=True, kw_only=True):
    """Ids from `first` up to but without `before`."""

    first: int = 0
    before: int = _END_OF_IDS


def within(since: Micros | None, until: Micros | None, cursor: int | None) -> Within:
    """The ids of what happened from `since` up to but without `until`, that are less than `cursor`."""
    befores = [_END_OF_IDS]
    if until is not None:
        befores.append(first_id(until))
    if cursor is not None:
        befores.append(cursor)
    return Within(first=0 if since is None else first_id(since), before=min(befores))


def aside(column: Any, value: str) -> ColumnElement[bool]:
    """`column` equals `value`, said so that no index is chosen for it."""
    equal: ColumnElement[bool] = (column + "") == literal(value)
    return equal


class Path:
    """
    One way through a table, downwards: the rows where `along`, which an index has in the order of ids.

    Of these only those are wanted where `wanted`, and of which `chosen` is true: it is called with rows of
    the id and `columns`, which `source` (the table itself, unless given) has.
    """

    def __init__(
        self,
        table: Table,
        range_: Within,
        *along: ColumnElement[bool],
        wanted: Sequence[ColumnElement[bool]] = (),
        source: FromClause | None = None,
        columns: Sequence[Any] = (),
        chosen: Callable[[Any], bool] | None = None,
    ) -> None:
        self._table = table
        self._first = range_.first
        self._along = along
        self._wanted = wanted
        self._source = table if source is None else source
        self._columns = columns
        self._chosen = chosen
        self._stretch = _FIRST_STRETCH
        self.found: list[int] = []
        """The ids of the wanted ones among those looked at, descending."""
        self.through = range_.before
        """All from this id on were looked at."""
        self.over = self.through <= self._first

    def advance(self, connection: Connection, most: int, rows: int) -> int:
        """Look at the next `rows` rows at most, or until `most` are found; how many those may have been."""
        if self._chosen is None and not self._wanted:
            found = connection.scalars(self.rows().limit(most)).all()
            self._reached(found[-1] if len(found) == most else None, found)
            return len(found)
        rows = min(rows, self._stretch)
        self._stretch *= _GROWTH
        end = connection.scalar(self.end(rows))
        wanted = self.wanted(end)
        chosen = self._chosen
        if chosen is None:
            found = connection.scalars(wanted.limit(most)).all()
            if len(found) == most:
                end = found[-1]
        else:
            found = [row[0] for row in connection.execute(wanted).all() if chosen(row)]
        self._reached(end, found)
        return rows

    def rows(self, first: int | None = None) -> Select[Any]:
        """The ids of what is next, down to `first`, or to where the path ends."""
        id = self._table.c.id
        # One bound below: of two, SQLite would let either end its search.
        first = self._first if first is None else first
        return select(id).where(*self._along, id < self.through, id >= first).order_by(id.desc())

    def end(self, rows: int) -> Select[Any]:
        """The last id of the next `rows`; nothing if there are not as many."""
        return self.rows().offset(rows - 1).limit(1)

    def wanted(self, end: int | None) -> Select[Any]:
        """What is wanted of that down to the id `end`."""
        return self.rows(end).add_columns(*self._columns).select_from(self._source).where(*self._wanted)

    def _reached(self, through: int | None, found: Sequence[int]) -> None:
        self.found += found
        self.over = through is None or through <= self._first
        self.through = self._first if through is None else max(through, self._first)


def page(
    connection: Connection, paths: Sequence[Path], limit: int, bound: int = BOUND
) -> tuple[list[int], int | None]:
    """
    The ids of the newest `limit` wanted rows of all `paths`, which share none, and where to go on.

    The path that is the furthest behind goes on first, so that no more is looked at than the page needs.
    """
    start = max((path.through for path in paths), default=0)
    while True:
        going = [path for path in paths if not path.over]
        through = max((path.through for path in going), default=0)
        found = sorted((id for path in paths for id in path.found if id >= through), reverse=True)
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if not going:
            return found, None
        # Each page gets on, however many paths there are.
        if bound <= 0 and through < start:
            return found, through
        behind = max(going, key=lambda path: path.through)
        bound -= behind.advance(connection, limit + 1, max(bound, _FIRST_STRETCH))


def fitting(limit: int) -> int:
    """`limit`, if a page may have as many items; ValueError if not."""
    if not 1 <= limit <= MOST:
        raise ValueError(f"a page has 1 to {MOST} items, not {limit}")
    return limit


class Number:
    """A number that is sought: it may be written otherwise, and only its end be known."""

    def __init__(self, text: str) -> None:
        key = self._key = sought_key(text)
        self._range = (numbers.c.key >= key, numbers.c.key <= key + "\U0010ffff")

    def is_one_of(self, *found: str | None) -> bool:
        """Whether one of these numbers is meant."""
        key = self._key
        return bool(key) and any(number and search_key(number).startswith(key) for number in found)

    def calls(self, connection: Connection, range_: Within, most: int) -> list[int] | None:
        """
        The calls in `range_` that it was in, newest first; None if it was in more than `most`, of any time.

        It was in none if there is nothing in it to look for.
        """
        if not self._key:
            return []
        entries = select(literal(1)).where(*self._range).limit(most + 1).subquery()
        if (connection.scalar(select(func.count()).select_from(entries)) or 0) > most:
            return None
        call = numbers.c.call
        # All at once: row by row takes twice the time.
        found = connection.scalars(
            select(call).where(*self._range, call < range_.before, call >= range_.first)
        ).all()
        return sorted(set(found), reverse=True)
