"""How the service is as a whole: its health, its pace, its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cubehook import config
from cubehook.events import Micros
from cubehook.operations.certificates import End
from cubehook.operations.metrics import Metrics
from cubehook.operations.rates import Rates

_FILES = ("cubehook.db", "cubehook.db-wal")


class ServiceStatus:
    """
    See `cubehook.api.status.Service`.

    `settings` are those that hold; `note` is to be called every `rates.SECONDS`.
    """

    def __init__(
        self,
        settings: Callable[[], config.Config],
        metrics: Metrics,
        problems: Callable[[], list[str]],
        now: Callable[[], Micros],
        certificates: Callable[[], Iterable[End]] = tuple,
    ) -> None:
        self.problems = problems
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._certificates = certificates
        self._rates = Rates()
        self.note()

    def note(self) -> None:
        """Note how much there was so far."""
        self._rates.note(self._now(), self._metrics.totals())

    def rates(self) -> dict[str, int]:
        """How much there was of what in the last minute."""
        return self._rates.in_a_minute(self._now(), self._metrics.totals())

    def retained(self) -> tuple[int, int]:
        """For how many seconds calls and deliveries are kept."""
        retention = self._settings().retention
        return retention.calls, retention.deliveries

    def certificates(self) -> list[tuple[str, Micros]]:
        """The settings that name certificates, and when these end, the next to end first."""
        ends = sorted((each.ends, each.name) for each in self._certificates())
        return [(name, int(end.timestamp()) * 1_000_000) for end, name in ends]

    def database_bytes(self) -> int:
        """What the database takes on the disk."""
        total = 0
        for name in _FILES:
            try:
                total += (self._settings().state_dir / name).stat().st_size
            except OSError:
                continue
        return total
