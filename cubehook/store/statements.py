"""
The statements of the hot path, compiled once to SQL and executed for all rows of a group together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    CTE,
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
    HOURLY,
    PENDING,
    attempts,
    calls,
    deliveries,
    events,
    hourly,
    notifications,
    numbers,
    registration_changes,
    registrations,
)

Row: TypeAlias = tuple[Any, ...]
ExecuteMany: TypeAlias = Callable[[str, Sequence[Row]], object]
"""A DBAPI cursor's `executemany`."""


NEW_DELIVERY = [
    deliveries.c.id,
    deliveries.c.webhook,
    deliveries.c.call,
    deliveries.c.event,
    deliveries.c.status,
    deliveries.c.attempts,
    deliveries.c.due_at,
    deliveries.c.spent,
    deliveries.c.error_class,
    deliveries.c.answered,
]
"""The columns of a row of `INSERT_DELIVERY`, the standing (as in `SAVE_STANDING`) last."""


def _given(name: str, columns: Sequence[Any]) -> CTE:
    """The parameters as a table `name` of one row, so that each is given once however often it is used."""
    row = tuple(bindparam(c.name, type_=c.type) for c in columns)
    return values(*(column(c.name, c.type) for c in columns), name=name).data([row]).cte(name)


def _save(table: Table, key: Column[Any], fixed: frozenset[str] = frozenset()) -> Executable:
    """A row, or for one with this key that is there the values that are not `fixed`."""
    new = sqlite.insert(table)
    return new.on_conflict_do_update(
        index_elements=[key],
        set_={c.name: new.excluded[c.name] for c in table.c if c.name != key.name and c.name not in fixed},
    )


def _insert_delivery() -> Executable:
    """
    A new delivery.

    It leads its lane (its call's deliveries to its webhook) unless one is pending there already.
    """
    new = _given("new", NEW_DELIVERY)
    older = deliveries.alias("older")
    waits = exists().where(
        older.c.call == new.c.call, older.c.webhook == new.c.webhook, older.c.status == PENDING
    )
    leads = and_(new.c.status == PENDING, ~waits)
    return insert(deliveries).from_select(
        [*NEW_DELIVERY, deliveries.c.ready_at],
        select(*(new.c[c.name] for c in NEW_DELIVERY), case((leads, new.c.due_at))),
    )


def _save_standing() -> Executable:
    """
    A delivery as it stands after an attempt.

    One settled meanwhile (its webhook was removed) does not become pending again.
    """
    after = _given(
        "standing",
        [
            deliveries.c.id,
            deliveries.c.status,
            deliveries.c.attempts,
            deliveries.c.due_at,
            deliveries.c.spent,
            deliveries.c.error_class,
            deliveries.c.answered,
        ],
    )
    still_leads = and_(after.c.status == PENDING, deliveries.c.ready_at.is_not(None))
    return (
        update(deliveries)
        .values(
            status=after.c.status,
            attempts=after.c.attempts,
            due_at=after.c.due_at,
            spent=after.c.spent,
            error_class=after.c.error_class,
            answered=after.c.answered,
            ready_at=case((still_leads, after.c.due_at)),
        )
        .where(deliveries.c.id == after.c.id, or_(after.c.status != PENDING, deliveries.c.status == PENDING))
    )


def _advance_lane() -> Executable:
    """The oldest pending delivery of a lane leads it."""
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


def _add_hourly() -> Executable:
    """Sums of an hour, added to those that are there."""
    new = sqlite.insert(hourly)
    return new.on_conflict_do_update(
        index_elements=[hourly.c.hour, hourly.c.cube],
        set_={name: hourly.c[name] + new.excluded[name] for name in HOURLY},
    )


def _add_registration_change() -> Executable:
    """A change of state; nothing if the cube's registration stands as before."""
    kept = [c for c in registration_changes.c if c is not registration_changes.c.id]
    new = _given("new", kept)
    unchanged = exists().where(registrations.c.cube == new.c.cube, registrations.c.state == new.c.state)
    return insert(registration_changes).from_select(kept, select(*new.c).where(~unchanged))


INSERT_NOTIFICATION = sqlite.compiled(insert(notifications))
SAVE_CALL = sqlite.compiled(
    _save(calls, calls.c.id, fixed=frozenset({"cube", "gateway_call_id", "started_at"}))
)
ADD_NUMBER = sqlite.compiled(sqlite.insert(numbers).on_conflict_do_nothing())
ADD_HOURLY = sqlite.compiled(_add_hourly())
INSERT_EVENT = sqlite.compiled(insert(events))
INSERT_DELIVERY = sqlite.compiled(_insert_delivery())
INSERT_ATTEMPT = sqlite.compiled(insert(attempts))
SAVE_STANDING = sqlite.compiled(_save_standing())
ADVANCE_LANE = sqlite.compiled(_advance_lane())
ADD_REGISTRATION_CHANGE = sqlite.compiled(_add_registration_change())
SAVE_REGISTRATION = sqlite.compiled(_save(registrations, registrations.c.cube))
