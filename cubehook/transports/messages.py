"""What a message to a broker says beside its body, and names made for it: the same over every broker."""

from __future__ import annotations

import re
from typing import Final

from cubehook.events import Event, Notice
from cubehook.interfaces import Outbound

UNKNOWN: Final = "unknown"
"""What stands for a value that is not known, such as a withheld number."""

LONGEST_VALUE: Final = 64
"""Characters that are put in for one placeholder; what is longer is cut."""

PLACEHOLDERS: Final = ("webhook", "cube", "state", "call", "calling_number", "called_number")

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# Not `.`, which parts an AMQP routing key and a NATS subject into words, nor what is a wildcard anywhere.
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def labels(outbound: Outbound) -> dict[str, str]:
    """
    The headers (AMQP, NATS), user properties (MQTT) or fields (Redis) that tell what a message is.

    `webhook-id` is the event's id, the same whenever it is sent; `cubehook-state` the call's state, or a
    notice's type; `cubehook-cube`, `cubehook-call` and `cubehook-sequence` stand where they are known;
    `cubehook-redelivery` is there, `true`, if the event is sent again because someone asked for that.
    """
    payload = outbound.event.payload
    told = {"webhook-id": outbound.id, "cubehook-state": _state(outbound.event)}
    if outbound.event.cube:
        told["cubehook-cube"] = outbound.event.cube
    if not isinstance(payload, Notice):
        told["cubehook-call"] = payload.call_id
        told["cubehook-sequence"] = str(payload.sequence)
    if outbound.redelivery:
        told["cubehook-redelivery"] = "true"
    return told


class Pattern:
    """
    A topic, routing key, subject or key, with `PLACEHOLDERS` in braces: `calls/{cube}/{state}`.

    `{{` and `}}` stand for braces.  What is put in is made of letters, digits, `_` and `-` only, so it can
    neither be a wildcard nor begin a level of its own: a number loses its `+`, anything else that does not
    fit becomes a `_`, and what is not known `unknown`.  ValueError, for a person, if `text` is not one.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str]] = []
        """Literal text, and the name of the placeholder that follows it, or nothing."""
        literal = ""
        end = 0
        for found in _TOKEN.finditer(text):
            literal += text[end : found.start()]
            end = found.end()
            if found[0] in ("{{", "}}"):
                literal += found[0][0]
            elif found[1] in PLACEHOLDERS:
                self._parts.append((literal, found[1]))
                literal = ""
            elif found[1] is None:
                raise ValueError(f"a text in which {found[0]} is doubled where it is meant as such")
            else:
                raise ValueError(f"a text with no other placeholders than {_LISTED}")
        self._parts.append((literal + text[end:], ""))

    @property
    def literal(self) -> str:
        """The text without what is put in."""
        return "".join(text for text, _ in self._parts)

    @property
    def names(self) -> list[str]:
        """The placeholders it has, in their order."""
        return [name for _, name in self._parts if name]

    def fill(self, webhook: str, event: Event) -> str:
        """The text for `event` as sent to the webhook with that id."""
        return "".join(text + (_fit(name, webhook, event) if name else "") for text, name in self._parts)


_LISTED = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


def _fit(name: str, webhook: str, event: Event) -> str:
    value = _value(name, webhook, event) or ""
    return _UNSAFE.sub("_", value.removeprefix("+"))[:LONGEST_VALUE] or UNKNOWN


def _value(name: str, webhook: str, event: Event) -> str | None:
    if name == "webhook":
        return webhook
    if name == "cube":
        return event.cube
    if name == "state":
        return _state(event)
    if isinstance(event.payload, Notice):
        return None
    if name == "call":
        return event.payload.call_id
    return event.payload.called_number if name == "called_number" else event.payload.calling_number


def _state(event: Event) -> str:
    payload = event.payload
    return payload.type.value if isinstance(payload, Notice) else payload.call_state.value
