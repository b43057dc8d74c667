"""What pages about calls and deliveries are made of: calendars, sentences, bodies, bars, CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest import TestCase
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from cubehook.console.csvfile import csv_bytes
from cubehook.console.figures import bars, heat, parts, percent, stretches
from cubehook.console.months import begin_of, day_given, end_of, local, month, month_given
from cubehook.console.pretty import MOST, pretty_body, pretty_json, pretty_xml, readable
from cubehook.console.telling import told
from cubehook.console.zones import typed_time, zone_name, zone_of

HOUR = 3_600_000_000
BERLIN = ZoneInfo("Europe/Berlin")


def rows_of(made: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(made.decode("utf-8-sig"), newline="")))


class Csv(TestCase):
    def test_cells(self) -> None:
        made = csv_bytes(["Number", "Calls"], [["1001", 5], [None, 1.5], ['say "a, b"\nc', 0]])
        self.assertEqual(made[:3], b"\xef\xbb\xbf")
        self.assertEqual(
            rows_of(made), [["Number", "Calls"], ["1001", "5"], ["", "1.5"], ['say "a, b"\nc', "0"]]
        )

    @given(st.text("=+-@\t\r\n \uff41\uff1d\u00a0x1'\"", max_size=6))
    def test_nothing_begins_like_a_formula(self, text: str) -> None:
        ((cell,),) = rows_of(csv_bytes([text or "x"], []))
        self.assertIn(cell, (text or "x", f"'{text}"))
        self.assertFalse(cell.strip().startswith(("=", "+", "-", "@", "\uff1d")), cell)

    def test_numbers_are_left_alone(self) -> None:
        self.assertEqual(rows_of(csv_bytes(["a"], [[-1.5]])), [["a"], ["-1.5"]])
        self.assertEqual(rows_of(csv_bytes(["a"], [["+12512501663"]])), [["a"], ["'+12512501663"]])


trees = st.recursive(
    st.text("ab <&>\"'é", max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=12,
)


def written(tree: Any) -> str:
    inner = escape(tree) if isinstance(tree, str) else "".join(map(written, tree))
    return f"<e a='x>y' b=\"it's\">{inner}</e>"


def shape(element: Any) -> Any:
    return (
        element.tag,
        dict(element.attrib),
        [(text or "").strip() for text in (element.text, element.tail)],
        [shape(each) for each in element],
    )


class Bodies(TestCase):
    @given(trees)
    def test_xml_keeps_its_meaning(self, tree: Any) -> None:
        text = f'<?xml version="1.0"?>{written(tree)}'
        shown = pretty_xml(text)
        self.assertEqual(shape(etree.fromstring(shown)), shape(etree.fromstring(text)))

    def test_xml_is_laid_out(self) -> None:
        self.assertEqual(
            pretty_xml("<s:E><s:B><a>\n 1 </a><b></b><c/><d>x<e/></d></s:B></s:E>").split("\n"),
            [
                "<s:E>",
                "  <s:B>",
                "    <a>1</a>",
                "    <b></b>",
                "    <c/>",
                "    <d>",
                "      x",
                "      <e/>",
                "    </d>",
                "  </s:B>",
                "</s:E>",
            ],
        )

    def test_entities_stay(self) -> None:
        text = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
        self.assertIn("&x;", pretty_xml(text))
        self.assertNotIn("root:", pretty_xml(text))

    def test_what_is_no_xml_is_left(self) -> None:
        for text in ("<a><b>", "</a><a>", "a < b", "<", "<!-- <!-- <!--", "<a>" * 100, "<a" * 50_000):
            self.assertEqual(pretty_xml(text), text)

    def test_json_keeps_its_values(self) -> None:
        text = '{"a":1.0,"a":1e400,"n":[9007199254740993,null],"s":"\\u00e9"}'
        shown = pretty_json(text)
        self.assertIn("\n", shown)
        self.assertEqual("".join(shown.split()), text)

    def test_what_is_no_json_is_left(self) -> None:
        for text in ("{", '{"a": nonsense}', "[" * 5000, "plain", "", '"text"', "{" + "x" * MOST):
            self.assertEqual(pretty_json(text), text)

    def test_bodies_by_their_look(self) -> None:
        self.assertEqual(pretty_body(' {"a":1}'), json.dumps({"a": 1}, indent=2))
        self.assertEqual(pretty_body("<a><b/></a>"), "<a>\n  <b/>\n</a>")
        page = "<!doctype html><p>one<b>two</b>"
        self.assertEqual(pretty_body(page), page)

    def test_control_characters_are_seen(self) -> None:
        self.assertEqual(readable("a\r\n\tb\x00c\u202ed"), "a\n\tb\\x00c\\x202ed")
        self.assertEqual(pretty_json('{"a":"\u202e"}'), '{\n  "a": "\\x202e"\n}')
        self.assertNotIn("...", readable("x" * 1000))


class Calendar(TestCase):
    def test_a_month(self) -> None:
        found = month(
            date(2024, 11, 1),
            today=date(2024, 11, 23),
            chosen=date(2024, 11, 3),
            failures={date(2024, 11, 4): 2},
            counts={date(2024, 11, 4): (9, False)},
        )
        self.assertEqual((found.title, found.before, found.after), ("November 2024", "2024-10", None))
        days = [day for week in found.weeks for day in week]
        self.assertEqual((days[0].date, days[-1].date), (date(2024, 10, 28), date(2024, 12, 1)))
        self.assertEqual([day.date.day for day in days if day.within], list(range(1, 31)))
        self.assertEqual([day.date.day for day in days if day.today], [23])
        self.assertEqual([day.date.day for day in days if day.chosen], [3])
        self.assertEqual({day.date.day for day in days if day.future}, {1, 24, 25, 26, 27, 28, 29, 30})
        self.assertEqual(
            [day.label for day in days if day.failures], ["Monday, 4 November 2024, 9 deliveries, 2 failed"]
        )

    @given(st.dates(date(1971, 2, 1), date(2039, 11, 30)))
    def test_every_month_is_whole(self, day: date) -> None:
        found = month(day.replace(day=1), today=date(2040, 1, 1), chosen=None, failures={}, counts={})
        self.assertTrue(all(len(week) == 7 and week[0].date.weekday() == 0 for week in found.weeks))
        within = [each.date for week in found.weeks for each in week if each.within]
        self.assertIn(day, within)
        self.assertEqual(within, [within[0] + timedelta(days=n) for n in range(len(within))])
        self.assertEqual(within[0].day, 1)
        self.assertEqual(month_given(found.after or "", date(1980, 1, 1)), within[-1] + timedelta(days=1))
        self.assertEqual(month_given(found.before, date(1980, 1, 1)).month, (within[0] - timedelta(1)).month)

    def test_what_is_no_day(self) -> None:
        for text in (
            "",
            "today",
            "2024-13-01",
            "2024-02-30",
            "20241101",
            "2024-W01-1",
            "9999-01-01",
            "1-1-1",
        ):
            self.assertIsNone(day_given(text), text)
        for text in ("", "2024", "2024-13", "2024-1", "nov-2024", "2024-01-01"):
            self.assertEqual(month_given(text, date(2024, 5, 6)), date(2024, 5, 1), text)
        self.assertEqual(day_given("2024-02-29"), date(2024, 2, 29))

    def test_days_of_a_zone(self) -> None:
        # Clocks went back on that day.
        day = date(2024, 10, 27)
        self.assertEqual(end_of(day, BERLIN) - begin_of(day, BERLIN), 25 * HOUR)
        self.assertEqual(local(begin_of(day, BERLIN), UTC), datetime(2024, 10, 26, 22, tzinfo=UTC))


class Sentences(TestCase):
    def check(self, words: str, outcome: str | None, **known: Any) -> None:
        given: dict[str, Any] = {"state": "DISCONNECTED", "ring_seconds": None, "talk_seconds": None}
        self.assertEqual(told(outcome, **{**given, **known}), words)

    def test_outcomes(self) -> None:
        self.check("Missed: rang 12 s, nobody answered", "missed", ring_seconds=12.2, cause=19)
        self.check("Missed: nobody answered (cause 18, No user responding)", "missed", cause=18)
        self.check(
            "Answered after 4.2 s, talked 1:05", "answered", ring_seconds=4.2, talk_seconds=65.0, cause=16
        )
        self.check("Answered, talk time unknown", "answered")
        self.check("Busy: the called party was on another call", "busy", cause=17)
        self.check(
            "Rejected: the called party declined it after 10 s of ringing",
            "rejected",
            ring_seconds=10,
            cause=21,
        )
        self.check(
            "Abandoned: the caller hung up after 8.0 s of ringing", "abandoned", ring_seconds=8.0, cause=16
        )
        self.check("Abandoned: the caller hung up before it rang", "abandoned")
        self.check(
            "Failed: the call could not be completed (cause 3, No route to destination)", "failed", cause=3
        )
        self.check("Failed: the call could not be completed (cause 150)", "failed", cause=150)

    def test_inferred(self) -> None:
        self.check(
            "Missed: nobody answered; its end was not told by the gateway, but inferred",
            "missed",
            inferred=True,
        )

    def test_in_progress(self) -> None:
        self.check("In progress: answered after 12 s", None, state="CONNECTED", ring_seconds=12)
        self.check("In progress: ringing", None, state="ALERTING")
        self.check("In progress: nobody rings yet", None, state=None)


class Figures(TestCase):
    def test_heat(self) -> None:
        monday = begin_of(date(2024, 11, 18), UTC)
        found = heat(
            [(monday + 9 * HOUR, 10), (monday + 9 * HOUR + 168 * HOUR, 20), (monday + 33 * HOUR, 1)], UTC
        )
        self.assertEqual((found.days[0][9].count, found.days[0][9].level), (30, 6))
        self.assertEqual((found.days[1][9].count, found.days[1][9].level), (1, 1))
        self.assertEqual((found.days[2][9].count, found.days[2][9].level), (0, 0))
        self.assertEqual((found.most, found.peak), (30, ("Monday", 9)))
        self.assertEqual(sum(cell.count for row in found.days for cell in row), 31)

    def test_heat_in_a_zone(self) -> None:
        monday = begin_of(date(2024, 11, 18), UTC)
        self.assertEqual(heat([(monday + 23 * HOUR, 1)], BERLIN).peak, ("Tuesday", 0))

    def test_no_heat(self) -> None:
        self.assertEqual((heat([], UTC).most, heat([], UTC).peak), (0, None))

    def test_bars(self) -> None:
        one, two, none = bars({"answered": 30, "missed": 10, "busy": 0})
        self.assertEqual((one.width, one.share), ("100.00%", 0.75))
        self.assertEqual((two.width, two.share), ("33.33%", 0.25))
        self.assertEqual((none.width, none.share), ("0.00%", 0))
        self.assertEqual([bar.share for bar in bars({"answered": 0})], [0])

    def test_parts(self) -> None:
        found = parts({"connecting": 10, "waiting": 30}, 80)
        self.assertEqual(
            [(part.x, part.width) for part in found], [("0.00%", "12.50%"), ("12.50%", "37.50%")]
        )
        self.assertEqual([part.width for part in parts({"a": 10, "b": 30}, 5)], ["25.00%", "75.00%"])
        self.assertEqual([part.width for part in parts({"a": 0})], ["0.00%"])

    @given(st.integers(-5, 50), st.integers(-5, 50))
    def test_a_share_is_never_outside(self, part: int, whole: int) -> None:
        self.assertTrue(0 <= float(percent(part, whole).rstrip("%")) <= 100)

    def test_stretches(self) -> None:
        found = stretches([("ringing", 1_000_000), ("talking", 3_000_000), ("", 9_000_000)], 0, 10_000_000)
        self.assertEqual(
            [(each.state, each.x, each.width, each.seconds) for each in found],
            [("ringing", "10.00%", "20.00%", 2.0), ("talking", "30.00%", "60.00%", 6.0)],
        )
        going = stretches([("ringing", None), ("talking", 5_000_000), ("", None)], 0, 10_000_000)
        self.assertEqual([(each.state, each.width) for each in going], [("talking", "50.00%")])


class Zones(TestCase):
    def test_the_cookie(self) -> None:
        self.assertEqual(zone_name(zone_of("a=b; cubehook-zone=Europe/Berlin; c=d")), "Europe/Berlin")
        for cookie in (
            None,
            "",
            "cubehook-zone=",
            "cubehook-zone=../../etc/passwd",
            "cubehook-zone=/etc/passwd",
            "cubehook-zone=America",
            "cubehook-zone=Middle/Earth",
            "cubehook-zone=Europe/Berlin x",
            "my-cubehook-zone=Europe/Berlin",
            f"cubehook-zone={'x' * 5000}",
        ):
            self.assertEqual(zone_name(zone_of(cookie)), "UTC", cookie)

    def test_a_time_that_was_typed(self) -> None:
        for text, taken in (
            ("2024-11-23T16:03", "2024-11-23T15:03:00.000000Z"),
            ("2024-07-01", "2024-06-30T22:00:00.000000Z"),
            ("2024-11-23T16:03:00Z", "2024-11-23T16:03:00Z"),
            ("2024-02-31", "2024-02-31"),
            ("0001-01-01", "0001-01-01"),
            (" yesterday ", "yesterday"),
            ("  ", None),
        ):
            self.assertEqual(typed_time(text, BERLIN), taken)
