"""Events as they happen, to real clients of all kinds."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from cubehook.api import feed as rooms
from cubehook.api.errors import UnauthorizedError
from cubehook.api.feed import Feed, FeedPart
from cubehook.api.operations import Api, Caller
from cubehook.events import CallState, Event, Granularity, Notice, NoticeType, notice_body
from cubehook.ids import first_id, id_text
from cubehook.net.site import AccessSite, LimitedRequest
from cubehook.notices import about_cube, about_webhook
from cubehook.records import Registration, RegistrationState
from cubehook.store.errors import StoreError
from cubehook.store.replay import Told
from cubehook.store.schema import NOTICE
from tests.api.support import CRM, NOW, ApiCase, reactor
from tests.store.support import Made

LONG = "+1251767623" * 1000


class Client(Protocol):
    """Asks for the events and reads what comes, unless it is told not to read."""

    def __init__(self, path: str, headers: dict[str, str], reads: bool) -> None:
        self.received = b""
        self.blocks: list[dict[str, str]] = []
        """What came, as an EventSource reads it."""
        self._whole_head = False
        self._rest = self._text = b""
        self.lost: Deferred[None] = Deferred()
        self._path, self._headers, self._reads = path, headers, reads

    def connectionMade(self) -> None:
        lines = [f"GET /api/v1{self._path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())  # type: ignore[union-attr]
        if not self._reads:
            self.read(False)

    def read(self, reads: bool) -> None:
        if reads:
            self.transport.resumeProducing()  # type: ignore[union-attr]
        else:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._whole_head:
            self._rest += data
        elif b"\r\n\r\n" in self.received:
            self._whole_head = True
            self._rest = self.received.partition(b"\r\n\r\n")[2]
        if not self.head.startswith("HTTP/1.1 200"):
            return
        while b"\r\n" in self._rest:
            size, _, rest = self._rest.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            self._text, self._rest = self._text + rest[:length], rest[length + 2 :]
        *complete, self._text = self._text.split(b"\n\n")
        self.blocks += [dict(line.split(":", 1) for line in block.decode().split("\n")) for block in complete]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    @property
    def head(self) -> str:
        return self.received[:1000].partition(b"\r\n\r\n")[0].decode()

    @property
    def events(self) -> list[str]:
        return [block["id"].strip() for block in self.blocks if "data" in block and "id" in block]


class Past:
    """What was told before; the last `uncommitted` events cannot be read yet."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.uncommitted = 0
        self.reads = 0
        self.trouble: Exception | None = None
        self.before_answer: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[], None] = lambda: None
        """Happens while the last of what was told is waited for."""

    async def caught_up(self) -> None:
        self.uncommitted = 0
        self.meanwhile()

    async def event_named(self, call: int, event_id: str) -> int | None:
        readable = self.told[: len(self.told) - self.uncommitted]
        return next((told.id for told in readable if told.event_id == event_id), None)

    async def events_after(self, after: int, most: int) -> list[Told]:
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        readable = self.told[: len(self.told) - self.uncommitted]
        found = [told for told in readable if told.id > after][:most]
        waited: Deferred[None] = Deferred()
        reactor.callLater(0, waited.callback, None)
        self.before_answer()
        await waited
        return found


