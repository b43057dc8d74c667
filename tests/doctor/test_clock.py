"""What is made of what others say the time is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.doctor.clock import Opinion, judge, opinion
from cubehook.doctor.findings import Level

NOON = 1_732_363_200.0
"""2024-11-23T12:00:00Z."""


class Opinions(SynchronousTestCase):
    def test_forms(self) -> None:
        for date in ("Sat, 23 Nov 2024 12:00:00 GMT", "Sat, 23 Nov 2024 13:00:00 +0100"):
            self.assertEqual(opinion("r", date, NOON + 30.5), Opinion("r", 30.0))

    def test_none(self) -> None:
        for date in (
            None,
            "",
            "yesterday",
            "Sat, 99 Nov 2024 12:00:00 GMT",
            "Sat, 23 Nov 99999 12:00:00 GMT",
        ):
            self.assertIsNone(opinion("r", date, NOON))

    @given(st.text(max_size=60))
    def test_nothing_raises(self, date: str) -> None:
        _ = opinion("r", date, NOON)


class Judging(SynchronousTestCase):
    def level(self, *ahead: float) -> Level:
        (found,) = judge([Opinion(f"r{number}", each) for number, each in enumerate(ahead)])
        return found.level

    def test_levels(self) -> None:
        self.assertEqual(self.level(), Level.SKIPPED)
        self.assertEqual(self.level(0.5, -2.0), Level.OK)
        self.assertEqual(self.level(30), Level.WARNING)
        # One alone may be wrong itself, as a router without NTP is.
        self.assertEqual(self.level(100), Level.WARNING)
        self.assertEqual(self.level(100, 0), Level.WARNING)
        self.assertEqual(self.level(100, 101), Level.FAILED)
        self.assertEqual(self.level(100, -100), Level.WARNING)
        self.assertEqual(self.level(-300), Level.FAILED)

    def test_words(self) -> None:
        (found,) = judge([Opinion("the gateway a:1", 3600.2), Opinion("b", -10)])
        self.assertIn("3,600 s ahead of the gateway a:1; this machine is 10 s behind b", found.text)
