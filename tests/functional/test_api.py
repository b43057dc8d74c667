"""The REST API of a real service: who may ask, what it tells, and that it is as its document says."""

from __future__ import annotations

import importlib.util
import json
import stat
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.web.http_headers import Headers

from cubehook.api.operations import PREFIX
from tests.functional.control import ask as ask_control
from tests.functional.harness import PATIENCE
from tests.functional.test_commands import cubehook
from tests.functional.test_main_job import STATES, MainJobCase

EXAMPLES = 8
"""Requests of each kind that schemathesis makes of an operation."""


class ApiCase(MainJobCase):
    async def start(self, **settings: Any) -> None:
        await self.begin(**settings)
        self.url = f"http://127.0.0.1:{self.service.console_port}"
        self.token_file = self.service.folder / "state" / "admin-token"
        self.token = self.token_file.read_text().strip()

    async def ask(
        self, method: str, path: str, body: Any = None, token: str | None = "", **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON; with the first administrator's token unless another is given, or None."""
        given = Headers({name: [value] for name, value in headers.items()})
        if token is not None:
            given.setRawHeaders("Authorization", [f"Bearer {token or self.token}"])
        if body is not None:
            given.setRawHeaders("Content-Type", ["application/json"])
        raw = None if body is None else json.dumps(body).encode()
        url = path if path.startswith("http") else f"{self.url}{PREFIX}{path}"
        response = await treq.request(method, url, data=raw, headers=given, persistent=False)
        self.headers = response.headers
        text = await response.text()
        return response.code, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        status, found = await self.ask("GET", path)
        self.assertEqual(status, 200, found)
        return found


class Looking(ApiCase):
    async def test_a_call_from_the_first_notification_to_the_receivers_answer(self) -> None:
        await self.start(payload="full")
        self.call()
        await self.until(lambda: self.states() == STATES)
        bodies = self.accepted()

        async def delivered() -> bool:
            found = await self.get("/deliveries?status=delivered&webhook=crm")
            return len(found["items"]) == 3

        await self.poll(delivered)
        (listed,) = (await self.get("/calls?cube=hq&outcome=answered&state=DISCONNECTED"))["items"]
        self.assertEqual(
            (listed["id"], listed["talk_seconds"]), (bodies[0]["call_id"], bodies[2]["talk_seconds"])
        )
        self.assertEqual((await self.get("/calls?cube=berlin"))["items"], [])
        self.assertEqual((await self.get(f"/calls?number={listed['called_number'][-7:]}"))["items"], [listed])
        call = await self.get(f"/calls/{listed['id']}")
        self.assertEqual([event["payload"] for event in call["events"]], bodies)
        self.assertIn("<", call["notifications"][0]["body"])
        self.assertEqual(call["notifications"][0]["message"], "created")
        self.assertEqual([delivery["state"] for delivery in call["deliveries"]], STATES)
        whole = await self.get(f"/deliveries/{call['deliveries'][2]['id']}")
        (attempt,) = whole["attempts"]
        self.assertEqual((attempt["status"], json.loads(attempt["request_body"])), (200, bodies[2]))
        self.assertEqual((whole["event"], whole["call_summary"]), (bodies[2], listed))
        stats = await self.get("/stats")
        self.assertEqual((stats["calls"], stats["answer_rate"], stats["cubes"]["hq"]["calls"]), (1, 1.0, 1))

    async def test_pages(self) -> None:
        await self.start()
        for _ in range(3):
            self.call(hold=0.2)
        await self.until(lambda: self.states().count("DISCONNECTED") == 3)
        for path in ("/calls", "/deliveries", "/deliveries?status=delivered"):
            whole = (await self.get(f"{path}{'&' if '?' in path else '?'}limit=200"))["items"]
            ids: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                page = await self.get(f"{path}{'&' if '?' in path else '?'}limit=2{cursor}")
                self.assertLessEqual(len(page["items"]), 2)
                ids += [item["id"] for item in page["items"]]
                cursor = None if page["next"] is None else f"&cursor={page['next']}"
            self.assertEqual(ids, [item["id"] for item in whole])
            self.assertEqual(ids, sorted(ids, reverse=True))
        status, found = await self.ask("GET", "/calls?cursor=nonsense")
        self.assertEqual((status, list(found["error"]["fields"])), (422, ["cursor"]))

    async def test_events_over_a_restart(self) -> None:
        await self.start(payload="full")
        lines: list[str] = []
        following = await self.follow(lines)
        self.call(hold=0.2)
        await self.poll_for(lambda: "event: DISCONNECTED" in lines)
        following.cancel()
        told = [line[4:] for line in lines if line.startswith("id: ")][1:]
        data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        await self.until(lambda: self.states() == STATES)
        self.assertEqual(data, self.accepted())
        self.assertEqual(told, [body["event_id"] for body in self.accepted()])
        assert self.service.process is not None
        await self.service.process.stop()
        await self.service.start()
        again: list[str] = []
        following = await self.follow(again, last=told[0])
        await self.poll_for(lambda: "event: DISCONNECTED" in again)
        self.assertEqual([line[4:] for line in again if line.startswith("id: ")], told[1:])
        following.cancel()

    async def follow(self, lines: list[str], last: str | None = None) -> Deferred[Any]:
        """Read the events into `lines` until that is cancelled."""
        headers = Headers({"Authorization": [f"Bearer {self.token}"]})
        if last is not None:
            headers.setRawHeaders("Last-Event-ID", [last])
        response = await treq.get(
            f"{self.url}{PREFIX}/events", headers=headers, persistent=False, unbuffered=True
        )
        self.assertEqual(response.code, 200)
        rest = b""

        def collect(data: bytes) -> None:
            nonlocal rest
            *whole, rest = (rest + data).split(b"\n")
            lines.extend(line.decode() for line in whole)

        following = response.collect(collect)
        _ = following.addErrback(lambda _: None)
        self.addCleanup(following.cancel)
        await self.poll_for(lambda: any(line.startswith(("id:", "retry:")) for line in lines))
        return following

    async def poll_for(self, condition: Any) -> None:
        async def look() -> bool:
            return bool(condition())

        await self.poll(look)


class Access(ApiCase):
    async def test_tokens(self) -> None:
        await self.start()
        self.assertEqual(stat.S_IMODE(self.token_file.stat().st_mode), 0o600)
        status, made = await self.ask("POST", "/tokens", {"name": "Wallboard", "role": "viewer"})
        self.assertEqual((status, made["role"], made["last_used_at"]), (201, "viewer", None))
        viewer = made["token"]
        self.assertEqual((await self.ask("GET", "/webhooks", token=viewer))[0], 200)
        for method, path, body in (
            ("POST", "/tokens", {"name": "x"}),
            ("GET", "/tokens", None),
            ("GET", "/audit", None),
            ("POST", "/webhooks/crm/rotate-secret", None),
            ("DELETE", f"/tokens/{made['id']}", None),
        ):
            status, found = await self.ask(method, path, body, token=viewer)
            self.assertEqual((status, found["error"]["code"]), (403, "forbidden"), path)
        status, found = await self.ask("POST", "/tokens", {"name": "Wallboard"})
        self.assertEqual((status, found["error"]["code"]), (409, "conflict"))
        listed = await self.get("/tokens")
        self.assertNotIn(viewer, str(listed))
        self.assertIsNotNone(
            next(each for each in listed["items"] if each["id"] == made["id"])["last_used_at"]
        )
        self.assertEqual((await self.ask("DELETE", f"/tokens/{made['id']}"))[0], 204)
        self.assertEqual((await self.ask("DELETE", f"/tokens/{made['id']}"))[0], 404)
        self.assertEqual((await self.ask("GET", "/webhooks", token=viewer))[0], 401)
        # The same file, and no second token, at the next start.
        assert self.service.process is not None
        await self.service.process.stop()
        await self.service.start()
        self.assertEqual(self.token_file.read_text().strip(), self.token)
        entries = (await self.get("/audit"))["items"]
        self.assertEqual(
            [(each["who"], each["action"], each["subject"], each["detail"]) for each in entries],
            [
                ("first administrator", "delete_token", made["id"], {}),
                ("first administrator", "create_token", made["id"], {"name": "Wallboard"}),
                (
                    "configuration",
                    "provision",
                    str(self.service.config),
                    {"cubes": {"added": ["hq"]}, "webhooks": {"added": ["crm"]}},
                ),
            ],
        )

    async def test_who_fails_too_often_waits_and_locks_out_nobody(self) -> None:
        await self.start()
        self.assertEqual((await self.ask("GET", "/calls", token=None))[0], 401)
        self.assertIn("Bearer", self.headers.getRawHeaders("www-authenticate")[0])
        self.assertEqual((await self.ask("GET", "/calls"))[0], 200)
        answers = [await self.ask("GET", "/calls", token=f"chk_wrong{number}") for number in range(12)]
        self.assertEqual([status for status, _ in answers], [401] * 10 + [429] * 2)
        self.assertEqual(len({json.dumps(found) for _, found in answers[:10]}), 1)
        self.assertGreater(int(self.headers.getRawHeaders("retry-after")[0]), 0)
        self.assertEqual((await self.ask("GET", "/calls"))[0], 200)
        # A right one that nobody has used is a guess like any other, until that is over.
        answer = await ask_control(self.service, "POST", "/tokens", {"name": "New"})
        self.assertEqual((await self.ask("GET", "/calls", token=answer.body["token"]))[0], 429)

    async def test_the_control_socket_needs_no_token_and_is_recorded(self) -> None:
        await self.start()
        answer = await ask_control(self.service, "POST", "/tokens", {"name": "New", "role": "admin"})
        self.assertEqual(answer.status, 201)
        entry = (await self.get("/audit"))["items"][0]
        self.assertTrue(entry["who"].startswith("uid "), entry)

    async def test_headers_of_every_answer(self) -> None:
        await self.start()
        for path in ("/healthz", "/metrics", "/nothing", "/api/docs", "/api/v1/calls", "/api/v1/nothing"):
            response = await treq.get(f"{self.url}{path}", persistent=False, allow_redirects=False)
            await response.content()
            headers = response.headers
            self.assertEqual(headers.getRawHeaders("x-content-type-options"), ["nosniff"], path)
            (policy,) = headers.getRawHeaders("content-security-policy")
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertEqual(len(headers.getRawHeaders("referrer-policy")), 1)
            self.assertIsNone(headers.getRawHeaders("access-control-allow-origin"))
            if path.startswith("/api/v1"):
                self.assertEqual(headers.getRawHeaders("cache-control"), ["no-store"])

    async def test_the_page_and_its_files(self) -> None:
        await self.start()
        response = await treq.get(f"{self.url}/api/docs", persistent=False)
        page = await response.text()
        for path in ("/api/docs/rapidoc-min.js", "/api/docs/docs.css", "/api/v1/openapi.json"):
            self.assertIn(path, page)
            response = await treq.get(f"{self.url}{path}", persistent=False)
            self.assertEqual(response.code, 200)
            self.assertGreater(len(await response.content()), 50)
        self.assertNotRegex(page, "https?://|<script>|<style| style=")

    async def test_the_command(self) -> None:
        await self.start()
        where = ("--config", str(self.service.config))
        status, output, errors = await cubehook("token", "add", "Wallboard", *where)
        self.assertEqual(status, 0, errors)
        token = output.strip()
        self.assertEqual((await self.ask("GET", "/calls", token=token))[0], 200)
        self.assertEqual((await self.ask("GET", "/tokens", token=token))[0], 403)
        status, output, _ = await cubehook("token", "list", "--json", *where)
        items = json.loads(output)["items"]
        self.assertEqual([item["name"] for item in items], ["Wallboard", "first administrator"])
        status, output, _ = await cubehook("token", "remove", "Wallboard", *where)
        self.assertEqual(status, 0)
        self.assertEqual((await self.ask("GET", "/calls", token=token))[0], 401)
        status, _, errors = await cubehook("token", "remove", "Wallboard", *where)
        self.assertEqual((status, "Wallboard" in errors), (1, True))


class AsDocumented(ApiCase):
    if importlib.util.find_spec("schemathesis") is None:
        skip = "schemathesis is not installed"

    timeout = 300

    async def test_every_answer_is_as_the_document_says(self) -> None:
        await self.start()
        self.call(hold=0.2)
        await self.until(lambda: self.states() == STATES)
        status, made = await self.ask("POST", "/tokens", {"name": "Wallboard"})
        self.assertEqual(status, 201)
        known = {
            "call": [(await self.get("/calls"))["items"][0]["id"]],
            "delivery": [item["id"] for item in (await self.get("/deliveries"))["items"]],
            "webhook": ["crm"],
            "cube": ["hq"],
            "token": [made["id"]],
            "schema": ["basic", "full", "notice"],
        }
        _, document = await self.ask("GET", "/openapi.json", token=None)
        problems = await deferToThread(_tried, document, self.url, self.token, known)
        self.assertEqual(len(problems), 0, "\n\n".join(problems))
        self.assertEqual((await self.ask("GET", "/calls"))[0], 200)


def _tried(document: dict[str, Any], url: str, token: str, known: dict[str, list[str]]) -> list[str]:
    """What is wrong with answers of the service, in words; blocks for as long as that takes."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)

    def tried(operation: Any) -> None:
        names = [name for name in known if f"{{{name}}}" in operation.path]
        # What is there would soon be no more, or be another one.
        if operation.method.upper() == "DELETE":
            names = []

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def attempt(data: Any) -> None:
            case = data.draw(operation.as_strategy())
            for name in names:
                if data.draw(st.booleans()):
                    case.path_parameters[name] = data.draw(st.sampled_from(known[name]))
            # Without a token everything is refused alike; one request in four has none.
            right = data.draw(st.integers(0, 3)) > 0
            headers = {"Authorization": f"Bearer {token}"} if right else {}
            response = case.call(headers=headers, timeout=PATIENCE)
            case.validate_response(response, checks=checks)

        attempt()

    problems: list[str] = []
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        # It does not end, and has tests of its own.
        if operation.path.endswith("/events"):
            continue
        try:
            tried(operation)
        except Exception as error:
            problems.append(f"{operation.label}: {error}"[:3000])
    return problems
