"""Q.850 causes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.calls.causes import cause_text, unanswered_outcome
from cubehook.events import Outcome


class CauseTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(cause_text(16), "Normal call clearing")
        self.assertEqual(cause_text(17), "User busy")
        self.assertEqual(cause_text(127), "Interworking, unspecified")

    def test_every_value_of_the_table(self) -> None:
        """The table has 71 entries, from 1 to 127."""
        named = [cause for cause in range(-1, 200) if cause_text(cause)]
        self.assertEqual((named[0], named[-1]), (1, 127))
        self.assertEqual(len(named), 71)

    def test_nameless(self) -> None:
        for cause in (None, 0, 10, 128, 188, 10**17):
            self.assertIsNone(cause_text(cause))

    def test_outcomes(self) -> None:
        for cause, ringing, silent in [
            (17, Outcome.BUSY, Outcome.BUSY),
            (21, Outcome.REJECTED, Outcome.REJECTED),
            (24, Outcome.REJECTED, Outcome.REJECTED),
            (18, Outcome.MISSED, Outcome.MISSED),
            (19, Outcome.MISSED, Outcome.MISSED),
            (20, Outcome.MISSED, Outcome.MISSED),
            (16, Outcome.MISSED, Outcome.ABANDONED),
            (102, Outcome.MISSED, Outcome.FAILED),
            (31, Outcome.MISSED, Outcome.FAILED),
            (1, Outcome.FAILED, Outcome.FAILED),
            (34, Outcome.FAILED, Outcome.FAILED),
            (47, Outcome.FAILED, Outcome.FAILED),
            (188, Outcome.FAILED, Outcome.FAILED),
        ]:
            self.assertIs(unanswered_outcome(cause, rang=True), ringing, cause)
            self.assertIs(unanswered_outcome(cause, rang=False), silent, cause)
