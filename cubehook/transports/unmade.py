"""What stands in for a transport that cannot be made."""

from __future__ import annotations

from zope.interface import implementer

from cubehook.interfaces import ITransport, Outbound, Sent


@implementer(ITransport)
class Unmade:
    """
    The transport of a webhook whose own cannot be made; `why` is for a person.

    It never starts, so that events are kept for the webhook as long as its settings cannot be used.
    """

    def __init__(self, why: str) -> None:
        self._why = why

    async def start(self) -> None:
        """See `ITransport.start`."""
        raise ValueError(self._why)

    async def deliver(self, outbound: Outbound) -> Sent:
        """See `ITransport.deliver`; nobody asks for it."""
        raise ValueError(self._why)

    async def stop(self) -> None:
        """See `ITransport.stop`."""
