"""
XCC messages between bytes and values, in both directions: `read` and `write` undo each other.

One table says for every struct of `cubehook.xcc.messages` which elements it has on the wire, in
which order, and what each holds.  Reading is lenient where a router's habits differ: order, white
space, prefixes, attributes and unknown elements do not matter, what is optional may be absent or
unreadable, and children count by their local name.  Writing keeps to the API guide's order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec
from lxml.etree import _Element as Element

from cubehook.xcc import messages as xcc
from cubehook.xcc import soap
from cubehook.xcc.durations import duration_seconds
from cubehook.xcc.soap import SPACE, SoapError, local_name

Message: TypeAlias = (
    xcc.RequestXccRegister
    | xcc.ResponseXccRegister
    | xcc.RequestXccUnRegister
    | xcc.ResponseXccUnRegister
    | xcc.RequestXccControlUpdate
    | xcc.ResponseXccControlUpdate
    | xcc.RequestXccCallRelease
    | xcc.ResponseXccCallRelease
    | xcc.RequestXccConnectionRelease
    | xcc.ResponseXccConnectionRelease
    | xcc.RequestXccCallMediaSetAttributes
    | xcc.ResponseXccCallMediaSetAttributes
    | xcc.RequestXccCallMediaForking
    | xcc.ResponseXccCallMediaForking
    | xcc.RequestXccConnectionMediaForking
    | xcc.ResponseXccConnectionMediaForking
    | xcc.RequestXccConnectionAuthorizeDone
    | xcc.ResponseXccConnectionAuthorizeDone
    | xcc.RequestXccConnectionAddressAnalyzeDone
    | xcc.ResponseXccConnectionAddressAnalyzeDone
    | xcc.SolicitXccProviderUnRegister
    | xcc.ResponseXccProviderUnRegister
    | xcc.SolicitXccProbing
    | xcc.ResponseXccProbing
    | xcc.SolicitXccConnectionAuthorize
    | xcc.ResponseXccConnectionAuthorize
    | xcc.SolicitXccConnectionAddressAnalyze
    | xcc.ResponseXccConnectionAddressAnalyze
    | xcc.NotifyXccProviderStatus
    | xcc.NotifyXccConnectionData
    | xcc.NotifyXccCallData
    | xcc.UnknownMessage
    | xcc.Fault
)


_XMLNS = f' xmlns="{soap.XCC}"'
_IN_XCC = f"{{{soap.XCC}}}"
"""How the tag of an element of XCC's namespace begins."""


def read(body: bytes) -> Message:
    """
    The message in `body`; raises `soap.SoapError` and nothing else.

    A message of the XCC namespace that has no struct is an `UnknownMessage`.
    """
    element = soap.parse(body)
    reader = _READERS.get(element.tag)
    message: Message
    if reader is not None:
        message = reader(element)
    elif element.tag.startswith(_IN_XCC):
        message = _read_unknown(element)
    else:
        found = local_name(element.tag)
        raise soap.NamespaceError(f"The message {found} is not in the namespace {soap.XCC}", found)
    return message


def write(message: Message, line_breaks: bool = False) -> bytes:
    """
    `message` in a SOAP 1.2 envelope, UTF-8; with `line_breaks` laid out as routers often do.

    ValueError if XML cannot hold one of its texts or names.
    """
    if isinstance(message, xcc.Fault):
        content = soap.write_fault(message)
    elif isinstance(message, xcc.UnknownMessage):
        header = soap.element("msgHeader", _HEADER.content(message.msg_header))
        content = soap.element(soap.checked_name(message.name), header, _XMLNS)
    else:
        content = soap.element(name(message), _MESSAGES[type(message)].content(message), _XMLNS)
    return soap.envelope(content, line_breaks)


def name(message: Message) -> str:
    """The message's element name, of a closed set: `unknown` for an UnknownMessage."""
    return "unknown" if type(message) is xcc.UnknownMessage else type(message).__name__


