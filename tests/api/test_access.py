"""Who may ask on the console's listener: tokens, sessions, links, and who fails too often."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import treq
from twisted.web.http_headers import Headers

from cubehook.api.access import CSRF_HEADER, FIRST_NAME, Gate
from cubehook.api.audit import AuditPart, Record
from cubehook.api.guard import guarded
from cubehook.api.operations import Api
from cubehook.api.session import COOKIE, csrf_token
from cubehook.api.site import ConsoleSite
from cubehook.api.tokens import TokensPart
from cubehook.events import Micros
from cubehook.ids import Ids
from cubehook.net.site import AccessSite
from cubehook.store.access import FIRST_LINK_TIME, SESSION_TIME, Token
from tests.api.support import NOW
from tests.store.support import StoreCase, reactor


class AccessCase(StoreCase):
    """The API of tokens behind a gate, on a port; `now` and `seconds` are what the clocks say."""

    async def begin(self) -> None:
        self.now: Micros = NOW
        self.seconds = 0.0
        self.kept = await self.opened()
        ids = Ids(random.Random(1).getrandbits)
        numbers = itertools.count(1)

        def random_bytes(count: int) -> bytes:
            return next(numbers).to_bytes(count, "big")

        self.gate = Gate(self.kept.access, ids, lambda: self.now, lambda: self.seconds, random_bytes)
        parts = guarded(
            [TokensPart(self.kept.access, ids, lambda: self.now, random_bytes), AuditPart(self.kept)],
            Record(self.kept, ids, lambda: self.now).keep,
        )
        api = Api(parts, self.gate.who).resource()
        site = AccessSite(ConsoleSite({"/api/v1": api}, api), lambda _: None, lambda: self.now, reactor)
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        made = await self.gate.first_start(self.path.parent)
        assert made is not None
        path, self.code = made
        self.token = path.read_text().strip()

    async def ask(
        self, method: str = "GET", path: str = "/tokens", body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        given = Headers()
        for name, value in headers.items():
            given.setRawHeaders(name.encode(), [value.encode("latin-1")])
        if body is not None:
            given.setRawHeaders("Content-Type", ["application/json"])
        url = f"http://127.0.0.1:{self.port.getHost().port}/api/v1{path}"
        raw = None if body is None else json.dumps(body).encode()
        response = await treq.request(method, url, data=raw, headers=given, persistent=False)
        self.headers = response.headers
        text = await response.text()
        return response.code, json.loads(text) if text else None

    async def session(self) -> str:
        secret = await self.gate.sign_in(self.token, "192.0.2.1")
        assert secret is not None
        return secret


class Tokens(AccessCase):
    async def test_the_first_administrators(self) -> None:
        await self.begin()
        status, found = await self.ask(authorization=f"Bearer {self.token}")
        self.assertEqual((status, found["items"][0]["name"]), (200, FIRST_NAME))
        self.assertEqual((await self.ask(authorization=f"bEARER   {self.token} "))[0], 200)
        self.assertIsNone(await self.gate.first_start(self.path.parent))

    async def test_what_is_no_token(self) -> None:
        await self.begin()
        bodies = set()
        for given in (
            "Bearer",
            "Basic YTpi",
            "Bearer x",
            f"Bearer {self.token[:-1]}",
            f"Bearer {self.token} x",
            f"Token {self.token}",
            "Bearer \xe9\xff",
        ):
            status, found = await self.ask(authorization=given)
            self.assertEqual((status, found["error"]["code"]), (401, "unauthorized"), given)
            (challenge,) = self.headers.getRawHeaders("www-authenticate")
            self.assertTrue(challenge.startswith("Bearer "))
            if given.startswith("Bearer ") and len(given) > 7:
                bodies.add(str(found))
        self.assertEqual(len(bodies), 1)
        self.assertEqual((await self.ask())[0], 401)

    async def test_a_session_is_no_token_and_a_token_no_session(self) -> None:
        await self.begin()
        session = await self.session()
        self.assertEqual((await self.ask(authorization=f"Bearer {session}"))[0], 401)
        self.assertEqual((await self.ask(cookie=f"{COOKIE}={self.token}"))[0], 401)

    async def test_failures_are_limited_by_address_until_time_has_passed(self) -> None:
        await self.begin()
        statuses = [(await self.ask(authorization=f"Bearer chk_{number}"))[0] for number in range(11)]
        self.assertEqual(statuses, [401] * 10 + [429])
        self.assertEqual(self.headers.getRawHeaders("retry-after"), ["6"])
        # It was not right before, and so is not looked at.
        self.assertEqual((await self.ask(authorization=f"Bearer {self.token}"))[0], 429)
        self.seconds += 6
        self.assertEqual((await self.ask(authorization=f"Bearer {self.token}"))[0], 200)
        self.assertEqual((await self.ask(authorization="Bearer chk_x"))[0], 401)
        self.assertEqual((await self.ask(authorization="Bearer chk_x"))[0], 429)
        # Now it was.
        self.assertEqual((await self.ask(authorization=f"Bearer {self.token}"))[0], 200)

    async def test_nothing_given_is_no_failure(self) -> None:
        await self.begin()
        for _ in range(15):
            self.assertEqual((await self.ask())[0], 401)

    async def test_signing_in_is_limited_too(self) -> None:
        await self.begin()
        for number in range(10):
            self.assertIsNone(await self.gate.sign_in(f"chk_{number}", "192.0.2.1"))
        self.assertEqual(self.gate.must_wait("192.0.2.1"), 6)
        self.assertIsNone(await self.gate.sign_in(self.token, "192.0.2.1"))
        self.assertIsNone(await self.gate.sign_in_by_link(self.code, "192.0.2.1"))
        # The link was not spent by that.
        self.assertIsNotNone(await self.gate.sign_in_by_link(self.code, "192.0.2.2"))


class Sessions(AccessCase):
    async def test_looking(self) -> None:
        await self.begin()
        secret = await self.session()
        self.assertEqual((await self.ask(cookie=f"other=1; {COOKIE}={secret}"))[0], 200)
        self.now += SESSION_TIME
        self.assertEqual((await self.ask(cookie=f"{COOKIE}={secret}"))[0], 401)

    async def test_the_end_of_a_session_is_no_guess(self) -> None:
        await self.begin()
        secret = await self.session()
        self.assertEqual((await self.ask(cookie=f"{COOKIE}={secret}"))[0], 200)
        await self.gate.sign_out(secret)
        self.assertEqual((await self.ask(cookie=f"{COOKIE}={secret}"))[0], 401)
        self.assertEqual(len(self.gate._throttle), 0)

    async def test_a_change_needs_the_token_of_our_own_pages(self) -> None:
        await self.begin()
        secret = await self.session()
        cookie = f"{COOKIE}={secret}"
        right = {CSRF_HEADER: csrf_token(secret)}
        for headers in (
            {},
            {CSRF_HEADER: ""},
            {CSRF_HEADER: csrf_token(secret + "x")},
            right | {"Origin": "https://evil.example"},
            right | {"Sec-Fetch-Site": "cross-site"},
            right | {"Sec-Fetch-Site": "same-site"},
            right | {"Origin": "http://["},
        ):
            status, found = await self.ask("POST", body={"name": "x"}, cookie=cookie, **headers)
            self.assertEqual((status, found["error"]["code"]), (403, "forbidden"), headers)
        headers = right | {"Sec-Fetch-Site": "same-origin"}
        self.assertEqual((await self.ask("POST", body={"name": "x"}, cookie=cookie, **headers))[0], 201)

    async def test_a_session_ends_with_its_token(self) -> None:
        await self.begin()
        secret = await self.session()
        _, found = await self.ask(authorization=f"Bearer {self.token}")
        id = found["items"][0]["id"]
        status, found = await self.ask("DELETE", f"/tokens/{id}", authorization=f"Bearer {self.token}")
        self.assertEqual((status, found["error"]["code"]), (409, "conflict"))
        self.assertIn("cubehook token add NAME --role admin", found["error"]["message"])
        self.assertIsNotNone(await self.gate.session(secret))
        other = {"name": "other", "role": "admin"}
        self.assertEqual((await self.ask("POST", body=other, authorization=f"Bearer {self.token}"))[0], 201)
        status, _ = await self.ask("DELETE", f"/tokens/{id}", authorization=f"Bearer {self.token}")
        self.assertEqual(status, 204)
        self.assertIsNone(await self.gate.session(secret))
        self.assertEqual((await self.ask(cookie=f"{COOKIE}={secret}"))[0], 401)

    async def test_a_token_that_is_removed_while_somebody_signs_in_by_it(self) -> None:
        await self.begin()
        admin = f"Bearer {self.token}"
        _, made = await self.ask("POST", body={"name": "leaver"}, authorization=admin)
        access = self.kept.access
        find, asked = access.token, []

        async def found_and_then_removed(secret: str, now: Micros) -> Token | None:
            found = await find(secret, now)
            asked.append(found)
            if len(asked) == 1:
                await access.remove_token(found.id if found else 0)
            return found

        self.patch(access, "token", found_and_then_removed)
        secrets: list[str] = []
        begin_session = access.begin_session

        async def noted(secret: str, *arguments: Any) -> None:
            secrets.append(secret)
            await begin_session(secret, *arguments)

        self.patch(access, "begin_session", noted)
        self.assertIsNone(await self.gate.sign_in(made["token"], "192.0.2.1"))
        self.assertIsNone(await self.gate.session(secrets[0]))

    async def test_a_link_is_good_once_and_for_its_time(self) -> None:
        await self.begin()
        secret = await self.gate.sign_in_by_link(self.code, "192.0.2.1")
        assert secret is not None
        caller = await self.gate.session(secret)
        assert caller is not None
        self.assertEqual((caller.name, caller.role), (FIRST_NAME, "admin"))
        self.assertIsNone(await self.gate.sign_in_by_link(self.code, "192.0.2.1"))

    async def test_a_link_that_is_too_old(self) -> None:
        await self.begin()
        self.now += FIRST_LINK_TIME
        self.assertIsNone(await self.gate.sign_in_by_link(self.code, "192.0.2.1"))

    async def test_who_signed_in_and_out_is_on_the_record(self) -> None:
        await self.begin()
        secret = await self.session()
        await self.gate.sign_out(secret)
        await self.gate.sign_out(secret)
        _, found = await self.ask(path="/audit", authorization=f"Bearer {self.token}")
        self.assertEqual(
            [(each["who"], each["action"], each["subject"]) for each in found["items"]],
            [(FIRST_NAME, "sign_out", FIRST_NAME), (FIRST_NAME, "sign_in", "192.0.2.1")],
        )
        self.assertNotIn(secret, str(found))


class Names(AccessCase):
    async def test_names_that_are_none(self) -> None:
        await self.begin()
        for name in ("", " x", "x\n", "x" * 101, 5, None):
            status, found = await self.ask("POST", body={"name": name}, authorization=f"Bearer {self.token}")
            self.assertEqual((status, list(found["error"]["fields"])), (422, ["name"]), name)

    async def test_pages(self) -> None:
        await self.begin()
        for name in "abc":
            await self.ask("POST", body={"name": name}, authorization=f"Bearer {self.token}")
            self.now += 1000
        names: list[str] = []
        cursor = ""
        while True:
            _, page = await self.ask(path=f"/tokens?limit=3{cursor}", authorization=f"Bearer {self.token}")
            names += [item["name"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        self.assertEqual(names, ["c", "b", "a", FIRST_NAME])
