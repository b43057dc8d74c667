"""Server-Sent Events as a client reads them (WHATWG HTML, "Interpreting an event stream")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec


class Sent(msgspec.Struct, frozen=True):
    """An event of `type`; `id` is the last that was told, None as long as there was none."""

    type: str
    data: str
    id: str | None


class Heartbeat(msgspec.Struct, frozen=True):
    """Something came that tells nothing but that the connection lives; `id` as of `Sent`."""

    id: str | None


def read(lines: Iterable[bytes]) -> Iterator[Sent | Heartbeat]:
    """What is told by `lines`, each with its end; an event that is broken off is not told."""
    id: str | None = None
    type, data = "", list[str]()
    for line in lines:
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        if not text:
            yield Sent(type or "message", "\n".join(data), id) if data else Heartbeat(id)
            type, data = "", []
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            id = value
        elif name == "event":
            type = value
        elif name == "data":
            data.append(value)
