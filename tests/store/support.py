"""Values and stores for the tests of the store."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cubehook.events import Call, CallEvent, CallState, Connection, Direction, Event, Granularity, Micros, iso
from cubehook.ids import Ids, id_text
from cubehook.records import Attempt, Delivery, DeliveryStatus, Notification
from cubehook.rotation import SigningSecrets
from cubehook.store import Store, keyfile
from cubehook.store.sealing import Sealer

reactor: Any = installed_reactor

NOON: Micros = 1_732_363_200_000_000
SECOND = 1_000_000


class Made:
    """Makes values with fresh ids; time goes on by a millisecond with each."""

    def __init__(self) -> None:
        self.ids = Ids(random.Random(7).getrandbits)
        self.now = NOON

    def id(self) -> int:
        self.now += 1000
        return self.ids.next(self.now)

    def call(self, **given: Any) -> Call:
        number = self.id()
        call = Call(id=number, cube="hq", gateway_call_id="25", started_at=self.now, last_heard_at=self.now)
        call.calling_number = "+12517676234"
        call.connections = [Connection("131", Direction.INCOMING, calling_number="+12517676234")]
        for name, value in given.items():
            setattr(call, name, value)
        return call

    def notification(self, call: Call | None, body: bytes = b"<SOAP:Envelope/>") -> Notification:
        return Notification(
            id=self.id(),
            cube="hq",
            call=call.id if call else None,
            at=self.now,
            message="alerting",
            body=body,
        )

    def event(self, call: Call, state: CallState = CallState.ALERTING, **given: Any) -> Event:
        number = self.id()
        payload: dict[str, Any] = {
            "call_state": state,
            "called_number": "+12512501663",
            "calling_number": call.calling_number,
            "timestamp": iso(self.now),
            "event_id": f"{id_text(call.id)}-1",
            "sequence": 1,
            "cube": call.cube,
            "call_id": id_text(call.id),
            "calling_withheld": False,
            "inferred": False,
            "connections": [],
        }
        payload = {name: payload.get(name) for name in CallEvent.__struct_fields__} | given
        return Event(
            id=number,
            call=call.id,
            cube=call.cube,
            granularity=Granularity.CALL,
            at=self.now,
            payload=CallEvent(**payload),
        )

    def delivery(self, event: Event, webhook: str = "crm", due_at: Micros | None = None) -> Delivery:
        return Delivery(
            id=self.id(), webhook=webhook, event=event, due_at=event.at if due_at is None else due_at
        )

    def deliveries(self, call: Call, count: int, webhook: str = "crm") -> list[Delivery]:
        return [self.delivery(self.event(call), webhook) for _ in range(count)]

    def attempt(self, delivery: Delivery, **given: Any) -> Attempt:
        values: dict[str, Any] = {
            "id": self.id(),
            "delivery": delivery.id,
            "number": delivery.attempts,
            "started_at": self.now,
            "duration": 5000,
            "delivered": delivery.status is DeliveryStatus.DELIVERED,
            "method": "POST",
            "url": "https://api.yourcrm.example/calls",
            "request_headers": {"Authorization": "***"},
            "request_body": '{"call_state":"ALERTING"}',
        }
        return Attempt(**values | given)

    def tried(
        self, delivery: Delivery, status: DeliveryStatus, due_at: Micros | None = None
    ) -> tuple[Attempt, Delivery]:
        """What `record` takes after a try that left `delivery` at `status`."""
        delivery.attempts += 1
        delivery.status = status
        if due_at is not None:
            delivery.due_at = due_at
        return self.attempt(delivery), delivery


def until(condition: Any, seconds: float = 20.0) -> Deferred[None]:
    """Fires once `condition()` is true; looks often, and gives up loudly."""

    async def look() -> None:
        end = reactor.seconds() + seconds
        while not condition():
            if reactor.seconds() > end:
                raise AssertionError(f"not within {seconds} s")
            await deferLater(reactor, 0.005, lambda: None)

    return Deferred.fromCoroutine(look())


class StoreCase(TestCase):
    """A test with a folder of its own; stores opened by it are closed after it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "cubehook.db"
        self.made = Made()

    def store(self, path: Path | None = None, **options: Any) -> Store:
        store = Store(path or self.path, reactor, **{"pace": 0.0} | options)
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        return store

    async def opened(self, path: Path | None = None, **options: Any) -> Store:
        store = self.store(path, **options)
        await store.open()
        return store

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What another connection to the database sees."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def sealer(self) -> Sealer:
        """Of this database's key file, as anyone who has both can make it."""
        return Sealer(keyfile.keys(self.path.with_name(keyfile.NAME), may_make=False))

    def kept_secrets(self, webhook: str) -> SigningSecrets:
        """What the database keeps of a webhook's signing secrets."""
        [(sealed,)] = self.rows("SELECT secret FROM webhooks WHERE id = ?", webhook)
        return msgspec.json.decode(self.sealer().unseal(sealed), type=SigningSecrets)

    async def keep(self, store: Store, deliveries: Iterable[Delivery]) -> None:
        """Have the store accept `deliveries`, each with its event."""
        for delivery in deliveries:
            await store.accept(None, [], [delivery.event], [delivery])
