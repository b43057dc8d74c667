"""Sending again, and its jobs."""

from __future__ import annotations

from cubehook import interfaces
from cubehook.api.operations import Caller
from cubehook.api.views import RedeliverRange
from cubehook.ids import first_id, id_text
from cubehook.net.site import LimitedRequest
from cubehook.records import DeliveryStatus
from tests.api.support import NOW, ApiCase

SINCE = "2024-11-23T00:00:00Z"
AT = 1_732_320_000_000_000
UNTIL = "2024-11-24T00:00:00+00:00"
BOTH = (DeliveryStatus.FAILED, DeliveryStatus.EXPIRED)


class Ranges(ApiCase):
    def who(self, request: LimitedRequest) -> Caller:
        return Caller("uid 7")

    async def test_a_preview_starts_nothing(self) -> None:
        found = await self.ask("POST", "/webhooks/crm/redeliver", {"since": SINCE, "preview": True})
        self.assertEqual(found, (200, {"total": 7, "job": None}))
        self.assertEqual(self.redelivery.asked, [("preview", "crm", AT, NOW, BOTH)])

    async def test_a_job(self) -> None:
        code, found = await self.ask(
            "POST",
            "/webhooks/crm/redeliver",
            {"since": SINCE, "until": UNTIL, "status": ["delivered"], "per_second": 5},
        )
        self.assertEqual(code, 200)
        self.assertEqual(
            found,
            {
                "total": 7,
                "job": {
                    "id": id_text(first_id(NOW)),
                    "webhook": "crm",
                    "state": "running",
                    "since": "2024-11-23T00:00:00.000000Z",
                    "until": "2024-11-24T00:00:00.000000Z",
                    "status": ["delivered"],
                    "per_second": 5.0,
                    "total": 7,
                    "done": 0,
                    "skipped": 0,
                    "asked_by": "uid 7",
                    "started_at": "2024-11-23T16:03:36.200940Z",
                    "ended_at": None,
                    "reason": None,
                },
            },
        )
        self.assertEqual(
            self.redelivery.asked,
            [("start", "crm", AT, AT + 86_400_000_000, (DeliveryStatus.DELIVERED,), "uid 7", 5.0)],
        )

    async def test_the_pace_is_left_to_the_service(self) -> None:
        await self.ask("POST", "/webhooks/crm/redeliver", {"since": SINCE})
        self.assertEqual(self.redelivery.asked[0][-1], 50.0)

    async def test_what_is_refused(self) -> None:
        for refusal, status, code in (
            (interfaces.NotFoundError("there is no webhook"), 404, "not_found"),
            (interfaces.WebhookDisabledError("it is disabled: enable it"), 409, "conflict"),
            (interfaces.BadRangeError({"since": "a time before `until`"}), 422, "invalid"),
        ):
            self.redelivery.refusal = refusal
            for preview in (True, False):
                found, body = await self.ask(
                    "POST", "/webhooks/crm/redeliver", {"since": SINCE, "preview": preview}
                )
                self.assertEqual((found, body["error"]["code"]), (status, code))
        self.assertEqual(body["error"]["fields"], {"since": "a time before `until`"})

    async def test_what_was_missed(self) -> None:
        body = {"since": SINCE, "status": ["missed", "failed"]}
        await self.ask("POST", "/webhooks/crm/redeliver", {**body, "preview": True})
        await self.ask("POST", "/webhooks/crm/redeliver", {**body, "status": ["missed"]})
        self.assertEqual([asked[4] for asked in self.redelivery.asked], [("failed", "missed"), ("missed",)])
        for status in (["pending"], [], ["lost"]):
            code, found = await self.ask("POST", "/webhooks/crm/redeliver", {**body, "status": status})
            self.assertEqual(code, 422)
            self.assertTrue(next(iter(found["error"]["fields"])).startswith("status"))

    async def test_to_count_is_no_change(self) -> None:
        changes = self.declared["redeliver_range"].changes
        self.assertFalse(changes(RedeliverRange(since=0, preview=True)))
        self.assertTrue(changes(RedeliverRange(since=0)))

    async def test_arguments_have_the_names_of_the_fields(self) -> None:
        self.redelivery.refusal = interfaces.BadRangeError({"statuses": "what is over"})
        _, body = await self.ask("POST", "/webhooks/crm/redeliver", {"since": SINCE})
        self.assertEqual(body["error"]["fields"], {"status": "what is over"})


class Deliveries(ApiCase):
    async def test_one(self) -> None:
        text = id_text(first_id(NOW))
        code, found = await self.ask("POST", f"/deliveries/{text}/redeliver")
        self.assertEqual(
            (code, found["id"], found["webhook"], found["status"]), (200, text, "crm", "pending")
        )
        # A TCP connection tells no user.
        self.assertEqual(self.redelivery.asked[0][:2], ("one", first_id(NOW)))

    async def test_one_that_is_not_to_be_sent(self) -> None:
        for refusal, status in (
            (interfaces.DeliveryPendingError("it is not over"), 409),
            (interfaces.EventNotKeptError("its event is gone"), 409),
            (interfaces.WebhookDisabledError("disabled"), 409),
            (interfaces.NotFoundError("there is none"), 404),
        ):
            self.redelivery.refusal = refusal
            code, found = await self.ask("POST", f"/deliveries/{id_text(5)}/redeliver")
            self.assertEqual((code, found["error"]["message"]), (status, str(refusal)))

    async def test_what_is_no_id(self) -> None:
        for text in ("5", "x" * 13, "%00", "Z" * 13, "-"):
            code, _ = await self.ask("POST", f"/deliveries/{text}/redeliver")
            self.assertEqual(code, 404)
        self.assertEqual(self.redelivery.asked, [])


class Jobs(ApiCase):
    async def begin(self, count: int) -> list[str]:
        ids = []
        for _ in range(count):
            _, found = await self.ask("POST", "/webhooks/crm/redeliver", {"since": SINCE})
            ids.append(found["job"]["id"])
        return ids[::-1]

    async def test_pages_newest_first(self) -> None:
        ids = await self.begin(5)
        _, found = await self.ask("GET", "/jobs?limit=2&webhook=crm")
        self.assertEqual(([each["id"] for each in found["items"]], found["next"]), (ids[:2], ids[1]))
        _, found = await self.ask("GET", f"/jobs?limit=3&cursor={found['next']}")
        self.assertEqual(([each["id"] for each in found["items"]], found["next"]), (ids[2:], None))
        self.assertEqual(await self.ask("GET", "/jobs?webhook=erp"), (200, {"items": [], "next": None}))

    async def test_one_and_its_end(self) -> None:
        (job,) = await self.begin(1)
        _, found = await self.ask("GET", f"/jobs/{job}")
        self.assertEqual((found["id"], found["state"]), (job, "running"))
        _, found = await self.ask("POST", f"/jobs/{job}/cancel")
        self.assertEqual((found["state"], found["ended_at"]), ("cancelled", "2024-11-23T16:03:36.200940Z"))

    async def test_there_is_no_such_job(self) -> None:
        for method, path in (
            ("GET", "/jobs/5"),
            ("GET", f"/jobs/{id_text(5)}"),
            ("POST", f"/jobs/{id_text(5)}/cancel"),
        ):
            code, _ = await self.ask(method, path)
            self.assertEqual(code, 404)