class _Kind(NamedTuple):
    """What an element may hold."""

    read: Callable[[Element], Any]
    """The value of an element, None if it has none that makes sense."""
    content: Callable[[Any], str]
    """What stands between the tags for a value."""


_Field: TypeAlias = tuple[str, _Kind]
"""An attribute of a struct, and what its element holds."""


# What stands in when a gateway leaves out what the schema demands: an event without its details is
# still an event, and a message without a header still a message.
_STAND_INS: dict[str, Any] = {"msg_header": xcc.MsgHeader(), "conn_detail_data": xcc.ConnDetailData()}

# Other names that are read as one of a record's elements, unless they are themselves one of them.  The
# guide spells the cause in RequestXccCallRelease, and nowhere else, without the c.
_ALSO = {"discCause": "disCause", "disCause": "discCause", "redirectAddrData": "calledAddrData"}


def _record(struct: type[msgspec.Struct], elements: dict[str, _Field]) -> _Kind:
    """Child elements, each at most once, in the order of writing: a struct."""
    also = {_ALSO[element]: field for element, field in elements.items() if element in _ALSO}
    soap.VOCABULARY.update(elements, also)
    # None for `soap.text_of`: nearly all are texts, and the calls would be felt.
    fields = {
        element: (attribute, None if kind is _TEXT else kind.read)
        for element, (attribute, kind) in (also | elements).items()
    }
    # What routers write is found at once, other prefixes and namespaces by the local name.
    fields |= {f"{_IN_XCC}{element}": field for element, field in fields.items()}
    stand_ins = {
        attribute: _STAND_INS[attribute] for attribute, _ in elements.values() if attribute in _STAND_INS
    }
    demanded = {field.name for field in msgspec.structs.fields(struct) if field.required} - stand_ins.keys()

    def read(element: Element) -> Any:
        values = stand_ins.copy()
        # A slice is a third faster than iteration, and unknown to the stubs.
        for child in element[:]:  # type: ignore[index]
            tag = child.tag
            field = fields.get(tag) or fields.get(local_name(tag))
            if field is None:
                continue
            attribute, read_value = field
            if read_value is None:
                text = child.text
                if text and (text := text.strip(SPACE)):
                    values[attribute] = text
                continue
            try:
                value = read_value(child)
            except SoapError:
                if attribute in demanded:
                    raise
                continue
            if value is not None:
                values[attribute] = value
        if demanded and not demanded <= values.keys():
            raise _incomplete(element, elements, demanded - values.keys())
        return struct(**values)

    def content(value: Any) -> str:
        return "".join(
            [
                soap.element(element, kind.content(held))
                for element, (attribute, kind) in elements.items()
                if (held := getattr(value, attribute)) is not None
            ]
        )

    return _Kind(read, content)


def _incomplete(element: Element, elements: dict[str, _Field], lacking: set[str]) -> soap.SoapError:
    wanted = next(wanted for wanted, (attribute, _) in elements.items() if attribute in lacking)
    path = f"{soap.local_name(element.tag)}/{wanted}"
    for child in element:
        if soap.local_name(child.tag) == wanted and (len(child) or soap.text_of(child)):
            return soap.InvalidValueError(path)
    return soap.MissingElementError(path)


def _choice(*alternatives: tuple[str, type, _Kind], unknown: bool = False) -> _Kind:
    """
    One child element out of several, whose name tells the struct.

    The first child that is known counts.  With `unknown`, the first child's name is kept as
    an `UnknownEvent` when none is.
    """
    kinds = {element: kind for element, _, kind in alternatives}
    soap.VOCABULARY.update(kinds)
    kinds |= {f"{_IN_XCC}{element}": kind for element, kind in kinds.items()}
    by_struct = {struct: (element, kind) for element, struct, kind in alternatives}

    def read(element: Element) -> Any:
        for child in element[:]:  # type: ignore[index]
            kind = kinds.get(child.tag) or kinds.get(soap.local_name(child.tag))
            if kind is not None:
                return kind.read(child)
        return xcc.UnknownEvent(soap.local_name(element[0].tag)) if unknown and len(element) else None

    def content(value: Any) -> str:
        if type(value) is xcc.UnknownEvent:
            return soap.element(soap.checked_name(value.name), "")
        element, kind = by_struct[type(value)]
        return soap.element(element, kind.content(value))

    return _Kind(read, content)


