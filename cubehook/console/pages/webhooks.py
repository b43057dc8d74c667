"""The webhooks: which there are, how they stand, and everything that is done with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cubehook.api.errors import ApiError, ConflictError, InvalidError, PreconditionFailedError
from cubehook.console.desk import Desk
from cubehook.console.exchange import attempt_shown
from cubehook.console.options import Transport, transport_of
from cubehook.console.preview import preview_of
from cubehook.console.problems import Problems, by_field
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.telling_webhooks import standing, success
from cubehook.console.webhook_form import METHODS, NOTICES, PAYLOADS, STATES, Fields, defaults_shown
from cubehook.console.zones import typed_time, zone_name, zone_of
from cubehook.transports.registry import find_transports

_ID = re.compile(r"[^a-z0-9]+")

# fmt: off
SHOWN = frozenset((
    "id", "name", "description", "enabled", "url", "method", "transport", "states", "cubes", "granularity",
    "notices", "headers", "payload", "template", "preset", "encoding", "secret", "timeout", "retry", "jitter",
    "concurrency", "disable_after", "expire", "breaker",
))
# fmt: on
"""Keys beside whose fields it is shown what is wrong with them."""

_ADVANCED = frozenset(
    ("timeout", "retry", "jitter", "concurrency", "disable_after", "expire", "breaker", "secret")
)


class Pages:
    """`/webhooks` and what is below it."""

    def __init__(self, desk: Desk) -> None:
        self._transports: dict[str, Transport] | None = None

    def _known_transports(self) -> Mapping[str, Transport]:
        if self._transports is None:
            self._transports = {name: transport_of(plugin) for name, plugin in find_transports()[0].items()}
        return self._transports

    # Looking

    @page("GET", "/webhooks")
    async def every(self, visit: Visit) -> Answer:
        query = {"limit": 200, "cursor": visit.query.text("after") or None}
        webhooks = await visit.ask("list_webhooks", query=query)
        items = [(webhook, standing(webhook), success(webhook.counters)) for webhook in webhooks.items]
        template = "webhooks_list.html" if visit.live else "webhooks.html"
        return visit.show(template, webhooks=items, next=webhooks.next)

    @page("GET", "/webhooks/<webhook>")
    async def one(self, visit: Visit, webhook: str) -> Answer:
        known, tag = await visit.ask_tagged("get_webhook", webhook=webhook)
        jobs = await visit.ask("list_jobs", query={"webhook": webhook, "limit": 10})
        values: dict[str, Any] = {"webhook": known, "stands": standing(known), "jobs": jobs.items}
        values["success"] = success(known.counters)
        if visit.live:
            return visit.show("webhook_state.html", **values)
        return self._page(visit, values, tag)

    def _page(self, visit: Visit, values: Mapping[str, Any], tag: str, **more: Any) -> Answer:
        known = values["webhook"]
        transport = self._known_transports().get(known.transport)
        shown: dict[str, Any] = {"secret": None, "former_until": None, "new": False, "tried": None}
        shown |= {
            "refused": None,
            "wrong": {},
            "again": None,
            "transport": transport,
            "tag": tag,
            "states": STATES,
        }
        shown |= {
            "zone": zone_name(zone_of(visit.cookie)),
            "answered": bool(more),
            "sample": visit.form.text("state"),
        }
        return visit.show("webhook.html", **values, **{**shown, **more})

    # Making and changing

    @page("GET", "/webhooks/_new", viewers=False)
    async def new(self, visit: Visit) -> Answer:
        return await self._form(visit, Fields(), made=None)

    @page("POST", "/webhooks/_new")
    async def make(self, visit: Visit) -> Answer:
        fields = Fields.sent(visit.form, self._known_transports())
        if not fields.id:
            fields.id = id_from(fields.name)
        if visit.form.text("do") == "test":
            return await self._try_typed(visit, fields, made=None)
        if visit.form.text("do") == "preview":
            return await self._form(visit, fields, made=None)
        try:
            webhook = await visit.ask("create_webhook", body=self._body(visit, fields, new=True))
        except (InvalidError, ConflictError) as error:
            return await self._form(visit, fields, made=None, error=error)
        if getattr(webhook, "secret", None) and not fields.secret:
            return await self._with_secret(visit, webhook.id, webhook.secret, None, new=True)
        return visit.go(
            _path(webhook.id), f"{webhook.name or webhook.id} is there. Send a test to see how it goes"
        )

    def _body(self, visit: Visit, fields: Fields, *, new: bool = False) -> dict[str, Any]:
        breaker = visit.desk.settings.delivery.breaker
        return fields.body(visit.form, self._known_transports(), breaker, new=new)

    @page("GET", "/webhooks/<webhook>/edit", viewers=False)
    async def edit(self, visit: Visit, webhook: str) -> Answer:
        known, tag = await visit.ask_tagged("get_webhook", webhook=webhook)
        if known.provisioned:
            words = (
                f"Webhook {webhook} stands in the configuration file: change [webhooks.{webhook}] there, and "
                "start again"
            )
            return visit.go(_path(webhook), words, kind="note")
        return await self._form(visit, Fields.of(known, self._known_transports()), made=webhook, tag=tag)

    @page("POST", "/webhooks/<webhook>/edit")
    async def change(self, visit: Visit, webhook: str) -> Answer:
        fields = Fields.sent(visit.form, self._known_transports())
        fields.id = webhook
        tag = visit.form.text("tag")
        if visit.form.text("do") == "test":
            return await self._try_typed(visit, fields, made=webhook, tag=tag)
        if visit.form.text("do") == "preview":
            return await self._form(visit, fields, made=webhook, tag=tag)
        try:
            await visit.ask("change_webhook", webhook=webhook, body=self._body(visit, fields), seen=tag)
        except (InvalidError, ConflictError, PreconditionFailedError) as error:
            return await self._form(visit, fields, made=webhook, tag=tag, error=error)
        return visit.go(_path(webhook), "Saved")

    @page("POST", "/webhooks/_preview")
    async def preview(self, visit: Visit) -> Answer:
        body = self._body(visit, Fields.sent(visit.form, self._known_transports()))
        return visit.show("webhook_preview.html", preview=await preview_of(visit, body))

    async def _try_typed(self, visit: Visit, fields: Fields, *, made: str | None, tag: str = "") -> Answer:
        """Send a test of what the form says, whether or not that is kept: beside the form."""
        settings = self._body(visit, fields)
        if fields.secret and made is None:
            settings["secret"] = fields.secret
        body: dict[str, Any] = {"settings": settings}
        state = visit.form.text("sample") or next(iter(fields.states), "")
        if state:
            body["state"] = state
        tried: Any = None
        error: ApiError | None = None
        try:
            if made is None:
                attempt = await visit.ask("test_settings", body=body)
            else:
                attempt = await visit.ask("test_webhook", webhook=made, body=body)
            tried = attempt_shown(attempt)
        except (ConflictError, InvalidError) as refusal:
            error = refusal
            error.fields = {key.removeprefix("settings."): words for key, words in error.fields.items()}
        if visit.live:
            refused = None if error is None else error.message
            wrong = {} if error is None else error.fields
            return visit.show("webhook_tried.html", tried=tried, refused=refused, wrong=wrong)
        return await self._form(visit, fields, made=made, tag=tag, error=error, tried=tried)

    async def _form(
        self,
        visit: Visit,
        fields: Fields,
        *,
        made: str | None,
        tag: str = "",
        error: ApiError | None = None,
        tried: Any = None,
    ) -> Answer:
        cubes = await visit.ask("list_cubes", query={"limit": 200})
        problems = dict(error.fields) if error is not None else {}
        if error is not None and error.code == "conflict" and not problems and made is None:
            problems["id"] = error.message
        exact = Problems(problems)
        transports = self._known_transports()
        body = self._body(visit, fields)
        known = {option.key for option in _options_of(transports, fields.transport)}
        return visit.show(
            "webhook_form.html",
            status=200 if error is None else error.status,
            fields=fields,
            made=made,
            tag=tag,
            error=error,
            wrong=by_field(problems),
            exact=exact,
            elsewhere={
                key: words
                for key, words in problems.items()
                if not (_first(key) in SHOWN or key.removeprefix("options.") in known)
            },
            transports=[*transports.values(), *_absent(transports, fields.transport)],
            cubes=_cubes(cubes.items, fields.cubes),
            preview=await preview_of(visit, body),
            states=STATES,
            notices=NOTICES,
            methods=[(method, method) for method in METHODS],
            open_options=_open(transports, fields, problems),
            advanced=fields.advanced or bool(_ADVANCED & {_first(key) for key in problems}),
            payloads=PAYLOADS,
            defaults=defaults_shown(visit.desk.settings.delivery),
            tried=tried,
            refused=None,
            sample=visit.form.text("sample"),
        )

    @page("POST", "/webhooks/<webhook>/remove")
    async def remove(self, visit: Visit, webhook: str) -> Answer:
        try:
            await visit.ask("delete_webhook", webhook=webhook, seen=visit.form.text("tag"))
        except (ConflictError, PreconditionFailedError) as error:
            return visit.go(_path(webhook), error.message, kind="failed")
        return visit.go(
            "/webhooks", f"Webhook {webhook} is removed. Its log stays until it is past its retention"
        )

    # Doing

    @page("POST", "/webhooks/<webhook>/test")
    async def test(self, visit: Visit, webhook: str) -> Answer:
        body = {"state": visit.form.text("state")} if visit.form.text("state") else {}
        tried: Any = None
        refused = None
        try:
            tried = attempt_shown(await visit.ask("test_webhook", webhook=webhook, body=body))
        except (ConflictError, InvalidError) as error:
            refused = error.message
        if visit.live:
            return visit.show("webhook_tried.html", tried=tried, refused=refused, wrong={})
        values, tag = await self._values(visit, webhook)
        return self._page(visit, values, tag, tried=tried, refused=refused)

    async def _values(self, visit: Visit, webhook: str) -> tuple[dict[str, Any], str]:
        known, tag = await visit.ask_tagged("get_webhook", webhook=webhook)
        jobs = await visit.ask("list_jobs", query={"webhook": webhook, "limit": 10})
        stands = standing(known)
        return {
            "webhook": known,
            "stands": stands,
            "jobs": jobs.items,
            "success": success(known.counters),
        }, tag

    @page("POST", "/webhooks/<webhook>/rotate-secret")
    async def rotate(self, visit: Visit, webhook: str) -> Answer:
        try:
            made = await visit.ask("rotate_secret", webhook=webhook)
        except ConflictError as error:
            return visit.go(_path(webhook), error.message, kind="failed")
        return await self._with_secret(visit, webhook, made.secret, made.former_until)

    async def _with_secret(
        self, visit: Visit, webhook: str, secret: str, former_until: str | None, *, new: bool = False
    ) -> Answer:
        """The webhook's page with a secret that is shown this once: so it is in no address and no session."""
        values, tag = await self._values(visit, webhook)
        return self._page(visit, values, tag, secret=secret, former_until=former_until, new=new)

    @page("POST", "/webhooks/<webhook>/enable")
    async def enable(self, visit: Visit, webhook: str) -> Answer:
        before = await visit.ask("get_webhook", webhook=webhook)
        try:
            await visit.ask("enable_webhook", webhook=webhook)
        except ConflictError as error:
            return visit.go(_path(webhook), error.message, kind="failed")
        if before.disabled_reason is None:
            return visit.go(_path(webhook), "Its transport is tried again", kind="note")
        return visit.go(_path(webhook), "It is sent to again, beginning with one delivery as a trial")

    @page("POST", "/webhooks/<webhook>/pause")
    async def pause(self, visit: Visit, webhook: str) -> Answer:
        return await self._set_enabled(
            visit,
            webhook,
            False,
            "Paused: it gets no new events. What it misses can be sent once it is resumed",
        )

    @page("POST", "/webhooks/<webhook>/resume")
    async def resume(self, visit: Visit, webhook: str) -> Answer:
        return await self._set_enabled(
            visit, webhook, True, "Resumed: new events are sent to it. What it missed can be sent below"
        )

    async def _set_enabled(self, visit: Visit, webhook: str, enabled: bool, said: str) -> Answer:
        try:
            await visit.ask("change_webhook", webhook=webhook, body={"enabled": enabled})
        except (ConflictError, InvalidError) as error:
            return visit.go(_path(webhook), error.message, kind="failed")
        return visit.go(_path(webhook), said)

    # Sending again

    @page("POST", "/webhooks/<webhook>/redeliver")
    async def redeliver(self, visit: Visit, webhook: str) -> Answer:
        form, zone = visit.form, zone_of(visit.cookie)
        body = {
            "since": typed_time(form.text("since"), zone),
            "until": typed_time(form.text("until"), zone),
            "status": form.all("status"),
            "preview": form.text("do") != "start",
        }
        typed = {"since": form.text("since"), "until": form.text("until"), "status": form.all("status")}
        asked: dict[str, Any] = {**typed, "wrong": Problems(), "total": None, "error": None}
        try:
            found = await visit.ask("redeliver_range", webhook=webhook, body=body)
        except (InvalidError, ConflictError) as error:
            asked["wrong"], asked["error"] = by_field(error.fields), error.message
        else:
            if found.job is not None:
                return visit.go(_path(webhook) + "#again", f"{found.total:,} deliveries are being sent again")
            asked["total"] = found.total
        values, tag = await self._values(visit, webhook)
        return self._page(visit, values, tag, again=asked)

    @page("POST", "/webhooks/<webhook>/jobs/<job>/cancel")
    async def cancel(self, visit: Visit, webhook: str, job: str) -> Answer:
        await visit.ask("cancel_job", job=job)
        return visit.go(_path(webhook) + "#again", "Cancelled: what was handed over is sent all the same")


