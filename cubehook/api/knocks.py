"""Knocks, for commands only: `/knocks`.  See `cubehook.xcc.knocks`."""

from __future__ import annotations

import msgspec

from cubehook.api.operations import Caller, operation
from cubehook.xcc.knocks import HEADER, Knocks


class Knock(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request with the header `header: nonce`, which is waited for.

    Once it came, `address` is where it came from, and `cubes` those whose application URL has its path.
    """

    nonce: str
    header: str = HEADER
    arrived: bool = False
    address: str | None = None
    cubes: tuple[str, ...] = ()


class KnocksPart:
    """The operations by which a command learns whether a URL leads here."""

    def __init__(self, knocks: Knocks) -> None:
        self._knocks = knocks

    @operation("POST", "/knocks", result=Knock, stores=False)
    async def expect_knock(self, caller: Caller) -> Knock:
        """Wait for a request with a new nonce, for a minute."""
        return Knock(nonce=self._knocks.expect())

    @operation("GET", "/knocks/{nonce}", result=Knock)
    async def get_knock(self, caller: Caller, nonce: str) -> Knock:
        """Whether such a request came."""
        found = self._knocks.arrival(nonce)
        if found is None:
            return Knock(nonce=nonce)
        return Knock(nonce=nonce, arrived=True, address=found.address, cubes=found.cubes)
