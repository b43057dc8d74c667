"""Events through the real service into NATS and Redis, which are killed and started again meanwhile."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from twisted.internet.task import deferLater

from tests.functional.harness import PATIENCE, reactor
from tests.functional.test_brokers import SETTINGS
from tests.functional.test_main_job import MainJobCase
from tests.transports.own_servers import NatsServer, RedisServer
from tests.transports.test_nats import add_stream, messages, with_client

CALLS = 10


class NatsAndRedisTests(MainJobCase):
    async def test_events_outlive_servers_that_are_killed_and_keep_their_order(self) -> None:
        folder = Path(self.mktemp()).absolute()
        self.nats = NatsServer(self, folder / "nats")
        self.redis = RedisServer(self, folder / "redis")
        servers = (self.nats, self.redis)
        for server in servers:
            await server.start()
        await with_client(self.nats.port, lambda client: add_stream(client, "calls"))
        await self.begin(
            payload="full",
            webhook=f'\n[webhooks.nats]\ntransport = "nats"\nurl = "nats://127.0.0.1:{self.nats.port}"\n'
            f'options = {{ subject = "calls.{{cube}}.{{state}}" }}\n{SETTINGS}\n'
            f'[webhooks.redis]\ntransport = "redis"\nurl = "redis://127.0.0.1:{self.redis.port}"\n'
            f'options = {{ stream = "calls:{{cube}}" }}\n{SETTINGS}',
        )
        for _ in range(4):
            self.call(hold=1.0)
        await self.until(lambda: len(self.received) >= 4)
        for server in servers:
            await server.kill()
        for _ in range(CALLS - 4):
            self.call(hold=1.0)
        await self.until(lambda: len(self.received) == 3 * CALLS)
        # Both are noticed to be away, by events that then wait.
        await self.poll(self._both_failed)
        for server in servers:
            await server.start()

        deadline = reactor.seconds() + PATIENCE
        while True:
            published = await self._published()
            added = self._added()
            missing = self._missing(published), self._missing(added)
            if not any(missing):
                break
            self.assertLess(reactor.seconds(), deadline, missing)
            await deferLater(reactor, 0.1)
        self._in_order(added)
        self._in_order(published)
        # What was repeated, since its acknowledgement was lost with the server, was known by its id.
        self.assertEqual(len(published), 3 * CALLS)

        assert self.service.process is not None
        await self.service.process.stop()
        for trace in ("Task was destroyed", "Traceback", "ResourceWarning", "left behind"):
            self.assertNotIn(trace, self.service.process.text)

    async def _published(self) -> list[dict[str, Any]]:
        found = await with_client(self.nats.port, lambda client: messages(client, "calls", 0))
        return [json.loads(message.data) for message in found]

    def _added(self) -> list[dict[str, Any]]:
        with redis.Redis(host="127.0.0.1", port=self.redis.port) as client:
            entries: Any = client.xrange("calls:hq")
        return [json.loads(fields[b"payload"]) for _, fields in entries]

    async def _both_failed(self) -> bool:
        log = (self.service.folder / "state" / "log" / "events.log").read_text()
        return all(re.search(f" {name} .*not delivered", log) for name in ("nats", "redis"))

    def _missing(self, bodies: Sequence[dict[str, Any]]) -> set[str]:
        expected = {body["event_id"] for body in self.accepted()}
        return expected - {body["event_id"] for body in bodies}

    def _in_order(self, bodies: Sequence[dict[str, Any]]) -> None:
        """The events of each call came in the order of their sequence; only the newest was repeated."""
        calls: dict[str, list[int]] = defaultdict(list)
        for body in bodies:
            sequence = calls[body["call_id"]]
            self.assertIn(body["sequence"], (len(sequence), len(sequence) + 1), bodies)
            if body["sequence"] > len(sequence):
                sequence.append(body["sequence"])
        self.assertEqual(list(calls.values()), [[1, 2, 3]] * CALLS)
