"""
Every XCC message as a value, with Cisco's names in snake case.

Source: "Cisco Unified Communications Gateway Services API Guide", the XCC provider.
What is optional on the wire is optional here.  Reading and writing them is
`cubehook.xcc.codec`'s work.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class MsgHeader(msgspec.Struct, frozen=True):
    transaction_id: str | None = None
    registration_id: str | None = None


class ApplicationData(msgspec.Struct, frozen=True):
    url: str
    name: str | None = None


class ProviderData(msgspec.Struct, frozen=True):
    url: str


class CallData(msgspec.Struct, frozen=True):
    call_id: str
    state: str | None = None
    """IDLE, ACTIVE or INVALID."""


class ConnData(msgspec.Struct, frozen=True):
    conn_id: str
    state: str | None = None
    """IDLE ... DISCONNECTED; the event element decides, not this (guide, "Connection state")."""


class AddrData(msgspec.Struct, frozen=True):
    addr: str | None = None
    type: str | None = None
    """E164, URI or OTHER."""


class MediaData(msgspec.Struct, frozen=True):
    type: str | None = None
    coder_type: str | None = None
    coder_byte: str | None = None


class ConnDetailData(msgspec.Struct, frozen=True, kw_only=True):
    conn_data: ConnData | None = None
    guid: str | None = None
    guid_alt_format: str | None = None
    calling_addr_data: AddrData | None = None
    orig_calling_addr_data: AddrData | None = None
    called_addr_data: AddrData | None = None
    orig_called_addr_data: AddrData | None = None
    redirect_addr_data: AddrData | None = None
    conn_intf_type: str | None = None
    media_data: MediaData | None = None
    conn_intf: str | None = None
    conn_direction_type: str | None = None
    route_name: str | None = None
    route_description: str | None = None


# The choice inside NotifyXccConnectionData/event.


class Created(msgspec.Struct, frozen=True):
    conn_detail_data: ConnDetailData


class CallDelivery(msgspec.Struct, frozen=True):
    pass


class Alerting(msgspec.Struct, frozen=True):
    pass


class Redirected(msgspec.Struct, frozen=True):
    redirect_addr_data: AddrData | None = None


class Connected(msgspec.Struct, frozen=True):
    conn_detail_data: ConnDetailData


class Transferred(msgspec.Struct, frozen=True):
    redirect_addr_data: AddrData | None = None


class Disconnected(msgspec.Struct, frozen=True):
    disc_cause: int | None = None
    media_data: MediaData | None = None
    stats_data: dict[str, str] | None = None
    """`statsData` by Cisco's element names, values as written."""
    jitter_data: dict[str, str] | None = None
    """`jitterData` by Cisco's element names, values as written."""


class HandoffLeave(msgspec.Struct, frozen=True):
    pass


class HandoffJoin(msgspec.Struct, frozen=True):
    conn_detail_data: ConnDetailData


class MediaForkingEvent(msgspec.Struct, frozen=True):
    media_forking_state: str | None = None


class UnknownEvent(msgspec.Struct, frozen=True):
    name: str


ConnectionEvent: TypeAlias = (
    Created
    | CallDelivery
    | Alerting
    | Redirected
    | Connected
    | Transferred
    | Disconnected
    | HandoffLeave
    | HandoffJoin
    | MediaForkingEvent
    | UnknownEvent
)


# What we ask of a gateway, and its answers.


