"""Secrets of the real service: what signs when, and that they are nowhere to be read."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from twisted.internet.defer import Deferred

from cubehook.simulator.sink import Sink
from cubehook.store import keyfile
from tests.functional.harness import ROOT, free_port, reactor, twistd
from tests.functional.test_main_job import SECRET, MainJobCase
from tests.transports.support import Conversation, Receiver, Request

NEW = "whsec_" + "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3"
OVERLAP = 3


class OverlapTests(MainJobCase):
    secrets = (SECRET, NEW)

    def accepting(self, number: int) -> set[str]:
        """Which secrets the standard's own library accepts, of one delivery that came."""
        received = self.received[number]
        found = set()
        for secret in (SECRET, NEW):
            try:
                Verifier(secret).verify(received.body, received.headers)
            except WebhookVerificationError:
                continue
            found.add(secret)
        return found

    async def next_call(self) -> set[str]:
        """The secrets that all three deliveries of a new call can be verified with."""
        before = len(self.received)
        self.call()
        await self.until(lambda: len(self.received) == before + 3)
        first, *others = [self.accepting(before + number) for number in range(3)]
        return first.intersection(*others)

    async def test_a_secret_changed_in_the_file_signs_beside_the_new_one_for_a_while(self) -> None:
        await self.begin()
        self.assertEqual(await self.next_call(), {SECRET})
        await self.restart_with(NEW)
        self.assertEqual(await self.next_call(), {SECRET, NEW})
        process = self.service.process
        assert process is not None
        await process.wait_for("Webhook crm: a former signing secret signs no more")
        self.assertEqual(await self.next_call(), {NEW})

    async def restart_with(self, secret: str) -> None:
        assert self.service.process is not None
        await self.service.process.stop()
        self.service.webhooks = self.service.webhooks.replace(SECRET, secret)
        self.service.webhooks += f'\n[delivery]\nsecret_overlap = "{OVERLAP}s"\n'
        await self.service.start()
        await self.gateway.when_registered()


class KeyTests(MainJobCase):
    async def test_a_missing_key_file_ends_the_start_with_words_and_costs_nothing(self) -> None:
        await self.begin()
        process = self.service.process
        assert process is not None
        await process.stop()
        key = self.service.folder / "state" / keyfile.NAME
        kept = key.rename(key.with_name("kept"))
        refused = twistd(self, self.service.folder, "--config", str(self.service.config))
        await refused.ended()
        self.assertEqual(refused.exit_code, 1)
        self.assertIn(f"cubehook cannot start: {key} is missing", refused.text)
        self.assertNotIn("Traceback", refused.text)
        self.assertFalse(key.exists())
        kept.rename(key)
        await self.service.start()
        await self.gateway.when_registered()
        self.call()
        await self.until(lambda: len(self.accepted()) == 3)
        self.assertEqual({received.signature for received in self.received}, {"ok"})


PLUGIN = '''
"""A transport that tells what it should not."""
import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer
from cubehook.interfaces import ITransport, ITransportPlugin

class Options(msgspec.Struct, forbid_unknown_fields=True):
    fails: str
    password: str = ""

@implementer(ITransport)
class Telling:
    def __init__(self, webhook, options, context):
        self.webhook, self.options, self.context = webhook, options, context
        self.tell("create")

    def tell(self, when):
        if when == self.options.fails:
            secrets, headers, url = self.context.secrets, self.webhook.headers, self.webhook.url
            raise RuntimeError(f"{when}: {self.options} {secrets} {headers} {url} {self.webhook}")

    async def start(self):
        self.tell("start")

    async def deliver(self, outbound):
        self.tell("deliver")

    async def stop(self):
        pass

@implementer(ITransportPlugin, IPlugin)
class Plugin:
    name = "telling"
    description = "for a test"
    options = Options

    def check(self, webhook, options):
        return []

    def create(self, webhook, options, context):
        return Telling(webhook, options, context)

plugin = Plugin()
'''


