"""
A webhook receiver: verifies, counts, shows what comes, and misbehaves when told to.

The path may name a behaviour, whatever the rest of it is: `/status/500`, `/stall/10`, `/drop`,
`/retry-after/5`, `/flaky/0.3`, `/gone`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall

from cubehook.delivery.signing import SignatureError, verify
from cubehook.events import Micros, iso
from cubehook.simulator.http import Request, Server, response
from cubehook.simulator.latencies import Latencies, Percentiles

METHODS = (b"POST", b"PUT", b"PATCH")


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is answered: a `share` of them so, the others with 200."""

    status: int = 200
    share: float = 1.0
    stall: float = 0.0
    """Seconds before the answer."""
    drop: bool = False
    """The connection is cut instead."""
    retry_after: int | None = None
    """Seconds of a Retry-After header."""


GOOD = Behaviour()


class Payload(msgspec.Struct):
    """What the sink looks at of a payload, `basic` or `full`."""

    call_state: str
    timestamp: str
    called_number: str | None = None
    calling_number: str | None = None
    call_id: str | None = None
    sequence: int | None = None


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what was made of it."""

    at: Micros
    path: str
    id: str
    """Its webhook-id, empty if it has none."""
    status: int | None
    """The answer; None if the connection was cut."""
    signature: str
    """`ok`, `unchecked` (no secret is known), or what is wrong with it."""
    repeat: bool
    """It was answered with success before."""
    latency: float | None
    """Seconds from the payload's timestamp, that is from the notification, to its arrival."""
    payload: Payload | None
    """None if the body is no event."""
    headers: dict[str, str]
    body: bytes

    def stored(self) -> dict[str, object]:
        """As it stands in a JSON lines file."""
        return {
            "received_at": iso(self.at),
            "path": self.path,
            "status": self.status,
            "signature": self.signature,
            "repeat": self.repeat,
            "headers": self.headers,
            "body": self.body.decode("utf-8", "replace"),
        }


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink received; `accepted` counts 2xx answers, `refused` the others and cut connections."""

    received: int
    accepted: int
    refused: int
    unique: int
    """Different ids that were accepted, counted for each path."""
    repeats: int
    """Requests whose id had been accepted before."""
    bad_signatures: int
    malformed: int
    """Bodies that are no event."""
    order_violations: int
    """Events accepted for the first time after a later one of the same call (payload `full` only)."""
    latency: Percentiles
    """From the payload's timestamp to arrival, of what was accepted for the first time."""


