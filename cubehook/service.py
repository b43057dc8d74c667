"""
The service: opens the rooms in order, joins them, and closes them in order.

The logs and the ports are opened after the fork and before the reactor runs, so that a folder that
cannot be written or a busy port ends the process with a sentence.  The store opens once the reactor
runs; until its calls are read, the listeners let requests wait.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import __version__, config
from cubehook.api.control import ControlListener
from cubehook.api.cubes import CubesPart
from cubehook.api.errors import ApiError
from cubehook.api.faces import Faces
from cubehook.api.knocks import KnocksPart
from cubehook.api.operations import Caller
from cubehook.api.redelivery import RedeliveryPart
from cubehook.api.registrations import RegistrationsPart
from cubehook.api.reload import ReloadPart
from cubehook.api.status import StatusPart
from cubehook.api.trace import TracePart
from cubehook.api.webhooks import WebhooksPart
from cubehook.calls.tracker import ENDED_KEPT, ENDED_KEPT_MOST, Tracker
from cubehook.changes import ReloadError, the
from cubehook.console.app import Console
from cubehook.console.desk import Desk
from cubehook.cubes import Cubes
from cubehook.delivery.breaker import State
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.delivery.redelivery import Redelivery
from cubehook.events import Call, Event, Micros
from cubehook.gauges import add_gauges
from cubehook.ids import Ids, id_time
from cubehook.intake import Intake
from cubehook.listeners import ListenError, Listeners, allow_many_connections
from cubehook.net import inherited
from cubehook.net.site import AccessSite
from cubehook.operations import certificates, rates
from cubehook.operations.backlog import Backlog
from cubehook.operations.certificates import Certificates
from cubehook.operations.hangup import HangUp
from cubehook.operations.health import HealthResource
from cubehook.operations.logs import Logs
from cubehook.operations.metrics import Metrics
from cubehook.operations.status import ServiceStatus
from cubehook.operations.systemd import Notifier, Supervision, in_words
from cubehook.operations.trace import Traces, Tracing
from cubehook.process import exit_with_1, return_memory, share_one_heap
from cubehook.records import Registration
from cubehook.reloading import Reloader
from cubehook.sampling import LOOK_SECONDS, Sampler
from cubehook.settings_plan import Plan, Reloaded
from cubehook.steady import STEP, ClockWatch
from cubehook.store.errors import StoreError
from cubehook.store.store import Store
from cubehook.webhooks import Webhooks
from cubehook.witness import Witness
from cubehook.xcc.knocks import Knocks
from cubehook.xcc.resource import XccResource

if TYPE_CHECKING:
    from cubehook.operations.manhole.doors import Doors

CLOCK_SECONDS = 1.0
"""How often the wall clock is compared with one that nobody sets."""

SWEEP_SECONDS = 60.0
"""How often orphaned calls are looked for."""

RETENTION_SECONDS = 3600.0
"""How often history past its retention is deleted; the first time after as long."""

STOP_GRACE = 5.0
"""Seconds that deliveries under way may take to finish when the service stops."""


class StartError(SystemExit, Exception):
    """
    The service cannot start; its text tells the operator why, the exit status is 1.

    It is an Exception too, since twistd in the background passes only those on to the process that
    started it, which otherwise waits for ever.
    """


def wall_clock() -> Micros:
    """Now, as every time of ours tells it."""
    return time.time_ns() // 1000


class CubehookService(Service):
    """
    All of cubehook between a configuration and a reactor.

    `ready` fires once requests are answered and every cube has begun to register; it fails if
    the service could not start, and then the reactor is stopped and the process will exit with 1.
    `on_event`, if given, hears of every event, after the commit; `notifier` how the service does.
    """

    _log = Logger()

    def __init__(
        self,
        settings: config.Config,
        reactor: Any,
        on_event: Callable[[Event], None] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self.ready: Deferred[None] = Deferred()
        self._starting: Deferred[None] | None = None
        self._failed = False
        self._stopping = False
        self._control: ControlListener | None = None
        self._doors: Doors | None = None
        self._loops: list[LoopingCall] = []
        self._sweeping: Deferred[Any] | None = None
        self._hastening: set[Deferred[None]] = set()
        self._clock = ClockWatch(wall_clock, reactor.seconds, self._clock_set)
        self._trouble = ""

        self.metrics = metrics = Metrics()
        self.logs = Logs(settings.state_dir / "log", settings.log, reactor, wall_clock)
        self.traces = Traces(settings.state_dir / "log", settings.log, reactor, wall_clock)
        self.store = Store(
            settings.state_dir / "cubehook.db",
            reactor,
            on_degraded=self._store_degraded,
            on_commit=metrics.store_commit_seconds.observe,
        )
        self._ids = Ids(random.getrandbits)
        self.trackers: dict[str, Tracker] = {}
        witness = Witness(
            metrics,
            self.logs,
            wall_clock,
            next_id=self._ids.next,
            webhooks=lambda: self._webhooks,
            pending=lambda webhook: self.dispatcher.status(webhook).pending,
            notify=self._notify,
        )
        self.dispatcher = Dispatcher(
            self.store, self._ids, wall_clock, random.random, reactor, settings.delivery, witness
        )
        self._sampler = Sampler(
            lambda: {cube: tracker.active for cube, tracker in self.trackers.items()},
            self.store.sample,
            wall_clock,
        )
        self.redelivery = Redelivery(
            self.store.jobs,
            self.dispatcher,
            self._ids,
            wall_clock,
            reactor,
            lambda: self._settings.retention.deliveries,
        )
        self._webhooks = Webhooks(
            settings,
            reactor,
            wall_clock,
            self.store,
            self.dispatcher,
            self._webhooks_changed,
            next_id=self._ids.next,
            cubes=lambda: self.cubes.known,
            gone=partial(metrics.forget, "webhook"),
        )
        self.intake = Intake(
            trackers=self.trackers,
            journal=self.store,
            dispatcher=self.dispatcher,
            ids=self._ids,
            reactor=reactor,
            on_event=witness.happened,
        )
        self._knocks = Knocks(reactor.seconds)
        self._gateways = XccResource(self.intake, witness, wall_clock, self.traces.taps, self._knocks)
        self.cubes = Cubes(
            settings,
            reactor,
            wall_clock,
            ids=self._ids,
            store=self.store,
            metrics=metrics,
            trackers=self.trackers,
            intake=self.intake,
            listener=self._gateways,
            notify=self._notify,
            taps=self.traces.taps,
        )
        self._listeners = Listeners(
            reactor,
            settings.listen,
            wall_clock,
            self.logs.access,
            metrics.rejected.labels("connections").inc,
            metrics.rejected.labels("tls").inc,
        )
        self._certificates = Certificates(
            settings.state_dir,
            wall_clock,
            listen=lambda: self._listeners.listen,
            listeners=self._listeners.tls,
            cubes=lambda: self.cubes.known,
            gateways=self.cubes.certificate_ends,
            webhooks=lambda: self.webhooks,
        )
        self._backlog = Backlog(self.store, self.dispatcher.pending, wall_clock, reactor)
        self._health = HealthResource(metrics, self.problems, self._backlog.look)
        self.reloader = Reloader(
            settings,
            wall_clock,
            reactor,
            cubes=self.cubes,
            webhooks=self._webhooks,
            store=self.store,
            listeners=self._listeners,
            adopt=self._adopt,
            count=lambda result: metrics.reloads.labels(result).inc(),
        )
        self._hang_up = HangUp(reactor, self._hung_up, self._terminal_gone)
        self._status = ServiceStatus(
            lambda: self._settings, metrics, self.problems, wall_clock, self._certificates.ends
        )
        self.faces = Faces(self._parts(), self.store, self._ids, wall_clock, reactor)
        witness.hearers += [self.faces.feed.heard, *filter(None, [on_event])]
        self._desk = Desk(
            self.faces.parts, self.faces.gate, lambda: self._settings, self.problems, wall_clock
        )
        self._console = Console(self._desk)
        self.supervision = Supervision(notifier, reactor, self._in_words, self.store.stuck)
        self.reloader.watchers.append(self.supervision)
        add_gauges(
            metrics,
            trackers=self.trackers,
            cubes=self.cubes,
            webhooks=self._webhooks,
            dispatcher=self.dispatcher,
            backlog=self._backlog,
            certificates=self._certificates,
            reloader=self.reloader,
            store=self.store,
        )

    # Starting

    def privilegedStartService(self) -> None:
        """Open the logs and the ports; StartError where that fails."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._hang_up.install()
        share_one_heap()
        allow_many_connections()
        # A line for each connection that opens or closes tells nobody anything.
        Factory.noisy = False
        folder = self._settings.state_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.logs.open()
        except OSError as error:
            raise StartError(
                f"cubehook: the state folder {folder} cannot be written ({error.strerror}): make it "
                "writable for this user, or set another state_dir"
            ) from None
        try:
            self._listeners.open(
                self._gateways.resource(),
                self.faces.console(self._health.resource(), self._console.resource()),
                self._gateways.knows,
            )
        except ListenError as error:
            raise self._not_listening(error) from None
        self._open_manhole()
        inherited.tell_unused(os.environ)

    def _open_manhole(self) -> None:
        settings = self._settings
        if settings.manhole.ssh is None and settings.manhole.telnet is None:
            return
        # Its libraries take memory that nobody without a manhole should spend.
        from cubehook.operations.manhole.doors import DoorError, Doors
        from cubehook.operations.manhole.inside import Inside

        inside = Inside(
            service=self,
            reactor=self._reactor,
            now=wall_clock,
            cubes=self.cubes,
            webhooks=self._webhooks,
            store=self.store,
            redelivery=self.redelivery,
            logs=self.logs,
            traces=self.traces,
            trace=self.trace,
            problems=self.problems,
            record=self.faces.record,
            reload=self.reload,
        )
        self._doors = Doors(inside, settings.manhole, settings.state_dir, self._open_port)
        try:
            self._doors.open()
        except DoorError as error:
            self._log.critical("Cannot open the manhole: {words}", words=str(error))
            self._close_at_once()
            raise StartError(f"cubehook: cannot open the manhole: {error}") from None

    def _open_port(self, key: str, endpoint: str, factory: IProtocolFactory) -> IListeningPort:
        try:
            return self._listeners.port(key, endpoint, factory)
        except ListenError as error:
            raise self._not_listening(error) from None

    def _not_listening(self, error: ListenError) -> StartError:
        self._log.critical(
            "Cannot listen on {endpoint} ({key}): {words}",
            endpoint=error.endpoint,
            key=error.key,
            words=error.words,
        )
        self._close_at_once()
        return StartError(f"cubehook: {error}")

    def _close_at_once(self) -> None:
        """Before the reactor runs, let go of what was opened."""
        self._listeners.close_at_once()
        self.logs.close()

    def startService(self) -> None:
        """Begin to start; `ready` tells how it went."""
        super().startService()  # type: ignore[no-untyped-call]
        self.supervision.starting()
        self._starting = Deferred.fromCoroutine(self._start())
        _ = self._starting.addErrback(self._not_started)

    async def _start(self) -> None:
        settings, store = self._settings, self.store
        await store.open()
        provisioned = await store.provision(
            settings.cubes, settings.webhooks, at=wall_clock(), overlap=settings.delivery.secret_overlap
        )
        greatest = await store.greatest_id()
        self._ids.begin_after(greatest)
        if provisioned.by_file:
            self.faces.record("configuration", "provision", str(settings.source or ""), provisioned.by_file)
        self.cubes.open(provisioned.cubes)
        orphans = await self._restore_calls()
        for registration in await store.registrations():
            self.cubes.restore(registration)
        self._webhooks.open(provisioned, await store.pending_counts())
        await self._catch_up(id_time(greatest) - wall_clock())
        await self.dispatcher.start()
        await self.redelivery.resume()
        await self._first_start()
        self._open_control()
        for name, calls in orphans.items():
            self.cubes.close_orphans(name, calls)
        self.cubes.serve()
        return_memory()
        # What was made so far stays for good: collections need not look at it again.
        gc.freeze()
        gc.set_threshold(2_000, 10, 20)
        self._gateways.release()
        self.cubes.start()
        self._every(CLOCK_SECONDS, self._clock.look)
        self._every(SWEEP_SECONDS, self._sweep_calls)
        self._every(SWEEP_SECONDS, self._hang_up.look)
        self._every(RETENTION_SECONDS, self._sweep_history)
        self._every(rates.SECONDS, self._status.note)
        self._every(LOOK_SECONDS, self._sampler.look)
        self._certificates.look()
        self._every(certificates.SECONDS, self._certificates.look)
        self._log.info(
            "cubehook {version} is running; cubes: {cubes}, webhooks: {webhooks}, state in {folder}",
            version=__version__,
            cubes=len(self.cubes.known),
            webhooks=len(self.webhooks),
            folder=settings.state_dir,
        )
        if not self.cubes.known:
            self._log.warn(
                "No cube is configured: add [cubes.NAME] with provider_url and application_url to {file}",
                file=settings.source or "cubehook.toml",
            )
        self.ready.callback(None)
        self.supervision.ready()
        self.reloader.begin()

    async def _first_start(self) -> None:
        """Let somebody in, if nobody can be yet."""
        made = await self.faces.gate.first_start(self._settings.state_dir)
        if made is None:
            return
        path, code = made
        self._log.info("The first administrator's token for the API and the console is in {path}", path=path)
        for url in self._listeners.console_urls()[:1]:
            self._log.info(
                "Sign in, once and within a day, by opening {url}/sign-in?code={code}", url=url, code=code
            )

    def _parts(self) -> list[object]:
        """Whose operations the API has, beside those that only look into the store."""
        return [
            CubesPart(self.cubes),
            WebhooksPart(self._webhooks, self.metrics.of_webhook),
            RedeliveryPart(self.redelivery, wall_clock),
            TracePart(self),
            RegistrationsPart(self.store),
            StatusPart(self._status, wall_clock),
            ReloadPart(self.reloader.reload),
        ]

    def _open_control(self) -> None:
        site = AccessSite(
            self.faces.control(KnocksPart(self._knocks)), self.logs.access, wall_clock, self._reactor
        )
        listener = ControlListener(self._settings.state_dir, site, self._reactor)
        try:
            listener.open()
        except OSError as error:
            self._log.warn(
                "Commands such as `cubehook redeliver` cannot speak to this service, as {path} cannot be "
                "made: {words}",
                path=listener.path,
                words=error.strerror or str(error),
            )
        else:
            self._control = listener
            self._log.info("Listening on {path} (commands)", path=listener.path)

    async def _restore_calls(self) -> dict[str, list[Call]]:
        """
        Give the trackers the calls that are open or ended of late.

        What is returned are open calls of cubes that are no longer configured, of whose end
        nobody will tell, by cube.
        """
        by_cube: dict[str, list[Call]] = defaultdict(list)
        for call in await self.store.ended_calls(wall_clock() - ENDED_KEPT, ENDED_KEPT_MOST):
            if call.cube in self.trackers:
                by_cube[call.cube].append(call)
        for call in await self.store.open_calls():
            by_cube[call.cube].append(call)
        for name, tracker in self.trackers.items():
            tracker.restore(by_cube.pop(name, ()))
        return by_cube

    def _not_started(self, failure: Failure) -> None:
        self._failed = True
        if failure.check(CancelledError):
            return
        if failure.check(StoreError):
            text = str(failure.value)
            self._log.critical("cubehook cannot start: {text}", text=text)
        else:
            text = f"{failure.type.__name__}: {failure.value}"  # type: ignore[union-attr]
            self._log.failure("cubehook cannot start", failure)
        self.supervision.failed(text)
        exit_with_1(f"cubehook: cannot start: {text}")
        self.ready.errback(failure)
        _ = self.ready.addErrback(lambda _: None)
        self._reactor.stop()

    def _webhooks_changed(self) -> None:
        for webhook in self.webhooks:
            self.metrics.begin_webhook(webhook)
        self.cubes.tell_legs(self.dispatcher.wants_leg_events)

    def _every(self, seconds: float, work: Callable[[], Any]) -> None:
        loop = LoopingCall(work)
        loop.clock = self._reactor
        self._loops.append(loop)
        _ = loop.start(seconds, now=False).addErrback(
            lambda failure: self._log.failure("A recurring task ended", failure)
        )

    # Reading the configuration again

    async def reload(self, who: str) -> Reloaded:
        """
        Read the configuration file again, as `who` asks; ReloadError if it cannot be used.

        See `cubehook.reloading.Reloader`.
        """
        try:
            done: Reloaded = await self._desk.ask(Caller(who), "reload")
        except ApiError as error:
            raise ReloadError(error.message, error.fields) from None
        return done

    def _adopt(self, plan: Plan) -> list[str]:
        """Go by the settings of `plan` in all that does not look after itself; what there is to warn of."""
        self._settings = settings = plan.settings
        if plan.log:
            self.logs.change(settings.log)
            self.traces.change(settings.log)
        self.dispatcher.use_defaults(settings.delivery)
        if self._doors is not None:
            self._doors.change(settings.manhole)
        return self.reload_certificates()

    def _hung_up(self) -> None:
        self.logs.reopen()
        if not self.reloader.asked:
            # What comes of it is in the log.
            _ = Deferred.fromCoroutine(self.reload("SIGHUP")).addErrback(lambda _: None)

    def _terminal_gone(self) -> None:
        self._log.warn("The terminal is gone from which cubehook was started, so it stops")
        self._reactor.stop()

    # Stopping

    async def _stop(self) -> None:
        self._stopping = True
        self.supervision.stopping()
        self._hang_up.remove()
        self.reloader.close()
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        for under_way in (*filter(None, [self._sweeping]), *self._hastening):
            under_way.cancel()
        if self._doors is not None:
            await self._doors.close()
        # A gateway that knows that we go sends nothing more that could be refused.
        await self.cubes.stop(hand_over=self._listeners.outlive_us)
        await self._listeners.close()
        if self._listeners.outlive_us:
            await self._listeners.wind_down()
        # What came on a kept-open connection after the store has closed would be answered and lost.
        self.faces.stop()
        self._listeners.close_connections()
        if self._control is not None:
            await self._control.close()
        await self.intake.settled()
        self.intake.stop()
        self._webhooks.close()
        self.redelivery.stop()
        await self.dispatcher.stop(STOP_GRACE)
        await self.store.close()
        self.traces.stop()
        self._log.info("cubehook has stopped")
        self.logs.close()

    def stopService(self) -> Deferred[None]:
        """Unregister, close the listeners, finish or put off deliveries, then close the store."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop()).addErrback(
            lambda failure: self._log.failure("Stopping did not go as it should", failure)
        )

    # Recurring work

    def _sweep_calls(self) -> None:
        # A clock that was just set must make no call look old.
        self._clock.look()
        self.cubes.sweep()

    def _clock_set(self, by: Micros) -> None:
        self.dispatcher.clock_set(by)
        self.cubes.clock_set(by)
        if by < 0:
            hastening = Deferred.fromCoroutine(
                self.store.clock_set_back(list(self.webhooks), -by, wall_clock())
            )
            self._hastening.add(hastening)
            _ = hastening.addErrback(self._not_hastened).addBoth(lambda _: self._hastening.discard(hastening))

    def _not_hastened(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure(
                "Deliveries that wait on disk may wait longer, by as much as the clock was set back", failure
            )

    async def _catch_up(self, behind: Micros) -> None:
        """Let nothing wait for a clock that was set back while the service did not run."""
        if behind < STEP:
            return
        self._log.warn(
            "The system's clock is {seconds:.0f} s behind the newest entry of the database: it was set back, "
            "or is wrong. Pending deliveries are due so much earlier",
            seconds=behind / 1_000_000,
        )
        # Neither may a hold last for that long, nor a call that nobody ends.
        self.dispatcher.clock_set(-behind)
        self.cubes.clock_set(-behind)
        await self.store.clock_set_back(list(self.webhooks), behind, wall_clock())

    def _sweep_history(self) -> Deferred[Any]:
        self._clock.look()
        if self._clock.doubtful:
            return succeed(None)
        self._sweeping = Deferred.fromCoroutine(self.store.sweep(self._settings.retention, wall_clock()))
        return self._sweeping.addErrback(self._not_swept)

    def _not_swept(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.error("Old history was not deleted: {error}", error=str(failure.value))

    # What the rooms tell

    def _notify(self, notice: Event) -> None:
        _ = self.intake.notice(notice)

    def _store_degraded(self, degraded: bool, reason: str) -> None:
        self._trouble = reason if degraded else ""

    def problems(self) -> list[str]:
        """What keeps the service from being ready, in words; empty when it is."""
        found = []
        if self._stopping:
            found.append("the service is stopping")
        elif not self.ready.called or self._failed:
            found.append("the service is starting")
        if self._trouble:
            found.append(f"the store cannot be written, work is held in memory: {self._trouble}")
        if not self._stopping:
            found += self._listeners.closed()
        return found

    def _in_words(self) -> str:
        held = [
            webhook for webhook in self.webhooks if self.dispatcher.status(webhook).state is not State.CLOSED
        ]
        active = sum(tracker.active for tracker in self.trackers.values())
        enabled = [each for each in self.cubes.registered() if self.cubes.known[each[0]].enabled]
        return in_words(enabled, active, held, self.disabled_webhooks, self.problems())

    def reload_certificates(self) -> list[str]:
        """
        Read the certificates and keys of listeners and cubes again; connections that are open keep theirs.

        In words, why some stay as they were.  Nobody has to ask for this: changes are seen by themselves.
        """
        return self._listeners.reload_certificates() + self.cubes.reload_certificates()

    # What is asked of webhooks: see `cubehook.webhooks.Webhooks`

    @property
    def webhooks(self) -> Mapping[str, config.Webhook]:
        """Those that are delivered to, as they are configured, by their ids."""
        return self._webhooks.known

    @property
    def disabled_webhooks(self) -> Mapping[str, str]:
        """Why webhooks are disabled that were in use, by their ids."""
        return self._webhooks.disabled

    def registration(self, cube: str) -> Registration:
        """How a cube's registration stands; KeyError if there is no such cube."""
        return self.cubes.registration(cube)

    def trace(self, cube: str, minutes: float, masked: bool = False) -> Tracing:
        """
        Write what a cube's gateway says and is told to `trace-CUBE.log` for so many minutes; 0 ends that.

        Raises MissingError if there is no such cube, and what `cubehook.operations.trace.Traces.trace` does.
        """
        if cube not in self.traces.taps:
            the(cube, self.cubes.known)
        return self.traces.trace(cube, minutes, masked)

    def tracing(self, cube: str) -> Tracing:
        """How a cube's trace stands; MissingError if there is no such cube."""
        the(cube, self.cubes.known)
        return self.traces.status(cube)
