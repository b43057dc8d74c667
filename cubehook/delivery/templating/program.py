"""A template, compiled, and run on what an event has to say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError, UndefinedError, nodes

from cubehook.delivery.templating.environment import Environment
from cubehook.delivery.templating.errors import TemplateError, TemplateErrors
from cubehook.delivery.templating.language import Metering, problems
from cubehook.delivery.templating.meter import MAX_SOURCE, METER, Meter
from cubehook.delivery.templating.writing import Draft
from cubehook.text import printable


class Program:
    """
    A compiled template that may look at `names`.

    Raises TemplateErrors, with everything that can be found wrong without an event.
    """

    def __init__(self, source: str, names: Sequence[str]) -> None:
        source = re.sub(r"\r\n?", "\n", source)
        if len(source) > MAX_SOURCE:
            raise TemplateErrors([TemplateError(f"at most {MAX_SOURCE:,} characters")])
        self._lines = source.split("\n")
        environment = Environment()
        try:
            tree = environment.parse(source)
            found = sorted(problems(tree, names), key=lambda problem: problem.line or 0)
            if found:
                raise TemplateErrors(found)
            self.names = frozenset(each.name for each in tree.find_all(nodes.Name) if each.ctx == "load")
            """What the template looks at."""
            metering = Metering()
            tree = metering.visit(tree)
            self._texts = metering.texts
            self._template = environment.from_string(tree)
        except TemplateSyntaxError as error:
            words = printable(" ".join((error.message or "").split()))
            raise TemplateErrors([TemplateError(f"a Jinja2 template: {words}", error.lineno)]) from None
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
            # Nesting that Python does not take, or a number of thousands of digits.
            raise TemplateErrors([TemplateError("a simpler template")]) from None

    def run(self, variables: Mapping[str, Any]) -> Any:
        """The JSON that the template makes of `variables`, as Python has it.  Raises TemplateError."""
        context = self._template.new_context({**variables, METER: Meter()})
        draft = Draft()
        pieces = self._template.root_render_func(context)
        while True:
            try:
                piece: Any = next(pieces, None)
            except Exception as error:
                raise self._failed(error) from None
            if piece is None:
                return draft.parsed(self._lines)
            if piece.text is None:
                draft.add_value(piece.value, piece.line)
            else:
                draft.add_text(*self._texts[piece.text])

    def _failed(self, error: Exception) -> TemplateError:
        """`error`, with the line of the template where it happened."""
        line, trace = None, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__jinja_template__") is self._template:
                line = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        if isinstance(error, TemplateError):
            return TemplateError(error.expected, line)
        words = printable(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, UndefinedError):
            return TemplateError(words, line)
        return TemplateError(f"something that can be worked out ({words})", line)
