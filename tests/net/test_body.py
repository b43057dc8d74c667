"""Reading bodies: caps, decompression in bounded steps, and the ends that a body can come to."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH

from cubehook.net.body import KEPT, READ, BodyReader


class Response:
    """As much of an IResponse as a reader needs."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.protocol: Protocol | None = None

    def deliverBody(self, protocol: Protocol) -> None:
        self.protocol = protocol


class Reading:
    """A reader, fed `parts`, that counts how often it cut the connection."""

    def __init__(self, *parts: bytes, encoding: bytes = b"", length: Any = UNKNOWN_LENGTH) -> None:
        self.aborts = 0
        response: Any = Response(length)
        self.reader = BodyReader(response, encoding, self._abort)
        for part in parts:
            self.reader.dataReceived(part)

    def _abort(self) -> None:
        self.aborts += 1

    def end(self, reason: Exception) -> None:
        self.reader.connectionLost(Failure(reason))


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class ReaderTests(SynchronousTestCase):
    def test_a_body_without_length_is_not_waited_for(self) -> None:
        reading = Reading(length=0)
        self.assertIsNone(self.successResultOf(reading.reader.done))
        self.assertEqual(reading.reader.content, b"")

    def test_the_end_of_a_body(self) -> None:
        for reason in (ResponseDone(), PotentialDataLoss()):
            reading = Reading(b"ab", b"c")
            self.assertNoResult(reading.reader.done)
            reading.end(reason)
            self.successResultOf(reading.reader.done)
            self.assertEqual(
                (reading.reader.content, reading.reader.truncated, reading.aborts), (b"abc", False, 0)
            )

    def test_a_body_cut_short_keeps_what_came(self) -> None:
        reading = Reading(b"half")
        reading.end(ConnectionLost())
        self.failureResultOf(reading.reader.done, ConnectionLost)
        self.assertEqual(reading.reader.content, b"half")

    def test_the_beginning_is_kept_and_the_rest_drained(self) -> None:
        exact = Reading(b"x" * KEPT)
        self.assertEqual((len(exact.reader.content), exact.reader.truncated), (KEPT, False))
        longer = Reading(b"x" * KEPT, b"y")
        self.assertEqual((longer.reader.content, longer.reader.truncated), (b"x" * KEPT, True))
        self.assertNoResult(longer.reader.done)

    def test_past_the_limit_the_connection_is_cut(self) -> None:
        reading = Reading(b"x" * READ)
        self.assertNoResult(reading.reader.done)
        reading.reader.dataReceived(b"x")
        self.successResultOf(reading.reader.done)
        self.assertEqual(reading.aborts, 1)
        reading.reader.dataReceived(b"x" * READ)
        reading.end(ConnectionLost())
        self.assertEqual(reading.aborts, 1)

    def test_cancelling_cuts_the_connection(self) -> None:
        reading = Reading(b"x")
        reading.reader.done.cancel()
        self.failureResultOf(reading.reader.done, CancelledError)
        self.assertEqual(reading.aborts, 1)
        reading.end(ConnectionLost())


class DecompressionTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(
        st.binary(max_size=300),
        st.integers(0, 2 * KEPT),
        st.integers(1, 5000),
        st.sampled_from(["gzip", "deflate"]),
    )
    def test_what_was_packed_comes_out(self, some: bytes, zeros: int, size: int, encoding: str) -> None:
        clear = some + b"\0" * zeros + some
        packed = gzip.compress(clear) if encoding == "gzip" else zlib.compress(clear)
        reading = Reading(*split(packed, size), encoding=encoding.encode())
        reading.end(ResponseDone())
        self.successResultOf(reading.reader.done)
        self.assertEqual(reading.reader.content, clear[:KEPT])
        self.assertEqual(reading.reader.truncated, len(clear) > KEPT)

    def test_a_bomb_is_unpacked_in_steps_and_no_further_than_the_limit(self) -> None:
        steps: list[int] = []
        real = zlib.decompressobj

        class Watched:
            def __init__(self, window: int) -> None:
                self._real = real(window)

            def decompress(self, data: bytes, limit: int = 0) -> bytes:
                step = self._real.decompress(data, limit)
                steps.append(len(step))
                return step

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        self.patch(zlib, "decompressobj", Watched)
        reading = Reading(gzip.compress(b"\0" * 20_000_000), encoding=b"gzip")
        self.successResultOf(reading.reader.done)
        self.assertEqual(reading.aborts, 1)
        self.assertLessEqual(max(steps), KEPT + 1)
        self.assertLessEqual(sum(steps), READ + KEPT + 1)
        self.assertEqual(reading.reader.content, b"\0" * KEPT)

    def test_what_cannot_be_unpacked_is_kept_as_it_came(self) -> None:
        self.assertEqual(Reading(b"plain", b" text", encoding=b"gzip").reader.content, b"plain text")
        self.assertEqual(Reading(b"\x01\x02", encoding=b"br").reader.content, b"\x01\x02")

    def test_what_follows_the_packed_data_is_left_out_but_counted(self) -> None:
        reading = Reading(gzip.compress(b"clear") + b"rest", b"rest" * 10, encoding=b"gzip")
        self.assertEqual(reading.reader.content, b"clear")
        reading.reader.dataReceived(b"x" * READ)
        self.successResultOf(reading.reader.done)
        self.assertEqual(reading.aborts, 1)
