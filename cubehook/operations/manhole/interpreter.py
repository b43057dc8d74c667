"""
Runs what is typed: statements one after the other, and what can be awaited is awaited.

Whatever is raised is shown and goes no further.
"""

from __future__ import annotations

import ast
import codeop
import inspect
import linecache
import traceback
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from types import CodeType
from typing import Any, Protocol, TextIO, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_SOURCES = 100
"""Of so many texts the lines are kept, for tracebacks."""

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_compiled = codeop.CommandCompiler()
_compiled.compiler.flags |= _FLAGS


class MistakeError(Exception):
    """What was asked for cannot be done; its text says all there is to say."""


class Output(Protocol):
    """Where results go; a file to print to, too."""

    def write(self, text: str) -> int:
        """Take what a program prints."""

    def flush(self) -> None:
        """Nothing waits."""

    def result(self, value: object) -> None:
        """Show what an expression came to; never called with None."""

    def error(self, text: str) -> None:
        """Show what went wrong."""


class Interpreter:
    """
    A namespace in which what is typed runs.

    `plain` are exceptions that are shown without a traceback, as they were raised for people.
    `_` is the last result.
    """

    _log = Logger()

    def __init__(
        self,
        namespace: dict[str, Any],
        output: Output,
        plain: tuple[type[BaseException], ...] = (MistakeError,),
    ) -> None:
        self.namespace = namespace
        self._output = output
        self._plain = plain
        self._names: list[str] = []
        self._count = 0

    def complete(self, text: str) -> bool:
        """Whether `text` is to be run as it is; False if more of it must come."""
        if not text.strip():
            return True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if _compiled(text, "<manhole>", "exec") is None:
                    return False
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            # Running it will tell.
            return True
        # Of a block, an empty line is the end.
        last = text.rpartition("\n")[2]
        return text.endswith("\n") or not (last[:1].isspace() or _is_block(text))

    async def run(self, text: str) -> bool:
        """Run `text` and show what comes of it; whether all went well."""
        name = self._keep(text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                statements = ast.parse(text, name).body
            for statement in statements:
                await self._run(statement, name)
        except CancelledError:
            self._output.error("Cancelled.")
            return False
        except SystemExit:
            raise
        except BaseException as error:
            self._output.error(self._told(error))
            return False
        return True

    async def _run(self, statement: ast.stmt, name: str) -> None:
        if not isinstance(statement, ast.Expr):
            module = ast.Module([statement], [])
            await self._do(compile(module, name, "exec", _FLAGS, dont_inherit=True))
            return
        expression = statement.value
        if isinstance(expression, ast.Await):
            expression = expression.value
        value = await self._do(compile(ast.Expression(expression), name, "eval", _FLAGS, dont_inherit=True))
        if isinstance(value, Deferred) or inspect.isawaitable(value):
            value = await self._awaited(value)
        if value is not None:
            self.namespace["_"] = value
            self._output.result(value)

    async def _do(self, code: CodeType) -> Any:
        """What `code` comes to; what it prints meanwhile, and nothing else, is output of ours."""
        if code.co_flags & inspect.CO_COROUTINE:
            # eval() makes the coroutine, and runs nothing of it.
            return await _Steps(eval(code, self.namespace), self._output)  # noqa: S307
        with _Printing(self._output):
            return eval(code, self.namespace)  # noqa: S307

    async def _awaited(self, value: Awaitable[Any] | Deferred[Any]) -> Any:
        """
        The result of `value`.

        That this is cancelled does nothing to `value`, which may be the service's own.
        """
        work = value if isinstance(value, Deferred) else Deferred.fromCoroutine(_coroutine(value))
        gate: Deferred[Any] = Deferred()
        failed: list[Failure] = []

        def over(result: Any) -> Any:
            failed.extend([result] if isinstance(result, Failure) else ())
            if not gate.called:
                gate.callback(None if isinstance(result, Failure) else result)
            elif isinstance(result, Failure):
                self._log.warn(
                    "What was no longer waited for in the manhole failed: {why}", why=repr(result.value)
                )
            return None if isinstance(result, Failure) else result

        _ = work.addBoth(over)
        result = await gate
        if failed:
            failed[0].raiseException()
        return result

    # Sources and tracebacks

    def _keep(self, text: str) -> str:
        """Keep the lines of `text` for tracebacks; the name of its file."""
        self._count += 1
        name = f"<manhole {id(self):x} {self._count}>"
        # Without a time of change, linecache never looks for a file.
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        self._names.append(name)
        if len(self._names) > _SOURCES:
            linecache.cache.pop(self._names.pop(0), None)
        return name

    def close(self) -> None:
        """Forget the sources."""
        for name in self._names:
            linecache.cache.pop(name, None)
        self._names.clear()

    def _told(self, error: BaseException) -> str:
        if isinstance(error, self._plain):
            return str(error) or type(error).__name__
        told = traceback.TracebackException.from_exception(error)
        seen: set[int] = set()
        each: traceback.TracebackException | None = told
        while each is not None and id(each) not in seen:
            seen.add(id(each))
            each.stack = traceback.StackSummary.from_list(
                [_shown(frame) for frame in each.stack if frame.filename not in _OURS]
            )
            # Only those of wrong syntax have one.
            if (getattr(each, "filename", None) or "").startswith("<manhole "):
                each.filename = "<manhole>"
            each = each.__cause__ or each.__context__
        lines = list(told.format())
        if len(told.stack) == 0 and lines and lines[0].startswith("Traceback"):
            del lines[0]
        return "".join(lines).rstrip("\n")


_OURS = {__file__, ast.__file__, inspect.getfile(Deferred)}


def _shown(frame: traceback.FrameSummary) -> traceback.FrameSummary:
    if not frame.filename.startswith("<manhole "):
        return frame
    return traceback.FrameSummary("<manhole>", frame.lineno, frame.name, line=frame.line)


def _is_block(text: str) -> bool:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    return bool(body) and isinstance(
        body[-1],
        ast.If
        | ast.For
        | ast.While
        | ast.With
        | ast.Try
        | ast.FunctionDef
        | ast.ClassDef
        | ast.AsyncFor
        | ast.AsyncWith
        | ast.AsyncFunctionDef
        | ast.Match,
    )


async def _coroutine(value: Awaitable[Any]) -> Any:
    return await value


class _Printing:
    """While entered, what is printed goes to `output`."""

    def __init__(self, output: Output) -> None:
        file = cast(TextIO, output)
        self._both = (redirect_stdout(file), redirect_stderr(file))

    def __enter__(self) -> None:
        for each in self._both:
            each.__enter__()

    def __exit__(self, *details: Any) -> None:
        for each in self._both:
            each.__exit__(*details)


class _Steps:
    """A coroutine of which each step prints to `output`, while others run between its steps."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], output: Output) -> None:
        self._coroutine = coroutine
        self._output = output

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                with _Printing(self._output):
                    waits_for = step()
            except StopIteration as over:
                return over.value
            try:
                step = partial(self._coroutine.send, (yield waits_for))
            except BaseException as error:
                step = partial(self._coroutine.throw, error)
