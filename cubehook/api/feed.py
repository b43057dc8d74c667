"""
Events as they happen: `/events`, by Server-Sent Events.

Who comes back with the id of the last event it got is told first, from the database, what it missed.  A
client is written to as fast as it reads; one that lags far behind is cut off, and may come back.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, TypeAlias

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.api.errors import ApiError, UnavailableError
from cubehook.api.operations import Caller, Stream, operation
from cubehook.config_rules import rule
from cubehook.events import CallEvent, CallState, Event, Granularity, Micros, full_body, iso, notice_body
from cubehook.ids import first_id, id_text, id_time, parse_id
from cubehook.net.site import LimitedRequest
from cubehook.store.errors import StoreError
from cubehook.store.replay import Told
from cubehook.store.schema import NOTICE

CLIENTS = 64
"""So many are told of events at once."""

QUEUE = 1000
"""Events that may wait for a client to read."""

PAGE = 200
"""Events that are read from the database at once."""

HEARTBEAT_SECONDS = 15.0

BACK: Micros = 24 * 3600 * 1_000_000
"""How far back the database is asked for what a client missed."""

PATIENCE_BEATS = 8
"""Heartbeats in a row that a client may take nothing."""

RETRY_MILLISECONDS = 3000
"""After which a client is asked to come back when its connection breaks."""


_EVENT_ID = re.compile(r"[0-9A-Z]{13}(?:-L?[1-9][0-9]{0,8})?", re.ASCII)


def event_id(text: str) -> str:
    """`text` if it can be an event's id, or a place between events; ValueError if not."""
    if not _EVENT_ID.fullmatch(text):
        raise ValueError
    parse_id(text[:13])
    return text


LastEvent: TypeAlias = Annotated[
    str,
    rule("the id of an event", event_id),
    msgspec.Meta(extra_json_schema={"pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{12}(-L?[1-9][0-9]{0,8})?$"}),
]


class EventsQuery(msgspec.Struct, frozen=True):
    """
    Only events of `cube`, only those of `state`.

    Events of legs, which are told of if a webhook wants them, come with `granularity=connection`.  With
    `notices`, what the service has to tell of itself comes too, whatever the state: of all cubes and
    webhooks, or of `cube` alone.  `last_event_id` stands for the header of that name, for clients that
    cannot give it; the header is what counts.
    """

    cube: str | None = None
    state: CallState | None = None
    granularity: Granularity = Granularity.CALL
    notices: bool = False
    last_event_id: LastEvent | None = None


class EventsHeaders(msgspec.Struct, frozen=True, rename={"last_event_id": "Last-Event-ID"}):
    """The id of the last event that was got: what happened after it comes first."""

    last_event_id: LastEvent | None = None


class History(Protocol):
    """Where events are found that were told before."""

    async def caught_up(self) -> None:
        """Return once all that was told so far can be read."""

    async def events_after(self, after: int, most: int) -> list[Told]:
        """The `most` oldest events with ids greater than `after`; StoreError if they cannot be read."""

    async def event_named(self, call: int, event_id: str) -> int | None:
        """The id of the call's event whose public id is `event_id`; None if it is not kept."""


