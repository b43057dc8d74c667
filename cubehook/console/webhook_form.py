"""A webhook's settings as the fields of a form, and back as a client of the API would write them.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from msgspec import structs

from cubehook.api.settings import shown_duration
from cubehook.config import Breaker, Delivery
from cubehook.console.options import Transport, given, shown
from cubehook.console.routes import Form
from cubehook.events import CallState, NoticeType

STATES = tuple(state.value for state in CallState)
NOTICES = tuple(notice.value for notice in NoticeType)
METHODS = ("POST", "PUT", "PATCH")

PAYLOADS = (
    ("basic", "Basic", "the state, both numbers and the time: what simple CRMs expect"),
    ("full", "Full", "all that is known of the call and its legs"),
    ("slack", "Slack", "a message for an incoming webhook"),
    ("teams", "Teams", "a card for the Workflows app"),
    ("form", "Form", "flat fields, as an HTML form sends them"),
    ("template", "Own template", "a body that you write"),
)
"""Choices of a payload: the value, its name, and what it is for.  Some are presets."""

_PRESETS = ("slack", "teams", "form")

BREAKER = ("failures", "share", "minimum", "window", "first", "longest")
"""The keys of a webhook's breaker; each has a field `breaker.KEY`."""


class Header(NamedTuple):
    """A header as a row of the form: what is kept and not shown has `***` for its value."""

    name: str
    value: str


