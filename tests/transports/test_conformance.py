"""Our own transports keep the promises that `cubehook.testing` puts to any."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import ClassVar

from twisted.trial.unittest import TestCase

from cubehook.config import Webhook
from cubehook.plugins.cubehook_transports import http, jsonl
from cubehook.testing import (
    EgressTests,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
)
from tests.functional.harness import free_port
from tests.transports.support import Receiver


class HttpTests(TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests, TestCase):
    plugin = http

    async def accepting(self) -> Webhook:
        self.receiver = Receiver(self)
        return Webhook(id="crm", url=self.receiver.url)

    async def arrived(self, count: int) -> Sequence[bytes]:
        # What was answered has come.
        return [request.body for request in self.receiver.requests]

    async def failing(self) -> Webhook:
        self.port = free_port()
        return Webhook(id="crm", url=f"http://127.0.0.1:{self.port}/")

    async def mend(self) -> None:
        self.receiver = Receiver(self, port=self.port)

    async def hanging(self) -> Webhook:
        self.receiver = Receiver(self, lambda conversation, request: None)
        return Webhook(id="crm", url=self.receiver.url)


class JsonLinesTests(TransportTests, RecoveringReceiverTests, TestCase):
    plugin = jsonl
    options: ClassVar[dict[str, object]] = {}

    async def accepting(self) -> Webhook:
        self.path = self.folder / "calls.jsonl"
        return Webhook(id="archive", transport="jsonl", options={"path": "calls.jsonl", **self.options})

    async def arrived(self, count: int) -> Sequence[bytes]:
        return self.path.read_bytes().splitlines()

    async def failing(self) -> Webhook:
        self.path = self.folder / "elsewhere" / "calls.jsonl"
        return Webhook(id="archive", transport="jsonl", options={"path": str(self.path), **self.options})

    async def mend(self) -> None:
        self.path.parent.mkdir()


class SyncedJsonLinesTests(JsonLinesTests, UnresponsiveReceiverTests):
    options: ClassVar[dict[str, object]] = {"fsync": True}

    async def hanging(self) -> Webhook:
        synced = threading.Event()

        def fsync(descriptor: int) -> None:
            synced.wait(0.4)

        self.patch(os, "fsync", fsync)
        self.addCleanup(synced.set)
        return await self.accepting()
