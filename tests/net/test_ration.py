"""How much of what strangers send is told in the log."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cubehook.net.ration import MOST, SPAN_SECONDS, Ration


class RationTests(SynchronousTestCase):
    def test_so_much_in_a_span_and_the_rest_is_counted(self) -> None:
        clock = Clock()
        ration = Ration("strangers", clock.seconds)
        with capturedLogs() as said:
            self.assertEqual([ration.take() for _ in range(MOST + 3)], [True] * MOST + [False] * 3)
            clock.advance(SPAN_SECONDS - 1)
            self.assertFalse(ration.take())
            clock.advance(1)
            self.assertTrue(ration.take())
        self.assertEqual(
            [formatEvent(event) for event in said],
            [
                "There is too much to tell of strangers: nothing more is, for 60 s",
                "4 lines more about strangers were not written",
            ],
        )

    def test_a_clock_that_is_set_back_silences_nothing(self) -> None:
        clock = Clock()
        clock.advance(1_000)
        ration = Ration("strangers", clock.seconds)
        while ration.take():
            pass
        clock.rightNow = 10.0
        self.assertTrue(ration.take())
