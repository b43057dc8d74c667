"""What the API shows and takes: the structs of its bodies, and how they are made of ours."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from cubehook import config
from cubehook.api.settings import WebhookChanges, shown_duration, shown_options
from cubehook.config_rules import rule
from cubehook.delivery.means import Status
from cubehook.delivery.redelivery import LEAST_PER_SECOND, MOST_PER_SECOND
from cubehook.events import CallState, Granularity, Micros, NoticeType, iso
from cubehook.ids import id_text, id_time, parse_id
from cubehook.net.urls import MASK, masked_url
from cubehook.records import Delivery, DeliveryStatus, Job, JobState
from cubehook.times import parse_time

Time: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""A time that is shown: RFC 3339, in UTC."""

TimeGiven: TypeAlias = Annotated[
    Micros,
    rule("a time with its zone, such as 2024-11-23T16:03:36Z", parse_time),
    msgspec.Meta(extra_json_schema={"format": "date-time"}),
]
"""A time that is taken."""

IdGiven: TypeAlias = Annotated[
    int,
    rule("an id of 13 characters", parse_id),
    msgspec.Meta(extra_json_schema={"pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{12}$"}),
]
"""An id that is taken."""

Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=200)]


class WebhooksQuery(msgspec.Struct, frozen=True):
    """`limit` webhooks at most, after those that gave `cursor` as their `next`."""

    limit: Limit = 50
    cursor: str | None = None


class JobsQuery(msgspec.Struct, frozen=True):
    """`limit` jobs at most, of `webhook` if it is given, after those that gave `cursor` as their `next`."""

    limit: Limit = 50
    cursor: IdGiven | None = None
    webhook: str | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """
    A webhook, without its secrets, and how it stands.

    One that is `provisioned` stands in the configuration file, and is changed there only.  Its settings are
    those of the file; null is left to the defaults.  `counters` tell how attempts ended since the start.
    `enabled` is what its settings say; `disabled_reason` tells why it is sent nothing all the same,
    since its receiver wanted that or failed for days.  `state` is that of its breaker: `closed` when
    it is sent to, `held` when its receiver asked for silence, `open` when it fails, `half-open` while
    one delivery is tried; nothing is sent before `held_until`.  `problem` tells of anything
    else that keeps it from being sent to.
    """

    id: str
    name: str
    description: str
    url: str
    method: str
    transport: str
    enabled: bool
    states: tuple[CallState, ...]
    cubes: tuple[str, ...]
    headers: dict[str, str]
    payload: str
    template: str | None
    preset: str | None
    encoding: str
    granularity: Granularity
    notices: tuple[NoticeType, ...]
    options: dict[str, Any]
    timeout: float | None
    retry: tuple[float, ...] | None
    jitter: float | None
    concurrency: int | None
    expire: dict[CallState, float]
    breaker: config.Breaker | None
    disable_after: str | None
    provisioned: bool
    pending: int
    in_flight: int
    state: str
    held_until: Time | None
    failures: int
    failing_since: Time | None
    disabled_reason: str | None
    problem: str | None
    counters: dict[str, int]


class CreatedWebhook(Webhook, frozen=True, kw_only=True):
    """A webhook that was made, and its `secret`, shown this once; null if it was given one."""

    secret: str | None


class TestOf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What to try a webhook with: a sample of an event in `state`, by default the first that it is sent.

    With `settings` it is tried as if these were changed.
    """

    state: CallState | None = None
    settings: WebhookChanges | None = None


class TestOfNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to try or to look at, and the `state` of a call that is told of."""

    settings: WebhookChanges
    state: CallState | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The `body` that is sent of a sample: `kind` is a call's state, or the type of a notice."""

    kind: str
    body: str


