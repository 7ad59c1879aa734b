"""The sections of the settings that say what is watched, and who is told: `watch:`, `alerts:`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.config.fields import LINE, check_url, fields, headers, read_command, texts
from engine.config.settings import AlertsConfig, Mailbox, WatchConfig, Webhook
from engine.errors import ValidationError
from engine.parsing.checks import DAY, line_of_text, mapping, number, sequence
from engine.patterns import line_search

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.parsing.checks import Check, Findings, Place

_WATCH: Mapping[str, Check] = {
    "files": sequence,
    "errors": sequence,
    "ignore": sequence,
    "cooldown": number(low=0, high=DAY),
}
_ALERTS: Mapping[str, Check] = {
    "mailbox": mapping,
    "webhook": mapping,
    "command": lambda _value: None,
}
_MAILBOX: Mapping[str, Check] = {"file": LINE, "to": line_of_text(longest=100)}
_WEBHOOK: Mapping[str, Check] = {"url": LINE, "headers": mapping}


def read_watch(value: object, place: Place, findings: Findings) -> WatchConfig:
    """Read `watch:`."""
    found = fields(value, _WATCH, place, findings)
    if not isinstance(value, dict):
        return WatchConfig()
    for name in ("files", "errors", "ignore"):
        if name in found:
            found[name] = texts(found[name], (*place, name), findings)
    for name in ("errors", "ignore"):
        for pattern in found.get(name, ()):
            at = (*place, name, value[name].index(pattern))
            if not findings.has(at):
                _check_pattern(pattern, at, findings)
    return WatchConfig(**found)


def _check_pattern(pattern: str, place: Place, findings: Findings) -> None:
    try:
        search = line_search([pattern])
    except ValidationError as error:
        findings.add(place, str(error))
        return
    if search is not None and search(b"") is not None:
        findings.add(place, f"/{pattern}/ matches every line")


def read_alerts(value: object, place: Place, findings: Findings) -> AlertsConfig:
    """Read `alerts:`."""
    found = fields(value, _ALERTS, place, findings)
    if "mailbox" in found:
        at = (*place, "mailbox")
        mailbox = fields(found["mailbox"], _MAILBOX, at, findings)
        if "file" not in found.pop("mailbox"):
            findings.add(at, "has no file")
        elif "file" in mailbox:
            found["mailbox"] = Mailbox(**mailbox)
    if "webhook" in found:
        at = (*place, "webhook")
        webhook = fields(found["webhook"], _WEBHOOK, at, findings)
        if "headers" in webhook:
            webhook["headers"] = headers(webhook["headers"], (*at, "headers"), findings)
        if "url" not in found.pop("webhook"):
            findings.add(at, "has no url")
        elif "url" in webhook:
            check_url(webhook["url"], (*at, "url"), findings)
            found["webhook"] = Webhook(**webhook)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
    return AlertsConfig(**found)
