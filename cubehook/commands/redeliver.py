"""`cubehook redeliver`: send again what was delivered or given up."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from cubehook.commands import place
from cubehook.control import Control, ControlError
from cubehook.events import Micros, iso
from cubehook.text import printable
from cubehook.times import parse_moment

_STATUSES = ("delivered", "failed", "expired", "missed")

_INTERVAL = 0.5
"""Seconds between two looks at a job."""

_JOBS_SHOWN = 50

_CLEAR = "\x1b[K"
"""Makes a terminal clear the rest of the line."""


def redeliver(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    others = [
        name
        for name in ("webhook", "delivery", "cancel", "jobs")
        if getattr(arguments, name) not in (None, False)
    ]
    if not others:
        parser.error("name a webhook, or give one of --delivery, --jobs and --cancel")
    if len(others) > 1 and others != ["webhook", "jobs"]:
        parser.error("give one of WEBHOOK, --delivery, --jobs and --cancel; only --jobs goes with WEBHOOK")
    action = others[-1]
    if action == "webhook":
        # One moment, which all durations are counted from.
        wanted = _range(parser, arguments, time.time_ns() // 1000)
        return place.run("redeliver", arguments, partial(_redeliver_range, arguments, wanted))
    if arguments.since is not None or arguments.until is not None:
        parser.error("--since and --until go with WEBHOOK alone")
    work = {"delivery": _redeliver_one, "cancel": _cancel, "jobs": _jobs}[action]
    return place.run("redeliver", arguments, partial(work, arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cubehook redeliver",
        usage="cubehook redeliver WEBHOOK --since WHEN [--until WHEN] [options]\n"
        "       cubehook redeliver --delivery ID | [WEBHOOK] --jobs | --cancel JOB",
        description="Send again what was delivered or given up: a webhook's deliveries of some time, as a "
        "job of the running service, or one delivery.  What is sent again has the id it had, and the header "
        "`cubehook-redelivery: true`.",
        epilog="WHEN is a time with its zone such as 2024-11-23T16:00:00Z, a date such as 2024-11-23 (its "
        "beginning, on this machine's clock), or how long ago it was, such as 90m, 12h or 7d.",
    )
    parser.add_argument("webhook", nargs="?", metavar="WEBHOOK", help="the webhook's id")
    parser.add_argument("--since", metavar="WHEN", help="of events that happened then or later")
    parser.add_argument("--until", metavar="WHEN", help="and before then; now, unless given")
    parser.add_argument(
        "--status",
        metavar="LIST",
        default="failed,expired",
        help="those that stand so: any of delivered, failed, expired, with commas (%(default)s); missed are "
        "events that happened while the webhook was paused or disabled, or before it was made",
    )
    parser.add_argument(
        "--per-second", type=float, metavar="N", help="send at most so many again in a second"
    )
    parser.add_argument("--preview", action="store_true", help="only count them")
    parser.add_argument("--yes", action="store_true", help="do not ask before they are sent")
    parser.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show how far it has come until it is done (which it is by default)",
    )
    parser.add_argument("--delivery", metavar="ID", help="send this one delivery again")
    parser.add_argument("--jobs", action="store_true", help="list the jobs, newest first")
    parser.add_argument("--cancel", metavar="JOB", help="let a job send no more")
    place.add_arguments(parser)
    return parser


def _range(parser: argparse.ArgumentParser, arguments: argparse.Namespace, now: Micros) -> dict[str, Any]:
    """The body that asks for what the arguments say."""
    if arguments.since is None:
        parser.error("say since when, such as --since 12h")

    def moment(option: str, text: str) -> Micros:
        try:
            return parse_moment(text, now)
        except ValueError as error:
            parser.error(f"argument {option}: {printable(text)!r}: {error}")

    since = moment("--since", arguments.since)
    until = now if arguments.until is None else moment("--until", arguments.until)
    if since >= until:
        parser.error("--since must be before --until, which is now unless given")
    statuses = [status.strip() for status in arguments.status.split(",")]
    for status in statuses:
        if status not in _STATUSES:
            parser.error(f"argument --status: {printable(status)!r} is none of {', '.join(_STATUSES)}")
    wanted: dict[str, Any] = {"since": iso(since), "until": iso(until), "status": statuses}
    if arguments.per_second is not None:
        wanted["per_second"] = arguments.per_second
    return wanted


def _redeliver_range(arguments: argparse.Namespace, wanted: dict[str, Any], service: Control) -> int:
    path = f"/webhooks/{quote(arguments.webhook, safe='')}/redeliver"
    total = service.post(path, {**wanted, "preview": True})["total"]
    _tell(
        f"Webhook {arguments.webhook}: {_deliveries(total)} ({' or '.join(wanted['status'])}) of events "
        f"from {place.local(wanted['since'])} to {place.local(wanted['until'])}"
    )
    if arguments.preview or not total:
        if arguments.json:
            place.print_json({"total": total, "job": None})
        elif arguments.preview:
            print(total)
        else:
            print("Nothing is to be sent again.")
        return 0
    if not arguments.yes and not _agreed(total):
        return 1
    job = service.post(path, wanted)["job"]
    if arguments.follow:
        job = _followed(service, job)
    if arguments.json:
        place.print_json({"total": job["total"], "job": job})
    else:
        print(_summary(job))
        if job["state"] == "running":
            _tell(_where_to_look(job))
    return 0 if job["state"] in ("running", "done") else 1


def _agreed(total: int) -> bool:
    if not sys.stdin.isatty():
        _tell("Nothing is sent: give --yes to send them again without being asked")
        return False
    print(f"Send {'it' if total == 1 else 'them'} again? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    _tell("Nothing is sent.")
    return False


def _followed(service: Control, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it is over; told of meanwhile if someone watches."""
    watched = sys.stderr.isatty()
    try:
        try:
            while job["state"] == "running":
                if watched:
                    print(f"\r{_CLEAR}{_progress(job)}", end="", file=sys.stderr, flush=True)
                time.sleep(_INTERVAL)
                job = service.get(f"/jobs/{job['id']}")
        finally:
            if watched:
                print(f"\r{_CLEAR}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        _tell(_where_to_look(job))
        raise
    except ControlError:
        _tell(f"Job {job['id']} goes on when the service runs.")
        raise
    return job


def _progress(job: dict[str, Any]) -> str:
    share = job["done"] / job["total"] if job["total"] else 1.0
    waits = f"; waits: {printable(job['reason'], 60)}" if job["reason"] else ""
    return f"{job['done']:,} of {_deliveries(job['total'])} handed over ({share:.0%}){waits}"


def _where_to_look(job: dict[str, Any]) -> str:
    return (
        f"Job {job['id']} goes on in the service.  `cubehook redeliver --jobs` shows how far it is, "
        f"`cubehook redeliver --cancel {job['id']}` ends it."
    )


def _redeliver_one(arguments: argparse.Namespace, service: Control) -> int:
    sent = service.post(f"/deliveries/{quote(arguments.delivery, safe='')}/redeliver")
    if arguments.json:
        place.print_json(sent)
    else:
        print(f"Delivery {sent['id']} (event {sent['event']}) is sent to webhook {sent['webhook']} again.")
    return 0


def _cancel(arguments: argparse.Namespace, service: Control) -> int:
    job = service.post(f"/jobs/{quote(arguments.cancel, safe='')}/cancel")
    if arguments.json:
        place.print_json(job)
    else:
        print(_summary(job))
    return 0


def _jobs(arguments: argparse.Namespace, service: Control) -> int:
    query = {"limit": _JOBS_SHOWN}
    if arguments.webhook is not None:
        query["webhook"] = arguments.webhook
    jobs = service.get(f"/jobs?{urlencode(query)}")
    if arguments.json:
        place.print_json(jobs)
        return 0
    if not jobs["items"]:
        print("There are no jobs.")
    for job in jobs["items"]:
        print(f"{place.local(job['started_at'])}  {_summary(job)}")
    return 0


def _summary(job: dict[str, Any]) -> str:
    """A job in a line."""
    text = (
        f"Job {job['id']}, webhook {job['webhook']}: {job['state']}, "
        f"{job['done']:,} of {_deliveries(job['total'])} handed over to be sent again"
    )
    if job["skipped"]:
        text += f", {job['skipped']:,} skipped (their events are no longer kept)"
    return f"{text}; {printable(job['reason'])}" if job["reason"] else text


def _deliveries(count: int) -> str:
    return f"{count:,} deliver{'y' if count == 1 else 'ies'}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
