"""How far an exchange has come, with whom, and how long each part of it took."""

from __future__ import annotations

import enum
from collections.abc import Callable
from ipaddress import ip_address

from cubehook.events import Micros


class Phase(enum.StrEnum):
    """What an exchange does, in the order it does it."""

    RESOLVING = "resolving"
    CONNECTING = "connecting"
    PROXY = "proxy"
    TLS = "tls"
    WAITING = "waiting"
    READING = "reading"

    def __init__(self, text: str) -> None:
        # Plain attributes: an enumeration's own `value` and hash are slow, and this is a busy path.
        self.text = text
        self.order = len(type(self).__members__)


_SHOWN_ADDRESSES = 5


class Journey:
    """
    What one exchange went through; `clock` tells seconds.

    One over a connection kept from before begins with waiting for the answer.
    """

    __slots__ = ("_clock", "_entered", "_tried", "connected_to")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entered: list[tuple[Phase, float]] = []
        self._tried: list[str] = []
        self.connected_to: str | None = None
        """Address and port of the other end, once there is one: of the receiver, or of the proxy."""

    @property
    def phase(self) -> Phase:
        """What it is doing; before it does anything, connecting."""
        return self._entered[-1][0] if self._entered else Phase.CONNECTING

    @property
    def kept(self) -> bool:
        """It goes over a connection that was kept from before."""
        return bool(self._entered) and self._entered[0][0] is Phase.WAITING

    @property
    def address(self) -> str | None:
        """Whom it is connected to, or the addresses that were tried; None if there were none."""
        if self.connected_to is not None or not self._tried:
            return self.connected_to
        shown = ", ".join(self._tried[:_SHOWN_ADDRESSES])
        more = len(self._tried) - _SHOWN_ADDRESSES
        return f"{shown} and {more} more" if more > 0 else shown

    def enter(self, phase: Phase) -> None:
        """A phase begins; one that is over does not come again."""
        entered = self._entered
        if not entered or phase.order > entered[-1][0].order:
            entered.append((phase, self._clock()))

    def tries(self, host: str, port: int) -> None:
        """An attempt to connect to an address begins."""
        self.enter(Phase.CONNECTING)
        self._tried.append(address_text(host, port))

    def phases(self) -> dict[str, Micros]:
        """Microseconds of each phase until now, by its name, in their order."""
        took = {}
        last = None
        since = 0.0
        for phase, began in self._entered:
            if last is not None:
                took[last.text] = _micros(began - since)
            last = phase
            since = began
        if last is not None:
            took[last.text] = _micros(self._clock() - since)
        return took

    def told(self) -> str:
        """The time of each phase, for people."""
        return ", ".join(f"{phase} {took / 1_000_000:.2f} s" for phase, took in self.phases().items())


def _micros(seconds: float) -> Micros:
    # The clock may be set back.
    return int(seconds * 1_000_000) if seconds > 0 else 0


def address_text(host: str, port: int) -> str:
    """An address and a port as written in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def literal(host: str) -> str | None:
    """`host` if it is an IPv4 or IPv6 address in the usual form, else None."""
    try:
        ip_address(host)
    except ValueError:
        return None
    return host
