"""
Ready-made payloads: what chats and simple CRMs expect.

What comes from outside is shown as it is and can do nothing in the chat: mention nobody, link nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cubehook.delivery.readable import number, sentence
from cubehook.events import CallEvent, CallState, Notice, NoticeType, Outcome
from cubehook.text import printable

_LOUD = (NoticeType.CUBE_LOST, NoticeType.WEBHOOK_FAILING, NoticeType.WEBHOOK_DISABLED)


def slack(told: CallEvent | Notice) -> dict[str, Any]:
    """
    A message for an incoming webhook of Slack.

    Formatting is off, for an asterisk in a number is not meant to be bold.
    """
    return {"text": escape_slack(sentence(told)), "mrkdwn": False}


def escape_slack(text: str) -> str:
    """`text` with what Slack takes for mentions, links and entities escaped: these three, as it asks for."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams(told: CallEvent | Notice) -> dict[str, Any]:
    """
    A message with an Adaptive Card, as the Workflows app of Teams takes it.

    All text is in TextRuns: a TextBlock would read it as Markdown, links included.
    """
    color = "Attention" if _is_bad(told) else "Default"
    headline = {"type": "TextRun", "text": sentence(told), "weight": "Bolder", "color": color}
    body: list[dict[str, Any]] = [{"type": "RichTextBlock", "inlines": [headline]}]
    for name, value in _facts(told):
        body.append(
            {
                "type": "RichTextBlock",
                "spacing": "Small",
                "inlines": [
                    {"type": "TextRun", "text": f"{name}: ", "isSubtle": True},
                    {"type": "TextRun", "text": printable(value)},
                ],
            }
        )
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": body,
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def form(told: CallEvent | Notice) -> dict[str, Any]:
    """Everything in `full` that is not nested; of a notice, what is in its `data` beside the rest."""
    if isinstance(told, Notice):
        about = {"type": told.type.value, "timestamp": told.timestamp, "event_id": told.event_id}
        return {**told.data, **about}
    return {name: getattr(told, name) for name in told.__struct_fields__ if name != "connections"}


PRESETS: Final[dict[str, Callable[[CallEvent | Notice], dict[str, Any]]]] = {
    "slack": slack,
    "teams": teams,
    "form": form,
}


def _is_bad(told: CallEvent | Notice) -> bool:
    if isinstance(told, Notice):
        return told.type in _LOUD
    return told.outcome in (Outcome.MISSED, Outcome.ABANDONED, Outcome.FAILED)


def _facts(told: CallEvent | Notice) -> list[tuple[str, str]]:
    if isinstance(told, Notice):
        return [("Time", _time(told.timestamp))]
    facts = [
        ("From", "withheld" if told.calling_withheld else _number(told.calling_number)),
        ("To", _number(told.called_number)),
        ("Cube", told.cube),
        ("Time", _time(told.timestamp)),
    ]
    if told.call_state is CallState.DISCONNECTED and told.disconnect_text is not None:
        facts.append(("Cause", told.disconnect_text))
    return facts


def _time(text: str) -> str:
    return f"{text[:10]} {text[11:19]} UTC"


def _number(text: str | None) -> str:
    return "unknown" if text is None else number(text)
