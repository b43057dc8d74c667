"""Settings: who may use the API and the console, what is kept, who changed what, and what this is."""

from __future__ import annotations

from typing import Any

from cubehook.api.errors import ConflictError, InvalidError, NotFoundError
from cubehook.console.assets import VENDORED
from cubehook.console.desk import Desk
from cubehook.console.libraries import Library, libraries
from cubehook.console.problems import Problems, by_field
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.telling_changes import change_told


class Pages:
    """`/settings` and what is below it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._libraries: list[Library] | None = None

    @page("GET", "/settings")
    async def settings(self, visit: Visit) -> Answer:
        return await self._page(visit)

    async def _page(self, visit: Visit, *, status: int = 200, **more: Any) -> Answer:
        if self._libraries is None:
            self._libraries = libraries()
        # Who may only look is told neither who else there is nor what they did.
        tokens = changes = None
        after = visit.query.text("before") or None
        if visit.may_change:
            tokens = await visit.ask("list_tokens", query={"limit": 200})
            changes = await visit.ask("list_audit", query={"limit": 15, "cursor": after})
        values = {"made": None, "wrong": Problems(), "error": None, "name": "", "role": "viewer"}
        return visit.show(
            "settings.html",
            status=status,
            service=await visit.ask("get_status"),
            tokens=tokens,
            changes=None if changes is None else [(each, change_told(each)) for each in changes.items],
            older=None if changes is None else changes.next,
            after=after,
            settings=self._desk.settings,
            vendored=list({each.name: each for each in VENDORED}.values()),
            libraries=self._libraries,
            **{**values, **more},
        )

    @page("POST", "/settings/tokens")
    async def add(self, visit: Visit) -> Answer:
        body = {"name": visit.form.text("name"), "role": visit.form.text("role", "viewer")}
        try:
            made = await visit.ask("create_token", body=body)
        except (InvalidError, ConflictError) as error:
            wrong = by_field(error.fields)
            if error.code == "conflict":
                wrong["name"] = error.message
            return await self._page(visit, status=error.status, error=error, wrong=wrong, **body)
        # Shown in this answer alone: it is in no address, and kept nowhere.
        return await self._page(visit, made=made)

    @page("POST", "/settings/tokens/<token>/remove")
    async def remove(self, visit: Visit, token: str) -> Answer:
        try:
            await visit.ask("delete_token", token=token)
        except NotFoundError:
            return visit.go("/settings", "That token had been removed before", kind="note")
        except ConflictError as error:
            return visit.go("/settings", error.message, kind="failed")
        return visit.go("/settings", "The token is removed, and so are the sessions that began with it")
