"""Calls in progress, looked at often and kept seldom."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Micros
from cubehook.sampling import MINUTE, Sampler
from cubehook.store.errors import StoreError

NOON: Micros = 1_732_363_200_000_000


class Desk:
    """What a sampler is asked to look at, and what it has kept."""

    def __init__(self) -> None:
        self.now = NOON
        self.active: dict[str, int] = {}
        self.kept: list[tuple[int, dict[str, int]]] = []
        self.fails = False
        self.sampler = Sampler(lambda: self.active, self.keep, lambda: self.now)

    async def keep(self, minute: int, active: Mapping[str, int]) -> None:
        if self.fails:
            raise StoreError("no room")
        self.kept.append((minute - NOON // MINUTE, dict(active)))

    def look(self, seconds: int, **active: int) -> None:
        self.now = NOON + seconds * 1_000_000
        self.active = active
        done = Deferred.fromCoroutine(self.sampler.look())
        assert done.called
        assert done.result is None


class SamplerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()

    def test_a_quiet_service_writes_once_a_minute(self) -> None:
        for seconds in range(0, 180, 10):
            self.desk.look(seconds, hq=0, branch=3)
        self.assertEqual(self.desk.kept, [(minute, {"hq": 0, "branch": 3}) for minute in range(3)])

    def test_what_is_more_is_written_at_once(self) -> None:
        for seconds, active in ((0, 1), (10, 4), (20, 2), (30, 5), (40, 5)):
            self.desk.look(seconds, hq=active)
        self.assertEqual([active["hq"] for _, active in self.desk.kept], [1, 4, 5])

    def test_a_store_that_cannot_be_written_is_no_end(self) -> None:
        self.desk.fails = True
        self.desk.look(0, hq=1)
        self.desk.fails = False
        self.desk.look(60, hq=1)
        self.assertEqual(self.desk.kept, [(1, {"hq": 1})])

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 30),
                st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 5)),
            ),
            max_size=30,
        )
    )
    def test_the_most_of_each_minute_is_kept_of_each_cube_and_of_all(
        self, looks: list[tuple[int, dict[str, int]]]
    ) -> None:
        desk = Desk()
        most: dict[tuple[int, str], int] = {}
        now = 0
        for wait, active in looks:
            now += wait
            desk.look(now, **active)
            for cube, count in {**active, "": sum(active.values())}.items():
                most[now // 60, cube] = max(count, most.get((now // 60, cube), 0))
        kept: dict[tuple[int, str], int] = {}
        for minute, active in desk.kept:
            for cube, count in {**active, "": sum(active.values())}.items():
                kept[minute, cube] = max(count, kept.get((minute, cube), 0))
        self.assertEqual(kept, most)
