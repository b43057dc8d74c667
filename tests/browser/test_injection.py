"""What comes from outside and looks like a page's own markup is shown as the text that it is."""

from __future__ import annotations

import treq
from playwright.sync_api import Page
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from cubehook.xcc import codec
from cubehook.xcc import messages as xcc
from tests.browser.case import BrowserCase
from tests.browser.stage import reactor
from tests.browser.world import QUIET


def markup(where: str) -> str:
    """Would add an element, end an attribute and run a script, were it taken for markup."""
    return f"\"'><b class=pwned>{where}</b><img src=x onerror=alert(1)></script><script>alert(1)</script>"


UNFOLD = "() => document.querySelectorAll('main details').forEach(each => { each.open = true; })"
REFRESH = """
    () => Promise.all([...document.querySelectorAll("[hx-get]")].map(
        each => htmx.ajax("GET", each.getAttribute("hx-get"), {source: each})
    ))
"""


class Rude(Resource):
    """A receiver whose every answer has markup in its header and its body."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        request.setResponseCode(500)
        request.setHeader("X-Rude", markup("header"))
        request.setHeader("Content-Type", "text/html")
        return markup("body").encode()


class InjectionTests(BrowserCase):
    extra = QUIET

    async def test_every_value_from_outside(self) -> None:
        await self.begin()
        port = reactor.listenTCP(0, Site(Rude()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/"
        await self.add_cube(description=markup("description"))
        await self.ask(
            "POST",
            "/webhooks",
            {
                "id": "rude",
                "name": markup("name"),
                "description": markup("about"),
                "url": url,
                "payload": "template",
                "template": f'{{"text": "{markup("template")}", "from": {{{{ calling_number }}}}}}'.replace(
                    "\"'", "'"
                ),
            },
        )
        await self.tell(xcc.Created(self.leg("INCOMING")))
        await self.tell(xcc.Alerting())
        await self.tell(xcc.Disconnected(disc_cause=16))
        (tried,) = await self.deliveries(1, attempts=1)
        call, delivery = tried["call"], tried["id"]
        page, _ = await self.open()
        await self.browse(
            self.look,
            page,
            {
                "/": ["name", "description"],
                "/cubes": ["description"],
                "/cubes/hq": ["description"],
                "/cubes/hq/edit": [],
                "/webhooks": ["name", "about"],
                "/webhooks/rude": ["name", "about", "template"],
                "/webhooks/rude/edit": ["name"],
                "/calls": ["calling", "called"],
                f"/calls/{call}": ["calling", "called", "name"],
                "/deliveries": ["calling", "called", "name"],
                f"/deliveries/{delivery}": ["calling", "name", "header", "body"],
                "/analytics": ["calling", "called"],
                "/settings": [],
            },
        )

    def leg(self, direction: str) -> xcc.ConnDetailData:
        return xcc.ConnDetailData(
            guid="9364550FD96211E28F0D9C9C52CD806F",
            calling_addr_data=xcc.AddrData(markup("calling"), "E164"),
            called_addr_data=xcc.AddrData(markup("called"), "E164"),
            conn_direction_type=direction,
        )

    async def tell(self, event: xcc.ConnectionEvent) -> None:
        """As the gateway would, with what no gateway should say."""
        registration = self.gateway.registration
        assert registration is not None
        message = xcc.NotifyXccConnectionData(
            msg_header=xcc.MsgHeader("1:1", registration.id),
            call_data=xcc.CallData("900", "ACTIVE"),
            conn_data=xcc.ConnData("1"),
            event=event,
        )
        url = self.service.application_url("hq")
        answer = await treq.post(url, data=codec.write(message), persistent=False)
        self.assertEqual(answer.code, 200)
        await answer.content()

    def look(self, page: Page, expected: dict[str, list[str]]) -> None:
        for path, places in expected.items():
            page.goto(self.url + path)
            page.evaluate(UNFOLD)
            # What refreshes itself is put in by the script: that way is tried as well.
            page.evaluate(REFRESH)
            self.assertEqual(page.locator(".pwned, img, main script").count(), 0, path)
            text = page.locator("body").inner_text()
            for place in places:
                self.assertIn(f"<b class=pwned>{place}</b>", text, path)
