"""Changes that people made, in words.  Pure."""

from __future__ import annotations

from typing import Any

_VERBS = {
    "create_cube": "added cube",
    "change_cube": "changed cube",
    "delete_cube": "removed cube",
    "register_cube": "registered again with cube",
    "create_webhook": "added webhook",
    "change_webhook": "changed webhook",
    "delete_webhook": "removed webhook",
    "test_webhook": "sent a test to webhook",
    "test_settings": "tried settings of a webhook",
    "rotate_secret": "made a new secret for webhook",
    "enable_webhook": "enabled webhook",
    "redeliver_range": "sent again deliveries of webhook",
    "redeliver_one": "sent again delivery",
    "cancel_job": "cancelled job",
    "create_token": "added token",
    "delete_token": "removed token",
    "trace_cube": "traced cube",
    "reload": "reloaded the configuration",
    "provision": "was read at a start from",
    "sign_in": "signed in",
    "sign_out": "signed out",
}
_ALONE = frozenset(("sign_in", "sign_out", "test_settings"))


def change_told(change: Any) -> str:
    """What was done to what: `changed cube hq (description)`."""
    verb = _VERBS.get(change.action, change.action.replace("_", " "))
    # An id says nothing to people where there is a name.
    subject = change.detail.get("name") if change.action == "create_token" else None
    subject = str(subject or change.subject)
    told = verb if change.action in _ALONE or not subject else f"{verb} {subject}"
    if change.action.startswith("change_") and change.detail:
        told += f" ({', '.join(sorted(change.detail))})"
    if change.action in ("reload", "provision"):
        told += f" ({'; '.join(_reloaded(change.detail))})"
    return told


def _reloaded(detail: dict[str, Any]) -> list[str]:
    told = [
        f"{kind} {what}: {', '.join(ids)}"
        for kind in ("cubes", "webhooks")
        for what, ids in detail.get(kind, {}).items()
    ]
    return [*told, *([", ".join(detail["settings"])] if detail.get("settings") else [])]
