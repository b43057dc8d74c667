"""Events through the real service into RabbitMQ and Mosquitto, whose connections fail meanwhile."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import deferLater

from tests.functional.harness import PATIENCE, reactor
from tests.functional.test_main_job import MainJobCase
from tests.transports.relay import MOSQUITTO, RABBITMQ, Rabbit, Relay, Subscriber, need
from tests.transports.test_amqp import name_of
from tests.transports.test_mqtt import topic_of

SETTINGS = """
payload = "full"
retry = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
breaker = { first = 0.2, longest = 0.5 }
"""


class BrokerTests(MainJobCase):
    async def test_events_outlive_brokers_that_are_away_and_keep_their_order(self) -> None:
        need(RABBITMQ, "RabbitMQ")
        need(MOSQUITTO, "Mosquitto")
        rabbit = Rabbit(self, name_of(self))
        topic = topic_of()
        subscriber = Subscriber(self, topic + "/#")
        relays = [Relay(self, RABBITMQ), Relay(self, MOSQUITTO)]
        await self.begin(
            payload="full",
            webhook=f'\n[webhooks.rabbit]\ntransport = "amqp"\nurl = "amqp://127.0.0.1:{relays[0].port}"\n'
            f'options = {{ routing_key = "{rabbit.queue}" }}\n{SETTINGS}\n'
            f'[webhooks.mosquitto]\ntransport = "mqtt"\nurl = "mqtt://127.0.0.1:{relays[1].port}"\n'
            f'options = {{ topic = "{topic}/{{cube}}/{{state}}" }}\n{SETTINGS}',
        )
        for _ in range(4):
            self.call(hold=1.0)
        await self.until(lambda: len(self.received) >= 4)
        for relay in relays:
            await relay.refuse()
        for _ in range(6):
            self.call(hold=1.0)
        await self.until(lambda: len(self.received) == 30)
        # Both are noticed to be away, by events that then wait.
        await self.poll(self._both_failed)
        for relay in relays:
            relay.accept()

        queued: list[dict[str, Any]] = []
        published: list[dict[str, Any]] = []
        deadline = reactor.seconds() + PATIENCE
        while self._missing(queued) or self._missing(published):
            self.assertLess(reactor.seconds(), deadline, (self._missing(queued), self._missing(published)))
            for _, properties, body in rabbit.taken():
                queued.append(json.loads(body))
                self.assertEqual(properties.message_id, queued[-1]["event_id"])
            published = [json.loads(message.payload) for message in await subscriber.until(0)]
            await deferLater(reactor, 0.05)
        self._in_order(queued)
        self._in_order(published)
        for message in subscriber.messages:
            body = json.loads(message.payload)
            self.assertEqual(message.topic, f"{topic}/hq/{body['call_state']}")

    async def _both_failed(self) -> bool:
        log = (self.service.folder / "state" / "log" / "events.log").read_text()
        return all(re.search(f" {name} .*not delivered", log) for name in ("rabbit", "mosquitto"))

    def _missing(self, bodies: Sequence[dict[str, Any]]) -> set[str]:
        expected = {body["event_id"] for body in self.accepted()}
        return expected - {body["event_id"] for body in bodies}

    def _in_order(self, bodies: Sequence[dict[str, Any]]) -> None:
        """The events of each call came first in the order of their sequence; only the newest was repeated."""
        calls: dict[str, list[int]] = defaultdict(list)
        for body in bodies:
            sequence = calls[body["call_id"]]
            self.assertIn(body["sequence"], (len(sequence), len(sequence) + 1), bodies)
            if body["sequence"] > len(sequence):
                sequence.append(body["sequence"])
        self.assertEqual(list(calls.values()), [[1, 2, 3]] * 10)
