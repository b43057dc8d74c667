"""WCAG 2.2 AA, as far as axe-core can tell, on every page, which fits on a phone too."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.browser.stage import violations
from tests.browser.world import WorldCase

OVERHANG = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNFOLD = "() => document.querySelectorAll('main details').forEach(each => { each.open = true; })"


class AccessibilityTests(WorldCase):
    timeout = 300

    async def test_every_page(self) -> None:
        await self.live()
        found: list[str] = []
        for phone in (False, True):
            page, watch = await self.open(phone=phone)
            watch.allowed.add(404)
            found += await self.browse(self.look, page, {**self.pages, "nowhere": "/nowhere"}, phone)
            page, _ = await self.open(signed_in=False, phone=phone)
            doors = {"sign-in": "/sign-in", "link": "/sign-in?code=chl_x"}
            found += await self.browse(self.look, page, doors, phone)
        self.assertEqual(found, [])

    async def test_pages_that_have_nothing_to_show(self) -> None:
        await self.begin()
        page, _ = await self.open()
        names = ("", "cubes", "webhooks", "calls", "deliveries", "analytics")
        empty = {name: f"/{name}" for name in names}
        self.assertEqual(await self.browse(self.look, page, empty, False), [])

    def look(self, page: Page, pages: dict[str, str], phone: bool) -> list[str]:
        found = []
        for name, path in pages.items():
            page.emulate_media(color_scheme="light")
            page.goto(self.url + path)
            # What is folded is looked at too.
            page.evaluate(UNFOLD)
            wrong = violations(page)
            overhang = page.evaluate(OVERHANG)
            if overhang > 0:
                wrong.append(f"wider than the screen by {overhang} px")
            if not phone:
                # A phone's colours are no others.
                page.emulate_media(color_scheme="dark")
                wrong += [f"dark: {each}" for each in violations(page, colours_only=True)]
            found += [f"{name} ({phone=}): {each}" for each in wrong]
        return found
