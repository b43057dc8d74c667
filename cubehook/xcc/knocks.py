"""
Knocks: requests by which `cubehook doctor` finds out whether a URL leads to this very service.

A command asks for a nonce over the control socket, sends it in a header to the URL, and asks whether it
came.  The answer to the request itself is the same whatever is in the header, so it tells strangers
nothing, and a nonce that was not asked for is no knock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import msgspec

HEADER = "Cubehook-Knock"

_BYTES = 16
_SECONDS = 60.0
"""For how long a nonce is good, and what came with it remembered."""

_MOST = 1000
"""Nonces at once; past that the oldest is forgotten."""


class Arrival(msgspec.Struct, frozen=True):
    """A knock that came: from which `address`, and which `cubes` have the path that it came to."""

    address: str
    cubes: tuple[str, ...]


class Knocks:
    """The nonces that are waited for, by the clock `seconds`."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._made: dict[str, float] = {}
        self._arrived: dict[str, Arrival] = {}

    def __bool__(self) -> bool:
        """Something may come: false nearly always."""
        return bool(self._made)

    def expect(self) -> str:
        """A nonce for one knock."""
        self._forget()
        nonce = secrets.token_hex(_BYTES)
        self._made[nonce] = self._seconds()
        return nonce

    def heard(self, nonce: str, address: str, cubes: Sequence[str]) -> bool:
        """Whether that is a nonce which is waited for; the first arrival is remembered."""
        self._forget()
        if nonce not in self._made:
            return False
        self._arrived.setdefault(nonce, Arrival(address, tuple(cubes)))
        return True

    def arrival(self, nonce: str) -> Arrival | None:
        """How a knock came, None if it did not or is forgotten."""
        self._forget()
        return self._arrived.get(nonce)

    def _forget(self) -> None:
        now = self._seconds()
        while self._made:
            nonce, made = next(iter(self._made.items()))
            if now - made < _SECONDS and len(self._made) < _MOST:
                break
            del self._made[nonce]
            self._arrived.pop(nonce, None)
