"""`cubehook tail` beside the real service: over its restart, and to a reader that leaves."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.functional.harness import Process, spawn
from tests.functional.test_commands import RUN
from tests.functional.test_main_job import STATES, MainJobCase


class TailTests(MainJobCase):
    def tail(self, *options: str) -> Process:
        return spawn(self, "-c", RUN, "tail", *options, "--config", str(self.service.config))

    async def test_over_a_restart_without_gap_or_repeat(self) -> None:
        await self.begin()
        # It may be there only after the first call.
        follower = self.tail("--json", "--since", "1h")
        self.call()
        await follower.wait_for('"DISCONNECTED"')
        start = len(follower.text)
        self.call()
        await self.until(lambda: len(self.received) == 6)
        assert self.service.process is not None
        await self.service.process.stop()
        await follower.wait_for("The service tells no more")
        await self.service.start()
        self.call()
        await self.until(lambda: len(self.received) == 9)
        await follower.wait_for(r'(?s)("call_state":"DISCONNECTED".*){2}\n', start)
        notices, states = self.events(follower.text[start:])
        self.assertEqual(states, STATES * 2)
        # That it unregistered when it was stopped is no news, but that it is there again may be.
        self.assertLessEqual(set(notices), {"cube.registered", "cube.lost"})
        self.assertIn("It is back; what happened meanwhile comes first.", follower.text)
        follower.send(signal.SIGINT)
        await follower.ended()
        self.assertEqual(follower.exit_code, 130)
        self.assertNotIn("Traceback", follower.text)

    def events(self, text: str) -> tuple[list[str], list[str]]:
        told: list[dict[str, Any]] = [
            json.loads(line) for line in text.splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n"
        ]
        states = [each["call_state"] for each in told if "call_state" in each]
        return [each["type"] for each in told if "type" in each], states

    async def test_what_happened_before(self) -> None:
        await self.begin()
        self.call()
        await self.until(lambda: len(self.received) == 3)
        follower = self.tail("--since", "1h", "--color", "always", "--cube", "hq")
        await follower.wait_for(r"cube\.registered\x1b\[0m  cube hq  ")
        await follower.wait_for("DISCONNECTED")
        self.assertEqual(follower.text.count("  hq  "), 3)

    async def test_reader_that_leaves(self) -> None:
        await self.begin()
        follower = spawn(
            self,
            "-c",
            "import subprocess, sys; "
            "tail = subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], stdout=subprocess.PIPE); "
            "print(tail.stdout.readline()); tail.stdout.close(); print('status', tail.wait())",
            RUN,
            *("tail", "--since", "1h", "--config", str(self.service.config)),
        )
        await follower.wait_for("cube.registered")
        self.call()
        await follower.wait_for("status 1")
        self.assertNotIn("Traceback", follower.text)
        self.assertNotIn("Broken", follower.text)
