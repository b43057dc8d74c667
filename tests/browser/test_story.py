"""A newcomer's first hour, in the browser, from the link in the log to a delivery that is sent again."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from cubehook.simulator.sink import Behaviour, Received
from tests.browser.case import BrowserCase
from tests.functional.harness import free_port

SWAPPED = """
    () => new Promise(done => document.addEventListener("htmx:afterSettle", () => done(), {once: true}))
"""


class StoryTests(BrowserCase):
    extra = "[delivery]\nretry = [0.2]\njitter = 0"

    def received(self, received: Received) -> None:
        self.got.append(received)

    async def test_from_the_first_sign_in_to_a_delivery_sent_again(self) -> None:
        self.got: list[Received] = []
        await self.begin()
        assert self.service.process is not None
        link = (await self.service.process.wait_for(r"opening (\S+/sign-in\?code=\S+)")).group(1)
        page, watch = await self.open(signed_in=False)
        await self.browse(self.sign_in_by_link, page, link)
        await self.browse(self.add_a_cube, page)
        await self.gateway.when_registered()
        await self.browse(self.see_it_registered, page)

        sink = await self.receiver()
        watch.allowed.add(422)  # a form that is refused
        await self.browse(self.add_a_webhook, page)
        await self.browse(page.goto, f"{self.url}/calls")
        self.assertEqual(len(self.got), 1, "the test")
        self.got.clear()
        made = self.call(hold=3600.0)
        await self.browse(self.watch_it_come, page, str(made.script.calling))
        self.assertTrue(self.gateway.release_call(made.call_ids[0], 16))
        await self.browse(self.watch_it_go, page)
        await self.deliveries(3, status="delivered")
        self.assertEqual(len(self.got), 3)
        await self.browse(self.read_a_delivery, page)

        await sink.stop()
        sink = await self.receiver(Behaviour(status=500))
        self.call("busy")
        self.call("busy")
        await self.gateway.when_idle()
        await self.deliveries(1, status="failed")
        await self.browse(self.see_the_failure, page)

        await sink.stop()
        await self.receiver()
        got = len(self.got)
        await self.browse(self.send_it_again, page)
        self.assertGreater(len(self.got), got)
        self.assertEqual(self.got[-1].status, 200)
        await self.browse(self.leave, page)

    def sign_in_by_link(self, page: Page, link: str) -> None:
        page.goto(link)
        expect(page.get_by_text("This link signs this browser in, once.")).to_be_visible()
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
        expect(page.get_by_text("No cube yet")).to_be_visible()

    def add_a_cube(self, page: Page) -> None:
        """By the keyboard alone."""
        page.get_by_role("main").get_by_role("link", name="Add a cube").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Add a cube", level=1)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_role("main").get_by_role("link", name="Cubes")).to_be_focused()
        for label, text in (
            ("Name", "hq"),
            ("Description", "Head office"),
            ("Provider URL", self.provider),
            ("Application URL", self.service.application_url("hq")),
        ):
            page.keyboard.press("Tab")
            expect(page.get_by_label(label)).to_be_focused()
            # What is offered is chosen when the field is entered, so that typing replaces it.
            page.keyboard.press("Control+A")
            page.keyboard.type(text)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="hq", level=1)).to_be_visible()

    def see_it_registered(self, page: Page) -> None:
        """It comes by itself: nobody loads the page again."""
        expect(page.locator("#cube-state").get_by_text("Registered", exact=True)).to_be_visible()
        expect(page.locator("#ios")).to_contain_text("remote-url")

    def add_a_webhook(self, page: Page) -> None:
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Cube Webhooks").click()
        page.get_by_role("main").get_by_role("link", name="Add Webhook").first.click()
        page.get_by_label("Name", exact=True).fill("CRM")
        expect(page.get_by_label("Id", exact=False).first).to_have_value("crm")
        page.get_by_label("URL", exact=True).fill("ftp://nowhere")
        page.get_by_role("button", name="Add Webhook").click()
        expect(page.locator("#url-error")).to_be_visible()
        page.get_by_label("URL", exact=True).fill(f"http://127.0.0.1:{self.sink_port}/crm")
        page.get_by_role("radio", name="Full").check()
        expect(page.locator("#preview")).to_contain_text('"sequence"')
        self.try_what_is_typed(page)
        page.get_by_role("button", name="Add Webhook").click()
        expect(page.get_by_role("heading", name="CRM", level=1)).to_be_visible()
        expect(page.locator("#secret")).to_contain_text("whsec_")

    def try_what_is_typed(self, page: Page) -> None:
        """By the keyboard: whoever sends a test is where they were when the answer has come."""
        button = page.get_by_role("button", name="Send test")
        page.get_by_label("URL", exact=True).fill(f"http://127.0.0.1:{free_port()}/")
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#tried .notice")).to_contain_text("Connection refused")
        expect(button).to_be_focused()
        page.get_by_label("URL", exact=True).fill(f"http://127.0.0.1:{self.sink_port}/crm")
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#tried")).to_contain_text("webhook-signature")
        # What a screen reader is told.
        expect(page.get_by_role("status").filter(has_text="200 OK")).to_be_visible()

    def watch_it_come(self, page: Page, calling: str) -> None:
        board = page.locator("#board")
        expect(board.locator(".board-call")).to_have_count(1)
        expect(board.locator(".board-from")).to_contain_text(calling.lstrip("+")[-4:])
        expect(board.get_by_text("Connected")).to_be_visible()
        # It goes on by itself, and whoever stands on it stays there when it comes anew.
        call = board.locator(".board-call")
        call.focus()
        before = call.locator("time").inner_text()
        page.evaluate(SWAPPED)
        expect(call).to_be_focused()
        expect(call.locator("time")).not_to_have_text(before)

    def watch_it_go(self, page: Page) -> None:
        expect(page.locator("#board").get_by_text("Nobody is on the phone.")).to_be_visible()
        page.reload()
        page.locator(".calls-table tbody a").first.click()
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()

    def read_a_delivery(self, page: Page) -> None:
        page.reload()
        page.get_by_role("link", name="The delivery of DISCONNECTED to CRM").click()
        attempt = page.locator("#attempt-1")
        expect(attempt.locator(".request-line").first).to_contain_text(
            f"http://127.0.0.1:{self.sink_port}/crm"
        )
        expect(attempt).to_contain_text("webhook-signature")
        expect(attempt.locator("#request-1")).to_contain_text("DISCONNECTED")
        expect(attempt).to_contain_text("200")

    def see_the_failure(self, page: Page) -> None:
        page.goto(f"{self.url}/deliveries?status=failed")
        expect(page.locator(".deliveries-table")).to_contain_text("500")
        page.locator(".deliveries-table tbody a").first.click()
        expect(page.locator("#attempt-2 .notice")).to_contain_text("500")
        expect(page.get_by_role("main")).to_contain_text("Failed")

    def send_it_again(self, page: Page) -> None:
        page.get_by_role("button", name="Send again").click()
        expect(page.get_by_text("It is being sent again.")).to_be_visible()
        # Until it is sent the page stays current by itself.
        expect(page.locator("#attempt-3")).to_contain_text("200")
        expect(page.locator(".facts .badge-good")).to_have_text("Delivered")

    def leave(self, page: Page) -> None:
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto(f"{self.url}/deliveries")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
