"""
Finding transports, checking a webhook against its own, and making it.

`cubehook.plugins` is a plugin package of `twisted.plugin`: what `getPlugins` finds in it is found here.  Two
things are done otherwise.  What is broken is told by name rather than as a traceback in the log; and
there is no `dropin.cache`, since every plugin is imported anyhow: a cache would only go stale, be left
behind, and not be writable where cubehook was installed by another user.
"""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
from msgspec import inspect
from twisted.logger import Logger
from twisted.python.modules import PythonModule, getModule
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import cubehook.plugins
from cubehook.config import Webhook
from cubehook.config_words import described
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin
from cubehook.text import printable
from cubehook.transports.discreet import Mask

_OURS: Final = "cubehook_transports"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PATH: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_TOLD: Final = 300

_log = Logger()


def find_transports(
    package: ModuleType = cubehook.plugins,
) -> tuple[dict[str, ITransportPlugin], list[str]]:
    """
    Every usable transport by its name, in the order of names, and what is wrong with the others.

    One that cannot be imported, does not keep to `ITransportPlugin`, or takes a name that is taken, is
    told as a problem and left out; the rest are not affected.  Tracebacks go to the log at level debug.
    """
    found: dict[str, tuple[str, ITransportPlugin]] = {}
    problems = list(_hidden(package))
    for module in _modules(package):
        path = module.filePath.path
        try:
            imported = importlib.import_module(module.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Also SystemExit: a script that was left in the folder must not end the service.
            _trace(f"importing {module.name}")
            problems.append(f"{module.name} ({path}) cannot be imported: {_told(error, path)}")
            continue
        for attribute, plugin in vars(imported).items():
            if not _offered(plugin) or any(plugin is known for _, known in found.values()):
                continue
            where = f"{module.name}.{attribute}"
            problem = plugin_problem(plugin)
            if problem is None and plugin.name in found:
                problem = f"the name {plugin.name!r} is taken by {found[plugin.name][0]}"
            if problem is None:
                found[plugin.name] = where, plugin
            else:
                problems.append(f"{where} ({path}) is not used: {problem}")
    return {name: found[name][1] for name in sorted(found)}, problems


def _modules(package: ModuleType) -> list[PythonModule]:
    """The modules of `package`, ours first, so that nothing installed later can take over `http`."""
    modules: list[PythonModule] = list(getModule(package.__name__).iterModules())
    return sorted(modules, key=lambda each: (each.name.rpartition(".")[2] != _OURS, each.name))


def _hidden(package: ModuleType) -> Iterator[str]:
    """What is wrong with modules that another one of the same name comes before."""
    first: dict[str, Path] = {}
    for folder in package.__path__:
        for path in sorted(Path(folder).resolve().glob("*.py")):
            other = first.setdefault(path.stem, path)
            if other != path and path.stem != "__init__":
                yield (
                    f"{package.__name__}.{path.stem} ({path}) is not used: {other} has the same name, and "
                    "comes first"
                )


def _offered(value: object) -> bool:
    try:
        return bool(ITransportPlugin.providedBy(value))
    except Exception:
        return False


def plugin_problem(plugin: Any) -> str | None:
    """Why `plugin` does not keep to `ITransportPlugin`, None if it does."""
    try:
        verifyObject(ITransportPlugin, plugin)
        name, description, options = plugin.name, plugin.description, plugin.options
    except Invalid as error:
        return " ".join(str(error).split())
    except Exception as error:
        return _told(error)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        return "its name is not a text of small letters, digits, _ and -, at most 64"
    if not (isinstance(description, str) and description.strip() and description.isprintable()):
        return "its description is not a line of text"
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        return "its options are not a msgspec.Struct"
    if not options.__struct_config__.forbid_unknown_fields:
        return "its options let misspelt keys pass: they need forbid_unknown_fields=True"
    try:
        msgspec.json.schema(options)
        msgspec.convert({}, options)
    except msgspec.ValidationError:
        pass  # something is required
    except Exception as error:
        return f"its options have a type that cannot be read from a configuration: {_told(error)}"
    return None


def check_webhook(webhook: Webhook, plugins: Mapping[str, ITransportPlugin]) -> list[tuple[str, str]]:
    """
    What is wrong with the settings that belong to the webhook's transport, as (key, what was
    expected) pairs; empty if nothing is.
    """
    plugin = plugins.get(webhook.transport)
    if plugin is None:
        return [("transport", f"one of the installed transports: {', '.join(sorted(plugins))}")]
    problems = _option_problems(webhook.options, plugin)
    if problems:
        return problems
    try:
        return [_pair(each) for each in plugin.check(webhook, _options(webhook, plugin))]
    except Exception as error:
        mask = Mask(webhook, () if webhook.secret is None else (webhook.secret,))
        _trace(f"the check of {plugin.name}", mask)
        told = _told(mask.error(error))
        return [("transport", f"settings that {plugin.name} can check; it failed with {told}")]


def create(
    webhook: Webhook, plugins: Mapping[str, ITransportPlugin], context: ITransportContext
) -> ITransport:
    """
    The transport of a webhook that passed `check_webhook`.

    Raises ValueError, for a person, if the plugin makes none or one that does not keep to `ITransport`.
    """
    plugin = plugins.get(webhook.transport)
    if plugin is None:
        raise ValueError(
            f"webhook {webhook.id}: the transport {webhook.transport!r} is not installed: install what "
            "has it and start again, or choose another"
        )
    try:
        transport = plugin.create(webhook, _options(webhook, plugin), context)
        verifyObject(ITransport, transport)
    except Exception as error:
        mask = Mask(webhook, context.secrets)
        _trace(f"making {plugin.name}", mask)
        error = mask.error(error)
        raise ValueError(
            f"webhook {webhook.id}: the transport {plugin.name} cannot be made: {_told(error)}"
        ) from error
    return transport


def _options(webhook: Webhook, plugin: ITransportPlugin) -> Any:
    return msgspec.convert(webhook.options, plugin.options)


def _option_problems(written: Mapping[str, object], plugin: ITransportPlugin) -> list[tuple[str, str]]:
    """Everything that the types of the plugin's options have against what was written."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(plugin.options)}
    shapes = option_fields(plugin)
    known = f"one of the options of {plugin.name}: {', '.join(fields)}"
    problems = [
        (f"options.{name}", known if fields else f"nothing: {plugin.name} has no options")
        for name in written
        if name not in fields
    ]
    for name, shape in zip(fields, shapes, strict=True):
        words = described(shape.type)
        if name not in written:
            if shape.required:
                problems.append((f"options.{name}", f"{words}, which it must have"))
            continue
        try:
            msgspec.convert(written[name], fields[name].type)
        except msgspec.ValidationError as error:
            # Deeper than the option itself, only msgspec knows what it minds.
            deeper = _PATH.fullmatch(str(error))
            if deeper is not None:
                words = f"{words} (at {deeper[2].lstrip('.')}: {deeper[1]})"
            problems.append((f"options.{name}", words))
    if not problems:
        try:
            msgspec.convert(written, plugin.options)
        except msgspec.ValidationError as error:
            # What the struct itself minds (`__post_init__`), in its author's words.
            problems.append(("options", str(error)))
    return problems


def option_fields(plugin: ITransportPlugin) -> Sequence[inspect.Field]:
    """The plugin's options, with their types as `cubehook.config_reader.described` takes them."""
    kind = inspect.type_info(plugin.options)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def _pair(found: Any) -> tuple[str, str]:
    key, expected = found
    if not (isinstance(key, str) and isinstance(expected, str)):
        raise TypeError("it returns something else than pairs of texts")
    return key, expected


def _trace(what: str, mask: Mask | None = None) -> None:
    # As text: an event with a failure in it counts as an error, and the problem is told elsewhere.
    text = traceback.format_exc()
    _log.debug("{what} failed:\n{traceback}", what=what, traceback=mask.text(text) if mask else text)


def _told(error: BaseException, path: str | None = None) -> str:
    """What kind of error it was, its words, and the line of the file at `path` where it came from."""
    try:
        words = printable(" ".join(str(error).split()), _TOLD)
    except Exception:
        words = "its words cannot be had"
    text = f"{type(error).__name__}: {words}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == path
    ]
    return f"{text}, from line {lines[-1]} of {Path(path).name}" if path and lines else text
