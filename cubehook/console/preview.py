"""What a webhook that is being written would be sent: samples, or what is wrong with its payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cubehook.api.errors import InvalidError
from cubehook.console.pretty import pretty_body
from cubehook.console.routes import Visit

_KEYS = ("states", "payload", "template", "preset", "encoding", "granularity", "notices")
_WITHIN = "settings."


class Sample(NamedTuple):
    """A body, and the event that it tells of."""

    event: str
    body: str


class Preview(NamedTuple):
    """Samples, or what is wrong: a sentence, and more by the key."""

    samples: list[Sample]
    wrong: str | None
    fields: Mapping[str, str]


async def preview_of(visit: Visit, body: Mapping[str, Any]) -> Preview:
    """The samples of a webhook that a client of the API would make with `body`."""
    settings = {key: body[key] for key in _KEYS if body.get(key) is not None}
    try:
        found = await visit.ask("preview_settings", body={"settings": settings})
    except InvalidError as error:
        fields = {key.removeprefix(_WITHIN): words for key, words in error.fields.items()}
        return Preview([], error.message, fields)
    return Preview([Sample(item.kind, pretty_body(item.body)) for item in found.items], None, {})
