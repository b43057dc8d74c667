"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import iso
from cubehook.times import parse_moment, parse_time

NOW = 1_732_377_816_200_940
"""2024-11-23T16:03:36.200940Z."""


class Rfc3339(SynchronousTestCase):
    def test_forms(self) -> None:
        for text in (
            "2024-11-23T16:03:36.200940Z",
            "2024-11-23T16:03:36.2009409Z",
            "2024-11-23t16:03:36.20094z",
            "2024-11-23 17:33:36.20094+01:30",
            "2024-11-23T08:03:36.20094-08:00",
        ):
            self.assertEqual(parse_time(text), NOW, text)
        self.assertEqual(parse_time("1970-01-01T00:00:00Z"), 0)

    def test_other_forms(self) -> None:
        for text in (
            "",
            "now",
            "2024-11-23",
            "2024-11-23T16:03:36",
            "2024-11-23T16:03Z",
            "20241123T160336Z",
            "2024-11-23T16:03:36.Z",
            "2024-11-23T16:03:36+0100",
            "2024-11-23T16:03:36Z\n",
            "2024-11-2\u0663T16:03:36Z",
            "1732377816",
        ):
            self.assertRaises(ValueError, parse_time, text)

    def test_what_is_no_time(self) -> None:
        for text in ("2024-02-30T00:00:00Z", "2024-11-23T25:00:00Z", "2024-11-23T00:00:00+25:00"):
            error = self.assertRaises(ValueError, parse_time, text)
            self.assertIn("no such day or time", str(error))

    def test_times_that_no_id_tells(self) -> None:
        for text in (
            "1969-12-31T23:59:59Z",
            "2041-06-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "0001-01-01T00:00:00+10:00",
        ):
            error = self.assertRaises(ValueError, parse_time, text)
            self.assertIn("1970", str(error))

    @given(st.integers(0, (1 << 51) - 1))
    def test_reads_what_we_write(self, at: int) -> None:
        self.assertEqual(parse_time(iso(at)), at)


class Moments(SynchronousTestCase):
    zone = timezone(timedelta(hours=2))

    def test_how_long_ago(self) -> None:
        for text, seconds in (("45s", 45), ("90m", 5400), ("12h", 43200), ("7d", 604800)):
            self.assertEqual(parse_moment(text, NOW), NOW - seconds * 1_000_000)

    def test_a_date_begins_at_midnight_here(self) -> None:
        expected = datetime(2024, 11, 22, 22, tzinfo=UTC).timestamp() * 1e6
        self.assertEqual(parse_moment("2024-11-23", NOW, self.zone), expected)
        here = datetime(2024, 7, 1).astimezone().timestamp() * 1e6
        self.assertEqual(parse_moment("2024-07-01", NOW), here)

    def test_a_time(self) -> None:
        self.assertEqual(parse_moment("2024-11-23T16:03:36.20094Z", 0), NOW)

    def test_what_is_none_says_what_would_be(self) -> None:
        for text in ("yesterday", "", "7", "7w", "0d", "-7d", "2024-11-23T16:00:00", "1e3s"):
            error = self.assertRaises(ValueError, parse_moment, text, NOW)
            self.assertIn("7d", str(error))
        for text, words in (("2024-02-30", "no such day"), ("1812-01-01", "1970"), ("0001-01-01", "1970")):
            self.assertIn(words, str(self.assertRaises(ValueError, parse_moment, text, NOW, self.zone)))
