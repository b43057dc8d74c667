"""
Reading a configuration file: TOML in, `Config` out, or every error in it at once.

The structs of `cubehook.config` are all that is known of the keys: a field's type, bounds,
rule and default are read from there.  A tuple of structs is written as a table of tables,
each under its id.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from cubehook.config import Config, Webhook
from cubehook.config_checks import Checks, WebhookCheck
from cubehook.config_rules import rule_of
from cubehook.config_words import (
    ANY,
    ID_WORDS,
    Problem,
    described,
    hint,
    in_line,
    joined,
    kind_of,
    of_union,
    presented,
    shown,
)

PLACES: Final = (Path("cubehook.toml"), Path("/etc/cubehook/cubehook.toml"))
"""Where a configuration is looked for when none is named."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class ConfigErrors(Exception):  # noqa: N818 - it is many
    """A configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{in_line(str(self.path))}: {count} error{'s' if count != 1 else ''}"]
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
        raise ConfigErrors(path, [Problem("", "TOML", in_line(str(error)))]) from None


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
            raise self._fail(key, "a table", kind_of(table))
        fields = {field.name: field for field in kind.fields if field.name not in given}
        for name in (name for name in table if name not in fields):
            self._note(joined(key, name), "a known key" + hint(name, fields), "an unknown one")
        values = dict(given)
        for name, field in fields.items():
            try:
                values[name] = self.field(field, table, joined(key, name))
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
                return self._value(of_union(kind), found, key)
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
            raise self._fail(key, described(kind), kind_of(found))
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
            raise self._fail(key, described(kind), kind_of(found))
        rule = rule_of(getattr(kind.key_type, "extra", None))
        if isinstance(kind.key_type, inspect.EnumType):
            known = [member.value for member in kind.key_type.cls]
            for name in found:
                if name not in known:
                    self._note(joined(key, name), described(kind.key_type), "another name")
            found = {kind.key_type.cls(name): item for name, item in found.items() if name in known}
        if rule is not None:
            for name in found:
                try:
                    rule.read(name)
                except ValueError:
                    self._note(joined(key, name), rule.expected, "another name")
        values = self._each((joined(key, name), kind.value_type, item) for name, item in found.items())
        return dict(zip(found, list(values), strict=True))

    def _keyed(self, kind: inspect.StructType, found: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(found, dict):
            raise self._fail(key, f"a table for each, such as [{key}.name]", kind_of(found))
        (id_field,) = (field for field in kind.fields if field.name == "id")
        made = []
        for name, table in found.items():
            path = joined(key, name)
            if not _text_fits(id_field.type, name):
                self._note(path, ID_WORDS, "another name")
            with suppress(_BrokenError):
                made.append(self.struct(kind, table, path, {"id": name}))
        return tuple(made)

    def _ruled(self, kind: inspect.Metadata, found: Any, key: str) -> Any:
        rule = rule_of(kind.extra)
        if rule is None:
            return self._value(kind.type, found, key)
        if not isinstance(found, str):
            raise self._fail(key, rule.expected, presented(kind, found))
        text = self._expanded(found, key)
        try:
            value = rule.read(text)
            return value if rule.resolve is None else rule.resolve(value, self._folder)
        except ValueError as error:
            why = f": {in_line(str(error))}" if str(error) else ""
            raise self._fail(key, rule.expected, presented(kind, found) + why) from None

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
                    raise self._fail(key, described(kind), shown(found))
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
            raise self._fail(key, described(kind), shown(found))
        return value

    def _free(self, found: Any, key: str) -> Any:
        # What belongs to a transport keeps its shape; only variables are filled in.
        match found:
            case str():
                return self._expanded(found, key)
            case list():
                return list(self._each((f"{key}[{n}]", ANY, item) for n, item in enumerate(found)))
            case dict():
                values = self._each((joined(key, name), ANY, item) for name, item in found.items())
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
