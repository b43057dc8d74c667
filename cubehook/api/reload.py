"""Reading the configuration again: `/reload`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from cubehook.api.errors import ConflictError, InvalidError
from cubehook.api.operations import Caller, operation
from cubehook.changes import ReloadError
from cubehook.settings_plan import Names, Reloaded

_IDS = 50
"""Of so many ids of a kind the record of changes tells."""


def _recorded(done: Reloaded) -> dict[str, Any] | None:
    if not done.changed:
        return None
    detail = {"cubes": _ids(done.cubes), "webhooks": _ids(done.webhooks), "settings": list(done.settings)}
    return {name: value for name, value in detail.items() if value}


def _ids(names: Names) -> dict[str, list[str]]:
    return {what: ids[:_IDS] for what, ids in msgspec.to_builtins(names).items() if ids}


class ReloadPart:
    """The operation that reads the configuration again; `reload` does it, or fails with ReloadError."""

    def __init__(self, reload: Callable[[], Awaitable[Reloaded]]) -> None:
        self._reload = reload

    @operation("POST", "/reload", result=Reloaded, errors=(ConflictError,), recorded=_recorded, stores=False)
    async def reload(self, caller: Caller) -> Reloaded:
        """
        Read the configuration file again, and let what differs hold.

        Registrations and deliveries are not lost.  A file that cannot be used changes nothing; `fields` then
        has every mistake by its key.
        """
        try:
            return await self._reload()
        except ReloadError as error:
            if error.problems:
                raise InvalidError(error.message, fields=error.problems) from None
            raise ConflictError(error.message) from None