class FeedCase(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.past = Past()
        self.clock = Clock()
        self.made = Made()
        self.made.now = NOW
        self.call = self.made.call()
        self.feed = Feed(self.past, self.clock, lambda: NOW, clients=3, queue=50)
        self.allowed = True
        self.count = 0
        site = AccessSite(
            Api([FeedPart(self.feed)], self.who_asks).resource(), self.logged.append, lambda: NOW, reactor
        )
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.clients: list[Client] = []
        self.addCleanup(self.gone)

    def who_asks(self, request: LimitedRequest) -> Caller:
        if not self.allowed:
            raise UnauthorizedError("no")
        return Caller("Ada")

    async def gone(self) -> None:
        self.feed.stop()
        for client in self.clients:
            client.transport.abortConnection()  # type: ignore[union-attr]
            await client.lost
        await self.until(lambda: self.feed.followers == 0)
        self.assertFalse(self.clock.getDelayedCalls())

    async def follow(
        self, query: str = "", last: int | str | None = None, *, reads: bool = True, began: bool = True
    ) -> Client:
        headers = {} if last is None else {"Last-Event-ID": last if isinstance(last, str) else id_text(last)}
        client = Client(f"/events{query}", headers, reads)
        endpoint = HostnameEndpoint(reactor, b"127.0.0.1", self.port.getHost().port)
        count = self.feed.followers
        await endpoint.connect(Factory.forProtocol(lambda: client))
        self.clients.append(client)
        if began:
            await self.until(lambda: self.feed.followers > count)
        return client

    def event(self, state: CallState = CallState.ALERTING, *, told: bool = True, **given: Any) -> Event:
        """Something happens; it is kept, and told to the feed."""
        self.count += 1
        event = self.made.event(self.call, state)
        event = msgspec.structs.replace(
            event,
            payload=msgspec.structs.replace(
                event.call_event, event_id=f"{id_text(self.call.id)}-{self.count}"
            ),
            **given,
        )
        self.past.told.append(
            Told(
                event.id,
                event.payload.event_id,
                event.cube,
                str(event.granularity),
                str(state),
                msgspec.json.encode(event.payload).decode(),
            )
        )
        if told:
            self.feed.heard(event)
        return event

    async def turn(self) -> None:
        """Let the reactor do what it has to do."""
        waited: Deferred[None] = Deferred()
        reactor.callLater(0, waited.callback, None)
        await waited

    async def has(self, client: Client, events: list[Event]) -> None:
        """It got these, in this order, and no others."""
        wanted = [event.payload.event_id for event in events]
        await self.until(lambda: len(client.events) >= len(wanted))
        self.assertEqual(client.events, wanted)


class Live(FeedCase):
    async def test_each_event_as_it_happens(self) -> None:
        client = await self.follow()
        event = self.event(CallState.CONNECTED)
        await self.has(client, [event])
        block = client.blocks[-1]
        self.assertEqual(block["event"].strip(), "CONNECTED")
        self.assertEqual(json.loads(block["data"]), json.loads(msgspec.json.encode(event.payload)))
        head = client.head.lower()
        for line in (
            "http/1.1 200 ok",
            "content-type: text/event-stream",
            "cache-control: no-store",
            "x-accel-buffering: no",
        ):
            self.assertIn(line, head)

    async def test_who_has_got_nothing_yet_can_come_back(self) -> None:
        before = self.event()
        client = await self.follow()
        await self.until(lambda: len(client.blocks) >= 2)
        last = client.blocks[1]["id"].strip()
        self.assertNotIn("data", client.blocks[1])
        self.assertEqual(last, id_text(before.id))
        missed = self.event(told=False)
        await self.has(await self.follow(last=last), [missed])

    async def test_filters(self) -> None:
        clients = [
            await self.follow("?cube=berlin"),
            await self.follow("?state=CONNECTED"),
            await self.follow("?granularity=connection"),
        ]
        self.event()
        berlin = self.event(cube="berlin")
        connected = self.event(CallState.CONNECTED)
        leg = self.event(granularity=Granularity.CONNECTION)
        for client, event in zip(clients, (berlin, connected, leg), strict=True):
            await self.has(client, [event])

    async def test_notices_are_no_events_of_calls(self) -> None:
        client = await self.follow()
        self.feed.heard(about_webhook(NoticeType.WEBHOOK_FAILING, CRM, NOW, self.made.ids.next))
        await self.has(client, [self.event()])

    async def test_notices_for_who_asks_for_them(self) -> None:
        with_all = await self.follow("?notices=true&state=ALERTING")
        of_cube = await self.follow("?notices=true&cube=hq")
        about_crm = about_webhook(NoticeType.WEBHOOK_FAILING, CRM, NOW, self.made.ids.next)
        self.feed.heard(about_crm)
        registration = Registration(cube="hq", state=RegistrationState.SILENT, since=NOW)
        about_hq = about_cube(NoticeType.CUBE_LOST, registration, NOW, self.made.ids.next)
        self.feed.heard(about_hq)
        last = self.event()
        await self.has(with_all, [about_crm, about_hq, last])
        await self.has(of_cube, [about_hq, last])
        block = next(block for block in of_cube.blocks if "cube.lost" in block.get("event", ""))
        self.assertEqual(json.loads(block["data"]), json.loads(msgspec.json.encode(about_hq.payload)))

    async def test_notices_that_were_missed(self) -> None:
        about_crm = about_webhook(NoticeType.WEBHOOK_FAILING, CRM, NOW, self.made.ids.next)
        notice = about_crm.payload
        assert isinstance(notice, Notice)
        self.past.told.append(
            Told(about_crm.id, notice.event_id, "", NOTICE, "webhook.failing", notice_body(notice).decode())
        )
        last = self.event()
        with_all = await self.follow("?notices=true", last=about_crm.id - 1)
        without = await self.follow(last=about_crm.id - 1)
        await self.has(with_all, [about_crm, last])
        await self.has(without, [last])

    async def test_a_heartbeat(self) -> None:
        client = await self.follow()
        before = len(client.received)
        self.clock.advance(rooms.HEARTBEAT_SECONDS)
        await self.until(lambda: b":\n\n" in client.received[before:])

    async def test_wrong_parameters(self) -> None:
        for path in ("/events?state=RINGING", "/events?last_event_id=1", "/events?granularity=leg"):
            code, found = await self.ask("GET", path)
            self.assertEqual((code, len(found["error"]["fields"])), (422, 1))
        client = await self.follow(last="nonsense", began=False)
        await self.until(lambda: b"Last-Event-ID" in client.received)
        self.assertIn("422", client.head)

    async def test_head_follows_nothing(self) -> None:
        self.assertEqual(await self.ask_head(), 200)
        self.assertEqual(self.feed.followers, 0)

    async def ask_head(self) -> int:
        def ask() -> int:
            with socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=20) as connection:
                connection.sendall(b"HEAD /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return int(connection.recv(1000).split()[1])

        from twisted.internet.threads import deferToThread

        return await deferToThread(ask)

    async def test_too_many_clients(self) -> None:
        for _ in range(3):
            await self.follow()
        code, found = await self.ask("GET", "/events")
        self.assertEqual((code, found["error"]["code"]), (503, "unavailable"))
        self.assertEqual(self.headers.getRawHeaders("retry-after"), ["60"])
        self.clients[0].transport.loseConnection()  # type: ignore[union-attr]
        await self.until(lambda: self.feed.followers == 2)
        await self.has(await self.follow(), [self.event()])

    async def test_who_may_ask_no_more_is_told_no_more(self) -> None:
        client = await self.follow()
        self.clock.advance(rooms.HEARTBEAT_SECONDS)
        self.assertEqual(self.feed.followers, 1)
        self.allowed = False
        self.clock.advance(rooms.HEARTBEAT_SECONDS)
        self.assertEqual(self.feed.followers, 0)
        await self.until(lambda: client.received.endswith(b"0\r\n\r\n"))

    async def test_the_end_of_the_service_ends_it_in_order(self) -> None:
        client = await self.follow()
        event = self.event()
        self.feed.stop()
        await self.until(lambda: client.received.endswith(b"0\r\n\r\n"))
        await self.has(client, [event])
        self.assertEqual((await self.ask("GET", "/events"))[0], 503)

    async def test_a_fault_does_not_reach_who_tells(self) -> None:
        await self.follow()
        event = self.event(told=False)
        broken = msgspec.structs.replace(event.call_event, disconnect_cause=object())
        self.feed.heard(msgspec.structs.replace(event, payload=broken))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Resumed(FeedCase):
    async def test_without_gap_or_repeat_while_events_come(self) -> None:
        events = [self.event(told=False) for _ in range(3 * rooms.PAGE + 7)]

        def more() -> None:
            # One that is read and heard, and one that is heard before it can be read.
            events.extend([self.event(), self.event()])
            self.past.uncommitted = 1

        def sometimes() -> None:
            if self.past.reads < 20:
                more()

        self.past.before_answer = sometimes
        client = await self.follow(last=events[4].payload.event_id)
        await self.until(lambda: client.events[-1:] == [events[-1].payload.event_id])
        more()
        await self.has(client, events[5:])

    async def test_what_is_both_heard_and_read_comes_once(self) -> None:
        events = [self.event(told=False)]
        self.past.meanwhile = lambda: events.append(self.event())
        client = await self.follow(last=0)
        await self.until(lambda: len(events) == 2 and bool(client.events))
        events.append(self.event())
        await self.has(client, events)

    async def test_the_parameter_stands_for_the_header(self) -> None:
        events = [self.event(told=False) for _ in range(4)]
        await self.has(await self.follow(f"?last_event_id={events[1].payload.event_id}"), events[2:])
        await self.has(
            await self.follow(
                f"?last_event_id={events[0].payload.event_id}", last=events[2].payload.event_id
            ),
            events[3:],
        )

    async def test_filters(self) -> None:
        events = [self.event(state, told=False) for state in CallState for _ in range(300)]
        client = await self.follow("?state=DISCONNECTED", last=0)
        await self.has(client, events[600:])

    async def test_what_is_too_long_ago(self) -> None:
        old = self.event(told=False)
        self.made.now += rooms.BACK + 1_000_000
        new = self.event(told=False)
        self.feed._now = lambda: self.made.now
        client = await self.follow(last=old.id - 1)
        await self.has(client, [new])
        gap = next(block for block in client.blocks if block.get("event") == " gap")
        self.assertEqual(json.loads(gap["data"])["last_event_id"], id_text(old.id - 1))

    async def test_an_event_that_is_not_known(self) -> None:
        self.event()
        client = await self.follow(last=f"{id_text(self.call.id)}-7")
        await self.until(lambda: self.past.reads >= 2)
        new = self.event()
        await self.has(client, [new])
        gap = next(block for block in client.blocks if block.get("event") == " gap")
        self.assertEqual(json.loads(gap["data"])["last_event_id"], f"{id_text(self.call.id)}-7")

    async def test_an_event_that_is_told_and_not_committed_yet(self) -> None:
        first, second = self.event(), self.event()
        self.past.uncommitted = 2
        await self.has(await self.follow(last=first.payload.event_id), [second])

    async def test_an_id_of_the_future(self) -> None:
        client = await self.follow(last=first_id(NOW + 3_600_000_000))
        await self.until(lambda: self.past.reads >= 2)
        event = self.event()
        self.assertEqual(self.feed.followers, 1)
        await self.has(client, [event])

    async def test_a_store_that_cannot_be_read(self) -> None:
        self.past.trouble = StoreError("the disk is gone")
        client = await self.follow(last=0, began=False)
        await self.until(lambda: client.received.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.feed.followers, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_who_leaves_meanwhile(self) -> None:
        for _ in range(5 * rooms.PAGE):
            self.event(told=False)
        self.past.before_answer = lambda: self.clients and self.clients[0].transport.abortConnection()  # type: ignore
        client = await self.follow(last=0, began=False)
        await client.lost
        await self.until(lambda: self.feed.followers == 0)
        self.assertLess(self.past.reads, 5)


class Slow(FeedCase):
    def fill(self, count: int) -> list[Event]:
        self.call.calling_number = LONG
        return [self.event() for _ in range(count)]

    async def test_who_does_not_read_is_cut_off_and_comes_back_without_gap(self) -> None:
        slow, quick = await self.follow(reads=False), await self.follow()
        events: list[Event] = []
        while self.feed.followers == 2 and len(events) < 5000:
            events.extend(self.fill(10))
            # The quick one is held back by nothing but its own socket.
            await self.has(quick, events)
        self.assertEqual(self.feed.followers, 1)
        slow.read(True)
        await slow.lost
        got = slow.events
        self.assertEqual(got, [event.payload.event_id for event in events[: len(got)]])
        self.assertLess(len(got), len(events))
        again = await self.follow(last=got[-1])
        await self.has(again, events[len(got) :])

    async def test_who_reads_late_gets_everything_in_order(self) -> None:
        late = await self.follow(reads=False)
        events: list[Event] = []
        follower = next(iter(self.feed._followers))
        while len(follower._queue) < 20:
            events += self.fill(1)
            if not follower._paused:
                await self.turn()
        late.read(True)
        await self.has(late, events)
        self.assertEqual(len(follower._queue), 0)

    async def test_what_is_missed_is_read_as_fast_as_the_client_reads(self) -> None:
        self.call.calling_number = LONG
        events = [self.event(told=False) for _ in range(10 * rooms.PAGE)]
        slow = await self.follow(last=0, reads=False)
        follower = next(iter(self.feed._followers))
        await self.until(lambda: follower._resumed is not None)
        reads = self.past.reads
        self.assertLess(reads, 10)
        # What happens meanwhile is not remembered, but read later.
        events += self.fill(60)
        slow.read(True)
        await self.has(slow, events)

    async def test_who_takes_nothing_for_long_is_cut_off(self) -> None:
        self.call.calling_number = LONG
        for _ in range(10 * rooms.PAGE):
            self.event(told=False)
        await self.follow(last=0, reads=False)
        follower = next(iter(self.feed._followers))
        await self.until(lambda: follower._resumed is not None)
        for _ in range(rooms.PATIENCE_BEATS):
            self.clock.advance(rooms.HEARTBEAT_SECONDS)
        self.assertEqual(self.feed.followers, 1)
        self.clock.advance(rooms.HEARTBEAT_SECONDS)
        self.assertEqual(self.feed.followers, 0)
