"""The overview and the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import TestCase

from cubehook import __version__, config
from cubehook.api.audit import Audit, AuditEntry, AuditQuery
from cubehook.api.calls import CallListed, Calls, CallsQuery
from cubehook.api.cubes import CubesPart
from cubehook.api.deliveries import Deliveries, DeliveriesQuery, DeliveryListed
from cubehook.api.errors import ConflictError, NotFoundError
from cubehook.api.operations import Caller, Nothing, operation
from cubehook.api.status import StatusPart
from cubehook.api.tokens import NewToken, TokenMade, Tokens, TokenShown, TokensQuery
from cubehook.api.webhooks import WebhooksPart
from cubehook.console.telling_changes import change_told
from cubehook.delivery.breaker import State
from cubehook.events import CallState, iso
from cubehook.records import RegistrationState
from tests.api.support import FakeWebhooks, status
from tests.console.cubes import FakeCubes, cube
from tests.console.records import SECOND, an_id, call, delivery
from tests.console.support import NASTY, NOW, VIEWER, Browser, Page

AT = "2024-11-23T16:00:00.000000Z"


class FakeService:
    """See `cubehook.api.status.Service`."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def problems(self) -> list[str]:
        return self.found

    def rates(self) -> dict[str, int]:
        return {"notifications": 311, "events": 117, "deliveries": 222, "failures": 5}

    def retained(self) -> tuple[int, int]:
        return 90 * 86400, 12 * 3600

    def certificates(self) -> list[tuple[str, int]]:
        return [("listen.cubes[0]", 1_900_000_000_000_000)]

    def database_bytes(self) -> int:
        return 1_234_567_890


class FakeTokens:
    """Tokens and the record of changes, as the API tells of them."""

    def __init__(self) -> None:
        self.items = [self.shown("64YBA8Q03HKZT", "Wallboard")]
        self.changes: list[AuditEntry] = []
        self.removed: list[str] = []

    def shown(self, id: str, name: str, kind: Callable[..., Any] = TokenShown, **more: str) -> Any:
        return kind(
            id=id, name=name, role="viewer", created_by="ada", created_at=AT, last_used_at=None, **more
        )

    @operation("GET", "/tokens", query=TokensQuery, result=Tokens, access="admin")
    async def list_tokens(self, caller: Caller, query: TokensQuery) -> Tokens:
        """All of them."""
        return Tokens(items=self.items, next=None)

    @operation("POST", "/tokens", body=NewToken, result=TokenMade, errors=(ConflictError,), status=201)
    async def create_token(self, caller: Caller, body: NewToken) -> TokenMade:
        """Another."""
        if any(token.name == body.name for token in self.items):
            raise ConflictError("there is a token of that name already")
        self.items.append(self.shown("64YBA8Q03HKZV", body.name))
        made: TokenMade = self.shown("64YBA8Q03HKZV", body.name, TokenMade, token="chk_once")
        return made

    @operation("DELETE", "/tokens/{token}", result=Nothing, status=204)
    async def delete_token(self, caller: Caller, token: str) -> Nothing:
        """One less."""
        if token not in [each.id for each in self.items]:
            raise NotFoundError("there is none")
        if len(self.items) == 1 and self.items[0].role == "admin":
            raise ConflictError("make another first")
        self.removed.append(token)
        return Nothing()

    @operation("GET", "/audit", query=AuditQuery, result=Audit, access="admin")
    async def list_audit(self, caller: Caller, query: AuditQuery) -> Audit:
        """What was done."""
        return Audit(items=self.changes, next=None)


class Happening:
    """Calls in progress and deliveries; see `tests.console.records`."""

    def __init__(self) -> None:
        self.calls: list[CallListed] = []
        self.deliveries: list[DeliveryListed] = []

    @operation("GET", "/calls", query=CallsQuery, result=Calls)
    async def list_calls(self, caller: Caller, query: CallsQuery) -> Calls:
        """Those of a state."""
        found = [call for call in self.calls if call.state is query.state]
        return Calls(items=found[: query.limit], next=None)

    @operation("GET", "/deliveries", query=DeliveriesQuery, result=Deliveries)
    async def list_deliveries(self, caller: Caller, query: DeliveriesQuery) -> Deliveries:
        """The newest."""
        return Deliveries(items=self.deliveries[: query.limit], next=None)


def entry(action: str, subject: str, who: str = "ada", **detail: object) -> AuditEntry:
    return AuditEntry(id="64YBA8Q03HKZT", at=AT, who=who, action=action, subject=subject, detail=detail)


