"""Two weeks of an office's calls, put into a database before the service has it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

from cubehook.calls.payload import call_event
from cubehook.events import Call, CallState, Direction, Event, Granularity, Micros, Outcome
from cubehook.ids import Ids
from cubehook.store import migrate, sqlite
from cubehook.store.rows import Accepted, Rows

SECOND: Micros = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
DAYS = 14

_OF_A_DAY = (0, 0, 0, 0, 0, 1, 4, 16, 38, 52, 50, 41, 24, 33, 47, 49, 40, 26, 11, 6, 3, 2, 1, 0)
"""Calls in each hour of a day of work."""
_ENDS = (
    (Outcome.ANSWERED, 16, 78),
    (Outcome.MISSED, 19, 9),
    (Outcome.ABANDONED, 16, 6),
    (Outcome.BUSY, 17, 5),
    (Outcome.REJECTED, 21, 1),
    (Outcome.FAILED, 38, 1),
)
_CUBES = (("hq", 3), ("branch", 1))
_CALLED = (("+12515550100", 9), ("+12515550110", 5), ("+12515550142", 3), ("+12515550177", 2))


def put(path: Path, until: Micros) -> None:
    """Make the database at `path`, with calls up to that time; the same ones each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    migrate.prepare(sqlite.writer_engine(path), path, until)
    chance = Random(7)
    calls = list(_calls(chance, until))
    with closing(sqlite3.connect(path)) as database, database:
        Rows(_kept(calls, Ids(chance.getrandbits))).write(database.executemany)
        database.executemany("INSERT INTO samples VALUES (?, ?, ?)", _in_progress(calls, until))


def _calls(chance: Random, until: Micros) -> Iterator[Call]:
    ids = Ids(chance.getrandbits)
    callers = [
        f"+1{chance.choice((251, 334, 205))}{chance.randrange(2_000_000, 9_999_999)}" for _ in range(300)
    ]
    begin = (until - DAYS * DAY) // HOUR * HOUR
    for hour in range(begin, until, HOUR):
        day, of_day = hour // DAY, hour // HOUR % 24
        # The epoch began on a Thursday.
        share = 0.08 if (day + 3) % 7 >= 5 else 1.0
        count = round(_OF_A_DAY[of_day] * share * chance.uniform(0.75, 1.25))
        for at in sorted(hour + chance.randrange(HOUR) for _ in range(count)):
            if at < until - 10 * MINUTE:
                # Few call often.
                yield _call(chance, ids, at, callers[int(len(callers) * chance.random() ** 2.5)])


def _call(chance: Random, ids: Ids, at: Micros, caller: str) -> Call:
    outcome, cause, _ = chance.choices(_ENDS, [weight for _, _, weight in _ENDS])[0]
    ring = round(chance.lognormvariate(2.0, 0.5) * SECOND)
    call = Call(
        id=ids.next(at),
        cube=_one(chance, _CUBES),
        gateway_call_id=str(at % 100_000),
        started_at=at,
        last_heard_at=at,
        direction=Direction.INCOMING,
        calling_number=caller,
        called_number=_one(chance, _CALLED),
        disconnect_cause=cause,
    )
    if outcome not in (Outcome.BUSY, Outcome.FAILED):
        call.alerting_at = at + SECOND // 5
    if outcome is Outcome.ANSWERED:
        call.connected_at = at + ring
        ring += round(chance.lognormvariate(4.9, 0.8) * SECOND)
    call.disconnected_at = call.last_heard_at = at + ring
    call.outcome = outcome
    call.sequence = 1
    return call


def _one(chance: Random, of: tuple[tuple[str, int], ...]) -> str:
    return chance.choices([value for value, _ in of], [weight for _, weight in of])[0]


def _kept(calls: list[Call], ids: Ids) -> Iterator[Accepted]:
    for call in calls:
        at = call.last_heard_at
        payload = call_event(call, CallState.DISCONNECTED, at)
        event = Event(
            id=ids.next(at),
            call=call.id,
            cube=call.cube,
            granularity=Granularity.CALL,
            at=at,
            payload=payload,
        )
        yield Accepted(None, [call], [event], [])


def _in_progress(calls: list[Call], until: Micros) -> Iterator[tuple[str, int, int]]:
    active: Counter[tuple[str, int]] = Counter()
    for call in calls:
        for minute in range(call.started_at // MINUTE, call.last_heard_at // MINUTE + 1):
            active[call.cube, minute] += 1
            active["", minute] += 1
    for minute in range((until - DAYS * DAY) // MINUTE, until // MINUTE):
        for cube in ("", *(name for name, _ in _CUBES)):
            yield cube, minute, active[cube, minute]
