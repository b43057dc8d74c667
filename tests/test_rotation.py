"""Which of a webhook's secrets sign, and until when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.rotation import MOST_FORMER, Former, SigningSecrets

HOUR = 3_600_000_000
DAY = 24 * HOUR
OVERLAP = 86_400.0


class RotationTests(SynchronousTestCase):
    def test_both_sign_until_the_overlap_is_over_and_then_the_new_one_alone(self) -> None:
        found = SigningSecrets(current="a").replaced("b", HOUR, OVERLAP)
        end = HOUR + DAY
        self.assertEqual(found.active(HOUR), ("b", "a"))
        self.assertEqual(found.active(end - 1), ("b", "a"))
        self.assertEqual(found.active(end), ("b",))
        self.assertEqual((found.next_end(HOUR), found.next_end(end - 1)), (end, end))
        self.assertIsNone(found.next_end(end))

    def test_a_second_change_within_the_overlap_leaves_three_each_with_its_own_end(self) -> None:
        found = SigningSecrets(current="a").replaced("b", 0, OVERLAP).replaced("c", HOUR, OVERLAP)
        self.assertEqual(found.active(HOUR), ("c", "b", "a"))
        self.assertEqual(found.next_end(HOUR), DAY)
        self.assertEqual(found.active(DAY), ("c", "b"))
        self.assertEqual(found.next_end(DAY), DAY + HOUR)
        self.assertEqual(found.active(DAY + HOUR), ("c",))

    def test_changing_back(self) -> None:
        found = SigningSecrets(current="a").replaced("b", 0, OVERLAP).replaced("a", HOUR, OVERLAP)
        self.assertEqual(found, SigningSecrets(current="a", former=(Former("b", HOUR + DAY),)))

    def test_the_same_again_changes_nothing_but_whose_it_is(self) -> None:
        before = SigningSecrets(current="a").replaced("b", 0, OVERLAP)
        found = before.replaced("b", HOUR, 1.0, from_file=True)
        self.assertEqual(found, SigningSecrets(current="b", from_file=True, former=before.former))

    def test_a_shorter_overlap_holds_for_the_earlier_ones_too(self) -> None:
        before = SigningSecrets(current="a").replaced("b", 0, OVERLAP)
        self.assertEqual(
            before.replaced("c", HOUR, 60.0).former,
            (Former("b", HOUR + 60_000_000), Former("a", HOUR + 60_000_000)),
        )
        self.assertEqual(before.replaced("c", HOUR, 0.0).former, ())

    def test_a_longer_one_revives_nothing(self) -> None:
        before = SigningSecrets(current="a").replaced("b", 0, 60.0)
        self.assertEqual(
            before.replaced("c", 1, OVERLAP).former, (Former("b", 1 + DAY), Former("a", 60_000_000))
        )
        self.assertEqual(before.replaced("c", HOUR, OVERLAP).former, (Former("b", HOUR + DAY),))

    def test_a_repr_tells_no_secret(self) -> None:
        found = SigningSecrets(current="whsec_one").replaced("whsec_two", 0, OVERLAP)
        self.assertNotIn("whsec", repr(found) + repr(found.former) + str(found))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcdefghijklmnop"), st.integers(0, 100), st.sampled_from([0, 3, 50, 400])
            ),
            min_size=1,
            max_size=30,
        )
    )
    def test_what_signs_is_what_was_current_within_its_overlap(
        self, changes: list[tuple[str, int, int]]
    ) -> None:
        """Against each secret's time of being replaced, told by hand."""
        found = SigningSecrets(current="first")
        ends: dict[str, int] = {}
        at = 0
        for new, later, overlap in changes:
            at += later * 1_000_000
            if new != found.current:
                end = at + overlap * 1_000_000
                ends = {secret: min(until, end) for secret, until in ends.items()}
                ends[found.current] = end
                ends.pop(new, None)
            found = found.replaced(new, at, overlap)
            for when in (at, at + 2_000_000, at + 60_000_000, at + 500_000_000):
                signing = found.active(when)
                self.assertEqual(signing[0], new)
                expected = {secret for secret, until in ends.items() if when < until}
                self.assertEqual(len(signing), len(set(signing)))
                self.assertLessEqual(set(signing[1:]), expected)
                if len(expected) <= MOST_FORMER:
                    self.assertEqual(set(signing[1:]), expected)
                end_ = found.next_end(when)
                self.assertEqual(end_ is None, len(signing) == 1)
                if end_ is not None:
                    self.assertEqual(found.active(end_ - 1), signing)
                    self.assertLess(len(found.active(end_)), len(signing))
