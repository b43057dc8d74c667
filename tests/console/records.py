"""Calls and deliveries that a test makes up, answered as the API answers them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from cubehook.api.calls import (
    CallListed,
    Calls,
    CallsQuery,
    CallWhole,
    DeliveryTried,
    EventTold,
    Leg,
    NotificationTold,
)
from cubehook.api.deliveries import (
    DaysQuery,
    Deliveries,
    DeliveriesQuery,
    DeliveryDay,
    DeliveryDays,
    DeliveryListed,
    DeliveryWhole,
)
from cubehook.api.errors import ApiError, NotFoundError
from cubehook.api.exchanges import AttemptView
from cubehook.api.operations import Caller, operation
from cubehook.api.views import SentAgain, WebhooksQuery
from cubehook.events import CallEvent, CallState, Direction, Granularity, Micros, Outcome, iso
from cubehook.ids import first_id, id_text
from cubehook.records import DeliveryStatus, ErrorClass
from cubehook.store.histories import LeftOut
from tests.console.support import NOW

SECOND: Micros = 1_000_000
DAY = 24 * 3600 * SECOND

FROM = "+12517676234"
TO = "+12512501663"


def an_id(before_now: Micros = 0) -> str:
    """The id of something that happened so long before now."""
    return id_text(first_id(NOW - before_now))


def call(before_now: Micros = 60 * SECOND, **changes: Any) -> CallListed:
    """A call that began so long ago, rang for twelve seconds and was missed."""
    at = NOW - before_now
    missed = CallListed(
        id=an_id(before_now),
        cube="hq",
        calling_number=FROM,
        called_number=TO,
        direction=Direction.INCOMING,
        state=CallState.DISCONNECTED,
        outcome=Outcome.MISSED,
        inferred=False,
        started_at=iso(at),
        alerting_at=iso(at + SECOND // 2),
        connected_at=None,
        disconnected_at=iso(at + 12 * SECOND + SECOND // 2),
        ring_seconds=12.0,
        talk_seconds=None,
    )
    return msgspec.structs.replace(missed, **changes)


def live(state: CallState, before_now: Micros, **changes: Any) -> CallListed:
    """A call in progress."""
    connected = iso(NOW - before_now + 8 * SECOND) if state is CallState.CONNECTED else None
    return call(
        before_now, state=state, outcome=None, connected_at=connected, disconnected_at=None, **changes
    )


def leg(number: int, direction: Direction, **changes: Any) -> Leg:
    """A leg of `call()`."""
    at = NOW - 60 * SECOND
    missed = Leg(
        connection_id=str(20 + number),
        direction=direction,
        state="DISCONNECTED",
        calling_number=FROM,
        called_number=TO,
        interface="192.0.2.10",
        route="ITSP",
        codec="g711ulaw",
        guid=None,
        alerting_at=iso(at + SECOND // 2),
        connected_at=None,
        disconnected_at=iso(at + 12 * SECOND + SECOND // 2),
        disconnect_cause=19,
        media=None,
    )
    return msgspec.structs.replace(missed, **changes)


def notification(after: float, message: str, connection: int = 21, body: str | None = "") -> NotificationTold:
    """What the gateway told of `call()` so many seconds after it began."""
    if body == "":
        body = (
            '<?xml version="1.0"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope"><SOAP:Body>'
            f"<n><connData><connID>{connection}</connID></connData><event><{message}/></event></n>"
            "</SOAP:Body></SOAP:Envelope>"
        )
    return NotificationTold(id=an_id(), at=_after(after), message=message, body=body)


def event(after: float, state: CallState, sequence: int, **changes: Any) -> EventTold:
    """An event of `call()`."""
    payload = CallEvent(
        call_state=state,
        called_number=TO,
        calling_number=FROM,
        timestamp=_after(after),
        event_id=f"EVENT{sequence}",
        sequence=sequence,
        cube="hq",
        call_id=an_id(60 * SECOND),
        guid=None,
        direction=Direction.INCOMING,
        original_called_number=None,
        redirected_to=None,
        calling_withheld=False,
        alerting_at=None,
        connected_at=None,
        disconnected_at=None,
        ring_seconds=None,
        talk_seconds=None,
        outcome=None,
        disconnect_cause=None,
        disconnect_text=None,
        route=None,
        codec=None,
        inferred=False,
        connections=[],
    )
    told = EventTold(
        event_id=payload.event_id,
        at=_after(after),
        state=state,
        granularity=Granularity.CALL,
        payload=payload,
    )
    return msgspec.structs.replace(told, **changes)


def _after(seconds: float) -> str:
    return iso(NOW - 60 * SECOND + round(seconds * SECOND))


def attempt(number: int, after: float = 1.0, **changes: Any) -> AttemptView:
    """An attempt that was answered 200, so many seconds after `call()` began."""
    taken = AttemptView(
        id=an_id(number),
        number=number,
        started_at=_after(after),
        duration=200_000,
        phases={"connecting": 50_000, "waiting": 120_000, "reading": 30_000},
        delivered=True,
        method="POST",
        url="https://crm.example/calls?token=***",
        request_headers={"Content-Type": "application/json", "Authorization": "***"},
        request_body='{"call_state":"ALERTING","n":1.0}',
        status=200,
        response_headers={"Server": "nginx"},
        response_body='{"ok":true}',
        remote_address="192.0.2.9:443",
        error_class=None,
        error=None,
        note=None,
    )
    return msgspec.structs.replace(taken, **changes)


REFUSED: dict[str, Any] = {
    "delivered": False,
    "status": 503,
    "error_class": ErrorClass.HTTP,
    "error": "the receiver answered 503 Service Unavailable: upstream is down",
}
"""What makes an attempt one that failed."""


def _kept(before_now: Micros) -> dict[str, Any]:
    return {
        "id": an_id(before_now),
        "webhook": "crm",
        "status": DeliveryStatus.DELIVERED,
        "at": iso(NOW - before_now),
        "due_at": None,
        "error_class": None,
        "answered": 200,
        "redelivery": False,
        "call": an_id(before_now),
        "cube": "hq",
        "event_id": "EVENT1",
        "granularity": Granularity.CALL,
        "state": "ALERTING",
        "calling_number": FROM,
        "called_number": TO,
    }


def delivery(before_now: Micros = 60 * SECOND, **changes: Any) -> DeliveryListed:
    """A delivery of what happened so long ago; delivered at once."""
    return DeliveryListed(**{**_kept(before_now), "attempts": 1, **changes})


FAILED: dict[str, Any] = {
    "status": DeliveryStatus.FAILED,
    "error_class": ErrorClass.HTTP,
    "answered": 503,
}
"""What makes a delivery one that was given up."""


def whole_delivery(*attempts: AttemptView, **changes: Any) -> DeliveryWhole:
    """A delivery with its attempts."""
    fields: dict[str, Any] = {
        **_kept(60 * SECOND),
        "attempts": list(attempts),
        "attempts_left_out": 0,
        "event": None,
        "notice": None,
        "call_summary": None,
    }
    return DeliveryWhole(**{**fields, **changes})


def tried(*attempts: AttemptView, **changes: Any) -> DeliveryTried:
    """A call's delivery with its attempts."""
    return DeliveryTried(**{**_kept(60 * SECOND), "attempts": list(attempts), **changes})


