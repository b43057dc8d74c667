"""What a gateway tells of a leg beside its numbers, made plain: the guid, and statistics of media."""

from __future__ import annotations

import re

from cubehook.events import MediaStatistics
from cubehook.xcc.durations import duration_seconds
from cubehook.xcc.messages import ConnDetailData, Disconnected

_PLAIN = re.compile(r"[0-9A-Fa-f]{32}")
# `9364550F D96211E2 8F0D9C9C 52CD806F` and `0x9364550F-0xD96211E2-0x8F0D9C9C-0x52CD806F`
_GROUPS = re.compile(
    r"([0-9A-Fa-f]{8})\s+([0-9A-Fa-f]{8})\s+([0-9A-Fa-f]{8})\s+([0-9A-Fa-f]{8})"
    r"|0[xX]([0-9A-Fa-f]{8})-0[xX]([0-9A-Fa-f]{8})-0[xX]([0-9A-Fa-f]{8})-0[xX]([0-9A-Fa-f]{8})"
)
_NO_GUID = "0" * 32

_COUNT = re.compile(r"[0-9]{1,18}")


def guid_of(detail: ConnDetailData) -> str | None:
    """The leg's guid, from `guid` or else `guidAltFormat`, as `normal_guid` has it."""
    return normal_guid(detail.guid) or normal_guid(detail.guid_alt_format)


def normal_guid(text: str | None) -> str | None:
    """`text`, in any of the three forms seen, as 32 upper-case hex digits; else, or if all zeros, None."""
    if text is None:
        return None
    if not _PLAIN.fullmatch(text):
        groups = _GROUPS.fullmatch(text.strip())
        if groups is None:
            return None
        text = "".join(group for group in groups.groups() if group)
    return None if text == _NO_GUID else text.upper()


def media_of(event: Disconnected) -> MediaStatistics | None:
    """The statistics in `event`; None if it has none.  What is not a number counts as not given."""
    stats = event.stats_data or {}
    jitter = event.jitter_data or {}
    if not stats and not jitter:
        return None
    return MediaStatistics(
        duration_seconds=duration_seconds(stats.get("callDuration")),
        packets_sent=_count(stats.get("TxPacketsCount")),
        bytes_sent=_count(stats.get("TxBytesCount")),
        packets_received=_count(stats.get("RxPacketsCount")),
        bytes_received=_count(stats.get("RxBytesCount")),
        packets_lost=_count(jitter.get("lostPacketsCount")),
        packets_early=_count(jitter.get("earlyPacketsCount")),
        packets_late=_count(jitter.get("latePacketsCount")),
        round_trip_ms=_count(jitter.get("roundTripDelayMSec")),
        receive_delay_ms=_count(jitter.get("receiveDelayMSec")),
    )


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and _COUNT.fullmatch(text) else None
