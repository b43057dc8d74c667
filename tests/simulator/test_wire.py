"""The quick writer against the codec, which writes and reads everything."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.simulator.scenarios import NAMES, script
from cubehook.simulator.wire import connection_state, notification
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc

CAPTURED = b"""<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">
<SOAP:Body>
<NotifyXccConnectionData xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader><transactionID>
546CF8:25</transactionID><registrationID>4CA5E4:XCC:myapp:4</registrationID></msgHeader><callData><callID>25</callID><state>
ACTIVE</state></callData><connData><connID>132</connID><state>ALERTING</state></connData><event><alerting/></event></NotifyXccConnectionData>
</SOAP:Body></SOAP:Envelope>"""

texts = st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"))
addresses = st.none() | st.builds(xcc.AddrData, addr=texts, type=texts)
details = st.builds(
    xcc.ConnDetailData,
    guid=texts,
    guid_alt_format=texts,
    calling_addr_data=addresses,
    orig_calling_addr_data=addresses,
    called_addr_data=addresses,
    orig_called_addr_data=addresses,
    redirect_addr_data=addresses,
    conn_intf_type=texts,
    media_data=st.none() | st.builds(xcc.MediaData, texts, texts, texts),
    conn_intf=texts,
    conn_direction_type=st.sampled_from(["INCOMING", "OUTGOING", None]),
    route_name=texts,
    route_description=texts,
)
leaves = st.none() | st.dictionaries(st.sampled_from(["callDuration", "TxPacketsCount"]), texts.filter(bool))
events = st.one_of(
    st.builds(xcc.Created, details),
    st.builds(xcc.Connected, details),
    st.builds(xcc.HandoffJoin, details),
    st.builds(xcc.Redirected, addresses),
    st.builds(xcc.Transferred, addresses),
    st.builds(xcc.Disconnected, st.none() | st.integers(1, 188), st.none(), leaves, leaves),
    st.sampled_from([xcc.CallDelivery(), xcc.Alerting(), xcc.HandoffLeave()]),
)


def as_message(event: xcc.ConnectionEvent) -> xcc.NotifyXccConnectionData:
    state = connection_state(event)
    connection = xcc.ConnData("132", state)
    if isinstance(event, xcc.Created | xcc.Connected | xcc.HandoffJoin):
        detail = msgspec.structs.replace(event.conn_detail_data, conn_data=connection)
        event = msgspec.structs.replace(event, conn_detail_data=detail)
    return xcc.NotifyXccConnectionData(
        msg_header=xcc.MsgHeader("546CF8:25", "4CA5E4:XCC:myapp:4"),
        call_data=xcc.CallData("25", "ACTIVE"),
        conn_data=connection,
        event=event,
    )


def write(event: xcc.ConnectionEvent, line_breaks: bool = False) -> bytes:
    return notification("546CF8:25", "4CA5E4:XCC:myapp:4", "25", "132", event, line_breaks)


class WireTests(SynchronousTestCase):
    def test_captured_notification_is_reproduced_to_the_letter(self) -> None:
        self.assertEqual(write(xcc.Alerting(), line_breaks=True), CAPTURED)

    @settings(max_examples=150)
    @given(events)
    def test_one_line_is_what_the_codec_writes(self, event: xcc.ConnectionEvent) -> None:
        self.assertEqual(write(event), codec.write(as_message(event)))

    def test_line_breaks_change_nothing_that_is_read(self) -> None:
        for name in NAMES:
            for step in script(name, Random(7)).steps:
                self.assertEqual(codec.read(write(step.event, True)), codec.read(write(step.event)))
                self.assertIn(b"\n", write(step.event, True))

    def test_event_of_another_kind_is_refused(self) -> None:
        with self.assertRaises((KeyError, TypeError)):
            write(xcc.MediaForkingEvent("FORK_STARTED"))
