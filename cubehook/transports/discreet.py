"""
A transport that tells no secret of its webhook, whatever the one within does.

Transports are written by many, and an error of a library may quote the URL, the password or the header
that it could not use; what a receiver answers may repeat them.  Both are logged and kept.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, Outbound, Sent
from cubehook.net.urls import MASK, secrets_in

SHORTEST = 6
"""Characters; what is shorter would be found in texts where it means nothing."""

# Of options: names of files say nothing, and a routing key is none.
_SECRET_OPTION = re.compile(r"(?!.*_file$).*(pass|secret|token|pwd|cred|auth|api_?key)", re.IGNORECASE)
_PUBLIC_HEADERS = frozenset(("content-type", "user-agent", "accept"))


def is_secret_option(name: str) -> bool:
    """Whether a transport's option of this name holds a secret, by the sound of it."""
    return _SECRET_OPTION.match(name) is not None


class MaskedError(Exception):
    """Stands for an exception of a transport whose text held a secret; its own text does not."""


class Mask:
    """Takes the secrets of a webhook out of any text."""

    def __init__(self, webhook: Webhook, secrets: Sequence[str]) -> None:
        words = {word for word in _hidden(webhook, secrets) if len(word) >= SHORTEST}
        # Of two that begin alike the longer one is tried first.
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        self._words = re.compile("|".join(map(re.escape, longest_first))) if words else None

    def text(self, text: str) -> str:
        """`text` with `***` for each secret in it."""
        return text if self._words is None else self._words.sub(MASK, text)

    def error(self, error: Exception) -> Exception:
        """`error`, or what stands for it if its text holds a secret; a ValueError stays one."""
        told = str(error)
        masked = self.text(told)
        if masked == told:
            return error
        if isinstance(error, ValueError):
            return ValueError(masked)
        return MaskedError(f"{type(error).__name__}: {masked}").with_traceback(error.__traceback__)

    def sent(self, sent: Sent) -> Sent:
        """`sent` as it may be kept."""
        words = self._words
        if words is None:
            return sent
        changed: dict[str, object] = {
            name: words.sub(MASK, text)
            for name in ("error", "url", "response_body", "note")
            if (text := getattr(sent, name)) is not None and words.search(text)
        }
        for name in ("request_headers", "response_headers"):
            headers = getattr(sent, name)
            if any(map(words.search, headers.values())):
                changed[name] = {header: words.sub(MASK, text) for header, text in headers.items()}
        return msgspec.structs.replace(sent, **changed) if changed else sent


@implementer(ITransport)
class Discreet:
    """`transport`, with `mask` put on all that it returns and raises."""

    def __init__(self, transport: ITransport, mask: Mask) -> None:
        self._transport = transport
        self._mask = mask

    async def start(self) -> None:
        try:
            await self._transport.start()
        except Exception as error:
            masked = self._mask.error(error)
            if masked is error:
                raise
            raise masked from None

    async def deliver(self, outbound: Outbound) -> Sent:
        try:
            sent: Any = await self._transport.deliver(outbound)
        except Exception as error:
            masked = self._mask.error(error)
            if masked is error:
                raise
            raise masked from None
        return self._mask.sent(sent) if isinstance(sent, Sent) else sent

    async def stop(self) -> None:
        try:
            await self._transport.stop()
        except Exception as error:
            masked = self._mask.error(error)
            if masked is error:
                raise
            raise masked from None


def _hidden(webhook: Webhook, secrets: Sequence[str]) -> Iterator[str]:
    for secret in secrets:
        yield secret
        yield secret.removeprefix("whsec_").rstrip("=")
    for name, value in webhook.headers.items():
        if name.lower() not in _PUBLIC_HEADERS:
            yield from _of_header(value)
    yield from _of_url(webhook.url)
    yield from _of_options(webhook.options.items())


def _of_header(value: str) -> Iterator[str]:
    yield value
    # A scheme and what belongs to it (RFC 9110, section 11.4).
    scheme, _, credentials = value.partition(" ")
    if credentials:
        yield credentials.strip()
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return


def _of_options(options: Iterable[tuple[str, object]]) -> Iterator[str]:
    for name, value in options:
        match value:
            case str():
                if is_secret_option(name) and "://" not in value:
                    yield value
                yield from _of_url(value)
            case dict():
                yield from _of_options(value.items())
            case list() | tuple():
                yield from _of_options((name, each) for each in value)


def _of_url(url: str) -> Iterator[str]:
    for secret in secrets_in(url):
        yield secret
        yield unquote(secret)
