"""
What a configuration that was read again changes of the one that holds: pure, two configurations in.

A setting is live if it is named here; whatever is not needs a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import fields, replace

from cubehook.config import Config, Cube, Manhole, Webhook

LIVE: Final[dict[str, frozenset[str] | None]] = {
    "listen": None,
    "log": None,
    "delivery": None,
    "egress": None,
    "retention": None,
    "manhole": frozenset(("authorized_keys", "password_file")),
}
"""The keys of each section that can change while the service runs, None for all of them."""

INHERITED: Final = ("timeout", "retry", "jitter", "concurrency", "breaker", "disable_after")
"""Keys of `[delivery]` that hold for every webhook that has none of its own."""

_Named: TypeAlias = Sequence[Cube] | Sequence[Webhook]


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of those that the file has and had not, has otherwise, or has no more."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def words(self, one: str) -> Iterator[str]:
        """A sentence about each kind of change; `one` names one of them."""
        for what, ids in (("added", self.added), ("changed", self.changed), ("removed", self.removed)):
            if ids:
                yield f"{one if len(ids) == 1 else one + 's'} {what}: {', '.join(ids)}"


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """
    What reading the configuration file again has changed.

    `cubes` and `webhooks` are the file's; `settings` are the keys of its other settings that hold now as it
    has them, and `needs_restart` those that hold only after a restart of the service.  `warnings` are
    sentences: files beside it, such as a certificate, that could not be used and stay as they were.
    """

    file: str
    cubes: Names
    webhooks: Names
    settings: tuple[str, ...]
    needs_restart: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything holds now that did not before."""
        return bool(self.cubes or self.webhooks or self.settings)

    def words(self) -> list[str]:
        """What was changed, a line each; empty if nothing was."""
        lines = [*self.cubes.words("cube"), *self.webhooks.words("webhook")]
        if self.settings:
            lines.append(f"settings changed: {', '.join(self.settings)}")
        return lines

    def warning_words(self) -> list[str]:
        """What does not hold although it was asked for, a line each; empty if all does."""
        restart = f"takes effect only at a restart: {', '.join(self.needs_restart)}"
        return [*([restart] if self.needs_restart else []), *self.warnings]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to get from a configuration that holds to one that is wanted.

    `settings` is the one that then holds: the wanted one, but for the keys in `restart`.  `keys` are those of
    its sections that differ from before.
    """

    settings: Config
    cubes: Names
    webhooks: Names
    keys: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def listen(self) -> bool:
        """Whether ports or their limits change."""
        return any(key.startswith("listen.") for key in self.keys)

    @property
    def log(self) -> bool:
        """Whether log files or what goes into them change."""
        return any(key.startswith("log.") for key in self.keys)

    def told(self, warnings: Iterable[str] = ()) -> Reloaded:
        """The plan as it is told once it is carried out, with what had to be warned of."""
        return Reloaded(
            file=str(self.settings.source or ""),
            cubes=self.cubes,
            webhooks=self.webhooks,
            settings=self.keys,
            needs_restart=self.restart,
            warnings=tuple(warnings),
        )


def plan(running: Config, wanted: Config) -> Plan:
    """How to get from `running` to `wanted`."""
    changes: dict[str, Any] = {"source": wanted.source, "cubes": wanted.cubes, "webhooks": wanted.webhooks}
    keys: list[str] = []
    restart: list[str] = []
    for field in fields(Config):
        name = field.name
        if name in changes:
            continue
        old, new = getattr(running, name), getattr(wanted, name)
        if name not in LIVE:
            restart += [name] if old != new else []
            continue
        live = LIVE[name]
        different = [each.name for each in fields(new) if getattr(old, each.name) != getattr(new, each.name)]
        taken = [each for each in different if live is None or each in live]
        if taken:
            changes[name] = replace(old, **{each: getattr(new, each) for each in taken})
        keys += [f"{name}.{each}" for each in taken]
        restart += [f"{name}.{each}" for each in different if each not in taken]
    settings = replace(running, **changes)
    # A door that is open needs its file, whatever the file of settings says of doors that are not open yet.
    manhole = _usable(settings.manhole, running.manhole)
    if manhole != settings.manhole:
        kept = [
            f"manhole.{each.name}"
            for each in fields(Manhole)
            if getattr(manhole, each.name) != getattr(settings.manhole, each.name)
        ]
        settings = replace(settings, manhole=manhole)
        keys = [key for key in keys if key not in kept]
        restart += kept
    return Plan(
        settings=settings,
        cubes=_names(running.cubes, wanted.cubes),
        webhooks=_names(running.webhooks, wanted.webhooks),
        keys=tuple(keys),
        restart=tuple(restart),
    )


def _usable(manhole: Manhole, running: Manhole) -> Manhole:
    if manhole.ssh is not None and manhole.authorized_keys is None:
        manhole = replace(manhole, authorized_keys=running.authorized_keys)
    if manhole.telnet is not None and manhole.password_file is None:
        manhole = replace(manhole, password_file=running.password_file)
    return manhole


def _names(running: _Named, wanted: _Named) -> Names:
    old = {each.id: each for each in running}
    new = {each.id: each for each in wanted}
    return Names(
        added=tuple(id for id in new if id not in old),
        changed=tuple(id for id, each in new.items() if id in old and old[id] != each),
        removed=tuple(id for id in old if id not in new),
    )


def inherits(webhook: Webhook, keys: Iterable[str]) -> bool:
    """Whether a webhook is delivered to otherwise once `keys` have changed, although it has not."""
    own = {f"delivery.{key}" for key in INHERITED if getattr(webhook, key) is not None}
    shared = {f"delivery.{key}" for key in INHERITED} - own
    return any(key in shared or key.startswith("egress.") for key in keys)
