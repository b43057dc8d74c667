"""How a webhook stands, in a word and a sentence.  Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from cubehook.console.words import share


class Standing(NamedTuple):
    """How it looks, its word, what is the matter (empty if nothing is), and where it belongs in a list."""

    kind: str
    word: str
    why: str
    rank: int


def standing(webhook: Any) -> Standing:
    """How a webhook, as the API shows it, stands; what needs somebody has the lower rank."""
    if not webhook.enabled:
        return Standing("off", "Paused", "Nothing is sent. What it misses can be sent once it is resumed.", 5)
    if webhook.disabled_reason is not None:
        return Standing("bad", "Disabled", webhook.disabled_reason, 0)
    if webhook.problem:
        return Standing("bad", "Not sent to", webhook.problem, 1)
    if webhook.state in ("open", "half-open"):
        return Standing("bad", "Failing", _failing(webhook), 2)
    if webhook.state == "held":
        return Standing("warn", "Asked to wait", "Its receiver asked for a pause.", 3)
    if webhook.failures:
        return Standing("warn", "Trying again", _failing(webhook), 4)
    return Standing("good", "Working", "", 6)


def _failing(webhook: Any) -> str:
    count = webhook.failures
    attempts = "attempt" if count == 1 else f"{count:,} attempts in a row"
    return f"The last {attempts} failed."


def success(counters: Any) -> str:
    """The share of what was over that was delivered, `99.2 %`; a dash if nothing was."""
    delivered = counters.get("delivered", 0)
    return share(delivered, delivered + counters.get("failed", 0) + counters.get("expired", 0))
