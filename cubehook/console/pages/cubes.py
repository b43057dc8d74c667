"""The cubes: which there are, how they stand, and what to do about them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from cubehook import config
from cubehook.api.errors import ApiError, ConflictError, InvalidError, PreconditionFailedError
from cubehook.config_rules import endpoint_parts
from cubehook.console.advice import advice
from cubehook.console.desk import Desk
from cubehook.console.problems import Problems, by_field
from cubehook.console.routes import Answer, Form, Visit, page
from cubehook.operations.ios import ios_config

_HOST = re.compile(r"[A-Za-z0-9.-]+", re.ASCII)
_ID = re.compile(r"[^a-z0-9_-]+")

_SECURE = ("pins", "ca_file", "client_certificate", "client_key", "tls_minimum")
FIELDS = (
    *("id", "description", "provider_url", "application_url", "default_region", "allow_from", "enabled"),
    *_SECURE,
)
DEFAULT_TLS = "1.2"
_LISTS = ("allow_from", "pins")
_PIN_LABEL = re.compile(r"sha-?256\s+fingerprint\s*[:=]?\s*", re.ASCII | re.IGNORECASE)


class Pages:
    """`/cubes` and what is below it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @page("GET", "/cubes")
    async def every(self, visit: Visit) -> Answer:
        cubes = await visit.ask(
            "list_cubes", query={"limit": 200, "cursor": visit.query.text("after") or None}
        )
        template = "cubes_list.html" if visit.live else "cubes.html"
        return visit.show(template, cubes=cubes.items, next=cubes.next)

    @page("GET", "/cubes/_new", viewers=False)
    async def new(self, visit: Visit) -> Answer:
        values = dict.fromkeys(FIELDS, "") | {"enabled": True, "tls_minimum": DEFAULT_TLS}
        return self._form(visit, values, made=None)

    @page("POST", "/cubes/_new")
    async def make(self, visit: Visit) -> Answer:
        values = _values(visit.form)
        if not values["application_url"] and values["id"]:
            values["application_url"] = self._offered(visit, values["id"])
        try:
            cube = await visit.ask("create_cube", body=_body(values, with_id=True))
        except (InvalidError, ConflictError) as error:
            return self._form(visit, values, made=None, error=error)
        return visit.go(
            _path(cube.id),
            f"Cube {cube.id} is there, and registers with its gateway. Now the router must be told: paste "
            "its configuration from below",
        )

    @page("GET", "/cubes/<cube>")
    async def one(self, visit: Visit, cube: str) -> Answer:
        known, tag = await visit.ask_tagged("get_cube", cube=cube)
        if visit.live:
            return visit.show("cube_state.html", cube=known, steps=advice(known))
        history = await visit.ask(
            "list_registrations", cube=cube, query={"limit": 20, "cursor": visit.query.text("before") or None}
        )
        settings = config.Cube(
            id=known.id, provider_url=known.provider_url, application_url=known.application_url
        )
        return visit.show(
            "cube.html",
            cube=known,
            tag=tag,
            history=history,
            steps=advice(known),
            ios=ios_config(settings),
        )

    @page("GET", "/cubes/<cube>/edit", viewers=False)
    async def edit(self, visit: Visit, cube: str) -> Answer:
        known, tag = await visit.ask_tagged("get_cube", cube=cube)
        if known.provisioned:
            return visit.go(_path(cube), _in_the_file(cube), kind="note")
        values = {name: getattr(known, name) for name in FIELDS}
        values |= {name: "\n".join(getattr(known, name)) for name in _LISTS}
        return self._form(visit, values, made=cube, tag=tag)

    @page("POST", "/cubes/<cube>/edit")
    async def change(self, visit: Visit, cube: str) -> Answer:
        values = _values(visit.form) | {"id": cube}
        tag = visit.form.text("tag")
        try:
            await visit.ask("change_cube", cube=cube, body=_body(values, with_id=False), seen=tag)
        except (InvalidError, ConflictError, PreconditionFailedError) as error:
            return self._form(visit, values, made=cube, tag=tag, error=error)
        return visit.go(_path(cube), "Saved")

    @page("POST", "/cubes/<cube>/register")
    async def register(self, visit: Visit, cube: str) -> Answer:
        try:
            registration = await visit.ask("register_cube", cube=cube)
        except ConflictError as error:
            return visit.go(_path(cube), error.message, kind="failed")
        if registration.state.value == "registered":
            return visit.go(_path(cube), "The gateway has registered us")
        words = registration.last_error or registration.reason
        return visit.go(_path(cube), f"The gateway did not register us: {words}", kind="failed")

    @page("POST", "/cubes/<cube>/remove")
    async def remove(self, visit: Visit, cube: str) -> Answer:
        try:
            await visit.ask("delete_cube", cube=cube, seen=visit.form.text("tag"))
        except (ConflictError, PreconditionFailedError) as error:
            return visit.go(_path(cube), error.message, kind="failed")
        return visit.go(
            "/cubes", f"Cube {cube} is removed. What it told stays until it is past its retention"
        )

    def _form(
        self,
        visit: Visit,
        values: dict[str, Any],
        *,
        made: str | None,
        tag: str = "",
        error: ApiError | None = None,
    ) -> Answer:
        fields = Problems() if error is None else by_field(error.fields)
        if error is not None and error.code == "conflict" and not fields and made is None:
            fields["id"] = error.message
        return visit.show(
            "cube_form.html",
            status=200 if error is None else error.status,
            values=values,
            made=made,
            tag=tag,
            error=error,
            wrong=fields,
            fields=FIELDS,
            secure=_is_secure(values) or bool(set(_SECURE) & {key.partition("[")[0] for key in fields}),
            offered=self._offered(visit, "NAME"),
            near=urlsplit(visit.origin).hostname in ("localhost", "127.0.0.1", "::1"),
        )

    def _offered(self, visit: Visit, id: str) -> str:
        """
        The application URL for a cube of that id: our host as the browser calls it, and the gateways' port.

        Empty if that cannot be told.
        """
        host = urlsplit(visit.origin).hostname or ""
        if not _HOST.fullmatch(host):
            return ""
        kind, arguments = endpoint_parts(self._desk.settings.listen.cubes[0])
        scheme = {"tcp": "http", "tcp6": "http", "ssl": "https"}.get(kind)
        if scheme is None:
            return ""
        name = _ID.sub("-", id.lower()) if id != "NAME" else id
        return f"{scheme}://{host}:{arguments['port']}/xcc/{name}"


