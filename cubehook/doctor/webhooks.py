"""Webhooks: how they stand, and whether their receivers can be reached, without sending anything."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cubehook import __version__
from cubehook.config import Webhook
from cubehook.doctor.certificates import authorities_findings, certificate_findings, identity_findings
from cubehook.doctor.clock import opinion
from cubehook.doctor.findings import Finding, Level, failed, ok, skipped, warning
from cubehook.doctor.subject import Subject
from cubehook.doctor.visiting import Visit, VisitError, visit
from cubehook.net.certificates import TlsFileError
from cubehook.net.egress import policy_from
from cubehook.net.journey import address_text
from cubehook.net.tls import TlsOptions
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.context import TransportContext
from cubehook.transports.registry import find_transports

_CONNECT_SECONDS = 4.0
_BROKERS = {
    "amqp": "cubehook.transports.amqp",
    "mqtt": "cubehook.transports.mqtt",
    "nats": "cubehook.transports.nats_jetstream",
    "redis": "cubehook.transports.redis_streams",
}
_TLS_FIRST = ("amqps", "mqtts", "rediss")
"""Schemes that begin with TLS; NATS begins with a line in clear."""

_STEPS = {
    ErrorClass.DNS: "Look at the name in url, and at this machine's name servers.",
    ErrorClass.CONNECTION_REFUSED: "Is the receiver running, and is the port in url its own?",
    ErrorClass.TIMEOUT: "Look for a firewall on the way, or a proxy that must be asked ([egress] proxy).",
    ErrorClass.TLS: "Name the authority of its certificate in options.ca_file, or have it renewed.",
    ErrorClass.CONNECTION_LOST: "Look at what stands before the receiver, and at its log.",
}


async def webhook_findings(subject: Subject, webhook: Webhook) -> list[Finding]:
    """All that is to be said of one webhook."""
    area = f"webhook {webhook.id}"
    found = list(_standing(subject, webhook, area))
    if not webhook.enabled:
        return [*found, skipped(area, "It is disabled by its settings")]
    if subject.config is None:
        return found
    try:
        found += await _receiver(subject, webhook, area)
    except TlsFileError as error:
        found.append(failed(area, str(error), "Mend the file: nothing is sent until then."))
    return found


# How it stands


def _standing(subject: Subject, webhook: Webhook, area: str) -> Iterator[Finding]:
    view = None if subject.running is None else subject.running.webhooks.get(webhook.id)
    reason = subject.kept.disabled.get(webhook.id) if view is None else view["disabled_reason"]
    if reason is not None:
        yield failed(
            area,
            f"It was disabled: {reason}",
            f"Once its receiver is mended: cubehook enable {webhook.id}",
        )
        return
    if view is None:
        return
    pending = f"; {view['pending']:,} deliveries are pending" if view["pending"] else ""
    if view["problem"] is not None:
        yield failed(area, f"It is sent nothing: {view['problem']}{pending}", "Mend that.")
    elif view["state"] != "closed":
        until = view["held_until"]
        till = f" until {_local(until)}" if until else ""
        failing = view["failing_since"]
        since = f", failing since {_local(failing)}" if failing else ""
        yield failed(
            area,
            f"It is held back{till} ({view['state']}{since}){pending}",
            "The latest attempts tell why: the webhook's page in the console, or log/events.log.",
        )
    elif view["failures"]:
        yield warning(area, f"The last {view['failures']:,} attempts failed{pending}")
    else:
        yield ok(
            area, f"Its deliveries arrive{pending}" if view["counters"] else f"Nothing was sent yet{pending}"
        )


def _local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


# Its receiver


async def _receiver(subject: Subject, webhook: Webhook, area: str) -> list[Finding]:
    plugins, _ = find_transports()
    plugin = plugins.get(webhook.transport)
    if plugin is None:
        return [
            failed(area, f"The transport {webhook.transport} is not installed", "See `cubehook transports`.")
        ]
    options = msgspec.convert(webhook.options, plugin.options)
    found: list[Finding] = []
    if isinstance(options, TlsOptions):
        found += _files(subject, options, area)
        if any(each.level is Level.FAILED for each in found):
            return found
    if webhook.transport == "http":
        return found + await _over_http(subject, webhook, options, area)
    if webhook.transport == "jsonl":
        return [_file(subject.folder / options.path, area)]
    return found + await _over_others(subject, webhook, options, area)


def _context(subject: Subject, webhook: Webhook) -> TransportContext:
    assert subject.config is not None
    egress = subject.config.egress
    return TransportContext(
        reactor=subject.reactor,
        webhook=webhook,
        egress=policy_from(egress),
        state_dir=subject.folder,
        secrets=(),
        version=__version__,
        timeout=_CONNECT_SECONDS,
        concurrency=1,
        proxy=egress.proxy,
        no_proxy=egress.no_proxy,
    )


def _files(subject: Subject, options: TlsOptions, area: str) -> Iterator[Finding]:
    folder, today = subject.folder, subject.today
    if options.ca_file is not None:
        yield from authorities_findings(area, "options.ca_file", folder / options.ca_file, today)
    if options.client_certificate is not None:
        path = folder / options.client_certificate
        own = folder / (options.client_key or options.client_certificate)
        key = "options.client_certificate"
        yield from identity_findings(area, key, path, "options.client_key", own, today)


async def _over_http(subject: Subject, webhook: Webhook, options: Any, area: str) -> list[Finding]:
    context = _context(subject, webhook)
    agent = context.agent(context.tls(options), proxy=options.proxy, no_proxy=options.no_proxy)
    route = agent.target(webhook.url.encode("ascii")).route
    url = urlsplit(webhook.url)
    where = address_text(url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    return await _visited(subject, route, where, area, tls=route.is_tls, note=route.note)


async def _over_others(subject: Subject, webhook: Webhook, options: Any, area: str) -> list[Finding]:
    if not webhook.url:
        return [skipped(area, f"Where {webhook.transport} sends to cannot be told from its settings")]
    url = urlsplit(webhook.url)
    ports: dict[str, int] = {}
    if webhook.transport in _BROKERS:
        ports = importlib.import_module(_BROKERS[webhook.transport]).PORTS
    port = url.port or ports.get(url.scheme)
    if port is None or url.hostname is None:
        return [skipped(area, f"{webhook.transport} has a port of its own, so its receiver was not tried")]
    context = _context(subject, webhook)
    tls = url.scheme in _TLS_FIRST and isinstance(options, TlsOptions)
    endpoint = context.endpoint(url.hostname, port, context.tls(options) if tls else None)
    return await _visited(subject, endpoint, address_text(url.hostname, port), area, tls=tls)


async def _visited(
    subject: Subject, where: Any, name: str, area: str, *, tls: bool, note: str | None = None
) -> list[Finding]:
    try:
        seen = await visit(subject.reactor, where, tls=tls)
    except VisitError as error:
        steps = [_STEPS[error.error_class]] if error.error_class in _STEPS else []
        if "the proxy" in str(error):
            steps = [
                "Look at the proxy ([egress] proxy, or options.proxy): it must let this machine connect."
            ]
        return [failed(area, f"Its receiver {error.of(name)}", *steps)]
    found = [_reached(seen, name, area, tls=tls, note=note)]
    if seen.certificate is not None:
        what = f"The certificate of {name}"
        found += certificate_findings(area, what, seen.certificate, subject.today)
    return found


def _reached(seen: Visit, name: str, area: str, *, tls: bool, note: str | None) -> Finding:
    address = f" ({seen.address})" if seen.address != name else ""
    told = f"Its receiver {name}{address} can be reached, in {seen.took}{', with TLS' if tls else ''}"
    if note is not None and "not verified" in note:
        return warning(area, f"{told}; {note}", "Name the authority to trust in options.ca_file instead.")
    return ok(area, f"{told}; {note}" if note else told)


def _file(path: Path, area: str) -> Finding:
    target = path if path.exists() else path.parent
    if os.access(target, os.W_OK) or not target.exists():
        return ok(area, f"It writes into {path}")
    return failed(area, f"This user may not write {path}", "Let the service's user write there.")


def receivers_clocks(subject: Subject) -> None:
    """Note what time receivers said it was when they last answered; the newest of each."""
    seen: set[str] = set()
    for attempt in subject.kept.attempts:
        headers = {name.lower(): value for name, value in attempt.response_headers.items()}
        host = urlsplit(attempt.url or "").hostname
        at = (attempt.started_at + attempt.duration) / 1_000_000
        if host is None or host in seen or subject.now() - at > _RECENT:
            continue
        said = opinion(f"the receiver {printable(host)}", headers.get("date"), at)
        if said is not None:
            seen.add(host)
            subject.opinions.append(said)


_RECENT = 3600.0
"""Seconds for which what a receiver said of the time is of interest."""
