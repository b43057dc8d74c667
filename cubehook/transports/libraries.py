"""
Libraries that a transport needs and cubehook comes without, unless an extra of its package was asked for.

A plugin imports its library when a transport is made, not before: so it can be found, listed and checked
without.  Its `check` returns what `needs` says, and its `description` is passed through `noted`.
"""

from __future__ import annotations

from importlib.util import find_spec


def installed(module: str) -> bool:
    """Whether `module`, such as `paho.mqtt.client`, can be imported; a package that holds it is imported."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def needs(module: str, extra: str) -> list[tuple[str, str]]:
    """For `ITransportPlugin.check`: nothing if `module` is installed, else that `extra` must be."""
    if installed(module):
        return []
    return [
        (
            "transport",
            f"a transport that is installed whole, but the Python package {module.partition('.')[0]} is "
            f"missing: {_remedy(extra)}",
        )
    ]


def noted(description: str, module: str, extra: str) -> str:
    """`description`, with a note of what to install if `module` is not."""
    return description if installed(module) else f"{description} (not usable yet: {_remedy(extra)})"


def _remedy(extra: str) -> str:
    return f"install cubehook[{extra}]"
