"""The pages about calls: the board, the history, and one call whole."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.trial.unittest import TestCase

from cubehook.api.session import COOKIE
from cubehook.events import CallState, Direction, MediaStatistics, Outcome, iso
from cubehook.store.histories import LeftOut
from tests.console.records import (
    FROM,
    REFUSED,
    SECOND,
    TO,
    Records,
    an_id,
    attempt,
    call,
    event,
    leg,
    live,
    notification,
    tried,
    whole_call,
)
from tests.console.support import ADMIN, NASTY, NOW, VIEWER, Browser, Page

BERLIN = {"cookie": f"{COOKIE}={ADMIN}; cubehook-zone=Europe/Berlin"}


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


class CallsCase(TestCase):
    def setUp(self) -> None:
        self.records = Records()
        self.browser = Browser([self.records], pages=["calls"])

    def unscripted(self, page: Page) -> None:
        """Nothing hostile became markup."""
        self.assertEqual(page.status, 200)
        self.assertEqual([each for each in page.tree.xpath("//script") if not each.get("src")], [])
        self.assertEqual(page.tree.xpath("//*[@style]"), [])
        # What would turn the direction of text is made visible.
        self.assertFalse("\u202e" in page.body.decode(), "a raw control character")
        self.assertNotIn("49", page.text.replace("2024", ""))


class Board(CallsCase):
    async def test_calls_in_progress(self) -> None:
        self.records.live = [
            live(CallState.CONNECTED, 95 * SECOND),
            live(CallState.ALERTING, 4 * SECOND, calling_number=None),
        ]
        page = await self.browser.get("/calls/board")
        board = page.find("//section[@id='board']")
        self.assertEqual(board.get("hx-get"), "/calls/board")
        first, second = board.xpath(".//li")
        self.assertIn("withheld", first.text_content())
        self.assertIn("0:03", first.text_content())
        self.assertIn("Ringing", first.text_content())
        # It counts from the answer on.
        self.assertIn("1:27", second.text_content())
        self.assertIn("Connected", second.text_content())
        self.assertEqual(second.find("a").get("href"), f"/calls/{an_id(95 * SECOND)}")
        self.assertEqual(second.xpath(".//time")[0].get("datetime"), iso(NOW - 87 * SECOND))

    async def test_more_than_are_shown(self) -> None:
        self.records.live = [live(CallState.CONNECTED, number * SECOND) for number in range(1, 250)]
        self.records.cubes[0].calls_active = 249
        page = await self.browser.get("/calls/board")
        self.assertEqual(len(page.tree.xpath("//ul[@class='board']/li")), 200)
        self.assertEqual(page.find("//*[@class='board-count']").text, "249")
        self.assertIn("the newest 200 of them", page.text)

    async def test_nobody(self) -> None:
        page = await self.browser.get("/calls/board")
        self.assertIn("Nobody is on the phone", page.text)

    async def test_it_is_on_the_page_too(self) -> None:
        self.records.live = [live(CallState.ALERTING, 4 * SECOND)]
        page = await self.browser.get("/calls")
        self.assertEqual(len(page.tree.xpath("//section[@id='board']//li")), 1)


class History(CallsCase):
    async def test_rows(self) -> None:
        self.records.calls = [
            call(),
            call(90 * SECOND, outcome=Outcome.ANSWERED, talk_seconds=65.0, called_number=None),
            call(99 * SECOND, inferred=True),
        ]
        page = await self.browser.get("/calls")
        rows = page.tree.xpath("//table//tbody/tr")
        self.assertEqual(len(rows), 3)
        self.assertEqual(
            [" ".join(cell.text_content().split()) for cell in rows[0].xpath("td")],
            ["23 Nov 2024, 16:02:36 UTC", FROM, TO, "Missed", "12 s", "–", "hq"],  # noqa: RUF001
        )
        self.assertEqual(rows[0].xpath("td[1]/a/@href"), [f"/calls/{an_id(60 * SECOND)}"])
        self.assertIn("unknown", rows[1].text_content())
        self.assertIn("1:05", rows[1].text_content())
        self.assertIn("inferred", rows[2].text_content())

    async def test_filters_reach_the_api(self) -> None:
        _ = await self.browser.get(
            "/calls?number=%28251%29+767&cube=hq&outcome=missed&state=DISCONNECTED"
            f"&since=2024-11-23T16%3A00&until=&cursor={an_id()}",
            **BERLIN,
        )
        (query,) = self.records.queries("list_calls")
        self.assertEqual((query.number, query.cube, query.outcome), ("(251) 767", "hq", Outcome.MISSED))
        self.assertEqual((query.state, query.until, query.limit), (CallState.DISCONNECTED, None, 100))
        # That was typed in Berlin.
        self.assertEqual(iso(query.since), "2024-11-23T15:00:00.000000Z")
        self.assertEqual(query.cursor >> 12, NOW)

    async def test_pages_keep_the_filters(self) -> None:
        self.records.calls, self.records.next = [call()], an_id(5)
        page = await self.browser.get(
            f"/calls?number=%2B1+251&outcome=missed&since=2024-11-01T00:00&cursor={an_id()}"
        )
        filters = {"number": "+1 251", "outcome": "missed", "since": "2024-11-01T00:00"}
        self.assertEqual(query_of(page.find("//a[@rel='next']").get("href")), {**filters, "cursor": an_id(5)})
        self.assertEqual(query_of(page.find("//a[contains(., 'Newest')]").get("href")), filters)
        self.assertEqual(page.find("//input[@name='number']").get("value"), "+1 251")
        self.assertEqual(page.find("//select[@name='outcome']/option[@selected]").get("value"), "missed")

    async def test_the_last_page(self) -> None:
        self.records.calls = [call()]
        page = await self.browser.get("/calls")
        self.assertEqual(page.tree.xpath("//a[@rel='next']"), [])
        self.assertEqual(page.tree.xpath("//a[contains(., 'Newest')]"), [])

    async def test_what_is_wrong_is_told_beside_it(self) -> None:
        page = await self.browser.get("/calls?since=yesterday&outcome=fun&number=1")
        self.assertEqual(page.status, 200)
        self.assertEqual(self.records.queries("list_calls"), [])
        for name in ("since", "outcome"):
            control = page.find(f"//*[@name='{name}']")
            self.assertEqual(control.get("aria-invalid"), "true")
            self.assertIn(
                "expected", page.find(f"//*[@id='{control.get('aria-describedby')}']").text_content()
            )
        self.assertIsNone(page.find("//*[@name='number']").get("aria-invalid"))
        self.assertEqual(page.find("//option[@value='fun']").get("selected"), "selected")

    async def test_a_bad_cursor(self) -> None:
        self.assertEqual((await self.browser.get("/calls?cursor=x")).status, 422)

    async def test_empty(self) -> None:
        page = await self.browser.get("/calls")
        self.assertIn("Place a call through hq", page.text)
        page = await self.browser.get("/calls?number=5")
        self.assertIn("No call fits", page.text)
        self.records.cubes = []
        page = await self.browser.get("/calls")
        self.assertEqual(page.find("//a[@href='/cubes/_new']").text_content().strip(), "Add a cube")
        viewer = Browser([self.records], session=VIEWER, pages=["calls"])
        self.assertEqual((await viewer.get("/calls")).tree.xpath("//a[@href='/cubes/_new']"), [])

    async def test_an_empty_page_that_goes_on(self) -> None:
        self.records.next = an_id(5)
        page = await self.browser.get("/calls?number=5")
        self.assertEqual(
            query_of(page.find("//a[contains(., 'Search further')]").get("href")),
            {"number": "5", "cursor": an_id(5)},
        )

    async def test_a_short_page_that_goes_on(self) -> None:
        self.records.calls = [call(60 * SECOND)]
        self.records.next = an_id(5)
        page = await self.browser.get("/calls?number=5")
        pager = page.find("//nav[@aria-label='Pages']")
        self.assertIn("1 call so far; what is older was not searched yet", pager.text_content())
        self.assertEqual(pager.xpath("./a[@rel='next']")[0].text, "Search further")
        self.records.calls = [call(number * SECOND) for number in range(60, 160)]
        pager = (await self.browser.get("/calls?number=5")).find("//nav[@aria-label='Pages']")
        self.assertEqual(pager.xpath("./a[@rel='next']")[0].text, "Older")

    async def test_hostile_values(self) -> None:
        self.records.calls = [call(calling_number=NASTY, called_number=NASTY, cube=NASTY)]
        self.records.live = [live(CallState.CONNECTED, SECOND, calling_number=NASTY, cube=NASTY)]
        self.records.cubes[0].id = NASTY.replace("\u202e", "")
        page = await self.browser.get("/calls")
        self.unscripted(page)
        self.assertEqual(page.text.count("<script>alert(1)</script>"), 6)
        self.unscripted(
            await self.browser.get("/calls?number=%3Cscript%3Ealert(1)%3C/script%3E%22&cube=%22%3E%3Cb")
        )

    async def test_signed_out(self) -> None:
        self.browser.session = None
        for path in ("/calls", f"/calls/{an_id()}"):
            self.assertEqual((await self.browser.get(path)).status, 303)
        self.assertEqual(self.records.asked, [])


class OneCall(CallsCase):
    async def shown(self, **changes: Any) -> Page:
        self.records.call = whole_call(**changes)
        return await self.browser.get(f"/calls/{an_id(60 * SECOND)}")

    def timeline(self, page: Page) -> list[str]:
        entries = page.tree.xpath("//ol[@class='timeline']/li")
        return [
            " ".join(entry.xpath(".//*[contains(@class, 'gist')]")[0].text_content().split())
            for entry in entries
        ]

    async def test_what_happened_in_order(self) -> None:
        page = await self.shown()
        self.assertIn("Missed: rang 12 s, nobody answered", page.text)
        self.assertEqual(
            self.timeline(page),
            [
                "Leg A begins",
                "Leg B rings",
                "ALERTING The call rings",
                "503 Service Unavailable CRM Call Events refused it ALERTING, attempt 1, 200 ms "
                "Request and answer",
                "200 OK CRM Call Events took it ALERTING, attempt 2, 200 ms Request and answer",
            ],
        )
        self.assertIn("upstream is down", page.text)
        self.assertIn("EVENT1", page.text)
        self.assertEqual(
            page.tree.xpath("//ol[@class='timeline']//a/@href"),
            [f"/deliveries/{an_id(60 * SECOND)}#attempt-{number}" for number in (1, 2)],
        )
        self.assertIn("+0.500 s", page.text)

    async def test_an_error_that_says_what_the_status_says(self) -> None:
        refused = {"delivered": False, "status": 503, "error_class": "http"}
        for error, lines in (("answered 503 Service Unavailable", 0), ("answered 503: full", 1)):
            page = await self.shown(deliveries=[tried(attempt(1, 0.5, **refused, error=error))])
            self.assertEqual(
                len(page.tree.xpath("//li[contains(@class, 'is-attempt')]//p[@class='source']")), lines
            )

    async def test_soap_is_folded_and_laid_out(self) -> None:
        page = await self.shown()
        first = page.tree.xpath("//ol[@class='timeline']/li[1]//details")[0]
        self.assertIsNone(first.get("open"))
        self.assertIn("\n      <connData>\n        <connID>21</connID>\n", first.find("pre").text)

    async def test_the_same_instant(self) -> None:
        # A notification comes before what it became, and that before who was told.
        page = await self.shown(
            deliveries=[tried(attempt(1, 0.5))],
            events=[event(0.5, CallState.ALERTING, 1)],
            notifications=[notification(0.5, "alerting")],
        )
        kinds = [each.get("class").split()[0] for each in page.tree.xpath("//ol[@class='timeline']/li")]
        self.assertEqual(kinds, ["is-told", "is-event", "is-attempt"])

    async def test_legs(self) -> None:
        media = MediaStatistics(packets_sent=1500, packets_received=1480, packets_lost=1, round_trip_ms=21)
        answered = leg(
            2, Direction.OUTGOING, connected_at=iso(NOW - 52 * SECOND), disconnect_cause=16, media=media
        )
        page = await self.shown(connections=[leg(1, Direction.INCOMING), answered])
        rows = page.tree.xpath("//section[@aria-labelledby='legs']//tbody/tr")
        self.assertEqual(len(rows), 2)
        self.assertIn("A Caller", " ".join(rows[0].text_content().split()))
        self.assertIn("No answer from user (user alerted)", rows[0].text_content())
        self.assertIn("cause 16", rows[1].xpath("./td[@data-label='End']")[0].text_content())
        self.assertEqual(
            rows[1].xpath("./td[@data-label='Media']//span[@class='nowrap']/text()"),
            ["lost 1 packet", "received 1,480 packets", "sent 1,500 packets", "round trip 21 ms"],
        )
        self.assertEqual(rows[1].xpath(".//svg")[0].get("aria-label"), "rang 7.5 s, talked 4.5 s")
        rects = rows[1].xpath(".//rect")
        self.assertEqual(
            [(each.get("class"), each.get("x"), each.get("width")) for each in rects],
            [("ground", None, "100%"), ("ringing", "4.00%", "60.00%"), ("talking", "64.00%", "36.00%")],
        )

    async def test_in_progress_comes_anew(self) -> None:
        page = await self.shown(outcome=None, disconnected_at=None, state=CallState.ALERTING, connections=[])
        self.assertEqual(page.find("//div[@id='call']").get("hx-get"), f"/calls/{an_id(60 * SECOND)}")
        self.assertIn("In progress: ringing", page.text)
        page = await self.shown(
            outcome=None, disconnected_at=None, state=CallState.CONNECTED, connected_at=iso(NOW - 75 * SECOND)
        )
        self.assertEqual(page.find("//dt[.='Talked']/following-sibling::dd").text_content().strip(), "1:15")
        over = await self.shown()
        self.assertIsNone(over.find("//div[@id='call']").get("hx-get"))

    async def test_what_is_left_out_is_told(self) -> None:
        page = await self.shown(
            left_out=LeftOut(notifications=3, bodies=1, attempts=1000),
            notifications=[notification(0, "created", body=None)],
        )
        self.assertIn("3 notifications, 1 body of a notification, 1,000 attempts", page.text)
        self.assertIn("The message itself is not shown", page.text)

    async def test_nothing_is_kept(self) -> None:
        page = await self.shown(notifications=[], events=[], deliveries=[], connections=[])
        self.assertIn("Nothing of it is kept any more", page.text)

    async def test_hostile_values(self) -> None:
        hostile = attempt(1, 0.6, **{**REFUSED, "error": NASTY, "status": None})
        page = await self.shown(
            calling_number=NASTY,
            called_number=NASTY,
            original_called_number=NASTY,
            redirected_to=NASTY,
            gateway_call_id=NASTY,
            cube=NASTY,
            connections=[leg(1, Direction.INCOMING, calling_number=NASTY, called_number=NASTY, codec=NASTY)],
            notifications=[
                notification(0, NASTY, body=f"<a>{NASTY}"),
                notification(1, "created", body="</a>"),
            ],
            deliveries=[tried(hostile, webhook=NASTY, state=NASTY)],
        )
        self.unscripted(page)
        self.assertGreater(page.text.count("<script>alert(1)</script>"), 10)

    async def test_there_is_none(self) -> None:
        self.assertEqual((await self.browser.get(f"/calls/{an_id()}")).status, 404)
