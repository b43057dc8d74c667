"""Lengths of time as gateways write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.xcc.durations import duration_seconds


class DurationTests(SynchronousTestCase):
    def test_durations(self) -> None:
        for text, seconds in [
            ("PT1M3S", 63.0),
            ("PT2H", 7200.0),
            ("P1DT1S", 86401.0),
            ("PT0.25S", 0.25),
            ("63", 63.0),
            ("P1Y", None),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("-PT1S", None),
            ("soon", None),
            (None, None),
        ]:
            self.assertEqual(duration_seconds(text), seconds, text)
