"""
The NATS client, as a webhook uses it: one connection, an acknowledgement for each message.

Not imported before a transport starts: this needs nats-py.  The library's own reconnecting is off, since it
would hold back messages and send them at a time of its own; a lost connection fails what waits on it, and the
next message makes a new one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from cubehook.net.tls import Tls
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.asyncio_broker import Flight, Parcel, Sender
from cubehook.transports.asyncio_failures import explain_asyncio
from cubehook.transports.asyncio_thread import Watch, watching
from cubehook.transports.broker_url import BrokerUrl
from cubehook.transports.brokers import BrokerError, Phase

PING_SECONDS: Final = 20
"""How often an idle connection is tried; two answers may be missing."""
PROBE_SECONDS: Final = 2.0
"""Within which a server must answer a ping, once a message was not acknowledged in time."""
END_SECONDS: Final = 0.2
"""How long the library may take to end its tasks."""
LAST_WORDS_SECONDS: Final = 0.05
"""How long the library has to tell why a connection ended."""

_TOO_LARGE: Final = (10054, 10097)
_WRONG_STREAM: Final = 10060
_HEADER_LINE = len("NATS/1.0\r\n\r\n")


class NatsSender(Sender):
    """
    Publishes to JetStream at `url`, with the user's `credentials` (a .creds file) or those of the URL.

    With `tls`, nothing of a secret nor any message is sent over a connection that does not speak TLS.
    """

    def __init__(
        self, url: BrokerUrl, *, tls: Tls | None, credentials: Path | None, expected_stream: str | None
    ) -> None:
        self._url = url
        self._tls = tls
        self._credentials = credentials
        self._expected_stream = expected_stream
        self._session: _Session | None = None
        self._opening: _Opening | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, parcel: Parcel, flight: Flight) -> str:
        session = self._session
        if session is None or not session.is_open:
            session = await self._opened(flight, parcel.timeout)
        flight.peer = session.peer
        flight.hint = f"; is there a stream that takes {parcel.place}?"
        flight.enter(Phase.CONFIRMING)
        return await session.publish(parcel, self._expected_stream)

    async def close(self) -> None:
        if self._session is not None:
            self._session.fail(_LEFT)
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    async def _opened(self, flight: Flight, seconds: float) -> _Session:
        """The connection that is being made, by this delivery or by one before it."""
        opening = self._opening
        if opening is None or opening.task.done():
            opening = self._opening = _Opening()
            opening.task = asyncio.create_task(self._open(opening, seconds))
        try:
            return await opening.wait(flight)
        finally:
            if self._opening is opening and not opening.waited_for:
                self._opening = None

    async def _open(self, opening: _Opening, seconds: float) -> _Session:
        session = _Session(self._leave)
        with watching() as watch:
            watch.connected = lambda: opening.connected(watch)
            try:
                # Whoever comes later would keep an attempt alive for ever that is not answered.
                async with asyncio.timeout(seconds):
                    await session.connect(watch, **self._settings(watch, seconds))
                if self._tls is not None:
                    _insist_on_tls(watch)
            except TimeoutError:
                session.fail(_LEFT)
                words = f"timed out after {seconds:g} s while {opening.phase}"
                raise BrokerError(ErrorClass.TIMEOUT, words) from None
            except BaseException as error:
                session.fail(_LEFT)
                if isinstance(error, BrokerError) or not isinstance(error, Exception):
                    raise
                raise _not_connected(error) from error
        self._session = session
        return session

    def _settings(self, watch: Watch, seconds: float) -> dict[str, Any]:
        settings: dict[str, Any] = {
            # User and password are handed over apart: the library shows its servers in errors.
            "servers": [f"nats://{self._url.address}"],
            "connect_timeout": seconds,
            "tls_hostname": self._url.host,
        }
        if self._tls is not None:
            try:
                settings["tls"] = self._tls.standard()
            except ValueError as error:
                raise BrokerError(ErrorClass.TLS, str(error)) from None
        if self._credentials is not None:
            jwt, seed = _read_credentials(self._credentials)
            settings["user_jwt_cb"] = lambda: bytearray(jwt)
            settings["signature_cb"] = lambda nonce: _sign(self._revealed(nonce, watch), seed)
        elif self._url.password is not None:
            settings["user"] = partial(self._revealed, self._url.user or "", watch)
            settings["password"] = partial(self._revealed, self._url.password, watch)
        elif self._url.user is not None:
            settings["token"] = partial(self._revealed, self._url.user, watch)
        return settings

    def _revealed(self, text: str, watch: Watch) -> str:
        # Whether there is TLS is told by a greeting in clear text, which anybody in between can write.
        if self._tls is not None:
            _insist_on_tls(watch)
        return text

    def _leave(self, leaving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(leaving)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


class _Opening:
    """A connection in the making, and the deliveries that wait for it."""

    task: asyncio.Task[_Session]

    def __init__(self) -> None:
        self._flights: list[Flight] = []
        self._watch: Watch | None = None

    @property
    def waited_for(self) -> bool:
        return bool(self._flights)

    @property
    def phase(self) -> Phase:
        return Phase.CONNECTING if self._watch is None else Phase.LOGGING_IN

    async def wait(self, flight: Flight) -> _Session:
        """The session; the last that waits no more, ends it."""
        self._flights.append(flight)
        if self._watch is not None:
            self._tell(flight, self._watch)
        try:
            return await asyncio.shield(self.task)
        finally:
            self._flights.remove(flight)
            if not self._flights and not self.task.done():
                self.task.cancel()

    def connected(self, watch: Watch) -> None:
        self._watch = watch
        for flight in self._flights:
            self._tell(flight, watch)

    def _tell(self, flight: Flight, watch: Watch) -> None:
        flight.peer = watch.peer
        flight.enter(Phase.LOGGING_IN)


class _Session:
    """
    One connection, from its making to its end.

    The library fails nobody who waits for an answer when the connection is lost, nor when a permission is
    missing: that is done here.  `leave` runs the coroutine that takes the connection down.
    """

    def __init__(self, leave: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self.over: BrokerError | None = None
        """Why nothing more can be sent."""
        self.peer: str | None = None
        self._leave = leave
        self._client = Client()
        self._jetstream = self._client.jetstream(timeout=PROBE_SECONDS)
        self._watch: Watch | None = None
        self._ready = False
        self._waiting: dict[asyncio.Future[BrokerError], str] = {}
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self.over is None and self._watch is not None and not self._watch.is_lost

    async def connect(self, watch: Watch, **settings: Any) -> None:
        self._watch = watch
        await self._client.connect(
            name="cubehook",
            allow_reconnect=False,
            ping_interval=PING_SECONDS,
            error_cb=self._told,
            closed_cb=self._closed,
            **settings,
        )
        # The library takes a connection that was closed in place of the last answer for a good one.
        if watch.is_lost or not self._client.is_connected:
            raise BrokerError(ErrorClass.CONNECTION_LOST, "the server closed the connection while logging in")
        self.peer = watch.peer
        self._ready = True
        # The library may know why; it is left a moment to say so, but does not always.
        watch.lost = lambda: self._soon(partial(self.fail, _LOST))

    def _soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, call)

    async def publish(self, parcel: Parcel, stream: str | None) -> str:
        """Publish, and wait for the acknowledgement; what it says, as JSON."""
        size = _size(parcel)
        if size > self._client.max_payload:
            raise BrokerError(
                ErrorClass.OTHER,
                f"the message has {size:,} bytes with its headers, and the server takes at most "
                f"{self._client.max_payload:,} (max_payload)",
                permanent=True,
            )
        publishing = asyncio.create_task(
            self._jetstream.publish(
                parcel.place,
                parcel.body,
                timeout=parcel.timeout * 2,
                stream=stream,
                headers=dict(parcel.labels),
            )
        )
        failing: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._waiting[failing] = parcel.place
        try:
            if self.over is not None:
                raise self.over
            await asyncio.wait((publishing, failing), return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise failing.result()
            ack = await publishing
        except asyncio.CancelledError:
            self._doubt()
            raise
        except nats.js.errors.NoStreamResponseError:
            raise BrokerError(ErrorClass.OTHER, await self._why_no_stream(parcel.place)) from None
        except nats.js.errors.APIError as error:
            raise _refused(error, parcel.place, stream) from None
        except nats.errors.ConnectionClosedError:
            raise self.over or _LOST from None
        except BrokerError:
            raise
        except Exception as error:
            self._doubt()
            raise _strange(error) from error
        finally:
            del self._waiting[failing]
            if not publishing.done():
                publishing.cancel()
            elif not publishing.cancelled():
                publishing.exception()  # is looked at, lest asyncio complain
        told = {"stream": ack.stream, "sequence": ack.seq} | ({"duplicate": True} if ack.duplicate else {})
        return msgspec.json.encode(told).decode()

    def fail(self, error: BrokerError) -> None:
        """Nothing more can be sent: cut the connection, and fail whatever waits.  The first reason stays."""
        if self.over is not None:
            return
        self.over = error
        for failing in self._waiting:
            if not failing.done():
                failing.set_result(error)
        if self._watch is not None:
            for transport in self._watch.transports:
                transport.abort()
        if self._probing is not None and self._probing is not asyncio.current_task():
            self._probing.cancel()
        _ = self._leave(self._end())

    async def _end(self) -> None:
        # Ends the library's tasks.  It then waits for the end of a connection that was cut already, and
        # misses it if TLS was being negotiated.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(END_SECONDS):
                await self._client.close()

    async def _told(self, error: Exception) -> None:
        """What the library calls with each error."""
        if not self._ready:
            # Raised through `connect`, which would try for minutes.
            raise error
        words = str(error).lower()
        if "permissions violation for publish" in words:
            for failing, subject in self._waiting.items():
                if f'"{subject.lower()}"' in words and not failing.done():
                    failing.set_result(
                        BrokerError(ErrorClass.OTHER, f"the user may not publish to {subject}")
                    )
        elif "permissions violation for subscription" in words:
            self.fail(
                BrokerError(
                    ErrorClass.OTHER,
                    "the user may not subscribe to _INBOX.>, where acknowledgements come: allow it",
                )
            )

    async def _closed(self) -> None:
        error = self._client.last_error
        if (
            error is None
            or explain_asyncio(error) is not None
            or isinstance(error, nats.errors.UnexpectedEOF)
        ):
            self.fail(_LOST)
        elif isinstance(error, nats.errors.StaleConnectionError):
            self.fail(BrokerError(ErrorClass.CONNECTION_LOST, "the server stopped answering"))
        else:
            words = f"the server ended the connection: {_words(error)}"
            self.fail(BrokerError(ErrorClass.CONNECTION_LOST, words))

    def _doubt(self) -> None:
        """A message was not acknowledged: see whether the server still answers at all."""
        if self._probing is None and self.over is None:
            self._probing = self._leave(self._probe())

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._client.rtt(timeout=int(PROBE_SECONDS) * 2)
        except (TimeoutError, OSError, nats.errors.Error):
            self.fail(
                BrokerError(
                    ErrorClass.CONNECTION_LOST,
                    "the connection was given up, since the server did not answer in time",
                )
            )
        finally:
            self._probing = None

    async def _why_no_stream(self, subject: str) -> str:
        """Why nobody took a message."""
        try:
            await self._jetstream.account_info()
        except (nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError):
            return "JetStream is not enabled on the server, or not for this account"
        except nats.js.errors.APIError as error:
            return f"JetStream is of no use to this account: {printable(error.description or str(error))}"
        except nats.errors.Error:
            pass  # perhaps the user may not ask
        return f"no stream takes the subject {subject}: create one, or add the subject to one"


_LEFT: Final = BrokerError(ErrorClass.CONNECTION_LOST, "cubehook left")
_LOST: Final = BrokerError(
    ErrorClass.CONNECTION_LOST, "the connection was lost before the server acknowledged the message"
)


def _insist_on_tls(watch: Watch) -> None:
    if not watch.transports or watch.transports[-1].get_extra_info("ssl_object") is None:
        raise BrokerError(ErrorClass.TLS, "the server offers no TLS, which the url (tls://) asks for")


def _size(parcel: Parcel) -> int:
    headers = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in parcel.labels.items())
    return len(parcel.body) + headers + _HEADER_LINE


def _words(error: BaseException) -> str:
    return printable(str(error).removeprefix("nats: ").strip("'"))


def _not_connected(error: Exception) -> BrokerError:
    explained = explain_asyncio(error)
    if explained is not None:
        return BrokerError(*explained)
    words = _words(error)
    if "authorization violation" in words.lower() or isinstance(error, nats.errors.AuthorizationError):
        return BrokerError(ErrorClass.OTHER, "the server refuses the user, password, token or credentials")
    if "empty response" in words:
        return BrokerError(
            ErrorClass.CONNECTION_LOST,
            "the connection was closed in place of a greeting, or what answers there is no NATS server",
        )
    if isinstance(error, nats.errors.Error):
        return BrokerError(ErrorClass.OTHER, f"the server lets nobody in: {words}")
    return _strange(error)


def _refused(error: nats.js.errors.APIError, subject: str, stream: str | None) -> BrokerError:
    if error.err_code == _WRONG_STREAM:
        return BrokerError(
            ErrorClass.OTHER, f"the stream that takes {subject} is not {stream}, which is expected"
        )
    described = printable(error.description or f"code {error.code}")
    return BrokerError(
        ErrorClass.OTHER,
        f"JetStream does not take it: {described} (error {error.err_code})",
        permanent=error.err_code in _TOO_LARGE,
    )


def _strange(error: Exception) -> BrokerError:
    explained = explain_asyncio(error)
    if explained is not None:
        return BrokerError(*explained)
    return BrokerError(
        ErrorClass.OTHER, f"what answers there does not speak NATS as it should ({type(error).__name__})"
    )


_BLOCK = re.compile(rb"-{3,}\s*BEGIN ([A-Z ]+?)\s*-{3,}\s+(\S+)\s+-{3,}\s*END \1\s*-{3,}")


def _read_credentials(path: Path) -> tuple[bytes, bytes]:
    """The JWT and the seed of a .creds file, as they are now."""
    try:
        blocks = dict(_BLOCK.findall(path.read_bytes()))
        return blocks[b"NATS USER JWT"], blocks[b"USER NKEY SEED"]
    except OSError as error:
        words = f"options.credentials_file: {path} cannot be read: {error.strerror}"
    except KeyError:
        words = f"options.credentials_file: {path} does not hold a NATS USER JWT and a USER NKEY SEED"
    raise BrokerError(ErrorClass.OTHER, words)


def _sign(nonce: str, seed: bytes) -> bytes:
    import nkeys  # type: ignore[import-untyped]

    try:
        pair = nkeys.from_seed(bytearray(seed))
    except Exception as error:
        raise BrokerError(
            ErrorClass.OTHER, f"options.credentials_file: its seed is of no use ({type(error).__name__})"
        ) from None
    signature: bytes = base64.b64encode(pair.sign(nonce.encode()))
    pair.wipe()
    return signature
