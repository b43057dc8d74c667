"""What every operation has in common: how requests are read, and the form of every refusal."""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from cubehook.api.operations import Api, operations
from cubehook.interfaces import StoreFullError
from cubehook.net.routing import LazyResource
from cubehook.net.site import MAX_BODY
from cubehook.store.errors import ProvisionedError, StoreError
from tests.api.support import ApiCase

RANGE = "/webhooks/crm/redeliver"


class Refusals(ApiCase):
    async def refused(self, status: int, code: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        answer: tuple[int, Any] = await self.ask(*arguments, **options)
        found, body = answer
        self.assertEqual((found, list(body), body["error"]["code"]), (status, ["error"], code), body)
        self.assertTrue(body["error"]["message"])
        error: dict[str, Any] = body["error"]
        return error

    async def test_no_such_path(self) -> None:
        for path in ("", "/", "/nothing", "/webhooks/", "/webhooks//", "//webhooks", "/webhooks/crm/nothing"):
            await self.refused(404, "not_found", "GET", path)
        await self.refused(404, "not_found", "POST", "/nothing", {"a": 1})

    async def test_another_method(self) -> None:
        error = await self.refused(405, "method_not_allowed", "PATCH", "/jobs", {})
        self.assertIn("GET", error["message"])
        self.assertEqual(self.headers.getRawHeaders("allow"), ["GET, HEAD"])
        await self.refused(405, "method_not_allowed", "GET", RANGE)
        await self.refused(405, "method_not_allowed", "BREW", "/webhooks")

    async def test_head(self) -> None:
        self.assertEqual(await self.ask("HEAD", "/webhooks"), (200, None))

    async def test_a_body_that_is_not_called_json(self) -> None:
        for name in ("text/plain", "application/x-www-form-urlencoded", None):
            await self.refused(
                415, "unsupported_media_type", "POST", RANGE, raw=b'{"since": "x"}', content_type=name
            )
        # Not even where there is nothing to give: a form of another site could be sent by a browser.
        await self.refused(
            415,
            "unsupported_media_type",
            "POST",
            "/webhooks/crm/enable",
            raw=b"{}",
            content_type="text/plain",
        )

    async def test_json_with_a_charset(self) -> None:
        status, _ = await self.ask(
            "POST",
            RANGE,
            {"since": "2024-11-23T16:03:36Z"},
            content_type="Application/JSON; charset=utf-8",
        )
        self.assertEqual(status, 200)

    async def test_a_body_that_is_not_json(self) -> None:
        for raw in (b"{", b"\xff", b"nonsense", b"[" * 100_000, b'{"since": 1} {}', b"1" * 5000):
            await self.refused(400, "bad_request", "POST", RANGE, raw=raw)
        await self.refused(415, "unsupported_media_type", "POST", RANGE)

    async def test_a_body_that_is_no_object(self) -> None:
        bodies: list[object] = [[], "text", 1, True]
        for body in bodies:
            error = await self.refused(422, "invalid", "POST", RANGE, body)
            self.assertIn("expected an object", error["message"])
        await self.refused(422, "invalid", "POST", RANGE, raw=b"null")

    async def test_a_body_that_is_too_large(self) -> None:
        await self.refused(413, "too_large", "POST", RANGE, raw=b'{"since": "' + b"x" * MAX_BODY + b'"}')

    async def test_every_wrong_field_is_named(self) -> None:
        error = await self.refused(
            422,
            "invalid",
            "POST",
            RANGE,
            {"until": 5, "status": ["failed", "lost", 3], "per_second": 0, "preview": "yes", "statsu": []},
        )
        self.assertEqual(
            error["fields"],
            {
                "since": "expected a time with its zone, such as 2024-11-23T16:03:36Z; found nothing",
                "until": "expected a time with its zone, such as 2024-11-23T16:03:36Z; found 5",
                "status[1]": 'expected one of "delivered", "failed", "expired", "missed"; found "lost"',
                "status[2]": 'expected one of "delivered", "failed", "expired", "missed"; found 3',
                "per_second": "expected a number from 0.01 to 1000.0; found 0",
                "preview": 'expected true or false; found "yes"',
                "statsu": "expected one of since, until, status, per_second, preview; found another field",
            },
        )
        self.assertEqual(self.redelivery.asked, [])
        self.assertEqual(self.phrase, HTTPStatus(422).phrase.encode())

    async def test_where_nothing_is_to_be_given(self) -> None:
        error = await self.refused(422, "invalid", "POST", "/webhooks/crm/enable", {"force": True})
        self.assertEqual(list(error["fields"]), ["force"])
        error = await self.refused(422, "invalid", "GET", "/webhooks/crm?verbose=1")
        self.assertEqual(list(error["fields"]), ["verbose"])
        self.assertEqual((await self.ask("POST", "/webhooks/crm/enable", {}))[0], 200)

    async def test_every_wrong_parameter_is_named(self) -> None:
        error = await self.refused(
            422, "invalid", "GET", "/jobs?limit=201&cursor=what&page=2&webhook=a&webhook=b"
        )
        self.assertEqual(sorted(error["fields"]), ["cursor", "limit", "page", "webhook"])
        self.assertEqual(error["fields"]["limit"], 'expected a whole number from 1 to 200; found "201"')
        self.assertIn("found a list", error["fields"]["webhook"])
        for limit in ("0", "-1", "1.5", "x", "", "%ff"):
            await self.refused(422, "invalid", "GET", f"/jobs?limit={limit}")

    async def test_what_is_no_text_in_a_path(self) -> None:
        error = await self.refused(400, "bad_request", "GET", "/webhooks/%ff")
        self.assertNotIn("Traceback", error["message"])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_store_that_cannot_be_used(self) -> None:
        for fault in (StoreError("the disk is full"), StoreFullError("much waits")):
            self.webhooks.fault = fault
            error = await self.refused(503, "unavailable", "POST", "/webhooks/crm/enable")
            self.assertIn(str(fault), error["message"])

    async def test_a_service_that_stops(self) -> None:
        self.webhooks.waits = waits = Deferred[None]()
        refused = Deferred.fromCoroutine(self.refused(503, "unavailable", "POST", "/webhooks/crm/enable"))
        await self.until(lambda: bool(waits.callbacks))
        waits.cancel()
        self.assertIn("stopping", (await refused)["message"])

    async def test_a_fault_of_ours_tells_nothing_but_to_the_log(self) -> None:
        self.webhooks.fault = ZeroDivisionError("hunter2")
        error = await self.refused(500, "internal_error", "POST", "/webhooks/crm/enable")
        self.assertNotIn("hunter2", str(error))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_every_request_is_logged(self) -> None:
        await self.ask("GET", "/webhooks")
        await self.ask("GET", "/nothing")
        self.assertEqual([request.code for request in self.logged], [200, 404])


class Unasked(ApiCase):
    def test_its_routes_are_made_with_the_first_request(self) -> None:
        self.assertIsInstance(Api(self.parts, self.who).resource(), LazyResource)


class RawRequests(ApiCase):
    """What no client library would send."""

    async def raw(self, head: bytes) -> bytes:
        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=20) as connection:
                connection.sendall(head)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
                return answer

        return await deferToThread(ask)

    async def test_no_host(self) -> None:
        answer = await self.raw(b"GET /api/v1/webhooks HTTP/1.0\r\n\r\n")
        self.assertIn(b" 200 ", answer.splitlines()[0])

    async def test_hosts_that_are_none(self) -> None:
        for host in (b"\xff", b"a" * 100 + b".example", b"..", b"xn--\xc3\xa4"):
            answer = await self.raw(
                b"GET /api/v1/webhooks HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n"
            )
            self.assertRegex(answer.splitlines()[0], rb" (200|400) ")
            self.assertIn(b"application/json", answer)
        self.assertEqual(self.flushLoggedErrors(), [])


