"""Rows for the screens of runs, workers and needs: told in few words, whole otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from support.lists import NOW

from engine.model import RunOutcome
from engine.views import AttentionRow, Need, ProcessRow, RunRow

if TYPE_CHECKING:
    from datetime import datetime


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def run(id: str, task_id: str, seconds: float, **more: Any) -> RunRow:  # noqa: A002 - as in the row
    """Return a run that was claimed so long ago; it goes on unless `more` tells how it ended."""
    facts: dict[str, Any] = {
        "agent": "codex",
        "worker_id": "codex-1",
        "attempt": 1,
        "outcome": None,
        "started_at": ago(seconds),
        "ended_at": None,
        "exit_code": None,
        "error": None,
        "result": None,
    }
    return RunRow(id=id, task_id=task_id, claimed_at=ago(seconds), **(facts | more))


def ended_run(
    id: str,  # noqa: A002 - as in the row
    task_id: str,
    seconds: float,
    took: float,
    outcome: RunOutcome = RunOutcome.DONE,
    **more: Any,
) -> RunRow:
    """Return a run that was claimed `seconds` ago and took so long."""
    facts: dict[str, Any] = {
        "outcome": outcome,
        "ended_at": ago(seconds - took),
        "exit_code": 0 if outcome is RunOutcome.DONE else None,
    }
    return run(id, task_id, seconds, **(facts | more))


def process(pid: int, depth: int, command: str, **more: Any) -> ProcessRow:
    facts: dict[str, Any] = {"cpu": 12.0, "memory": 88 << 20, "started_at": ago(44)}
    return ProcessRow(pid=pid, depth=depth, command=command, **(facts | more))


def need(
    key: str, kind: Need, subject: str, seconds: float, words: str, **more: Any
) -> AttentionRow:
    return AttentionRow(key, kind, subject, ago(seconds), words, **more)
