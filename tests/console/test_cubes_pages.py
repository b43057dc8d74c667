"""The pages about cubes: the list, one cube, adding, editing, removing."""

from __future__ import annotations

from urllib.parse import quote

from twisted.trial.unittest import TestCase

from cubehook.api.cubes import CubesPart
from cubehook.config import Config, Listen
from cubehook.records import RegistrationState
from tests.console.cubes import FakeCubes, FakeRegistrations, cube
from tests.console.support import NASTY, NOW, VIEWER, Browser, Page

NEW = {
    "id": "branch-12",
    "provider_url": "http://192.0.2.9:8090/cisco_xcc",
    "application_url": "http://192.0.2.20:8090/xcc/branch-12",
    "description": "Leeds",
    "default_region": "us",
    "allow_from": "192.0.2.0/24, 198.51.100.7\r\n203.0.113.0/24",
    "enabled": "yes",
}


class CubesCase(TestCase):
    def setUp(self) -> None:
        self.cubes = FakeCubes(cube("hq", description="Head office"), provisioned=frozenset())
        self.history = FakeRegistrations()
        self.browser = self.browse()

    def browse(self, **more: object) -> Browser:
        return Browser([CubesPart(self.cubes), self.history], pages=["cubes"], **more)  # type: ignore[arg-type]

    def error(self, page: Page, field: str) -> str:
        """What is said beside a field to be wrong, which the field itself names."""
        [control] = page.tree.xpath(f"//*[@id='{field}']")
        self.assertEqual(control.get("aria-invalid"), "true")
        self.assertIn(f"{field}-error", control.get("aria-describedby").split())
        return str(page.find(f"//*[@id='{field}-error']").text_content().strip())


class Looking(CubesCase):
    async def test_none_yet(self) -> None:
        self.cubes.cubes.clear()
        page = await self.browser.get("/cubes")
        self.assertIn("No cube yet", page.text)
        self.assertEqual(len(page.tree.xpath("//a[@href='/cubes/_new']")), 2)

    async def test_list(self) -> None:
        self.cubes.stand("hq", RegistrationState.SILENT)
        page = await self.browser.get("/cubes")
        row = page.find("//tbody/tr").text_content()
        for words in ("hq", "Head office", "Silent", "none yet", "4,236"):
            self.assertIn(words, row)

    async def test_part_that_is_asked_for_again(self) -> None:
        page = await self.browser.get("/cubes", hx_request="true")
        self.assertEqual(page.tree.xpath("//nav"), [])
        self.assertTrue(page.tree.xpath("//*[@id='cubes-list']"))

    async def test_cube(self) -> None:
        self.cubes.stand("hq", RegistrationState.REGISTERED, registration_id="4CA5E4:XCC:us:4")
        self.history.happened(RegistrationState.REGISTERED, "The gateway registered us.")
        self.history.happened(RegistrationState.SILENT, "No message for 95 s.", "timed out after 5 s")
        page = await self.browser.get("/cubes/hq")
        for words in (
            "Registered",
            "4CA5E4:XCC:us:4",
            "14,120",
            "No message for 95 s.",
            "timed out after 5 s",
        ):
            self.assertIn(words, page.text)
        self.assertIn("remote-url http://192.0.2.20:8090/xcc/hq", page.find("//pre[@id='ios']").text)
        self.assertNotIn("What to check", page.text)

    async def test_last_probe(self) -> None:
        self.cubes.stand("hq", RegistrationState.REGISTERED)
        self.assertIn("Last probenone since the start", (await self.browser.get("/cubes/hq")).text)
        self.cubes.stand("hq", RegistrationState.REGISTERED, last_probe_at=NOW - 17_000_000)
        self.assertIn("Last probe17 s ago", (await self.browser.get("/cubes/hq")).text)

    async def test_what_to_check(self) -> None:
        self.cubes.stand(
            "hq", RegistrationState.UNREGISTERED, last_error="192.0.2.1:8090 refused the connection"
        )
        page = await self.browser.get("/cubes/hq")
        self.assertIn("What to check", page.text)
        self.assertIn("ip http server", page.find("//ol[@class='steps']").text_content())

    async def test_missing_cube(self) -> None:
        for path in ("/cubes/none", "/cubes/none/edit"):
            page = await self.browser.get(path)
            self.assertEqual(page.status, 404)
            self.assertIn("There is no cube none", page.text)

    async def test_viewer_is_shown_no_forms(self) -> None:
        viewer = self.browse(session=VIEWER)
        for path in ("/cubes", "/cubes/hq"):
            page = await viewer.get(path)
            self.assertEqual(page.status, 200)
            self.assertEqual(page.tree.xpath("//main//form | //a[contains(@href, '_new')]"), [])

    async def test_hostile_values_are_text(self) -> None:
        self.cubes.cubes["hq"] = cube("hq", description=NASTY)
        self.cubes.stand(
            "hq", RegistrationState.REJECTED, last_error=NASTY, reason=NASTY, registration_id=NASTY
        )
        self.history.happened(RegistrationState.REJECTED, NASTY, NASTY)
        for path in ("/cubes", "/cubes/hq", "/cubes/hq/edit"):
            page = await self.browser.get(path)
            self.assertEqual(page.tree.xpath("//script[not(@src)]"), [], path)
            self.assertIn(
                "<script>alert(1)</script>", page.body.decode().replace("&lt;", "<").replace("&gt;", ">")
            )
            self.assertNotIn("49", page.text, path)
        page = await self.browser.get(f"/cubes/{quote('<img src=x onerror=alert(1)>')}")
        self.assertEqual((page.status, page.tree.xpath("//img")), (404, []))
        self.assertIn("There is no cube <img", page.text)
        page = await self.browser.get("/cubes/hq/edit")
        self.assertIn("<script>", page.find("//input[@name='description']").get("value"))


