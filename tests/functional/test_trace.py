"""A wire trace of the real service, by the command, while a gateway calls and is called."""

from __future__ import annotations

import re
from collections import Counter

from tests.functional.harness import spawn
from tests.functional.test_commands import RUN, cubehook
from tests.functional.test_main_job import MainJobCase


class TraceTests(MainJobCase):
    async def test_both_ways_while_it_is_on(self) -> None:
        await self.begin()
        config = ("--config", str(self.service.config))
        path = self.service.folder / "state" / "log" / "trace-hq.log"
        self.assertFalse(path.exists())
        follower = spawn(self, "-c", RUN, "trace", "hq", "--minutes", "1", "--mask", "--follow", *config)
        await follower.wait_for("trace of cube hq begins")
        self.call()
        await self.until(lambda: len(self.received) == 3)
        assert self.service.process is not None
        await self.command("trace", "hq", "--status")
        output = await self.command("trace", "hq", "--stop")
        self.assertRegex(output, r"^Cube hq is traced no more: [0-9]+ messages are in ")
        await follower.ended()
        self.assertEqual(follower.exit_code, 0, follower.text)
        self.assertIn("ends, as it was asked to", follower.text)
        self.call()
        await self.until(lambda: len(self.received) == 6)

        text = path.read_text()
        notified = re.findall(r"^    .*<(NotifyXcc\w+) ", text, re.MULTILINE)
        self.assertGreater(Counter(notified)["NotifyXccConnectionData"], 3)
        # Every message that came was answered; of the last, the trace may not have lived to see that.
        *numbers, _ = Counter(re.findall(r"^\S+ #([0-9]+) ", text, re.MULTILINE)).values()
        self.assertEqual(set(numbers), {2})
        self.assertIn("    POST /xcc/hq HTTP/1.1\n", text)
        numbers_shown = re.findall(r"<addr>(.*?)</addr>", text)
        self.assertTrue(numbers_shown)
        for number in numbers_shown:
            self.assertRegex(number, r"^\+?\*+[0-9]{2}$|^\*{1,3}$")
        self.assertNotIn("ends, as it was asked to\n20", text)
        self.assertIn("Cube hq is traced until", self.service.process.text)

    async def test_what_we_ask_is_traced_too(self) -> None:
        await self.begin()
        await self.command("trace", "hq")
        assert self.service.process is not None
        await self.service.process.stop()
        text = (self.service.folder / "state" / "log" / "trace-hq.log").read_text()
        # It unregisters as it stops.
        head = r"^\S+ #([0-9]+) cubehook -> \S+\n    POST /cisco_xcc HTTP/1\.1\n(?:    .*\n|\n)*?"
        asked = re.search(rf"{head}.*RequestXccUnRegister", text, re.MULTILINE)
        assert asked is not None, text
        self.assertRegex(text, rf"#{asked[1]} \S+ -> cubehook after [0-9.]+ ms\n    HTTP/1\.1 200")
        self.assertTrue(text.endswith("ends, as the service stops\n"))

    async def command(self, *arguments: str) -> str:
        status, output, errors = await cubehook(*arguments, "--config", str(self.service.config))
        self.assertEqual(status, 0, errors)
        return output
