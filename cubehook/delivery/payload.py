"""An event as the bytes that a webhook is sent."""

from __future__ import annotations

from collections.abc import Callable

from cubehook.events import CallEvent, Event, basic_body, full_body

CONTENT_TYPE = "application/json"

PAYLOADS: dict[str, Callable[[CallEvent], bytes]] = {"basic": basic_body, "full": full_body}
"""What a webhook may write as `payload`, and how it is rendered."""


class Renderer:
    """
    Renders events, and the same event once for several webhooks.

    An event's deliveries are usually started one right after the other, so remembering
    the last body of each payload is enough.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Event, bytes]] = {}

    def render(self, event: Event, payload: str) -> bytes:
        """The UTF-8 JSON of `event`; KeyError if there is no such payload."""
        last = self._last.get(payload)
        if last is not None and last[0] is event:
            return last[1]
        body = PAYLOADS[payload](event.payload)
        self._last[payload] = (event, body)
        return body