def id_from(name: str) -> str:
    """An id made of a name: `CRM Call Events` becomes `crm-call-events`."""
    return _ID.sub("-", name.lower()).strip("-")[:64].rstrip("-")


def _options_of(transports: Mapping[str, Transport], name: str) -> tuple[Any, ...]:
    return transports[name].options if name in transports else ()


def _open(transports: Mapping[str, Transport], fields: Fields, problems: Mapping[str, str]) -> set[str]:
    """The transports whose options are unfolded: those that must have some, and where somebody set any."""
    found = {each.name for each in transports.values() if any(option.required for option in each.options)}
    if any(fields.options.values()) or any(key.startswith("options") for key in problems):
        found.add(fields.transport)
    return found


def _absent(transports: Mapping[str, Transport], name: str) -> list[Transport]:
    """The webhook's transport, if it is not installed: else the form would choose another by itself."""
    return [] if name in transports else [Transport(name, "it is not installed now", "", ())]


def _cubes(known: Any, chosen: list[str]) -> list[tuple[str, str, str]]:
    """The cubes to choose from, and those chosen that are no more."""
    ids = {cube.id for cube in known}
    gone = [(id, id, "there is no such cube now") for id in chosen if id not in ids]
    return [(cube.id, cube.id, cube.description) for cube in known] + gone


def _first(key: str) -> str:
    return re.split(r"[.\[]", key, maxsplit=1)[0]


def _path(webhook: str) -> str:
    return f"/webhooks/{quote(webhook, safe='')}"
