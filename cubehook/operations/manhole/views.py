"""The service's cubes, webhooks, calls and deliveries, as they show themselves at the prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from cubehook.config import Cube
from cubehook.delivery.breaker import State
from cubehook.delivery.means import Status
from cubehook.events import Call, CallState, Micros, Outcome, iso
from cubehook.ids import id_text, parse_id
from cubehook.net.urls import MASK, masked_url
from cubehook.operations.manhole.inside import Inside
from cubehook.operations.manhole.interpreter import MistakeError
from cubehook.operations.manhole.screen import Cell, Column, Painted, Screen, Style, details, table
from cubehook.records import DeliveryStatus, ErrorClass, Registration, RegistrationState
from cubehook.store.histories import (
    CallHistory,
    DeliveryHistory,
    call_history,
    delivery_history,
)
from cubehook.store.lists import CallItem, DeliveryItem, list_calls, list_deliveries
from cubehook.store.paging import Page
from cubehook.times import parse_moment

T = TypeVar("T")

LIMIT = 20
"""Rows that a list has unless asked for more."""

MOST = 1_000

_BODY = 1_000
"""Characters of a response that are shown."""

_REGISTRATIONS = {
    RegistrationState.REGISTERED: Style.GOOD,
    RegistrationState.REGISTERING: Style.WARN,
    RegistrationState.DISABLED: Style.DIM,
}
_DELIVERIES = {
    DeliveryStatus.DELIVERED: Style.GOOD,
    DeliveryStatus.PENDING: Style.WARN,
    DeliveryStatus.FAILED: Style.BAD,
    DeliveryStatus.EXPIRED: Style.DIM,
}


class Shown:
    """What shows itself, fitted to the screen it belongs to; its repr is the same without colours."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self) -> Painted:
        """As it is shown at the prompt."""
        return self._on(self._screen)

    def _on(self, screen: Screen) -> Painted:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._on(Screen(self._screen.width, self._screen.height))


class Fields(Shown):
    """
    Something whole: its fields are attributes, and are what it shows.

    `data` is what has them; `pairs` makes what is shown of it, as it is at that moment.
    """

    def __init__(
        self, screen: Screen, data: Any, pairs: Callable[[], Sequence[tuple[str, str | Cell]]]
    ) -> None:
        super().__init__(screen)
        self._data = data
        self._pairs = pairs

    def _on(self, screen: Screen) -> Painted:
        return details(screen, self._pairs())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._data, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *getattr(type(self._data), "__struct_fields__", dir(self._data))]


class Named(Shown, Generic[T]):
    """Things by their ids, in a table; each is an attribute too."""

    kind = ""

    def keys(self) -> list[str]:
        """Their ids."""
        raise NotImplementedError

    def _get(self, id: str) -> T:
        raise NotImplementedError

    def __getitem__(self, id: str) -> T:
        if id not in self.keys():
            known = ", ".join(self.keys()[:20]) or "none"
            raise MistakeError(f"There is no {self.kind} {id!r}; there is: {known}")
        return self._get(id)

    def __getattr__(self, name: str) -> T:
        if name.startswith("_") or name not in self.keys():
            raise AttributeError(f"there is no {self.kind} {name!r}")
        return self._get(name)

    def __dir__(self) -> list[str]:
        return ["keys", *self.keys()]

    def __iter__(self) -> Iterator[T]:
        return iter([self._get(id) for id in self.keys()])

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, id: object) -> bool:
        return id in self.keys()