class LeakTests(MainJobCase):
    """Every webhook here has secrets of its own, each a word that is looked for everywhere."""

    def setUp(self) -> None:
        self.hidden = [SECRET[6:].rstrip("=")]

    def hide(self, word: str) -> str:
        self.hidden.append(word)
        return word

    def webhook(self, name: str, url: str, *more: str) -> str:
        """A webhook with a secret in every place that has one."""
        key = self.hide(f"{len(self.hidden):02d}{name}".ljust(24, "x").encode().hex())
        path = self.hide(f"{len(self.hidden):02d}Xk3jF9sLq0Zt7Wn5Pa8Rc2Dv")
        query, bearer, header = (
            self.hide(f"{name}-{place}-s3cret") for place in ("query", "bearer", "header")
        )
        lines = (
            f"[webhooks.{name}]",
            f'url = "{url}/{path}?token={query}"',
            f'secret = "whsec_{key}"',
            f'headers = {{ Authorization = "Bearer {bearer}", X-Api-Key = "{header}" }}',
            "retry = [0.2, 0.2]",
            *more,
        )
        return "\n".join(lines) + "\n"

    def telling(self, when: str) -> str:
        password = self.hide(f"{when}-options-s3cret")
        options = f'options = {{ fails = "{when}", password = "{password}" }}'
        return self.webhook(f"tells-{when}", "http://h.example/x", 'transport = "telling"', options)

    def broker(self, name: str, url: str, *options: str) -> str:
        """One of the transports with a password in its URL, which is wrong or leads nowhere."""
        url = url.replace(
            "//", f"//{self.hide(name + '-user-s3cret')}:{self.hide(name + '-password-s3cret')}@"
        )
        lines = (
            f"[webhooks.{name}]",
            f'transport = "{name}"',
            f'url = "{url}"',
            f"options = {{ {', '.join(options)} }}",
            "retry = [0.2, 0.2]",
        )
        return "\n".join(lines) + "\n"

    def proxied(self, port: int) -> str:
        user, password = self.hide("proxy-user-s3cret"), self.hide("proxy-password-s3cret")
        options = f'options = {{ proxy = "http://{user}:{password}@127.0.0.1:{port}" }}'
        return self.webhook("proxied", "http://h.example/x", options)

    async def begin_with(self, *webhooks: str) -> None:
        """The usual webhook beside these, everything logged, and the transport that tells installed."""
        root = Path(self.mktemp()).resolve()
        plugins = root / "cubehook" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "telling.py").write_text(PLUGIN)
        self.env = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(root)))}
        await self.begin(webhook="\n".join(("", *webhooks, '[log]\nlevel = "debug"\n')))

    async def test_nothing_that_is_written_or_served_holds_one(self) -> None:
        sink = Sink(reactor, lambda: time.time_ns() // 1000)
        port, nobody = free_port(), free_port()
        await sink.start(f"tcp:{port}:interface=127.0.0.1")
        self.addCleanup(lambda: Deferred.fromCoroutine(sink.stop()))
        receiver = f"http://127.0.0.1:{port}"
        failing = {
            "failing": f"{receiver}/status/500",
            "redirected": f"{receiver}/status/302",
            "held": f"{receiver}/retry-after/1",
            "gone": f"{receiver}/gone",
            "dropped": f"{receiver}/drop",
            "refused": f"http://127.0.0.1:{nobody}/x",
            "tls": f"https://127.0.0.1:{port}/x",
            "blocked": "http://169.254.169.254/latest",
            "unknown": "http://nowhere.invalid/x",
            "echoed": Receiver(self, echo).url.partition("/calls")[0],
        }
        await self.begin_with(
            *(self.webhook(name, url) for name, url in failing.items()),
            self.webhook("slow", f"{receiver}/stall/9", "timeout = 0.5"),
            self.proxied(nobody),
            self.broker("amqp", "amqp://127.0.0.1:5672/", 'routing_key = "cubehook-test"'),
            self.broker("nats", f"nats://127.0.0.1:{nobody}"),
            self.broker("mqtt", f"mqtt://127.0.0.1:{nobody}", 'topic = "cubehook-test"'),
            self.broker("redis", "redis://127.0.0.1:6379/0"),
            *map(self.telling, ("create", "start", "deliver")),
        )
        self.call()
        await self.until(lambda: len(self.received) == 3)
        expected = {*failing, "slow", "proxied", "tells-deliver", "amqp", "nats", "mqtt", "redis"}
        await self.poll(partial(self.have_failed, expected))
        process = self.service.process
        assert process is not None
        # Each of them said something, or there would be nothing to look at.
        for name in ("create", "start", "deliver"):
            self.assertRegex(
                process.text, rf"RuntimeError: {name}: Options\(fails='{name}', password='\*\*\*'\)"
            )
        await self.assert_hidden()
        await process.stop()
        self.assert_files_hide()
        # Started again with other secrets it keeps both.
        self.service.webhooks = self.service.webhooks.replace('secret = "whsec_', 'secret = "whsec_AAAA')
        process = await self.service.start()
        await self.gateway.when_registered()
        self.call()
        await process.wait_for("Webhook failing: delivery .* given up")
        await self.assert_hidden()

    async def have_failed(self, expected: set[str]) -> bool:
        """Whether each of these webhooks was tried in vain, and words about it are kept."""
        rows = self.database().execute(
            "SELECT webhook, detail FROM attempts JOIN deliveries ON deliveries.id = attempts.delivery"
        )
        return expected <= {webhook for webhook, detail in rows if json.loads(detail)["error"]}

    async def assert_hidden(self) -> None:
        """In what the service wrote and printed, and what it tells whoever asks."""
        assert self.service.process is not None
        self.look("what it printed", self.service.process.text)
        for path in ("/metrics", "/readyz"):
            self.look(path, (await self.service.get(path))[1])
        self.assert_files_hide()

    def assert_files_hide(self) -> None:
        """Only the key file is meant to hold any; and a dump tells what the database does."""
        folder = self.service.folder / "state"
        names = set()
        for path in folder.rglob("*"):
            if path.is_file() and path.name != keyfile.NAME:
                names.add(path.name)
                self.look(path.name, path.read_bytes().decode("latin-1"))
        self.assertLessEqual({"cubehook.db", "cubehook.log", "events.log", "access.log"}, names)
        dump = "\n".join(self.database().iterdump())
        self.assertIn("'fernet:", dump)
        self.look("a dump", dump)

    def look(self, where: str, text: str) -> None:
        for word in self.hidden:
            if word in text:
                at = text.index(word)
                self.fail(f"{word} is in {where}: ...{text[max(0, at - 200) : at + 60]}")


def echo(conversation: Conversation, request: Request) -> None:
    """Answers an error that repeats all that was asked, as gateways do for their developers."""
    body = "\n".join((request.line, *map("{0[0]}: {0[1]}".format, request.headers.items()))).encode()
    head = "HTTP/1.1 500 No\r\nX-Echo: {}\r\nContent-Length: {}\r\n\r\n"
    echoed = request.headers["authorization"]
    conversation.send(head.format(echoed, len(body)).encode() + body)
