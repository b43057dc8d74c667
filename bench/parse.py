"""
CPU microseconds of reading and writing the notifications of one ordinary call.

`python -m bench.parse [ROUNDS]`: the best of ROUNDS (default 200) short runs of each, so that other work on
the machine disturbs little.  The mean is over the notifications of an answered call of two legs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from timeit import repeat

from cubehook.xcc import codec
from cubehook.xcc import messages as xcc

NUMBER = 100
_CALLER = xcc.AddrData(addr="+12517676234", type="E164")
_CALLED = xcc.AddrData(addr="+12512501663", type="E164")
_MEDIA = xcc.MediaData(type="VOICE", coder_type="g711ulaw", coder_byte="160")
_DETAIL = xcc.ConnDetailData(
    conn_data=xcc.ConnData(conn_id="132", state="CONNECTED"),
    guid="694646BC1D2311E7A8D2826ACB31D85A",
    calling_addr_data=_CALLER,
    called_addr_data=_CALLED,
    orig_called_addr_data=_CALLED,
    conn_intf_type="CONN_SIP",
    media_data=_MEDIA,
    conn_intf="192.0.2.9",
    conn_direction_type="INCOMING",
    route_name="to-carrier",
)
_STATS = {
    "callDuration": "PT42S",
    "TxPacketsCount": "2104",
    "TxBytesCount": "336640",
    "TxDurationMSec": "42080",
    "TxVoiceDurationMSec": "41990",
    "RxPacketsCount": "2101",
    "RxBytesCount": "336160",
    "RxDurationMSec": "42020",
    "RxVoiceDurationMSec": "41900",
}
_JITTER = {
    "roundTripDelayMSec": "23",
    "onTimeRvPlayMSec": "41000",
    "gapFillWithPredictionMSec": "20",
    "gapFillWithInterpolationMSec": "0",
    "gapFillWithRedundancyMSec": "0",
    "lostPacketsCount": "3",
    "earlyPacketsCount": "0",
    "latePacketsCount": "1",
    "receiveDelayMSec": "55",
    "loWaterPlayoutDelayMSec": "45",
    "hiWaterPlayoutDelayMSec": "60",
}
_DISCONNECTED = xcc.Disconnected(disc_cause=16, media_data=_MEDIA, stats_data=_STATS, jitter_data=_JITTER)

CALL: list[tuple[xcc.ConnectionEvent, int]] = [
    (xcc.Created(_DETAIL), 2),
    (xcc.CallDelivery(), 1),
    (xcc.Alerting(), 2),
    (xcc.Connected(_DETAIL), 2),
    (_DISCONNECTED, 2),
]
"""The events of a call, and how often each comes."""


def notification(event: xcc.ConnectionEvent) -> xcc.NotifyXccConnectionData:
    """A notification of `event` as large as real ones."""
    return xcc.NotifyXccConnectionData(
        msg_header=xcc.MsgHeader(transaction_id="546CF8:25", registration_id="4CA5E4:XCC:myapp:4"),
        call_data=xcc.CallData(call_id="25", state="ACTIVE"),
        conn_data=xcc.ConnData(conn_id="132", state="CONNECTED"),
        event=event,
    )


def microseconds(work: Callable[[], object], rounds: int) -> float:
    """The least time that one `work` took, over `rounds` runs of NUMBER."""
    return min(repeat(work, number=NUMBER, repeat=rounds)) / NUMBER * 1e6


def main(rounds: int) -> None:
    """Measure and print a table."""
    print(f"{'event':<14}{'bytes':>6}{'read us':>9}{'write us':>9}")
    reading = writing = 0.0
    for event, times in CALL:
        message = notification(event)
        body = codec.write(message, line_breaks=True)
        read = microseconds(partial(codec.read, body), rounds)
        write = microseconds(partial(codec.write, message), rounds)
        print(f"{type(event).__name__:<14}{len(body):>6}{read:>9.1f}{write:>9.1f}")
        reading += read * times
        writing += write * times
    count = sum(times for _, times in CALL)
    print(f"{'mean':<14}{'':>6}{reading / count:>9.1f}{writing / count:>9.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
