"""Percentiles to one per cent, in constant memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.simulator.latencies import Latencies, Percentiles


class LatenciesTests(SynchronousTestCase):
    @settings(max_examples=100)
    @given(st.lists(st.floats(2e-6, 1000), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
    def test_percentile_is_within_one_per_cent(self, durations: list[float], share: float) -> None:
        latencies = Latencies()
        for duration in durations:
            latencies.add(duration)
        durations.sort()
        exact = durations[max(0, -int(-len(durations) * share // 1) - 1)]
        found = latencies.percentile(share)
        assert found is not None
        self.assertTrue(exact * 0.989 <= found <= exact * 1.0102, (exact, found))

    def test_nothing_and_clocks_that_disagree(self) -> None:
        latencies = Latencies()
        self.assertEqual(latencies.percentiles(), Percentiles(0, None, None, None))
        latencies.add(-5.0)
        latencies.add(0.0)
        self.assertEqual(latencies.count, 2)
        self.assertEqual(latencies.percentiles().max_ms, 0.0)

    def test_milliseconds(self) -> None:
        latencies = Latencies()
        for number in range(1, 1001):
            latencies.add(number / 1000)
        figures = latencies.percentiles()
        self.assertEqual((figures.count, figures.max_ms), (1000, 1000.0))
        assert figures.p50_ms is not None
        assert figures.p99_ms is not None
        self.assertApproximates(figures.p50_ms, 500, 6)
        self.assertApproximates(figures.p99_ms, 990, 11)
