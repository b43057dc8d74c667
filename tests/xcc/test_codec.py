"""Every message, read and written."""

from __future__ import annotations

import re
import types
import typing
from random import Random
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc

# The captures are as they came, line breaks within elements and all.
STATUS = (
    b'<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">'
    b'<SOAP:Body><NotifyXccProviderStatus xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader>'
    b"<transactionID>D388222:325</transactionID></msgHeader><applicationData><url>http://192.0.2.20:8090/xcc/hq</url>"
    b"</applicationData><providerData><url>http://GigabitEthernet0/0.100:8090/cisco_xcc</url></providerData>"
    b"<providerStatus>IN_SERVICE</providerStatus></NotifyXccProviderStatus></SOAP:Body></SOAP:Envelope>"
)
ALERTING = (
    b'<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">\n'
    b"<SOAP:Body>\n"
    b'<NotifyXccConnectionData xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader><transactionID>\n'
    b"546CF8:25</transactionID><registrationID>4CA5E4:XCC:myapp:4</registrationID></msgHeader><callData>"
    b"<callID>25</callID><state>\n"
    b"ACTIVE</state></callData><connData><connID>132</connID><state>ALERTING</state></connData><event><alerting/>"
    b"</event></NotifyXccConnectionData>\n"
    b"</SOAP:Body></SOAP:Envelope>"
)
HEADER = xcc.MsgHeader(transaction_id="546CF8:25", registration_id="4CA5E4:XCC:myapp:4")


def message(name: str, content: str) -> bytes:
    return soap.envelope(f'<{name} xmlns="{soap.XCC}">{content}</{name}>')


def connection(event: str, more: str = "") -> bytes:
    return message(
        "NotifyXccConnectionData",
        "<callData><callID>25</callID></callData><connData><connID>132</connID></connData>"
        f"<event>{event}</event>{more}",
    )


def event_of(body: bytes) -> xcc.ConnectionEvent:
    read = codec.read(body)
    assert isinstance(read, xcc.NotifyXccConnectionData)
    return read.event


class CaptureTests(SynchronousTestCase):
    def test_status(self) -> None:
        status = xcc.NotifyXccProviderStatus(
            msg_header=xcc.MsgHeader(transaction_id="D388222:325"),
            application_data=xcc.ApplicationData(url="http://192.0.2.20:8090/xcc/hq"),
            provider_data=xcc.ProviderData(url="http://GigabitEthernet0/0.100:8090/cisco_xcc"),
            provider_status="IN_SERVICE",
        )
        self.assertEqual(codec.read(STATUS), status)
        self.assertEqual(codec.write(status), STATUS)

    def test_alerting(self) -> None:
        alerting = xcc.NotifyXccConnectionData(
            msg_header=HEADER,
            call_data=xcc.CallData(call_id="25", state="ACTIVE"),
            conn_data=xcc.ConnData(conn_id="132", state="ALERTING"),
            event=xcc.Alerting(),
        )
        self.assertEqual(codec.read(ALERTING), alerting)
        self.assertEqual(codec.write(alerting, line_breaks=True), ALERTING)
        self.assertEqual(codec.write(alerting), ALERTING.replace(b"\n", b""))

    def test_the_older_name_of_a_status(self) -> None:
        older = STATUS.replace(b"NotifyXccProviderStatus", b"NotifyXccStatus")
        self.assertEqual(codec.read(older), codec.read(STATUS))
        self.assertEqual(codec.name(codec.read(older)), "NotifyXccProviderStatus")


