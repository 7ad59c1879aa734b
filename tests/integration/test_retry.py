"""Retry: what is over begins anew, with a fresh count of attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.stores import a_dag, a_task, check_store, select

from engine.errors import IllegalTransition, TaskNotFound
from engine.model import Outcome, ProcessId, RunOutcome, State

if TYPE_CHECKING:
    from support.stores import Opened

HOST = ProcessId(4_000_000, "never")


async def _ended(it: Opened, kind: RunOutcome) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    claim = await it.store.claim("codex", "codex-1", HOST)
    assert claim is not None
    await it.store.finish(claim, Outcome(kind, error="it broke"))


def _rows(it: Opened) -> list[tuple[object, ...]]:
    found = select(it.layout, "SELECT state, reasons, attempts, pending FROM tasks ORDER BY id")
    return [tuple(row.values()) for row in found]


@pytest.mark.parametrize("kind", [RunOutcome.FAILED, RunOutcome.BLOCKED])
async def test_a_failed_or_blocked_task_is_ready_again_and_so_is_what_it_blocked(
    it: Opened, kind: RunOutcome
) -> None:
    await _ended(it, kind)
    assert await it.store.retry("a") is State.READY
    assert _rows(it) == [("READY", "[]", 0, 0), ("READY", "[]", 0, 1)]
    assert await it.store.claim("codex", "codex-1", HOST) is not None
    check_store(it.layout)


async def test_what_waited_for_a_done_task_waits_again_once_that_is_retried(it: Opened) -> None:
    await _ended(it, RunOutcome.DONE)
    assert await it.store.retry("a") is State.READY
    assert _rows(it) == [("READY", "[]", 0, 0), ("READY", "[]", 0, 1)]
    check_store(it.layout)


async def test_a_dry_run_of_a_retry_changes_nothing(it: Opened) -> None:
    await _ended(it, RunOutcome.FAILED)
    before = _rows(it)
    assert await it.store.retry("a", dry_run=True) is State.READY
    assert _rows(it) == before


async def test_what_runs_waits_or_is_unknown_cannot_be_retried(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    with pytest.raises(IllegalTransition, match="READY"):
        await it.store.retry("b")
    await it.store.claim("codex", "codex-1", HOST)
    with pytest.raises(IllegalTransition, match="RUNNING"):
        await it.store.retry("a")
    with pytest.raises(TaskNotFound):
        await it.store.retry("nobody")
    check_store(it.layout)