class Fields:
    """
    The form's fields; what a template reads.

    Everything but `enabled` and `headers` is a text or a list of texts; `options` are by their fields'
    names.
    """

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.description = ""
        self.enabled = True
        self.url = ""
        self.method = "POST"
        self.transport = "http"
        self.states: list[str] = list(STATES)
        self.cubes: list[str] = []
        self.granularity = "call"
        self.notices: list[str] = []
        self.headers: list[Header] = []
        self.payload = "basic"
        self.template = ""
        self.encoding = "json"
        self.secret = ""
        self.options: dict[str, str] = {}
        self.timeout = ""
        self.retry = ""
        self.jitter = ""
        self.concurrency = ""
        self.disable_after = ""
        self.expire: dict[str, str] = {}
        self.breaker: dict[str, str] = {}

    @property
    def advanced(self) -> bool:
        """Whether anything is set that most webhooks leave to the defaults."""
        texts = (self.timeout, self.retry, self.jitter, self.concurrency, self.disable_after, self.secret)
        return any(texts) or any(self.expire.values()) or any(self.breaker.values())

    @classmethod
    def of(cls, webhook: Any, transports: Mapping[str, Transport]) -> Fields:
        """Those of a webhook as the API shows it."""
        fields = cls()
        for name in ("id", "name", "description", "url", "method", "transport"):
            setattr(fields, name, getattr(webhook, name))
        fields.enabled = webhook.enabled
        fields.states = [str(state) for state in webhook.states]
        fields.cubes = list(webhook.cubes)
        fields.granularity = str(webhook.granularity)
        fields.notices = [str(notice) for notice in webhook.notices]
        fields.headers = [Header(name, value) for name, value in webhook.headers.items()]
        preset = webhook.preset
        fields.payload = preset if webhook.payload == "template" and preset is not None else webhook.payload
        fields.template = webhook.template or ""
        fields.encoding = webhook.encoding
        transport = transports.get(webhook.transport)
        if transport is not None:
            fields.options = {
                option.field: shown(option, webhook.options.get(option.key)) for option in transport.options
            }
        fields.timeout = _number(webhook.timeout)
        fields.retry = "" if webhook.retry is None else ", ".join(map(_number, webhook.retry))
        fields.jitter = "" if webhook.jitter is None else _number(round(webhook.jitter * 100, 6))
        fields.concurrency = _number(webhook.concurrency)
        fields.disable_after = webhook.disable_after or ""
        fields.expire = {str(state): _number(seconds) for state, seconds in webhook.expire.items()}
        if webhook.breaker is not None:
            fields.breaker = breaker_shown(webhook.breaker)
        return fields

    @classmethod
    def sent(cls, form: Form, transports: Mapping[str, Transport]) -> Fields:
        """Those that were sent."""
        fields = cls()
        for name in (
            "id", "name", "description", "url", "method", "transport", "granularity", "payload", "encoding",
            "secret", "timeout", "retry", "jitter", "concurrency", "disable_after",
        ):  # fmt: skip
            setattr(fields, name, form.text(name, getattr(fields, name)))
        fields.enabled = form.checked("enabled")
        fields.states = form.all("states")
        fields.cubes = [cube for cube in form.all("cubes") if cube]
        fields.notices = form.all("notices")
        fields.template = form.raw("template")
        pairs = zip(form.all("header-name"), form.all("header-value"), strict=False)
        fields.headers = [Header(name, value) for name, value in pairs if name or value]
        fields.expire = {state: form.text(f"expire.{state}") for state in STATES}
        fields.breaker = {key: form.text(f"breaker.{key}") for key in BREAKER}
        transport = transports.get(fields.transport)
        if transport is not None:
            fields.options = {
                option.field: ("yes" if form.checked(option.field) else "")
                if option.kind == "tick"
                else form.text(option.field)
                for option in transport.options
            }
        return fields

    def body(
        self, form: Form, transports: Mapping[str, Transport], breaker: Breaker, *, new: bool
    ) -> dict[str, Any]:
        """
        What the API is sent to make the webhook, or to change one.

        `breaker` is what the service has for webhooks without one: it fills in what was left empty of one.
        """
        transport = transports.get(self.transport)
        body: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "url": self.url,
            "method": self.method,
            "transport": self.transport,
            "states": self.states,
            "cubes": self.cubes,
            "granularity": self.granularity,
            "notices": self.notices,
            "headers": {header.name: header.value for header in self.headers},
            "encoding": self.encoding,
            "options": {} if transport is None else given(transport, form),
            "timeout": _value(self.timeout),
            "retry": _list(self.retry),
            "jitter": _share(self.jitter),
            "concurrency": _value(self.concurrency),
            "disable_after": self.disable_after or None,
            "expire": {state: _value(text) for state, text in self.expire.items() if text},
            "breaker": self._breaker(breaker),
            **self._payload(),
        }
        if transport is None:
            # It is not installed, so that the form has no fields for them: they stay as they are.
            del body["options"]
        if new:
            body["id"] = self.id
            if self.secret:
                body["secret"] = self.secret
        return body

    def _breaker(self, fallback: Breaker) -> dict[str, Any] | None:
        typed = {key: text for key, text in self.breaker.items() if text}
        if not typed:
            return None
        given = {key: _share(text) if key == "share" else _value(text) for key, text in typed.items()}
        return structs.asdict(fallback) | given

    def _payload(self) -> dict[str, Any]:
        if self.payload in _PRESETS:
            # Only its own encoding goes with a preset, and that is what it has without being told.
            encoding = "form" if self.payload == "form" else "json"
            return {"payload": "template", "preset": self.payload, "template": None, "encoding": encoding}
        template = self.template if self.payload == "template" else None
        return {"payload": self.payload, "preset": None, "template": template or None}


def breaker_shown(breaker: Breaker) -> dict[str, str]:
    """A breaker's settings as their fields have them, the share in percent."""
    given = structs.asdict(breaker)
    return {key: _number(round(given[key] * 100, 6) if key == "share" else given[key]) for key in BREAKER}


def defaults_shown(delivery: Delivery) -> dict[str, Any]:
    """What holds for a webhook whose fields are left empty, by their names."""
    return {
        "retry": ", ".join(map(_number, delivery.retry)),
        "jitter": _number(round(delivery.jitter * 100, 6)),
        "timeout": _number(delivery.timeout),
        "concurrency": _number(delivery.concurrency),
        "disable_after": shown_duration(delivery.disable_after),
        "breaker": breaker_shown(delivery.breaker),
    }


def _number(value: float | None) -> str:
    """A number without what says nothing."""
    return "" if value is None else f"{value:g}" if value < 1e6 else str(int(value))


def _value(text: str) -> Any:
    """The number that `text` is; text that is none is left to the API, which tells what it wants."""
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if isfinite(value) else text


def _list(text: str) -> list[Any] | None:
    words = text.replace(",", " ").split()
    return [_value(word) for word in words] or None


def _share(text: str) -> Any:
    """A share of one, of a text in percent."""
    value = _value(text.removesuffix("%").strip())
    return value / 100 if isinstance(value, int | float) else value
