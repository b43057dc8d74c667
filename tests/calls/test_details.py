"""Guids and media statistics."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.calls.details import guid_of, media_of, normal_guid
from cubehook.events import MediaStatistics
from cubehook.xcc.messages import ConnDetailData, Disconnected

GUID = "9364550FD96211E28F0D9C9C52CD806F"


class GuidTests(SynchronousTestCase):
    def test_three_forms(self) -> None:
        for text in (
            GUID,
            GUID.lower(),
            "9364550F D96211E2 8F0D9C9C 52CD806F",
            "0x9364550F-0xD96211E2-0x8F0D9C9C-0x52CD806F",
        ):
            self.assertEqual(normal_guid(text), GUID, text)

    def test_anything_else(self) -> None:
        for text in (None, "", GUID[1:], GUID + "0", "G" + GUID[1:], "0" * 32, "2473874703-1-2-3"):
            self.assertIsNone(normal_guid(text), text)

    def test_alternative(self) -> None:
        self.assertEqual(guid_of(ConnDetailData(guid="?", guid_alt_format=GUID)), GUID)
        self.assertIsNone(guid_of(ConnDetailData()))


class MediaTests(SynchronousTestCase):
    def test_statistics(self) -> None:
        event = Disconnected(
            16,
            stats_data={
                "callDuration": "PT1M3S",
                "TxPacketsCount": "3150",
                "TxBytesCount": "504000",
                "RxPacketsCount": "3149",
                "RxBytesCount": "many",
            },
            jitter_data={"lostPacketsCount": "2", "roundTripDelayMSec": "14", "latePacketsCount": "-1"},
        )
        self.assertEqual(
            media_of(event),
            MediaStatistics(
                duration_seconds=63.0,
                packets_sent=3150,
                bytes_sent=504000,
                packets_received=3149,
                packets_lost=2,
                round_trip_ms=14,
            ),
        )

    def test_none(self) -> None:
        self.assertIsNone(media_of(Disconnected(16)))
