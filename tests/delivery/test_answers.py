"""What transports return, in its right form and in wrong ones."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.answers import malformed
from cubehook.interfaces import Sent
from cubehook.records import ErrorClass


class MalformedTests(SynchronousTestCase):
    def test_what_is_well(self) -> None:
        for sent in (
            Sent(delivered=True),
            Sent(delivered=False, hold=5, error_class=ErrorClass.OTHER, error="caf\u00e9 \U0001f4de"),
            Sent(delivered=True, phases={"a": 1}, status=200, request_headers={"a": "b"}, response_body=""),
        ):
            self.assertIsNone(malformed(sent))

    def test_what_is_not(self) -> None:
        for junk in (None, True, {"delivered": True}):
            self.assertIn("not a Sent", malformed(junk) or "")
        junk_fields: tuple[dict[str, Any], ...] = (
            {"delivered": None},
            {"hold": "5"},
            {"status": "200"},
            {"error": b"x"},
            {"error": "\ud800"},
            {"error_class": "nonsense"},
            {"phases": None},
            {"remote_address": ("127.0.0.1", 80)},
            {"response_headers": {"a": object()}},
            {"response_headers": {"a": "\udfff"}},
            {"response_headers": {b"a": "b"}},
        )
        for fields in junk_fields:
            self.assertIn("its Sent holds", malformed(Sent(**({"delivered": False} | fields))) or "", fields)
