"""Cubes and what is done with them: `/cubes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from cubehook import config
from cubehook.api import settings
from cubehook.api.errors import ConflictError, NotFoundError
from cubehook.api.operations import Caller, IfMatch, Nothing, Tagged, operation
from cubehook.api.refusals import refusals
from cubehook.api.views import Limit, Time, shown_time
from cubehook.events import iso
from cubehook.records import Registration, RegistrationState
from cubehook.text import printable


class Cubes(Protocol):
    """What the API needs of the service's cubes; see `cubehook.cubes.Cubes`."""

    @property
    def known(self) -> Mapping[str, config.Cube]:
        """Those there are, by their ids."""

    @property
    def provisioned(self) -> frozenset[str]:
        """Those that the configuration file has."""

    def registration(self, cube: str) -> Registration:
        """How a cube's registration stands."""

    def active(self, cube: str) -> int:
        """How many of its calls are in progress."""

    def counts(self, cube: str) -> Mapping[str, int]:
        """What was counted of it since the start."""

    def add(self, cube: config.Cube) -> Awaitable[None]:
        """Have another cube."""

    def change(self, id: str, change: Callable[[config.Cube], config.Cube]) -> Awaitable[None]:
        """Let a cube be otherwise."""

    def remove(self, id: str, check: Callable[[config.Cube], None]) -> Awaitable[None]:
        """Have a cube no more."""

    def register(self, cube: str) -> Awaitable[Registration]:
        """Register again now, and tell how that went."""


class CubesQuery(msgspec.Struct, frozen=True):
    """`limit` cubes at most, after those that gave `cursor` as their `next`."""

    limit: Limit = 50
    cursor: str | None = None


class CubeRegistration(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a cube's registration stands, `since` when, and the `reason` in words.

    `silent`: the gateway says nothing although it has us registered.  `rejected`: it refuses us.
    `failure_count` are the attempts that failed in a row, `last_error` is what the last one met.
    `last_probe_at` is when the gateway last probed us since the service started.
    """

    state: RegistrationState
    registration_id: str | None
    since: Time
    last_message_at: Time | None
    last_probe_at: Time | None
    failure_count: int
    last_error: str | None
    reason: str


class Cube(msgspec.Struct, frozen=True, kw_only=True):
    """
    A cube, and how it stands.

    One that is `provisioned` stands in the configuration file, and is changed there only.  `calls_active` are
    its calls in progress; `counters` count since the service started.  Files that it names are on the
    service's machine.
    """

    id: str
    provisioned: bool
    provider_url: str
    application_url: str
    enabled: bool
    description: str
    default_region: str | None
    allow_from: tuple[str, ...]
    pins: tuple[str, ...]
    ca_file: str | None
    client_certificate: str | None
    client_key: str | None
    tls_minimum: config.TlsVersion
    registration: CubeRegistration
    calls_active: int
    counters: dict[str, int]


class CubeList(msgspec.Struct, frozen=True, kw_only=True):
    """Cubes in the order of their ids."""

    items: list[Cube]
    next: str | None


class CubesPart:
    """The operations on cubes."""

    def __init__(self, cubes: Cubes) -> None:
        self._cubes = cubes

    @operation("GET", "/cubes", query=CubesQuery, result=CubeList)
    async def list_cubes(self, caller: Caller, query: CubesQuery) -> CubeList:
        """All cubes, and how their registrations stand."""
        ids = sorted(id for id in self._cubes.known if query.cursor is None or id > query.cursor)
        part = ids[: query.limit]
        return CubeList(
            items=[self._view(id) for id in part], next=part[-1] if len(ids) > len(part) else None
        )

    @operation(
        "POST",
        "/cubes",
        body=settings.NewCube,
        result=Cube,
        errors=(ConflictError,),
        status=201,
        tagged=True,
    )
    async def create_cube(self, caller: Caller, body: settings.NewCube) -> Tagged:
        """
        Make a cube, and begin to register with its gateway.

        Its `application_url` must be a URL of its own, and what the router's `remote-url` is.
        """
        with refusals("cube", body.id):
            await self._cubes.add(settings.made(config.Cube, body))
            return self._tagged(body.id)

    @operation("GET", "/cubes/{cube}", result=Cube, tagged=True)
    async def get_cube(self, caller: Caller, cube: str) -> Tagged:
        """One cube, and how its registration stands."""
        self._known(cube)
        return self._tagged(cube)

    @operation(
        "PATCH",
        "/cubes/{cube}",
        body=settings.CubeChanges,
        result=Cube,
        errors=(ConflictError,),
        conditional=True,
        tagged=True,
    )
    async def change_cube(self, caller: Caller, cube: str, body: Any, if_match: IfMatch) -> Tagged:
        """
        Change a cube.

        Its registration is given back and made anew only if its URLs or its settings of TLS change or it is
        enabled.  Its calls in progress go on; if it is disabled they are closed, as nobody will tell of their
        ends.
        """
        self._known(cube)

        def change(now: config.Cube) -> config.Cube:
            if_match.check(settings.tag(now))
            return settings.changed(now, body)

        with refusals("cube", cube):
            await self._cubes.change(cube, change)
            return self._tagged(cube)

    @operation(
        "DELETE", "/cubes/{cube}", result=Nothing, errors=(ConflictError,), status=204, conditional=True
    )
    async def delete_cube(self, caller: Caller, cube: str, if_match: IfMatch) -> Nothing:
        """
        Remove a cube: its registration is given back, and its calls in progress are closed.

        Its history stays until it is past its retention.
        """
        self._known(cube)
        with refusals("cube", cube):
            await self._cubes.remove(cube, lambda now: if_match.check(settings.tag(now)))
        return Nothing()

    @operation(
        "POST", "/cubes/{cube}/register", result=CubeRegistration, errors=(ConflictError,), stores=False
    )
    async def register_cube(self, caller: Caller, cube: str) -> CubeRegistration:
        """Register with a cube's gateway again now, and tell how its registration stands after that."""
        if not self._known(cube).enabled:
            raise ConflictError(f"Cube {cube} is disabled: enable it first")
        with refusals("cube", cube):
            return _registration_view(await self._cubes.register(cube))

    def _known(self, cube: str) -> config.Cube:
        known = self._cubes.known.get(cube)
        if known is None:
            raise NotFoundError(f"There is no cube {printable(cube)}")
        return known

    def _tagged(self, cube: str) -> Tagged:
        return Tagged(self._view(cube), settings.tag(self._known(cube)))

    def _view(self, cube: str) -> Cube:
        known = self._known(cube)
        return Cube(
            id=cube,
            provisioned=cube in self._cubes.provisioned,
            provider_url=known.provider_url,
            application_url=known.application_url,
            enabled=known.enabled,
            description=known.description,
            default_region=known.default_region,
            allow_from=known.allow_from,
            pins=known.pins,
            ca_file=known.ca_file,
            client_certificate=known.client_certificate,
            client_key=known.client_key,
            tls_minimum=known.tls_minimum,
            registration=_registration_view(self._cubes.registration(cube)),
            calls_active=self._cubes.active(cube),
            counters=dict(self._cubes.counts(cube)),
        )


def _registration_view(registration: Registration) -> CubeRegistration:
    return CubeRegistration(
        state=registration.state,
        registration_id=registration.registration_id,
        since=iso(registration.since),
        last_message_at=shown_time(registration.last_message_at),
        last_probe_at=shown_time(registration.last_probe_at),
        failure_count=registration.failure_count,
        last_error=registration.last_error,
        reason=registration.reason,
    )
