"""Cubes that are there without gateways, for the API's own part to tell of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cubehook.api.operations import Caller, operation
from cubehook.api.registrations import RegistrationChange, RegistrationChanges, RegistrationsQuery
from cubehook.changes import ExistsError, SettingsError
from cubehook.config import Cube
from cubehook.config_checks import cube_problems
from cubehook.events import iso
from cubehook.records import Registration, RegistrationState
from cubehook.store.errors import ProvisionedError
from tests.console.support import NOW

MINUTE = 60_000_000


def cube(id: str, **settings: object) -> Cube:
    """A cube whose URLs tell its id."""
    return Cube(
        **{
            "id": id,
            "provider_url": "http://192.0.2.1:8090/cisco_xcc",
            "application_url": f"http://192.0.2.20:8090/xcc/{id}",
            **settings,
        }  # type: ignore[arg-type]
    )


class FakeCubes:
    """See `cubehook.api.cubes.Cubes`; `stands` says how a cube is registered, `asked` who was to register."""

    def __init__(self, *cubes: Cube, provisioned: frozenset[str] = frozenset()) -> None:
        self.cubes = {cube.id: cube for cube in cubes}
        self.known: Mapping[str, Cube] = self.cubes
        self.provisioned = provisioned
        self.stands: dict[str, Registration] = {}
        self.asked: list[str] = []

    def stand(self, id: str, state: RegistrationState, **more: object) -> None:
        """Let a cube's registration stand so since four minutes ago."""
        self.stands[id] = Registration(
            **{"cube": id, "state": state, "since": NOW - 4 * MINUTE, **more}  # type: ignore[arg-type]
        )

    def registration(self, id: str) -> Registration:
        state = RegistrationState.REGISTERING if self.cubes[id].enabled else RegistrationState.DISABLED
        return self.stands.get(id) or Registration(cube=id, state=state, since=NOW)

    def active(self, id: str) -> int:
        return 7

    def counts(self, id: str) -> Mapping[str, int]:
        return {"notifications": 14_120, "events": 4_236, "loss_windows": 0}

    async def add(self, cube: Cube) -> None:
        if cube.id in self.cubes:
            raise ExistsError(f"There is a cube {cube.id} already")
        self._check(cube)
        self.cubes[cube.id] = cube

    async def change(self, id: str, change: Callable[[Cube], Cube]) -> None:
        new = change(self.cubes[id])
        self._see_that_it_is_ours(id)
        self._check(new)
        self.cubes[id] = new

    async def remove(self, id: str, check: Callable[[Cube], None]) -> None:
        check(self.cubes[id])
        self._see_that_it_is_ours(id)
        del self.cubes[id]

    async def register(self, id: str) -> Registration:
        self.asked.append(id)
        return self.registration(id)

    def _see_that_it_is_ours(self, id: str) -> None:
        if id in self.provisioned:
            raise ProvisionedError(f"cube {id} stands in the configuration file")

    def _check(self, cube: Cube) -> None:
        problems = cube_problems(cube, [each for each in self.cubes.values() if each.id != cube.id])
        if problems:
            raise SettingsError(problems)


class FakeRegistrations:
    """The operation that tells how registrations went: as it was told to."""

    def __init__(self) -> None:
        self.items: list[RegistrationChange] = []

    def happened(self, state: RegistrationState, reason: str, error: str | None = None) -> None:
        """Something before all that is there."""
        at = iso(NOW - (len(self.items) + 1) * 7 * MINUTE)
        self.items.append(RegistrationChange(at=at, state=state, reason=reason, last_error=error))

    @operation("GET", "/cubes/{cube}/registrations", query=RegistrationsQuery, result=RegistrationChanges)
    async def list_registrations(
        self, caller: Caller, cube: str, query: RegistrationsQuery
    ) -> RegistrationChanges:
        """How it went."""
        return RegistrationChanges(items=self.items, next=None)
