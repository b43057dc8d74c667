"""An event as the bytes that a webhook is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from cubehook.config import Webhook
from cubehook.delivery.forms import FORM, form_body
from cubehook.events import CallEvent, Event, Notice, basic_body, full_body, notice_body

JSON = "application/json"

PAYLOADS: dict[str, Callable[[CallEvent], bytes]] = {"basic": basic_body, "full": full_body}
"""How what a webhook may write as `payload` is rendered, apart from "template"."""


class RenderError(Exception):
    """An event cannot be rendered as a webhook wants it; the text says why."""


class Rendering(Protocol):
    """How the events of one webhook become bodies."""

    def render(self, event: Event) -> tuple[bytes, str]:
        """The body of `event` and its content type; RenderError if there is none."""


class Renderer:
    """
    Makes renderings; those of `basic` and `full` share what they rendered last.

    An event's deliveries are usually started one right after the other, so remembering
    the last body of each payload is enough.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Event, bytes]] = {}

    def of(self, webhook: Webhook) -> Rendering:
        """
        The rendering that `webhook` asks for, its template compiled.

        Raises ValueError, for a person, if there can be none: `check` of `cubehook.delivery.templates` finds
        that out when a webhook is saved.
        """
        if webhook.payload == "template":
            from cubehook.delivery.templates import maker

            try:
                return _Own(maker(webhook))
            except ValueError as error:
                raise ValueError(f"webhook {webhook.id}: {error}") from None
        if webhook.encoding == "form":
            return _Form(PAYLOADS[webhook.payload])
        return _Shared(webhook.payload, self._last)


class _Shared:
    """The body of an event is made once for all webhooks that want it alike: these share `last`."""

    def __init__(self, payload: str, last: dict[str, tuple[Event, bytes]]) -> None:
        self._payload = payload
        self._last = last

    def render(self, event: Event) -> tuple[bytes, str]:
        if isinstance(event.payload, Notice):
            return notice_body(event.payload), JSON
        last = self._last.get(self._payload)
        if last is not None and last[0] is event:
            return last[1], JSON
        body = PAYLOADS[self._payload](event.payload)
        self._last[self._payload] = (event, body)
        return body, JSON


class _Form:
    """A flat payload, posted as a form."""

    def __init__(self, payload: Callable[[CallEvent], bytes]) -> None:
        self._payload = payload

    def render(self, event: Event) -> tuple[bytes, str]:
        from cubehook.delivery.presets import form

        told = event.payload
        fields = form(told) if isinstance(told, Notice) else msgspec.json.decode(self._payload(told))
        try:
            return form_body(fields), FORM
        except ValueError as error:
            raise RenderError(f"its form wants {error}") from None


class _Own:
    """What a webhook's template or preset makes."""

    def __init__(self, make: Callable[[CallEvent | Notice], tuple[bytes, str]]) -> None:
        self._make = make

    def render(self, event: Event) -> tuple[bytes, str]:
        from cubehook.delivery.templating.errors import TemplateError

        try:
            return self._make(event.payload)
        except TemplateError as error:
            raise RenderError(f"the webhook's template fails on this event: {error}") from None
        except ValueError as error:
            raise RenderError(f"the webhook's template fails on this event: expected {error}") from None


def preview(webhook: Webhook) -> list[tuple[str, str]]:
    """
    What `webhook` would be sent: a state, or the type of a notice, and the body of a sample of it.

    Raises what `Renderer.of` and `Rendering.render` raise.
    """
    from cubehook.delivery.samples import samples

    rendering = Renderer().of(webhook)
    shown: dict[str, str] = {}
    for _, event in samples(webhook):
        told = event.payload
        kind = told.type.value if isinstance(told, Notice) else told.call_state.value
        if kind not in shown:
            shown[kind] = rendering.render(event)[0].decode()
    return list(shown.items())
