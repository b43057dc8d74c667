"""
Reading a configuration file: TOML in, `Config` out, or every error in it at once.

The structs of `cubehook.config` are all that is known of the keys: a field's type, bounds,
rule and default are read from there.  A tuple of structs is written as a table of tables,
each under its id.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect

from cubehook.config import ID_PATTERN, Config, Cube, Listen, Manhole, Webhook
from cubehook.config_rules import is_local, is_tls, rule_of
from cubehook.delivery.signing import decode_secret
from cubehook.delivery.templates import KEYS as PAYLOAD_KEYS
from cubehook.delivery.templates import mistakes as payload_mistakes

PLACES: Final = (Path("cubehook.toml"), Path("/etc/cubehook/cubehook.toml"))
"""Where a configuration is looked for when none is named."""

WebhookCheck: TypeAlias = Callable[[Webhook], Iterable[tuple[str, str]]]
"""What is wrong with a webhook in its transport's eyes: (key, what was expected) pairs."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHOWN = 80


class Problem(msgspec.Struct, frozen=True):
    """
    One thing that is wrong: where, what was expected, and what is there.

    `key` is the dotted path in the file (`webhooks.crm.states[0]`), empty for the file as
    a whole.  No part repeats a secret.
    """

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}expected {self.expected}; found {self.found}"


class ConfigErrors(Exception):  # noqa: N818 - it is many
    """A configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{_printable(str(self.path))}: {count} error{'s' if count != 1 else ''}"]
        lines += [f"  {problem}" for problem in self.problems]
        return "\n".join(lines)


def find() -> Path | None:
    """The first of `PLACES` that exists; None if none does."""
    return next((place for place in PLACES if _is_there(place)), None)


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:
        # Not ours to look at: reading it will say so, where passing over it would start with defaults.
        return True


def defaults(folder: Path) -> Config:
    """The built-in settings, with relative paths starting from `folder`."""
    return Config(state_dir=folder.absolute() / Config().state_dir)


def load(path: Path) -> Config:
    """`read` with the transports that are installed and the process's environment."""
    from cubehook.transports.registry import check_webhook, find_transports

    plugins, unusable = find_transports()

    def check(webhook: Webhook) -> Iterable[tuple[str, str]]:
        for key, expected in check_webhook(webhook, plugins):
            if key == "transport" and unusable:
                expected += f" ({'; '.join(unusable)})"
            yield key, expected

    return read(path, check, os.environ)


def read(path: Path, check_webhook: WebhookCheck, environ: Mapping[str, str]) -> Config:
    """
    The configuration in the file at `path`.

    `${NAME}` in any text is replaced from `environ`; `$${` stands for `${`.  Relative paths
    start from the file's folder.  `check_webhook` judges what belongs to a transport.
    Raises `ConfigErrors` with every problem.
    """
    table = _table_of(path)
    reader = _Reader(path.absolute().parent, environ)
    config: Config = reader.struct(inspect.type_info(Config), table, "", {"source": path.absolute()})
    Checks(reader.problems, table).config(config, check_webhook)
    if reader.problems:
        raise ConfigErrors(path, reader.problems)
    return config


def state_dir(path: Path, environ: Mapping[str, str]) -> Path:
    """
    The state folder of a service that runs with the file at `path`.

    Nothing else in the file needs to be right, nor the environment the service's.  Raises `ConfigErrors`.
    """
    reader = _Reader(path.absolute().parent, environ)
    kind: Any = inspect.type_info(Config)
    (field,) = (field for field in kind.fields if field.name == "state_dir")
    folder: Path
    try:
        folder = reader.field(field, _table_of(path), "state_dir")
    except _BrokenError:
        raise ConfigErrors(path, reader.problems) from None
    if reader.problems:
        raise ConfigErrors(path, reader.problems)
    return folder


