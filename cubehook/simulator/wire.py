"""
Notifications of connections as bytes, cheaply: a load generator writes thousands a second.

`cubehook.xcc.codec` writes every message, and the tests hold what is written here against it; this
knows one message only and has its fixed text ready.
"""

from __future__ import annotations

from cubehook.xcc import messages as xcc
from cubehook.xcc.soap import SOAP_12, XCC, element, escape, leaves

FILTER_WORDS: dict[type[xcc.ConnectionEvent], str] = {
    xcc.Created: "CREATED",
    xcc.CallDelivery: "CALL_DELIVERY",
    xcc.Alerting: "ALERTING",
    xcc.Redirected: "REDIRECTED",
    xcc.Connected: "CONNECTED",
    xcc.Transferred: "TRANSFERRED",
    xcc.Disconnected: "DISCONNECTED",
    xcc.HandoffLeave: "HANDOFFLEAVE",
    xcc.HandoffJoin: "HANDOFFJOIN",
}
"""The word of connectionEventsFilter that subscribes to an event."""

EVENT_NAMES: dict[type[xcc.ConnectionEvent], str] = {
    event: event.__name__[0].lower() + event.__name__[1:] for event in FILTER_WORDS
}
"""The event's element."""

_STATES: dict[type[xcc.ConnectionEvent], str] = {
    xcc.CallDelivery: "CALL_DELIVERY",
    xcc.Alerting: "ALERTING",
    xcc.Redirected: "ALERTING",
    xcc.Connected: "CONNECTED",
    xcc.Transferred: "CONNECTED",
    xcc.Disconnected: "DISCONNECTED",
    xcc.HandoffLeave: "CONNECTED",
    xcc.HandoffJoin: "CONNECTED",
}


def connection_state(event: xcc.ConnectionEvent) -> str:
    """The connData/state that goes with `event`: the state table of the protocol notes, section 5."""
    if type(event) is xcc.Created:
        return "CALL_DELIVERY" if event.conn_detail_data.conn_direction_type == "OUTGOING" else "IDLE"
    return _STATES[type(event)]


def _layout(line_break: str) -> str:
    """The message around its event; breaks stand where the captured router put them."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<SOAP:Envelope xmlns:SOAP="{SOAP_12}">{line_break}<SOAP:Body>{line_break}'
        f'<NotifyXccConnectionData xmlns="{XCC}"><msgHeader><transactionID>{line_break}%s</transactionID>'
        "<registrationID>%s</registrationID></msgHeader>"
        f"<callData><callID>%s</callID><state>{line_break}ACTIVE</state></callData>"
        "<connData><connID>%s</connID><state>%s</state></connData>"
        f"<event>%s</event></NotifyXccConnectionData>{line_break}</SOAP:Body></SOAP:Envelope>"
    )


_LAYOUTS = (_layout(""), _layout("\n"))
_EMPTY: dict[type[xcc.ConnectionEvent], str] = {
    event: f"<{EVENT_NAMES[event]}/>" for event in (xcc.CallDelivery, xcc.Alerting, xcc.HandoffLeave)
}


def notification(
    transaction_id: str,
    registration_id: str,
    call_id: str,
    connection_id: str,
    event: xcc.ConnectionEvent,
    line_breaks: bool = False,
) -> bytes:
    """
    A NotifyXccConnectionData, laid out as one of the captured ones.

    The ids must not need escaping.  A connDetailData gets this connection's connData whatever it
    held; its texts are escaped.  ValueError if XML cannot hold one of them.
    """
    state = connection_state(event)
    content = _EMPTY.get(type(event)) or _content(event, connection_id, state, "\n" if line_breaks else "")
    return (
        _LAYOUTS[line_breaks] % (transaction_id, registration_id, call_id, connection_id, state, content)
    ).encode()


def _content(event: xcc.ConnectionEvent, connection_id: str, state: str, line_break: str) -> str:
    name = EVENT_NAMES[type(event)]
    if isinstance(event, xcc.Created | xcc.Connected | xcc.HandoffJoin):
        return f"<{name}>{_detail(event.conn_detail_data, connection_id, state, line_break)}</{name}>"
    if isinstance(event, xcc.Disconnected):
        return element(name, _disconnected(event, line_break))
    if isinstance(event, xcc.Redirected | xcc.Transferred):
        return element(name, _redirect(event.redirect_addr_data))
    raise TypeError(f"a {type(event).__name__} is not sent by the simulator")


def _detail(detail: xcc.ConnDetailData, connection_id: str, state: str, line_break: str) -> str:
    return (
        f"<connDetailData><connData><connID>{line_break}{connection_id}</connID>"
        f"<state>{state}</state></connData>"
        f"{_leaf('guid', detail.guid, line_break)}"
        f"{_leaf('guidAltFormat', detail.guid_alt_format)}"
        f"{_address('callingAddrData', detail.calling_addr_data, line_break)}"
        f"{_address('origCallingAddrData', detail.orig_calling_addr_data)}"
        f"{_address('calledAddrData', detail.called_addr_data, line_break)}"
        f"{_address('origCalledAddrData', detail.orig_called_addr_data)}"
        f"{_redirect(detail.redirect_addr_data)}"
        f"{_leaf('connIntfType', detail.conn_intf_type, line_break)}"
        f"{_media(detail.media_data)}"
        f"{_leaf('connIntf', detail.conn_intf)}"
        f"{_leaf('connDirectionType', detail.conn_direction_type, line_break)}"
        f"{_leaf('routeName', detail.route_name)}"
        f"{_leaf('routeDescription', detail.route_description)}"
        "</connDetailData>"
    )


def _leaf(name: str, text: str | None, line_break: str = "") -> str:
    return "" if text is None else f"<{name}>{line_break}{escape(text)}</{name}>" if text else f"<{name}/>"


def _address(name: str, address: xcc.AddrData | None, line_break: str = "") -> str:
    if address is None:
        return ""
    return element(name, _leaf("type", address.type) + _leaf("addr", address.addr, line_break))


def _redirect(address: xcc.AddrData | None) -> str:
    return "" if address is None else element("redirectAddrData", _address("calledAddrData", address))


def _media(media: xcc.MediaData | None) -> str:
    if media is None:
        return ""
    return element(
        "mediaData",
        _leaf("type", media.type)
        + _leaf("coderType", media.coder_type)
        + _leaf("coderByte", media.coder_byte),
    )


def _disconnected(event: xcc.Disconnected, line_break: str) -> str:
    cause = "" if event.disc_cause is None else f"<discCause>{line_break}{event.disc_cause}</discCause>"
    statistics = "" if event.stats_data is None else element("statsData", leaves(event.stats_data))
    jitter = "" if event.jitter_data is None else element("jitterData", leaves(event.jitter_data))
    return f"{_media(event.media_data)}{cause}{statistics}{jitter}"