class Making(CubesCase):
    async def test_made(self) -> None:
        page = await self.browser.post("/cubes/_new", NEW)
        self.assertEqual((page.status, page.headers["location"]), (303, "/cubes/branch-12"))
        made = self.cubes.known["branch-12"]
        self.assertEqual(made.allow_from, ("192.0.2.0/24", "198.51.100.7", "203.0.113.0/24"))
        self.assertEqual((made.default_region, made.enabled, made.description), ("US", True, "Leeds"))

    async def test_secure_mode(self) -> None:
        digest = ":".join(["AB"] * 32)
        secure = {
            "provider_url": "https://192.0.2.12/cisco_xcc",
            "pins": f"sha256 Fingerprint={digest}\r\n{digest.replace('AB', 'CD')}",
            "client_certificate": "us.pem",
            "tls_minimum": "1.1",
        }
        await self.browser.post("/cubes/_new", NEW | secure)
        made = self.cubes.known["branch-12"]
        self.assertEqual(made.pins, (digest, digest.replace("AB", "CD")))
        self.assertEqual(
            (made.ca_file, made.client_certificate, made.client_key, made.tls_minimum),
            (None, "us.pem", None, "1.1"),
        )
        page = await self.browser.get("/cubes/branch-12")
        self.assertIn("pinned; TLS 1.1 is allowed", page.text)
        section = "//details[.//textarea[@name='pins']]"
        self.assertIsNone((await self.browser.get("/cubes/_new")).find(section).get("open"))
        page = await self.browser.get("/cubes/branch-12/edit")
        self.assertIsNotNone(page.find(section).get("open"))
        self.assertEqual(page.find("//textarea[@name='pins']").text.split(), list(made.pins))
        self.assertEqual(page.find("//select[@name='tls_minimum']/option[@selected]").get("value"), "1.1")
        page = await self.browser.post("/cubes/branch-12/edit", NEW | secure | {"pins": "AB:CD"})
        self.assertIn("SHA-256 fingerprint", self.error(page, "pins"))

    async def test_not_enabled(self) -> None:
        await self.browser.post("/cubes/_new", {key: text for key, text in NEW.items() if key != "enabled"})
        self.assertFalse(self.cubes.known["branch-12"].enabled)

    async def test_application_url_is_offered(self) -> None:
        browser = self.browse(settings=Config(listen=Listen(cubes=("tcp:8095",))))
        page = await browser.get("/cubes/_new")
        field = page.find("//input[@name='application_url']")
        self.assertEqual(field.get("data-pattern"), "http://cubehook.example:8095/xcc/NAME")
        self.assertIsNone(field.get("required"))
        await browser.post("/cubes/_new", {**NEW, "application_url": ""})
        made = self.cubes.known["branch-12"]
        self.assertEqual(made.application_url, "http://cubehook.example:8095/xcc/branch-12")
        secure = "ssl:port=8443:privateKey=/k:certKey=/c"
        page = await self.browse(settings=Config(listen=Listen(cubes=(secure,)))).get("/cubes/_new")
        field = page.find("//input[@name='application_url']")
        self.assertEqual(field.get("data-pattern"), "https://cubehook.example:8443/xcc/NAME")
        page = await self.browse(settings=Config(listen=Listen(cubes=("unix:/run/x",)))).get("/cubes/_new")
        self.assertIsNone(page.find("//input[@name='application_url']").get("data-pattern"))

    async def test_host_that_is_none_is_not_offered(self) -> None:
        page = await self.browser.get("/cubes/_new", host='"><script>')
        self.assertIsNone(page.find("//input[@name='application_url']").get("data-pattern"))
        self.assertEqual(page.tree.xpath("//script[not(@src)]"), [])

    async def test_what_is_wrong_stands_beside_the_field(self) -> None:
        wrong = {
            **NEW,
            "id": "No Such",
            "provider_url": "foo",
            "allow_from": "999.1.1.1 10.0.0.0/8 foo",
            "default_region": "USA",
        }
        page = await self.browser.post("/cubes/_new", wrong)
        self.assertEqual(page.status, 422)
        self.assertIn("http or https", self.error(page, "provider_url"))
        self.assertIn("999.1.1.1", self.error(page, "allow_from"))
        self.assertIn('"foo"', self.error(page, "allow_from"))
        self.assertIn("two capital letters", self.error(page, "default_region"))
        self.error(page, "id")
        # What was typed is still there.
        self.assertEqual(page.find("//input[@name='description']").get("value"), "Leeds")
        self.assertEqual(page.find("//textarea[@name='allow_from']").text.strip(), "999.1.1.1 10.0.0.0/8 foo")
        self.assertEqual(list(self.cubes.known), ["hq"])

    async def test_application_url_of_another(self) -> None:
        page = await self.browser.post("/cubes/_new", {**NEW, "application_url": cube("hq").application_url})
        self.error(page, "application_url")

    async def test_name_of_another(self) -> None:
        page = await self.browser.post("/cubes/_new", {**NEW, "id": "hq"})
        self.assertEqual(page.status, 409)
        self.assertIn("already", self.error(page, "id"))


