"""Whoever asks for a page: what is let in, what is turned away, and how the answer is guarded."""

from __future__ import annotations

import gzip
import subprocess
import sys
from unittest import mock

from twisted.trial.unittest import TestCase

from cubehook.api.cubes import CubesPart
from cubehook.api.errors import ForbiddenError
from cubehook.api.operations import Caller
from cubehook.api.session import csrf_token
from cubehook.console.app import HEADERS
from cubehook.store.errors import StoreError
from tests.console.cubes import FakeCubes, cube
from tests.console.support import ADMIN, VIEWER, Browser, Page


class AppCase(TestCase):
    def setUp(self) -> None:
        self.cubes = FakeCubes(cube("hq"))
        self.browser = self.browse()

    def browse(self, session: str | None = ADMIN) -> Browser:
        return Browser([CubesPart(self.cubes)], session=session, pages=["signin", "cubes"])

    def assert_guarded(self, page: Page) -> None:
        for name, value in HEADERS.items():
            self.assertEqual(page.headers.get(name.lower()), value)


class Guarding(AppCase):
    async def test_every_answer_is_guarded_and_none_is_kept(self) -> None:
        stranger = self.browse(None)
        for page in (
            await self.browser.get("/cubes"),
            await self.browser.get("/nowhere"),
            await self.browser.get("/%ff"),
            await stranger.get("/cubes"),
            await stranger.get("/sign-in"),
            await self.browser.post("/cubes/hq/register", csrf="wrong"),
        ):
            self.assert_guarded(page)
            self.assertEqual(page.headers["cache-control"], "no-store")

    async def test_policy_lets_nothing_in_that_is_not_ours(self) -> None:
        policy = (await self.browser.get("/cubes")).headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        for word in ("unsafe", "*", "http:", "https:"):
            self.assertNotIn(word, policy)

    async def test_pages_keep_to_the_policy(self) -> None:
        for path in ("/cubes", "/cubes/_new", "/nowhere"):
            page = await self.browser.get(path)
            for script in page.tree.xpath("//script"):
                self.assertTrue(script.get("src").startswith("/static/"), path)
            self.assertEqual(page.tree.xpath("//style | //*[@style] | //@onclick"), [])

    async def test_missing_page(self) -> None:
        page = await self.browser.get("/nowhere")
        self.assertEqual(page.status, 404)
        self.assertIn("There is no such page", page.text)
        self.assertTrue(page.tree.xpath("//nav"))

    async def test_path_that_cannot_be_read(self) -> None:
        self.assertEqual((await self.browser.get("/%ff")).status, 400)

    async def test_page_that_fails(self) -> None:
        with mock.patch.object(self.cubes, "active", side_effect=RuntimeError("inner secret")):
            page = await self.browser.get("/cubes")
        self.assertEqual(page.status, 500)
        self.assertNotIn("inner secret", page.body.decode())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_database_that_cannot_be_read(self) -> None:
        with mock.patch.object(self.browser.doors, "session", side_effect=StoreError("disk on fire")):
            page = await self.browser.get("/cubes")
        self.assertEqual(page.status, 503)
        self.assert_guarded(page)


