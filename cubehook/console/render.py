"""Pages out of templates: Jinja2, escaping always, and an error for whatever a template is not given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jinja2

from cubehook import __version__
from cubehook.console import words
from cubehook.console.assets import Assets
from cubehook.console.routes import Visit


class Place(NamedTuple):
    """An entry of the navigation."""

    path: str
    name: str
    icon: str


NAVIGATION = (
    Place("/", "Overview", "overview"),
    Place("/calls", "Calls", "calls"),
    Place("/webhooks", "Cube Webhooks", "webhooks"),
    Place("/deliveries", "Webhook logs", "logs"),
    Place("/cubes", "Cubes", "cubes"),
    Place("/analytics", "Analytics", "analytics"),
    Place("/settings", "Settings", "settings"),
)


class Renderer:
    """Renders the templates in `cubehook/console/templates`, each compiled when it is first used."""

    def __init__(self, assets: Assets) -> None:
        self._environment = environment = jinja2.Environment(
            loader=jinja2.PackageLoader("cubehook.console", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        for name in (
            "as_iso", "moment", "clock", "exact", "ago", "duration", "micros", "timer", "span", "number",
            "size", "line", "compact", "first_large", "seconds", "who_told",
        ):  # fmt: skip
            environment.filters[name] = getattr(words, name)
        environment.globals.update(
            words=words,
            asset=assets.path,
            navigation=NAVIGATION,
            version=__version__,
            plural=words.plural,
            share=words.share,
        )

    def page(
        self, visit: Visit, said: list[tuple[str, str]], template: str, values: Mapping[str, Any]
    ) -> bytes:
        """The page, or part of one, that `template` makes."""
        text = self._environment.get_template(template).render(
            visit=visit, said=said, here=_place(visit.path), since=partial(words.ago, now=visit.now), **values
        )
        # Halves of surrogate pairs, which some JSON holds, are no text that could be sent.
        return text.encode("utf-8", "replace")


def _place(path: str) -> str:
    """The navigation's entry that a path belongs to."""
    return max((place.path for place in NAVIGATION if _below(path, place.path)), key=len, default="")


def _below(path: str, place: str) -> bool:
    return path == place or (place != "/" and path.startswith(place + "/"))