class CubesView(Named[Fields]):
    """The cubes."""

    kind = "cube"

    def __init__(self, inside: Inside, screen: Screen) -> None:
        super().__init__(screen)
        self._inside = inside

    def keys(self) -> list[str]:
        return sorted(self._inside.cubes.known)

    def _on(self, screen: Screen) -> Painted:
        if not self.keys():
            return Painted("There are no cubes.")
        columns = (
            Column("cube", cut=True),
            Column("registration"),
            Column("for", right=True, spare=1),
            Column("last heard", right=True, spare=2),
            Column("calls", right=True),
            Column("why", cut=True, spare=3),
        )
        return table(screen, columns, map(self._row, self.keys()))

    def _row(self, id: str) -> list[str | Cell]:
        now = self._inside.now()
        registration = self._inside.cubes.registration(id)
        trouble = registration.state is not RegistrationState.REGISTERED
        return [
            id,
            registered(registration.state),
            span(now - registration.since),
            ago(registration.last_message_at, now),
            f"{self._inside.cubes.active(id):,}",
            (registration.last_error or registration.reason) if trouble else "",
        ]

    def _get(self, id: str) -> Fields:
        return Fields(self._screen, self._inside.cubes.known[id], partial(self._pairs, id))

    def _pairs(self, id: str) -> list[tuple[str, str | Cell]]:
        cubes = self._inside.cubes
        cube = cubes.known.get(id)
        if cube is None:
            return [("cube", id), ("", Cell("It was removed.", Style.BAD))]
        pairs: list[tuple[str, str | Cell]] = [("cube", id)]
        if cube.description:
            pairs.append(("description", cube.description))
        pairs += registration_pairs(self._inside.cubes.registration(id), self._inside.now())
        pairs += [
            ("provider URL", masked_url(cube.provider_url)),
            *secure_mode(cube),
            ("application URL", cube.application_url),
            ("region", cube.default_region or "none: numbers stay as the gateway gives them"),
            ("allowed from", ", ".join(cube.allow_from) or "anywhere"),
            ("calls", f"{cubes.active(id):,} in progress"),
            ("since the start", ", ".join(f"{name} {count:,}" for name, count in cubes.counts(id).items())),
        ]
        return pairs


def secure_mode(cube: Cube) -> list[tuple[str, str | Cell]]:
    """What is to be told of a cube's TLS: nothing where there is none."""
    if not cube.provider_url.startswith("https:"):
        return []
    trusted = f"by {cube.ca_file}" if cube.ca_file else "by the machine's authorities"
    trusted = "pinned" if cube.pins else trusted
    pairs: list[tuple[str, str | Cell]] = [("its certificate", trusted)]
    if cube.tls_minimum < "1.2":
        pairs.append(("oldest TLS", Cell(f"{cube.tls_minimum}, which is not safe", Style.BAD)))
    return pairs


class WebhooksView(Named[Fields]):
    """The webhooks."""

    kind = "webhook"

    def __init__(self, inside: Inside, screen: Screen) -> None:
        super().__init__(screen)
        self._inside = inside

    def keys(self) -> list[str]:
        return sorted(self._inside.webhooks.known)

    def _on(self, screen: Screen) -> Painted:
        if not self.keys():
            return Painted("There are no webhooks.")
        columns = (
            Column("webhook", cut=True),
            Column("state"),
            Column("pending", right=True),
            Column("under way", right=True, spare=5),
            Column("failures", right=True, spare=4),
            Column("to", cut=True, spare=3),
            Column("why", cut=True, spare=2),
        )
        return table(screen, columns, map(self._row, self.keys()))

    def _row(self, id: str) -> list[str | Cell]:
        webhook, status = self._inside.webhooks.known[id], self._inside.webhooks.status(id)
        return [
            id,
            self._state(id),
            f"{status.pending:,}",
            str(status.in_flight),
            str(status.failures),
            masked_url(webhook.url) or webhook.transport,
            self._inside.webhooks.disabled.get(id) or status.problem or self._trouble(status),
        ]

    def _trouble(self, status: Status) -> str:
        now, parts = self._inside.now(), []
        if status.failing_since is not None:
            parts.append(f"failing for {span(now - status.failing_since)}")
        if status.held_until is not None:
            parts.append(f"next try in {span(status.held_until - now)}")
        return ", ".join(parts)

    def _state(self, id: str) -> Cell:
        webhook, status = self._inside.webhooks.known[id], self._inside.webhooks.status(id)
        if id in self._inside.webhooks.disabled:
            return Cell("disabled", Style.BAD)
        if not webhook.enabled or not status.enabled:
            return Cell("off", Style.DIM)
        if status.state is not State.CLOSED or status.held_until is not None:
            return Cell("held back", Style.BAD)
        if status.problem is not None:
            return Cell("in trouble", Style.BAD)
        return Cell("failing", Style.WARN) if status.failures else Cell("healthy", Style.GOOD)

    def _get(self, id: str) -> Fields:
        return Fields(self._screen, self._inside.webhooks.known[id], partial(self._pairs, id))

    def _pairs(self, id: str) -> list[tuple[str, str | Cell]]:
        webhook = self._inside.webhooks.known.get(id)
        if webhook is None:
            return [("webhook", id), ("", Cell("It was removed.", Style.BAD))]
        status, now = self._inside.webhooks.status(id), self._inside.now()
        pairs: list[tuple[str, str | Cell]] = [("webhook", id), ("state", self._state(id))]
        if status.held_until is not None:
            pairs.append(
                ("held until", f"{moment(status.held_until)} ({span(status.held_until - now)} from now)")
            )
        if status.failing_since is not None:
            pairs.append(
                ("failing", f"{status.failures:,} times in a row, for {span(now - status.failing_since)}")
            )
        reason = self._inside.webhooks.disabled.get(id)
        if reason is not None:
            pairs += [("why", reason), ("to end that", f"enable({id!r})")]
        if status.problem is not None:
            pairs.append(("problem", Cell(status.problem, Style.BAD)))
        pairs += [
            ("pending", f"{status.pending:,}, {status.resident:,} of them in memory"),
            ("under way", str(status.in_flight)),
            ("name", webhook.name),
            ("description", webhook.description),
            ("transport", webhook.transport),
            ("to", f"{webhook.method} {masked_url(webhook.url)}" if webhook.url else ""),
            ("headers", ", ".join(f"{name}: {MASK}" for name in webhook.headers)),
            ("states", ", ".join(webhook.states)),
            ("cubes", ", ".join(webhook.cubes) or "all"),
            ("payload", webhook.payload),
        ]
        return [(name, value) for name, value in pairs if value]