class TurningAway(AppCase):
    async def test_who_has_not_signed_in_learns_nothing(self) -> None:
        stranger = self.browse(None)
        for path in ("/cubes/hq", "/cubes/none", "/nowhere"):
            page = await stranger.get(path)
            self.assertEqual((page.status, page.body), (303, b""))
            self.assertEqual(page.headers["location"], f"/sign-in?next=%2F{path[1:].replace('/', '%2F')}")
        page = await stranger.get("/sign-in")
        self.assertEqual(page.tree.xpath("//nav"), [])
        self.assertNotIn("hq", page.text)

    async def test_session_that_is_over(self) -> None:
        page = await self.browse("chs_of-yesterday").get("/cubes")
        self.assertEqual((page.status, page.headers["location"]), (303, "/sign-in?next=%2Fcubes"))

    async def test_part_of_a_page_without_a_session(self) -> None:
        page = await self.browse(None).get("/cubes", hx_request="true")
        self.assertEqual((page.status, page.headers["hx-redirect"]), (401, "/sign-in"))

    async def test_link_of_another_site(self) -> None:
        # The browser keeps a strict cookie back then; when our own page leads on, it is sent.
        page = await self.browse(None).get("/cubes/hq?x=%22%3E", sec_fetch_site="cross-site")
        self.assertEqual(page.status, 200)
        self.assertEqual(page.find("//meta[@http-equiv]").get("content"), "0; url=/cubes/hq?x=%22%3E")

    async def test_form_needs_the_token_of_its_session(self) -> None:
        for csrf in ("", "wrong", csrf_token(VIEWER)):
            page = await self.browser.post("/cubes/hq/register", csrf=csrf)
            self.assertEqual(page.status, 403)
        self.assertEqual(self.cubes.asked, [])
        page = await self.browser.post("/cubes/hq/register")
        self.assertEqual((page.status, self.cubes.asked), (303, ["hq"]))

    async def test_token_may_stand_in_a_header(self) -> None:
        await self.browser.post("/cubes/hq/register", csrf="", x_csrf_token=csrf_token(ADMIN))
        self.assertEqual(self.cubes.asked, ["hq"])

    async def test_form_of_another_site(self) -> None:
        for headers in (
            {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "same-site"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "http://cubehook.example:9999"},
        ):
            page = await self.browser.post("/cubes/hq/register", **headers)
            self.assertEqual(page.status, 403, headers)
        self.assertEqual(self.cubes.asked, [])

    async def test_form_of_ours(self) -> None:
        for headers in ({"sec_fetch_site": "same-origin"}, {"origin": "http://cubehook.example:8080"}):
            page = await self.browser.post("/cubes/hq/register", **headers)
            self.assertEqual(page.status, 303, headers)

    async def test_viewer_changes_nothing(self) -> None:
        viewer = self.browse(VIEWER)
        for path in ("/cubes/hq/register", "/cubes/hq/remove", "/cubes/hq/edit", "/cubes/_new"):
            page = await viewer.post(path, {"id": "x"})
            self.assertEqual(page.status, 403, path)
        self.assertEqual((self.cubes.asked, list(self.cubes.known)), ([], ["hq"]))

    async def test_viewer_may_not_by_the_desk_either(self) -> None:
        viewer = self.browse(VIEWER)
        with self.assertRaises(ForbiddenError):
            await viewer.desk.ask(Caller("vic", "viewer"), "register_cube", cube="hq")
        self.assertEqual(self.cubes.asked, [])

    async def test_method_that_a_page_does_not_take(self) -> None:
        page = await self.browser.post("/cubes/hq")
        self.assertEqual(page.status, 405)

    async def test_too_many_fields(self) -> None:
        page = await self.browser.get("/cubes?" + "&".join(f"a{number}=1" for number in range(3000)))
        self.assertEqual(page.status, 400)


class SigningIn(AppCase):
    def setUp(self) -> None:
        super().setUp()
        self.stranger = self.browse(None)

    async def test_by_a_token(self) -> None:
        page = await self.stranger.post("/sign-in", {"token": " good ", "next": "/cubes/hq?x=1"})
        self.assertEqual((page.status, page.headers["location"]), (303, "/cubes/hq?x=1"))
        self.assertEqual(
            page.headers["set-cookie"],
            "cubehook-session=fresh; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200",
        )
        self.assertEqual(self.stranger.doors.asked, [("good", "192.0.2.7")])

    async def test_over_tls(self) -> None:
        page = await self.stranger.post("/sign-in", {"token": "good"}, secure="yes")
        self.assertEqual(
            page.headers["set-cookie"],
            "__Host-cubehook-session=fresh; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure",
        )
        self.assertEqual((await self.browser.get("/cubes", secure="yes")).status, 200)

    async def test_cookie_without_its_prefix_does_not_count_over_tls(self) -> None:
        page = await self.stranger.get("/cubes", secure="yes", cookie=f"cubehook-session={ADMIN}")
        self.assertEqual(page.status, 303)

    async def test_by_a_wrong_token(self) -> None:
        page = await self.stranger.post("/sign-in", {"token": "bad"})
        self.assertEqual(page.status, 403)
        self.assertNotIn("set-cookie", page.headers)
        self.assertIn("No such token", page.text)
        self.assertNotIn("bad", page.find("//input[@name='token']").get("value"))

    async def test_looking_at_a_link_does_not_use_it(self) -> None:
        page = await self.stranger.get("/sign-in?code=once")
        self.assertEqual(self.stranger.doors.asked, [])
        self.assertEqual(page.find("//input[@name='code']").get("value"), "once")
        page = await self.stranger.post("/sign-in", {"code": "once"})
        self.assertIn("fresh", page.headers["set-cookie"])
        page = await self.stranger.post("/sign-in", {"code": "once"})
        self.assertEqual(page.status, 403)

    async def test_link_that_is_none_looks_like_one(self) -> None:
        page = await self.stranger.get("/sign-in?code=never")
        self.assertEqual(page.status, 200)
        self.assertTrue(page.tree.xpath("//input[@name='code']"))

    async def test_who_failed_too_often_waits(self) -> None:
        self.stranger.doors.wait = 17
        page = await self.stranger.post("/sign-in", {"token": "good"})
        self.assertEqual((page.status, page.headers["retry-after"]), (429, "17"))
        self.assertEqual(self.stranger.doors.asked, [])

    async def test_nobody_is_led_elsewhere(self) -> None:
        for place in ("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"):
            page = await self.stranger.post("/sign-in", {"token": "good", "next": place})
            self.assertEqual(page.headers["location"], "/", place)

    async def test_another_site_signs_nobody_in(self) -> None:
        page = await self.stranger.post("/sign-in", {"token": "good"}, sec_fetch_site="cross-site")
        self.assertEqual((page.status, self.stranger.doors.asked), (403, []))

    async def test_signing_out(self) -> None:
        page = await self.browser.post("/sign-out", csrf="wrong")
        self.assertIn(ADMIN, self.browser.doors.sessions)
        page = await self.browser.post("/sign-out")
        self.assertNotIn(ADMIN, self.browser.doors.sessions)
        self.assertIn("Max-Age=0", page.headers["set-cookie"])
        self.assertEqual((await self.browser.get("/cubes")).status, 303)

    async def test_viewer_signs_out(self) -> None:
        self.assertEqual((await self.browse(VIEWER).post("/sign-out")).status, 303)