class _Path:
    """What was accepted at one path, that is for one webhook."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.sequences: dict[str, int] = {}


_GOOD_ANSWER = response(200)


class Sink:
    """
    Receives webhooks at one endpoint.

    With `secrets` every signature is checked against all of them, and what fails is answered 401
    as a careful receiver would.  `behaviour` is for paths that name none; it ends `first` requests
    or `seconds` after the first one, if given.  `received` is called for each request once it is answered.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], Micros],
        *,
        secrets: Sequence[bytes] = (),
        behaviour: Behaviour = GOOD,
        first: int | None = None,
        seconds: float | None = None,
        random: Random | None = None,
        received: Callable[[Received], None] | None = None,
    ) -> None:
        self.url = ""
        """Where it listens, once started."""
        self.latencies = Latencies()
        self.accepted = 0
        self._reactor = reactor
        self._now = now
        self._secrets = secrets
        self._behaviour = behaviour
        self._first = first
        self._seconds = seconds
        self._random = random or Random()  # noqa: S311 - for play
        self._tell = received
        self._server = Server(self._handle)
        self._stalled: set[IDelayedCall] = set()
        self._paths: dict[str, _Path] = {}
        self._began: Micros | None = None
        self._received = self._repeats = self._bad = self._malformed = self._violations = 0

    async def start(self, endpoint: str) -> None:
        """Listen at `endpoint`, a Twisted endpoint string; CannotListenError."""
        self.url = await self._server.listen(self._reactor, endpoint) + "/"

    async def stop(self) -> None:
        """Stop listening and cut what is open; stalled requests are never answered."""
        for stalled in self._stalled:
            stalled.cancel()
        self._stalled.clear()
        await self._server.close()

    def summary(self) -> Summary:
        """What was received so far."""
        return Summary(
            received=self._received,
            accepted=self.accepted,
            refused=self._received - self.accepted - len(self._stalled),
            unique=sum(len(path.ids) for path in self._paths.values()),
            repeats=self._repeats,
            bad_signatures=self._bad,
            malformed=self._malformed,
            order_violations=self._violations,
            latency=self.latencies.percentiles(),
        )

    def _handle(self, request: Request) -> None:
        at = self._now()
        if request.method not in METHODS:
            request.respond(response(405, before=b"Allow: POST, PUT, PATCH\r\n"))
            return
        self._received += 1
        if self._began is None:
            self._began = at
        path = request.target.decode("latin-1")
        signature = self._check(request, at)
        behaviour = _named(path) or self._default(at)
        if behaviour.share < 1 and self._random.random() >= behaviour.share:
            behaviour = GOOD
        if signature not in ("ok", "unchecked"):
            self._bad += 1
            behaviour = Behaviour(status=401)
        if behaviour.stall:
            self._stall(request, path, at, signature, behaviour)
        else:
            self._answer(request, path, at, signature, behaviour)

    def _default(self, at: Micros) -> Behaviour:
        if self._first is not None and self._received > self._first:
            return GOOD
        if self._seconds is not None and self._began is not None and at - self._began >= self._seconds * 1e6:
            return GOOD
        return self._behaviour

    def _check(self, request: Request, at: Micros) -> str:
        if not self._secrets:
            return "unchecked"
        fields = request.fields
        try:
            verify(
                self._secrets,
                fields[b"webhook-id"].decode("latin-1"),
                fields[b"webhook-timestamp"].decode("latin-1"),
                fields[b"webhook-signature"].decode("latin-1"),
                request.body,
                at / 1e6,
            )
        except KeyError as missing:
            return f"the header {missing.args[0].decode()} is missing"
        except SignatureError as error:
            return str(error)
        return "ok"

    def _stall(self, request: Request, path: str, at: Micros, signature: str, behaviour: Behaviour) -> None:
        def answer() -> None:
            self._stalled.remove(stalled)
            self._answer(request, path, at, signature, behaviour)

        stalled = self._reactor.callLater(behaviour.stall, answer)
        self._stalled.add(stalled)

    def _answer(self, request: Request, path: str, at: Micros, signature: str, behaviour: Behaviour) -> None:
        status: int | None = behaviour.status
        if behaviour.drop:
            status = None
            request.drop()
        elif behaviour == GOOD:
            request.respond(_GOOD_ANSWER)
        else:
            before = b"" if behaviour.retry_after is None else b"Retry-After: %d\r\n" % behaviour.retry_after
            request.respond(response(behaviour.status, before=before))
        self._count(request, path, at, signature, status)

    def _count(self, request: Request, path: str, at: Micros, signature: str, status: int | None) -> None:
        payload: Payload | None = None
        latency: float | None = None
        try:
            payload = _decode(request.body)
            latency = at / 1e6 - datetime.fromisoformat(payload.timestamp).timestamp()
        except (msgspec.DecodeError, ValueError):
            self._malformed += 1
        known = self._paths.get(path)
        if known is None:
            known = self._paths[path] = _Path()
        identifier = request.fields.get(b"webhook-id", b"").decode("latin-1")
        repeat = identifier in known.ids
        if repeat:
            self._repeats += 1
        if status is not None and 200 <= status < 300:
            self.accepted += 1
            if not repeat:
                if identifier:
                    known.ids.add(identifier)
                if latency is not None:
                    self.latencies.add(latency)
                if payload is not None and payload.call_id is not None and payload.sequence is not None:
                    latest = known.sequences.get(payload.call_id, 0)
                    if payload.sequence > latest:
                        known.sequences[payload.call_id] = payload.sequence
                    else:
                        self._violations += 1
        if self._tell is not None:
            self._tell(
                Received(
                    at=at,
                    path=path,
                    id=identifier,
                    status=status,
                    signature=signature,
                    repeat=repeat,
                    latency=latency,
                    payload=payload,
                    headers={
                        name.decode("latin-1"): value.decode("latin-1")
                        for name, value in request.fields.items()
                    },
                    body=request.body,
                )
            )


_decode = msgspec.json.Decoder(Payload).decode


@lru_cache(maxsize=1000)
def _named(path: str) -> Behaviour | None:
    """The behaviour that a path names, if it does."""
    parts = [part for part in path.partition("?")[0].split("/") if part]
    for name, value in zip(parts, [*parts[1:], ""], strict=False):
        try:
            match name:
                case "drop":
                    return Behaviour(drop=True)
                case "gone":
                    return Behaviour(status=410)
                case "status" if 200 <= int(value) <= 599:
                    return Behaviour(status=int(value))
                case "stall" if 0 <= float(value) <= 86400:
                    return Behaviour(stall=float(value))
                case "retry-after" if int(value) >= 0:
                    return Behaviour(status=503, retry_after=int(value))
                case "flaky" if 0 <= float(value) <= 1:
                    return Behaviour(status=503, share=float(value))
        except ValueError:
            continue
    return None
