"""
Finding transports, checking a webhook against its own, and making it.

Plugins are found as `twisted.plugin` finds them: what a module of `cubehook.plugins` offers is kept in
that package's `dropin.cache`, and a broken module's traceback goes to the log.  What `getPlugins` leaves
out is added here: the names of those that are broken, and why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import msgspec
from twisted.plugin import CachedDropin, getCache
from twisted.python.modules import getModule
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import cubehook.plugins
from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin

_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)

_OURS = "cubehook_transports"


def find_transports(
    package: ModuleType = cubehook.plugins,
) -> tuple[dict[str, ITransportPlugin], list[str]]:
    """
    Every usable transport by its name, in the order of names, and what is wrong with the others.

    One that cannot be imported, does not keep to `ITransportPlugin`, or takes a name that is taken, is
    told as a problem and left out; the rest are not affected.
    """
    found: dict[str, tuple[str, ITransportPlugin]] = {}
    dropins = getCache(package)
    problems = _unimportable(package, {dropin.moduleName for dropin in dropins.values()})
    # Ours first, so that nothing installed later can take over `http`.
    for dropin in sorted(dropins.values(), key=_order):
        for cached in dropin.plugins:
            if not any(provided.isOrExtends(ITransportPlugin) for provided in cached.provided):
                continue
            where = f"{dropin.moduleName}.{cached.name}"
            try:
                plugin = cached.load()
            except Exception as error:
                problems.append(f"{where} is not used: {_told(error)}")
                continue
            problem = _check_plugin(plugin)
            if problem is None and plugin.name in found:
                problem = f"the name {plugin.name!r} is taken by {found[plugin.name][0]}"
            if problem is None:
                found[plugin.name] = where, plugin
            else:
                problems.append(f"{where} is not used: {problem}")
    return {name: found[name][1] for name in sorted(found)}, problems


def _order(dropin: CachedDropin) -> tuple[bool, str]:
    return dropin.moduleName.rpartition(".")[2] != _OURS, dropin.moduleName


def _unimportable(package: ModuleType, usable: set[str]) -> list[str]:
    """Which modules of `package` are not in its cache because they cannot be imported, and why."""
    problems = []
    for module in sorted(getModule(package.__name__).iterModules(), key=lambda each: each.name):
        if module.name not in usable:
            try:
                module.load()
            except Exception as error:
                problems.append(f"{module.name} cannot be imported: {_told(error)}")
    return problems


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