class PagesCase(TestCase):
    def setUp(self) -> None:
        self.cubes = FakeCubes(cube("aa"), cube("hq"))
        self.webhooks = FakeWebhooks()
        self.service = FakeService()
        self.tokens = FakeTokens()
        self.happening = Happening()
        self.browser = self.browse()

    def browse(self, **more: Any) -> Browser:
        parts = [
            CubesPart(self.cubes),
            WebhooksPart(self.webhooks, lambda webhook: {}),
            StatusPart(self.service, lambda: NOW),
            self.tokens,
            self.happening,
        ]
        return Browser(parts, pages=["overview", "settings"], **more)


class Overview(PagesCase):
    async def test_at_a_glance(self) -> None:
        self.cubes.stand("aa", RegistrationState.REGISTERED)
        page = await self.browser.get("/")
        tiles = {
            " ".join(tile.find("dt").text_content().split()): " ".join(tile.find("dd").text_content().split())
            for tile in page.tree.xpath("//*[contains(@class, 'tile ') or @class='tile']")
        }
        self.assertTrue(tiles["Cubes registered"].startswith("1 of 2"), tiles)
        self.assertEqual(tiles["Calls now"], "14")
        self.assertTrue(tiles["Events"].startswith("117"))
        self.assertIn("5 failed", tiles["Deliveries"])
        self.assertIn("1.2 GB", tiles["Store"])

    async def test_what_happens_now(self) -> None:
        self.happening.calls = [
            call(75 * SECOND, state=CallState.CONNECTED, outcome=None, connected_at=iso(NOW - 62 * SECOND)),
            call(5 * SECOND, state=CallState.ALERTING, outcome=None, calling_number=None),
            *(call(number * SECOND, state=CallState.CONNECTED, outcome=None) for number in range(90, 100)),
        ]
        self.happening.deliveries = [
            delivery(3 * SECOND),
            delivery(60 * SECOND, state="cube.lost", call=None),
        ]
        page = await self.browser.get("/")
        rows = [
            " ".join(row.text_content().split())
            for row in page.tree.xpath("//section[@aria-labelledby='overview-calls']//li")
        ]
        self.assertEqual(len(rows), 6 + 1)
        self.assertTrue(rows[0].startswith("withheld"), rows)
        self.assertTrue(rows[1].endswith("Connected 1:02"), rows)
        self.assertEqual(rows[-1], "8 more calls")
        links = page.tree.xpath("//section[@aria-labelledby='overview-sent']//li/a")
        self.assertEqual(links[0].get("href"), f"/deliveries/{an_id(3 * SECOND)}")
        self.assertEqual([link.text for link in links], ["Alerting to CRM", "cube.lost to CRM"])

    async def test_hostile_numbers(self) -> None:
        self.happening.calls = [call(state=CallState.CONNECTED, outcome=None, calling_number=NASTY)]
        page = await self.browser.get("/")
        self.assertEqual(page.tree.xpath("//script[not(@src)]"), [])
        self.assertIn("<script>alert(1)", page.text)

    async def test_what_needs_somebody_comes_first(self) -> None:
        self.cubes.stand("aa", RegistrationState.REGISTERED)
        self.cubes.stand("hq", RegistrationState.SILENT, reason="No message for 95 s.")
        self.webhooks.statuses["crm"] = status(state=State.OPEN, failures=3)
        page = await self.browser.get("/")
        names = [each.text for each in page.tree.xpath("//ul[@class='standings']//a[@class='name']")]
        self.assertEqual(names, ["hq", "aa", "CRM", "audit"])

    async def test_store_in_trouble(self) -> None:
        self.service.found = ["the store cannot be written: <b>disk full</b>"]
        page = await self.browser.get("/")
        self.assertIn("The store cannot be written: <b>disk full</b>", page.text)
        self.assertIn("In trouble", page.text)

    async def test_nothing_yet_says_what_to_do(self) -> None:
        self.cubes.cubes.clear()
        self.webhooks.known.clear()
        page = await self.browser.get("/")
        self.assertEqual(len(page.tree.xpath("//a[@href='/cubes/_new'] | //a[@href='/webhooks/_new']")), 2)
        page = await self.browse(session=VIEWER).get("/")
        self.assertEqual(page.tree.xpath("//a[contains(@href, '_new')]"), [])

    async def test_first_steps_until_something_was_sent(self) -> None:
        def steps(page: Page) -> list[tuple[str, bool, str | None]]:
            return [
                (
                    each.xpath(".//*[@class='name']")[0].text,
                    each.get("class") == "done",
                    next(iter(each.xpath(".//a/@href")), None),
                )
                for each in page.tree.xpath("//ol[@class='first-steps']/li")
            ]

        self.webhooks.known.clear()
        self.cubes.stand("aa", RegistrationState.UNREGISTERED)
        self.cubes.stand("hq", RegistrationState.UNREGISTERED)
        self.assertEqual(
            steps(await self.browser.get("/")),
            [
                ("Add a cube", True, None),
                ("Let it register", False, "/cubes/aa"),
                ("Add Webhook", False, "/webhooks/_new"),
                ("Place a call", False, None),
            ],
        )
        self.happening.deliveries = [delivery()]
        self.assertEqual(steps(await self.browser.get("/")), [])

    async def test_live_part(self) -> None:
        page = await self.browser.get("/", hx_request="true")
        self.assertEqual(page.tree.xpath("//nav"), [])
        self.assertEqual(page.find("//*[@id='overview']").get("hx-get"), "/")

    async def test_hostile_values_are_text(self) -> None:
        self.cubes.cubes["hq"] = cube("hq", description=NASTY)
        self.cubes.stand("hq", RegistrationState.REJECTED, last_error=NASTY, reason=NASTY)
        self.webhooks.known["crm"] = config.Webhook(id="crm", name=NASTY, url="https://x.example/")
        self.webhooks.disabled["crm"] = NASTY
        page = await self.browser.get("/")
        self.assertEqual(page.tree.xpath("//script[not(@src)]"), [])
        self.assertIn("&lt;script&gt;", page.body.decode())


