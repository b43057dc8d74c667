"""`cubehook redeliver`: what it asks of the service, of its user, and says."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from cubehook.commands import redeliver
from cubehook.control import ControlError, NotRunningError, RefusedError
from tests.commands.support import JOB, CommandCase

PATH = "/webhooks/crm/redeliver"
SINCE = ("--since", "2024-11-23T01:00:00+01:00", "--until", "2024-11-24T00:00:00Z")
RANGE = {
    "since": "2024-11-23T00:00:00.000000Z",
    "until": "2024-11-24T00:00:00.000000Z",
    "status": ["failed", "expired"],
}
COUNTED = {"total": 1200, "job": None}
STARTED = {"total": 1200, "job": JOB}
DONE = {**JOB, "state": "done", "done": 1200, "ended_at": "2024-11-24T10:00:24.000000Z"}


class Ranges(CommandCase):
    def answers(self, *jobs: Any, count: int = 1200) -> dict[str, list[Any]]:
        return {PATH: [{"total": count, "job": None}, STARTED], f"/jobs/{JOB['id']}": list(jobs) or [DONE]}

    def test_counted_agreed_to_and_followed(self) -> None:
        status, output, errors = self.run_command(
            "redeliver",
            "crm",
            *SINCE,
            answers=self.answers({**JOB, "done": 300}, DONE),
            typed="y\n",
            watched=True,
        )
        self.assertEqual(
            self.service.asked,
            [
                ("POST", PATH, {**RANGE, "preview": True}),
                ("POST", PATH, RANGE),
                ("GET", f"/jobs/{JOB['id']}"),
                ("GET", f"/jobs/{JOB['id']}"),
            ],
        )
        self.assertEqual(status, 0)
        self.assertEqual(
            output,
            "Job 6C4CYCND0S9TG, webhook crm: done, 1,200 of 1,200 deliveries handed over to be sent again\n",
        )
        self.assertIn("Webhook crm: 1,200 deliveries (failed or expired) of events", errors)
        self.assertIn("Send them again? [y/N] ", errors)
        self.assertIn("300 of 1,200 deliveries handed over (25%)", errors)

    def test_what_was_missed(self) -> None:
        status, output, errors = self.run_command(
            "redeliver", "crm", *SINCE, "--status", "failed,missed", "--preview", answers=self.answers()
        )
        self.assertEqual((status, output), (0, "1200\n"))
        self.assertIn("(failed or missed)", errors)
        self.assertEqual(self.service.asked[0][2]["status"], ["failed", "missed"])

    def test_not_agreed_to(self) -> None:
        for typed in ("\n", "n\n", "", "maybe\n"):
            status, output, errors = self.run_command(
                "redeliver", "crm", *SINCE, answers=self.answers(), typed=typed
            )
            self.assertEqual((status, output, len(self.service.asked)), (1, "", 1))
            self.assertIn("Nothing is sent", errors)

    def test_nobody_to_ask(self) -> None:
        status, output, errors = self.run_command("redeliver", "crm", *SINCE, answers=self.answers())
        self.assertEqual((status, output, len(self.service.asked)), (1, "", 1))
        self.assertIn("--yes", errors)

    def test_yes(self) -> None:
        status, output, errors = self.run_command("redeliver", "crm", *SINCE, "--yes", answers=self.answers())
        self.assertEqual(status, 0)
        self.assertNotIn("?", errors)
        # What is written over again and again is for a terminal.
        self.assertNotIn("\r", errors)
        self.assertIn("done, 1,200 of", output)

    def test_nothing_to_send(self) -> None:
        status, output, _ = self.run_command("redeliver", "crm", *SINCE, answers=self.answers(count=0))
        self.assertEqual((status, output, len(self.service.asked)), (0, "Nothing is to be sent again.\n", 1))

    def test_preview(self) -> None:
        status, output, _ = self.run_command("redeliver", "crm", *SINCE, "--preview", answers=self.answers())
        self.assertEqual((status, output, len(self.service.asked)), (0, "1200\n", 1))

    def test_as_json(self) -> None:
        for options, found in (
            (("--preview",), COUNTED),
            (("--yes",), {"total": 1200, "job": DONE}),
            (("--yes", "--no-follow"), STARTED),
        ):
            status, output, _ = self.run_command(
                "redeliver", "crm", *SINCE, "--json", *options, answers=self.answers()
            )
            self.assertEqual((status, json.loads(output)), (0, found))

    def test_not_followed(self) -> None:
        status, output, errors = self.run_command(
            "redeliver", "crm", *SINCE, "--yes", "--no-follow", answers=self.answers()
        )
        self.assertEqual((status, len(self.service.asked)), (0, 2))
        self.assertIn("running, 0 of 1,200", output)
        self.assertIn(f"cubehook redeliver --cancel {JOB['id']}", errors)

    def test_left_alone_by_ctrl_c(self) -> None:
        status, _, errors = self.run_command(
            "redeliver", "crm", *SINCE, "--yes", answers=self.answers(KeyboardInterrupt()), watched=True
        )
        self.assertEqual(status, 130)
        self.assertIn(f"Job {JOB['id']} goes on in the service", errors)
        self.assertNotIn("cancel", [asked[1] for asked in self.service.asked][-1])

    def test_a_service_that_stops_meanwhile(self) -> None:
        answers = self.answers(NotRunningError("no cubehook is running"))
        status, _, errors = self.run_command(
            "redeliver",
            "crm",
            *SINCE,
            "--yes",
            answers=answers,
        )
        self.assertEqual(status, 1)
        self.assertIn("goes on when the service runs", errors)
        self.assertIn("cubehook redeliver: no cubehook is running", errors)

    def test_a_job_that_does_not_end_well(self) -> None:
        for state in ("failed", "cancelled"):
            job = {**JOB, "state": state, "reason": "the webhook\x1b[2J is gone", "skipped": 2}
            status, output, _ = self.run_command(
                "redeliver", "crm", *SINCE, "--yes", answers=self.answers(job)
            )
            self.assertEqual(status, 1)
            self.assertIn(f"{state}, 0 of 1,200", output)
            self.assertIn("2 skipped", output)
            self.assertIn("is gone", output)
            self.assertNotIn("\x1b", output)

    def test_what_a_job_waits_for_is_shown(self) -> None:
        job = {**JOB, "reason": "the webhook is held back"}
        _, _, errors = self.run_command(
            "redeliver", "crm", *SINCE, "--yes", answers=self.answers(job, DONE), watched=True
        )
        self.assertIn("waits: the webhook is held back", errors)

    def test_options(self) -> None:
        self.run_command(
            "redeliver",
            "crm",
            *SINCE,
            "--status",
            "delivered, failed",
            "--per-second",
            "2.5",
            "--preview",
            answers=self.answers(),
        )
        body = self.service.asked[0][2]
        self.assertEqual((body["status"], body["per_second"]), (["delivered", "failed"], 2.5))

    def test_until_now_unless_told(self) -> None:
        self.patch(time, "time_ns", lambda: 1_732_377_816_200_940_123)
        self.run_command("redeliver", "crm", "--since", "1h", "--preview", answers=self.answers())
        body = self.service.asked[0][2]
        self.assertEqual(
            (body["since"], body["until"]), ("2024-11-23T15:03:36.200940Z", "2024-11-23T16:03:36.200940Z")
        )

    def test_a_refusal_names_its_fields(self) -> None:
        refusal = RefusedError(
            422, "invalid", "A field is not as it must be", {"per_second": "expected more"}
        )
        status, output, errors = self.run_command(
            "redeliver", "crm", *SINCE, "--per-second", "0", answers={PATH: [refusal]}
        )
        self.assertEqual((status, output), (1, ""))
        self.assertEqual(
            errors, "cubehook redeliver: A field is not as it must be\n  per_second: expected more\n"
        )

    def test_names_are_quoted(self) -> None:
        self.run_command(
            "redeliver",
            "a/../b?x",
            *SINCE,
            "--preview",
            answers={"/webhooks/a%2F..%2Fb%3Fx/redeliver": [COUNTED]},
        )
        self.assertEqual(self.service.asked[0][1], "/webhooks/a%2F..%2Fb%3Fx/redeliver")


class Usage(CommandCase):
    def test_what_makes_no_sense(self) -> None:
        for argv, words in (
            ((), "name a webhook"),
            (("crm",), "say since when"),
            (("crm", "--since", "yesterday"), "7d"),
            (("crm", "--since", "1h", "--until", "2h"), "before --until"),
            (("crm", "--since", "2039-01-01"), "before --until"),
            (("crm", "--since", "1h", "--status", "pending"), "'pending' is none of"),
            (("crm", "--since", "1h", "--status", ""), "is none of"),
            (("crm", "--since", "1h", "--per-second", "fast"), "--per-second"),
            (("crm", "--delivery", "X"), "give one of"),
            (("--delivery", "X", "--jobs"), "give one of"),
            (("--delivery", "X", "--since", "1h"), "go with WEBHOOK"),
            (("--jobs", "--since", "1h"), "go with WEBHOOK"),
            (("crm", "--since", "1h", "--config", "x"), "not allowed with"),
        ):
            status, output, errors = self.run_command("redeliver", *argv)
            self.assertEqual((status, output, self.service.asked), (2, "", []), argv)
            self.assertIn(words, errors)

    def test_help(self) -> None:
        for command in ("redeliver", "enable", "rotate-secret"):
            status, output, _ = self.run_command(command, "--help")
            self.assertEqual(status, 0)
            self.assertIn(f"usage: cubehook {command}", output)
            self.assertIn("--state-dir", output)


class OneDelivery(CommandCase):
    def test_it_is_sent_again(self) -> None:
        sent = {"id": "6C4CYB4THKQME", "webhook": "crm", "event": "6C4CYB4PT4EBK-1", "status": "pending"}
        answers = {"/deliveries/6C4CYB4THKQME/redeliver": [sent]}
        status, output, _ = self.run_command("redeliver", "--delivery", "6C4CYB4THKQME", answers=answers)
        self.assertEqual(status, 0)
        self.assertEqual(
            output, "Delivery 6C4CYB4THKQME (event 6C4CYB4PT4EBK-1) is sent to webhook crm again.\n"
        )
        status, output, _ = self.run_command(
            "redeliver", "--delivery", "6C4CYB4THKQME", "--json", answers=answers
        )
        self.assertEqual(json.loads(output), sent)


class Jobs(CommandCase):
    def test_the_list(self) -> None:
        jobs = {"items": [JOB, DONE], "next": None}
        status, output, _ = self.run_command("redeliver", "crm", "--jobs", answers={"/jobs": [jobs]})
        self.assertEqual(status, 0)
        self.assertEqual(self.service.asked, [("GET", "/jobs?limit=50&webhook=crm")])
        first, second = output.splitlines()
        self.assertIn("running", first)
        self.assertIn("done", second)
        shown = re.match(r"\S+ \S+", first)
        assert shown
        # In the zone of this machine.
        self.assertEqual(
            datetime.fromisoformat(shown[0]).astimezone(UTC), datetime(2024, 11, 24, 10, tzinfo=UTC)
        )

    def test_an_empty_list(self) -> None:
        empty: dict[str, Any] = {"items": [], "next": None}
        _, output, _ = self.run_command("redeliver", "--jobs", answers={"/jobs": [empty]})
        self.assertEqual(output, "There are no jobs.\n")
        self.assertEqual(self.service.asked, [("GET", "/jobs?limit=50")])
        _, output, _ = self.run_command("redeliver", "--jobs", "--json", answers={"/jobs": [empty]})
        self.assertEqual(json.loads(output), empty)

    def test_cancel(self) -> None:
        cancelled = {**JOB, "state": "cancelled", "done": 30}
        answers = {f"/jobs/{JOB['id']}/cancel": [cancelled]}
        status, output, _ = self.run_command("redeliver", "--cancel", JOB["id"], answers=answers)
        self.assertEqual(status, 0)
        self.assertIn("cancelled, 30 of 1,200", output)
        _, output, _ = self.run_command("redeliver", "--cancel", JOB["id"], "--json", answers=answers)
        self.assertEqual(json.loads(output), cancelled)

    def test_a_service_that_does_not_answer(self) -> None:
        status, output, errors = self.run_command(
            "redeliver", "--jobs", answers={"/jobs": [ControlError("it broke off\x1b[2J")]}
        )
        self.assertEqual((status, output), (1, ""))
        self.assertNotIn("\x1b", errors)


class Interval(CommandCase):
    def test_jobs_are_not_asked_for_in_a_hurry(self) -> None:
        slept: list[float] = []
        self.patch(time, "sleep", slept.append)
        self.patch(redeliver, "_INTERVAL", 0.5)
        answers: dict[str, list[Any]] = {PATH: [COUNTED, STARTED], f"/jobs/{JOB['id']}": [JOB, DONE]}
        self.run_command("redeliver", "crm", *SINCE, "--yes", answers=answers)
        self.assertEqual(slept, [0.5, 0.5])
