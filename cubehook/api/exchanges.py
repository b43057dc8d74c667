"""An attempt of a delivery, and what lists tell of a delivery, as the API shows them."""

from __future__ import annotations

import msgspec

from cubehook.api.views import Time
from cubehook.events import Granularity, iso
from cubehook.ids import id_text
from cubehook.records import Attempt, DeliveryStatus, ErrorClass
from cubehook.store.lists import DeliveryItem


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """
    One try of a delivery, whole: what was sent, with secrets masked, and what was answered.

    `duration` and `phases`, the parts of it in their order, are microseconds.  The response's body is cut
    at 64 KiB.  `error` says in words what went wrong, `note` what else is to be known.
    """

    id: str
    number: int
    started_at: Time
    duration: int
    phases: dict[str, int]
    delivered: bool
    method: str | None
    url: str | None
    request_headers: dict[str, str]
    request_body: str | None
    status: int | None
    response_headers: dict[str, str]
    response_body: str | None
    remote_address: str | None
    error_class: ErrorClass | None
    error: str | None
    note: str | None


class DeliveryKept(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event on its way to a webhook, and how that stands.

    `at` is when what it tells of was received; `due_at` when it is tried next, while it is pending.
    `error_class` and `answered`, a status, are those of the last attempt.  `call` and the numbers are null
    of a notice, and what is told of the event is null once that is no longer kept.
    """

    id: str
    webhook: str
    status: DeliveryStatus
    at: Time
    due_at: Time | None
    error_class: ErrorClass | None
    answered: int | None
    redelivery: bool
    call: str | None
    cube: str | None
    event_id: str | None
    granularity: Granularity | None
    state: str | None
    calling_number: str | None
    called_number: str | None


def attempt_view(attempt: Attempt) -> AttemptView:
    """`attempt` as it is shown."""
    return AttemptView(
        id=id_text(attempt.id),
        number=attempt.number,
        started_at=iso(attempt.started_at),
        duration=attempt.duration,
        phases=attempt.phases,
        delivered=attempt.delivered,
        method=attempt.method,
        url=attempt.url,
        request_headers=attempt.request_headers,
        request_body=attempt.request_body,
        status=attempt.status,
        response_headers=attempt.response_headers,
        response_body=attempt.response_body,
        remote_address=attempt.remote_address,
        error_class=attempt.error_class,
        error=attempt.error,
        note=attempt.note,
    )


def kept(item: DeliveryItem) -> dict[str, object]:
    """The fields of `DeliveryKept` for `item`."""
    return {
        "id": id_text(item.id),
        "webhook": item.webhook,
        "status": item.status,
        "at": iso(item.at),
        "due_at": None if item.due_at is None else iso(item.due_at),
        "error_class": item.error_class,
        "answered": item.answered,
        "redelivery": item.redelivery,
        "call": None if item.call is None else id_text(item.call),
        "cube": item.cube,
        "event_id": item.event_id,
        "granularity": item.granularity,
        "state": item.state,
        "calling_number": item.calling_number,
        "called_number": item.called_number,
    }
