"""
For the tests of those who write transports.

`TransportTests` tries a transport on what `cubehook.interfaces.ITransport` promises; the classes beside it
try what not every transport has.  Only what is named here is meant for others, and as stable as the
interface itself.
"""

from cubehook.testing.conformance import (
    EgressTests,
    RecoveringReceiverTests,
    TransportCase,
    TransportTests,
    UnresponsiveReceiverTests,
)
from cubehook.testing.names import NamedReactor, Names
from cubehook.testing.samples import LOOPBACK, call_outbound, lend, notice_outbound
from cubehook.testing.watching import Leftovers

__all__ = [
    "LOOPBACK",
    "EgressTests",
    "Leftovers",
    "NamedReactor",
    "Names",
    "RecoveringReceiverTests",
    "TransportCase",
    "TransportTests",
    "UnresponsiveReceiverTests",
    "call_outbound",
    "lend",
    "notice_outbound",
]