class WriteTests(SynchronousTestCase):
    def wrote(self, written: codec.Message, content: str) -> None:
        name = type(written).__name__
        self.assertEqual(codec.write(written).decode(), message(name, content).decode())

    def test_register_has_the_order_of_the_captured_clients(self) -> None:
        self.wrote(
            xcc.RequestXccRegister(
                msg_header=xcc.MsgHeader(transaction_id="1"),
                application_data=xcc.ApplicationData(
                    url="http://192.0.2.20:8090/xcc/hq?a=1&b", name="cubehook"
                ),
                provider_data=xcc.ProviderData(url="http://192.0.2.1:8090/cisco_xcc"),
                connection_events_filter=("CREATED", "ALERTING"),
                media_events_filter=("DTMF",),
                blocking_event_timeout_sec=1,
                blocking_timeout_handle="CONTINUE_PROCESSING",
            ),
            "<applicationData><name>cubehook</name><url>http://192.0.2.20:8090/xcc/hq?a=1&amp;b</url></applicationData>"
            "<blockingEventTimeoutSec>1</blockingEventTimeoutSec>"
            "<blockingTimeoutHandle>CONTINUE_PROCESSING</blockingTimeoutHandle>"
            "<connectionEventsFilter>CREATED ALERTING</connectionEventsFilter>"
            "<mediaEventsFilter>DTMF</mediaEventsFilter>"
            "<msgHeader><transactionID>1</transactionID></msgHeader>"
            "<providerData><url>http://192.0.2.1:8090/cisco_xcc</url></providerData>",
        )

    def test_probing(self) -> None:
        self.wrote(
            xcc.SolicitXccProbing(
                msg_header=HEADER,
                sequence="1",
                interval_seconds=120.0,
                failure_count=0,
                registered=True,
                provider_status="IN_SERVICE",
            ),
            "<msgHeader><transactionID>546CF8:25</transactionID><registrationID>4CA5E4:XCC:myapp:4</registrationID>"
            "</msgHeader><sequence>1</sequence><interval>120</interval><failureCount>0</failureCount>"
            "<registered>true</registered><providerStatus>IN_SERVICE</providerStatus>",
        )
        self.wrote(
            xcc.ResponseXccProbing(msg_header=HEADER, sequence="1"),
            "<msgHeader><transactionID>546CF8:25</transactionID><registrationID>4CA5E4:XCC:myapp:4</registrationID>"
            "</msgHeader><sequence>1</sequence>",
        )

    def test_connection_details(self) -> None:
        addr = xcc.AddrData(addr="+12512501663", type="E164")
        self.wrote(
            xcc.NotifyXccConnectionData(
                msg_header=xcc.MsgHeader(),
                call_data=xcc.CallData("25", "ACTIVE"),
                conn_data=xcc.ConnData("132", "IDLE"),
                event=xcc.Created(
                    xcc.ConnDetailData(
                        conn_data=xcc.ConnData("132", "IDLE"),
                        guid="694646BC1D2311E7A8D2826ACB31D85A",
                        guid_alt_format="1-2",
                        calling_addr_data=addr,
                        orig_calling_addr_data=xcc.AddrData(),
                        called_addr_data=addr,
                        orig_called_addr_data=addr,
                        redirect_addr_data=addr,
                        conn_intf_type="CONN_SIP",
                        media_data=xcc.MediaData("VOICE", "g711ulaw", "160"),
                        conn_intf="192.0.2.9",
                        conn_direction_type="INCOMING",
                        route_name="1",
                        route_description="<to> & fro",
                    )
                ),
            ),
            "<msgHeader/><callData><callID>25</callID><state>ACTIVE</state></callData>"
            "<connData><connID>132</connID><state>IDLE</state></connData><event><created><connDetailData>"
            "<connData><connID>132</connID><state>IDLE</state></connData>"
            "<guid>694646BC1D2311E7A8D2826ACB31D85A</guid><guidAltFormat>1-2</guidAltFormat>"
            "<callingAddrData><type>E164</type><addr>+12512501663</addr></callingAddrData>"
            "<origCallingAddrData/>"
            "<calledAddrData><type>E164</type><addr>+12512501663</addr></calledAddrData>"
            "<origCalledAddrData><type>E164</type><addr>+12512501663</addr></origCalledAddrData>"
            "<redirectAddrData><calledAddrData><type>E164</type><addr>+12512501663</addr></calledAddrData>"
            "</redirectAddrData><connIntfType>CONN_SIP</connIntfType>"
            "<mediaData><type>VOICE</type><coderType>g711ulaw</coderType><coderByte>160</coderByte></mediaData>"
            "<connIntf>192.0.2.9</connIntf><connDirectionType>INCOMING</connDirectionType><routeName>1</routeName>"
            "<routeDescription>&lt;to&gt; &amp; fro</routeDescription></connDetailData></created></event>",
        )

    def test_disconnected(self) -> None:
        self.wrote(
            xcc.NotifyXccConnectionData(
                msg_header=xcc.MsgHeader(),
                call_data=xcc.CallData("25"),
                conn_data=xcc.ConnData("132"),
                event=xcc.Disconnected(
                    disc_cause=16,
                    media_data=xcc.MediaData("VOICE"),
                    stats_data={"callDuration": "PT12S", "TxPacketsCount": "600"},
                    jitter_data={"lostPacketsCount": "0"},
                ),
            ),
            "<msgHeader/><callData><callID>25</callID></callData><connData><connID>132</connID></connData>"
            "<event><disconnected><mediaData><type>VOICE</type></mediaData><discCause>16</discCause>"
            "<statsData><callDuration>PT12S</callDuration><TxPacketsCount>600</TxPacketsCount></statsData>"
            "<jitterData><lostPacketsCount>0</lostPacketsCount></jitterData></disconnected></event>",
        )

    def test_the_cause_of_a_release_has_two_spellings(self) -> None:
        self.wrote(
            xcc.RequestXccCallRelease(msg_header=xcc.MsgHeader(), call_id="1", disc_cause=16),
            "<msgHeader/><callID>1</callID><disCause>16</disCause>",
        )
        self.wrote(
            xcc.RequestXccConnectionRelease(
                msg_header=xcc.MsgHeader(), call_id="1", conn_id="2", disc_cause=16
            ),
            "<msgHeader/><callID>1</callID><connID>2</connID><discCause>16</discCause>",
        )

    def test_answers_to_solicitations(self) -> None:
        for action, content in (
            (xcc.ContinueProcessing(), "<continueProcessing/>"),
            (xcc.Release(17), "<release><discCause>17</discCause></release>"),
            (xcc.Block(3), "<block><blockingEventTimeoutSec>3</blockingEventTimeoutSec></block>"),
        ):
            self.wrote(
                xcc.ResponseXccConnectionAuthorize(msg_header=xcc.MsgHeader(), action=action),
                f"<msgHeader/><action>{content}</action>",
            )

    def test_forking(self) -> None:
        near = xcc.ForkingAddr("192.0.2.7", 32600, "COUNTRY_USA")
        self.wrote(
            xcc.RequestXccConnectionMediaForking(
                msg_header=xcc.MsgHeader(),
                call_id="1",
                conn_id="2",
                action=xcc.EnableMediaForking(near_end_addr=near, preserve=False),
            ),
            "<msgHeader/><callID>1</callID><connID>2</connID><action><enableMediaForking><nearEndAddr>"
            "<ipv4>192.0.2.7</ipv4><port>32600</port><recordTone>COUNTRY_USA</recordTone></nearEndAddr>"
            "<preserve>false</preserve></enableMediaForking></action>",
        )

    def test_what_cannot_be_written(self) -> None:
        for wrong in (
            xcc.UnknownMessage(name="A B", msg_header=HEADER),
            xcc.UnknownMessage(name="", msg_header=HEADER),
            xcc.ResponseXccUnRegister(xcc.MsgHeader("\0")),
            xcc.NotifyXccCallData(
                msg_header=HEADER, call_data=xcc.CallData("1"), media_event=xcc.UnknownEvent("a/><b")
            ),
            xcc.NotifyXccConnectionData(
                msg_header=HEADER,
                call_data=xcc.CallData("1"),
                conn_data=xcc.ConnData("1"),
                event=xcc.Disconnected(stats_data={"a b": "1"}),
            ),
        ):
            self.assertRaises(ValueError, codec.write, wrong)


