"""A call told in order: its legs, and a timeline of what came in, what it became, and who was told.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import msgspec

from cubehook.calls.causes import cause_text
from cubehook.console.exchange import status_told
from cubehook.console.figures import Stretch, stretches
from cubehook.console.pretty import pretty_json, pretty_xml
from cubehook.console.telling import cause_told, told
from cubehook.console.words import as_time, duration, plural
from cubehook.events import Micros

MESSAGES = {
    "created": "begins",
    "callDelivery": "is being set up",
    "alerting": "rings",
    "redirected": "is redirected",
    "connected": "is answered",
    "transferred": "is transferred",
    "disconnected": "ends",
    "handoffLeave": "leaves for another call",
    "handoffJoin": "joins from another call",
    "mediaForking": "has its media forked",
}
"""What a notification's event element says of its leg."""

STATES = {
    "ALERTING": "The call rings",
    "CONNECTED": "The call is answered",
    "DISCONNECTED": "The call is over",
}
"""What an event says."""

DIRECTIONS = {"INCOMING": "Caller", "OUTGOING": "Called"}
"""Which side a leg is, as the gateway sees it."""

_CONNECTION = re.compile(r"<(?:[\w.-]+:)?connID\s*>\s*([^<\s]{1,60})\s*<")
_CAUSE = re.compile(r"<(?:[\w.-]+:)?discCause\s*>\s*([0-9]{1,3})\s*<")


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """A leg: its letter, which side it is, and what it was doing over the time of the call."""

    name: str
    side: str
    connection: Any
    stretches: list[Stretch]
    end: str | None
    """Why it ended, if the gateway told."""
    media: list[str]
    """How its media went, as far as the gateway told."""
    going: bool
    words: str
    """The same as the line shows, for who cannot see it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: `kind` is `told` by the gateway, `event`, or `attempt`."""

    kind: str
    at: Micros
    after: float
    """Seconds since the call began."""
    title: str
    look: str
    """`good` or `bad` of an attempt."""
    about: str | None = None
    body: str | None = None
    what: Any = None
    """The event, or the attempt."""
    delivery: Any = None
    why: str | None = None
    """What went wrong with the attempt, if its look does not say that already."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `sentence` says how the call went."""

    sentence: str
    legs: list[Leg]
    entries: list[Entry]
    left_out: str | None
    """What is not in it, in words."""


def story(call: Any, names: Mapping[str, str], now: Micros) -> Story:
    """The story of a call as the API tells of it; `names` are those of the webhooks."""
    begin = micros(call.started_at)
    letters = _letters(call.connections)
    entries = [
        *(_told(each, begin, letters) for each in call.notifications),
        *(_event(each, begin) for each in call.events),
        *(
            _attempt(delivery, attempt, begin, names)
            for delivery in call.deliveries
            for attempt in delivery.attempts
        ),
    ]
    # What comes of something comes after it, also in the same microsecond.
    order = {"told": 0, "event": 1, "attempt": 2}
    entries.sort(key=lambda entry: (entry.at, order[entry.kind]))
    return Story(
        sentence=told(
            call.outcome,
            state=call.state,
            ring_seconds=call.ring_seconds,
            talk_seconds=call.talk_seconds,
            cause=call.disconnect_cause,
            inferred=call.inferred,
        ),
        legs=_legs(call, letters, begin, now),
        entries=entries,
        left_out=_left_out(call.left_out),
    )


def micros(at: str | Micros) -> Micros:
    """A time as the API shows it."""
    if isinstance(at, int):
        return at
    when = as_time(at)
    return int(when.timestamp()) * 1_000_000 + when.microsecond


def _maybe(at: str | None) -> Micros | None:
    return None if at is None else micros(at)


def _letters(connections: Sequence[Any]) -> dict[str, str]:
    """A letter for each leg; a number for those beyond the alphabet."""
    return {
        leg.connection_id: ascii_uppercase[number] if number < len(ascii_uppercase) else str(number + 1)
        for number, leg in enumerate(connections)
    }


