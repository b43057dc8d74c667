"""
The whole examination: what there is is gathered, then all checks run at once, each with its time.

Nothing is changed: no registration, no event, no file.  What hangs is told as a finding.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from cubehook import __version__, config_reader
from cubehook.config import Config, Cube
from cubehook.control import Control, ControlError, NotRunningError
from cubehook.doctor import clock, ports, state
from cubehook.doctor.cubes import cube_findings, standings
from cubehook.doctor.findings import Finding, Level, counted, failed, ok, skipped, warning
from cubehook.doctor.listeners import AREA as LISTENERS
from cubehook.doctor.listeners import listener_findings
from cubehook.doctor.router import judge
from cubehook.doctor.router_config import AREA as ROUTER
from cubehook.doctor.state import Kept
from cubehook.doctor.subject import Running, Subject
from cubehook.doctor.suspicions import AREA as CONFIGURATION
from cubehook.doctor.suspicions import suspicions
from cubehook.doctor.webhooks import receivers_clocks, webhook_findings

T = TypeVar("T")

SERVICE = "service"

GATHER_SECONDS = 5.0
CHECK_SECONDS = 6.5
"""Together with what gathers, less than a person waits for: 15 s."""

_CONTROL_SECONDS = 4.0
_PAGE = 200


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is to be examined: the service of the configuration file `config` or, without one, of the built-in
    settings.

    `cube`, if given, is the only one.  `router` and `registrations` are what was copied from a router.
    """

    config: Path | None = None
    cube: str | None = None
    router: str | None = None
    registrations: str | None = None


class NoCubeError(Exception):
    """There is no cube of the name that was asked for; the text says which there are."""


async def examine(reactor: Any, asked: Asked, now: Callable[[], float]) -> list[Finding]:
    """Everything that was found, in the order of the rooms; NoCubeError."""
    config, folder, findings = _configuration(asked)
    holder = ports.lock_holder(folder / "cubehook.lock")
    (running, said), (kept, of_keys) = await gatherResults(
        [
            _bounded(reactor, SERVICE, _service(reactor, folder, holder), None),
            _bounded(reactor, state.DATABASE, _in_thread(reactor, state.kept, folder), Kept()),
        ]
    )
    findings += said
    subject = Subject(reactor, config, folder, running, kept, now)
    subject.holder = holder
    cubes = _chosen(subject, asked.cube)
    if config is not None:
        findings += suspicions(config, cubes)
        findings += _changed(subject, config)
    sections = [
        _section(subject, state.FOLDER, _in_thread(reactor, lambda: list(state.folder_findings(folder)))),
        _section(subject, state.DATABASE, _database(subject, of_keys)),
        *(
            _section(subject, LISTENERS, listener_findings(subject, each))
            for key in ("cubes", "console")
            for each in subject.listeners(key)
        ),
        *(_section(subject, f"cube {cube.id}", cube_findings(subject, cube)) for cube in cubes),
    ]
    if asked.cube is None:
        receivers_clocks(subject)
        sections += [
            _section(subject, f"webhook {webhook.id}", webhook_findings(subject, webhook))
            for webhook in subject.webhooks
        ]
    for found in await gatherResults(sections):
        findings += found
    findings += clock.judge(subject.opinions)
    return [*findings, *_router(subject, asked, cubes)]


# The service, and its configuration


def _configuration(asked: Asked) -> tuple[Config | None, Path, list[Finding]]:
    path = asked.config
    if path is None:
        config = config_reader.defaults(Path.cwd())
        places = " nor ".join(map(str, config_reader.PLACES))
        return (
            config,
            config.state_dir,
            [
                warning(
                    CONFIGURATION,
                    f"There is neither {places}: the built-in settings are meant",
                    "Name the file with --config.",
                )
            ],
        )
    try:
        config = config_reader.load(path)
    except config_reader.ConfigErrors as errors:
        found = [failed(CONFIGURATION, f"{path}: {problem}") for problem in errors.problems]
        try:
            folder = config_reader.state_dir(path, os.environ)
        except config_reader.ConfigErrors:
            folder = path.absolute().parent / Config().state_dir
        return None, folder, found
    count = f"{counted(len(config.cubes), 'cube')}, {counted(len(config.webhooks), 'webhook')}"
    return (
        config,
        config.state_dir,
        [ok(CONFIGURATION, f"{path} is valid: {count}")],
    )


async def _service(reactor: Any, folder: Path, holder: int | None) -> tuple[Running | None, list[Finding]]:
    control = Control(folder, timeout=_CONTROL_SECONDS)
    try:
        running = await _in_thread(reactor, _ask, control)
    except NotRunningError as error:
        if holder is None:
            return None, [skipped(SERVICE, f"It does not run: {error}", "To start it: twistd -n cubehook")]
        return None, [
            failed(
                SERVICE,
                f"Process {holder} has the database of {folder}, and takes no commands: it is starting, "
                "stopping or stuck",
                "Look at log/cubehook.log in the state folder.",
            )
        ]
    except ControlError as error:
        return None, [failed(SERVICE, f"It cannot be asked: {error}", "Or it is too busy: try again.")]
    return running, list(_told(running))


