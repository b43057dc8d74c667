"""
One Chromium for all the tests, in a thread of its own.

Playwright's synchronous interface belongs to the thread that started it, and blocks; so everything
that touches a page is handed to that thread by `on_stage`, and the reactor runs on beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

reactor: Any = installed
T = TypeVar("T")

CHROMIUM = shutil.which("chromium")
MISSING = None if CHROMIUM else "chromium is not installed (Debian's package of that name)"
"""Why tests with a browser are skipped."""

PATIENCE = 15_000.0
"""Milliseconds after which a page is given up that should long have shown something."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_AXE = Path(__file__).with_name("axe.min.js")
_LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_COLOURS = ["color-contrast", "link-in-text-block"]


class _Stage:
    """The thread, and the browser once somebody needs it."""

    def __init__(self) -> None:
        self.pool = ThreadPool(1, 1, "browser")
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    def start(self) -> None:
        self.pool.start()
        reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def stop(self) -> None:
        self.pool.callInThread(self._close)
        self.pool.stop()

    def browser(self) -> Browser:
        """To be called in the thread."""
        if self._browser is None:
            expect.set_options(timeout=PATIENCE)
            self._playwright = sync_playwright().start()
            # Each start has a new, empty profile, which Playwright removes.
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        return self._browser

    def _close(self) -> None:
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()


_stage: _Stage | None = None


def on_stage(work: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """What `work` returns, done in the browser's thread."""
    global _stage
    if _stage is None:
        _stage = _Stage()
        _stage.start()
    done: Deferred[T] = deferToThreadPool(reactor, _stage.pool, work, *arguments)
    return done


class Watch:
    """What went wrong in a page, by its console (which tells of its policy too), its scripts and requests."""

    def __init__(self, page: Page) -> None:
        self.wrong: list[str] = []
        self.allowed: set[int] = set()
        """Statuses of answers that a test provokes."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("requestfailed", self._failed)
        page.on("dialog", self._asked)

    def _asked(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if any(f"responded with a status of {status} " in message.text for status in self.allowed):
            return
        self.wrong.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        # What a page still asked for when it was left is given up, and no fault of anybody.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"{request.method} {request.url}: {request.failure}")


def open_page(
    cookies: list[Any] | None = None,
    *,
    dark: bool = False,
    phone: bool = False,
    script: bool = True,
    height: int = 900,
    zone: str = "Europe/Vienna",
) -> tuple[Page, Watch]:
    """A page of a new session, with the cookies of another if given.  In the browser's thread."""
    assert _stage is not None
    context = _stage.browser().new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        locale="en-GB",
        timezone_id=zone,
        is_mobile=phone,
        has_touch=phone,
    )
    context.set_default_timeout(PATIENCE)
    if cookies:
        context.add_cookies(cookies)
    page = context.new_page()
    return page, Watch(page)


def violations(page: Page, *, colours_only: bool = False) -> list[str]:
    """
    What axe-core finds against WCAG 2.2 AA in the page as it stands.  In the browser's thread.

    `colours_only` is for a page in its other theme, which has nothing else of its own.
    """
    # Evaluated by the debugger, which the page's policy does not bind.
    if not page.evaluate("() => typeof window.axe === 'object'"):
        page.evaluate(_AXE.read_text())
    only = {"type": "rule", "values": _COLOURS} if colours_only else {"type": "tag", "values": _LEVELS}
    found = page.evaluate(
        "only => axe.run(document, {runOnly: only, resultTypes: ['violations']})",
        only,
    )
    assert found["passes"], "axe looked at nothing"
    return [
        f"{rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