def _legs(call: Any, letters: Mapping[str, str], begin: Micros, now: Micros) -> list[Leg]:
    times = [
        _maybe(at)
        for leg in call.connections
        for at in (leg.alerting_at, leg.connected_at, leg.disconnected_at)
    ]
    ended = _maybe(call.disconnected_at)
    end = max([begin + 1, now if ended is None else ended, *(at for at in times if at is not None)])
    return [_leg(leg, letters[leg.connection_id], begin, end) for leg in call.connections]


def _leg(leg: Any, name: str, begin: Micros, end: Micros) -> Leg:
    found = stretches(
        [
            ("ringing", _maybe(leg.alerting_at)),
            ("talking", _maybe(leg.connected_at)),
            ("", _maybe(leg.disconnected_at)),
        ],
        begin,
        end,
    )
    words = ", ".join(
        f"{'rang' if each.state == 'ringing' else 'talked'} {duration(each.seconds)}" for each in found
    )
    cause = leg.disconnect_cause
    return Leg(
        name=name,
        side=DIRECTIONS.get(leg.direction or "", "Unknown side"),
        connection=leg,
        stretches=found,
        end=None if cause is None else (cause_text(cause) or cause_told(cause)),
        media=_media(leg.media),
        going=leg.disconnected_at is None and leg.state != "LEFT",
        words=words or "neither rang nor talked",
    )


def _media(media: Any) -> list[str]:
    if media is None:
        return []
    known = (
        (media.packets_lost, "lost", "packet"),
        (media.packets_received, "received", "packet"),
        (media.packets_sent, "sent", "packet"),
    )
    words = [f"{verb} {plural(count, what)}" for count, verb, what in known if count is not None]
    if media.round_trip_ms is not None:
        words.append(f"round trip {media.round_trip_ms:,} ms")
    return words


def _told(notification: Any, begin: Micros, letters: Mapping[str, str]) -> Entry:
    at = micros(notification.at)
    body = notification.body or ""
    connection = _CONNECTION.search(body)
    leg = letters.get(connection[1]) if connection else None
    who = f"Leg {leg}" if leg else "A leg"
    title = (
        f"{who} {MESSAGES[notification.message]}"
        if notification.message in MESSAGES
        else (f"{who}: {notification.message}")
    )
    cause = _CAUSE.search(body) if notification.message == "disconnected" else None
    return Entry(
        kind="told",
        at=at,
        after=(at - begin) / 1e6,
        title=title,
        look="",
        about=cause_told(int(cause[1])) if cause else None,
        body=pretty_xml(body) if body else None,
        what=notification,
    )


def _event(event: Any, begin: Micros) -> Entry:
    at = micros(event.at)
    return Entry(
        kind="event",
        at=at,
        after=(at - begin) / 1e6,
        title=_event_title(event),
        look="",
        body=pretty_json(msgspec.json.encode(event.payload).decode()),
        what=event,
    )


def _event_title(event: Any) -> str:
    words = STATES.get(event.state) or str(event.state)
    return words.replace("The call", "One leg", 1) if event.granularity == "connection" else words


def _attempt(delivery: Any, attempt: Any, begin: Micros, names: Mapping[str, str]) -> Entry:
    at = micros(attempt.started_at)
    name = names.get(delivery.webhook, delivery.webhook)
    status = None if attempt.status is None else status_told(attempt.status)
    if attempt.delivered:
        about = "took it"
    elif attempt.status is not None:
        about = "refused it"
    else:
        about = "could not be told"
    return Entry(
        kind="attempt",
        at=at,
        after=(at - begin) / 1e6,
        title=f"{name} {about}",
        look="good" if attempt.delivered else "bad",
        about=status,
        what=attempt,
        delivery=delivery,
        why=None if attempt.error == f"answered {status}" else attempt.error,
    )


def _left_out(left_out: Any) -> str | None:
    """How much was too much to be given."""
    counts = (
        (left_out.notifications, "notification"),
        (left_out.bodies, "body of a notification"),
        (left_out.events, "event"),
        (left_out.deliveries, "delivery"),
        (left_out.attempts, "attempt"),
    )
    plurals = {"delivery": "deliveries", "body of a notification": "bodies of notifications"}
    told = [plural(count, one, plurals.get(one)) for count, one in counts if count]
    return ", ".join(told) or None