_INTEGER = re.compile("[+-]?[0-9]{1,18}")


def _read_integer(element: Element) -> int | None:
    text = soap.text_of(element)
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def _read_boolean(element: Element) -> bool | None:
    match (soap.text_of(element) or "").lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    return None


def _read_seconds(element: Element) -> float | None:
    return duration_seconds(soap.text_of(element))


def _seconds_content(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _read_words(element: Element) -> tuple[str, ...]:
    return tuple((element.text or "").split())


def _read_leaves(element: Element) -> dict[str, str]:
    values = {}
    for child in element[:]:  # type: ignore[index]
        text = child.text
        if text and (text := text.strip(soap.SPACE)):
            values[soap.local_name(child.tag)] = text
    return values


def _read_redirect(element: Element) -> Any:
    """The address within calledAddrData, as documented, or without that layer."""
    for child in element:
        if soap.local_name(child.tag) == "calledAddrData":
            return _ADDR.read(child)
    return _ADDR.read(element)


_TEXT = _Kind(soap.text_of, soap.escape)
_INT = _Kind(_read_integer, str)
_BOOLEAN = _Kind(_read_boolean, lambda value: "true" if value else "false")
_SECONDS = _Kind(_read_seconds, _seconds_content)
_WORDS = _Kind(_read_words, lambda words: soap.escape(" ".join(words)))
_LEAVES = _Kind(_read_leaves, soap.leaves)

# What messages are made of.

_HEADER = _record(
    xcc.MsgHeader,
    {"transactionID": ("transaction_id", _TEXT), "registrationID": ("registration_id", _TEXT)},
)
_APPLICATION = _record(xcc.ApplicationData, {"name": ("name", _TEXT), "url": ("url", _TEXT)})
_PROVIDER = _record(xcc.ProviderData, {"url": ("url", _TEXT)})
_CALL = _record(xcc.CallData, {"callID": ("call_id", _TEXT), "state": ("state", _TEXT)})
_CONNECTION = _record(xcc.ConnData, {"connID": ("conn_id", _TEXT), "state": ("state", _TEXT)})
_ADDR = _record(xcc.AddrData, {"type": ("type", _TEXT), "addr": ("addr", _TEXT)})
_REDIRECT = _Kind(_read_redirect, lambda value: soap.element("calledAddrData", _ADDR.content(value)))
_MEDIA = _record(
    xcc.MediaData,
    {"type": ("type", _TEXT), "coderType": ("coder_type", _TEXT), "coderByte": ("coder_byte", _TEXT)},
)
_DETAIL = _record(
    xcc.ConnDetailData,
    {
        "connData": ("conn_data", _CONNECTION),
        "guid": ("guid", _TEXT),
        "guidAltFormat": ("guid_alt_format", _TEXT),
        "callingAddrData": ("calling_addr_data", _ADDR),
        "origCallingAddrData": ("orig_calling_addr_data", _ADDR),
        "calledAddrData": ("called_addr_data", _ADDR),
        "origCalledAddrData": ("orig_called_addr_data", _ADDR),
        "redirectAddrData": ("redirect_addr_data", _REDIRECT),
        "connIntfType": ("conn_intf_type", _TEXT),
        "mediaData": ("media_data", _MEDIA),
        "connIntf": ("conn_intf", _TEXT),
        "connDirectionType": ("conn_direction_type", _TEXT),
        "routeName": ("route_name", _TEXT),
        "routeDescription": ("route_description", _TEXT),
    },
)

_CONNECTION_DETAIL: dict[str, _Field] = {"connDetailData": ("conn_detail_data", _DETAIL)}
_REDIRECTION: dict[str, _Field] = {"redirectAddrData": ("redirect_addr_data", _REDIRECT)}
_CAUSE: dict[str, _Field] = {"discCause": ("disc_cause", _INT)}

_FORKING = _record(
    xcc.MediaForkingEvent,
    {"mediaForkingState": ("media_forking_state", _TEXT)},
)
_EVENT = _choice(
    ("created", xcc.Created, _record(xcc.Created, _CONNECTION_DETAIL)),
    ("callDelivery", xcc.CallDelivery, _record(xcc.CallDelivery, {})),
    ("alerting", xcc.Alerting, _record(xcc.Alerting, {})),
    ("redirected", xcc.Redirected, _record(xcc.Redirected, _REDIRECTION)),
    ("connected", xcc.Connected, _record(xcc.Connected, _CONNECTION_DETAIL)),
    ("transferred", xcc.Transferred, _record(xcc.Transferred, _REDIRECTION)),
    (
        "disconnected",
        xcc.Disconnected,
        _record(
            xcc.Disconnected,
            {
                "mediaData": ("media_data", _MEDIA),
                **_CAUSE,
                "statsData": ("stats_data", _LEAVES),
                "jitterData": ("jitter_data", _LEAVES),
            },
        ),
    ),
    ("handoffLeave", xcc.HandoffLeave, _record(xcc.HandoffLeave, {})),
    ("handoffJoin", xcc.HandoffJoin, _record(xcc.HandoffJoin, _CONNECTION_DETAIL)),
    ("mediaForking", xcc.MediaForkingEvent, _FORKING),
    unknown=True,
)

_OLD_NEW: dict[str, _Field] = {"old": ("old", _TEXT), "new": ("new", _TEXT)}
_MEDIA_EVENT = _choice(
    ("DTMF", xcc.Dtmf, _record(xcc.Dtmf, {"digit": ("digit", _TEXT), "dateTime": ("date_time", _TEXT)})),
    ("mediaActivity", xcc.MediaActivity, _record(xcc.MediaActivity, _OLD_NEW)),
    ("modeChange", xcc.ModeChange, _record(xcc.ModeChange, _OLD_NEW)),
    ("tone", xcc.Tone, _record(xcc.Tone, {"toneType": ("tone_type", _TEXT)})),
    ("mediaForking", xcc.MediaForkingEvent, _FORKING),
    unknown=True,
)

_MEDIA_ADDR = _record(
    xcc.ForkingAddr,
    {"ipv4": ("ipv4", _TEXT), "port": ("port", _INT), "recordTone": ("record_tone", _TEXT)},
)
_MEDIA_FORKING = _record(
    xcc.EnableMediaForking,
    {
        "nearEndAddr": ("near_end_addr", _MEDIA_ADDR),
        "farEndAddr": ("far_end_addr", _MEDIA_ADDR),
        "preserve": ("preserve", _BOOLEAN),
    },
)
_FORKING_ACTION = _choice(
    ("enableMediaForking", xcc.EnableMediaForking, _MEDIA_FORKING),
    ("disableMediaForking", xcc.DisableMediaForking, _record(xcc.DisableMediaForking, {})),
)

_BLOCKING: dict[str, _Field] = {
    "blockingEventTimeoutSec": ("blocking_event_timeout_sec", _INT),
    "blockingTimeoutHandle": ("blocking_timeout_handle", _TEXT),
}
_CONNECTION_EVENTS: dict[str, _Field] = {"connectionEventsFilter": ("connection_events_filter", _WORDS)}
_MEDIA_EVENTS: dict[str, _Field] = {"mediaEventsFilter": ("media_events_filter", _WORDS)}

_BLOCK = ("block", xcc.Block, _record(xcc.Block, _BLOCKING))
_RELEASE = ("release", xcc.Release, _record(xcc.Release, _CAUSE))
_CONTINUE = ("continueProcessing", xcc.ContinueProcessing, _record(xcc.ContinueProcessing, {}))
_ROUTE = (
    "callRoute",
    xcc.CallRoute,
    _record(xcc.CallRoute, {"routeAddrData": ("route_addr_data", _ADDR), **_CONNECTION_EVENTS}),
)

# The messages.

_MSG_HEADER: dict[str, _Field] = {"msgHeader": ("msg_header", _HEADER)}
_CALL_ID: dict[str, _Field] = {"callID": ("call_id", _TEXT)}
_CONN_ID: dict[str, _Field] = {"connID": ("conn_id", _TEXT)}
_CALL_DATA: dict[str, _Field] = {"callData": ("call_data", _CALL)}
_CONN_DATA: dict[str, _Field] = {"connData": ("conn_data", _CONNECTION)}
_STATUS: dict[str, _Field] = {"providerStatus": ("provider_status", _TEXT)}
_SEQUENCE: dict[str, _Field] = {"sequence": ("sequence", _TEXT)}

_ELEMENTS: dict[type[msgspec.Struct], dict[str, _Field]] = {
    # In the order of the alphabet, as both captured clients have it.
    xcc.RequestXccRegister: {
        "applicationData": ("application_data", _APPLICATION),
        **_BLOCKING,
        **_CONNECTION_EVENTS,
        **_MEDIA_EVENTS,
        **_MSG_HEADER,
        "providerData": ("provider_data", _PROVIDER),
    },
    xcc.ResponseXccRegister: {**_MSG_HEADER, **_STATUS},
    xcc.RequestXccUnRegister: _MSG_HEADER,
    xcc.ResponseXccUnRegister: _MSG_HEADER,
    xcc.RequestXccControlUpdate: {**_MSG_HEADER, **_CONNECTION_EVENTS, **_MEDIA_EVENTS, **_BLOCKING},
    xcc.ResponseXccControlUpdate: _MSG_HEADER,
    xcc.RequestXccCallRelease: {**_MSG_HEADER, **_CALL_ID, "disCause": ("disc_cause", _INT)},
    xcc.ResponseXccCallRelease: _MSG_HEADER,
    xcc.RequestXccConnectionRelease: {**_MSG_HEADER, **_CALL_ID, **_CONN_ID, **_CAUSE},
    xcc.ResponseXccConnectionRelease: _MSG_HEADER,
    xcc.RequestXccCallMediaSetAttributes: {
        **_MSG_HEADER,
        **_CALL_ID,
        **_MEDIA_EVENTS,
        "mediaForking": ("media_forking", _MEDIA_FORKING),
    },
    xcc.ResponseXccCallMediaSetAttributes: _MSG_HEADER,
    xcc.RequestXccCallMediaForking: {**_MSG_HEADER, **_CALL_ID, "action": ("action", _FORKING_ACTION)},
    xcc.ResponseXccCallMediaForking: _MSG_HEADER,
    xcc.RequestXccConnectionMediaForking: {
        **_MSG_HEADER,
        **_CALL_ID,
        **_CONN_ID,
        "action": ("action", _FORKING_ACTION),
    },
    xcc.ResponseXccConnectionMediaForking: _MSG_HEADER,
    xcc.RequestXccConnectionAuthorizeDone: {
        **_MSG_HEADER,
        **_CALL_ID,
        **_CONN_ID,
        "action": ("action", _choice(_RELEASE, _CONTINUE)),
    },
    xcc.ResponseXccConnectionAuthorizeDone: _MSG_HEADER,
    xcc.RequestXccConnectionAddressAnalyzeDone: {
        **_MSG_HEADER,
        **_CALL_ID,
        **_CONN_ID,
        "action": ("action", _choice(_RELEASE, _CONTINUE, _ROUTE)),
    },
    xcc.ResponseXccConnectionAddressAnalyzeDone: _MSG_HEADER,
    xcc.SolicitXccProviderUnRegister: _MSG_HEADER,
    xcc.ResponseXccProviderUnRegister: _MSG_HEADER,
    xcc.SolicitXccProbing: {
        **_MSG_HEADER,
        **_SEQUENCE,
        "interval": ("interval_seconds", _SECONDS),
        "failureCount": ("failure_count", _INT),
        "registered": ("registered", _BOOLEAN),
        **_STATUS,
    },
    xcc.ResponseXccProbing: {**_MSG_HEADER, **_SEQUENCE},
    xcc.SolicitXccConnectionAuthorize: {**_MSG_HEADER, **_CALL_DATA, **_CONNECTION_DETAIL},
    xcc.ResponseXccConnectionAuthorize: {
        **_MSG_HEADER,
        "action": ("action", _choice(_BLOCK, _RELEASE, _CONTINUE)),
    },
    xcc.SolicitXccConnectionAddressAnalyze: {
        **_MSG_HEADER,
        **_CALL_DATA,
        **_CONN_DATA,
        "collectAddress": ("collect_address", _ADDR),
    },
    xcc.ResponseXccConnectionAddressAnalyze: {
        **_MSG_HEADER,
        "action": ("action", _choice(_BLOCK, _RELEASE, _CONTINUE, _ROUTE)),
    },
    xcc.NotifyXccProviderStatus: {
        **_MSG_HEADER,
        "applicationData": ("application_data", _APPLICATION),
        "providerData": ("provider_data", _PROVIDER),
        **_STATUS,
    },
    xcc.NotifyXccConnectionData: {**_MSG_HEADER, **_CALL_DATA, **_CONN_DATA, "event": ("event", _EVENT)},
    xcc.NotifyXccCallData: {**_MSG_HEADER, **_CALL_DATA, "mediaEvent": ("media_event", _MEDIA_EVENT)},
}

_MESSAGES = {struct: _record(struct, elements) for struct, elements in _ELEMENTS.items()}


_BY_NAME = {struct.__name__: kind for struct, kind in _MESSAGES.items()} | {
    # Its name in older releases.
    "NotifyXccStatus": _MESSAGES[xcc.NotifyXccProviderStatus],
}

# By the element's tag.
_READERS: dict[str, Callable[[Element], Any]] = {
    **{f"{_IN_XCC}{name}": kind.read for name, kind in _BY_NAME.items()},
    **{f"{{{namespace}}}Fault": soap.read_fault for namespace in soap.SOAP},
}


# What stands within statsData and jitterData, and what newer releases are known to add.
soap.VOCABULARY.update(
    {
        "callDuration",
        "TxPacketsCount",
        "TxBytesCount",
        "TxDurationMSec",
        "TxVoiceDurationMSec",
        "RxPacketsCount",
        "RxBytesCount",
        "RxDurationMSec",
        "RxVoiceDurationMSec",
        "roundTripDelayMSec",
        "onTimeRvPlayMSec",
        "gapFillWithPredictionMSec",
        "gapFillWithInterpolationMSec",
        "gapFillWithRedundancyMSec",
        "lostPacketsCount",
        "earlyPacketsCount",
        "latePacketsCount",
        "receiveDelayMSec",
        "loWaterPlayoutDelayMSec",
        "hiWaterPlayoutDelayMSec",
        "Crypto",
        "mediaForkingReason",
    },
    _BY_NAME,
)


def _read_unknown(element: Element) -> xcc.UnknownMessage:
    headers = [_HEADER.read(child) for child in element if soap.local_name(child.tag) == "msgHeader"]
    return xcc.UnknownMessage(
        name=soap.local_name(element.tag), msg_header=headers[0] if headers else xcc.MsgHeader()
    )