class StaticFiles(AppCase):
    async def path_of_the_style(self) -> str:
        page = await self.browse(None).get("/sign-in")
        return str(page.find("//link[@rel='stylesheet']").get("href"))

    async def test_kept_for_good(self) -> None:
        path = await self.path_of_the_style()
        page = await self.browse(None).get(path)
        self.assertEqual(page.headers["content-type"], "text/css; charset=utf-8")
        self.assertEqual(page.headers["cache-control"], "public, max-age=31536000, immutable")
        self.assertIn(b"--accent", page.body)
        self.assert_guarded(page)

    async def test_not_by_another_address(self) -> None:
        page = await self.browser.get("/static/0123456789abcdef/console.css")
        self.assertEqual((page.status, page.headers["cache-control"]), (200, "no-cache"))

    async def test_once_known(self) -> None:
        path = await self.path_of_the_style()
        tag = (await self.browser.get(path)).headers["etag"]
        page = await self.browser.get(path, if_none_match=tag)
        self.assertEqual((page.status, page.body), (304, b""))

    async def test_compressed(self) -> None:
        path = await self.path_of_the_style()
        plain = await self.browser.get(path, accept_encoding="br, gzip;q=0")
        page = await self.browser.get(path, accept_encoding="br, gzip")
        self.assertNotIn("content-encoding", plain.headers)
        self.assertEqual((page.headers["content-encoding"], gzip.decompress(page.body)), ("gzip", plain.body))

    async def test_missing_file(self) -> None:
        for path in ("/static/x/nothing.css", "/static/x/..%2fapp.py", "/static/x/LICENSES.txt"):
            page = await self.browser.get(path)
            self.assertEqual(page.status, 404, path)


class Saying(AppCase):
    async def test_said_once_and_to_the_one_who_did_it(self) -> None:
        await self.browser.post("/cubes/hq/remove", {"tag": ""})
        viewer = await self.browser.get("/cubes", cookie=f"cubehook-session={VIEWER}")
        self.assertNotIn("is removed", viewer.text)
        self.assertIn("Cube hq is removed", (await self.browser.get("/cubes")).text)
        self.assertNotIn("is removed", (await self.browser.get("/cubes")).text)


class Memory(TestCase):
    def test_service_without_visits_holds_no_templates(self) -> None:
        code = (
            "import sys; import cubehook.service; "
            "from cubehook import config; from twisted.internet import reactor; "
            "cubehook.service.CubehookService(config.Config(), reactor); "
            "found = [name for name in sys.modules if name.split('.')[0] == 'jinja2' "
            "or name.startswith('cubehook.console.pages')]; "
            "sys.exit(str(found) if found else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
