"""Names that resolve as a test tells them to."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class Names:
    """
    Resolves as `answers` tells at the time; a name with None for an answer is never resolved, one that is
    not there is unknown.
    """

    def __init__(self, **answers: list[str] | None) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append(hostName)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        addresses = self.answers.get(hostName, [])
        if addresses is None:
            return resolution
        for address in addresses:
            kind = IPv4Address if ip_address(address).version == 4 else IPv6Address
            resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class NamedReactor:
    """The reactor that is installed, but for its name resolver."""

    def __init__(self, names: Names) -> None:
        self.nameResolver = names

    def __getattr__(self, name: str) -> Any:
        from twisted.internet import reactor

        return getattr(reactor, name)