class LeavingClients(ApiCase):
    async def leave(self) -> Deferred[None]:
        """Ask for something, and go away while it is being done; what it waits for."""
        self.webhooks.waits = waits = Deferred[None]()
        asked = Deferred.fromCoroutine(self.ask("POST", "/webhooks/crm/enable"))
        await self.until(lambda: bool(waits.callbacks))
        asked.cancel()
        await asked.addBoth(lambda _: None)
        await self.until(lambda: [request.code for request in self.logged] == [499])
        return waits

    async def test_what_is_begun_is_done_without_its_client(self) -> None:
        waits = await self.leave()
        self.assertEqual(self.webhooks.asked, [])
        waits.callback(None)
        self.assertEqual(self.webhooks.asked, [("enable", "crm")])

    async def test_a_refusal_without_a_client_is_nothing_to_log(self) -> None:
        for refusal in (ProvisionedError("the file says so"), CancelledError()):
            self.logged.clear()
            (await self.leave()).errback(refusal)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_fault_without_a_client_is_logged(self) -> None:
        waits = await self.leave()
        waits.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Declarations(ApiCase):
    def test_what_documents_can_be_made_of(self) -> None:
        declared = self.declared["rotate_secret"]
        self.assertEqual(
            (declared.method, declared.path, declared.summary),
            ("POST", "/webhooks/{webhook}/rotate-secret", "Give a webhook a new signing secret."),
        )
        self.assertTrue(declared.description.startswith("Its deliveries are signed with"))
        self.assertEqual(
            {error.status for error in declared.every_error},
            {400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503},
        )

    def test_every_struct_has_a_schema(self) -> None:
        for declared in self.declared.values():
            kinds = [declared.body, declared.query, declared.result]
            schemas, _ = msgspec.json.schema_components(kinds)
            self.assertEqual(len(schemas), 3)

    def test_names_are_unique(self) -> None:
        names = [declared.name for part in self.parts for declared, _ in operations(part)]
        self.assertEqual(sorted(set(names)), sorted(names))
