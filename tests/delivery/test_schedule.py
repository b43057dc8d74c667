"""When to try again, and what a receiver may ask for."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.schedule import LONGEST_HOLD, parse_retry_after, wait_after

NOW = 1_732_377_816_200_940
"""2024-11-23T16:03:36.200940Z"""

waits = st.lists(st.floats(0, 1e6), max_size=12)


class WaitTests(SynchronousTestCase):
    def test_each_failure_has_its_wait_and_the_last_is_followed_by_none(self) -> None:
        schedule = (2.0, 10.0, 30.0)
        self.assertEqual(
            [2.0, 10.0, 30.0, None, None], [wait_after(n, schedule, 0.2, 0.5) for n in (1, 2, 3, 4, 5)]
        )

    def test_no_schedule_gives_up_at_once(self) -> None:
        self.assertIsNone(wait_after(1, (), 0.2, 0.5))

    def test_jitter_shortens_and_lengthens(self) -> None:
        self.assertAlmostEqual(8.0, wait_after(1, (10.0,), 0.2, 0.0) or 0)
        self.assertAlmostEqual(11.0, wait_after(1, (10.0,), 0.2, 0.75) or 0)

    @given(waits, st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.integers(1, 20))
    def test_a_wait_stays_within_its_share(
        self, schedule: list[float], jitter: float, chance: float, failures: int
    ) -> None:
        wait = wait_after(failures, schedule, jitter, chance)
        if failures > len(schedule):
            self.assertIsNone(wait)
        else:
            assert wait is not None
            planned = schedule[failures - 1]
            self.assertLessEqual(planned * (1 - jitter) - 1e-6, wait)
            self.assertLessEqual(wait, planned * (1 + jitter) + 1e-6)
            self.assertGreaterEqual(wait, 0.0)


class RetryAfterTests(SynchronousTestCase):
    def test_seconds(self) -> None:
        for value, seconds in (("120", 120.0), (" 5 ", 5.0), ("0", 0.0), ("007", 7.0), ("1.5", 1.5)):
            self.assertEqual(seconds, parse_retry_after(value, NOW))

    def test_the_three_dates_of_http(self) -> None:
        for value in (
            "Sat, 23 Nov 2024 16:04:36 GMT",
            "Saturday, 23-Nov-24 16:04:36 GMT",
            "Sat Nov 23 16:04:36 2024",
        ):
            self.assertAlmostEqual(59.8, parse_retry_after(value, NOW) or 0, places=2)

    def test_a_date_without_a_zone_is_not_in_ours(self) -> None:
        before = os.environ.pop("TZ", None)

        def restore() -> None:
            os.environ.pop("TZ")
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)
        os.environ["TZ"] = "America/New_York"
        time.tzset()
        self.assertAlmostEqual(59.8, parse_retry_after("Sat Nov 23 16:04:36 2024", NOW) or 0, places=2)

    def test_the_past_is_now(self) -> None:
        self.assertEqual(0.0, parse_retry_after("Sat, 23 Nov 2024 16:03:00 GMT", NOW))
        self.assertEqual(0.0, parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", NOW))

    def test_nobody_is_silent_for_longer_than_a_day(self) -> None:
        for value in ("86401", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"):
            self.assertEqual(LONGEST_HOLD, parse_retry_after(value, NOW))

    def test_what_cannot_be_understood_is_nothing(self) -> None:
        for value in (
            "",
            "soon",
            "-3",
            "1e3",
            "inf",
            "nan",
            "0x10",
            "٣",
            "1, 2",
            "Wed, 32 Nov 2024 16:00:00 GMT",
            "Sat, 23 Nov 2024 16:04:36 +9999999999",
            "\x00",
            "1" * 10 + "x" * 10_000,
        ):
            self.assertIsNone(parse_retry_after(value, NOW), value[:40])

    @given(st.integers(0, 2 * 86400))
    def test_a_date_as_others_write_it(self, ahead: int) -> None:
        moment = datetime.fromtimestamp(NOW // 1_000_000 + 1 + ahead, UTC)
        seconds = parse_retry_after(format_datetime(moment, usegmt=True), NOW)
        assert seconds is not None
        self.assertAlmostEqual(min(ahead + 1 - 0.20094, LONGEST_HOLD), seconds, places=3)

    @given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+( .*)?"))
    def test_whatever_comes_is_bounded_or_nothing(self, value: str) -> None:
        seconds = parse_retry_after(value, NOW)
        self.assertTrue(seconds is None or (0.0 <= seconds <= LONGEST_HOLD and not math.isnan(seconds)))
