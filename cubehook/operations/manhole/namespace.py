"""The names that a prompt begins with."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from cubehook import __version__
from cubehook.changes import RefusedError, ReloadError, SettingsError
from cubehook.delivery.breaker import State
from cubehook.events import Micros, iso
from cubehook.ids import id_text, parse_id
from cubehook.interfaces import RedeliveryError
from cubehook.operations.manhole.completion import completes
from cubehook.operations.manhole.inside import Inside
from cubehook.operations.manhole.interpreter import MistakeError
from cubehook.operations.manhole.screen import Cell, Column, Painted, Screen, Style, details, table
from cubehook.operations.manhole.views import (
    CallsView,
    CubesView,
    DeliveriesView,
    Fields,
    Named,
    Shown,
    WebhooksView,
    moment,
    registration_pairs,
    span,
)
from cubehook.operations.trace import TraceError
from cubehook.records import RegistrationState
from cubehook.store.errors import StoreError
from cubehook.text import printable

__all__ = ["PLAIN", "Shown", "namespace"]

PLAIN = (MistakeError, RedeliveryError, StoreError, TraceError, RefusedError, ReloadError, SettingsError)
"""Exceptions the texts of which say all there is to say."""

HELP = (
    ("status()", "how the service stands, in a page"),
    ("cubes", "the gateways; cubes.hq or cubes['a-b'] tells all of one"),
    ("webhooks", "the receivers; webhooks.crm tells all of one"),
    ("calls", "the latest calls; calls(number='1663', since='2h', limit=50); calls['ID'] tells all of one"),
    (
        "deliveries",
        "the latest; deliveries(webhook='crm', status='failed'); deliveries['ID'] with its attempts",
    ),
    ("register('hq')", "register with a gateway again now"),
    ("redeliver('ID')", "send one delivery again"),
    ("enable('crm')", "send again to a webhook that was disabled"),
    ("reload()", "read the configuration file again, and let hold what differs"),
    ("trace('hq', 10)", "write what a gateway and we say to a file, for 10 minutes; 0 ends that"),
    ("loglevel('cubehook.xcc', 'debug')", "log more, or less, until the service stops; loglevel() tells"),
    ("sleep(2)", "for programs: while True: print(status()); await sleep(2)"),
    ("service", "the service itself; whatever it can do, this prompt can"),
)

ADVICE = (
    "Lists have rows: _[0] is the first, calls[_[0]] tells all of it, _.more is the next page.",
    "Times are UTC.",
    "What can be awaited is awaited. Ctrl-C stops waiting for it, and ends a program at its next await.",
    "Tab completes, Up recalls what begins so, Ctrl-R searches, _ is the last result, exit leaves.",
    "An exception is shown and does no harm. A program that never awaits does: until it ends, such as "
    "`while True: pass`, the whole service stands still, and nobody can interrupt it.",
)


def namespace(
    inside: Inside,
    screen: Screen,
    visitor: str,
    *,
    visitors: Callable[[], list[str]],
    leave: Callable[[], None],
) -> dict[str, Any]:
    """A prompt's own names, for `visitor`, one of `visitors`; `leave` ends the session."""
    now, who = inside.now, f"manhole: {visitor}"

    def record(action: str, subject: str, **detail: Any) -> None:
        inside.record(who, action, subject, detail)

    cubes = CubesView(inside, screen)
    webhooks = WebhooksView(inside, screen)

    def help(thing: object = None) -> object:
        """What is here; help(thing) tells what Python knows of a thing."""
        if thing is None:
            return _help(screen)
        import pydoc

        text = pydoc.render_doc(thing, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
        return Painted("\n".join(printable(line, len(line)) for line in text.rstrip("\n").split("\n")))

    def status() -> Fields:
        """How the service stands."""
        return Fields(screen, inside.service, lambda: _status(inside, visitors()))

    def cube_ids() -> list[str]:
        return cubes.keys()

    @completes(cube_ids)
    async def register(cube: str) -> Fields:
        """Register with the gateway of `cube` again now, and tell how that went."""
        id = _known(cubes, cube)
        registration = await inside.cubes.register(id)
        record("register_cube", id)
        return Fields(screen, registration, lambda: [("cube", id), *registration_pairs(registration, now())])

    async def redeliver(delivery: Any) -> Fields:
        """Send one delivery again: its id, or a row of `deliveries`."""
        id = _delivery_id(delivery)
        sent = await inside.redelivery.one(id, who)
        record("redeliver_one", id_text(id))
        return Fields(
            screen,
            sent,
            lambda: [
                ("delivery", id_text(sent.id)),
                ("webhook", sent.webhook),
                ("status", Cell(f"{sent.status}, to be sent again", Style.WARN)),
                ("event", sent.event.payload.event_id),
            ],
        )

    @completes(lambda: webhooks.keys())
    async def enable(webhook: str) -> Fields:
        """Send to a webhook again that was disabled while it was in use."""
        id = _known(webhooks, webhook)
        await inside.webhooks.enable(id)
        record("enable_webhook", id)
        return webhooks[id]

    async def reload() -> Fields:
        """Read the configuration file again, and tell what has changed; a mistake in it changes nothing."""
        done = await inside.reload(f"manhole: {visitor}")
        pairs: list[tuple[str, str | Cell]] = [("file", done.file)]
        for line in done.words() or ["nothing has changed"]:
            what, _, which = line.partition(": ")
            pairs.append((what, which) if which else ("result", what))
        pairs += [("warning", Cell(printable(words), Style.WARN)) for words in done.warning_words()]
        return Fields(screen, done, lambda: pairs)

    @completes(cube_ids)
    def trace(cube: str, minutes: float = 10, masked: bool = False) -> Fields:
        """
        Write what the gateway of `cube` and we say to each other to a file, for some minutes; 0 ends that.

        With `masked`, telephone numbers are hidden but for their last digits.
        """
        id = _known(cubes, cube)
        try:
            tracing = inside.trace(id, minutes, masked)
        except (ValueError, TypeError) as error:
            raise MistakeError(f"minutes: {error}") from None
        record("trace_cube", id, minutes=minutes, masked=masked)
        return Fields(
            screen,
            tracing,
            lambda: [
                ("cube", id),
                ("trace", _tracing(tracing.until)),
                ("numbers", "masked" if tracing.masked else "as they are"),
                ("messages", f"{tracing.messages:,}"),
                ("file", str(tracing.file)),
            ],
        )

    @completes(
        lambda: ("cubehook", "cubehook.delivery", "cubehook.operations", "cubehook.store", "cubehook.xcc")
    )
    def loglevel(namespace: str | None = None, level: str | None = None) -> Painted:
        """
        Log what `namespace` says from `level` on: debug, info, warn, error or critical.

        Without a level, what is logged of it; without a namespace, of all that have a level of their own.
        """
        return _loglevel(inside.logs.predicate, screen, namespace, level)

    def sleep(seconds: float) -> Deferred[None]:
        """Wait, and let the service go on meanwhile."""
        return deferLater(inside.reactor, seconds)

    def refuse(*_: object, **__: object) -> None:
        raise MistakeError("Whoever waits for the keyboard here stops the whole service.")

    names = {
        "__name__": "__manhole__",
        "__doc__": None,
        "service": inside.service,
        "cubes": cubes,
        "webhooks": webhooks,
        "calls": CallsView(inside, screen),
        "deliveries": DeliveriesView(inside, screen),
        "input": refuse,
        "breakpoint": refuse,
        "exit": _Leave(leave),
        "quit": _Leave(leave),
    }
    for function in (help, status, register, redeliver, enable, reload, trace, loglevel, sleep):
        names[function.__name__] = function
    return names


class _Leave:
    """Ends the session, typed with brackets or without."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def __call__(self, *_: object) -> None:
        self._leave()

    def __repr__(self) -> str:
        self._leave()
        return ""


def _known(things: Named[Fields], thing: object) -> str:
    """The id of a thing that was given by its id, or as `things` has it."""
    id = str(thing.id) if isinstance(thing, Fields) else str(thing)
    # So that whoever mistypes is told which there are.
    things[id]
    return id


def _tracing(until: Micros | None) -> str | Cell:
    return "off" if until is None else Cell(f"on until {moment(until)}", Style.WARN)


def _delivery_id(delivery: Any) -> int:
    if isinstance(delivery, Fields):
        inner = getattr(delivery, "delivery", delivery)
        return int(inner.id)
    if isinstance(delivery, int):
        return delivery
    try:
        return parse_id(str(delivery))
    except ValueError as error:
        raise MistakeError(f"{delivery!r} is not the id of a delivery: {error}") from None


def _help(screen: Screen) -> Painted:
    advice = "\n".join(textwrap.fill(line, max(screen.width, 40)) for line in ADVICE)
    return Painted(f"{details(screen, HELP)}\n\n{advice}")


def _status(inside: Inside, visitors: list[str]) -> list[tuple[str, str | Cell]]:
    now, problems = inside.now(), inside.problems()
    up = round((time.monotonic() - inside.began) * 1e6)
    pairs: list[tuple[str, str | Cell]] = [
        ("cubehook", f"{__version__}, process {os.getpid()}, up {span(up)}, {_memory()}"),
        ("time", f"{iso(now)[:19].replace('T', ' ')} UTC"),
        ("ready", Cell("no: " + "; ".join(problems), Style.BAD) if problems else Cell("yes", Style.GOOD)),
    ]
    ids = sorted(inside.cubes.known)
    states = {id: inside.cubes.registration(id).state for id in ids}
    wanted = [id for id in ids if states[id] is not RegistrationState.DISABLED]
    lost = [f"{id} ({states[id]})" for id in wanted if states[id] is not RegistrationState.REGISTERED]
    text = f"{len(wanted) - len(lost)} of {len(wanted)} registered"
    if lost:
        text += f"; not: {', '.join(lost)}"
    pairs.append(("cubes", Cell(text, Style.BAD if lost else Style.GOOD if wanted else None)))
    pairs.append(("calls", f"{sum(inside.cubes.active(id) for id in ids):,} in progress"))
    webhooks = inside.webhooks
    pending, trouble = 0, []
    for id in sorted(webhooks.known):
        standing = webhooks.status(id)
        pending += standing.pending
        if id in webhooks.disabled:
            trouble.append(f"{id} is disabled")
        elif standing.state is not State.CLOSED or standing.held_until is not None:
            trouble.append(f"{id} is held back")
        elif standing.problem is not None:
            trouble.append(f"{id} is in trouble")
        elif standing.failures:
            trouble.append(f"{id} is failing")
    text = f"{len(webhooks.known)}" + (
        f"; {', '.join(trouble)}" if trouble else ", all healthy" if webhooks.known else ""
    )
    pairs.append(("webhooks", Cell(text, Style.BAD if trouble else Style.GOOD if webhooks.known else None)))
    pairs.append(("deliveries", f"{pending:,} pending"))
    store = inside.store
    if store.degraded:
        pairs.append(
            ("store", Cell(f"cannot be written; {store.held_items:,} things wait in memory", Style.BAD))
        )
    else:
        pairs.append(("store", Cell("healthy", Style.GOOD)))
    traces = [f"{each.cube} until {moment(each.until or now)}" for each in inside.traces.running()]
    if traces:
        pairs.append(("traced", Cell(", ".join(traces), Style.WARN)))
    if len(visitors) > 1:
        pairs.append(("here", ", ".join(visitors)))
    return pairs


def _memory() -> str:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return "memory unknown"
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:,.0f} MB"


def _loglevel(predicate: Any, screen: Screen, namespace: str | None, level: str | None) -> Painted:
    if level is not None and namespace is None:
        raise MistakeError("Name a namespace, such as 'cubehook', beside the level.")
    if namespace is not None and level is not None:
        levels = [each.name for each in LogLevel.iterconstants()]
        if str(level).lower() not in levels:
            raise MistakeError(f"level: one of {', '.join(levels)}")
        if namespace in ("cubehook.events", "cubehook.access"):
            raise MistakeError(
                f"{namespace} is a file of its own: [log] levels turns it off or on, at the start."
            )
        predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(str(level).lower()))
    if namespace is not None:
        named = [(namespace, predicate.logLevelForNamespace(namespace).name)]
    else:
        found = predicate._logLevelsByNamespace
        named = sorted((name or "(all others)", each.name) for name, each in found.items())
    return table(screen, (Column("namespace", cut=True), Column("logged from")), named)
