"""Events in the order they happened, to tell them once more."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, select

from cubehook.store.schema import events

_AFTER = (
    select(events.c.id, events.c.cube, events.c.granularity, events.c.state, events.c.body)
    .where(events.c.id > bindparam("after"))
    .order_by(events.c.id)
    .limit(bindparam("most"))
)


_OF_CALL = select(events.c.id, events.c.body).where(events.c.call == bindparam("call"))


class _Identified(msgspec.Struct):
    event_id: str


_identified = msgspec.json.Decoder(_Identified).decode


class Told(msgspec.Struct, frozen=True, gc=False):
    """An event as it was told: `event_id` is its public id, `body` its `full` payload, or a notice's."""

    id: int
    event_id: str
    cube: str
    granularity: str
    state: str
    body: str


def events_after(connection: Connection, after: int, most: int) -> list[Told]:
    """The `most` oldest events of all kinds, notices too, whose ids are greater than `after`."""
    rows = connection.execute(_AFTER, {"after": after, "most": most})
    return [Told(row.id, _identified(row.body).event_id, *row[1:]) for row in rows]


def event_named(connection: Connection, call: int, event_id: str) -> int | None:
    """The id of the call's event whose public id is `event_id`; None if it is not kept."""
    for id, body in connection.execute(_OF_CALL, {"call": call}):
        if _identified(body).event_id == event_id:
            return int(id)
    return None
