"""One run of one executor, without an engine around it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from support.clock import ManualClock
from support.patience import PATIENCE

from engine.config import Config, ShellConfig, WorktreeConfig
from engine.executors import builtin_executors
from engine.executors.base import RunContext
from engine.files import Layout
from engine.model import Claim, Outcome, ProcessId, Spending, State, TaskDef
from engine.processes.census import tree_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ALLOW = ("cat", "echo", "false", "printf", "pwd", "sh", "sleep", "true", "env", "kill")


@dataclass
class Solo:
    """Everything that a run needs of the engine, kept for the test to look at."""

    project: Path
    clock: ManualClock = field(default_factory=ManualClock)
    started: list[ProcessId] = field(default_factory=list)
    allow: tuple[str, ...] = ALLOW
    grace: float = 5.0
    env_pass: tuple[str, ...] | None = None
    max_output: int = 100_000_000
    worktrees: str | None = None
    results: dict[str, Mapping[str, Any] | None] | None = None

    @property
    def folder(self) -> Path:
        return self.project / "artifacts" / "t" / "run-1"

    def context(self, payload: Mapping[str, Any], *, attempt: int = 1) -> RunContext:
        task = TaskDef("t", "t", "a", payload=payload)
        return RunContext(
            claim=Claim("run-1", task, "a-1", attempt, State.RUNNING, MOMENT, MOMENT),
            layout=Layout(self.project / "state"),
            project=self.project,
            config=Config(
                grace=self.grace,
                shell=ShellConfig(self.allow, self.env_pass, self.max_output),
                worktrees=WorktreeConfig(self.worktrees),
            ),
            clock=self.clock,
            starting=lambda: None,
            started=self.on_start,
            progress=self.on_progress,
            results=self.on_results,
        )

    async def on_start(self, process: ProcessId) -> None:
        self.started.append(process)

    async def on_progress(self, note: str, spending: Spending | None = None) -> None:
        raise AssertionError(f"nobody told it to report progress: {note} {spending}")

    async def on_results(self) -> dict[str, Mapping[str, Any] | None]:
        assert self.results is not None, "nobody told it to ask for results"
        return self.results

    async def noop(self, attempt: int = 1, **payload: Any) -> Outcome:
        return await builtin_executors()["noop"].run(self.context(payload, attempt=attempt))

    async def shell(self, cmd: str | None = None, **payload: Any) -> Outcome:
        if cmd is not None:
            payload["cmd"] = cmd
        async with asyncio.timeout(PATIENCE):
            return await builtin_executors()["shell"].run(self.context(payload))

    def tree(self) -> set[ProcessId]:
        return tree_of("run-1", self.project / "state", self.started)


def result_of(outcome: Outcome) -> Mapping[str, Any]:
    assert outcome.result is not None
    return outcome.result


def error_of(outcome: Outcome) -> str:
    assert outcome.error is not None
    return outcome.error