class Rows(Shown, Generic[T]):
    """
    A page of a list, newest first: indexed by number, iterable.

    `more`, if the list goes on, is the next page once it is awaited.
    """

    def __init__(
        self,
        screen: Screen,
        items: Sequence[T],
        draw: Callable[[Screen, Sequence[T]], Painted],
        more: Callable[[], Awaitable[Rows[T]]] | None,
    ) -> None:
        super().__init__(screen)
        self.items = list(items)
        self._draw = draw
        self._more = more

    @property
    def more(self) -> Awaitable[Rows[T]]:
        if self._more is None:
            raise MistakeError("That is the end of the list.")
        return self._more()

    def _on(self, screen: Screen) -> Painted:
        shown = self._draw(screen, self.items)
        if self._more is None:
            return shown
        return Painted(shown + "\n" + screen.paint("The list goes on: _.more", Style.DIM))

    def __getitem__(self, number: Any) -> Any:
        return self.items[number]

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Later(Generic[T]):
    """What is known once it is awaited, which the prompt does for whoever types it."""

    def __init__(self, work: Callable[[], Awaitable[T]], told: str) -> None:
        self._work = work
        self._told = told

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work().__await__()

    def __repr__(self) -> str:
        return f"<{self._told}: await it>"


class Listed(Generic[T]):
    """
    A list in the database, newest first.

    Awaited, it is its first page; called, that of what filters choose; by an id or a row, one thing whole.
    `async for` goes through all of it.
    """

    kind = ""
    filters: dict[str, str] = {}

    def __init__(self, inside: Inside, screen: Screen) -> None:
        self._inside = inside
        self._screen = screen

    def __await__(self) -> Generator[Any, Any, Rows[Any]]:
        return self._page({}, None, LIMIT).__await__()

    def __call__(self, *, limit: Any = LIMIT, **filters: Any) -> Later[Rows[Any]]:
        chosen = self._chosen(filters)
        if not isinstance(limit, int) or not 0 < limit <= MOST:
            raise MistakeError(f"limit: a number from 1 to {MOST}")
        return Later(partial(self._page, chosen, None, limit), f"{self.kind} that are to be read")

    def __getitem__(self, id: Any) -> Later[Any]:
        number = self._id(id)
        return Later(partial(self._one, number), f"{self.kind} {id_text(number)}, which is to be read")

    def __iter__(self) -> Iterator[Any]:
        raise MistakeError(
            f"The {self.kind} are in the database: for each in await {self.kind}(limit=100): ...\n"
            f"or, to go through all of them: async for each in {self.kind}: ..."
        )

    async def __aiter__(self) -> AsyncIterator[Any]:
        page: Rows[Any] | None = await self._page({}, None, 200)
        while page is not None:
            for item in page:
                yield item
            page = None if page._more is None else await page._more()

    def __repr__(self) -> str:
        return f"<{self.kind}: type it alone, or await it>"

    async def _page(self, filters: dict[str, Any], cursor: int | None, limit: int) -> Rows[Any]:
        items: list[Any] = []
        while True:
            page = await self._inside.store.read(
                partial(self._list, cursor=cursor, limit=min(limit - len(items), 200), **filters)
            )
            items += map(self._item, page.items)
            cursor = page.next
            if cursor is None or len(items) >= limit:
                break
        more = None if cursor is None else partial(self._page, filters, cursor, limit)
        return Rows(self._screen, items, self._table, more)

    def _chosen(self, filters: dict[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for name, value in filters.items():
            if name not in self.filters:
                raise MistakeError(f"{name}: {self.kind} are chosen by {', '.join((*self.filters, 'limit'))}")
            try:
                chosen[name] = self._read(name, value)
            except ValueError as error:
                raise MistakeError(f"{name}: {error}") from None
        return chosen

    def _read(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("a text in quotes")
        if name in ("since", "until"):
            return parse_moment(value, self._inside.now())
        return value

    def _id(self, id: Any) -> int:
        if isinstance(id, Fields):
            id = id.id
        if isinstance(id, int):
            return id
        try:
            return parse_id(str(id))
        except ValueError as error:
            raise MistakeError(f"{id!r} is not an id: {error}") from None

    def _list(self, connection: Any, **asked: Any) -> Page[Any]:
        raise NotImplementedError

    def _item(self, item: Any) -> Fields:
        raise NotImplementedError

    def _table(self, screen: Screen, items: Sequence[Any]) -> Painted:
        raise NotImplementedError

    async def _one(self, id: int) -> Any:
        raise NotImplementedError


class CallsView(Listed[CallItem]):
    """Calls: those in progress, and those that ended."""

    kind = "calls"
    filters = dict.fromkeys(("cube", "number", "state", "outcome", "since", "until"), "")

    def _list(self, connection: Any, **asked: Any) -> Page[CallItem]:
        return list_calls(connection, **asked)

    def _read(self, name: str, value: Any) -> Any:
        if name == "state":
            return _member(CallState, str(value).upper())
        if name == "outcome":
            return _member(Outcome, str(value).lower())
        return super()._read(name, value)

    def _item(self, item: CallItem) -> Fields:
        return Fields(self._screen, item, lambda: self._pairs(item))

    def _table(self, screen: Screen, items: Sequence[CallItem]) -> Painted:
        if not items:
            return Painted("There are no such calls.")
        columns = (
            Column("id", spare=1),
            Column("began", spare=3),
            Column("cube", cut=True, spare=2),
            Column("calling", cut=True),
            Column("called", cut=True),
            Column("state"),
            Column("talked", right=True, spare=4),
        )
        now = self._inside.now()
        rows = [
            [
                id_text(item.id),
                clock(item.started_at, now),
                item.cube,
                item.calling_number or "-",
                item.called_number or "-",
                _call_state(item),
                _seconds(self._talked(item)),
            ]
            for item in items
        ]
        return table(screen, columns, rows)

    def _talked(self, item: Call | CallItem) -> float | None:
        if item.connected_at is not None and item.disconnected_at is None:
            return max(0, self._inside.now() - item.connected_at) / 1e6
        return item.talk_seconds

    def _pairs(self, item: Call | CallItem) -> list[tuple[str, str | Cell]]:
        pairs: list[tuple[str, str | Cell]] = [
            ("call", id_text(item.id)),
            ("cube", item.cube),
            ("calling", item.calling_number or "-"),
            ("called", item.called_number or "-"),
            ("direction", item.direction or ""),
            ("began", moment(item.started_at)),
            ("alerting", "" if item.alerting_at is None else moment(item.alerting_at)),
            ("connected", "" if item.connected_at is None else moment(item.connected_at)),
            ("disconnected", "" if item.disconnected_at is None else moment(item.disconnected_at)),
            ("rang", _seconds(item.ring_seconds)),
            ("talked", _seconds(self._talked(item))),
            ("outcome", (item.outcome or "") + (" (its end was inferred)" if item.inferred else "")),
        ]
        return [pair for pair in pairs if pair[1]]

    async def _one(self, id: int) -> Fields:
        history = await self._inside.store.read(lambda connection: call_history(connection, id))
        if history is None:
            raise MistakeError(f"There is no call {id_text(id)}, or it is no longer kept.")
        return Fields(self._screen, history, lambda: self._whole(history))

    def _whole(self, history: CallHistory) -> list[tuple[str, str | Cell]]:
        call = history.call
        pairs = self._pairs(call)
        pairs.append(("legs", "\n".join(
            f"{leg.connection_id}  {leg.direction or '-'}  {leg.state}  "
            f"{leg.calling_number or '-'} -> {leg.called_number or '-'}"
            + (f"  cause {leg.disconnect_cause}" if leg.disconnect_cause is not None else "")
            for leg in call.connections
        )))  # fmt: skip
        pairs.append(
            (
                "told by the gateway",
                "\n".join(f"{moment(each.at)}  {each.message}" for each in history.notifications),
            )
        )
        for tried in history.deliveries:
            item = tried.delivery
            pairs.append(("delivery", Cell(
                f"{id_text(item.id)}  {item.state or '-'} to {item.webhook}  {item.status}, "
                f"attempts: {item.attempts}", _DELIVERIES.get(item.status),
            )))  # fmt: skip
        return pairs


class DeliveriesView(Listed[DeliveryItem]):
    """Deliveries: those that are pending, and those that are over."""

    kind = "deliveries"
    filters = dict.fromkeys(
        ("webhook", "status", "error_class", "call", "number", "cube", "since", "until"), ""
    )

    def _list(self, connection: Any, **asked: Any) -> Page[DeliveryItem]:
        return list_deliveries(connection, **asked)

    def _read(self, name: str, value: Any) -> Any:
        if name == "status":
            return _member(DeliveryStatus, str(value).lower())
        if name == "error_class":
            return _member(ErrorClass, str(value).lower())
        if name == "call":
            return self._id(value)
        return super()._read(name, value)

    def _item(self, item: DeliveryItem) -> Fields:
        return Fields(self._screen, item, lambda: self._pairs(item))

    def _table(self, screen: Screen, items: Sequence[DeliveryItem]) -> Painted:
        if not items:
            return Painted("There are no such deliveries.")
        columns = (
            Column("id"),
            Column("of", spare=2),
            Column("webhook", cut=True),
            Column("event", cut=True, spare=4),
            Column("status"),
            Column("tries", right=True, spare=3),
            Column("answer", cut=True, spare=1),
            Column("next try", right=True, spare=5),
        )
        now = self._inside.now()
        rows: list[list[str | Cell]] = [
            [
                id_text(item.id),
                clock(item.at, now),
                item.webhook,
                item.state or "-",
                Cell(item.status, _DELIVERIES.get(item.status)),
                str(item.attempts),
                _answer(item),
                self._due(item),
            ]
            for item in items
        ]
        return table(screen, columns, rows)

    def _due(self, item: DeliveryItem) -> str:
        """When it is tried next, unless it is over: not before its webhook is."""
        if item.due_at is None:
            return ""
        now, held = self._inside.now(), None
        if item.webhook in self._inside.webhooks.known:
            held = self._inside.webhooks.status(item.webhook).held_until
        at = max(item.due_at, held or 0)
        return f"in {span(at - now)}" if at > now else "now"

    def _pairs(self, item: DeliveryItem) -> list[tuple[str, str | Cell]]:
        pairs: list[tuple[str, str | Cell]] = [
            ("delivery", id_text(item.id)),
            ("webhook", item.webhook),
            ("status", Cell(item.status, _DELIVERIES.get(item.status))),
            ("attempts", str(item.attempts)),
            ("answer", _answer(item)),
            ("next try", self._due(item)),
            ("event", f"{item.state or '-'} ({item.event_id or 'no longer kept'})"),
            ("happened", moment(item.at)),
            ("cube", item.cube or ""),
            ("call", "" if item.call is None else id_text(item.call)),
            ("calling", item.calling_number or ""),
            ("called", item.called_number or ""),
            ("redelivery", "yes" if item.redelivery else ""),
        ]
        return [(name, value) for name, value in pairs if value != ""]

    async def _one(self, id: int) -> Fields:
        history = await self._inside.store.read(lambda connection: delivery_history(connection, id))
        if history is None:
            raise MistakeError(f"There is no delivery {id_text(id)}, or it is no longer kept.")
        return Fields(self._screen, history, lambda: self._whole(history))

    def _whole(self, history: DeliveryHistory) -> list[tuple[str, str | Cell]]:
        pairs = self._pairs(history.delivery)
        for attempt in history.attempts:
            where = f" {attempt.method or ''} {attempt.url}" if attempt.url else ""
            at = f" ({attempt.remote_address})" if attempt.remote_address else ""
            what = "delivered" if attempt.delivered else f"{attempt.error_class}: {attempt.error or ''}"
            said = "" if attempt.status is None else f", answered {attempt.status}"
            took = f"{attempt.duration / 1000:,.0f} ms"
            pairs.append((f"attempt {attempt.number}", Cell(
                f"{moment(attempt.started_at)}{where}{at}\n{what}{said}, {took}",
                Style.GOOD if attempt.delivered else Style.BAD,
            )))  # fmt: skip
            if attempt.phases:
                phases = ", ".join(f"{name} {took / 1000:,.0f} ms" for name, took in attempt.phases.items())
                pairs.append(("", Cell(phases, Style.DIM)))
            if attempt.response_body and not attempt.delivered:
                pairs.append(("", attempt.response_body[:_BODY]))
        left_out = history.left_out.attempts
        if left_out:
            pairs.append(("", f"{left_out:,} attempts are not shown"))
        return pairs


def _member(kind: Any, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"one of {', '.join(kind)}") from None


def _call_state(item: CallItem) -> str | Cell:
    if item.state is CallState.CONNECTED:
        return Cell(item.state, Style.GOOD)
    if item.state is CallState.DISCONNECTED:
        # How it ended tells more than that it did.
        return Cell((item.outcome or item.state) + (", inferred" if item.inferred else ""), Style.DIM)
    return Cell(item.state or "-", Style.WARN)


def _answer(item: DeliveryItem) -> str:
    parts = ("" if item.answered is None else str(item.answered), item.error_class or "")
    return " ".join(part for part in parts if part)


def registered(state: RegistrationState) -> Cell:
    """A registration's state, in its colour."""
    return Cell(state, _REGISTRATIONS.get(state, Style.BAD))


def registration_pairs(registration: Registration, now: Micros) -> list[tuple[str, str | Cell]]:
    """What there is to say of a registration."""
    error = registration.last_error or ""
    pairs: list[tuple[str, str | Cell]] = [
        ("registration", registered(registration.state)),
        ("since", f"{moment(registration.since)} ({span(now - registration.since)})"),
        ("why", registration.reason),
        ("id", registration.registration_id or ""),
        ("last heard", ago(registration.last_message_at, now)),
        ("failures", f"{registration.failure_count:,} in a row" if registration.failure_count else ""),
        ("last error", "" if error in registration.reason else Cell(error, Style.BAD)),
    ]
    return [pair for pair in pairs if pair[1]]


def span(micros: Micros) -> str:
    """A time that passes: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max(0, micros) / 1e6
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86400:,.0f} d"


def ago(at: Micros | None, now: Micros) -> str:
    """How long ago that was."""
    return "never" if at is None else f"{span(now - at)} ago"


def moment(at: Micros) -> str:
    """A time in UTC, to the millisecond."""
    return iso(at)[:23].replace("T", " ") + "Z"


def clock(at: Micros, now: Micros) -> str:
    """A time in UTC as short as it can be told: without the day if that is today."""
    text = iso(at)[:19]
    return text[11:] if text[:10] == iso(now)[:10] else text[5:].replace("T", " ")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f} s"
