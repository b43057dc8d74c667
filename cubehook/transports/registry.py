"""
Finding transports, checking a webhook against its own, and making it.

The modules of `cubehook.plugins` are walked here rather than by `twisted.plugin.getPlugins`: that logs a
broken module's traceback, where a configuration check needs its name and the reason in its list of
problems, and it writes a cache beside the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import msgspec
from twisted.python.modules import PythonModule, getModule
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import cubehook.plugins
from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin

_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)


def find_transports(
    package: ModuleType = cubehook.plugins,
) -> tuple[dict[str, ITransportPlugin], list[str]]:
    """
    Every usable transport by its name, in the order of names, and what is wrong with the others.

    One that cannot be imported, does not keep to `ITransportPlugin`, or takes a name that is taken, is
    told as a problem and left out; the rest are not affected.
    """
    found: dict[str, tuple[str, ITransportPlugin]] = {}
    problems: list[str] = []
    for module in sorted(getModule(package.__name__).iterModules(), key=_order):
        try:
            loaded = module.load()
        except Exception as error:
            problems.append(f"{module.name} cannot be imported: {_told(error)}")
            continue
        for attribute, plugin in _plugins_in(loaded):
            where = f"{module.name}.{attribute}"
            problem = _check_plugin(plugin)
            if problem is None and plugin.name in found:
                problem = f"the name {plugin.name!r} is taken by {found[plugin.name][0]}"
            if problem is None:
                found[plugin.name] = where, plugin
            else:
                problems.append(f"{where} is not used: {problem}")
    return {name: found[name][1] for name in sorted(found)}, problems


def check_webhook(webhook: Webhook, plugins: Mapping[str, ITransportPlugin]) -> list[tuple[str, str]]:
    """
    What is wrong with the settings that belong to the webhook's transport, as (key, what was
    expected) pairs; empty if nothing is.
    """
    plugin = plugins.get(webhook.transport)
    if plugin is None:
        return [("transport", f"one of the installed transports: {', '.join(sorted(plugins))}")]
    try:
        options = _options(webhook, plugin)
    except msgspec.ValidationError as error:
        return [_option_problem(str(error), plugin)]
    try:
        return list(plugin.check(webhook, options))
    except Exception as error:
        return [("transport", f"settings that {plugin.name} can check; it failed with {_told(error)}")]


def create(
    webhook: Webhook, plugins: Mapping[str, ITransportPlugin], context: ITransportContext
) -> ITransport:
    """
    The transport of a webhook that passed `check_webhook`.

    Raises ValueError, for a person, if the plugin makes none or one that does not keep to `ITransport`.
    """
    plugin = plugins.get(webhook.transport)
    if plugin is None:
        raise ValueError(f"webhook {webhook.id}: the transport {webhook.transport!r} is not installed")
    try:
        transport = plugin.create(webhook, _options(webhook, plugin), context)
        verifyObject(ITransport, transport)
    except Exception as error:
        raise ValueError(
            f"webhook {webhook.id}: the transport {plugin.name} cannot be made: {_told(error)}"
        ) from error
    return transport


def _options(webhook: Webhook, plugin: ITransportPlugin) -> Any:
    return msgspec.convert(webhook.options, plugin.options)


def _option_problem(told: str, plugin: ITransportPlugin) -> tuple[str, str]:
    """msgspec's words, such as "Expected `int`, got `str` - at `$.path`", as a key and what was expected."""
    text, _, path = told.partition(" - at `$")
    key = "options" + path.rstrip("`")
    field = _FIELD.fullmatch(text)
    if field is None:
        return key, text.removeprefix("Expected ")
    if field[1] == "missing required":
        return f"{key}.{field[2]}", "a value, which it must have"
    known = ", ".join(field.name for field in msgspec.structs.fields(plugin.options))
    return f"{key}.{field[2]}", f"one of the options of {plugin.name}: {known}"


def _order(module: PythonModule) -> tuple[bool, str]:
    # Ours first, so that nothing installed later can take over `http`.
    return not module.name.endswith(".cubehook_transports"), module.name


def _plugins_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if ITransportPlugin.providedBy(value):
            yield name, value


def _check_plugin(plugin: Any) -> str | None:
    """Why `plugin` does not keep to ITransportPlugin, None if it does."""
    try:
        verifyObject(ITransportPlugin, plugin)
    except Invalid as error:
        return _told(error)
    if not (isinstance(plugin.name, str) and plugin.name):
        return "its name is not a text"
    if not isinstance(plugin.description, str):
        return "its description is not a text"
    if not (isinstance(plugin.options, type) and issubclass(plugin.options, msgspec.Struct)):
        return "its options are not a msgspec.Struct"
    return None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
