"""Wire traces of cubes: `/cubes/{cube}/trace`."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from cubehook.api.errors import NotFoundError, UnavailableError
from cubehook.api.operations import Caller, operation
from cubehook.api.views import Time, shown_time
from cubehook.changes import MissingError
from cubehook.operations.trace import LONGEST, TraceError, Tracing
from cubehook.text import printable

Minutes = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]


class Tracer(Protocol):
    """What the API needs of the service."""

    def trace(self, cube: str, minutes: float, masked: bool = False) -> Tracing:
        """Trace a cube, or end that."""

    def tracing(self, cube: str) -> Tracing:
        """How a cube's trace stands."""


class TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Trace for so many `minutes` from now, a day at most; 0 ends a trace.

    With `masked`, telephone numbers are hidden but for their last two digits.
    """

    minutes: Minutes
    masked: bool = False


class CubeTrace(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a cube's trace stands: it is on `until` then, null if it is off.

    `messages` were written to `file`, on the service's machine, since it was begun.
    """

    cube: str
    until: Time | None
    masked: bool
    messages: int
    file: str


class TracePart:
    """The operations on traces."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @operation("POST", "/cubes/{cube}/trace", body=TraceRequest, result=CubeTrace, stores=False)
    async def trace_cube(self, caller: Caller, cube: str, body: TraceRequest) -> CubeTrace:
        """
        Write down what a cube's gateway says and is told, for some minutes.

        A cube that is traced already is traced until so many minutes from now instead.
        """
        try:
            return _view(self._tracer.trace(cube, body.minutes, body.masked))
        except MissingError:
            raise _unknown(cube) from None
        except TraceError as error:
            raise UnavailableError(str(error)) from None

    @operation("GET", "/cubes/{cube}/trace", result=CubeTrace)
    async def get_trace(self, caller: Caller, cube: str) -> CubeTrace:
        """Whether a cube is traced, until when, and where to."""
        try:
            return _view(self._tracer.tracing(cube))
        except MissingError:
            raise _unknown(cube) from None


def _unknown(cube: str) -> NotFoundError:
    return NotFoundError(f"There is no cube {printable(cube)}")


def _view(tracing: Tracing) -> CubeTrace:
    return CubeTrace(
        cube=tracing.cube,
        until=shown_time(tracing.until),
        masked=tracing.masked,
        messages=tracing.messages,
        file=str(tracing.file),
    )
