"""
For the tests of those who write transports.

`TransportTests` tries a transport on what `cubehook.interfaces.ITransport` promises; the classes beside it
try what not every transport has.  Only what is named here is meant for others, and as stable as the
interface itself.
"""

from cubehook.testing.conformance import (
    EgressTests,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
)
from cubehook.testing.names import NamedReactor, Names
from cubehook.testing.samples import LOOPBACK, call_outbound, lend, notice_outbound

__all__ = [
    "LOOPBACK",
    "EgressTests",
    "NamedReactor",
    "Names",
    "RecoveringReceiverTests",
    "TransportTests",
    "UnresponsiveReceiverTests",
    "call_outbound",
    "lend",
    "notice_outbound",
]
