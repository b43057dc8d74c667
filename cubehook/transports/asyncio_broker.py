"""
What transports have in common whose library is written for asyncio.

Half of each lives in the reactor's thread, this; the other half, a `Sender`, in the loop beside it.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.events import Micros
from cubehook.interfaces import ITransport, ITransportContext, Outbound, Sent
from cubehook.net.tls import UNVERIFIED, Tls, TlsOptions
from cubehook.net.urls import MASK
from cubehook.records import ErrorClass
from cubehook.transports.asyncio_failures import explain_asyncio
from cubehook.transports.asyncio_thread import BorrowedLoop, borrow_loop
from cubehook.transports.brokers import BrokerError, Phase
from cubehook.transports.messages import labels

CLOSE_SECONDS: Final = 1.0
"""How long a sender may take to leave, before its connections are cut."""
CONTENT_TYPE: Final = "Content-Type"


class Flight:
    """How far one delivery has come, and with whom."""

    # Written in the loop's thread, read in the reactor's: the list is replaced, never changed.

    def __init__(self) -> None:
        self._marks = [(Phase.CONNECTING, time.monotonic())]
        self.peer: str | None = None
        self.hint = ""
        """What to add if nothing more is heard."""

    def enter(self, phase: Phase) -> None:
        """A phase begins; CONNECTING is left out where nothing had to be connected."""
        kept = len(self._marks) == 1 and phase is Phase.CONFIRMING
        self._marks = [*([] if kept else self._marks), (phase, time.monotonic())]

    @property
    def phase(self) -> Phase:
        return self._marks[-1][0]

    def phases(self) -> dict[str, Micros]:
        """How long each took, the last until now."""
        marks = self._marks
        ends = [at for _, at in marks[1:]] + [time.monotonic()]
        return {
            str(phase): round((end - at) * 1_000_000) for (phase, at), end in zip(marks, ends, strict=True)
        }


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is sent for one event.

    `place` is where it goes (a subject, a key), `labels` what it says of itself.
    """

    place: str
    labels: dict[str, str]
    body: bytes
    timeout: float


class Sender(abc.ABC):
    """The half of a transport in the loop; all methods are called there."""

    @abc.abstractmethod
    async def send(self, parcel: Parcel, flight: Flight) -> str:
        """
        Send it once, and wait until the broker has confirmed it; what it answered, for the log.

        BrokerError for what the broker says; what the network does may be raised as it comes.  Has no
        limit in time of its own: is cancelled when time is up, and must leave itself fit for use.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Leave the broker, politely if that takes no time; connections are cut after this."""


def labelled(outbound: Outbound, webhook: Webhook) -> dict[str, str]:
    """What a message says of itself: the labels of any, its content type and the webhook's own headers."""
    told = labels(outbound)
    if not any(name.lower() == CONTENT_TYPE.lower() for name in webhook.headers):
        told[CONTENT_TYPE] = outbound.content_type
    return told | webhook.headers


@implementer(ITransport)
class AsyncioTransport:
    """
    Delivers what `parcel` makes of an event through the sender that `make`, called in the loop, returns.

    `make` may import the library: it is the first to need it.  `address` is the broker's, `shown` its URL
    as it may be shown; `tls` is None where none is spoken.
    """

    def __init__(
        self,
        context: ITransportContext,
        *,
        address: str,
        shown: Callable[[Parcel], str],
        parcel: Callable[[Outbound], Parcel],
        make: Callable[[Tls | None], Coroutine[Any, Any, Sender]],
        tls: TlsOptions | None,
    ) -> None:
        self._context = context
        self._reactor = context.reactor
        self._address = address
        self._shown = shown
        self._parcel = parcel
        self._make = make
        self._tls = tls
        self._masked = {
            name: MASK for name in context.webhook.headers if name.lower() != CONTENT_TYPE.lower()
        }
        self._note: str | None = None
        self._loop: BorrowedLoop | None = None
        self._sender: Sender | None = None

    async def start(self) -> None:
        if self._loop is None:
            self._loop = borrow_loop(self._reactor, self._context.egress)
        tls = None if self._tls is None else self._context.tls(self._tls)
        self._note = UNVERIFIED if tls is not None and tls.insecure else None
        self._sender = await self._loop.run(self._make(tls))

    async def stop(self) -> None:
        loop, self._loop = self._loop, None
        sender, self._sender = self._sender, None
        if loop is None:
            return
        try:
            if sender is not None:
                await loop.run(sender.close()).addTimeout(CLOSE_SECONDS, self._reactor)
        except DeferredTimeoutError:
            pass  # it hangs; giving back cuts its connections
        finally:
            await loop.give_back()

    async def deliver(self, outbound: Outbound) -> Sent:
        if self._loop is None or self._sender is None:
            raise RuntimeError("the transport was not started")
        parcel = self._parcel(outbound)
        flight = Flight()
        error: BrokerError | None = None
        answer: str | None = None
        try:
            sending = self._loop.run(self._sender.send(parcel, flight))
            answer = await sending.addTimeout(outbound.timeout, self._reactor)
        except BrokerError as failed:
            error = failed
        except DeferredTimeoutError:
            words = f"timed out after {outbound.timeout:g} s while {flight.phase}{flight.hint}"
            error = BrokerError(ErrorClass.TIMEOUT, words)
        except Exception as failed:
            explained = explain_asyncio(failed)
            if explained is None:
                raise
            error = BrokerError(*explained)
        return Sent(
            delivered=error is None,
            permanent=error is not None and error.permanent,
            hold=None if error is None else error.hold,
            phases=flight.phases(),
            url=self._shown(parcel),
            request_headers=parcel.labels | self._masked,
            response_body=answer,
            remote_address=flight.peer,
            note=self._note,
            error_class=None if error is None else error.error_class,
            error=None if error is None else f"{self._address}: {error.words}",
        )