class Feed:
    """
    Hears of every event and tells it to who follows; `heartbeat` keeps quiet connections open.

    Ids of events grow in the order in which they are heard of.
    """

    _log = Logger()

    def __init__(
        self,
        history: History,
        reactor: IReactorTime,
        now: Callable[[], Micros],
        *,
        clients: int = CLIENTS,
        queue: int = QUEUE,
    ) -> None:
        self.history = history
        self.queue = queue
        self._now = now
        self._clients = clients
        self._followers: set[EventStream] = set()
        self._stopped = False
        self.last = first_id(now())
        """The id of the last event, or less than that of the first."""
        self._loop = LoopingCall(self._beat)
        self._loop.clock = reactor

    def heard(self, event: Event) -> None:
        """Pass on an event; never raises."""
        self.last = max(self.last, event.id)
        if not self._followers:
            return
        try:
            told = _told(event)
            written = _written(told)
            for follower in list(self._followers):
                follower.hear(told, written)
        except Exception:
            self._log.failure("An event could not be passed on to who follows them")

    def stream(self, query: EventsQuery, last: str | None) -> EventStream:
        """What tells the events that `query` asks for; UnavailableError if too many follow already."""
        if self._stopped:
            raise UnavailableError("The service is stopping")
        if len(self._followers) >= self._clients:
            raise UnavailableError(
                f"{self._clients} clients follow the events already, which is as many as may",
                headers={"Retry-After": "60"},
            )
        return EventStream(self, query, last)

    def stop(self) -> None:
        """End what is being followed; nobody may follow any more."""
        self._stopped = True
        for follower in list(self._followers):
            follower.end()

    @property
    def oldest(self) -> int:
        """The least id of an event that is told again."""
        return first_id(max(0, self._now() - BACK))

    @property
    def followers(self) -> int:
        """How many clients there are."""
        return len(self._followers)

    def join(self, follower: EventStream) -> None:
        """Count a client."""
        self._followers.add(follower)
        if not self._loop.running:
            _ = self._loop.start(HEARTBEAT_SECONDS, now=False).addErrback(self._beat_failed)

    def leave(self, follower: EventStream) -> None:
        """Forget a client."""
        self._followers.discard(follower)
        if not self._followers and self._loop.running:
            self._loop.stop()

    def _beat(self) -> None:
        for follower in list(self._followers):
            follower.beat()

    def _beat_failed(self, failure: Failure) -> None:
        self._log.failure("The heartbeat of the event stream ended", failure)


