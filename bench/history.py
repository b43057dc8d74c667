"""
A long history to look things up in: 300,000 calls of 90 days, 1,000,000 deliveries; and what is asked of it.

It is made of the rows that the writer makes.  The newest thousand calls have all their notifications and
attempts; the others have none, which nobody meets who looks for something else.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from cubehook.calls.payload import call_event
from cubehook.events import (
    Call,
    CallState,
    Connection,
    Direction,
    Event,
    Granularity,
    Micros,
    Outcome,
    iso,
)
from cubehook.ids import Ids, first_id, id_text, id_time
from cubehook.records import Attempt, Delivery, DeliveryStatus, ErrorClass, Notification
from cubehook.store import migrate, sqlite
from cubehook.store.rows import Accepted, Item, Recorded, Rows

SECOND = 1_000_000
DAYS = 90
GROUP = 5_000
MAIN = "+12515550100"
"""Half of all calls go to it."""


WHOLE = 1_000
"""The newest so many calls have all their notifications and attempts."""

_TOLD = (
    "created",
    "alerting",
    "connected",
    "mediaInfo",
    "mediaInfo",
    "codec",
    "disconnected",
    "stats",
    "stats",
)
_BODY = 2_400
"""Bytes of a notification."""


class History:
    """Calls of 90 days up to `end`, and what came of them; the newest of them and their deliveries."""

    def __init__(self, calls: int, end: Micros) -> None:
        self._random = random.Random(1)
        self.ids = Ids(self._random.getrandbits)
        self._calls = calls
        self.end = end
        self.start = end - DAYS * 86_400 * SECOND
        self.step = DAYS * 86_400 * SECOND // calls
        self.last: list[Call] = []
        self.last_deliveries: list[Delivery] = []

    def items(self) -> Iterator[Item]:
        for place in range(self._calls):
            yield from self._call(place)

    def _call(self, place: int) -> Iterator[Item]:
        chance = self._random
        now = self.start + place * self.step
        # Its last calls came in the first tenth of the time.
        rare = place % 1000 == 7 and place < self._calls // 10
        call = Call(
            id=self.ids.next(now),
            cube="rare" if rare else chance.choices(("hq", "branch", "lab"), (70, 25, 5))[0],
            gateway_call_id=str(place),
            started_at=now,
            last_heard_at=now,
            direction=Direction.INCOMING,
            calling_number=f"+1{chance.randrange(2_000_000_000, 9_999_999_999)}",
            called_number=MAIN if chance.random() < 0.5 else f"+1251555{chance.randrange(200, 600):04}",
        )
        call.connections = [
            Connection(name, direction, calling_number=call.calling_number, called_number=call.called_number)
            for name, direction in (("131", Direction.INCOMING), ("132", Direction.OUTGOING))
        ]
        states = [CallState.ALERTING]
        call.outcome = chance.choices(tuple(Outcome), (7000, 2000, 500, 480, 18, 2))[0]
        open_ = place >= self._calls - 200
        if call.outcome is Outcome.ANSWERED:
            states.append(CallState.CONNECTED)
        if open_:
            call.outcome = None
        else:
            states.append(CallState.DISCONNECTED)
        outcome, call.outcome = call.outcome, None
        for state in states:
            at = now + 5 * SECOND * len(states)
            setattr(call, {"A": "alerting_at", "C": "connected_at", "D": "disconnected_at"}[state[0]], at)
            if state is CallState.DISCONNECTED:
                call.outcome = outcome
            call.sequence += 1
            event = Event(
                id=self.ids.next(at),
                call=call.id,
                cube=call.cube,
                granularity=Granularity.CALL,
                at=at,
                payload=call_event(call, state, at),
            )
            webhooks = ["crm"]
            if chance.random() < 0.2:
                webhooks.append("wallboard")
            if place % 2000 == 11 and place < self._calls // 5:
                webhooks.append("seldom")
            owed = [Delivery(id=self.ids.next(at), webhook=each, event=event, due_at=at) for each in webhooks]
            yield Accepted(None, [call], [event], owed)
            for delivery in owed:
                yield from self._tried(delivery, place)
        if place >= self._calls - WHOLE:
            yield from self._told(call)
            self.last.append(call)

    def _told(self, call: Call) -> Iterator[Item]:
        for place, message in enumerate(_TOLD):
            at = call.started_at + place * SECOND
            body = f"<!-- {message} of {call.id} -->".encode().ljust(_BODY, b"-")
            told = Notification(
                id=self.ids.next(at), cube=call.cube, call=call.id, at=at, message=message, body=body
            )
            yield Accepted(told, [], [], [])

    def _tried(self, delivery: Delivery, place: int) -> Iterator[Item]:
        chance = self._random.random()
        delivery.attempts = 1
        if delivery.webhook == "wallboard" and place > self._calls * 0.9:
            if chance < 0.5:
                return
            delivery.error_class = ErrorClass.CONNECTION_REFUSED
        elif chance < 0.002:
            delivery.status, delivery.error_class, delivery.answered = (
                DeliveryStatus.FAILED,
                ErrorClass.HTTP,
                500,
            )
        elif chance < 0.0022:
            delivery.status, delivery.error_class = DeliveryStatus.EXPIRED, ErrorClass.TLS
        else:
            delivery.status, delivery.answered = DeliveryStatus.DELIVERED, 200
        yield Recorded(self._attempt(delivery) if place >= self._calls - WHOLE else None, delivery)

    def _attempt(self, delivery: Delivery) -> Attempt:
        self.last_deliveries.append(delivery)
        at = delivery.event.at
        return Attempt(
            id=self.ids.next(at),
            delivery=delivery.id,
            number=1,
            started_at=at,
            duration=20_000,
            delivered=delivery.status is DeliveryStatus.DELIVERED,
            method="POST",
            url="https://api.yourcrm.example/calls",
            request_headers={
                "Content-Type": "application/json",
                "Authorization": "***",
                "webhook-id": "x" * 15,
            },
            request_body='{"call_state":"ALERTING"}',
            status=delivery.answered,
            response_headers={"Content-Type": "application/json", "Server": "x"},
            response_body='{"taken": true}',
            error_class=delivery.error_class,
        )


def fill(path: Path, history: History) -> None:
    """Put `history` in beneath the store, with its own rows and statements."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -200000")
    group: list[Item] = []
    for item in history.items():
        group.append(item)
        if len(group) >= GROUP:
            with database:
                Rows(group).write(database.executemany)
            group = []
    with database:
        Rows(group).write(database.executemany)
    database.close()