def whole_call(**changes: Any) -> CallWhole:
    """`call()` with a timeline."""
    fields: dict[str, Any] = {
        **msgspec.structs.asdict(call()),
        "gateway_call_id": "11",
        "guid": "9364550FD96211E28F0D9C9C52CD806F",
        "original_called_number": None,
        "redirected_to": None,
        "calling_withheld": False,
        "disconnect_cause": 19,
        "disconnect_text": "No answer from user (user alerted)",
        "connections": [leg(1, Direction.INCOMING), leg(2, Direction.OUTGOING)],
        "notifications": [notification(0, "created"), notification(0.5, "alerting", 22)],
        "events": [event(0.5, CallState.ALERTING, 1)],
        "deliveries": [tried(attempt(1, 0.6, **REFUSED), attempt(2, 2.7))],
        "left_out": LeftOut(),
    }
    return CallWhole(**{**fields, **changes})


class Records:
    """Answers with what it holds, and remembers what was asked: `(operation, query)`."""

    def __init__(self) -> None:
        self.calls: list[CallListed] = []
        self.next: str | None = None
        self.live: list[CallListed] = []
        self.call: CallWhole | None = None
        self.deliveries: list[DeliveryListed] = []
        self.failed: list[DeliveryListed] = []
        self.failed_next: str | None = None
        self.delivery: DeliveryWhole | None = None
        self.webhooks = [
            SimpleNamespace(
                id="crm", name="CRM Call Events", enabled=True, disabled_reason=None, held_until=None
            )
        ]
        self.cubes = [SimpleNamespace(id="hq", calls_active=4)]
        self.days: list[DeliveryDay] = []
        self.refusal: ApiError | None = None
        self.asked: list[tuple[str, Any]] = []

    def queries(self, operation: str) -> list[Any]:
        """What was asked of an operation."""
        return [query for name, query in self.asked if name == operation]

    @operation("GET", "/calls", query=CallsQuery, result=Calls)
    async def list_calls(self, caller: Caller, query: CallsQuery) -> Calls:
        if query.state in (CallState.ALERTING, CallState.CONNECTED) and query.limit == 200:
            found = [call for call in self.live if call.state is query.state]
            return Calls(items=found[: query.limit], next=an_id(5) if len(found) > query.limit else None)
        self.asked.append(("list_calls", query))
        return Calls(items=self.calls, next=self.next)

    @operation("GET", "/calls/{call}", result=CallWhole)
    async def get_call(self, caller: Caller, call: str) -> CallWhole:
        if self.call is None:
            raise NotFoundError(f"There is no call {call}")
        return self.call

    @operation("GET", "/deliveries", query=DeliveriesQuery, result=Deliveries)
    async def list_deliveries(self, caller: Caller, query: DeliveriesQuery) -> Deliveries:
        if query.status is DeliveryStatus.FAILED and query.limit != 100:
            self.asked.append(("failed", query))
            if query.limit == 1:
                within = [
                    each for each in self.failed if iso(query.since or 0) <= each.at < iso(query.until or 0)
                ]
                return Deliveries(items=within[:1], next=None)
            if self.failed_next is not None:
                return Deliveries(items=self.failed[:1], next=self.failed_next)
            return Deliveries(items=self.failed, next=None)
        self.asked.append(("list_deliveries", query))
        return Deliveries(items=self.deliveries, next=self.next)

    @operation("GET", "/deliveries/days", query=DaysQuery, result=DeliveryDays)
    async def count_deliveries(self, caller: Caller, query: DaysQuery) -> DeliveryDays:
        self.asked.append(("count_deliveries", query))
        return DeliveryDays(items=self.days)

    @operation("GET", "/deliveries/{delivery}", result=DeliveryWhole)
    async def get_delivery(self, caller: Caller, delivery: str) -> DeliveryWhole:
        if self.delivery is None:
            raise NotFoundError(f"There is no delivery {delivery}")
        return self.delivery

    @operation("POST", "/deliveries/{delivery}/redeliver", result=SentAgain)
    async def redeliver_one(self, caller: Caller, delivery: str) -> SentAgain:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("redeliver_one", (caller.name, delivery)))
        return SentAgain(id=delivery, webhook="crm", event="EVENT1", status=DeliveryStatus.PENDING)

    @operation("GET", "/webhooks", query=WebhooksQuery, result=msgspec.Struct)
    async def list_webhooks(self, caller: Caller, query: WebhooksQuery) -> Any:
        return SimpleNamespace(items=self.webhooks, next=None)

    @operation("GET", "/webhooks/{webhook}", result=msgspec.Struct)
    async def get_webhook(self, caller: Caller, webhook: str) -> Any:
        for known in self.webhooks:
            if known.id == webhook:
                return known
        raise NotFoundError(f"There is no webhook {webhook}")

    @operation("GET", "/cubes", query=WebhooksQuery, result=msgspec.Struct)
    async def list_cubes(self, caller: Caller, query: WebhooksQuery) -> Any:
        return SimpleNamespace(items=self.cubes, next=None)
