"""
Reading a response's body: so much is kept, so much more is read past it, and no more.

Sizes are counted after decompression, which itself is done in bounded steps: a small answer that
unpacks to gigabytes costs no memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from cubehook.text import printable

KEPT = 64 << 10
"""Bytes of a body that are kept (contract, section 4)."""

READ = 1 << 20
"""Bytes of a body that are read, so that its connection can be used again; past it that is cut."""

_STEP = KEPT + 1
"""Bytes decompressed at a time; a step that stops short of the data's end is then known to be past `KEPT`."""

_MARKUP = re.compile(r"<[^<>]*>")
_LOOKED_AT = 4096


def first_line(text: str) -> str:
    """
    The first line of an answer's body that says something, fit to be shown, at most 200 characters and an
    ellipsis; empty if none of its beginning does.  Of a page, without the markup.
    """
    text = text[:_LOOKED_AT]
    if text.lstrip().startswith("<"):
        text = _MARKUP.sub("", text)
    for line in text.splitlines():
        line = line.strip()
        if line:
            return printable(line)
    return ""


class BodyReader(Protocol):
    """
    Reads the body of `response`, which came under `encoding` (its Content-Encoding, lower case).

    `done` fires once the body is at its end, or longer than `READ`; then the connection has been cut
    by `abort`.  It errbacks with what ended the connection in mid-body.  Cancelling it cuts the
    connection.  `content` is what has been kept so far, `truncated` is True if there was more.

    gzip and deflate are decompressed; what does not decompress, or is encoded otherwise, is kept as
    it came.
    """

    def __init__(self, response: IResponse, encoding: bytes, abort: Callable[[], None]) -> None:
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._abort = abort
        self._kept = bytearray()
        self._received = 0
        self._count = 0
        self._finished = False
        self._inflate = _Inflate(encoding) if encoding in _WINDOWS else None
        if response.length == 0:
            self._finish()
        else:
            response.deliverBody(self)

    @property
    def content(self) -> bytes:
        return bytes(self._kept)

    @property
    def truncated(self) -> bool:
        return self._count > KEPT

    def dataReceived(self, data: bytes) -> None:
        if self._finished:
            return
        self._received += len(data)
        if self._inflate is None:
            self._take(data)
        else:
            self._inflate.feed(data, self._take)
        if self._count > READ or self._received > READ:
            self._abort()
            self._finish()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._finished:
            return
        # PotentialDataLoss: an answer without a length, ended by the end of the connection.
        if reason.check(ResponseDone, PotentialDataLoss):
            self._finish()
        else:
            self._finished = True
            self.done.errback(reason)

    def _take(self, data: bytes) -> bool:
        """Count `data` and keep what belongs to the beginning; True while more is wanted."""
        self._count += len(data)
        room = KEPT - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        return self._count <= READ

    def _finish(self) -> None:
        self._finished = True
        self.done.callback(None)

    def _cancelled(self, _: Deferred[None]) -> None:
        self._finished = True
        self._abort()


# zlib's window bits: gzip's header, and zlib's, which is what "deflate" means (RFC 9110, section 8.4.1.2).
_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class _Inflate:
    """Decompresses in steps; from the first error on, passes data on as it is."""

    def __init__(self, encoding: bytes) -> None:
        self._decompress = zlib.decompressobj(_WINDOWS[encoding])
        self._raw = False

    def feed(self, data: bytes, take: Callable[[bytes], bool]) -> None:
        """Hand what `data` unpacks to to `take`, step by step, while `take` returns True."""
        # What follows the end of the stream is no part of it.
        while data and not self._raw and not self._decompress.eof:
            try:
                step = self._decompress.decompress(data, _STEP)
            except zlib.error:
                self._raw = True
                break
            if not take(step):
                return
            data = self._decompress.unconsumed_tail
        if self._raw:
            take(data)
