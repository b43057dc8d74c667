"""An event as the bytes that a webhook is sent."""

from __future__ import annotations

from collections.abc import Callable

from cubehook.config import Webhook
from cubehook.events import CallEvent, Event, Notice, basic_body, full_body, notice_body

JSON = "application/json"

PAYLOADS: dict[str, Callable[[CallEvent], bytes]] = {"basic": basic_body, "full": full_body}
"""How what a webhook may write as `payload` is rendered."""


class RenderError(Exception):
    """An event cannot be rendered as a webhook wants it; the text says why."""


class Rendering:
    """
    How the events of one webhook become bodies.

    The same event's body is made once for all webhooks that want it alike: their renderings share `last`.
    """

    def __init__(self, payload: str, last: dict[str, tuple[Event, bytes]]) -> None:
        self._payload = payload
        self._last = last

    def render(self, event: Event) -> tuple[bytes, str]:
        """The body of `event` and its content type; RenderError if there is none."""
        if isinstance(event.payload, Notice):
            return notice_body(event.payload), JSON
        last = self._last.get(self._payload)
        if last is not None and last[0] is event:
            return last[1], JSON
        body = PAYLOADS[self._payload](event.payload)
        self._last[self._payload] = (event, body)
        return body, JSON


class Renderer:
    """
    Makes renderings, which share what they rendered last.

    An event's deliveries are usually started one right after the other, so remembering
    the last body of each payload is enough.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Event, bytes]] = {}

    def of(self, webhook: Webhook) -> Rendering:
        """The rendering that `webhook` asks for; KeyError if there is no such payload."""
        return Rendering(webhook.payload, self._last)
