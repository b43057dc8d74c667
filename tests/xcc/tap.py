"""Something that listens in and remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cubehook.events import Micros

EXCHANGE = 7


class FakeTap:
    """Each of `told` begins with the name of what was called."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def received(self, peer: str, head: Sequence[str], body: bytes | None, at: Micros) -> int:
        self.told.append(("received", peer, head, body, at))
        return EXCHANGE

    def answered(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        self.told.append(("answered", exchange, peer, head, body))

    def sent(self, peer: str, head: Sequence[str], body: bytes) -> int:
        self.told.append(("sent", peer, head, body))
        return EXCHANGE

    def heard(self, exchange: int, peer: str, head: Sequence[str], body: bytes) -> None:
        self.told.append(("heard", exchange, peer, head, body))

    def failed(self, exchange: int, words: str) -> None:
        self.told.append(("failed", exchange, words))
