"""Those who only read: without JavaScript, and as a viewer."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.world import WorldCase


class ReadingTests(WorldCase):
    async def test_without_javascript(self) -> None:
        await self.live()
        page, _ = await self.open(script=False)
        await self.browse(self.walk, page)

    def walk(self, page: Page) -> None:
        """From the overview to an attempt's answer, by links alone."""
        page.goto(self.url)
        main = page.get_by_role("main")
        expect(main.get_by_role("link", name="hq", exact=True)).to_be_visible()
        for link, shown in (
            ("Cubes", "Head office, 192 lines"),
            ("Cube Webhooks", "CRM Call Events"),
            ("Webhook logs", "Refused by the receiver"),
            ("Analytics", "Answered"),
            ("Settings", "Who changed what"),
            ("Calls", "In progress"),
        ):
            page.get_by_role("navigation", name="Main").get_by_role("link", name=link, exact=True).click()
            expect(main).to_contain_text(shown)
        page.locator(".calls-table tbody a").first.click()
        page.locator(".timeline summary").first.click()
        expect(page.locator(".timeline pre").first).to_contain_text("NotifyXccConnectionData")
        page.get_by_role("link", name="The delivery of").first.click()
        expect(page.get_by_role("heading", name="Response")).to_be_visible()
        page.goto(f"{self.url}/deliveries")
        page.get_by_label("Status").select_option("delivered")
        page.get_by_role("button", name="Search").click()
        expect(page.locator(".deliveries-table")).not_to_contain_text("Billing")
        expect(page.locator(".deliveries-table")).to_contain_text("CRM Call Events")

    async def test_a_viewer_sees_and_changes_nothing(self) -> None:
        await self.live()
        made = await self.ask("POST", "/tokens", {"name": "Wallboard", "role": "viewer"})
        self.cookies = await self.sign_in(made["token"])
        page, watch = await self.open()
        watch.allowed |= {403}
        await self.browse(self.look, page)
        hook = await self.ask("GET", "/webhooks/crm")
        self.assertTrue(hook["enabled"])

    def look(self, page: Page) -> None:
        offered = ("cube-add", "cube-edit", "webhook-add", "webhook-edit")
        for name, path in self.pages.items():
            answer = page.goto(self.url + path)
            assert answer is not None
            if name in offered:
                self.assertEqual(answer.status, 403, path)
                continue
            self.assertEqual(answer.status, 200, path)
            actions = page.locator("form[method=post]").evaluate_all("each => each.map(form => form.action)")
            self.assertEqual(actions, [f"{self.url}/sign-out"], path)
        expect(page.get_by_text("You are signed in as a viewer")).to_be_visible()
        # One who makes the form that was not offered, with the token that every page has.
        page.goto(f"{self.url}/webhooks/crm")
        page.evaluate(
            """() => {
                const form = document.querySelector("form[action='/sign-out']");
                form.action = "/webhooks/crm/pause";
                form.submit();
            }"""
        )
        page.wait_for_url("**/pause")
        expect(page.get_by_role("main")).to_contain_text("You may look, and change nothing")
