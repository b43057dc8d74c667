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


class Told(msgspec.Struct, frozen=True, gc=False):
    """An event as it was told: `body` is its `full` payload, or a notice's."""

    id: int
    cube: str
    granularity: str
    state: str
    body: str


def events_after(connection: Connection, after: int, most: int) -> list[Told]:
    """The `most` oldest events of all kinds, notices too, whose ids are greater than `after`."""
    return [Told(*row) for row in connection.execute(_AFTER, {"after": after, "most": most})]