def _table_of(path: Path) -> dict[str, Any]:
    """What the file at `path` holds; ConfigErrors if it is no TOML that can be read."""
    try:
        text = path.read_bytes().decode("utf-8")
        return tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigErrors(path, [Problem("", "a file that can be read", reason)]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"a byte that is not UTF-8 on line {line}"
        raise ConfigErrors(path, [Problem("", "text in UTF-8", found)]) from None
    except RecursionError:
        raise ConfigErrors(path, [Problem("", "TOML", "lists or tables nested too deeply")]) from None
    except ValueError as error:  # also for a number of thousands of digits
        raise ConfigErrors(path, [Problem("", "TOML", _printable(str(error)))]) from None


class _BrokenError(Exception):
    """A value was of no use; its problems are noted already."""


class _Reader:
    """Turns TOML's values into those of the structs, and notes what is wrong on the way."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._folder = folder
        self._environ = environ

    def _note(self, key: str, expected: str, found: str) -> None:
        self.problems.append(Problem(key, expected, found))

    def _fail(self, key: str, expected: str, found: str) -> _BrokenError:
        self._note(key, expected, found)
        return _BrokenError()

    # Containers go on after an error to find the next; what was broken in them is left out.

    def struct(self, kind: Any, table: Any, key: str, given: Mapping[str, object]) -> Any:
        """
        An instance of a struct; `given` are fields that are not written in the table.

        A broken field has its default, or an empty text where there is none, so that the
        others can still be checked.
        """
        if not isinstance(table, dict):
            raise self._fail(key, "a table", _kind(table))
        fields = {field.name: field for field in kind.fields if field.name not in given}
        for name in (name for name in table if name not in fields):
            self._note(_join(key, name), "a known key" + hint(name, fields), "an unknown one")
        values = dict(given)
        for name, field in fields.items():
            try:
                values[name] = self.field(field, table, _join(key, name))
            except _BrokenError:
                if field.required:
                    values[name] = ""
        return kind.cls(**values)

    def field(self, field: inspect.Field, table: dict[str, Any], key: str) -> Any:
        """The value of a struct's field, of its default if it is not in the table."""
        if field.name in table:
            return self._value(field.type, table[field.name], key)
        if isinstance(field.type, inspect.StructType):
            return self._value(field.type, {}, key)
        if field.required:
            raise self._fail(key, described(field.type), "nothing")
        if isinstance(field.default, Path):
            return self._folder / field.default
        return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()

    def _value(self, kind: Any, found: Any, key: str) -> Any:
        match kind:
            case inspect.Metadata():
                return self._ruled(kind, found, key)
            case inspect.UnionType():
                return self._value(_member(kind), found, key)
            case inspect.StructType():
                return self.struct(kind, found, key, {})
            case inspect.VarTupleType(item_type=inspect.StructType() as item):
                return self._keyed(item, found, key)
            case inspect.VarTupleType():
                return self._list(kind, found, key)
            case inspect.DictType():
                return self._table(kind, found, key)
            case inspect.CustomType() if kind.cls is object:
                return self._free(found, key)
            case _:
                return self._scalar(kind, found, key)

    def _list(self, kind: inspect.VarTupleType, found: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(found, list):
            raise self._fail(key, described(kind), _kind(found))
        if len(found) < (kind.min_length or 0):
            raise self._fail(key, described(kind), "an empty list")
        return tuple(self._each((f"{key}[{n}]", kind.item_type, item) for n, item in enumerate(found)))

    def _each(self, items: Iterable[tuple[str, Any, Any]]) -> Iterable[Any]:
        whole = True
        for key, kind, item in items:
            try:
                yield self._value(kind, item, key)
            except _BrokenError:
                whole = False
        if not whole:
            raise _BrokenError

    def _table(self, kind: inspect.DictType, found: Any, key: str) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self._fail(key, described(kind), _kind(found))
        rule = rule_of(getattr(kind.key_type, "extra", None))
        if isinstance(kind.key_type, inspect.EnumType):
            known = [member.value for member in kind.key_type.cls]
            for name in found:
                if name not in known:
                    self._note(_join(key, name), described(kind.key_type), "another name")
            found = {kind.key_type.cls(name): item for name, item in found.items() if name in known}
        if rule is not None:
            for name in found:
                try:
                    rule.read(name)
                except ValueError:
                    self._note(_join(key, name), rule.expected, "another name")
        values = self._each((_join(key, name), kind.value_type, item) for name, item in found.items())
        return dict(zip(found, list(values), strict=True))

    def _keyed(self, kind: inspect.StructType, found: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(found, dict):
            raise self._fail(key, f"a table for each, such as [{key}.name]", _kind(found))
        (id_field,) = (field for field in kind.fields if field.name == "id")
        made = []
        for name, table in found.items():
            path = _join(key, name)
            if not _text_fits(id_field.type, name):
                self._note(path, _ID_WORDS, "another name")
            with suppress(_BrokenError):
                made.append(self.struct(kind, table, path, {"id": name}))
        return tuple(made)

    def _ruled(self, kind: inspect.Metadata, found: Any, key: str) -> Any:
        rule = rule_of(kind.extra)
        if rule is None:
            return self._value(kind.type, found, key)
        if not isinstance(found, str):
            raise self._fail(key, rule.expected, _presented(kind, found))
        text = self._expanded(found, key)
        try:
            value = rule.read(text)
            return value if rule.resolve is None else rule.resolve(value, self._folder)
        except ValueError as error:
            why = f": {_printable(str(error))}" if str(error) else ""
            raise self._fail(key, rule.expected, _presented(kind, found) + why) from None

    def _scalar(self, kind: Any, found: Any, key: str) -> Any:
        value = found
        match kind:
            case inspect.BoolType():
                fits = isinstance(found, bool)
            case inspect.IntType():
                fits = isinstance(found, int) and not isinstance(found, bool) and _within(kind, found)
            case inspect.FloatType():
                fits = isinstance(found, int | float) and not isinstance(found, bool) and _within(kind, found)
                value = float(found) if fits else None
            case _:
                if not isinstance(found, str):
                    raise self._fail(key, described(kind), _shown(found))
                value = self._expanded(found, key)
                match kind:
                    case inspect.StrType():
                        fits = _text_fits(kind, value)
                    case inspect.LiteralType():
                        fits = value in kind.values
                    case inspect.EnumType():
                        fits = value in {member.value for member in kind.cls}
                        value = kind.cls(value) if fits else None
                    case inspect.CustomType() if kind.cls is Path:
                        fits = value != "" and "\0" not in value
                        value = self._folder / value
                    case _:
                        raise TypeError(f"{key}: a field of a type that no file can give: {kind}")
        if not fits:
            raise self._fail(key, described(kind), _shown(found))
        return value

    def _free(self, found: Any, key: str) -> Any:
        # What belongs to a transport keeps its shape; only variables are filled in.
        match found:
            case str():
                return self._expanded(found, key)
            case list():
                return list(self._each((f"{key}[{n}]", _ANY, item) for n, item in enumerate(found)))
            case dict():
                values = self._each((_join(key, name), _ANY, item) for name, item in found.items())
                return dict(zip(found, list(values), strict=True))
            case _:
                return found

    def _expanded(self, text: str, key: str) -> str:
        if "${" not in text:
            return text
        whole = True

        def replace(match: re.Match[str]) -> str:
            nonlocal whole
            if match[0] == "$${":
                return "${"
            if not match[2] or not _VARIABLE_NAME.fullmatch(match[1]):
                self._note(key, "${NAME}, or $${ where ${ itself is meant", "something else after ${")
            elif match[1] not in self._environ:
                self._note(key, f"the environment variable {match[1]}", "none of that name")
            elif not _is_text(self._environ[match[1]]):
                self._note(key, f"text in UTF-8 in the environment variable {match[1]}", "other bytes")
            else:
                return self._environ[match[1]]
            whole = False
            return ""

        expanded = _VARIABLE.sub(replace, text)
        if not whole:
            raise _BrokenError
        return expanded


def _is_text(value: str) -> bool:
    # Bytes that are none come out of the environment as halves of surrogate pairs.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Checks:
    """Notes what is wrong although each field is right by itself."""

    def __init__(self, problems: list[Problem], table: dict[str, Any]) -> None:
        self._problems = problems
        self._table = table

    def config(self, config: Config, check_webhook: WebhookCheck) -> None:
        """Note everything that is wrong with `config`, whose broken fields have their defaults."""
        self._listen(config.listen)
        self.cubes(config.cubes)
        for webhook in config.webhooks:
            self.webhook(webhook, check_webhook)
        self._manhole(config.manhole)

    def _note(self, expected: str, *path: str | int, found: str | None = None) -> None:
        # What is wrong with a broken field was said already; its default is no news.
        key = _path(path)
        if not self._is_noted(key):
            self._problems.append(Problem(key, expected, self._found(path) if found is None else found))

    def _is_noted(self, key: str) -> bool:
        inside = (f"{key}.", f"{key}[")
        return any(problem.key == key or problem.key.startswith(inside) for problem in self._problems)

    def _found(self, path: Sequence[str | int]) -> str:
        found: Any = self._table
        kind: Any = inspect.type_info(Config)
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return "nothing"
            kind = _inner(kind, step)
        return _presented(kind, found)

    def _listen(self, listen: Listen) -> None:
        taken: dict[str, str] = {}
        for name in ("cubes", "console"):
            endpoints = getattr(listen, name)
            if any(problem.key.startswith(f"listen.{name}") for problem in self._problems):
                # A broken list has the default, which nobody asked for; what was written can be compared.
                written = self._table["listen"].get(name)
                endpoints = map(str, written) if isinstance(written, list) else ()
            for number, endpoint in enumerate(endpoints):
                path = ("listen", name, number)
                other = taken.setdefault(endpoint, _path(path))
                if other != _path(path):
                    self._note("an endpoint of its own", *path, found=f"that of {other}")
                self._tls_files(endpoint, path)
        if listen.client_ca is not None:
            self._client_ca(listen)

    def _tls_files(self, endpoint: str, path: tuple[str, str, int]) -> None:
        if not is_tls(endpoint) or self._is_noted(_path(path)):
            return
        from cubehook.net.server_tls import problem

        wrong = problem(endpoint)
        if wrong is not None:
            self._note("a certificate and its key in PEM files", *path, found=_printable(wrong))

    def _client_ca(self, listen: Listen) -> None:
        from cubehook.net.certificates import TlsFileError, read_certificates

        if not any(map(is_tls, listen.cubes)):
            self._note("an endpoint with privateKey in listen.cubes, to be for", "listen", "client_ca")
            return
        try:
            read_certificates("", listen.client_ca)  # type: ignore[arg-type]
        except TlsFileError as error:
            found = str(error).removeprefix(": ")
            self._note("authorities in a PEM file", "listen", "client_ca", found=_printable(found))

    def cubes(self, cubes: Sequence[Cube]) -> None:
        """Note which of `cubes` cannot be there beside those before it."""
        taken: dict[str, str] = {}
        for cube in cubes:
            other = taken.setdefault(cube.application_url, cube.id)
            if other != cube.id:
                self._note(
                    "a URL of its own",
                    *("cubes", cube.id, "application_url"),
                    found=f"that of {_path(('cubes', other))}",
                )
            self._secure_mode(cube)

    def _secure_mode(self, cube: Cube) -> None:
        path = ("cubes", cube.id)
        given = [name for name in ("pins", "ca_file", "client_certificate") if getattr(cube, name)]
        if cube.tls_minimum != "1.2":
            given.append("tls_minimum")
        if given and not cube.provider_url.startswith("https://"):
            self._note(f"an https:// URL, as {given[0]} is set", *path, "provider_url")
        if cube.client_key is not None and cube.client_certificate is None:
            self._note("the certificate that client_key belongs to", *path, "client_certificate")
        if cube.pins and cube.ca_file is not None:
            self._note("no file, as pins decide alone", *path, "ca_file")

    def webhook(self, webhook: Webhook, check_webhook: WebhookCheck) -> None:
        """Note everything that is wrong with `webhook`."""
        path = ("webhooks", webhook.id)
        known = self._table.get("cubes", {})
        for number, cube in enumerate(webhook.cubes):
            if isinstance(known, dict) and cube not in known:
                expected = "the id of a cube in this file" + hint(cube, known)
                self._note(expected, *path, "cubes", number)
        names: dict[str, str] = {}
        for name in webhook.headers:
            other = names.setdefault(name.lower(), name)
            if other != name:
                self._note("each header once", *path, "headers", name, found=f"{other} as well")
        if webhook.secret is not None:
            try:
                decode_secret(webhook.secret)
            except ValueError as error:
                found = f"a text that is not shown: {error}"
                self._note("whsec_ and the base64 of 24 to 64 bytes", *path, "secret", found=found)
        self._payload(webhook, path)
        for key, expected in check_webhook(webhook):
            self._note(_printable(expected), *path, *key.split(".", 1))

    def _payload(self, webhook: Webhook, path: tuple[str, str]) -> None:
        if any(self._is_noted(_path((*path, key))) for key in PAYLOAD_KEYS):
            return
        for key, expected, line in payload_mistakes(webhook):
            # There may be several in one template.
            found = self._found((*path, key)) if line is None else self._line((*path, key), line)
            self._problems.append(Problem(_path((*path, key)), _printable(expected), found))

    def _line(self, path: Sequence[str], number: int) -> str:
        """Line `number` of a text as it is in the file, its variables not filled in."""
        text: Any = self._table
        for step in path:
            text = text[step]
        lines = text.split("\n")
        return _shown(lines[number - 1].strip()) if number <= len(lines) else "another text"

    def _manhole(self, manhole: Manhole) -> None:
        if manhole.ssh is not None and manhole.authorized_keys is None:
            self._note("a file of public keys, as manhole.ssh is open", "manhole", "authorized_keys")
        if manhole.telnet is not None and manhole.password_file is None:
            self._note("a file of user:hash lines, as manhole.telnet is open", "manhole", "password_file")
        if manhole.telnet is not None and not is_local(manhole.telnet):
            self._note("a loopback interface or a unix: socket, as telnet is clear text", "manhole", "telnet")
        for name in ("authorized_keys", "password_file"):
            path = getattr(manhole, name)
            if path is not None and not path.is_file():
                self._note("a file that exists", "manhole", name)


_ANY: Final = inspect.CustomType(object)
_ID_WORDS: Final = "an id: small letters, digits, _ and -, the first a letter or digit, 64 at most"


def _within(kind: Any, value: float) -> bool:
    # Written so that a NaN is never within, nor what is too large for a float.
    return (
        -sys.float_info.max <= value <= sys.float_info.max
        and (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    )


def _text_fits(kind: Any, text: str) -> bool:
    return (
        (kind.pattern is None or re.search(kind.pattern, text) is not None)
        and len(text) >= (kind.min_length or 0)
        and (kind.max_length is None or len(text) <= kind.max_length)
    )


def described(kind: Any) -> str:
    """What a value of this type looks like in the file."""
    match kind:
        case inspect.Metadata():
            rule = rule_of(kind.extra)
            return rule.expected if rule else described(kind.type)
        case inspect.UnionType():
            members = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            return " or ".join(map(described, members))
        case inspect.StrType() if kind.pattern is not None:
            return _ID_WORDS if kind.pattern == ID_PATTERN else f"a text that matches {kind.pattern}"
        case inspect.StrType() if kind.min_length or kind.max_length is not None:
            most = "" if kind.max_length is None else f" to {kind.max_length}"
            return f"a text of {kind.min_length or 0}{most or ' or more'} characters"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(kind)
        case inspect.FloatType():
            return "a number" + _bounds(kind)
        case inspect.LiteralType():
            return "one of " + ", ".join(_quoted(str(value)) for value in kind.values)
        case inspect.EnumType():
            return "one of " + ", ".join(_quoted(member.value) for member in kind.cls)
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType():
            least = f" with at least {kind.min_length}" if kind.min_length else ""
            return f"a list{least}, each {described(kind.item_type)}"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.CustomType() if kind.cls is Path:
            return "a path"
        case _:
            return "a text"


def _bounds(kind: Any) -> str:
    least = kind.ge if kind.ge is not None else kind.gt
    most = kind.le if kind.le is not None else kind.lt
    above = "above " if kind.gt is not None else ""
    if least is not None and most is not None:
        return f" {above or 'from '}{least} {'up ' if above else ''}to {most}"
    return "" if least is None else f" {above or 'of at least '}{least}"


def hint(name: str, known: Iterable[str]) -> str:
    """The one of `known` that `name` may have been meant for, else all of them, for the end of a phrase."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    if close:
        return f", perhaps {_join('', close[0])}"
    return f" ({', '.join(_join('', each) for each in names)})" if names else ""


def _join(key: str, name: str) -> str:
    written = name if _BARE_KEY.fullmatch(name) else _quoted(name)
    return f"{key}.{written}" if key else written


def _path(steps: Iterable[str | int]) -> str:
    key = ""
    for step in steps:
        key = f"{key}[{step}]" if isinstance(step, int) else _join(key, step)
    return key


def _inner(kind: Any, step: str | int) -> Any:
    """The type of what is found at `step` inside a value of type `kind`."""
    match kind:
        case inspect.Metadata():
            return _inner(kind.type, step)
        case inspect.UnionType():
            return _inner(_member(kind), step)
        case inspect.StructType():
            return next((field.type for field in kind.fields if field.name == step), _ANY)
        case inspect.VarTupleType():
            return kind.item_type
        case inspect.DictType():
            return kind.value_type
        case _:
            return _ANY


def _member(kind: inspect.UnionType) -> Any:
    # A union here is a type or None, and None is not written in TOML: a field's default only.
    (member,) = (member for member in kind.types if not isinstance(member, inspect.NoneType))
    return member


def _presented(kind: Any, found: Any) -> str:
    """A value of the file as an error may show it."""
    match kind:
        case inspect.UnionType():
            return _presented(_member(kind), found)
        case inspect.Metadata() if (rule := rule_of(kind.extra)) is not None:
            if not isinstance(found, str):
                return _kind(found)
            return _quoted(rule.show(found)) if rule.show else "a text that is not shown"
        case inspect.Metadata():
            return _presented(kind.type, found)
        case inspect.CustomType() if kind.cls is object:
            return _kind(found)
        case _:
            return _shown(found)


def _kind(found: Any) -> str:
    match found:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _shown(found: Any) -> str:
    match found:
        case bool():
            return "true" if found else "false"
        case int() | float():
            return str(found)[:_SHOWN]
        case str():
            return _quoted(found)
        case _:
            return _kind(found)


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= _SHOWN else text[:_SHOWN] + "...", ensure_ascii=True)


def _printable(text: str) -> str:
    return text if text.isprintable() else _quoted(text)