def _ask(control: Control) -> Running:
    return Running(control, control.get("/status"), _all(control, "/cubes"), _all(control, "/webhooks"))


def _all(control: Control, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cursor = ""
    while True:
        page = control.get(f"{path}?limit={_PAGE}{cursor}")
        found |= {each["id"]: each for each in page["items"]}
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def _told(running: Running) -> Iterable[Finding]:
    status = running.status
    if status["version"] == __version__:
        yield ok(SERVICE, f"cubehook {status['version']} runs, since {status['started_at'][:19]}Z")
    else:
        yield warning(
            SERVICE,
            f"cubehook {status['version']} runs, and this is {__version__}",
            "Start the service again to use what is installed.",
        )
    for problem in status["problems"]:
        yield failed(SERVICE, f"It is not ready: {problem}", "See log/cubehook.log.")


def _changed(subject: Subject, config: Config) -> Iterable[Finding]:
    """What the file has otherwise than the service that runs."""
    if subject.running is None:
        return
    runs = {cube.id: cube for cube in subject.cubes}
    changed = [cube.id for cube in config.cubes if runs.get(cube.id) != cube]
    gone = [
        id
        for id, view in subject.running.cubes.items()
        if view["provisioned"] and id not in {cube.id for cube in config.cubes}
    ]
    new = [each.id for each in config.webhooks if each.id not in subject.running.webhooks]
    names = [*(f"cubes.{id}" for id in (*changed, *gone)), *(f"webhooks.{id}" for id in new)]
    if names:
        yield warning(
            CONFIGURATION,
            f"The file was changed since the service read it: {', '.join(names)}",
            "Let it read the file again: cubehook reload",
        )


def _chosen(subject: Subject, name: str | None) -> list[Cube]:
    if name is None:
        return subject.cubes
    chosen = [cube for cube in subject.cubes if cube.id == name]
    if not chosen:
        known = ", ".join(cube.id for cube in subject.cubes)
        raise NoCubeError(f"there is no cube {name!r}" + (f"; there are {known}" if known else ""))
    return chosen


async def _database(subject: Subject, of_keys: Sequence[Finding]) -> list[Finding]:
    def look() -> list[Finding]:
        return list(state.database_findings(subject.folder, running=subject.running is not None))

    return [*await subject.in_thread(look), *of_keys]


def _router(subject: Subject, asked: Asked, cubes: Sequence[Cube]) -> list[Finding]:
    if asked.router is None and asked.registrations is None:
        wanted = [cube for cube in cubes if cube.enabled]
        known = standings(subject)
        if subject.running is None or all(known[cube.id].registered for cube in wanted):
            return []
        return [
            skipped(
                ROUTER,
                "What the routers have was not given",
                "Copy `show running-config | section wsapi` and `show wsapi registration all` into a file, "
                "and give it with --router-config FILE.",
            )
        ]
    return judge(asked.router, asked.registrations, cubes, standings(subject))


# Running them


def _in_thread(reactor: Any, work: Callable[..., Any], *arguments: object) -> Any:
    return deferToThreadPool(reactor, reactor.getThreadPool(), work, *arguments)


def _bounded(
    reactor: Any, area: str, work: Awaitable[tuple[T, list[Finding]]], otherwise: T
) -> Deferred[tuple[T, list[Finding]]]:
    """What `work` gives or, if that takes too long or fails, `otherwise` with a finding that says so."""

    def broken(failure: Failure) -> tuple[T, list[Finding]]:
        return otherwise, [_broken(area, failure, GATHER_SECONDS)]

    return _waiting(work).addTimeout(GATHER_SECONDS, reactor).addErrback(broken)


def _waiting(work: Awaitable[T]) -> Deferred[T]:
    async def done() -> T:
        return await work

    return Deferred.fromCoroutine(done())


def _section(subject: Subject, area: str, work: Awaitable[list[Finding]]) -> Deferred[list[Finding]]:
    """What a check finds, in its time; a check that fails itself is a finding too."""

    def broken(failure: Failure) -> list[Finding]:
        return [_broken(area, failure, CHECK_SECONDS)]

    return _waiting(work).addTimeout(CHECK_SECONDS, subject.reactor).addErrback(broken)


def _broken(area: str, failure: Failure, seconds: float) -> Finding:
    if failure.check(DeferredTimeoutError):
        return failed(area, f"This was not over within {seconds:g} s", "Try again, with --cube.")
    return failed(area, f"This could not be looked at: {failure.getErrorMessage()}")


def is_well(findings: Iterable[Finding]) -> bool:
    """Nothing is wrong; warnings are allowed."""
    return all(finding.level is not Level.FAILED for finding in findings)
