"""One attempt with a sample event, so that settings can be tried before they are used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from cubehook.config import ALL_STATES, Webhook
from cubehook.delivery.answers import malformed
from cubehook.delivery.payload import Renderer, RenderError
from cubehook.events import CallEvent, CallState, Event, Micros, iso
from cubehook.ids import id_text
from cubehook.interfaces import ITransport, Outbound, Sent
from cubehook.records import Attempt, ErrorClass
from cubehook.times import parse_time

_MARGIN = 2.0
"""Seconds past its own timeout after which a transport is cancelled."""

_STOP_SECONDS = 5.0
_TIMES = ("alerting_at", "connected_at", "disconnected_at")


def sample(webhook: Webhook, state: CallState, id: int, at: Micros) -> Event:
    """An event of an answered call in `state`, as if it happened at `at`."""
    from cubehook.delivery.samples import samples

    wanted = msgspec.structs.replace(webhook, states=ALL_STATES)
    found = next(
        each.event
        for each in samples(wanted)
        if isinstance(each.event.payload, CallEvent) and each.event.payload.call_state is state
    )
    payload: Any = found.payload
    later = at - found.at
    times = {
        name: iso(parse_time(time) + later) for name in _TIMES if (time := getattr(payload, name)) is not None
    }
    cube = webhook.cubes[0] if webhook.cubes else payload.cube
    payload = msgspec.structs.replace(
        payload, timestamp=iso(at), event_id=id_text(id), call_id=id_text(id), cube=cube, **times
    )
    return msgspec.structs.replace(found, id=id, call=id, cube=cube, at=at, payload=payload)


async def try_out(
    webhook: Webhook,
    transport: ITransport,
    event: Event,
    seconds: float,
    now: Callable[[], Micros],
    reactor: IReactorTime,
) -> Attempt:
    """
    Send `event` to `webhook` once, through `transport`, which is started and stopped for it.

    Whatever goes wrong is told in the attempt.  It takes `seconds` and a little at most.
    """
    started_at = now()
    body = b""
    try:
        body, content_type = Renderer().of(webhook).render(event)
    except (RenderError, ValueError) as error:
        sent = _failed(str(error))
    else:
        outbound = Outbound(
            id=event.payload.event_id,
            event=event,
            body=body,
            content_type=content_type,
            attempt=1,
            at=started_at,
            timeout=seconds,
        )
        sent = await _sent(transport, outbound, reactor)
    return Attempt(
        id=event.id,
        delivery=event.id,
        number=1,
        started_at=started_at,
        duration=max(0, now() - started_at),
        delivered=sent.delivered,
        phases=sent.phases,
        method=sent.method,
        url=sent.url,
        request_headers=sent.request_headers,
        request_body=body.decode("utf-8", "replace"),
        status=sent.status,
        response_headers=sent.response_headers,
        response_body=sent.response_body,
        remote_address=sent.remote_address,
        error_class=sent.error_class,
        error=sent.error,
        note=sent.note,
    )


async def _sent(transport: ITransport, outbound: Outbound, reactor: IReactorTime) -> Sent:
    try:
        exchange = Deferred.fromCoroutine(_exchange(transport, outbound))
        sent = await exchange.addTimeout(outbound.timeout + _MARGIN, reactor)
        problem = malformed(sent)
        return sent if problem is None else _failed(f"the transport has a bug: {problem}")
    except TimeoutError:
        return Sent(
            delivered=False,
            error_class=ErrorClass.TIMEOUT,
            error=f"the transport did not end within {outbound.timeout:g} s and was cancelled",
        )
    except CancelledError:
        raise
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error}")
    finally:
        # How it stops is of no concern to who tries it.
        with suppress(Exception):
            await Deferred.fromCoroutine(transport.stop()).addTimeout(_STOP_SECONDS, reactor)


async def _exchange(transport: ITransport, outbound: Outbound) -> Sent:
    try:
        await transport.start()
    except CancelledError:
        raise
    except Exception as error:
        return _failed(f"its transport did not start: {error}")
    sent: Sent = await transport.deliver(outbound)
    return sent


def _failed(words: str) -> Sent:
    return Sent(delivered=False, error_class=ErrorClass.OTHER, error=words)