def _is_secure(values: dict[str, Any]) -> bool:
    """Whether anything is there that is for secure mode."""
    given = any(values[name] for name in _SECURE if name != "tls_minimum")
    https = values["provider_url"].startswith("https:")
    return given or https or values["tls_minimum"] not in ("", DEFAULT_TLS)


def _values(form: Form) -> dict[str, Any]:
    values: dict[str, Any] = {name: form.text(name) for name in FIELDS}
    values |= {name: form.raw(name) for name in _LISTS}
    values["enabled"] = form.checked("enabled")
    return values


def _body(values: dict[str, Any], *, with_id: bool) -> dict[str, Any]:
    body = {
        "provider_url": values["provider_url"],
        "application_url": values["application_url"],
        "description": values["description"],
        "default_region": values["default_region"].upper() or None,
        "allow_from": values["allow_from"].replace(",", " ").split(),
        "enabled": values["enabled"],
        # With or without what OpenSSL prints before it.
        "pins": _PIN_LABEL.sub("", values["pins"]).replace(",", " ").split(),
        "tls_minimum": values["tls_minimum"] or DEFAULT_TLS,
    }
    body |= {name: values[name] or None for name in ("ca_file", "client_certificate", "client_key")}
    return {"id": values["id"], **body} if with_id else body


def _path(cube: str) -> str:
    return f"/cubes/{quote(cube, safe='')}"


def _in_the_file(cube: str) -> str:
    return f"Cube {cube} stands in the configuration file: change [cubes.{cube}] there, and start again"
