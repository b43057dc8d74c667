"""When the certificates end that the service shows and trusts: for metrics, the status, and warnings."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from twisted.logger import Logger, LogLevel

from cubehook import config
from cubehook.events import Micros
from cubehook.net.certificates import Stamp, TlsFileError, first_end, read_certificates, stamp

SECONDS = 60.0
"""How often `Certificates.look` is to be called."""

DAYS = (30, 7, 1)
"""So many days before a certificate's end it is warned of."""


class Shown(Protocol):
    """What a listener shows; see `cubehook.net.server_tls.ServerTls`."""

    name: str

    @property
    def ends(self) -> datetime.datetime:
        """When it can be used no longer."""

    def refresh(self) -> str | None:
        """Read it again if it changed."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the setting that names a certificate, as `cubes.hq.ca_file`; `what` tells of it in words."""

    name: str
    what: str
    ends: datetime.datetime


class Certificates:
    """
    The certificates there are: those of listeners, those that cubes and webhooks name, what gateways show.

    Of a file of authorities the next to end counts, as long as one has not ended.  Files that cannot be read
    are left out; whoever needs them says so.
    """

    _log = Logger()

    def __init__(
        self,
        folder: Path,
        now: Callable[[], Micros],
        *,
        listen: Callable[[], config.Listen],
        listeners: Callable[[], Iterable[Shown]],
        cubes: Callable[[], Mapping[str, config.Cube]],
        gateways: Callable[[], Iterable[tuple[str, datetime.datetime]]],
        webhooks: Callable[[], Mapping[str, config.Webhook]],
    ) -> None:
        self._folder = folder
        self._now = now
        self._listen = listen
        self._listeners = listeners
        self._cubes = cubes
        self._gateways = gateways
        self._webhooks = webhooks
        self._read: dict[tuple[Path, bool], tuple[Stamp, datetime.datetime | None]] = {}
        self._told: dict[str, tuple[datetime.datetime, int]] = {}
        """Of what end it was warned, and how many of `DAYS` had come by then."""

    def ends(self) -> list[End]:
        """All ends that are known, in no order."""
        return list(self._ends())

    def timestamps(self) -> list[tuple[str, float]]:
        """The same, by name, in seconds since the epoch."""
        return [(each.name, each.ends.timestamp()) for each in self._ends()]

    def look(self) -> None:
        """Have listeners read again what changed, and warn of what ends soon: once for each of `DAYS`."""
        for listener in self._listeners():
            listener.refresh()
        now = self._time()
        for each in self._ends():
            left = each.ends - now
            come = sum(left <= datetime.timedelta(days=days) for days in DAYS)
            stage = come + (left <= datetime.timedelta(0))
            before = self._told.get(each.name)
            if before is not None and before[0] == each.ends and before[1] >= stage:
                continue
            self._told[each.name] = (each.ends, stage)
            if stage:
                self._warn(each, left)

    def _warn(self, end: End, left: datetime.timedelta) -> None:
        over = left <= datetime.timedelta(0)
        self._log.emit(
            LogLevel.error if over else LogLevel.warn,
            "{what} ({name}) {when} on {date}: renew it",
            what=end.what,
            name=end.name,
            when="ended" if over else f"ends in {_days(left)},",
            date=f"{end.ends:%Y-%m-%d %H:%M} UTC",
        )

    def _ends(self) -> Iterator[End]:
        for listener in self._listeners():
            yield End(name=listener.name, what="The certificate of a listener", ends=listener.ends)
        client_ca = self._listen().client_ca
        if client_ca is not None:
            yield from self._file("listen.client_ca", client_ca, "An authority for gateways", any_of=True)
        for cube in self._cubes().values():
            if cube.enabled:
                where = f"cubes.{cube.id}."
                yield from self._files(where, f"cube {cube.id}", cube.ca_file, cube.client_certificate)
        for cube_id, ends in self._gateways():
            what = f"The certificate that the gateway of cube {cube_id} shows"
            yield End(name=f"cubes.{cube_id}.gateway", what=what, ends=ends)
        for webhook in self._webhooks().values():
            if webhook.enabled:
                where, options = f"webhooks.{webhook.id}.options.", webhook.options
                files = (options.get("ca_file"), options.get("client_certificate"))
                yield from self._files(where, f"webhook {webhook.id}", *files)

    def _files(self, where: str, whose: str, ca_file: object, certificate: object) -> Iterator[End]:
        # What belongs to a transport may be anything.
        if isinstance(ca_file, str) and ca_file:
            path = self._folder / ca_file
            yield from self._file(f"{where}ca_file", path, f"An authority for {whose}", any_of=True)
        if isinstance(certificate, str) and certificate:
            path = self._folder / certificate
            yield from self._file(f"{where}client_certificate", path, f"Our certificate for {whose}")

    def _file(self, name: str, path: Path, what: str, any_of: bool = False) -> Iterator[End]:
        now_it_is = stamp(path)
        seen = self._read.get((path, any_of))
        # Which of several authorities is the next to end is another matter once one has ended.
        if seen is None or seen[0] != now_it_is or (seen[1] is not None and seen[1] < self._time()):
            seen = self._read[path, any_of] = (now_it_is, self._end_of(name, path, any_of))
        if seen[1] is not None:
            yield End(name=name, what=what, ends=seen[1])

    def _end_of(self, name: str, path: Path, any_of: bool) -> datetime.datetime | None:
        try:
            found = read_certificates(name, path)
        except TlsFileError:
            return None
        if any_of:
            return first_end(found, self._time())
        return min(each.not_valid_after_utc for each in found)

    def _time(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._now() / 1_000_000, datetime.UTC)


def _days(left: datetime.timedelta) -> str:
    days = max(1, round(left / datetime.timedelta(days=1)))
    return "1 day" if days == 1 else f"{days} days"