class LenienceTests(SynchronousTestCase):
    """What routers do, and what newer ones may do."""

    def test_prefixes_attributes_order_and_unknown_elements(self) -> None:
        body = b"""<?xml version='1.0'?>
            <soapenv:Envelope xmlns:soapenv="http://www.w3.org/2003/05/soap-envelope"
                xmlns:v1="http://www.cisco.com/schema/cisco_xcc/v1_0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
              <soapenv:Header><v1:callData/></soapenv:Header>
              <soapenv:Body id="b">
                <v1:NotifyXccConnectionData xsi:type="v1:NotifyXccConnectionData">
                  <v1:Crypto><v1:callID>99</v1:callID></v1:Crypto>
                  <v1:event> text <other:alerting xmlns:other="urn:other">&#32;</other:alerting></v1:event>
                  <v1:connData xsi:nil="true"><v1:state> ALERTING </v1:state>
                     <v1:connID>\t<!-- a comment -->132<?a b?>\r\n</v1:connID></v1:connData>
                  <callData><state><![CDATA[ ACTIVE ]]></state><callID>25</callID><more>x</more></callData>
                  <v1:msgHeader>
                    <v1:registrationID>4CA5E4:XCC:myapp:4</v1:registrationID>
                    <v1:transactionID>546CF8:25</v1:transactionID>
                  </v1:msgHeader>
                </v1:NotifyXccConnectionData>
              </soapenv:Body>
            </soapenv:Envelope>
            """.strip()
        self.assertEqual(codec.read(body), codec.read(ALERTING))

    def test_only_xml_white_space_is_stripped(self) -> None:
        read = codec.read(
            message(
                "ResponseXccUnRegister", "<msgHeader><transactionID> \u00a01 </transactionID></msgHeader>"
            )
        )
        self.assertEqual(read, xcc.ResponseXccUnRegister(xcc.MsgHeader("\u00a01")))

    def test_an_event_of_a_kind_we_do_not_know(self) -> None:
        self.assertEqual(event_of(connection("<held><a/></held>")), xcc.UnknownEvent("held"))
        self.assertEqual(event_of(connection("<p:held xmlns:p='p'/>")), xcc.UnknownEvent("held"))
        self.assertEqual(event_of(connection("<reason/><alerting/>")), xcc.Alerting())

    def test_a_message_we_do_not_know(self) -> None:
        for header, expected in (
            ("<msgHeader><registrationID>a</registrationID></msgHeader>", xcc.MsgHeader(registration_id="a")),
            ("<other/>", xcc.MsgHeader()),
        ):
            read = codec.read(message("NotifyXccFuture", header))
            self.assertEqual(read, xcc.UnknownMessage(name="NotifyXccFuture", msg_header=expected))
            self.assertEqual(codec.name(read), "unknown")

    def test_names_of_our_structs_are_not_messages(self) -> None:
        for name in ("UnknownMessage", "Fault", "CallData", "MsgHeader"):
            self.assertIsInstance(codec.read(message(name, "")), xcc.UnknownMessage)

    def test_events_without_their_details(self) -> None:
        none = xcc.ConnDetailData()
        for content, event in (
            ("<created/>", xcc.Created(none)),
            ("<connected> </connected>", xcc.Connected(none)),
            ("<handoffJoin><connDetailData/></handoffJoin>", xcc.HandoffJoin(none)),
            ("<redirected/>", xcc.Redirected()),
            ("<transferred/>", xcc.Transferred()),
            ("<disconnected/>", xcc.Disconnected()),
            ("<mediaForking/>", xcc.MediaForkingEvent()),
            ("<alerting>text<a/></alerting>", xcc.Alerting()),
        ):
            self.assertEqual(event_of(connection(content)), event)

    def test_a_redirection_in_every_nesting(self) -> None:
        addr = "<type>E164</type><addr>100</addr>"
        for content in (
            f"<redirectAddrData><calledAddrData>{addr}</calledAddrData></redirectAddrData>",
            f"<redirectAddrData>{addr}</redirectAddrData>",
            f"<calledAddrData>{addr}</calledAddrData>",
        ):
            expected = xcc.AddrData(addr="100", type="E164")
            self.assertEqual(
                event_of(connection(f"<redirected>{content}</redirected>")), xcc.Redirected(expected)
            )
            self.assertEqual(
                event_of(connection(f"<transferred>{content}</transferred>")), xcc.Transferred(expected)
            )

    def test_a_called_address_is_no_redirection_in_the_details(self) -> None:
        read = event_of(
            connection(
                "<created><connDetailData><calledAddrData><addr>1</addr></calledAddrData>"
                "<redirectAddrData><addr>2</addr></redirectAddrData></connDetailData></created>"
            )
        )
        expected = xcc.ConnDetailData(
            called_addr_data=xcc.AddrData("1"), redirect_addr_data=xcc.AddrData("2")
        )
        self.assertEqual(read, xcc.Created(expected))

    def test_optional_parts_that_make_no_sense_are_absent(self) -> None:
        status = codec.read(
            message(
                "NotifyXccProviderStatus", "<applicationData><name>a</name></applicationData><providerData/>"
            )
        )
        self.assertEqual(status, xcc.NotifyXccProviderStatus(msg_header=xcc.MsgHeader()))
        details = event_of(
            connection("<created><connDetailData><connData/><guid> </guid></connDetailData></created>")
        )
        self.assertEqual(details, xcc.Created(xcc.ConnDetailData()))

    def test_causes(self) -> None:
        for text, cause in (
            ("16", 16),
            (" \n16\n ", 16),
            ("+16", 16),
            ("0016", 16),
            ("", None),
            ("normal", None),
            ("16.0", None),
            ("0x10", None),
            ("1e3", None),
            ("1 6", None),
            ("1_6", None),
            ("\u0661\u0666", None),
            ("9" * 5000, None),
        ):
            for name in ("discCause", "disCause"):
                event = event_of(connection(f"<disconnected><{name}>{text}</{name}></disconnected>"))
                self.assertEqual(event, xcc.Disconnected(disc_cause=cause), text)
        release = codec.read(message("RequestXccCallRelease", "<callID>1</callID><discCause>16</discCause>"))
        expected = xcc.RequestXccCallRelease(msg_header=xcc.MsgHeader(), call_id="1", disc_cause=16)
        self.assertEqual(release, expected)

    def test_statistics(self) -> None:
        event = event_of(
            connection(
                "<disconnected><statsData>\n<callDuration>\nPT12S</callDuration>"
                "<p:TxPacketsCount xmlns:p='p'>1</p:TxPacketsCount>"
                "<empty/><nested><a>1</a></nested></statsData></disconnected>"
            )
        )
        expected = {"callDuration": "PT12S", "TxPacketsCount": "1"}
        self.assertEqual(event, xcc.Disconnected(stats_data=expected))

    def probe(self, content: str) -> xcc.SolicitXccProbing:
        read = codec.read(message("SolicitXccProbing", content))
        assert isinstance(read, xcc.SolicitXccProbing)
        return read

    def test_intervals(self) -> None:
        for text, seconds in (
            ("120", 120.0),
            (" 5\n", 5.0),
            ("0.5", 0.5),
            ("PT120S", 120.0),
            ("PT2M", 120.0),
            ("PT1H1M1.5S", 3661.5),
            ("P1DT1S", 86401.0),
            ("P2D", 172800.0),
            ("PT0S", 0.0),
            ("", None),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("P1M", None),
            ("P1Y", None),
            ("PT1", None),
            ("-PT1S", None),
            ("-5", None),
            ("nan", None),
            ("inf", None),
            ("1e9", None),
            ("PT1S2M", None),
            ("soon", None),
            ("9" * 400, None),
            ("PT" + "9" * 400 + "S", None),
        ):
            self.assertEqual(self.probe(f"<interval>{text}</interval>").interval_seconds, seconds, text)

    def test_booleans(self) -> None:
        for text, value in (("true", True), ("1", True), (" TRUE\n", True), ("false", False), ("0", False)):
            self.assertIs(self.probe(f"<registered>{text}</registered>").registered, value)
        for text in ("", "yes", "2"):
            self.assertIsNone(self.probe(f"<registered>{text}</registered>").registered)

    def test_a_sequence_is_echoed_as_written(self) -> None:
        for sequence in ("1", "007", "99999999999999999999", "a"):
            self.assertEqual(self.probe(f"<sequence>\n{sequence}</sequence>").sequence, sequence)

    def test_filters(self) -> None:
        def read_filter(content: str) -> tuple[str, ...] | None:
            read = codec.read(message("RequestXccControlUpdate", content))
            assert isinstance(read, xcc.RequestXccControlUpdate)
            return read.connection_events_filter

        self.assertIsNone(read_filter(""))
        self.assertEqual(read_filter("<connectionEventsFilter/>"), ())
        self.assertEqual(
            read_filter("<connectionEventsFilter>\n CREATED\n  ALERTING </connectionEventsFilter>"),
            ("CREATED", "ALERTING"),
        )


