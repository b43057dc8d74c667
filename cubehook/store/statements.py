"""
The statements of the hot path, each taking many rows at once.

After each statement the writer's thread must take the interpreter lock back from a busy reactor,
which can cost it more than the statement itself.  So a group sends one statement a table,
however many its rows, and none is compiled twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeAlias

from sqlalchemy import (
    CTE,
    Boolean,
    Column,
    Executable,
    Table,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    insert,
    or_,
    select,
    update,
    values,
)

from cubehook.store import sqlite
from cubehook.store.schema import (
    PENDING,
    attempts,
    calls,
    deliveries,
    events,
    notifications,
    registration_changes,
    registrations,
)

Row: TypeAlias = tuple[Any, ...]
Execute: TypeAlias = Callable[[str, Row], object]
"""A DBAPI cursor's `execute`."""

ROWS_AT_ONCE = 64
"""Rows of one statement at most; more at once gain nothing measurable."""

_VALUES = re.compile(r"VALUES (\([^()]*\))")


class ManyRows:
    """
    A statement over one VALUES list, compiled once to SQL texts that take 1, 2, 4, ... rows.

    Rows are filled up with NULLs to the next such number, so that few texts stay prepared in the
    connection; the statement must pass over a row whose first value is NULL.
    """

    def __init__(self, statement: Executable) -> None:
        text = sqlite.compiled(statement)
        match = _VALUES.search(text)
        if match is None or text.count("?") != match[1].count("?"):
            raise ValueError(f"not a statement whose only parameters are one row of values: {text}")
        self._head, self._row, self._tail = text[: match.start(1)], match[1], text[match.end(1) :]
        self._columns = self._row.count("?")
        self._texts: dict[int, str] = {}

    def text(self, count: int) -> str:
        """The SQL for `count` rows."""
        text = self._texts.get(count)
        if text is None:
            text = self._texts[count] = self._head + ", ".join([self._row] * count) + self._tail
        return text

    def run(self, execute: Execute, rows: Sequence[Row]) -> None:
        """Execute for all `rows`."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE] if len(rows) > ROWS_AT_ONCE else rows
            count = 1 << (len(part) - 1).bit_length()
            filler = (None,) * (self._columns * (count - len(part)))
            execute(self.text(count), (*chain.from_iterable(part), *filler))


def _given(name: str, columns: Sequence[Any], *extra: Any) -> CTE:
    """Parameters as a table `name`, with the columns' names and types."""
    all_columns = [*(column(c.name, c.type) for c in columns), *extra]
    one_row = tuple(bindparam(c.name, type_=c.type) for c in all_columns)
    return values(*all_columns, name=name).data([one_row]).cte(name)


def _insert(table: Table) -> Executable:
    new = _given("new", list(table.c))
    return insert(table).from_select(list(table.c), select(*new.c).where(new.c.id.is_not(None)))


def _save(table: Table, key: Column[Any], fixed: frozenset[str] = frozenset()) -> Executable:
    """A row, or for one with this key that is there the values that are not `fixed`."""
    new = _given("new", list(table.c))
    saved = sqlite.insert(table).from_select(
        list(table.c), select(*new.c).where(new.c[key.name].is_not(None))
    )
    return saved.on_conflict_do_update(
        index_elements=[key],
        set_={c.name: saved.excluded[c.name] for c in table.c if c.name != key.name and c.name not in fixed},
    )


def _insert_deliveries() -> Executable:
    """
    New deliveries; `head` tells that none before it in the group is pending in the same lane.

    One leads its lane (its call's deliveries to its webhook) if none is pending on disk either.
    """
    kept = [c for c in deliveries.c if c is not deliveries.c.ready_at]
    new = _given("new", kept, column("head", Boolean))
    older = deliveries.alias("older")
    waits = exists().where(
        older.c.call == new.c.call, older.c.webhook == new.c.webhook, older.c.status == PENDING
    )
    return insert(deliveries).from_select(
        [*kept, deliveries.c.ready_at],
        select(*(new.c[c.name] for c in kept), case((and_(new.c.head, ~waits), new.c.due_at))).where(
            new.c.id.is_not(None)
        ),
    )


def _save_standings() -> Executable:
    """
    Deliveries as they stand after an attempt.

    One settled meanwhile (its webhook was removed) does not become pending again.
    """
    after = _given(
        "standing", [deliveries.c.id, deliveries.c.status, deliveries.c.attempts, deliveries.c.due_at]
    )
    still_leads = and_(after.c.status == PENDING, deliveries.c.ready_at.is_not(None))
    return (
        update(deliveries)
        .values(
            status=after.c.status,
            attempts=after.c.attempts,
            due_at=after.c.due_at,
            ready_at=case((still_leads, after.c.due_at)),
        )
        .where(deliveries.c.id == after.c.id, or_(after.c.status != PENDING, deliveries.c.status == PENDING))
    )


def _advance_lanes() -> Executable:
    """The oldest pending delivery of each lane leads it."""
    lane = _given("lane", [deliveries.c.call, deliveries.c.webhook])
    waiting = deliveries.alias("waiting")
    oldest = (
        select(func.min(waiting.c.id))
        .where(
            waiting.c.call == lane.c.call, waiting.c.webhook == lane.c.webhook, waiting.c.status == PENDING
        )
        .correlate(lane)
        .scalar_subquery()
    )
    return (
        update(deliveries)
        .values(ready_at=deliveries.c.due_at)
        .where(deliveries.c.id.in_(select(oldest).select_from(lane)))
    )


def _add_registration_changes() -> Executable:
    """A change of state; nothing if the cube's registration stands as before."""
    kept = [c for c in registration_changes.c if c is not registration_changes.c.id]
    new = _given("new", kept)
    unchanged = exists().where(registrations.c.cube == new.c.cube, registrations.c.state == new.c.state)
    return insert(registration_changes).from_select(
        kept, select(*new.c).where(new.c.cube.is_not(None), ~unchanged)
    )


INSERT_NOTIFICATIONS = ManyRows(_insert(notifications))
SAVE_CALLS = ManyRows(_save(calls, calls.c.id, fixed=frozenset({"cube", "gateway_call_id", "started_at"})))
INSERT_EVENTS = ManyRows(_insert(events))
INSERT_DELIVERIES = ManyRows(_insert_deliveries())
INSERT_ATTEMPTS = ManyRows(_insert(attempts))
SAVE_STANDINGS = ManyRows(_save_standings())
ADVANCE_LANES = ManyRows(_advance_lanes())
ADD_REGISTRATION_CHANGES = ManyRows(_add_registration_changes())
SAVE_REGISTRATIONS = ManyRows(_save(registrations, registrations.c.cube))
