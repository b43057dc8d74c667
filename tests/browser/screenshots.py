"""
Takes the pictures of docs/console.md: `make screenshots`, or `python -m tests.browser.screenshots [FOLDER]`.

Each screen in light and dark, of a service with two weeks of calls and some of just now; one receiver fails.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page
from twisted.internet.task import deferLater
from twisted.trial.runner import TrialRunner

from cubehook.events import iso
from tests.browser import past
from tests.browser.stage import reactor
from tests.browser.world import WorldCase
from tests.functional.harness import ROOT
from tests.run import CountingReporter, report

FOLDER = ROOT / "docs" / "console"
SCREENS = (
    "overview",
    "cubes",
    "cube",
    "cube-not-there",
    "cube-add",
    "webhooks",
    "webhook",
    "webhook-add",
    "calls",
    "call",
    "deliveries",
    "delivery",
    "delivery-failing",
    "analytics",
    "settings",
)
PHONE = ("overview", "calls", "delivery-failing")
TALLEST = 860
"""Pixels after which a long page is cut."""
WHOLE = ("analytics",)
"""Pages that are shown to their ends."""
PLACES = """
    folder => document.querySelectorAll("code").forEach(each => {
        each.textContent = each.textContent.replace(folder, "/etc/cubehook");
    })
"""
COMMON, RARE = 96, 64
"""Colours of a picture: the commonest as they are, and of the others those that differ most."""
MIX = ("answered", "busy", "forwarded", "withheld", "answered", "no_answer", "answered", "abandoned")
MORE = ("rejected", "hunt", "answered", "blind_transfer", "answered", "simultaneous", "uri", "failed")


class Pictures(WorldCase):
    folder = FOLDER
    speed = 1.0
    timeout = 300

    def before_start(self) -> None:
        self.begun = time.time_ns() // 1000
        past.put(self.service.folder / "state" / "cubehook.db", self.begun)

    async def test_take(self) -> None:
        await self.live(MIX + MORE)
        answered = (await self.ask("GET", f"/calls?outcome=answered&since={iso(self.begun)}"))["items"]
        self.pages["call"] = f"/calls/{answered[-1]['id']}"
        self.pages["analytics"] += "?range=7d"
        await self.ask("POST", "/tokens", {"name": "Wallboard", "role": "viewer"})
        self.folder.mkdir(parents=True, exist_ok=True)
        # Some are talking, one is ringing while the pictures are taken.
        for _ in range(3):
            self.call("answered", hold=3600.0)
        await deferLater(reactor, 2.0, lambda: None)
        self.call("no_answer")
        for dark in (False, True):
            page, _ = await self.open(dark=dark, height=800)
            await self.browse(self.take, page, SCREENS, "dark" if dark else "light", "")
            page, _ = await self.open(signed_in=False, dark=dark, height=560)
            self.pages["sign-in"] = "/sign-in"
            await self.browse(self.take, page, ("sign-in",), "dark" if dark else "light", "")
        page, _ = await self.open(phone=True)
        await self.browse(self.take, page, PHONE, "light", "-phone")

    def take(self, page: Page, screens: tuple[str, ...], theme: str, kind: str) -> None:
        for name in screens:
            page.goto(self.url + self.pages[name])
            if name == "webhook-add":
                self.try_out(page)
            # As tall as the page is: what stands beside it reaches its end.
            size = page.viewport_size
            assert size is not None
            tall = page.evaluate("() => document.getElementById('main').getBoundingClientRect().bottom")
            most = 4 * TALLEST if name in WHOLE else TALLEST
            page.set_viewport_size({"width": size["width"], "height": min(max(int(tall), 560), most)})
            # Where this ran is nobody's concern.
            page.evaluate(PLACES, str(self.service.folder))
            picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
            page.set_viewport_size(size)
            few_colours(picture).save(self.folder / f"{name}{kind}-{theme}.png", optimize=True)

    def try_out(self, page: Page) -> None:
        """What is typed is sent a test, whose answer stands beside it."""
        page.get_by_label("Name", exact=True).fill("Ops Channel")
        page.get_by_label("URL", exact=True).fill(f"http://127.0.0.1:{self.sink_port}/ops")
        page.get_by_role("button", name="Send test").click()
        page.locator("#tried .exchange").wait_for()


def few_colours(picture: Image.Image) -> Image.Image:
    """`picture` in few colours, which makes a small file; the rare ones tell states."""
    counted: Any = picture.getcolors(picture.width * picture.height)
    common = [channel for _, colour in sorted(counted, reverse=True)[:COMMON] for channel in colour]
    rare = picture.quantize(RARE, Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(common + rare[: 3 * RARE])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def main(folder: str | None = None) -> int:
    if folder is not None:
        Pictures.folder = Path(folder).resolve()
    with tempfile.TemporaryDirectory() as place:
        runner = TrialRunner(CountingReporter, workingDirectory=f"{place}/trial", tracebackFormat="default")
        result = runner.run(Pictures("test_take"))
        assert isinstance(result, CountingReporter)
        return report(result.outcome())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