class MissingTests(SynchronousTestCase):
    def refused(self, body: bytes, error: type[soap.SoapError], path: str) -> None:
        caught = self.assertRaises(error, codec.read, body)
        self.assertEqual(caught.path, path)
        self.assertEqual(caught.tag, path.rpartition("/")[2])

    def test_what_a_notification_cannot_do_without(self) -> None:
        whole = connection("<alerting/>")
        codec.read(whole)
        for part, path in (
            (b"<callID>25</callID>", "callData/callID"),
            (b"<connID>132</connID>", "connData/connID"),
            (b"<alerting/>", "NotifyXccConnectionData/event"),
            (b"<callData><callID>25</callID></callData>", "NotifyXccConnectionData/callData"),
            (b"<connData><connID>132</connID></connData>", "NotifyXccConnectionData/connData"),
            (b"<event><alerting/></event>", "NotifyXccConnectionData/event"),
        ):
            self.refused(whole.replace(part, b""), soap.MissingElementError, path)
        self.refused(whole.replace(b"25", b" \n"), soap.MissingElementError, "callData/callID")

    def test_what_other_messages_cannot_do_without(self) -> None:
        call = "<callData><callID>1</callID></callData>"
        for name, content, path in (
            ("NotifyXccCallData", "<mediaEvent><tone/></mediaEvent>", "callData"),
            ("NotifyXccCallData", call, "mediaEvent"),
            ("SolicitXccConnectionAuthorize", "", "callData"),
            ("SolicitXccConnectionAddressAnalyze", call, "connData"),
            ("RequestXccRegister", "<providerData><url>a</url></providerData>", "applicationData"),
            ("RequestXccCallRelease", "", "callID"),
            ("RequestXccConnectionRelease", "<callID>1</callID>", "connID"),
            ("RequestXccCallMediaForking", "<callID>1</callID>", "action"),
            ("ResponseXccConnectionAuthorize", "<action/>", "action"),
        ):
            self.refused(message(name, content), soap.MissingElementError, f"{name}/{path}")

    def test_values_that_are_of_no_use(self) -> None:
        self.refused(
            message("ResponseXccConnectionAuthorize", "<action><dance/></action>"),
            soap.InvalidValueError,
            "ResponseXccConnectionAuthorize/action",
        )
        self.refused(
            message("ResponseXccConnectionAddressAnalyze", "<action><callRoute/></action>"),
            soap.MissingElementError,
            "callRoute/routeAddrData",
        )


