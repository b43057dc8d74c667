"""Commands that speak to the running service: sending again, new secrets, enabling; and the socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path

from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from cubehook.ids import id_text
from cubehook.simulator.sink import Behaviour, Received, Sink
from tests.functional.harness import PATIENCE, ROOT, Service, twistd
from tests.functional.test_main_job import SECRET, STATES, MainJobCase, reactor

RUN = "import sys; from cubehook.cli import main; sys.exit(main())"


async def cubehook(*arguments: str) -> tuple[int, str, str]:
    """Run a command as a process of its own; exit status, standard output and standard error."""
    # Nothing of the service's environment, such as the variables of its configuration.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TZ": "UTC"}
    running = getProcessOutputAndValue(sys.executable, ["-c", RUN, *arguments], env=environment)
    output, errors, status = await running.addTimeout(PATIENCE, reactor)
    return status, output.decode(), errors.decode()


class CommandTests(MainJobCase):
    async def start_sink(self, behaviour: Behaviour | None = None) -> None:
        # Without secrets it takes what other webhooks than crm are sent as well.
        self.sink = Sink(
            reactor,
            lambda: time.time_ns() // 1000,
            behaviour=behaviour or Behaviour(),
            received=self._received,
        )
        await self.sink.start(f"tcp:{self.sink_port}:interface=127.0.0.1")
        self.addCleanup(self.stop_sink)

    async def behave(self, behaviour: Behaviour) -> None:
        """Let the receiver be another one; what came before is forgotten."""
        await self.stop_sink()
        self.received.clear()
        await self.start_sink(behaviour)

    async def command(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """What a command for the running service says, on standard output and standard error."""
        found, output, errors = await cubehook(*arguments, "--config", str(self.service.config))
        self.assertEqual(found, status, output + errors)
        return output, errors

    async def fail_a_call(self) -> list[str]:
        """Place a call of which the receiver refuses each event for good; the events' ids."""
        await self.behave(Behaviour(status=400))
        self.call()

        async def given_up() -> bool:
            output, _ = await self.command("redeliver", "crm", "--since", "1h", "--preview")
            return output == "3\n"

        await self.poll(given_up)
        ids = list(dict.fromkeys(received.id for received in self.received))
        await self.behave(Behaviour())
        return ids

    async def test_what_failed_is_sent_again(self) -> None:
        await self.begin(webhook="retry = [0.1]")
        ids = await self.fail_a_call()

        # Nobody is asked where nobody can answer.
        _, errors = await self.command("redeliver", "crm", "--since", "1h", status=1)
        self.assertIn("--yes", errors)
        self.assertEqual(self.received, [])

        output, errors = await self.command("redeliver", "crm", "--since", "1h", "--yes")
        self.assertIn("3 deliveries (failed or expired)", errors)
        self.assertRegex(output, r"^Job \w{13}, webhook crm: done, 3 of 3 deliveries handed over")
        await self.until(lambda: len(self.received) == 3)
        self.assertEqual([received.id for received in self.received], ids)
        self.assertEqual(self.states(), STATES)
        for received in self.received:
            self.assertEqual(received.headers["cubehook-redelivery"], "true")
            Verifier(SECRET).verify(received.body, received.headers)

        output, _ = await self.command("redeliver", "--jobs", "--json")
        (job,) = json.loads(output)["items"]
        self.assertEqual((job["state"], job["asked_by"]), ("done", f"uid {os.getuid()}"))
        output, _ = await self.command("redeliver", "--jobs")
        self.assertIn(f"Job {job['id']}, webhook crm: done", output)

        output, _ = await self.command("redeliver", "crm", "--since", "1h", "--yes")
        self.assertEqual(output, "Nothing is to be sent again.\n")

    async def test_one_delivery(self) -> None:
        await self.begin()
        self.call()
        await self.until(lambda: len(self.received) == 3)
        first = self.received[0]
        self.assertNotIn("cubehook-redelivery", first.headers)
        wanted, _ = await self.command(
            "redeliver", "crm", "--since", "1h", "--preview", "--status", "delivered"
        )
        self.assertEqual(wanted, "3\n")
        (number,) = self.database().execute("SELECT min(id) FROM deliveries").fetchone()
        output, _ = await self.command("redeliver", "--delivery", id_text(number))
        self.assertIn(f"(event {first.id}) is sent to webhook crm again", output)
        await self.until(lambda: len(self.received) == 4)
        again = self.received[3]
        self.assertEqual((again.id, again.headers["cubehook-redelivery"]), (first.id, "true"))
        _, errors = await self.command("redeliver", "--delivery", id_text(number + 1), status=1)
        self.assertIn("cubehook redeliver: ", errors)

    async def test_a_job_is_cancelled_and_outlives_a_restart(self) -> None:
        await self.begin(webhook="retry = [0.1]")
        await self.fail_a_call()
        slow = ("redeliver", "crm", "--since", "1h", "--yes", "--no-follow", "--per-second", "0.1", "--json")
        output, _ = await self.command(*slow)
        job = json.loads(output)["job"]
        self.assertEqual(job["state"], "running")
        assert self.service.process is not None
        await self.service.process.kill()
        await self.service.start()
        output, _ = await self.command("redeliver", "--cancel", job["id"], "--json")
        cancelled = json.loads(output)
        self.assertEqual((cancelled["id"], cancelled["state"]), (job["id"], "cancelled"))
        self.assertLess(cancelled["done"], 3)

    async def test_a_job_goes_on_after_a_kill(self) -> None:
        await self.begin(webhook="retry = [0.1]")
        ids = await self.fail_a_call()
        await self.command("redeliver", "crm", "--since", "1h", "--yes", "--no-follow", "--per-second", "0.5")
        await self.until(lambda: len(self.received) == 1)
        assert self.service.process is not None
        await self.service.process.kill()
        await self.service.start()
        # What was on its way at the kill may come twice, and with the same id; nothing else.
        await self.until(lambda: len({received.id for received in self.received}) == 3)
        self.assertEqual(list(dict.fromkeys(received.id for received in self.received)), ids)
        self.assertLessEqual(len(self.received), 4)
        output, _ = await self.command("redeliver", "--jobs", "--json")
        (job,) = json.loads(output)["items"]
        self.assertEqual((job["total"], job["done"], job["state"]), (3, 3, "done"))

    async def test_a_webhook_that_answered_410(self) -> None:
        await self.begin()
        await self.behave(Behaviour(status=410))
        self.call()
        process = self.service.process
        assert process is not None
        await process.wait_for("Webhook crm is disabled")
        await self.gateway.when_idle()
        (refused,) = {received.id for received in self.received}
        await self.behave(Behaviour())
        output, _ = await self.command("enable", "crm")
        self.assertIn("Webhook crm is enabled", output)
        self.assertIn("410", output)
        self.assertIn("1 delivery is pending", output)
        # What the receiver refused is sent; what happened since was meant for nobody.
        await self.until(lambda: len(self.received) == 1)
        self.assertEqual((self.received[0].id, self.states()), (refused, ["ALERTING"]))
        output, _ = await self.command("enable", "crm")
        self.assertIn("was not disabled", output)

        # It stays enabled.
        await process.stop()
        await self.service.start()
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)
        self.call()
        await self.until(lambda: len(self.received) == 4)
        self.assertEqual(self.states(), ["ALERTING", *STATES])

    async def test_what_the_file_disables(self) -> None:
        await self.begin(webhook="enabled = false")
        _, errors = await self.command("enable", "crm", status=1)
        self.assertIn("webhooks.crm.enabled", errors)

    async def test_a_new_secret(self) -> None:
        await self.begin(webhook='[webhooks.erp]\nurl = "http://127.0.0.1:SINK/erp"\nstates = ["ALERTING"]\n')
        first, _ = await self.command("rotate-secret", "erp")
        second, errors = await self.command("rotate-secret", "erp")
        self.assertRegex(second, r"\Awhsec_\S{44}\n\Z")
        self.assertNotEqual(first, second)
        self.assertRegex(errors, r"former secret signs until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00 too")
        self.assertNotIn("whsec_", errors)
        self.call()
        await self.until(lambda: bool(self.of("/erp")) and len(self.of("/crm")) == 3)
        (received,) = self.of("/erp")
        for secret in (first, second):
            Verifier(secret.strip()).verify(received.body, received.headers)
        self.assertRaises(WebhookVerificationError, Verifier(SECRET).verify, received.body, received.headers)
        for log in (self.service.folder / "state" / "log").iterdir():
            self.assertNotIn(second.strip(), log.read_text())

        _, errors = await self.command("rotate-secret", "crm", status=1)
        self.assertIn("file", errors)
        _, errors = await self.command("rotate-secret", "nobody", status=1)
        self.assertEqual(errors, "cubehook rotate-secret: There is no webhook nobody\n")

    def of(self, path: str) -> list[Received]:
        return [received for received in self.received if received.path == path]


