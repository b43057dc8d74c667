"""Analytics: what calls of a time add up to, in charts, tables and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, time, tzinfo
from typing import Any

import msgspec

from cubehook.api.errors import NotFoundError
from cubehook.console.analysis import (
    OUTCOMES,
    RANGES,
    Range,
    Slot,
    Sums,
    evenly,
    narrowed,
    range_of_days,
    range_up_to,
    slots,
    whole,
)
from cubehook.console.csvfile import Cell, csv_bytes
from cubehook.console.desk import Desk
from cubehook.console.figures import WEEKDAYS, Heat, bars, heat
from cubehook.console.filters import Filters
from cubehook.console.months import day_given, local, micros_of
from cubehook.console.pages.calls import cubes_known
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.words import as_time
from cubehook.console.zones import zone_name, zone_of
from cubehook.events import Micros, iso

FILTERS = ("range", "since", "until", "cube")


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page shows of a time; `range` is what is known of the one that was `chosen`."""

    chosen: Range
    range: Range
    zone: tzinfo
    stats: Any
    slots: list[Slot]
    averages: list[Slot]
    sums: Sums
    heat: Heat
    progress: list[tuple[Micros, int | None]]


class Pages:
    """The page of figures, and what it shows as CSV."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @page("GET", "/analytics")
    async def analytics(self, visit: Visit) -> Answer:
        """Charts of a time, chosen by its length or by days, of all cubes or one."""
        zone = zone_of(visit.cookie)
        filters = Filters(visit.query, FILTERS, zone)
        found = await self._analysis(visit, filters, zone)
        stats = found.stats
        chosen = found.chosen
        first, last = local(chosen.since, zone), local(chosen.until - 1, zone)
        until = None if chosen.name else typed(chosen.until, zone)
        return visit.show(
            "analytics.html",
            filters=filters,
            range=found.range,
            narrowed=found.range != chosen,
            ranges=[(name, text) for name, (text, _) in RANGES.items()],
            first=f"{first:%Y-%m-%d}",
            last=f"{last:%Y-%m-%d}",
            today=f"{local(visit.now, zone):%Y-%m-%d}",
            cubes=await cubes_known(visit),
            stats=stats,
            sums=found.sums,
            slots=found.slots,
            averages=found.averages,
            heat=found.heat,
            weekdays=WEEKDAYS,
            progress=found.progress,
            outcomes=bars(found.sums.outcomes),
            calling=bars({each.number: each.calls for each in stats.calling}),
            called=bars({each.number: each.calls for each in stats.called}),
            to_calls=lambda **more: filters.address(
                "/calls", range=None, since=typed(chosen.since, zone), until=until, **more
            ),
            csv={part: filters.address(f"/analytics/{part}.csv") for part in PARTS},
            zone=zone_name(zone),
        )

    @page("GET", "/analytics/<part>.csv")
    async def as_csv(self, visit: Visit, part: str) -> Answer:
        """What one part of the page shows, as CSV."""
        table = PARTS.get(part)
        if table is None:
            raise NotFoundError("There is no such table")
        zone = zone_of(visit.cookie)
        filters = Filters(visit.query, FILTERS, zone)
        found = await self._analysis(visit, filters, zone)
        header, rows = table(found)
        first, last = local(found.range.since, zone), local(found.range.until - 1, zone)
        name = f"cubehook-{part}-{first:%Y%m%d}-{last:%Y%m%d}.csv"
        return Answer(
            body=csv_bytes(header, rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def _analysis(self, visit: Visit, filters: Filters, zone: tzinfo) -> Analysis:
        chosen = range_given(filters, visit.now, zone)
        stats = await self._stats(visit, chosen, filters)
        range_ = narrowed(chosen, _first(stats))
        if range_ != chosen:
            # What is in progress is told the finer, the shorter the time.
            stats = await self._stats(visit, range_, filters)
        hours = [(_micros(hour.at), sums_of(hour)) for hour in stats.hours]
        every = slots(hours, range_.since, min(range_.until, visit.now), range_.step, zone)
        return Analysis(
            chosen=chosen,
            range=range_,
            zone=zone,
            stats=stats,
            slots=every,
            averages=slots(hours, range_.since, min(range_.until, visit.now), range_.wide_step, zone),
            sums=whole(every),
            heat=heat(((at, sums.calls) for at, sums in hours), zone),
            progress=evenly(
                ((_micros(each.at), each.calls) for each in stats.active),
                range_.until,
                stats.active_step_seconds * 1_000_000,
            ),
        )

    async def _stats(self, visit: Visit, range_: Range, filters: Filters) -> Any:
        query = {"since": iso(range_.since), "until": iso(range_.until), "cube": filters["cube"] or None}
        return await visit.ask("get_stats", query=query)


def _first(stats: Any) -> Micros | None:
    """When the earliest is that anything was counted."""
    times = [_micros(hour.at) for hour in stats.hours if hour.calls]
    return min([*times, *(_micros(each.at) for each in stats.active[:1])], default=None)


def range_given(filters: Filters, now: Micros, zone: tzinfo) -> Range:
    """The time that is asked for: by its days if one is given that has begun, else by its length."""
    today = local(now, zone).date()
    first, last = day_given(filters["since"]), day_given(filters["until"])
    if first is None and last is None:
        return range_up_to(filters["range"], now)
    first, last = first or last or today, last or today
    days = [datetime.combine(min(day, today), time(), zone) for day in (first, last)]
    return range_of_days(*days)


def typed(at: Micros, zone: tzinfo) -> str:
    """A time as a page's field has it."""
    return f"{local(at, zone):%Y-%m-%dT%H:%M}"