def any_of(hint: Any, field: str = "") -> st.SearchStrategy[Any]:
    """Values of a struct's field, or of a struct, by its type."""
    if field == "interval_seconds":
        return st.none() | st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000)
    if field == "name" and hint is str:
        return NAMES
    if field == "code":
        return st.sampled_from(("Sender", "Receiver"))
    if isinstance(hint, types.UnionType):
        return st.one_of([any_of(part) for part in typing.get_args(hint)])
    if hint is types.NoneType:
        return st.none()
    if hint == tuple[str, ...]:
        return st.lists(st.sampled_from(("CREATED", "ALERTING", "DTMF", "a&b")), max_size=3).map(tuple)
    if hint == dict[str, str]:
        return st.dictionaries(NAMES, TEXTS, max_size=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{name: any_of(hints[name], name) for name in hint.__struct_fields__})
    return {str: TEXTS, int: st.integers(-(10**9), 10**9), bool: st.booleans()}[hint]


# No names that a lenient reader takes for something else.
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{2,8}x\Z")
TEXTS = (
    st.sampled_from(
        ("25", "E164", "+12512501663", "sip:+1@192.0.2.10:5060", "]]>", "a  b", "<&>", "\u00e9\U0001f600")
    )
    | st.text(
        st.characters(min_codepoint=32, max_codepoint=0x10FFFF, exclude_categories=["Cs"])
        | st.sampled_from("\t\n\r"),
        min_size=1,
        max_size=12,
    ).map(lambda text: text.strip(soap.SPACE).replace("\ufffe", "").replace("\uffff", ""))
).filter(lambda text: text.strip(soap.SPACE) == text != "")
STRUCTS: tuple[Any, ...] = typing.get_args(codec.Message)
MESSAGES: st.SearchStrategy[codec.Message] = st.sampled_from(STRUCTS).flatmap(any_of)
MANY = settings(max_examples=200)


