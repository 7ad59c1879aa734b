"""The shapes that answers have as JSON, on the command line (`--json`) and over HTTP. Pure.

What is not here has the shape that `to_json` gives it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.model import camel, to_json
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.commands import Receipt
    from engine.model import Event
    from engine.views import AlertRow, TaskDetail, WorkerRow


def as_json(value: Any) -> str:
    """Write JSON in ASCII: every control and bidi character is an escape, so it is clean.

    And so is half of a surrogate pair, which a payload may hold and UTF-8 cannot.
    """
    return json.dumps(value).replace("\x7f", "\\u007f")


def event_json(event: Event) -> dict[str, Any]:
    """Return an event in the shape of a line of events.jsonl."""
    value: dict[str, Any] = to_json(event)
    data: dict[str, Any] = value.pop("data")
    return {key: item for key, item in value.items() if item is not None} | data


def detail_json(detail: TaskDetail, branches: Mapping[str, str]) -> dict[str, Any]:
    """Return all about a task; its events in the shape of events.jsonl, its runs with `branch`."""
    value: dict[str, Any] = to_json(detail)
    for run in value["runs"]:
        run["branch"] = branches.get(run["id"])
    value["events"] = [event_json(event) for event in detail.events]
    return value


def alert_json(alert: AlertRow, text: str) -> dict[str, Any]:
    """Return an alert, and in `text` all that it tells (see Engine.alert_text)."""
    return {**to_json(alert), "text": text or clean_text(alert.summary)}


def worker_json(worker: WorkerRow, now: datetime, stale_after: float) -> dict[str, Any]:
    """Return a worker, and in `activity` what it does."""
    return {**to_json(worker), "activity": worker_status(worker, now, stale_after)}


def worker_status(worker: WorkerRow, now: datetime, stale_after: float) -> str:
    """Say in one word what a worker does: working, idle, stopping, stale, gone or how it ended.

    `gone` is a worker that the store believes live though its process is not.
    """
    if not worker.alive:
        return "gone" if worker.status in {"live", "stopping"} else worker.status.value
    if (now - worker.beat_at).total_seconds() > stale_after:
        return "stale"
    if worker.status == "stopping":
        return "stopping"
    return "working" if worker.task_id is not None else "idle"


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt; the words of its counts are keys."""
    counts = {camel(word.replace(" ", "_")): n for word, n in receipt.counts.items()}
    return {**to_json(receipt), "counts": counts}