class Question(NamedTuple):
    """A list that someone asks for: of `calls` or `deliveries`, with these filters."""

    name: str
    of: str
    filters: dict[str, Any]

    @property
    def path(self) -> str:
        """How it is asked for over the API."""
        return f"/{self.of}?{urlencode({name: _text(name, value) for name, value in self.filters.items()})}"


def _text(name: str, value: Any) -> str:
    if name in ("since", "until"):
        return iso(value)
    return id_text(value) if name in ("cursor", "call") else str(value)


def questions(history: History) -> list[Question]:
    """Every kind of list that someone asks for."""
    middle = first_id(history.end - 45 * 86_400 * SECOND)
    week = {"since": history.end - 14 * 86_400 * SECOND, "until": history.end - 7 * 86_400 * SECOND}
    some = history.last[-500]
    number = some.calling_number
    assert number is not None
    found: list[Question] = []

    def calls(name: str, **filters: Any) -> None:
        found.append(Question(f"calls{name}", "calls", filters))

    def deliveries(name: str, **filters: Any) -> None:
        found.append(Question(f"deliveries{name}", "deliveries", filters))

    calls("")
    calls(", 200, deep", limit=200, cursor=middle)
    calls(" of a cube", cube="hq")
    calls(" of a rare cube", cube="rare")
    calls(" in a week", **week)
    calls(" of a rare outcome", outcome=Outcome.FAILED)
    calls(" of an outcome and a cube, deep", outcome=Outcome.BUSY, cube="lab", cursor=middle)
    calls(" in progress", state=CallState.CONNECTED)
    calls(" in progress of a rare cube", state=CallState.CONNECTED, cube="rare")
    calls(" that ended", state=CallState.DISCONNECTED, cube="branch")
    calls(" of a number", number=number)
    calls(" of the main number", number=MAIN)
    calls(" of the main number, failed", number=MAIN, outcome=Outcome.FAILED)
    calls(" of the main number, rare cube", number=MAIN, cube="rare")
    calls(" of four last digits", number=number[-4:])
    calls(" of two last digits", number=number[-2:])
    calls(" of two last digits, rejected", number=number[-2:], outcome=Outcome.REJECTED)
    calls(" of one last digit", number=number[-1:])
    deliveries("")
    deliveries(", 200, deep", limit=200, cursor=middle)
    deliveries(" of a webhook", webhook="crm")
    deliveries(" of a rare webhook", webhook="seldom")
    deliveries(" of a call", call=some.id)
    for status in (DeliveryStatus.PENDING, DeliveryStatus.FAILED, DeliveryStatus.DELIVERED):
        deliveries(f" {status}", status=status)
    deliveries(" expired, deep", status=DeliveryStatus.EXPIRED, cursor=middle)
    deliveries(" delivered of a webhook that fails", status=DeliveryStatus.DELIVERED, webhook="wallboard")
    deliveries(" failed with tls", error_class=ErrorClass.TLS)
    deliveries(" failed with dns", error_class=ErrorClass.DNS)
    deliveries(" failed with http in a week", error_class=ErrorClass.HTTP, **week)
    deliveries(" of a cube", cube="hq")
    deliveries(" of a rare cube", cube="rare")
    deliveries(" of a cube, failed", cube="lab", status=DeliveryStatus.FAILED)
    deliveries(" of a rare cube, failed", cube="rare", status=DeliveryStatus.FAILED)
    deliveries(" of a cube and a webhook", cube="lab", webhook="wallboard")
    deliveries(" of a rare webhook and a cube", cube="hq", webhook="seldom")
    deliveries(" of a number", number=number)
    deliveries(" of the main number", number=MAIN)
    deliveries(" of the main number, failed", number=MAIN, status=DeliveryStatus.FAILED)
    deliveries(" of the main number, rare cube", number=MAIN, cube="rare")
    deliveries(" of two last digits, a cube", number=number[-2:], cube="branch")
    deliveries(" of two last digits, rare webhook", number=number[-2:], webhook="seldom")
    return found


def prepared(path: Path, calls: int) -> History:
    """The history in the database at `path`, which is filled unless it is there."""
    if path.exists():
        with closing(sqlite3.connect(path)) as database:
            (first,) = database.execute("SELECT min(id) FROM calls").fetchone()
        history = History(calls, id_time(first) + DAYS * 86_400 * SECOND)
        for _ in history.items():
            pass
    else:
        history = History(calls, time.time_ns() // 1000)
        path.parent.mkdir(parents=True, exist_ok=True)
        migrate.prepare(sqlite.writer_engine(path), path, time.time_ns() // 1000)
        fill(path, history)
    return history


def sizes(path: Path) -> dict[str, int]:
    """How many rows there are, by table, and how large the file is."""
    with closing(sqlite3.connect(path)) as database:
        rows = {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("calls", "events", "deliveries", "numbers", "hourly", "audit")
        }
    return {**rows, "bytes": path.stat().st_size}