class Settings(PagesCase):
    async def test_what_is_kept_and_what_this_is(self) -> None:
        page = await self.browser.get("/settings")
        for words in ("90 days", "12 hours", "1.2 GB", __version__, "htmx", "0BSD", "Twisted"):
            self.assertIn(words.lower(), page.text.lower())

    async def test_token_is_added_and_shown_once(self) -> None:
        page = await self.browser.post("/settings/tokens", {"name": "Phone <b>", "role": "viewer"})
        self.assertEqual(page.find("//code[@id='token-secret']").text, "chk_once")
        self.assertIn("Phone <b>", page.text)
        self.assertNotIn("chk_once", (await self.browser.get("/settings")).body.decode())

    async def test_token_that_cannot_be(self) -> None:
        for fields, words in (
            ({"name": "", "role": "viewer"}, "1 to 100 characters"),
            ({"name": "Wallboard", "role": "viewer"}, "already"),
            ({"name": "x", "role": "king"}, "king"),
        ):
            page = await self.browser.post("/settings/tokens", fields)
            self.assertIn(page.status, (409, 422))
            self.assertIn(
                words, " ".join(each.text_content() for each in page.tree.xpath("//p[@class='error']"))
            )

    async def test_token_is_removed(self) -> None:
        page = await self.browser.get("/settings")
        form = page.find("//table//details//form")
        await self.browser.post(form.get("action"))
        self.assertEqual(self.tokens.removed, ["64YBA8Q03HKZT"])
        page = await self.browser.post("/settings/tokens/64YBA8Q03HKZZ/remove")
        self.assertEqual(page.status, 303)

    async def test_the_last_administrators_token_stays(self) -> None:
        self.tokens.items = [msgspec.structs.replace(self.tokens.items[0], role="admin")]
        page = await self.browser.post("/settings/tokens/64YBA8Q03HKZT/remove")
        self.assertEqual((page.status, self.tokens.removed), (303, []))
        self.assertIn("make another first", (await self.browser.get("/settings")).text)

    async def test_changes(self) -> None:
        self.tokens.changes = [
            entry("change_cube", "hq", description="x", enabled=True),
            entry("sign_in", "console", who=NASTY),
            entry("create_token", "6C4EE2A5XSNJA", who="uid 0", name="Wallboard", role="viewer"),
        ]
        page = await self.browser.get("/settings")
        told = [
            " ".join(each.text_content().split()) for each in page.tree.xpath("//ol[@class='history']/li")
        ]
        self.assertTrue(told[0].startswith("ada changed cube hq (description, enabled)"), told)
        self.assertIn("signed in", told[1])
        self.assertTrue(told[2].startswith("the command line (root) added token Wallboard"), told)
        self.assertEqual(page.tree.xpath("//script[not(@src)]"), [])

    async def test_viewer_is_told_of_nobody(self) -> None:
        self.tokens.changes = [entry("change_cube", "hq")]
        page = await self.browse(session=VIEWER).get("/settings")
        self.assertEqual(page.status, 200)
        for words in ("Wallboard", "changed cube"):
            self.assertNotIn(words, page.text)
        self.assertEqual(page.tree.xpath("//main//form"), [])

    async def test_a_reload_tells_what_it_changed(self) -> None:
        made = entry(
            "reload",
            "",
            cubes={"added": ["hq", "lab"], "removed": ["old"]},
            webhooks={"changed": ["crm"]},
            settings=["log.level"],
        )
        self.assertEqual(
            change_told(made),
            "reloaded the configuration (cubes added: hq, lab; cubes removed: old; webhooks changed: crm; "
            "log.level)",
        )

    async def test_what_no_words_are_known_for(self) -> None:
        self.assertEqual(change_told(entry("do_things", "hq")), "do things hq")