@implementer(IPushProducer)
class EventStream(Stream):
    """One client's events, from the moment it is sent on."""

    _log = Logger()
    content_type = "text/event-stream"

    def __init__(self, feed: Feed, query: EventsQuery, last: str | None) -> None:
        self._feed = feed
        self._query = query
        self._last = last
        self._queue: deque[tuple[int, bytes]] = deque()
        self._live = last is None
        """Events are written when they are heard of."""
        self._queueing = last is None
        """They are remembered, at least."""
        self._paused = False
        self._resumed: Deferred[None] | None = None
        self._silent_beats = 0
        self._checking: Deferred[bool] | None = None
        self._request: LimitedRequest | None = None

    def send(self, request: LimitedRequest, still: Callable[[], Awaitable[Caller]]) -> Deferred[None]:
        """See `Stream.send`."""
        self._request = request
        self._still = still
        over: Deferred[None] = Deferred(lambda _: self._leave())
        self._over = over
        # Nginx would gather what is written, and hand it on much later.
        request.setHeader(b"X-Accel-Buffering", b"no")
        request.registerProducer(self, True)
        self._feed.join(self)
        self._write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        if self._last is None:
            # Who comes back before the first event has something to come back with.
            self._write(f"id: {id_text(self._feed.last)}\n\n".encode())
        else:
            _ = Deferred.fromCoroutine(self._catch_up(self._last)).addErrback(self._broken)
        return over

    # What is heard

    def hear(self, told: Told, written: bytes) -> None:
        """Tell the client of an event, now or when it has read what came before."""
        if not self._queueing or not self._wanted(told):
            return
        if self._live and not self._paused and not self._queue:
            self._write(written)
        elif len(self._queue) >= self._feed.queue:
            self._cut_off()
        else:
            self._queue.append((told.id, written))

    def beat(self) -> None:
        """Show the client, and whatever is in between, that the connection lives; see that it may go on."""
        if not self._paused:
            self._silent_beats = 0
            self._write(b":\n\n")
        else:
            self._silent_beats += 1
            if self._silent_beats > PATIENCE_BEATS:
                self._cut_off()
                return
        if self._checking is None:
            self._checking = checking = Deferred.fromCoroutine(self._may_go_on())
            _ = checking.addCallback(self._checked).addErrback(self._broken)

    async def _may_go_on(self) -> bool:
        try:
            await self._still()
        except ApiError:
            return False
        except StoreError:
            # Whoever was let in stays while nobody can be asked.
            pass
        return True

    def _checked(self, may_go_on: bool) -> None:
        self._checking = None
        if not may_go_on:
            self.end()

    def _wanted(self, told: Told) -> bool:
        query = self._query
        if told.granularity == NOTICE:
            return query.notices and query.cube in (None, told.cube)
        return (
            told.granularity == query.granularity
            and query.cube in (None, told.cube)
            and (query.state is None or told.state == query.state)
        )

    # What was missed

    async def _catch_up(self, last_event: str) -> None:
        """Tell what happened after that; then go on with what is heard, from the very next event on."""
        oldest = self._feed.oldest
        found = await self._place(last_event)
        last = self._feed.last if found is None else max(found, oldest)
        if last != found:
            gap = {"last_event_id": last_event, "told_since": iso(id_time(last))}
            self._write(b"event: gap\ndata: " + msgspec.json.encode(gap) + b"\n\n")
        # While there is much to read, nothing need be remembered: it will be read, too.
        last = await self._read_on(last)
        self._queueing = self._request is not None
        await self._feed.history.caught_up()
        last = await self._read_on(last)
        self._queue = deque(each for each in self._queue if each[0] > last)
        self._live = self._request is not None
        self._flush()

    async def _place(self, last_event: str) -> int | None:
        """The id after which to go on; None if nothing is known of the event."""
        at = parse_id(last_event[:13])
        if len(last_event) == 13:
            return at
        history = self._feed.history
        found = await history.event_named(at, last_event)
        if found is None:
            await history.caught_up()
            found = await history.event_named(at, last_event)
        return found

    async def _read_on(self, last: int) -> int:
        """Tell what can be read of events after `last`; the id of the last of these."""
        while self._request is not None:
            found = await self._feed.history.events_after(last, PAGE)
            for told in found:
                last = told.id
                if self._wanted(told):
                    self._write(_written(told))
            if len(found) < PAGE:
                return last
            if self._paused and self._request is not None:
                self._resumed = Deferred()
                await self._resumed
        return last

    # The connection

    def _write(self, data: bytes) -> None:
        if self._request is not None:
            self._request.write(data)

    def _flush(self) -> None:
        while self._queue and not self._paused:
            self._write(self._queue.popleft()[1])

    def pauseProducing(self) -> None:
        """See IPushProducer: the client reads more slowly than it is written to."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)
        elif self._live:
            self._flush()

    def stopProducing(self) -> None:
        """See IPushProducer; that the client has left is told otherwise."""

    def end(self) -> None:
        """Close the stream in an orderly way."""
        self._leave()
        if not self._over.called:
            self._over.callback(None)

    def _cut_off(self) -> None:
        request = self._request
        self._leave()
        if request is not None and request.channel is not None:
            self._log.info("A client that follows the events reads too slowly, and is cut off")
            request.channel.transport.abortConnection()  # type: ignore[union-attr]

    def _broken(self, failure: Failure) -> None:
        if failure.check(StoreError):
            self._log.warn("Events cannot be told again: {error}", error=str(failure.value))
        else:
            self._log.failure("What a client missed of the events could not be told", failure)
        self.end()

    def _leave(self) -> None:
        """Be done with the client, whatever becomes of its connection."""
        request, self._request = self._request, None
        if request is None:
            return
        self._feed.leave(self)
        self._queueing = self._live = False
        self._queue.clear()
        if request.channel is not None:
            request.unregisterProducer()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            # What is being read ends by itself, having seen that the client has gone.
            resumed.callback(None)


def _told(event: Event) -> Told:
    payload = event.payload
    if isinstance(payload, CallEvent):
        kind, state, body = str(event.granularity), str(payload.call_state), full_body(payload)
    else:
        kind, state, body = NOTICE, str(payload.type), notice_body(payload)
    return Told(event.id, payload.event_id, event.cube, kind, state, body.decode())


def _written(told: Told) -> bytes:
    return f"id: {told.event_id}\nevent: {told.state}\ndata: {told.body}\n\n".encode()


class FeedPart:
    """The operation that follows events."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    @operation("GET", "/events", query=EventsQuery, headers=EventsHeaders, result=EventStream)
    async def follow_events(
        self, caller: Caller, query: EventsQuery | None = None, headers: EventsHeaders | None = None
    ) -> EventStream:
        """
        Every event as it happens, as Server-Sent Events.

        Each has the event's id, its state as the type, and the `full` payload as data.  Who comes back with
        `Last-Event-ID` is told what happened meanwhile, without gap or repeat.  What happened more than a
        day ago is not told again, and neither is what followed an event that is not known: then an event of
        the type `gap` comes first, and its data tells since when events are told.  A comment comes every 15
        seconds.  Whoever reads too slowly is cut off, and may come back.  With `notices=true` there are also
        notices, such as `cube.lost`, of that type.
        """
        query = query or EventsQuery()
        last = headers.last_event_id if headers is not None else None
        return self._feed.stream(query, last if last is not None else query.last_event_id)
