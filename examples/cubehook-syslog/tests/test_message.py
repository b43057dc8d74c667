"""What is sent is RFC 5424's."""

from __future__ import annotations

import re
from typing import Any

from cubehook_syslog.message import format_message, structured_data
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import CallState, NoticeType
from cubehook.interfaces import Outbound
from cubehook.testing import call_outbound, notice_outbound

# Section 6, its grammar; the timestamp is of the kind that cubehook writes.
MESSAGE = re.compile(
    rb"<(?P<pri>0|[1-9][0-9]{0,2})>1 "
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) "
    rb"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    rb'(?P<data>\[[!-~]{1,32}@[0-9]+(?: [!-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\]) '
    rb"(?P<text>.*)",
    re.DOTALL,
)


def formatted(outbound: Outbound, **changes: Any) -> re.Match[bytes]:
    settings: dict[str, Any] = {
        "facility": "local0",
        "hostname": "pbx",
        "app_name": "cubehook",
        "process": "42",
        "enterprise": 32473,
        "bom": True,
    }
    message = format_message(outbound, **(settings | changes))
    found = MESSAGE.fullmatch(message)
    assert found is not None, message
    return found


class MessageTests(SynchronousTestCase):
    def test_a_call_event(self) -> None:
        outbound = call_outbound(state=CallState.CONNECTED, attempt=3)
        found = formatted(outbound)
        payload = outbound.event.call_event
        self.assertEqual(found["pri"], b"134")  # 16 * 8 + 6
        self.assertEqual(found["time"].decode(), payload.timestamp)
        self.assertEqual(
            (found["host"], found["app"], found["process"], found["id"]),
            (b"pbx", b"cubehook", b"42", b"CONNECTED"),
        )
        self.assertEqual(
            found["data"].decode(),
            f'[call@32473 event="{outbound.id}" cube="hq" call="{payload.call_id}" sequence="2" attempt="3"]',
        )
        self.assertEqual(found["text"], b"\xef\xbb\xbf" + outbound.body)

    def test_a_redelivery_says_so(self) -> None:
        self.assertIn(b' redelivery="true"]', formatted(call_outbound(redelivery=True))["data"])

    def test_notices(self) -> None:
        found = formatted(notice_outbound(type=NoticeType.WEBHOOK_DISABLED), facility="daemon")
        self.assertEqual((found["pri"], found["id"]), (b"28", b"webhook.disabled"))  # 3 * 8 + 4
        self.assertRegex(found["data"], rb'^\[notice@32473 event="\w+" webhook="crm" attempt="1"\]$')
        found = formatted(notice_outbound(type=NoticeType.CUBE_REGISTERED), facility="kern")
        self.assertEqual((found["pri"], found["id"]), (b"5", b"cube.registered"))

    def test_a_facility_of_each_end(self) -> None:
        self.assertEqual(formatted(call_outbound(), facility="kern")["pri"], b"6")
        self.assertEqual(formatted(call_outbound(), facility="local7")["pri"], b"190")

    def test_without_the_mark(self) -> None:
        outbound = call_outbound()
        self.assertEqual(formatted(outbound, bom=False)["text"], outbound.body)

    def test_names_are_made_fit_for_the_header(self) -> None:
        found = formatted(call_outbound(), hostname="p b\nx\u00e9", app_name="a" * 60, process="")
        self.assertEqual((found["host"], found["app"], found["process"]), (b"p_b_x_", b"a" * 48, b"-"))

    def test_values_cannot_leave_their_quotes(self) -> None:
        self.assertEqual(
            structured_data("x@1", {"a": 'q"b\\c]d\n', "b": "Zo\u00eb"}),
            '[x@1 a="q\\"b\\\\c\\]d\\\\x0a" b="Zo\u00eb"]',
        )
        formatted(call_outbound(cube='"] evil'))