def respelled(body: bytes, random: Random) -> bytes:
    """`body` with other prefixes, another order, and things among it that mean nothing."""
    root = ElementTree.fromstring(body)
    for element in list(root.iter()):
        children = list(element)
        if children and element.tag.startswith("{" + soap.XCC):
            # In a choice of events the stranger would be an event itself.
            if not element.tag.lower().endswith("event"):
                children.append(ElementTree.Element(f"{{{soap.XCC}}}Crypto"))
            random.shuffle(children)
            element[:] = children
        elif element.text and element.text.strip(soap.SPACE):
            element.text = f" \t{element.text}\n"
        element.set("id", "1")
        element.tail = random.choice((None, "\n", "  "))
    root.tail = None
    text: str = ElementTree.tostring(root, encoding="unicode")
    return text.replace("\r", "&#13;").encode()


def in_cdata(text: re.Match[str]) -> str:
    """A text between two tags as routers write records of calls, unless CDATA cannot hold it."""
    if "]]&gt;" in text[0] or "&#13;" in text[0]:
        return text[0]
    return f"> <![CDATA[{unescape(text[1])}]]>\n<"


class RoundTripTests(SynchronousTestCase):
    def setUp(self) -> None:
        # The invented names are many.
        self.patch(soap, "names", soap.NameBudget())

    def test_every_message_is_among_them(self) -> None:
        named = {
            struct
            for struct in vars(xcc).values()
            if isinstance(struct, type)
            and struct.__name__.startswith(("Request", "Response", "Solicit", "Notify"))
        }
        self.assertEqual(named | {xcc.UnknownMessage, xcc.Fault}, set(STRUCTS))
        self.assertGreater(len(named), 25)

    @given(MESSAGES)
    @MANY
    def test_written_and_read(self, written: codec.Message) -> None:
        for line_breaks in (False, True):
            body = codec.write(written, line_breaks)
            self.assertEqual(codec.read(body), written)
            ElementTree.fromstring(body)

    @given(MESSAGES)
    @MANY
    def test_line_breaks_are_all_the_difference(self, written: codec.Message) -> None:
        plain, broken = codec.write(written), codec.write(written, line_breaks=True)
        self.assertEqual(plain.replace(b"\n", b""), broken.replace(b"\n", b""))
        self.assertIn(b">\n<SOAP:Body>\n<", broken)

    @given(MESSAGES.filter(lambda written: type(written) is not xcc.Fault), st.randoms(use_true_random=False))
    @MANY
    def test_spelled_otherwise(self, written: codec.Message, random: Random) -> None:
        self.assertEqual(codec.read(respelled(codec.write(written), random)), written)

    @given(MESSAGES)
    @MANY
    def test_as_character_data(self, written: codec.Message) -> None:
        self.assertEqual(
            codec.read(re.sub(">([^<]+)<", in_cdata, codec.write(written).decode()).encode()), written
        )

    @given(MESSAGES, st.data())
    @MANY
    def test_damaged(self, written: codec.Message, data: st.DataObject) -> None:
        body = bytearray(codec.write(written))
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(body)))
            end = min(len(body), start + data.draw(st.integers(0, 40)))
            body[start:end] = data.draw(
                st.binary(max_size=4)
                | st.sampled_from(
                    [b"<", b">", b"/", b"</", b"<a>", b"&", b'"', b"<!--", b"<![CDATA[", b"xmlns=", b":"]
                )
                | st.just(bytes(body[end : end + 30]))
            )
        try:
            read = codec.read(bytes(body))
        except soap.SoapError as error:
            self.assertEqual(codec.read(codec.write(error.fault())), error.fault())
        else:
            self.assertIn(type(read), STRUCTS)

    @given(MESSAGES)
    @MANY
    def test_names(self, written: codec.Message) -> None:
        expected = "unknown" if type(written) is xcc.UnknownMessage else type(written).__name__
        self.assertEqual(codec.name(written), expected)
        if expected != "unknown":
            self.assertIn(expected.encode(), codec.write(written))
