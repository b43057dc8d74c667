"""
The transport `syslog`: each event a datagram to a syslog collector.

UDP says nothing of what becomes of a datagram.  Here `delivered` means that this machine's network took
it: a collector that is down, or a datagram lost on the way, goes unnoticed, and nothing is tried again.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import CannotListenError, DNSLookupError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.net.egress import BlockedError
from cubehook.records import ErrorClass
from cubehook_syslog.message import Facility, format_message

PORT = 514


class SyslogOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The `options` of a webhook to a syslog collector.

    Where it is, is said by the webhook's `url`: syslog://HOST:PORT, where PORT is 514 unless given.
    """

    facility: Annotated[Facility, msgspec.Meta(description="what the messages are filed under")] = "local0"
    hostname: Annotated[
        str | None, msgspec.Meta(description="who they come from; this machine's name unless given")
    ] = None
    app_name: Annotated[str, msgspec.Meta(description="which program they come from")] = "cubehook"
    enterprise: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description="your IANA enterprise number, for the names of structured data;\n"
            "32473 is set aside for examples",
        ),
    ] = 32473
    bom: Annotated[
        bool, msgspec.Meta(description="mark the text as UTF-8; some collectors take the mark for text")
    ] = True
    max_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=480,
            le=65507,
            description="the longest datagram; an event that needs more is given up, not cut.\n"
            "Collectors should take 2048 (RFC 5426), and the payload `full` may need more",
        ),
    ] = 2048


@implementer(ITransportPlugin)
class SyslogPlugin:
    """Announces the transport `syslog`."""

    name = "syslog"
    description = "A syslog message for each event, over UDP: sent, but nobody confirms that it arrived"
    options = SyslogOptions

    def check(self, webhook: Webhook, options: SyslogOptions) -> list[tuple[str, str]]:
        problems = []
        try:
            parts = urlsplit(webhook.url)
            usable = parts.scheme == "syslog" and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            problems.append(("url", "the collector, such as syslog://logs.example.com:514"))
        for key in ("hostname", "app_name"):
            if not (getattr(options, key) or "-").isascii():
                problems.append((f"options.{key}", "a name in ASCII"))
        return problems

    def create(self, webhook: Webhook, options: SyslogOptions, context: ITransportContext) -> ITransport:
        return SyslogTransport(webhook, options, context)


@implementer(ITransport)
class SyslogTransport:
    """Sends each event as one datagram to the first address that its collector's name stands for."""

    def __init__(self, webhook: Webhook, options: SyslogOptions, context: ITransportContext) -> None:
        parts = urlsplit(webhook.url)
        self._host = parts.hostname or ""
        self._port = parts.port or PORT
        self._context = context
        self._options = options
        self._hostname = options.hostname or socket.gethostname()
        self._sockets: dict[str, Any] = {}

    async def start(self) -> None:
        """Nothing to do: which kind of socket it takes, the first address tells."""

    async def stop(self) -> None:
        sockets, self._sockets = self._sockets, {}
        for each in sockets.values():
            await maybeDeferred(each.stopListening)

    async def deliver(self, outbound: Outbound) -> Sent:
        datagram = format_message(
            outbound,
            facility=self._options.facility,
            hostname=self._hostname,
            app_name=self._options.app_name,
            process=str(os.getpid()),
            enterprise=self._options.enterprise,
            bom=self._options.bom,
        )
        if len(datagram) > self._options.max_bytes:
            return self._too_long(len(datagram), f"options.max_bytes is {self._options.max_bytes}")
        # Asked for each event, since a name may lead elsewhere by now; the policy judges the address.
        asking = Deferred.fromCoroutine(self._context.addresses(self._host))
        try:
            address = (await asking.addTimeout(outbound.timeout, self._context.reactor))[0]
        except BlockedError as error:
            return self._failed(ErrorClass.BLOCKED, f"blocked by the egress policy: {error}")
        except DNSLookupError:
            return self._failed(ErrorClass.DNS, f"{self._host} is not known to the name servers")
        except DeferredTimeoutError:
            words = f"timed out after {outbound.timeout:g} s while resolving {self._host}"
            return self._failed(ErrorClass.TIMEOUT, words)
        to = f"[{address}]:{self._port}" if isIPv6Address(address) else f"{address}:{self._port}"
        try:
            self._socket(address).write(datagram, (address, self._port))
        except MessageLengthError:
            return self._too_long(len(datagram), "the network takes no datagram of that size", to)
        except (OSError, CannotListenError) as error:
            words = getattr(error, "strerror", None) or str(error)
            return self._failed(ErrorClass.OTHER, f"{to} cannot be sent to: {words}", to)
        return Sent(delivered=True, url=self._url, remote_address=to)

    def _socket(self, address: str) -> Any:
        """What sends to addresses of this kind; made when it is needed first."""
        interface = "::" if isIPv6Address(address) else ""
        if interface not in self._sockets:
            reactor = self._context.reactor
            self._sockets[interface] = reactor.listenUDP(0, _Sender(), interface=interface)
        return self._sockets[interface]

    @property
    def _url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"syslog://{host}:{self._port}"

    def _failed(self, error_class: ErrorClass, error: str, to: str | None = None) -> Sent:
        return Sent(delivered=False, url=self._url, remote_address=to, error_class=error_class, error=error)

    def _too_long(self, size: int, why: str, to: str | None = None) -> Sent:
        # The event will be as long the next time: `permanent` lets the call's next event go on.
        return Sent(
            delivered=False,
            permanent=True,
            url=self._url,
            remote_address=to,
            error_class=ErrorClass.OTHER,
            error=f"the message has {size} bytes, but {why}",
        )


class _Sender(DatagramProtocol):
    """Takes nothing, and the log hears nothing of its coming and going."""

    noisy = False
