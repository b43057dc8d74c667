"""The webhook logs: the calendar, the list, and one delivery with every attempt."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.trial.unittest import TestCase

from cubehook.api.deliveries import DeliveryDay
from cubehook.api.errors import ConflictError
from cubehook.api.session import COOKIE
from cubehook.events import iso
from cubehook.records import DeliveryStatus, ErrorClass
from tests.console.records import (
    DAY,
    FAILED,
    FROM,
    REFUSED,
    SECOND,
    Records,
    an_id,
    attempt,
    delivery,
    whole_delivery,
)
from tests.console.support import ADMIN, NASTY, NOW, VIEWER, Browser, Page

BERLIN = {"cookie": f"{COOKIE}={ADMIN}; cubehook-zone=Europe/Berlin"}


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


def words(element: Any) -> str:
    return " ".join(element.text_content().split())


class DeliveriesCase(TestCase):
    def setUp(self) -> None:
        self.records = Records()
        self.browser = Browser([self.records], pages=["deliveries"])

    def unscripted(self, page: Page) -> None:
        """Nothing hostile became markup."""
        self.assertEqual(page.status, 200)
        self.assertEqual([each for each in page.tree.xpath("//script") if not each.get("src")], [])
        self.assertEqual(page.tree.xpath("//*[@style]"), [])
        self.assertFalse("\u202e" in page.body.decode(), "a raw control character")


class TheList(DeliveriesCase):
    async def test_rows(self) -> None:
        self.records.deliveries = [
            delivery(),
            delivery(90 * SECOND, **FAILED, attempts=11),
            delivery(
                95 * SECOND,
                status=DeliveryStatus.PENDING,
                error_class=ErrorClass.TIMEOUT,
                answered=None,
                due_at=iso(NOW + 120 * SECOND),
                redelivery=True,
                webhook="gone",
            ),
            delivery(99 * SECOND, call=None, cube=None, state="webhook.failing", granularity=None),
            delivery(99 * SECOND, state=None, event_id=None, granularity=None),
        ]
        page = await self.browser.get("/deliveries")
        rows = [
            [words(cell) for cell in row.xpath("td")]
            for row in page.tree.xpath("//table[contains(@class, 'deliveries')]/tbody/tr")
        ]
        self.assertEqual(
            rows[0],
            [
                "23 Nov 2024, 16:02:36 UTC",
                "Ringing",
                f"{FROM}to +12512501663",
                "CRM Call Events",
                "Delivered 200, 1 attempt",
            ],
        )
        self.assertEqual(rows[1][4], "Failed Refused by the receiver: 503, 11 attempts")
        self.assertEqual(rows[2][3:5], ["gone", "Pending Timed out next try in 2 min"])
        self.assertIn("sent again", rows[2][1])
        self.assertEqual(rows[3][1:3], ["webhook.failing", "About the service"])
        self.assertEqual(rows[4][1], "no longer kept")
        self.assertIn(f"/deliveries/{an_id(60 * SECOND)}", page.tree.xpath("//td/a/@href"))
        self.assertIn(f"/calls/{an_id(60 * SECOND)}", page.tree.xpath("//td/a/@href"))

    async def test_filters_reach_the_api(self) -> None:
        _ = await self.browser.get(
            "/deliveries?webhook=crm&status=failed&error_class=timeout&number=1663&cube=hq&month=2024-10"
        )
        (query,) = self.records.queries("list_deliveries")
        self.assertEqual((query.webhook, query.status, query.cube), ("crm", DeliveryStatus.FAILED, "hq"))
        self.assertEqual((query.error_class, query.number), (ErrorClass.TIMEOUT, "1663"))
        self.assertEqual((query.since, query.until, query.cursor, query.limit), (None, None, None, 100))

    async def test_a_day_is_one_of_the_viewers(self) -> None:
        page = await self.browser.get("/deliveries?day=2024-11-22", **BERLIN)
        (query,) = self.records.queries("list_deliveries")
        self.assertEqual(iso(query.since), "2024-11-21T23:00:00.000000Z")
        self.assertEqual(iso(query.until), "2024-11-22T23:00:00.000000Z")
        self.assertIn("Friday, 22 November 2024", page.text)
        self.assertIn("Europe/Berlin", page.text)

    async def test_links_keep_the_filters(self) -> None:
        self.records.deliveries, self.records.next = [delivery()], an_id(5)
        page = await self.browser.get(f"/deliveries?day=2024-11-22&webhook=crm&number=%2B1&cursor={an_id()}")
        filters = {"day": "2024-11-22", "webhook": "crm", "number": "+1"}
        self.assertEqual(query_of(page.find("//a[@rel='next']").get("href")), {**filters, "cursor": an_id(5)})
        self.assertEqual(query_of(page.find("//a[contains(., 'Newest')]").get("href")), filters)
        self.assertEqual(
            query_of(page.find("//a[@aria-label='The month before']").get("href")),
            {**filters, "month": "2024-10"},
        )
        day = page.find("//a[starts-with(@aria-label, 'Thursday, 21 ')]")
        self.assertEqual(query_of(day.get("href")), {**filters, "day": "2024-11-21"})
        self.assertEqual(page.find("//input[@name='day']").get("value"), "2024-11-22")
        self.assertEqual(
            query_of(page.find("//a[.='Every day']").get("href")), {"webhook": "crm", "number": "+1"}
        )

    async def test_what_is_wrong_is_told_beside_it(self) -> None:
        page = await self.browser.get("/deliveries?status=lost&day=2024-02-31")
        self.assertEqual(page.status, 200)
        self.assertEqual(page.find("//select[@name='status']").get("aria-invalid"), "true")
        self.assertIn("expected", page.find("//*[@id='status-error']").text_content())
        self.assertEqual((await self.browser.get("/deliveries?cursor=x")).status, 422)

    async def test_empty(self) -> None:
        self.assertIn("Nothing was sent yet", (await self.browser.get("/deliveries")).text)
        self.assertIn("No delivery fits", (await self.browser.get("/deliveries?day=2024-11-22")).text)
        self.records.webhooks = []
        page = await self.browser.get("/deliveries")
        self.assertEqual(page.find("//a[@href='/webhooks/_new']").text, "Add a webhook")
        viewer = Browser([self.records], session=VIEWER, pages=["deliveries"])
        self.assertEqual((await viewer.get("/deliveries")).tree.xpath("//a[@href='/webhooks/_new']"), [])
        self.records.next = an_id(5)
        self.assertIn("Search further", (await self.browser.get("/deliveries?number=5")).text)

    async def test_hostile_values(self) -> None:
        self.records.deliveries = [
            delivery(webhook=NASTY, state=NASTY, calling_number=NASTY, called_number=NASTY, cube=NASTY)
        ]
        self.records.webhooks[0].name = NASTY
        page = await self.browser.get("/deliveries")
        self.unscripted(page)
        self.assertGreater(page.text.count("<script>alert(1)</script>"), 4)
        self.unscripted(
            await self.browser.get("/deliveries?number=%22%3E%3Cscript%3E&webhook=%22%3E%3Cb&month=%3Cb")
        )


class TheCalendar(DeliveriesCase):
    def marked(self, page: Page) -> dict[str, str]:
        return {day.text: day.get("aria-label") for day in page.tree.xpath("//a[contains(@class, 'failed')]")}

    async def test_a_month(self) -> None:
        page = await self.browser.get("/deliveries?month=2024-10&day=2024-10-03")
        self.assertIn("October 2024", page.text)
        self.assertEqual(page.find("//a[@aria-current='date']").text, "3")
        self.assertEqual(
            query_of(page.find("//a[@aria-label='The month after']").get("href"))["month"], "2024-11"
        )

    async def test_the_future_is_no_link(self) -> None:
        page = await self.browser.get("/deliveries")
        self.assertIn("November 2024", page.text)
        self.assertEqual(page.tree.xpath("//a[starts-with(@aria-label, 'Sunday, 24 ')]"), [])
        self.assertEqual(page.tree.xpath("//a[@aria-label='The month after']"), [])
        self.assertIn("today", page.find("//a[starts-with(@aria-label, 'Saturday, 23 ')]").get("class"))

    async def test_how_many_a_day(self) -> None:
        self.records.days = [
            DeliveryDay(day=f"2024-11-{day:02}", deliveries=count, more=more)
            for day, count, more in ((20, 0, False), (21, 1, False), (22, 1490, False), (23, 5000, True))
        ]
        page = await self.browser.get(
            "/deliveries?webhook=crm", cookie=f"{COOKIE}={ADMIN}; cubehook-zone=Europe/Berlin"
        )
        found = {
            day.text: (
                day.xpath(".//*[@class='day-count']")[0].get("data-count"),
                day.get("aria-label").split(", ")[2],
            )
            for day in page.tree.xpath("//a[.//*[@class='day-count']]")
        }
        self.assertEqual(
            found,
            {
                "21": ("1", "1 delivery"),
                "22": ("1.4k", "1,490 deliveries"),
                "23": ("5k+", "more than 5,000 deliveries"),
            },
        )
        self.assertIn(
            "none", page.find("//a[starts-with(@aria-label, 'Wednesday, 20 ')]").get("class").split()
        )
        self.assertIn("its deliveries to CRM Call Events", page.text)
        (query,) = self.records.queries("count_deliveries")
        self.assertEqual((query.zone, query.webhook), ("Europe/Berlin", "crm"))
        self.assertEqual((iso(query.since), query.until), ("2024-10-31T23:00:00.000000Z", NOW + 1))

    async def test_a_month_to_come_has_no_counts(self) -> None:
        page = await self.browser.get("/deliveries?month=2030-01")
        self.assertEqual(page.status, 200)
        self.assertEqual(page.tree.xpath("//*[@class='day-count']"), [])

    async def test_days_with_failures(self) -> None:
        self.records.failed = [
            delivery(0, **FAILED),
            delivery(2 * DAY, **FAILED),
            delivery(2 * DAY + 1, **FAILED),
        ]
        page = await self.browser.get("/deliveries")
        self.assertEqual(
            self.marked(page),
            {"23": "Saturday, 23 November 2024, 1 failed", "21": "Thursday, 21 November 2024, 2 failed"},
        )
        (query,) = self.records.queries("failed")
        self.assertEqual(iso(query.since), "2024-11-01T00:00:00.000000Z")
        self.assertEqual(iso(query.until), "2024-12-01T00:00:00.000000Z")

    async def test_more_failures_than_are_counted(self) -> None:
        self.records.failed = [
            delivery(0, **FAILED),
            delivery(2 * DAY, **FAILED),
            delivery(20 * DAY, **FAILED),
        ]
        self.records.failed_next = an_id(1)
        page = await self.browser.get("/deliveries")
        # Days before the last that was counted are looked at one by one.
        self.assertEqual(list(self.marked(page)), ["3", "21", "23"])
        self.assertEqual(len(self.records.queries("failed")), 1 + 22)


class OneDelivery(DeliveriesCase):
    async def shown(self, *attempts: Any, **changes: Any) -> Page:
        self.records.delivery = whole_delivery(*attempts, **changes)
        return await self.browser.get(f"/deliveries/{an_id(60 * SECOND)}")

    async def test_attempts(self) -> None:
        page = await self.shown(
            attempt(1, 1.0, **REFUSED, response_body="<h1>upstream"), attempt(2, 3.0, note="through a proxy")
        )
        newest, oldest = page.tree.xpath("//details[contains(@class, 'attempt')]")
        self.assertEqual((newest.get("id"), newest.get("open") is not None), ("attempt-2", True))
        self.assertEqual((oldest.get("id"), oldest.get("open") is not None), ("attempt-1", False))
        self.assertIn("503 Service Unavailable", words(oldest))
        self.assertIn("upstream is down", words(oldest.xpath(".//div[@role='alert']")[0]))
        self.assertIn("<h1>upstream", words(oldest))
        self.assertIn("Through a proxy", words(newest))
        self.assertIn("192.0.2.9:443", words(newest))
        self.assertIn(
            "POST https://crm.example/calls?token=***", words(newest).replace("POSThttps", "POST https")
        )
        self.assertEqual(
            [words(each) for each in newest.xpath(".//dl[@class='headers']/*")],
            ["Content-Type", "application/json", "Authorization", "***", "Server", "nginx"],
        )
        self.assertEqual(
            newest.xpath(".//pre[@id='request-2']")[0].text, '{\n  "call_state": "ALERTING",\n  "n": 1.0\n}'
        )
        self.assertEqual(newest.xpath(".//pre[@id='response-2']")[0].text, '{\n  "ok": true\n}')

    async def test_timing(self) -> None:
        page = await self.shown(attempt(1, phases={"waiting": 150_000, "reading": 50_000}, duration=400_000))
        line = page.find("//*[@class='timing-line']")
        self.assertEqual(line.get("aria-label"), "Waiting for the answer 150 ms, Reading the answer 50 ms")
        self.assertEqual(
            [(each.get("class"), each.get("x"), each.get("width")) for each in line.xpath("./rect")],
            [("phase-waiting", "0.00%", "37.50%"), ("phase-reading", "37.50%", "12.50%")],
        )

    async def test_no_answer(self) -> None:
        changes: dict[str, Any] = {
            **REFUSED,
            "status": None,
            "error_class": ErrorClass.DNS,
            "response_headers": {},
            "response_body": None,
            "remote_address": None,
            "phases": {},
        }
        page = await self.shown(attempt(1, **changes))
        self.assertIn("There was no answer", page.text)
        self.assertIn("Name not found.", page.text)
        self.assertEqual(page.tree.xpath("//*[@class='timing-line']"), [])

    async def test_facts(self) -> None:
        page = await self.shown(attempt(1, **REFUSED), **FAILED, attempts_left_out=1200)
        self.assertEqual(page.find("//h1").text, "ALERTING to CRM Call Events")
        self.assertIn("EVENT1", page.text)
        self.assertIn("Refused by the receiver", page.text)
        self.assertEqual(
            page.find("//a[contains(., 'The call')]").get("href"), f"/calls/{an_id(60 * SECOND)}"
        )

    async def test_a_webhook_that_was_removed(self) -> None:
        page = await self.shown(attempt(1), webhook="gone")
        self.assertIn("(removed)", page.text)
        self.assertEqual(page.tree.xpath("//a[@href='/webhooks/gone']"), [])

    async def test_a_notice_of_no_call(self) -> None:
        page = await self.shown(attempt(1), call=None, cube=None, state="webhook.failing", granularity=None)
        self.assertEqual(page.tree.xpath("//main//a[starts-with(@href, '/calls')]"), [])

    async def test_pending_comes_anew(self) -> None:
        page = await self.shown(status=DeliveryStatus.PENDING, due_at=iso(NOW + 60 * SECOND))
        self.assertEqual(page.find("//section[@hx-get]").get("hx-get"), f"/deliveries/{an_id(60 * SECOND)}")
        self.assertIn("Not tried yet", page.text)
        self.assertEqual(page.tree.xpath("//button[contains(., 'Send again')]"), [])
        self.assertEqual((await self.shown(attempt(1))).tree.xpath("//section[@hx-get]"), [])

    async def test_when_it_is_tried_next(self) -> None:
        pending: dict[str, Any] = {"status": DeliveryStatus.PENDING, "due_at": iso(NOW + 60 * SECOND)}
        (webhook,) = self.records.webhooks

        async def told(**changes: Any) -> str:
            page = await self.shown(**{**pending, **changes})
            return words(page.find("//dt[.='Next try']/following-sibling::dd[1]"))

        self.assertEqual(await told(), "23 Nov 2024, 16:04:36 UTC (in 1 min)")
        self.assertEqual(await told(due_at=iso(NOW)), "As soon as its turn comes")
        webhook.held_until = iso(NOW + 90 * SECOND)
        self.assertEqual(await told(), "Its webhook fails, and is held back until 23 Nov 2024, 16:05:06 UTC")
        webhook.disabled_reason = "its receiver answered 410"
        self.assertEqual(await told(), "None, while its webhook is disabled: its receiver answered 410")
        self.records.webhooks = []
        self.assertEqual(await told(), "None, while its webhook is not there")

    async def test_hostile_values(self) -> None:
        headers = {NASTY: NASTY}
        page = await self.shown(
            attempt(
                1,
                **{**REFUSED, "error": NASTY},
                note=NASTY,
                method=NASTY,
                url=f"https://{NASTY}",
                remote_address=NASTY,
                request_headers=headers,
                response_headers=headers,
                request_body=NASTY,
                response_body=f"<html>{NASTY}",
                phases={NASTY: 5},
            ),
            webhook=NASTY,
            state=NASTY,
            event_id=NASTY,
            cube=NASTY,
            calling_number=NASTY,
            called_number=NASTY,
        )
        self.unscripted(page)
        self.assertGreater(page.text.count("<script>alert(1)</script>"), 15)

    async def test_there_is_none(self) -> None:
        self.assertEqual((await self.browser.get(f"/deliveries/{an_id()}")).status, 404)


class SendingAgain(DeliveriesCase):
    where = f"/deliveries/{an_id(60 * SECOND)}"

    async def test_it_is_sent_again(self) -> None:
        self.records.delivery = whole_delivery(attempt(1))
        page = await self.browser.get(self.where)
        form = page.find("//form[contains(@action, 'redeliver')]")
        self.assertEqual((form.get("method"), form.get("action")), ("post", f"{self.where}/redeliver"))
        answer = await self.browser.post(form.get("action"))
        self.assertEqual((answer.status, answer.headers["location"]), (303, self.where))
        self.assertEqual(self.records.queries("redeliver_one"), [("ada", an_id(60 * SECOND))])
        self.assertIn("It is being sent again", (await self.browser.get(self.where)).text)

    async def test_it_cannot_be(self) -> None:
        self.records.delivery = whole_delivery(attempt(1))
        self.records.refusal = ConflictError("the webhook is disabled: enable it first")
        _ = await self.browser.post(f"{self.where}/redeliver")
        page = await self.browser.get(self.where)
        self.assertIn("the webhook is disabled", words(page.find("//div[@role='alert']")))

    async def test_forged(self) -> None:
        self.assertEqual((await self.browser.post(f"{self.where}/redeliver", csrf="x")).status, 403)
        self.assertEqual(self.records.queries("redeliver_one"), [])

    async def test_viewers_only_look(self) -> None:
        self.records.delivery = whole_delivery(attempt(1, **REFUSED), **FAILED)
        viewer = Browser([self.records], session=VIEWER, pages=["deliveries"])
        page = await viewer.get(self.where)
        self.assertEqual(page.tree.xpath("//form[contains(@action, 'redeliver')]"), [])
        self.assertEqual((await viewer.post(f"{self.where}/redeliver")).status, 403)
        self.assertEqual(self.records.queries("redeliver_one"), [])
