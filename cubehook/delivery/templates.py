"""
Payloads of a webhook's own: what its `template` or `preset` makes of an event, and what is wrong with them.

Jinja2 is imported with the first template that is made or checked, and not before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from cubehook.config import Webhook
from cubehook.delivery.forms import FORM, form_body
from cubehook.delivery.presets import PRESETS, form
from cubehook.delivery.readable import sentence
from cubehook.delivery.samples import samples
from cubehook.delivery.templating.errors import TemplateError, TemplateErrors
from cubehook.events import CallEvent, Notice, notice_body

if TYPE_CHECKING:
    from cubehook.delivery.templating.program import Program

JSON: Final = "application/json"

Made: TypeAlias = tuple[bytes, str]
"""A body and its content type."""
Maker: TypeAlias = Callable[[CallEvent | Notice], Made]
"""Raises TemplateError or ValueError, with words, if there is no body."""

KEYS: Final = ("payload", "template", "preset", "encoding")
"""The settings of a webhook that say what it is sent."""

NAMES: Final = (*CallEvent.__struct_fields__, "event", "notice", "summary")
"""What a template can look at."""

_OF_NOTICES: Final = frozenset(("notice", "summary"))


class Mistake(NamedTuple):
    """
    Something that is wrong with a webhook's payload.

    `key` is that of the webhook's setting, `expected` what should be there, and where in it; `line` is
    the template's line, None if it concerns none.
    """

    key: str
    expected: str
    line: int | None = None


def check(webhook: Webhook) -> list[tuple[str, str]]:
    """
    What is wrong with `payload`, `template`, `preset` and `encoding`, as (key, what was expected) pairs.

    A template is compiled, and tried on samples of every kind of event that the webhook is sent.
    """
    return [(mistake.key, mistake.expected) for mistake in mistakes(webhook)]


def mistakes(webhook: Webhook) -> list[Mistake]:
    """As `check`, with the lines apart."""
    found = list(_conflicts(webhook))
    if not found and webhook.template is not None:
        found = list(_template_mistakes(webhook, webhook.template))
    return found


def maker(webhook: Webhook) -> Maker:
    """
    What makes bodies for `webhook`, whose `payload` is "template".

    Raises ValueError if its settings are not those that `check` finds nothing wrong with.
    """
    if webhook.preset is not None:
        if webhook.preset == "form":
            return _form_of_all
        return _JsonPreset(PRESETS[webhook.preset])
    if webhook.template is None:
        raise ValueError("it has neither a template nor a preset")
    try:
        return _Template(webhook.template, webhook.encoding == "form")
    except TemplateErrors as errors:
        raise ValueError(f"its template cannot be used: {errors}") from None


def _form_of_all(told: CallEvent | Notice) -> Made:
    return form_body(form(told)), FORM


class _JsonPreset:
    def __init__(self, preset: Callable[[CallEvent | Notice], dict[str, Any]]) -> None:
        self._preset = preset

    def __call__(self, told: CallEvent | Notice) -> Made:
        return _json_body(self._preset(told)), JSON


class _Template:
    """
    A webhook's template, compiled; TemplateErrors if it cannot be.

    A notice is sent plain where the template does not look at what there is of it.
    """

    def __init__(self, source: str, as_form: bool) -> None:
        from cubehook.delivery.templating.program import Program

        self._program: Program = Program(source, NAMES)
        self._as_form = as_form
        self.tells_notices = not _OF_NOTICES.isdisjoint(self._program.names)

    def __call__(self, told: CallEvent | Notice) -> Made:
        if isinstance(told, Notice) and not self.tells_notices:
            return _form_of_all(told) if self._as_form else (notice_body(told), JSON)
        value = self._program.run(_variables(told))
        if not self._as_form:
            return _json_body(value), JSON
        if not isinstance(value, dict):
            raise TemplateError("an object with the fields of the form")
        return form_body(value), FORM


def _variables(told: CallEvent | Notice) -> dict[str, Any]:
    event = msgspec.to_builtins(told)
    variables = {**event, "event": event, "notice": None, "summary": sentence(told)}
    if isinstance(told, Notice):
        variables = {**dict.fromkeys(NAMES), **variables, "connections": [], "notice": event}
        # These are the notice's own, and stand in it.
        del variables["type"], variables["data"]
    return variables


def _json_body(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise TemplateError("text without halves of surrogate pairs") from None
    except ValueError:
        raise TemplateError("numbers that are not too great") from None


def _conflicts(webhook: Webhook) -> Iterator[Mistake]:
    """What does not go together."""
    as_form = webhook.encoding == "form"
    given = [name for name in ("template", "preset") if getattr(webhook, name) is not None]
    if webhook.payload != "template":
        if given:
            yield Mistake("payload", f'"template", for there is a {given[0]}')
        elif as_form and webhook.payload == "full":
            expected = '"json", for the payload "full" is nested: preset = "form" has what is not'
            yield Mistake("encoding", expected)
        return
    if len(given) == 2:
        yield Mistake("preset", "nothing, for there is a template: one of the two")
    elif not given:
        yield Mistake("template", 'a template, or a preset beside it, for the payload is "template"')
    elif as_form and webhook.preset in ("slack", "teams"):
        yield Mistake("encoding", f'"json", which {webhook.preset} takes')


def _template_mistakes(webhook: Webhook, source: str) -> Iterator[Mistake]:
    try:
        template = _Template(source, webhook.encoding == "form")
    except TemplateErrors as errors:
        for error in errors.errors:
            yield _mistake(error, error.where)
        return
    if webhook.notices and not template.tells_notices:
        expected = (
            "a template that says what becomes of notices, for the webhook asks for them: one with summary, "
            "or {% if notice %}{{ notice }}{% else %}...{% endif %}"
        )
        yield Mistake("template", expected)
        return
    told: set[str] = set()
    for about, event in samples(webhook):
        try:
            template(event.payload)
        except TemplateError as error:
            # What fails for one usually fails for several.
            if str(error) not in told:
                told.add(str(error))
                where = f"{error.where}, for {about}" if error.where else f"for {about}"
                yield _mistake(error, where)
        except ValueError as error:
            if str(error) not in told:
                told.add(str(error))
                yield Mistake("template", f"{error} (for {about})")


def _mistake(error: TemplateError, where: str) -> Mistake:
    return Mistake("template", f"{error.expected} ({where})" if where else error.expected, error.line)
