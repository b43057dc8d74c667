"""The addresses of a name, for what opens its sockets without an endpoint."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from cubehook.net.agent import SharedLookup
from cubehook.net.egress import BlockedError, EgressPolicy


class Addresses:
    """Resolves `host`, a name or an address, and lets through what `policy` allows."""

    def __init__(self, reactor: Any, policy: EgressPolicy, host: str) -> None:
        self._policy = policy
        self._host = host
        self._lookup = SharedLookup(reactor, host)

    async def get(self) -> list[str]:
        """
        The addresses, in the resolver's order, at least one.

        BlockedError if there are some but none may be reached, DNSLookupError if there are none.
        """
        if isIPAddress(self._host) or isIPv6Address(self._host):
            self._policy.check(self._host)
            return [self._host]
        found: Deferred[list[str]] = Deferred()
        self._lookup.ask(_Collector(found), 0)
        allowed: list[str] = []
        blocked = None
        for address in await found:
            try:
                self._policy.check(address)
            except BlockedError as error:
                blocked = BlockedError(error.rule, address, self._host)
            else:
                allowed.append(address)
        if allowed:
            return allowed
        raise blocked or DNSLookupError(f"{self._host} has no address")


@implementer(IResolutionReceiver)
class _Collector:
    """Fires `found` with what was resolved; that it was cancelled does no harm."""

    def __init__(self, found: Deferred[list[str]]) -> None:
        self._found = found
        self._addresses: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        host: str = address.host  # type: ignore[attr-defined]
        if host not in self._addresses:
            self._addresses.append(host)

    def resolutionComplete(self) -> None:
        self._found.callback(self._addresses)
