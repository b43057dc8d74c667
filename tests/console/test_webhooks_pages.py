"""The pages about webhooks: the list, one of them, making, changing, trying, sending again."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import TestCase

from cubehook import config
from cubehook.api.cubes import CubesPart
from cubehook.api.redelivery import RedeliveryPart
from cubehook.api.session import csrf_token
from cubehook.api.webhooks import WebhooksPart
from cubehook.changes import SettingsError
from cubehook.delivery.breaker import State
from cubehook.events import CallState, NoticeType
from cubehook.records import Attempt, DeliveryStatus, ErrorClass
from tests.api.support import FakeRedelivery, FakeWebhooks, status
from tests.console.cubes import FakeCubes, cube
from tests.console.support import ADMIN, NASTY, NOW, VIEWER, Browser, Page

NEW = [
    ("name", "Ops Channel"),
    ("url", "https://hooks.example/calls"),
    ("method", "POST"),
    ("transport", "http"),
    ("enabled", "yes"),
    ("states", "CONNECTED"),
    ("states", "DISCONNECTED"),
    ("cubes", "hq"),
    ("granularity", "call"),
    ("payload", "basic"),
    ("encoding", "json"),
    ("header-name", "X-Key"),
    ("header-value", "hunter2"),
    ("header-name", ""),
    ("header-value", ""),
]


class WebhooksCase(TestCase):
    def setUp(self) -> None:
        self.webhooks = FakeWebhooks()
        self.redelivery = FakeRedelivery()
        self.browser = self.browse()

    def browse(self, **more: Any) -> Browser:
        parts = [
            WebhooksPart(self.webhooks, lambda webhook: {"delivered": 99, "failed": 1}),
            RedeliveryPart(self.redelivery, lambda: NOW),
            CubesPart(FakeCubes(cube("hq"), cube("lab"))),
        ]
        return Browser(parts, pages=["webhooks"], **more)

    def be(self, **changes: Any) -> None:
        """Let the webhook `crm` be otherwise."""
        self.webhooks.known["crm"] = msgspec.structs.replace(self.webhooks.known["crm"], **changes)

    def form(self, page: Page, form: str = "//form[@id='webhook-form']") -> list[tuple[str, str]]:
        """What a browser would send of a form as it is shown, buttons aside."""
        fields = []
        for control in page.find(form).xpath(
            ".//input[@name and not(ancestor::template)] | .//textarea[@name] | .//select[@name]"
        ):
            name = control.get("name")
            if control.tag == "select":
                chosen = control.xpath("./option[@selected]") or control.xpath("./option[1]")
                fields.append((name, chosen[0].get("value")))
            elif control.tag == "textarea":
                fields.append((name, (control.text or "").removeprefix("\n")))
            elif control.get("type") not in ("checkbox", "radio") or control.get("checked") is not None:
                fields.append((name, control.get("value", "")))
        return [(name, value) for name, value in fields if name != "csrf"]

    def error(self, page: Page, field: str) -> str:
        return " ".join(page.find(f"//*[@id='{field}-error']").text_content().split())


class Looking(WebhooksCase):
    async def test_none_yet(self) -> None:
        self.webhooks.known.clear()
        page = await self.browser.get("/webhooks")
        self.assertIn("No webhook yet", page.text)

    async def test_what_needs_somebody_comes_first(self) -> None:
        self.webhooks.known |= {
            id: config.Webhook(id=id, url="https://x.example/") for id in ("aa", "zz", "off")
        }
        self.webhooks.known["off"] = config.Webhook(id="off", url="https://x.example/", enabled=False)
        self.webhooks.disabled["zz"] = "its receiver answered 410 Gone"
        self.webhooks.statuses["crm"] = status(state=State.OPEN, failures=17, pending=1234)
        page = await self.browser.get("/webhooks")
        rows = [" ".join(row.text_content().split()) for row in page.tree.xpath("//tbody/tr")]
        self.assertTrue(rows[0].startswith("zz Disabledits receiver answered 410"), rows)
        self.assertTrue(rows[1].startswith("CRM FailingThe last 17 attempts in a row failed."), rows)
        self.assertIn("1,234", rows[1])
        self.assertTrue(rows[2].startswith("off Paused"), rows)
        self.assertIn("99 %", rows[1])

    async def test_one(self) -> None:
        page = await self.browser.get("/webhooks/crm")
        self.assertIn("Working", page.text)
        self.assertNotIn("hunter2", page.body.decode())
        self.assertIn("Authorization: ***", page.text)

    async def test_missing(self) -> None:
        for path in ("/webhooks/none", "/webhooks/none/edit"):
            self.assertEqual((await self.browser.get(path)).status, 404)

    async def test_viewer_is_shown_no_forms(self) -> None:
        viewer = self.browse(session=VIEWER)
        for path in ("/webhooks", "/webhooks/crm"):
            page = await viewer.get(path)
            self.assertEqual(page.tree.xpath("//main//form | //a[contains(@href, '_new')]"), [])
        for path in ("test", "rotate-secret", "enable", "pause", "resume", "remove", "redeliver", "edit"):
            self.assertEqual((await viewer.post(f"/webhooks/crm/{path}")).status, 403, path)
        self.assertEqual((self.webhooks.asked, self.webhooks.tried, self.redelivery.asked), ([], [], []))

    async def test_hostile_values_are_text(self) -> None:
        self.be(
            name=NASTY,
            description=NASTY,
            method=NASTY,
            headers={NASTY: NASTY},
            cubes=(NASTY,),
            payload="template",
            template=NASTY,
            options={NASTY: NASTY},
        )
        self.webhooks.disabled["crm"] = NASTY
        for path in ("/webhooks", "/webhooks/crm", "/webhooks/crm/edit"):
            page = await self.browser.get(path)
            self.assertEqual(page.status, 200, path)
            self.assertEqual(page.tree.xpath("//script[not(@src)] | //td/td | //*[@onerror]"), [], path)
            self.assertIn("&lt;script&gt;", page.body.decode(), path)
            self.assertNotIn("{{ 49", page.text, path)
        self.assertIn(NASTY, page.find("//textarea[@id='template']").text)


class Making(WebhooksCase):
    async def test_made_and_the_secret_shown_once(self) -> None:
        page = await self.browser.post("/webhooks/_new", NEW)
        self.assertEqual(page.status, 200)
        self.assertEqual(page.find("//code[@id='secret']").text, "whsec_new")
        made = self.webhooks.known["ops-channel"]
        self.assertEqual(
            (made.name, made.states, made.cubes, made.headers, made.retry, made.enabled),
            (
                "Ops Channel",
                (CallState.CONNECTED, CallState.DISCONNECTED),
                ("hq",),
                {"X-Key": "hunter2"},
                None,
                True,
            ),
        )
        self.assertNotIn("whsec", (await self.browser.get("/webhooks/ops-channel")).body.decode())
        # What learns the viewer's zone asks for a page again, and this one must not be.
        self.assertEqual(page.tree.xpath("//*[@data-zone]"), [])

    async def test_made_with_a_secret_of_its_own(self) -> None:
        page = await self.browser.post("/webhooks/_new", [*NEW, ("secret", "whsec_" + "A" * 32)])
        self.assertEqual((page.status, page.headers["location"]), (303, "/webhooks/ops-channel"))

    async def test_everything_that_can_be_set(self) -> None:
        more = {
            "id": "ops",
            "retry": "2, 10 30.5",
            "jitter": "25 %",
            "timeout": "7.5",
            "concurrency": "3",
            "disable_after": "12h",
            "expire.ALERTING": "60",
            "notices": "cube.lost",
            "options.http.proxy": "http://proxy.example:3128",
            "options.http.no_proxy": "a.example\nb.example",
            "options.http.insecure": "yes",
            "options.amqp.exchange": "not of http",
        }
        await self.browser.post("/webhooks/_new", [*NEW, *more.items()])
        made = self.webhooks.known["ops"]
        self.assertEqual((made.retry, made.jitter, made.timeout), ((2.0, 10.0, 30.5), 0.25, 7.5))
        self.assertEqual((made.concurrency, made.disable_after), (3, 12 * 3600))
        self.assertEqual((made.expire, made.notices), ({CallState.ALERTING: 60.0}, (NoticeType.CUBE_LOST,)))
        self.assertEqual(
            made.options,
            {"proxy": "http://proxy.example:3128", "no_proxy": ["a.example", "b.example"], "insecure": True},
        )

    async def test_presets(self) -> None:
        for payload, encoding in (("slack", "json"), ("teams", "json"), ("form", "form")):
            fields = [pair for pair in NEW if pair[0] != "payload"] + [("payload", payload), ("id", payload)]
            await self.browser.post("/webhooks/_new", fields)
            made = self.webhooks.known[payload]
            self.assertEqual((made.payload, made.preset, made.encoding), ("template", payload, encoding))

    async def test_what_is_wrong_stands_beside_the_field(self) -> None:
        more = {"retry": "2, soon", "timeout": "-1", "disable_after": "a while", "id": "Not This"}
        page = await self.browser.post(
            "/webhooks/_new", [*NEW, *more.items(), ("header-name", "a b"), ("header-value", "")]
        )
        self.assertEqual(page.status, 422)
        self.assertIn('"soon"', self.error(page, "retry"))
        self.assertIn("duration", self.error(page, "disable_after"))
        self.assertIn("a b", self.error(page, "headers"))
        self.error(page, "timeout")
        self.error(page, "id")
        # The part of the form with these fields is unfolded, and nothing typed is lost.
        self.assertEqual(len(page.tree.xpath("//details[@class='section' and @open]")), 1)
        self.assertEqual(page.find("//input[@id='retry']").get("value"), "2, soon")
        self.assertEqual(list(self.webhooks.known), ["crm", "audit"])

    async def test_what_is_wrong_with_options_and_what_no_field_shows(self) -> None:
        async def create(webhook: config.Webhook) -> str | None:
            raise SettingsError({"options.proxy": "a URL", "breaker.share": "less", "options.odd": "nothing"})

        self.webhooks.create = create  # type: ignore[method-assign]
        page = await self.browser.post("/webhooks/_new", NEW)
        self.assertIn("a URL", self.error(page, "options.http.proxy"))
        self.assertEqual(self.error(page, "breaker.share"), "less")
        notice = page.find("//div[contains(@class, 'notice-failed')]").text_content()
        self.assertIn("options.odd", notice)
        self.assertNotIn("options.proxy", notice)

    async def test_breaker(self) -> None:
        typed = {"breaker.failures": "3", "breaker.share": "25 %", "breaker.longest": "600"}
        await self.browser.post("/webhooks/_new", [*NEW, *typed.items()])
        made = self.webhooks.known["ops-channel"]
        # What is left empty is as the service has it.
        self.assertEqual(made.breaker, config.Breaker(failures=3, share=0.25, longest=600.0))
        page = await self.browser.get("/webhooks/ops-channel/edit")
        self.assertEqual(len(page.tree.xpath("//details[@class='section' and @open]")), 1)
        shown = dict(self.form(page))
        self.assertEqual(
            [shown[f"breaker.{key}"] for key in ("failures", "share", "window")], ["3", "25", "60"]
        )
        await self.browser.post("/webhooks/ops-channel/edit", self.form(page))
        self.assertEqual(self.webhooks.known["ops-channel"].breaker, made.breaker)
        page = await self.browser.get("/webhooks/ops-channel")
        self.assertIn(
            "after 3 failures in a row, or when 25 % of at least 20 attempts in 1 min fail", page.text
        )

    async def test_breaker_as_the_service_has_it(self) -> None:
        await self.browser.post("/webhooks/_new", [*NEW, ("breaker.failures", ""), ("breaker.first", " ")])
        self.assertIsNone(self.webhooks.known["ops-channel"].breaker)
        page = await self.browser.get("/webhooks/_new")
        self.assertEqual(page.find("//input[@name='breaker.failures']").get("placeholder"), "10")
        self.assertEqual(page.find("//input[@name='breaker.share']").get("placeholder"), "50")

    async def test_breaker_that_cannot_be(self) -> None:
        page = await self.browser.post("/webhooks/_new", [*NEW, ("breaker.minimum", "some")])
        self.assertEqual(page.status, 422)
        self.assertIn('"some"', self.error(page, "breaker.share"))
        field = page.find("//input[@name='breaker.minimum']")
        self.assertEqual((field.get("value"), field.get("aria-invalid")), ("some", "true"))
        self.assertEqual(len(page.tree.xpath("//details[@class='section' and @open]")), 1)

    async def test_unknown_transport(self) -> None:
        fields = [pair for pair in NEW if pair[0] != "transport"] + [("transport", "<b>")]
        page = await self.browser.post("/webhooks/_new", fields)
        self.assertIn(page.status, (200, 422))
        self.assertEqual(page.tree.xpath("//main//b"), [])

    async def test_preview(self) -> None:
        page = await self.browser.post("/webhooks/_preview", NEW, hx_request="true")
        self.assertEqual(page.tree.xpath("//nav"), [])
        self.assertNotIn("ALERTING", page.text)
        self.assertIn('"call_state": "CONNECTED"', page.text)
        fields = [pair for pair in NEW if pair[0] != "payload"] + [
            ("payload", "template"),
            ("template", "{{ nope"),
        ]
        page = await self.browser.post("/webhooks/_preview", fields, hx_request="true")
        self.assertIn("expected", page.find("//p[@class='error']").text_content())
        self.assertEqual(list(self.webhooks.known), ["crm", "audit"])

    async def test_viewer_has_nothing_to_preview(self) -> None:
        viewer = self.browse(session=VIEWER)
        self.assertEqual((await viewer.post("/webhooks/_preview", NEW)).status, 403)

    async def test_every_form_carries_the_token(self) -> None:
        self.webhooks.disabled["crm"] = "gone"
        for path in ("/webhooks/_new", "/webhooks/crm", "/webhooks/crm/edit"):
            page = await self.browser.get(path)
            forms = page.tree.xpath("//form[@method='post']")
            self.assertTrue(forms)
            for form in forms:
                tokens = [field.get("value") for field in form.xpath(".//input[@name='csrf']")]
                self.assertEqual(tokens, [csrf_token(ADMIN)], form.get("action"))

    async def test_preview_without_script(self) -> None:
        page = await self.browser.post("/webhooks/_new", [*NEW, ("do", "preview")])
        self.assertIn('"call_state": "CONNECTED"', page.find("//*[@id='preview']").text_content())
        self.assertEqual(page.find("//input[@id='name']").get("value"), "Ops Channel")
        self.assertEqual(list(self.webhooks.known), ["crm", "audit"])

    async def test_enter_saves_and_does_not_preview(self) -> None:
        page = await self.browser.get("/webhooks/_new")
        first = page.tree.xpath("//form[@id='webhook-form']//button[not(@type)]")[0]
        self.assertIsNone(first.get("name"))


class Changing(WebhooksCase):
    async def test_saved_as_it_is_shown_nothing_changes(self) -> None:
        self.be(
            states=(CallState.ALERTING,),
            cubes=("lab",),
            retry=(2.0, 600.0),
            jitter=0.2,
            expire={CallState.ALERTING: 60.0},
            disable_after=0,
            notices=(NoticeType.CUBE_LOST,),
            options={
                "proxy": "http://user:hunter2@proxy.example:3128",
                "no_proxy": ["a.example"],
                "insecure": True,
            },
            breaker=config.Breaker(failures=3),
            payload="template",
            template='{"a": {{ call_state }}}\n\n{# two\nlines #}',
        )
        before = self.webhooks.known["crm"]
        page = await self.browser.get("/webhooks/crm/edit")
        self.assertNotIn("hunter2", page.body.decode())
        page = await self.browser.post("/webhooks/crm/edit", self.form(page))
        self.assertEqual((page.status, page.headers.get("location")), (303, "/webhooks/crm"))
        after = self.webhooks.known["crm"]
        self.assertEqual(msgspec.structs.asdict(after), msgspec.structs.asdict(before))

    async def test_saved_as_it_is_shown_of_every_transport(self) -> None:
        for transport, url, options in (
            ("amqp", "amqp://user:hunter2@mq.example/v", {"routing_key": "{cube}", "declare": "topic"}),
            ("mqtt", "mqtt://mq.example", {"topic": "calls", "retain": True, "version": "3.1.1"}),
            ("nats", "nats://mq.example", {"subject": "x.{cube}"}),
            ("redis", "redis://:hunter2@r.example", {"stream": "calls", "max_length": 1000, "replicas": 1}),
            ("jsonl", "", {"path": "calls.jsonl", "fsync": True}),
        ):
            self.be(transport=transport, url=url, options=options, headers={})
            page = await self.browser.get("/webhooks/crm/edit")
            self.assertNotIn("hunter2", page.body.decode())
            page = await self.browser.post("/webhooks/crm/edit", self.form(page))
            self.assertEqual(page.status, 303, transport)
            after = self.webhooks.known["crm"]
            self.assertEqual((after.transport, after.url), (transport, url))
            self.assertEqual({key: after.options[key] for key in options}, options)

    async def test_changed_by_another_meanwhile(self) -> None:
        fields = self.form(await self.browser.get("/webhooks/crm/edit"))
        self.be(name="by another")
        page = await self.browser.post("/webhooks/crm/edit", fields)
        self.assertEqual((page.status, self.webhooks.known["crm"].name), (412, "by another"))

    async def test_paused_and_resumed(self) -> None:
        page = await self.browser.get("/webhooks/crm")
        self.assertEqual(len(page.tree.xpath("//form[@action='/webhooks/crm/pause']")), 1)
        await self.browser.post("/webhooks/crm/pause")
        self.assertFalse(self.webhooks.known["crm"].enabled)
        page = await self.browser.get("/webhooks/crm")
        self.assertEqual(len(page.tree.xpath("//form[@action='/webhooks/crm/resume']")), 1)
        await self.browser.post("/webhooks/crm/resume")
        self.assertTrue(self.webhooks.known["crm"].enabled)

    async def test_one_whose_transport_is_not_installed_any_more(self) -> None:
        self.be(transport="absent", options={"topic": "calls"}, url="absent://bus")
        why = "its transport did not start: the transport 'absent' is not installed"
        self.webhooks.statuses["crm"] = status(problem=why)
        self.assertIn(why, (await self.browser.get("/webhooks")).text)
        page = await self.browser.get("/webhooks/crm")
        self.assertIn(why, page.text)
        again = await self.browser.post(page.find("//form[contains(@action, '/enable')]").get("action"))
        self.assertEqual((again.status, self.webhooks.asked), (303, [("enable", "crm")]))
        form = await self.browser.get("/webhooks/crm/edit")
        sent = dict(self.form(form))
        self.assertEqual(sent["transport"], "absent")
        page = await self.browser.post("/webhooks/crm/edit", [*(sent | {"name": "Other"}).items()])
        self.assertEqual(page.status, 303)
        known = self.webhooks.known["crm"]
        self.assertEqual((known.name, known.transport), ("Other", "absent"))
        self.assertEqual(known.options, {"topic": "calls"})

    async def test_enabled_again_with_the_reason_shown(self) -> None:
        self.webhooks.disabled["crm"] = "its receiver answered 410 Gone"
        page = await self.browser.get("/webhooks/crm")
        self.assertIn("its receiver answered 410 Gone", page.text)
        page = await self.browser.post(page.find("//form[contains(@action, '/enable')]").get("action"))
        self.assertEqual(self.webhooks.asked, [("enable", "crm")])

    async def test_one_in_the_file(self) -> None:
        self.webhooks.provisioned = frozenset(["crm"])
        page = await self.browser.get("/webhooks/crm")
        self.assertIn("[webhooks.crm]", page.text)
        forms = "//a[contains(@href, 'edit')] | //form[re:test(@action, 'remove|pause')]"
        exslt = {"re": "http://exslt.org/regular-expressions"}
        self.assertEqual(page.tree.xpath(forms, namespaces=exslt), [])
        self.assertEqual((await self.browser.get("/webhooks/crm/edit")).status, 303)
        page = await self.browser.post("/webhooks/crm/rotate-secret")
        self.assertEqual(page.status, 303)
        self.assertIn("the file says", (await self.browser.get("/webhooks")).text)

    async def test_new_secret_is_shown_once(self) -> None:
        page = await self.browser.post("/webhooks/crm/rotate-secret")
        self.assertEqual(page.find("//code[@id='secret']").text, "whsec_new")
        self.assertIn("signed with the former one too until", page.text)
        self.assertNotIn("whsec", (await self.browser.get("/webhooks/crm")).body.decode())

    async def test_removed(self) -> None:
        page = await self.browser.get("/webhooks/crm")
        fields = self.form(page, "//form[contains(@action, '/remove')]")
        page = await self.browser.post("/webhooks/crm/remove", fields)
        self.assertEqual((page.headers["location"], list(self.webhooks.known)), ("/webhooks", ["audit"]))


class Trying(WebhooksCase):
    async def test_request_and_answer_are_shown(self) -> None:
        async def try_out(webhook: config.Webhook, state: CallState) -> Attempt:
            return Attempt(
                id=1,
                delivery=1,
                number=1,
                started_at=NOW,
                duration=182_000,
                delivered=False,
                method="POST",
                url="https://crm.example/calls",
                request_headers={"webhook-id": "x1"},
                request_body='{"a":1}',
                status=503,
                response_headers={"server": NASTY},
                response_body=NASTY,
                error_class=ErrorClass.HTTP,
                error=f"the receiver answered 503: {NASTY}",
            )

        self.webhooks.try_out = try_out  # type: ignore[method-assign]
        for headers in ({}, {"hx_request": "true"}):
            page = await self.browser.post("/webhooks/crm/test", **headers)
            tried = page.find("//*[@id='tried']")
            words = tried.text_content()
            for each in (
                "503 Service Unavailable",
                "182 ms",
                "webhook-id",
                '"a": 1',
                "The receiver answered 503",
            ):
                self.assertIn(each, words)
            self.assertEqual(page.tree.xpath("//script[not(@src)]"), [])
            self.assertEqual(bool(page.tree.xpath("//nav")), not headers)

    async def test_what_is_typed_is_tried_and_not_kept(self) -> None:
        known = dict(self.webhooks.known)
        for headers in ({}, {"hx_request": "true"}):
            fields = [*NEW, ("secret", "whsec_" + "A" * 44), ("sample", "DISCONNECTED"), ("do", "test")]
            page = await self.browser.post("/webhooks/_new", fields, **headers)
            self.assertEqual(page.status, 200)
            self.assertIn("Taken", page.find("//*[@id='tried']").text_content())
            webhook, state = self.webhooks.tried.pop()
            self.assertEqual(
                (webhook.url, webhook.headers), ("https://hooks.example/calls", {"X-Key": "hunter2"})
            )
            self.assertEqual((webhook.secret, state), ("whsec_" + "A" * 44, CallState.DISCONNECTED))
            self.assertEqual(bool(page.tree.xpath("//nav")), not headers)
            if not headers:
                # Nothing typed is lost.
                self.assertEqual(page.find("//input[@id='name']").get("value"), "Ops Channel")
        self.assertEqual(self.webhooks.known, known)

    async def test_changes_that_are_typed_are_tried_with_what_is_kept(self) -> None:
        self.webhooks.known["crm"] = config.Webhook(
            id="crm", url="https://crm.example/", headers={"Authorization": "Bearer t0p"}
        )
        page = await self.browser.get("/webhooks/crm/edit")
        fields = [(name, value) for name, value in self.form(page) if name != "url"]
        await self.browser.post(
            "/webhooks/crm/edit",
            [*fields, ("url", "https://new.example/"), ("do", "test")],
            hx_request="true",
        )
        webhook, state = self.webhooks.tried.pop()
        self.assertEqual((webhook.id, webhook.url), ("crm", "https://new.example/"))
        self.assertEqual((webhook.headers, state), ({"Authorization": "Bearer t0p"}, CallState.ALERTING))
        self.assertEqual(self.webhooks.known["crm"].url, "https://crm.example/")

    async def test_what_is_typed_and_cannot_be(self) -> None:
        fields = [*NEW, ("timeout", "soon"), ("do", "test")]
        page = await self.browser.post("/webhooks/_new", fields, hx_request="true")
        tried = page.find("//*[@id='tried']").text_content()
        self.assertIn("timeout", tried)
        self.assertNotIn("settings.", tried)
        page = await self.browser.post("/webhooks/_new", fields)
        self.assertEqual(page.status, 422)
        self.assertIn('"soon"', self.error(page, "timeout"))
        self.assertEqual(self.webhooks.tried, [])

    async def test_viewers_try_nothing(self) -> None:
        viewer = self.browse(session=VIEWER)
        self.assertEqual((await viewer.post("/webhooks/_new", [*NEW, ("do", "test")])).status, 403)
        self.assertEqual(self.webhooks.tried, [])

    async def test_refused(self) -> None:
        async def try_out(webhook: config.Webhook, state: CallState) -> Attempt:
            raise SettingsError({"url": "expected a URL"})

        self.webhooks.try_out = try_out  # type: ignore[method-assign]
        page = await self.browser.post("/webhooks/crm/test")
        self.assertEqual(page.status, 200)
        self.assertTrue(page.tree.xpath("//*[@id='tried']//div[contains(@class, 'notice-failed')]"))


class SendingAgain(WebhooksCase):
    RANGE = (("since", "2024-11-23T08:00"), ("until", ""), ("status", "failed"), ("status", "expired"))

    async def test_counted_first(self) -> None:
        page = await self.browser.post("/webhooks/crm/redeliver", [*self.RANGE, ("do", "count")])
        self.assertIn("7 deliveries would be sent again", page.text)
        [(what, webhook, since, until, statuses)] = self.redelivery.asked
        self.assertEqual((what, webhook, until), ("preview", "crm", NOW))
        self.assertEqual(since, 1_732_348_800_000_000)
        self.assertEqual(statuses, (DeliveryStatus.FAILED, DeliveryStatus.EXPIRED))
        self.assertEqual(page.find("//input[@name='since']").get("value"), "2024-11-23T08:00")

    async def test_what_was_missed(self) -> None:
        fields = (*self.RANGE[:2], ("status", "missed"), ("do", "count"))
        page = await self.browser.post("/webhooks/crm/redeliver", fields)
        self.assertIn("7 deliveries would be sent again", page.text)
        self.assertEqual(self.redelivery.asked[0][4], ("missed",))
        chosen = page.tree.xpath("//input[@name='status' and @checked]")
        self.assertEqual([each.get("value") for each in chosen], ["missed"])

    async def test_in_the_viewers_zone(self) -> None:
        cookie = "cubehook-session=secret-of-an-administrator; cubehook-zone=Europe/Berlin"
        await self.browser.post("/webhooks/crm/redeliver", [*self.RANGE, ("do", "count")], cookie=cookie)
        self.assertEqual(self.redelivery.asked[0][2], 1_732_345_200_000_000)

    async def test_begun_and_cancelled(self) -> None:
        page = await self.browser.post("/webhooks/crm/redeliver", [*self.RANGE, ("do", "start")])
        self.assertEqual((page.status, page.headers["location"]), (303, "/webhooks/crm#again"))
        self.assertEqual(self.redelivery.asked[0][0], "start")
        self.assertEqual(self.redelivery.asked[0][5], "ada")
        page = await self.browser.get("/webhooks/crm")
        self.assertEqual(page.find("//progress").get("max"), "7")
        await self.browser.post(page.find("//form[contains(@action, '/cancel')]").get("action"))
        page = await self.browser.get("/webhooks/crm")
        self.assertIn("Cancelled", page.text)
        self.assertEqual(page.tree.xpath("//form[contains(@action, '/cancel')]"), [])

    async def test_time_that_is_none(self) -> None:
        page = await self.browser.post("/webhooks/crm/redeliver", [("since", "soon"), ("status", "failed")])
        self.assertIn("soon", page.find("//section[@id='again']//p[@class='error']").text_content())

    async def test_nothing_chosen(self) -> None:
        page = await self.browser.post("/webhooks/crm/redeliver", [("since", "2024-11-23T08:00")])
        self.assertTrue(page.tree.xpath("//section[@id='again']//p[@class='error']"))
