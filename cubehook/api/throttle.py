"""How often an address may fail to say who it is: a bucket for each, that fills again with time."""

from __future__ import annotations

import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

BURST = 10
"""Failures in a row that are answered as such."""

SECONDS_EACH = 6.0
"""After which one more is."""

ADDRESSES = 10_000
"""So many are remembered; the one that failed longest ago is forgotten first."""

_SITE_BITS = 64


class Throttle:
    """
    Counts failures by address; time is given in seconds of any clock that does not step back.

    An IPv6 address stands for its whole network, since whoever has one has them all.
    """

    def __init__(
        self, burst: int = BURST, seconds_each: float = SECONDS_EACH, addresses: int = ADDRESSES
    ) -> None:
        self._full = burst * seconds_each
        self._each = seconds_each
        self._most = addresses
        # When the bucket of each will be full again: what lies further ahead is emptier.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def failed(self, address: str, now: float) -> None:
        """Note a failure; there is an end to how long an address must wait for what it did."""
        key = _key(address)
        full_at = max(now, self._full_at.pop(key, now)) + self._each
        self._full_at[key] = min(full_at, now + self._full)
        while len(self._full_at) > self._most:
            self._full_at.popitem(last=False)

    def wait(self, address: str, now: float) -> int:
        """Whole seconds until the address may fail again, 0 if it may now."""
        key = _key(address)
        full_at = self._full_at.get(key)
        if full_at is None:
            return 0
        if full_at <= now:
            del self._full_at[key]
            return 0
        return max(0, math.ceil(full_at - now - (self._full - self._each)))

    def __len__(self) -> int:
        return len(self._full_at)


def _key(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{int(parsed) >> (128 - _SITE_BITS):x}::"
    return str(parsed)
