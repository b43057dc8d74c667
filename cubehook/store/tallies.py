"""How many deliveries there were in stretches of time, counted no further than is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sqlalchemy import Connection, func, literal, select

from cubehook.events import Micros
from cubehook.ids import first_id
from cubehook.store.schema import deliveries

MOST = 2_000
"""So many are counted of a stretch: thirty such take some ten milliseconds."""


def delivery_tallies(
    connection: Connection, *, bounds: Sequence[Micros], webhook: str | None = None
) -> list[int]:
    """
    How many deliveries to `webhook` (None: to any) there are from each of `bounds` up to the next.

    `MOST` + 1 where there are more than `MOST`.
    """
    return [_count(connection, first_id(begin), first_id(end), webhook) for begin, end in pairwise(bounds)]


def _count(connection: Connection, first: int, before: int, webhook: str | None) -> int:
    some = select(literal(1)).where(deliveries.c.id >= first, deliveries.c.id < before)
    if webhook is not None:
        some = some.where(deliveries.c.webhook == webhook)
    counted = connection.scalar(select(func.count()).select_from(some.limit(MOST + 1).subquery()))
    return counted or 0
