"""What may listen in on a cube's traffic: see `cubehook.operations.trace`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from cubehook.events import Micros


class Tap(Protocol):
    """
    Is told of each message of one cube as it goes over the wire; never raises.

    A `head` is the HTTP message's first line and its headers.  A `body` is None if it is not known.
    """

    def received(self, peer: str, head: Sequence[str], body: bytes | None, at: Micros) -> int:
        """The gateway at `peer` asked us something; the exchange's number."""

    def answered(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        """We answered it."""

    def sent(self, peer: str, head: Sequence[str], body: bytes) -> int:
        """We ask the gateway something; the exchange's number."""

    def heard(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        """It answered."""

    def failed(self, exchange: int, words: str) -> None:
        """No whole answer will come, and why."""


Taps = Mapping[str, Tap]
"""Those there are at the moment, by cube; looked at for each message, and empty nearly always."""

NO_TAPS: Taps = MappingProxyType({})
