"""Fields of a form for what a transport's options may be, made from the struct that checks them.  Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import inspect

from cubehook.console.routes import Form
from cubehook.interfaces import ITransportPlugin
from cubehook.transports.discreet import is_secret_option
from cubehook.transports.registry import option_fields

Kind = Literal["text", "secret", "number", "tick", "choice", "list", "json"]


class Option(NamedTuple):
    """
    One option: its key, the kind of field, and what is said of it.

    `field` is the form's own name for it.  `default` is what holds if it is left empty, as it is shown.
    """

    key: str
    field: str
    kind: Kind
    about: str
    required: bool
    default: str
    choices: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The choices, each with its words: itself."""
        return [(choice, choice) for choice in self.choices]


class Transport(NamedTuple):
    """A transport that a webhook may choose."""

    name: str
    description: str
    about: str
    options: tuple[Option, ...]


def transport_of(plugin: ITransportPlugin) -> Transport:
    """`plugin` as the form shows it."""
    about = (plugin.options.__doc__ or "").strip().partition("\n\n")[2]
    return Transport(
        plugin.name,
        plugin.description,
        " ".join(about.split()),
        tuple(_option(plugin.name, field) for field in option_fields(plugin)),
    )


def _option(transport: str, field: inspect.Field) -> Option:
    kind, about = _plain(field.type)
    default = None if field.required or field.default is msgspec.NODEFAULT else field.default
    return Option(
        key=field.encode_name,
        field=f"options.{transport}.{field.encode_name}",
        kind=_kind(field.encode_name, kind),
        about=about,
        required=field.required,
        default="" if default in (None, "", False) or default == () else _shown(default),
        choices=tuple(str(each) for each in kind.values) if isinstance(kind, inspect.LiteralType) else (),
    )


def _plain(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """A type without what says that it may be None, and its description."""
    about = ""
    while True:
        if isinstance(kind, inspect.Metadata):
            about = about or (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            members = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            if len(members) != 1:
                return kind, about
            (kind,) = members
        else:
            return kind, about


def _kind(key: str, kind: inspect.Type) -> Kind:
    match kind:
        case inspect.BoolType():
            return "tick"
        case inspect.IntType() | inspect.FloatType():
            return "number"
        case inspect.LiteralType():
            return "choice"
        case inspect.StrType():
            return "secret" if is_secret_option(key) else "text"
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return "list" if isinstance(_plain(item)[0], inspect.StrType) else "json"
        case _:
            return "json"


def shown(option: Option, value: Any) -> str:
    """A value that an option has, as its field shows it; a tick is `yes` or empty."""
    if value is None:
        return ""
    if option.kind == "tick":
        return "yes" if value else ""
    if option.kind == "list" and isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    return _shown(value)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def given(transport: Transport, form: Form) -> dict[str, Any]:
    """The options that a form gives for a transport, as a client of the API would write them."""
    found: dict[str, Any] = {}
    for option in transport.options:
        if option.kind == "tick":
            if form.checked(option.field) or option.default == "true":
                found[option.key] = form.checked(option.field)
            continue
        text = form.text(option.field)
        if option.kind == "list":
            if text:
                found[option.key] = form.lines(option.field)
        elif text:
            found[option.key] = _value(option, text)
        elif option.required:
            found[option.key] = None
    return {key: value for key, value in found.items() if value is not None}


def _value(option: Option, text: str) -> Any:
    if option.kind in ("number", "json"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            # The API tells what it wanted in the place of this.
            return text
    return text