class SocketTests(TestCase):
    timeout = 120

    def folder(self) -> Path:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        return folder

    async def jobs(self, service: Service) -> tuple[int, str, str]:
        return await cubehook("redeliver", "--jobs", "--state-dir", str(service.folder / "state"))

    async def test_from_start_to_stop(self) -> None:
        service = Service(self, self.folder())
        process = await service.start()
        found = (service.folder / "state" / "control.sock").lstat()
        self.assertEqual((stat.S_IMODE(found.st_mode), found.st_uid), (0o600, os.getuid()))
        self.assertEqual(await self.jobs(service), (0, "There are no jobs.\n", ""))
        await process.stop()
        # Nothing is asked of a service whose store has closed.
        self.assertRegex(process.text, r"(?s)control\.sock'? Closed\).*cubehook has stopped")
        self.assertFalse((service.folder / "state" / "control.sock").exists())
        status, output, errors = await self.jobs(service)
        self.assertEqual((status, output), (1, ""))
        self.assertIn(f"no cubehook is running with the state folder {service.folder / 'state'}", errors)

    async def test_one_left_behind_by_a_kill(self) -> None:
        service = Service(self, self.folder())
        process = await service.start()
        await process.kill()
        self.assertTrue((service.folder / "state" / "control.sock").is_socket())
        self.assertEqual((await self.jobs(service))[0], 1)
        await service.start()
        self.assertEqual((await self.jobs(service))[0], 0)

    async def test_a_second_service_does_not_take_it(self) -> None:
        service = Service(self, self.folder())
        await service.start()
        before = (service.folder / "state" / "control.sock").lstat()
        other = Service(self, self.folder())
        other.write_config()
        other.config.write_text(other.config.read_text().replace('"state"', f'"{service.folder / "state"}"'))
        second = twistd(self, other.folder, "--config", str(other.config))
        await second.ended()
        self.assertIn("in use by another cubehook", second.text)
        after = (service.folder / "state" / "control.sock").lstat()
        self.assertEqual((before.st_ino, before.st_ctime_ns), (after.st_ino, after.st_ctime_ns))
        self.assertEqual((await self.jobs(service))[0], 0)

    async def test_a_deep_folder(self) -> None:
        deep = self.folder().joinpath(*["a-rather-deep-folder"] * 6)
        service = Service(self, deep)
        process = await service.start()
        self.assertEqual((await self.jobs(service))[0], 0)
        await process.stop()
        self.assertFalse((deep / "state" / "control.sock").exists())

    async def test_a_socket_that_cannot_be_is_no_reason_to_stop(self) -> None:
        service = Service(self, self.folder())
        (service.folder / "state" / "control.sock").mkdir(parents=True)
        process = await service.start()
        found = await process.wait_for(r"Commands such as .* cannot speak to this service.*: (.*)")
        self.assertIn("move it away", found[1])
        self.assertEqual((await service.get("/healthz"))[0], 200)
        await process.stop()

    async def test_a_client_that_says_nothing_does_not_keep_the_service(self) -> None:
        service = Service(self, self.folder())
        process = await service.start()
        silent = socket.socket(socket.AF_UNIX)
        self.addCleanup(silent.close)
        descriptor = os.open(service.folder / "state", os.O_DIRECTORY)
        self.addCleanup(os.close, descriptor)
        silent.connect(f"/proc/self/fd/{descriptor}/control.sock")
        self.assertEqual((await self.jobs(service))[0], 0)
        await process.stop(signal.SIGINT)