class RequestXccRegister(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    application_data: ApplicationData
    provider_data: ProviderData
    connection_events_filter: tuple[str, ...] | None = None
    media_events_filter: tuple[str, ...] | None = None
    blocking_event_timeout_sec: int | None = None
    blocking_timeout_handle: str | None = None
    """CONTINUE_PROCESSING or RELEASE."""


class ResponseXccRegister(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    provider_status: str | None = None
    """IN_SERVICE or SHUTDOWN."""


class RequestXccUnRegister(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class ResponseXccUnRegister(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccControlUpdate(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    connection_events_filter: tuple[str, ...] | None = None
    media_events_filter: tuple[str, ...] | None = None
    blocking_event_timeout_sec: int | None = None
    blocking_timeout_handle: str | None = None


class ResponseXccControlUpdate(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccCallRelease(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    disc_cause: int | None = None


class ResponseXccCallRelease(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccConnectionRelease(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    conn_id: str
    disc_cause: int | None = None


class ResponseXccConnectionRelease(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class ForkingAddr(msgspec.Struct, frozen=True):
    ipv4: str
    port: int
    record_tone: str | None = None


class EnableMediaForking(msgspec.Struct, frozen=True, kw_only=True):
    near_end_addr: ForkingAddr | None = None
    far_end_addr: ForkingAddr | None = None
    preserve: bool | None = None


class DisableMediaForking(msgspec.Struct, frozen=True):
    pass


class RequestXccCallMediaSetAttributes(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    media_events_filter: tuple[str, ...] | None = None
    media_forking: EnableMediaForking | None = None


class ResponseXccCallMediaSetAttributes(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccCallMediaForking(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    action: EnableMediaForking | DisableMediaForking


class ResponseXccCallMediaForking(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccConnectionMediaForking(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    conn_id: str
    action: EnableMediaForking | DisableMediaForking


class ResponseXccConnectionMediaForking(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccConnectionAuthorizeDone(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    conn_id: str
    action: Release | ContinueProcessing


class ResponseXccConnectionAuthorizeDone(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class RequestXccConnectionAddressAnalyzeDone(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_id: str
    conn_id: str
    action: Release | ContinueProcessing | CallRoute


class ResponseXccConnectionAddressAnalyzeDone(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


# What a gateway asks of us, and our answers.


class SolicitXccProviderUnRegister(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class ResponseXccProviderUnRegister(msgspec.Struct, frozen=True):
    msg_header: MsgHeader


class SolicitXccProbing(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    sequence: str | None = None
    """Echoed as written; an integer on every router seen."""
    interval_seconds: float | None = None
    """From `120` (what routers send) or `PT120S` (what the schema says); None if neither."""
    failure_count: int | None = None
    registered: bool | None = None
    provider_status: str | None = None


class ResponseXccProbing(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    sequence: str | None = None


class SolicitXccConnectionAuthorize(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_data: CallData
    conn_detail_data: ConnDetailData


class Block(msgspec.Struct, frozen=True):
    blocking_event_timeout_sec: int | None = None
    blocking_timeout_handle: str | None = None


class Release(msgspec.Struct, frozen=True):
    disc_cause: int | None = None


class ContinueProcessing(msgspec.Struct, frozen=True):
    pass


class CallRoute(msgspec.Struct, frozen=True):
    route_addr_data: AddrData
    connection_events_filter: tuple[str, ...] | None = None


class ResponseXccConnectionAuthorize(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    action: Block | Release | ContinueProcessing


class SolicitXccConnectionAddressAnalyze(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_data: CallData
    conn_data: ConnData
    collect_address: AddrData | None = None


class ResponseXccConnectionAddressAnalyze(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    action: Block | Release | ContinueProcessing | CallRoute


# What a gateway tells us.


class NotifyXccProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Also read from its older name, NotifyXccStatus."""

    msg_header: MsgHeader
    application_data: ApplicationData | None = None
    provider_data: ProviderData | None = None
    provider_status: str | None = None


class NotifyXccConnectionData(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_data: CallData
    conn_data: ConnData
    event: ConnectionEvent


class Dtmf(msgspec.Struct, frozen=True):
    digit: str | None = None
    date_time: str | None = None


class MediaActivity(msgspec.Struct, frozen=True):
    old: str | None = None
    new: str | None = None


class ModeChange(msgspec.Struct, frozen=True):
    old: str | None = None
    new: str | None = None


class Tone(msgspec.Struct, frozen=True):
    tone_type: str | None = None


class NotifyXccCallData(msgspec.Struct, frozen=True, kw_only=True):
    msg_header: MsgHeader
    call_data: CallData
    media_event: Dtmf | MediaActivity | ModeChange | Tone | MediaForkingEvent | UnknownEvent


class UnknownMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A well-formed SOAP message in the XCC namespace whose name we do not know."""

    name: str
    msg_header: MsgHeader


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """
    A SOAP 1.2 fault, either of Cisco's two kinds.

    `code` is Sender or Receiver; `subcode` is "SERVICE EXCEPTION" or "XML PARSER ERROR";
    `detail` holds the leaf elements of Detail/* by name.
    """

    code: str
    reason: str
    subcode: str | None = None
    detail: dict[str, str] = {}


FromGateway: TypeAlias = (
    NotifyXccConnectionData
    | NotifyXccCallData
    | NotifyXccProviderStatus
    | SolicitXccProbing
    | SolicitXccProviderUnRegister
    | SolicitXccConnectionAuthorize
    | SolicitXccConnectionAddressAnalyze
    | UnknownMessage
)
"""What may arrive at our listener."""
