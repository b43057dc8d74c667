"""
The service's cubes: keeps them registered, and what gateways may call in step with the store.

What is decided of a cube while the service runs is kept by the store first and then done here.  Changes
of one cube wait for each other, and no cube waits for another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from cubehook import config
from cubehook.calls.numbers import Numbers
from cubehook.calls.tracker import Changes, Tracker
from cubehook.changes import ExistsError, SettingsError, the
from cubehook.config_checks import cube_problems
from cubehook.events import Call, Event, Micros
from cubehook.ids import Ids
from cubehook.intake import Intake
from cubehook.notices import CubeWatch, about_cube
from cubehook.operations.metrics import Metrics
from cubehook.records import Registration
from cubehook.store.errors import ProvisionedError
from cubehook.store.provisioning import in_the_file
from cubehook.store.store import Store
from cubehook.xcc.client import GatewayClient, GatewayTrust, gateway_agent
from cubehook.xcc.registrar import Registrar
from cubehook.xcc.resource import Gateway, XccResource
from cubehook.xcc.tracing import NO_TAPS, Taps


class Cubes:
    """
    The cubes there are, by their ids.

    Their calls are tracked in `trackers`, which `intake` shares; `listener` is what gateways call, and
    `notify` is given what webhooks may want to be told.  `taps` listen in on what is said to and by gateways.
    """

    _log = Logger()

    def __init__(
        self,
        settings: config.Config,
        reactor: Any,
        now: Callable[[], Micros],
        *,
        ids: Ids,
        store: Store,
        metrics: Metrics,
        trackers: dict[str, Tracker],
        intake: Intake,
        listener: XccResource,
        notify: Callable[[Event], None],
        taps: Taps = NO_TAPS,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._ids = ids
        self._store = store
        self._metrics = metrics
        self._trackers = trackers
        self._intake = intake
        self._listener = listener
        self._notify = notify
        self._taps = taps
        self.provisioned = frozenset(cube.id for cube in settings.cubes)
        """Those that the configuration file has, and that nobody else may change."""
        self._cubes: dict[str, config.Cube] = {}
        self._folder = settings.state_dir
        self._registrars: dict[str, Registrar] = {}
        self._trusts: dict[str, GatewayTrust] = {}
        self._watches: dict[str, CubeWatch] = {}
        self._gateways: dict[str, Gateway] = {}
        self._leaving: set[Registrar] = set()
        """Stopped because someone asked for that: that the cube is not registered now is no news."""
        self._claims: dict[str, config.Cube] = {}
        """What the store is being told of."""
        self._locks: dict[str, DeferredLock] = {}
        self._leg_events = False
        self._closed = False
        self.known: Mapping[str, config.Cube] = MappingProxyType(self._cubes)
        """As they are configured."""

    # Starting and stopping

    def open(self, cubes: Iterable[config.Cube]) -> None:
        """Have these cubes; nothing is asked of their gateways before `start`."""
        for cube in cubes:
            self._make(cube)

    def restore(self, registration: Registration) -> None:
        """Go on from how a cube's registration stood in an earlier run."""
        cube = registration.cube
        if cube in self._registrars:
            self._registrars[cube].restore(registration)
            self._watches[cube].restore(registration)

    def serve(self) -> None:
        """Let their gateways call."""
        self._listener.serve(self._gateways.values())

    def start(self) -> None:
        """Register with all of them."""
        for registrar in self._registrars.values():
            registrar.start()

    async def stop(self, *, hand_over: bool = False) -> None:
        """Unregister everywhere, or `hand_over` registrations to the next run, and change nothing more."""
        self._closed = True
        ends = [each.hand_over() if hand_over else each.stop() for each in self._registrars.values()]
        ends += [each.stop() for each in self._leaving - set(self._registrars.values())]
        for leaving in list(map(Deferred.fromCoroutine, ends)):
            await leaving

    # Which there are

    async def add(self, cube: config.Cube) -> None:
        """
        Have another cube, and register with its gateway.

        Raises ExistsError if there is one of its id, SettingsError if it cannot be used beside the others.
        """
        async with self._lock(cube.id):
            if cube.id in self._cubes:
                raise ExistsError(f"There is a cube {cube.id} already")
            await self._keep(cube)
            if not self._closed:
                self._added(cube)

    async def change(self, id: str, change: Callable[[config.Cube], config.Cube]) -> None:
        """
        Let a cube be what `change` makes of what it is; what that raises is raised, and changes nothing.

        A registration is given back and made anew only if the gateway must learn of the change; calls in
        progress go on.  Those of a cube that is disabled are closed, as nobody will tell of their ends.
        Raises MissingError if there is no such cube, ProvisionedError if the configuration file has it, and
        SettingsError.
        """
        async with self._lock(id):
            old = the(id, self._cubes)
            new = change(old)
            self._see_that_it_is_ours(id)
            if new == old:
                return
            await self._keep(new)
            if not self._closed:
                await self._changed(new)

    async def remove(self, id: str, check: Callable[[config.Cube], None] = lambda cube: None) -> None:
        """
        Have a cube no more: unregister, and close its calls as inferred.  What happened stays in the store.

        What `check` raises of the cube is raised, and then nothing is done.  Raises MissingError if there is
        no such cube, ProvisionedError if the configuration file has it.
        """
        async with self._lock(id):
            check(the(id, self._cubes))
            self._see_that_it_is_ours(id)
            await self._store.delete_cube(id)
            if not self._closed:
                await self._removed(id)

    # What is done once the store keeps it

    def _added(self, cube: config.Cube) -> None:
        self._make(cube)
        self.serve()
        self._registrars[cube.id].start()
        self._log.info("Cube {cube} was added", cube=cube.id)

    async def _changed(self, new: config.Cube) -> None:
        id = new.id
        old, self._cubes[id] = self._cubes[id], new
        if new.default_region != old.default_region:
            self._trackers[id].complete_with(Numbers(new.default_region))
        if _to_the_gateway(new) == _to_the_gateway(old):
            self._allow(new)
            self.serve()
        else:
            await self._register_otherwise(new)
        self._log.info("Cube {cube} was changed", cube=id)

    async def _removed(self, id: str) -> None:
        await self._leave(self._registrars[id], "The cube was removed.")
        if self._closed:
            return
        # From here on nobody calls, and what is under way is kept before the ends.
        self._gateways.pop(id, None)
        self.serve()
        self._close_calls(id)
        del self._cubes[id], self._registrars[id], self._watches[id], self._trackers[id], self._trusts[id]
        await self._intake.settled()
        if id not in self._cubes:
            self._metrics.forget("cube", id)
        self._log.info("Cube {cube} was removed", cube=id)

    # What the configuration file has

    @asynccontextmanager
    async def held(self, wanted: Sequence[config.Cube]) -> AsyncIterator[None]:
        """
        Let nobody change those that the file has, or is to have, meanwhile, nor take what `wanted` need.

        Raises SettingsError if those do not go with cubes that were made elsewhere.
        """
        new = {cube.id: cube for cube in wanted}
        with ExitStack() as locked:
            for id in sorted({*new, *self.provisioned}):
                lock = self._lock(id)
                await lock.acquire()
                locked.callback(lock.release)
            others = {**self._cubes, **self._claims}
            ours = [each for id, each in others.items() if id not in new and id not in self.provisioned]
            problems = {
                f"cubes.{cube.id}.{key}": words
                for cube in wanted
                for key, words in cube_problems(cube, ours).items()
            }
            if problems:
                raise SettingsError(problems)
            self._claims.update(new)
            try:
                yield
            finally:
                for id in new:
                    del self._claims[id]

    async def provide(self, wanted: Sequence[config.Cube]) -> None:
        """
        Have those that the file has now, as the store has them already; to be called while they are `held`.

        What the gateway need not learn of costs no registration.  Returns once registrations that were
        given back are.
        """
        if self._closed:
            return
        new = {cube.id: cube for cube in wanted}
        gone = [id for id in self.provisioned if id not in new and id in self._cubes]
        self.provisioned = frozenset(new)
        # One that is gone may come again under another name: its gateway is to hear of that in this order.
        await self._each({id: self._removed(id) for id in gone})
        if self._closed:
            return
        changed = {}
        for id, cube in new.items():
            if id not in self._cubes:
                self._added(cube)
            elif cube != self._cubes[id]:
                changed[id] = self._changed(cube)
        await self._each(changed)

    async def _each(self, work: Mapping[str, Coroutine[Deferred[Any], Any, None]]) -> None:
        """Do all of it at once; one that fails keeps none of the others from being done."""
        doing = {id: Deferred.fromCoroutine(each) for id, each in work.items()}
        for id, each in doing.items():
            try:
                await each
            except Exception:
                self._log.failure("Cube {cube} could not be made what the configuration file says", cube=id)

    def _lock(self, id: str) -> DeferredLock:
        return self._locks.setdefault(id, DeferredLock())

    def _see_that_it_is_ours(self, id: str) -> None:
        if id in self.provisioned:
            raise ProvisionedError(in_the_file("cubes", id))

    async def _keep(self, cube: config.Cube) -> None:
        """Let the store keep `cube`, unless it does not go with the others."""
        others = [each for each in (*self._cubes.values(), *self._claims.values()) if each.id != cube.id]
        problems = cube_problems(cube, others)
        if problems:
            raise SettingsError(problems)
        self._claims[cube.id] = cube
        try:
            await self._store.put_cube(cube)
        finally:
            del self._claims[cube.id]

    def _make(self, cube: config.Cube) -> None:
        name = cube.id
        self._cubes[name] = cube
        self._trackers[name] = tracker = Tracker(name, self._ids.next, Numbers(cube.default_region))
        tracker.leg_events = self._leg_events
        self._watches[name] = CubeWatch()
        self._metrics.begin_cube(name)
        self._registrars[name] = self._registrar(cube)
        self._allow(cube)

    def _allow(self, cube: config.Cube) -> None:
        """Let this cube's gateway, and nobody else, call for it."""
        if cube.enabled:
            self._gateways[cube.id] = Gateway(cube, self._registrars[cube.id])
        else:
            self._gateways.pop(cube.id, None)

    # Registrations

    def registration(self, cube: str) -> Registration:
        """How a cube's registration stands; KeyError if there is no such cube."""
        return self._registrars[cube].registration

    async def register(self, cube: str) -> Registration:
        """Register again now, and tell how that went; MissingError if there is no such cube."""
        return await the(cube, self._registrars).register()

    def active(self, cube: str) -> int:
        """How many of a cube's calls are in progress; KeyError if there is no such cube."""
        return self._trackers[cube].active

    def counts(self, cube: str) -> dict[str, int]:
        """What was counted of a cube since the start."""
        return self._metrics.of_cube(cube)

    def registered(self) -> list[tuple[str, float]]:
        """1 for each cube whose gateway has us registered, 0 for the others; disabled ones are left out."""
        return [
            (cube, float(registrar.registered))
            for cube, registrar in self._registrars.items()
            if self._cubes[cube].enabled
        ]

    def reload_certificates(self) -> list[str]:
        """
        Read the files of secure mode again for what is asked of gateways from now on.

        In words, why some stay as they were.
        """
        return [words for trust in self._trusts.values() if (words := trust.reload()) is not None]

    def certificate_ends(self) -> list[tuple[str, datetime]]:
        """When the certificates end that gateways showed, unless they are pinned, by cube."""
        return [(cube, trust.ends) for cube, trust in self._trusts.items() if trust.ends is not None]

    def _registrar(self, cube: config.Cube) -> Registrar:
        name = cube.id

        def changed(registration: Registration) -> None:
            if registrar not in self._leaving:
                self._registration_changed(registration)

        def reloaded(at: Micros) -> None:
            self._keep_ends(name, self._trackers[name].reloaded(at))

        self._trusts[name] = trust = GatewayTrust(cube, self._folder)
        trust.warn()
        registrar = Registrar(
            cube,
            GatewayClient(
                cube,
                gateway_agent(self._reactor, trust),
                self._reactor,
                taps=self._taps,
                epoch=self._now() // 1_000_000,
            ),
            self._store,
            self._reactor,
            self._now,
            on_result=lambda result: self._metrics.registrations.labels(name, result).inc(),
            on_loss=self._metrics.loss_windows.labels(name).inc,
            on_reload=reloaded,
            on_change=changed,
        )
        return registrar

    def _registration_changed(self, registration: Registration) -> None:
        news = self._watches[registration.cube].changed(registration)
        if news is not None and not self._closed:
            self._notify(about_cube(news, registration, self._now(), self._ids.next))

    async def _register_otherwise(self, cube: config.Cube) -> None:
        """Give the registration back, and register as `cube` now is."""
        name = cube.id
        old = self._registrars[name]
        self._registrars[name] = new = self._registrar(cube)
        # Until it is given back, the gateway may call as before.
        await self._leave(old, "Its settings were changed.", disabled=not cube.enabled)
        if self._closed:
            return
        self._allow(cube)
        self.serve()
        if not cube.enabled:
            self._close_calls(name)
        new.start()

    async def _leave(self, registrar: Registrar, reason: str, *, disabled: bool = False) -> None:
        self._leaving.add(registrar)
        try:
            await registrar.stop(disabled=disabled, reason=reason)
        finally:
            self._leaving.discard(registrar)

    # Calls

    def tell_legs(self, wanted: bool) -> None:
        """Whether legs of calls yield events of their own."""
        self._leg_events = wanted
        for tracker in self._trackers.values():
            tracker.leg_events = wanted

    def clock_set(self, by: Micros) -> None:
        """The clock was set by so much: no gateway and no call was silent for that long."""
        now = self._now()
        for tracker in self._trackers.values():
            tracker.clock_set(by, now)
        for registrar in self._registrars.values():
            registrar.clock_set(by)

    def close_orphans(self, cube: str, calls: Iterable[Call]) -> None:
        """Close the open `calls` of a cube that is no more."""
        gone = Tracker(cube, self._ids.next, Numbers(), self._leg_events)
        gone.restore(calls)
        self._keep_ends(cube, gone.reloaded(self._now()))

    def sweep(self) -> None:
        """Close calls that were not heard of for too long."""
        now = self._now()
        for cube, tracker in self._trackers.items():
            try:
                self._keep_ends(cube, tracker.sweep(now))
            except Exception:
                self._log.failure("The calls of cube {cube} could not be swept", cube=cube)

    def _close_calls(self, cube: str) -> None:
        self._keep_ends(cube, self._trackers[cube].reloaded(self._now()))

    def _keep_ends(self, cube: str, changes: Changes) -> None:
        if changes.events:
            self._log.warn(
                "Cube {cube}: {count} calls whose end was never told are closed as inferred",
                cube=cube,
                count=sum(call.inferred for call in changes.calls),
            )
        if changes.calls or changes.events:
            _ = self._intake.call_ends(changes)


def _to_the_gateway(cube: config.Cube) -> tuple[object, ...]:
    """What of a cube decides whether and how its gateway registers us."""
    secure = cube.pins, cube.ca_file, cube.client_certificate, cube.client_key, cube.tls_minimum
    return cube.enabled, cube.provider_url, cube.application_url, secure