def sums_of(view: Any) -> Sums:
    """The API's sums as they are added up here."""
    return Sums(
        calls=view.calls,
        outcomes={name: view.outcomes.get(name, 0) for name in OUTCOMES},
        rung=view.rung,
        ring_seconds=view.ring_seconds,
        talked=view.talked,
        talk_seconds=view.talk_seconds,
    )


def _micros(at: str) -> Micros:
    return micros_of(as_time(at))


_Table = tuple[list[str], Iterable[list[Cell]]]


def _clock(found: Analysis, at: Micros) -> str:
    return f"{local(at, found.zone):%Y-%m-%d %H:%M}"


def _at(found: Analysis, what: str) -> str:
    return f"{what} ({zone_name(found.zone)})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _progress(found: Analysis) -> _Table:
    rows: list[list[Cell]] = [[_clock(found, at), count] for at, count in found.progress]
    return [_at(found, "from"), "in progress at most"], rows


def _calls(found: Analysis) -> _Table:
    header = [_at(found, "from"), "calls", *OUTCOMES]
    rows: list[list[Cell]] = [
        [
            _clock(found, slot.at),
            slot.sums.calls,
            *(slot.sums.outcomes[name] for name in OUTCOMES),
        ]
        for slot in found.slots
    ]
    return header, rows


def _averages(found: Analysis) -> _Table:
    header = [_at(found, "from"), "answered percent", "average ring seconds", "average talk seconds"]
    rows: list[list[Cell]] = [
        [
            _clock(found, slot.at),
            _rounded(slot.sums.answer_percent),
            _rounded(slot.sums.average_ring),
            _rounded(slot.sums.average_talk),
        ]
        for slot in found.averages
    ]
    return header, rows


def _outcomes(found: Analysis) -> _Table:
    return ["outcome", "calls"], [[name, count] for name, count in found.sums.outcomes.items()]


def _week(found: Analysis) -> _Table:
    header = [_at(found, "weekday"), *(f"{hour:02}:00" for hour in range(24))]
    rows: list[list[Cell]] = [
        [day, *(hour.count for hour in hours)] for day, hours in zip(WEEKDAYS, found.heat.days, strict=True)
    ]
    return header, rows


def _numbers(found: Analysis) -> _Table:
    rows: list[list[Cell]] = [
        *(["calling", each.number, each.calls] for each in found.stats.calling),
        *(["called", each.number, each.calls] for each in found.stats.called),
    ]
    return ["side", "number", "calls"], rows


def _cubes(found: Analysis) -> _Table:
    header = ["cube", "calls", *OUTCOMES, "average ring seconds", "average talk seconds", "most at once"]
    rows: list[list[Cell]] = [
        [
            cube,
            sums.calls,
            *(sums.outcomes.get(name, 0) for name in OUTCOMES),
            _rounded(sums.average_ring_seconds),
            _rounded(sums.average_talk_seconds),
            None if sums.peak is None else sums.peak.calls,
        ]
        for cube, sums in found.stats.cubes.items()
    ]
    return header, rows


PARTS: dict[str, Callable[[Analysis], _Table]] = {
    "progress": _progress,
    "calls": _calls,
    "averages": _averages,
    "outcomes": _outcomes,
    "week": _week,
    "numbers": _numbers,
    "cubes": _cubes,
}
"""The tables of the page, by the names of their files."""