class Previews(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook would be sent, one sample of each kind."""

    items: list[Preview]


class Webhooks(msgspec.Struct, frozen=True, kw_only=True):
    """Webhooks in the order of their ids."""

    items: list[Webhook]
    next: str | None


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """
    A webhook's new signing secret, which is shown this once.

    The former one goes on signing beside it until `former_until`; null if it does not.
    """

    webhook: str
    secret: str
    former_until: Time | None


class SentAgainIf(enum.StrEnum):
    """How what is to be sent again stands; `missed` is an event that there is no delivery of."""

    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    MISSED = "missed"


class RedeliverRange(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which of a webhook's deliveries to send again: of events from `since` up to but without `until`
    (now, unless given), that stand at one of `status`.

    `missed` are the events of calls that are such as the webhook is sent now, and of which it has no
    delivery: it was paused or disabled then, or did not exist.

    `per_second` is how many are sent again in a second at most.  With `preview` they are only counted.
    """

    since: TimeGiven
    until: TimeGiven | None = None
    status: Annotated[tuple[SentAgainIf, ...], msgspec.Meta(min_length=1)] = (
        SentAgainIf.FAILED,
        SentAgainIf.EXPIRED,
    )
    per_second: Annotated[float, msgspec.Meta(ge=LEAST_PER_SECOND, le=MOST_PER_SECOND)] | None = None
    preview: bool = False


class RedeliveryJob(msgspec.Struct, frozen=True, kw_only=True):
    """
    A webhook's deliveries being sent again.

    `total` were counted when it began, `done` of them have been handed over to be sent, `skipped` could
    not be, since their events are no longer kept.  `reason` tells why it failed or what it waits for.
    """

    id: str
    webhook: str
    state: JobState
    since: Time
    until: Time
    status: tuple[SentAgainIf, ...]
    per_second: float
    total: int
    done: int
    skipped: int
    asked_by: str
    started_at: Time
    ended_at: Time | None
    reason: str | None


class RedeliveryJobs(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    items: list[RedeliveryJob]
    next: str | None


class SentAgain(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is pending again."""

    id: str
    webhook: str
    event: str
    status: DeliveryStatus


class Redelivering(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries are meant, and the job that sends them again; none for a preview."""

    total: int
    job: RedeliveryJob | None


def webhook_view(
    webhook: config.Webhook,
    status: Status,
    disabled_reason: str | None,
    *,
    provisioned: bool,
    counters: Mapping[str, int],
) -> Webhook:
    """`webhook` as it is shown."""
    return Webhook(
        id=webhook.id,
        name=webhook.name,
        description=webhook.description,
        url=masked_url(webhook.url),
        method=webhook.method,
        transport=webhook.transport,
        # A webhook that was disabled while it was in use was enabled.
        enabled=webhook.enabled or disabled_reason is not None,
        states=webhook.states,
        cubes=webhook.cubes,
        headers=dict.fromkeys(webhook.headers, MASK),
        payload=webhook.payload,
        template=webhook.template,
        preset=webhook.preset,
        encoding=webhook.encoding,
        granularity=webhook.granularity,
        notices=webhook.notices,
        options=shown_options(webhook.options),
        timeout=webhook.timeout,
        retry=webhook.retry,
        jitter=webhook.jitter,
        concurrency=webhook.concurrency,
        expire=webhook.expire,
        breaker=webhook.breaker,
        disable_after=None if webhook.disable_after is None else shown_duration(webhook.disable_after),
        provisioned=provisioned,
        pending=status.pending,
        in_flight=status.in_flight,
        state=status.state,
        held_until=shown_time(status.held_until),
        failures=status.failures,
        failing_since=shown_time(status.failing_since),
        disabled_reason=disabled_reason,
        problem=status.problem if disabled_reason is None and webhook.enabled else None,
        counters=dict(counters),
    )


def job_view(job: Job) -> RedeliveryJob:
    """`job` as it is shown."""
    return RedeliveryJob(
        id=id_text(job.id),
        webhook=job.webhook,
        state=job.state,
        since=iso(job.since),
        until=iso(job.until),
        status=(*map(SentAgainIf, job.statuses), *((SentAgainIf.MISSED,) if job.missed else ())),
        per_second=job.per_second,
        total=job.total,
        done=job.done,
        skipped=job.skipped,
        asked_by=job.asked_by,
        started_at=iso(id_time(job.id)),
        ended_at=shown_time(job.ended_at),
        reason=job.reason,
    )


def delivery_view(delivery: Delivery) -> SentAgain:
    """`delivery`, which is sent again, as it is shown."""
    return SentAgain(
        id=id_text(delivery.id),
        webhook=delivery.webhook,
        event=delivery.event.payload.event_id,
        status=delivery.status,
    )


def shown_time(at: Micros | None) -> str | None:
    """A time as it is shown, None for none."""
    return None if at is None else iso(at)
