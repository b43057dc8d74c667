"""Analytics: the time that is looked at, what is added up, the tables that charts are drawn from, and CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from twisted.trial.unittest import TestCase

from cubehook.api.operations import Caller, operation
from cubehook.api.session import COOKIE
from cubehook.api.stats import CubeSums, HourSums, InProgress, NumberCalls, Stats, StatsQuery
from cubehook.console.analysis import HOUR, Sums, evenly, narrowed, range_of_days, range_up_to, slots, whole
from cubehook.events import Micros, Outcome, iso
from tests.console.records import FROM, TO, Records
from tests.console.support import ADMIN, NASTY, NOW, Browser, Page

BERLIN = ZoneInfo("Europe/Berlin")
IN_BERLIN = {"cookie": f"{COOKIE}={ADMIN}; cubehook-zone=Europe/Berlin"}
THIS_HOUR = NOW - NOW % HOUR
"""Saturday, 16:00 UTC."""


def fields(answered: int = 0, missed: int = 0) -> dict[str, Any]:
    """Sums of the API: each call rang ten seconds, each answered one talked a minute."""
    calls = answered + missed
    return {
        "calls": calls,
        "outcomes": {**dict.fromkeys(Outcome, 0), Outcome.ANSWERED: answered, Outcome.MISSED: missed},
        "answer_rate": answered / calls if calls else None,
        "rung": calls,
        "ring_seconds": 10.0 * calls,
        "average_ring_seconds": 10.0 if calls else None,
        "talked": answered,
        "talk_seconds": 60.0 * answered,
        "average_talk_seconds": 60.0 if answered else None,
    }


def hour(before: int, answered: int = 0, missed: int = 0) -> HourSums:
    """The hour that began so many hours before this one."""
    return HourSums(at=iso(THIS_HOUR - before * HOUR), **fields(answered, missed))


class Figures(Records):
    """Statistics, too."""

    def __init__(self) -> None:
        super().__init__()
        self.hours: list[HourSums] = []
        self.changes: dict[str, Any] = {}

    @operation("GET", "/stats", query=StatsQuery, result=Stats)
    async def get_stats(self, caller: Caller, query: StatsQuery) -> Stats:
        self.asked.append(("get_stats", query))
        answered = sum(each.outcomes[Outcome.ANSWERED] for each in self.hours)
        made: dict[str, Any] = {
            **fields(answered, sum(each.calls for each in self.hours) - answered),
            "since": iso(query.since or 0),
            "until": iso(query.until or 0),
            "in_progress": 3,
            "peak": InProgress(at=iso(THIS_HOUR), calls=17),
            "cubes": {"hq": CubeSums(**fields(1), in_progress=3, peak=None)},
            "hours": self.hours,
            "peak_hours": [],
            "active": [
                InProgress(at=iso(THIS_HOUR - 2 * HOUR), calls=2),
                InProgress(at=iso(THIS_HOUR), calls=17),
            ],
            "active_step_seconds": 3600,
            "called": [NumberCalls(number=TO, calls=9)],
            "calling": [NumberCalls(number=FROM, calls=8), NumberCalls(number="+1", calls=4)],
            "compared": 20,
            "compared_all": True,
        }
        return Stats(**{**made, **self.changes})


class AnalyticsCase(TestCase):
    def setUp(self) -> None:
        self.figures = Figures()
        self.figures.hours = [hour(25, 3, 1), hour(2, 4, 2), hour(0, 5)]
        self.browser = Browser([self.figures], pages=["analytics"])

    def asked(self) -> tuple[str, str, str | None]:
        query = self.figures.queries("get_stats")[-1]
        return iso(query.since)[:16], iso(query.until)[:16], query.cube


def series(page: Page, label: str) -> list[tuple[str | None, ...]]:
    """What a chart is drawn from."""
    rows = page.tree.xpath(f"//figure[@aria-label='{label}']//tbody/tr")
    return [tuple(cell.get("data-value") for cell in row) for row in rows]


class TheTime(AnalyticsCase):
    async def test_unless_chosen(self) -> None:
        page = await self.browser.get("/analytics")
        self.assertEqual(self.asked(), ("2024-11-16T16:00", "2024-11-23T16:03", None))
        self.assertEqual(page.find("//nav[@aria-label='Range']/a[@aria-current]").text, "7 days")
        self.assertIn("Calls an hour", page.text)

    async def test_by_its_length(self) -> None:
        self.figures.hours.append(hour(40 * 24, 1))
        page = await self.browser.get("/analytics?range=90d&cube=hq")
        self.assertEqual(self.asked(), ("2024-08-25T16:00", "2024-11-23T16:03", "hq"))
        self.assertIn("Calls a day", page.text)
        self.assertEqual(page.find("//select[@name='cube']/option[@selected]").get("value"), "hq")
        links = page.tree.xpath("//nav[@aria-label='Range']/a/@href")
        self.assertEqual(dict(parse_qsl(urlsplit(links[0]).query)), {"range": "24h", "cube": "hq"})

    async def test_by_days_of_the_viewer(self) -> None:
        page = await self.browser.get("/analytics?since=2024-11-01&until=2024-11-02", **IN_BERLIN)
        self.assertEqual(self.asked(), ("2024-10-31T23:00", "2024-11-02T23:00", None))
        self.assertEqual(page.tree.xpath("//nav[@aria-label='Range']/a[@aria-current]"), [])
        self.assertEqual(page.find("//input[@name='since']").get("value"), "2024-11-01")
        self.assertEqual(page.find("//input[@name='until']").get("value"), "2024-11-02")

    async def test_whatever_is_given_is_a_time(self) -> None:
        for query, begin in (
            ("since=2024-11-02&until=2024-11-01", "2024-11-01T00:00"),
            ("until=2024-11-02", "2024-11-02T00:00"),
            ("since=2024-11-22", "2024-11-22T00:00"),
            ("since=2038-01-01", "2024-11-23T00:00"),
            ("since=1990-01-01&until=2024-01-01", "1990-01-01T00:00"),
            ("since=x&range=y", "2024-11-16T16:00"),
        ):
            self.assertEqual((await self.browser.get(f"/analytics?{query}")).status, 200)
            self.assertEqual(self.asked()[0], begin, query)


class ThePage(AnalyticsCase):
    async def test_figures(self) -> None:
        page = await self.browser.get("/analytics")
        tiles = {
            " ".join(tile.find("dt").text_content().split()): " ".join(tile.find("dd").text_content().split())
            for tile in page.tree.xpath("//div[contains(@class, 'tile')]")
        }
        self.assertEqual(tiles["Calls"], "153 in progress now")
        self.assertEqual(tiles["Answered"], "80 %12 of 15")
        self.assertEqual(tiles["Rang on average"], "10 sof 15 calls")
        self.assertEqual(tiles["Talked on average"], "1:00of 12 calls")
        self.assertTrue(tiles["Most at once"].startswith("17"))
        self.assertEqual(tiles["Busiest hour"], "14:00Saturdays, 6 calls")

    async def test_charts_have_their_tables(self) -> None:
        page = await self.browser.get("/analytics?range=24h")
        calls = series(page, "Calls an hour")
        self.assertEqual(len(calls), 25)
        self.assertEqual(
            calls[-3:],
            [
                (str((THIS_HOUR - 2 * HOUR) // 10**6), "6", "4"),
                (str((THIS_HOUR - HOUR) // 10**6), "0", "0"),
                (str(THIS_HOUR // 10**6), "5", "5"),
            ],
        )
        self.assertEqual(
            [value for _, value in series(page, "Average talk time over time")[-2:]], ["", "60.00"]
        )
        self.assertEqual(series(page, "Answer rate over time")[-3][1], "66.67")
        # What is not known is a gap.
        self.assertEqual([value for _, value in series(page, "Calls in progress over time")], ["2", "", "17"])
        for chart in page.tree.xpath("//figure[@data-chart]"):
            self.assertEqual(len(chart.xpath(".//details//table")), 1)
            self.assertEqual(
                len(chart.xpath(".//thead//th[@data-colour]")), len(chart.xpath(".//tbody/tr[1]/td"))
            )

    async def test_days(self) -> None:
        page = await self.browser.get("/analytics?since=2024-10-26&until=2024-11-23", **IN_BERLIN)
        calls = series(page, "Calls a day")
        self.assertEqual(len(calls), 29)
        midnight = int(datetime(2024, 11, 23, tzinfo=BERLIN).timestamp())
        self.assertEqual(calls[-2:], [(str(midnight - 86400), "4", "3"), (str(midnight), "11", "9")])

    async def test_today_ends_now(self) -> None:
        calls = series(await self.browser.get("/analytics?since=2024-11-23"), "Calls an hour")
        self.assertEqual((len(calls), calls[-1][0]), (17, str(THIS_HOUR // 10**6)))

    async def test_outcomes_and_numbers_lead_to_their_calls(self) -> None:
        page = await self.browser.get("/analytics?cube=hq")
        missed = page.find("//section[@aria-labelledby='outcomes-title']//tr[contains(., 'Missed')]")
        self.assertIn("20 %", missed.text_content())
        self.assertEqual(
            dict(parse_qsl(urlsplit(missed.xpath(".//a/@href")[0]).query)),
            {"cube": "hq", "since": "2024-11-16T16:00", "outcome": "missed"},
        )
        self.assertEqual([rect.get("width") for rect in missed.xpath(".//rect")], ["100%", "25.00%"])
        calling = page.tree.xpath("//section[@aria-labelledby='calling-title']//tbody/tr")
        self.assertEqual(dict(parse_qsl(urlsplit(calling[0].xpath(".//a/@href")[0]).query))["number"], FROM)
        self.assertEqual([row.xpath(".//rect/@width")[1] for row in calling], ["100.00%", "50.00%"])

    async def test_the_week(self) -> None:
        page = await self.browser.get("/analytics", **IN_BERLIN)
        rows = page.tree.xpath("//table[@class='heat']/tbody/tr")
        self.assertEqual(
            [row.find("th").text for row in rows], ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        )
        cells = {(day, at): cell for day, row in enumerate(rows) for at, cell in enumerate(row.xpath("td"))}
        self.assertEqual(len(cells), 7 * 24)
        told = {place: (cell.text, cell.get("class")) for place, cell in cells.items() if cell.text}
        self.assertEqual(told, {(4, 16): ("4", "heat-4"), (5, 15): ("6", "heat-6"), (5, 17): ("5", "heat-5")})

    async def test_cubes_beside_each_other(self) -> None:
        self.assertEqual(
            (await self.browser.get("/analytics")).tree.xpath("//section[@aria-labelledby='cubes-title']"), []
        )
        self.figures.changes = {
            "cubes": {
                "hq": CubeSums(**fields(3, 1), in_progress=1, peak=InProgress(at=iso(NOW), calls=9)),
                "lab": CubeSums(**fields(), in_progress=0, peak=None),
            }
        }
        rows = (await self.browser.get("/analytics")).tree.xpath(
            "//section[@aria-labelledby='cubes-title']//tbody/tr"
        )
        self.assertEqual(
            [[cell.text_content() for cell in row] for row in rows],
            [["hq", "4", "75 %", "10 s", "1:00", "1", "9"], ["lab", "0", "–", "–", "–", "0", "–"]],  # noqa: RUF001
        )

    async def test_nothing(self) -> None:
        self.figures.hours = []
        self.figures.changes = {"peak": None, "active": [], "called": [], "calling": []}
        page = await self.browser.get("/analytics")
        self.assertIn("No call ended in this time", page.text)
        self.assertEqual(page.tree.xpath("//figure"), [])

    async def test_the_first_hours_of_a_service(self) -> None:
        self.figures.hours = [hour(2, 4, 2), hour(0, 5)]
        page = await self.browser.get("/analytics")
        whole, begun = self.figures.queries("get_stats")
        self.assertEqual(iso(whole.since)[:13], "2024-11-16T16")
        self.assertEqual((iso(begun.since)[:13], begun.until), ("2024-11-23T10", whole.until))
        self.assertIn("Nothing is known from before", page.text)
        self.assertEqual(len(series(page, "Calls an hour")), 7)
        # What was chosen stays so.
        self.assertEqual(page.find("//input[@id='since']").get("value"), "2024-11-16")

    async def test_a_lone_value_is_no_line(self) -> None:
        self.figures.hours = [hour(0, 1, 3)]
        self.figures.changes = {"active": [InProgress(at=iso(THIS_HOUR), calls=4)]}
        page = await self.browser.get("/analytics")
        told = [" ".join(each.text_content().split()) for each in page.tree.xpath("//p[@class='lone']")]
        self.assertEqual(
            [each.split()[0] for each in told],
            ["4at", "10", "1:00in", "25"],
            "in progress, rang, talked, rate",
        )
        self.assertEqual(page.tree.xpath("//figure[@data-chart='lines']"), [])
        self.assertEqual(len(page.tree.xpath("//figure[@data-chart='bars']")), 1)

    async def test_hostile_values(self) -> None:
        self.figures.changes = {
            "calling": [NumberCalls(number=NASTY, calls=1)],
            "called": [NumberCalls(number=NASTY, calls=1)],
            "cubes": {
                NASTY: CubeSums(**fields(1), in_progress=0, peak=None),
                "b": CubeSums(**fields(1), in_progress=0, peak=None),
            },
        }
        page = await self.browser.get("/analytics?cube=%22%3E%3Cscript%3E&range=%22%3E%3Cb")
        self.assertEqual(page.status, 200)
        self.assertEqual([each for each in page.tree.xpath("//script") if not each.get("src")], [])
        self.assertEqual(page.tree.xpath("//*[@style]"), [])
        self.assertEqual(page.text.count("<script>alert(1)</script>"), 3)
        self.assertFalse("\u202e" in page.body.decode(), "a raw control character")


class AsCsv(AnalyticsCase):
    async def rows(self, path: str) -> list[list[str]]:
        page = await self.browser.get(path, **IN_BERLIN)
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/csv; charset=utf-8"))
        self.assertIn("attachment", page.headers["content-disposition"])
        return list(csv.reader(io.StringIO(page.body.decode("utf-8-sig"), newline="")))

    async def test_every_part_of_the_page_has_one(self) -> None:
        self.figures.changes = {
            "cubes": {name: CubeSums(**fields(1), in_progress=0, peak=None) for name in "ab"}
        }
        page = await self.browser.get("/analytics?range=24h&cube=hq")
        links = set(page.tree.xpath("//a[@download]/@href"))
        self.assertEqual(len(links), 7)
        for link in links:
            self.assertTrue(link.endswith("?range=24h&cube=hq"), link)
            self.assertGreater(len(await self.rows(link)), 1)
            self.assertEqual(self.asked()[2], "hq")

    async def test_calls(self) -> None:
        header, *rows = await self.rows("/analytics/calls.csv?range=24h")
        self.assertEqual(header[:4], ["from (Europe/Berlin)", "calls", "answered", "missed"])
        self.assertEqual(rows[-3], ["2024-11-23 15:00", "6", "4", "2", "0", "0", "0", "0"])

    async def test_averages(self) -> None:
        header, *rows = await self.rows("/analytics/averages.csv?range=24h")
        self.assertEqual(header[1:], ["answered percent", "average ring seconds", "average talk seconds"])
        self.assertEqual(
            rows[-3:-1], [["2024-11-23 15:00", "66.667", "10.0", "60.0"], ["2024-11-23 16:00", "", "", ""]]
        )
        # Of a week, a day has one.
        self.assertEqual(
            (await self.rows("/analytics/averages.csv?range=7d"))[-1][:2], ["2024-11-23 00:00", "81.818"]
        )

    async def test_numbers_are_no_formulas(self) -> None:
        self.figures.changes = {"calling": [NumberCalls(number='=HYPERLINK("http://evil")', calls=1)]}
        self.assertEqual(
            await self.rows("/analytics/numbers.csv"),
            [
                ["side", "number", "calls"],
                ["calling", '\'=HYPERLINK("http://evil")', "1"],
                ["called", f"'{TO}", "9"],
            ],
        )

    async def test_the_others(self) -> None:
        self.assertEqual(
            (await self.rows("/analytics/outcomes.csv"))[1:3], [["answered", "12"], ["missed", "3"]]
        )
        self.assertEqual(
            (await self.rows("/analytics/progress.csv"))[1:],
            [
                ["2024-11-23 15:00", "2"],
                ["2024-11-23 16:00", ""],
                ["2024-11-23 17:00", "17"],
            ],
        )
        self.assertEqual((await self.rows("/analytics/week.csv"))[6][18], "5")
        self.assertEqual((await self.rows("/analytics/cubes.csv"))[1][:3], ["hq", "1", "1"])

    async def test_there_is_none(self) -> None:
        self.assertEqual((await self.browser.get("/analytics/secrets.csv")).status, 404)


class AddedUp(TestCase):
    def test_a_day_of_25_hours(self) -> None:
        begin = int(datetime(2024, 10, 27, tzinfo=BERLIN).timestamp()) * 10**6
        found = slots([(begin + 24 * HOUR, Sums(calls=1))], begin, begin + 49 * HOUR, "day", BERLIN)
        self.assertEqual([slot.at - begin for slot in found], [0, 25 * HOUR])
        self.assertEqual([slot.sums.calls for slot in found], [1, 0])

    def test_sums(self) -> None:
        one = Sums(calls=2, outcomes={"answered": 1}, rung=2, ring_seconds=10, talked=1, talk_seconds=60)
        every = whole(slots([(0, one), (HOUR, one)], 0, 3 * HOUR, "hour", UTC))
        self.assertEqual((every.calls, every.answered, every.answer_percent), (4, 2, 50))
        self.assertEqual((every.average_ring, every.average_talk), (5, 60))
        self.assertEqual(
            (Sums().answer_percent, Sums().average_ring, Sums().average_talk), (None, None, None)
        )

    def test_evenly(self) -> None:
        points: list[tuple[Micros, int]] = [(20, 1), (40, 3)]
        self.assertEqual(evenly(points, 100, 10), [(20, 1), (30, None), (40, 3)])
        self.assertEqual(evenly([], 100, 10), [])

    def test_ranges(self) -> None:
        found = range_up_to("24h", NOW)
        self.assertEqual((found.until - found.since) // HOUR, 24)
        self.assertEqual(found.step, "hour")
        days = range_of_days(datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))
        self.assertLessEqual(days.until - days.since, 366 * 24 * HOUR)
        self.assertEqual(days.step, "day")

    def test_narrowed_to_what_is_known(self) -> None:
        week = range_up_to("7d", NOW)
        self.assertEqual(narrowed(week, None), week)
        self.assertEqual(narrowed(week, NOW - 2 * 24 * HOUR), week)
        self.assertEqual(narrowed(week, NOW - 10 * HOUR).since, THIS_HOUR - 10 * HOUR)
        self.assertEqual(narrowed(week, NOW - HOUR), narrowed(week, NOW))
        self.assertEqual(narrowed(week, NOW).wide_step, "hour")
        days = range_of_days(datetime(2024, 11, 1, tzinfo=UTC), datetime(2024, 11, 23, tzinfo=UTC))
        self.assertEqual(narrowed(days, NOW), days)
