"""
Signatures by the Standard Webhooks specification: HMAC-SHA256 over `id.timestamp.body`.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
Pure: time and randomness are handed in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
"""What the text form of a secret begins with."""

SHORTEST_SECRET = 24
LONGEST_SECRET = 64
NEW_SECRET_BYTES = 32

TOLERANCE_SECONDS = 300
"""How far a timestamp may be from the verifier's clock, either way."""

_VERSION = "v1,"


class SignatureError(ValueError):
    """A message is not what its sender signed, or is too old; the text says which, for a log."""


def new_secret(random: bytes) -> str:
    """
    The text form of a new secret made of `random`: `whsec_` and its base64.

    `random` comes from a cryptographic source, `NEW_SECRET_BYTES` of it by habit;
    ValueError unless it is 24 to 64 bytes long.
    """
    _check_length(random)
    return PREFIX + base64.b64encode(random).decode("ascii")


def decode_secret(text: str) -> bytes:
    """
    The key that `text` (`whsec_` and base64, padded or not) stands for.

    ValueError says what is wrong and never repeats any of `text`.
    """
    if not text.startswith(PREFIX):
        raise ValueError(f"a signing secret starts with {PREFIX}")
    encoded = text[len(PREFIX) :].rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"what follows {PREFIX} in a signing secret is base64 (A-Z a-z 0-9 + /) without spaces"
        ) from None
    _check_length(key)
    return key


def _check_length(key: bytes) -> None:
    if not SHORTEST_SECRET <= len(key) <= LONGEST_SECRET:
        raise ValueError(
            f"a signing secret has {SHORTEST_SECRET} to {LONGEST_SECRET} bytes before base64, not {len(key)}"
        )


def sign(secrets: Sequence[bytes], id: str, timestamp_seconds: int, body: bytes) -> str:
    """
    The value of `webhook-signature`: one `v1,BASE64` for each of `secrets`, space-separated.

    `id` and `timestamp_seconds` (since the epoch) are those sent as `webhook-id` and
    `webhook-timestamp`.  Several secrets are for a rotation: a receiver accepts the
    message if it knows any of them.
    """
    content = b"%b.%d.%b" % (id.encode(), timestamp_seconds, body)
    if len(secrets) == 1:
        return _VERSION + _digest(secrets[0], content)
    return " ".join([_VERSION + _digest(secret, content) for secret in secrets])


def _digest(secret: bytes, content: bytes) -> str:
    return binascii.b2a_base64(hmac.digest(secret, content, "sha256"), newline=False).decode("ascii")


def verify(
    secrets: Sequence[bytes],
    id: str,
    timestamp: str,
    signature: str,
    body: bytes,
    now_seconds: float,
    tolerance: float = TOLERANCE_SECONDS,
) -> None:
    """
    Check a received message against any of `secrets`; SignatureError if it must not be believed.

    `id`, `timestamp` and `signature` are the values of the `webhook-` headers as received.
    Signatures of other versions than `v1` are skipped, as the specification asks.  The
    comparison takes the same time wherever two signatures differ.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        raise SignatureError("webhook-timestamp is not a whole number of seconds")
    age = now_seconds - int(timestamp)
    if age > tolerance:
        raise SignatureError(f"webhook-timestamp is {age:.0f} s old; at most {tolerance:g} s are accepted")
    if -age > tolerance:
        raise SignatureError(
            f"webhook-timestamp is {-age:.0f} s in the future; at most {tolerance:g} s are accepted"
        )
    # The timestamp is signed as it was sent, leading zeros and all.
    content = b"%b.%b.%b" % (id.encode("utf-8", "surrogateescape"), timestamp.encode(), body)
    expected = [_digest(secret, content).encode() for secret in secrets]
    matches = False
    for candidate in signature.split(" "):
        if candidate.startswith(_VERSION):
            received = candidate[len(_VERSION) :].encode("utf-8", "surrogateescape")
            for each in expected:
                matches |= hmac.compare_digest(each, received)
    if not matches:
        raise SignatureError("no signature matches: another secret, or the message was changed on its way")
