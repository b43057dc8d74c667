"""What a prompt is given of the service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cubehook.events import Micros

if TYPE_CHECKING:
    from cubehook.cubes import Cubes
    from cubehook.delivery.redelivery import Redelivery
    from cubehook.operations.logs import Logs
    from cubehook.operations.trace import Traces, Tracing
    from cubehook.settings_plan import Reloaded
    from cubehook.store.store import Store
    from cubehook.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Inside:
    """The service's rooms, and `service`, which has them."""

    service: object
    reactor: Any
    now: Callable[[], Micros]
    cubes: Cubes
    webhooks: Webhooks
    store: Store
    redelivery: Redelivery
    logs: Logs
    traces: Traces
    trace: Callable[[str, float, bool], Tracing]
    problems: Callable[[], list[str]]
    record: Callable[[str, str, str, dict[str, Any]], None]
    """Puts on the record of changes who did what to which thing, with what it was done."""
    reload: Callable[[str], Awaitable[Reloaded]]
    began: float = time.monotonic()
    """When the process came this far; the monotonic clock's."""
