"""The service itself: `/status`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from cubehook import __version__
from cubehook.api.operations import Caller, operation
from cubehook.api.views import Time
from cubehook.events import Micros, iso


class Service(Protocol):
    """What the API tells of the service."""

    def problems(self) -> list[str]:
        """What keeps it from being ready, in words."""

    def rates(self) -> dict[str, int]:
        """How many of what `Minute` has there were."""

    def retained(self) -> tuple[int, int]:
        """For how many seconds calls and deliveries are kept."""

    def certificates(self) -> list[tuple[str, Micros]]:
        """The settings that name certificates, and when these end, the next to end first."""

    def database_bytes(self) -> int:
        """What the database takes on the disk."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many seconds the history of calls and of deliveries is kept."""

    calls: int
    deliveries: int


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """
    What there was in the last minute.

    `notifications` of gateways, `events` of calls, `deliveries` that arrived, attempts that failed
    (`failures`).
    """

    notifications: int
    events: int
    deliveries: int
    failures: int


class CertificateEnd(msgspec.Struct, frozen=True, kw_only=True):
    """
    When a certificate ends; `name` is the setting that names it, such as `cubes.hq.ca_file`.

    `cubes.NAME.gateway` is the one that a gateway shows.
    """

    name: str
    ends_at: Time


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the service is.

    `problems` are sentences, none while it is ready; `database_bytes` is what the database takes on disk;
    of `certificates` the next to end comes first.
    """

    version: str
    python: str
    started_at: Time
    problems: list[str]
    last_minute: Minute
    retention: Retention
    database_bytes: int
    certificates: list[CertificateEnd]


class StatusPart:
    """The operation that tells of the service itself, which starts now."""

    def __init__(self, service: Service, now: Callable[[], Micros]) -> None:
        self._service = service
        self._started = now()

    @operation("GET", "/status", result=Status)
    async def get_status(self, caller: Caller) -> Status:
        """The service's version, health, pace and size."""
        calls, deliveries = self._service.retained()
        return Status(
            version=__version__,
            python=".".join(map(str, sys.version_info[:3])),
            started_at=iso(self._started),
            problems=self._service.problems(),
            last_minute=Minute(**self._service.rates()),
            retention=Retention(calls=calls, deliveries=deliveries),
            database_bytes=self._service.database_bytes(),
            certificates=[
                CertificateEnd(name=name, ends_at=iso(ends)) for name, ends in self._service.certificates()
            ],
        )