class Changing(CubesCase):
    async def tag(self) -> str:
        return str((await self.browser.get("/cubes/hq/edit")).find("//input[@name='tag']").get("value"))

    async def test_changed(self) -> None:
        tag = await self.tag()
        page = await self.browser.post("/cubes/hq/edit", {**NEW, "tag": tag})
        self.assertEqual((page.status, page.headers["location"]), (303, "/cubes/hq"))
        self.assertEqual(self.cubes.known["hq"].description, "Leeds")

    async def test_changed_by_another_meanwhile(self) -> None:
        tag = await self.tag()
        self.cubes.cubes["hq"] = cube("hq", description="by another")
        page = await self.browser.post("/cubes/hq/edit", {**NEW, "tag": tag})
        self.assertEqual(page.status, 412)
        self.assertIn("changed since you looked", page.text)
        self.assertEqual(self.cubes.known["hq"].description, "by another")

    async def test_one_in_the_file(self) -> None:
        self.cubes.provisioned = frozenset(["hq"])
        page = await self.browser.get("/cubes/hq")
        self.assertIn("[cubes.hq]", page.text)
        self.assertEqual(
            page.tree.xpath("//a[contains(@href, '/edit')] | //form[contains(@action, '/remove')]"), []
        )
        self.assertEqual((await self.browser.get("/cubes/hq/edit")).status, 303)
        page = await self.browser.post("/cubes/hq/edit", {**NEW, "tag": ""})
        self.assertEqual(page.status, 409)
        await self.browser.post("/cubes/hq/remove", {"tag": ""})
        self.assertIn("configuration file", (await self.browser.get("/cubes")).text)

    async def test_removed_by_what_asks_first(self) -> None:
        page = await self.browser.get("/cubes/hq")
        form = page.find("//details//form[contains(@action, '/remove')]")
        fields = {field.get("name"): field.get("value") for field in form.xpath(".//input")}
        self.assertEqual((await self.browser.post(form.get("action"), fields)).headers["location"], "/cubes")
        self.assertEqual(list(self.cubes.known), [])

    async def test_registering_again(self) -> None:
        self.cubes.stand("hq", RegistrationState.REJECTED, last_error="the gateway says no")
        page = await self.browser.post("/cubes/hq/register")
        self.assertEqual(page.headers["location"], "/cubes/hq")
        self.assertIn("did not register us: the gateway says no", (await self.browser.get("/cubes/hq")).text)
        self.cubes.stand("hq", RegistrationState.REGISTERED)
        await self.browser.post("/cubes/hq/register")
        self.assertIn("The gateway has registered us", (await self.browser.get("/cubes/hq")).text)
