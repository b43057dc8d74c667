"""
Settings of cubes and webhooks as the API takes and shows them.

They are those of the configuration file, in its words.  What is secret in them is shown as `***`, and
`***` given back means that it stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from cubehook import config
from cubehook.net.urls import MASK, masked_url
from cubehook.transports.discreet import is_secret_option

Settings = TypeVar("Settings", config.Cube, config.Webhook)

_ANYTHING = {"options": dict[str, Any]}
"""What no schema can tell the type of."""

# Of this process alone: nobody can find out secrets by trying what has the same tag.
_KEY = os.urandom(32)


class NewCube(config.Cube, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cube that is to be made, with the keys of the configuration file."""


class NewWebhook(config.Webhook, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook that is to be made, with the keys of the configuration file; it needs no `secret`."""

    # What they may be is their transport's to say.
    options: dict[str, Any] = {}


def _changes_of(kind: type[msgspec.Struct], name: str, text: str) -> Any:
    """A struct with the fields of `kind`, the id aside, each of which may be left out."""
    given = [
        (field.name, _ANYTHING.get(field.name, field.type) | msgspec.UnsetType, msgspec.UNSET)
        for field in structs.fields(kind)
        if field.name != "id"
    ]
    return msgspec.defstruct(
        name,
        given,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        module=__name__,
        namespace={"__doc__": text, "__repr__": lambda self: f"<{name}>"},
    )


CubeChanges: Any = _changes_of(
    config.Cube, "CubeChanges", "What is to change of a cube; what is not given stays as it is."
)
WebhookChanges: Any = _changes_of(
    config.Webhook,
    "WebhookChanges",
    "What is to change of a webhook; what is not given stays as it is, and so does what is given as `***`.",
)


def given(body: msgspec.Struct) -> dict[str, Any]:
    """What of `body` was given, by its key."""
    values = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: value for name, value in values.items() if value is not msgspec.UNSET}


def made(kind: type[Settings], body: msgspec.Struct) -> Settings:
    """The settings that `body` has all of."""
    return kind(**given(body))


def changed(settings: Settings, body: msgspec.Struct) -> Settings:
    """`settings` with what `body` gives; what is `***` there as it is shown stays what it is."""
    values = given(body)
    if isinstance(settings, config.Webhook):
        values = {name: _kept(name, value, settings) for name, value in values.items()}
    return structs.replace(settings, **values)


def masks_in(settings: config.Webhook) -> dict[str, str]:
    """Where `***` stands for nothing that there is, and what is wrong with that: by its key."""
    found = {f"headers.{name}": value for name, value in settings.headers.items() if value == MASK}
    if MASK in settings.url:
        found["url"] = settings.url
    found |= dict(_masks_in_options(settings.options, "options"))
    words = f"expected a value; found {MASK}, which stands for one that is kept, and there is none"
    return dict.fromkeys(found, words)


def _masks_in_options(options: Mapping[str, object], key: str) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, str) and (value == MASK or ("://" in value and MASK in value)):
            yield f"{key}.{name}", value
        elif isinstance(value, dict):
            yield from _masks_in_options(value, f"{key}.{name}")


def _kept(name: str, value: Any, settings: config.Webhook) -> Any:
    """The value of a setting that was given as `value`, with what is shown masked put back."""
    if name == "url" and value == masked_url(settings.url):
        return settings.url
    if name == "headers":
        by_name = {header.lower(): kept for header, kept in settings.headers.items()}
        return {
            header: by_name.get(header.lower(), text) if text == MASK else text
            for header, text in value.items()
        }
    if name == "options":
        return _put_back(value, shown_options(settings.options), settings.options)
    return value


def _put_back(value: Any, shown: Any, kept: Any) -> Any:
    if value == shown:
        return kept
    if isinstance(value, dict) and isinstance(shown, dict):
        return {
            name: _put_back(each, shown[name], kept[name]) if name in shown else each
            for name, each in value.items()
        }
    return value


def shown_options(options: Mapping[str, object]) -> dict[str, Any]:
    """A transport's options, with `***` for what may be secret."""
    return {name: _shown_option(name, value) for name, value in options.items()}


def _shown_option(name: str, value: object) -> Any:
    match value:
        case str() if "://" in value:
            return masked_url(value)
        case str() if is_secret_option(name):
            return MASK
        case dict():
            return shown_options(value)
        case list() | tuple():
            return [_shown_option(name, each) for each in value]
        case _:
            return value


def shown_duration(seconds: int) -> str:
    """`seconds` as they are written: `5d`, or `never` for 0."""
    if not seconds:
        return "never"
    for unit, of in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % of == 0:
            return f"{seconds // of}{unit}"
    return f"{seconds}s"


def tag(settings: config.Cube | config.Webhook) -> str:
    """Tells these settings from any others, be it only by their secrets; good until the next start."""
    return blake2b(msgspec.json.encode(settings), key=_KEY, digest_size=12).hexdigest()
