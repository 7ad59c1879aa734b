"""What the store must do, once more in plain Python: dicts, and everything derived from scratch.

It shares no code with the engine: states and reasons are strings, and nothing is counted along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

BAD = {"FAILED", "BLOCKED", "CANCELLED"}
REASONS = ("upstream", "human", "removed")


@dataclass
class ModelRun:
    task: str
    worker: str
    attempt: int
    outcome: str | None = None


@dataclass
class ModelTask:
    """`definition` is what a seed said last. `wait` is the end of its backoff, None: none."""

    definition: dict[str, Any]
    position: int
    state: str = "READY"
    human: bool = False
    removed: bool = False
    attempts: int = 0
    lost: int = 0
    wait: datetime | None = None
    run: str | None = None
    asked: bool = False
    reasons: set[str] = field(default_factory=set)


@dataclass
class Model:
    tasks: dict[str, ModelTask] = field(default_factory=dict)
    runs: dict[str, ModelRun] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    limits: dict[str, int | None] = field(default_factory=dict)

    # What follows from the rest.

    def deps(self, task_id: str) -> list[ModelTask]:
        return [self.tasks[dep] for dep in self.tasks[task_id].definition["deps"]]

    def pending(self, task_id: str) -> int:
        return sum(dep.state != "DONE" for dep in self.deps(task_id))

    def broken(self, task_id: str) -> int:
        return sum(dep.state in BAD for dep in self.deps(task_id))

    def open_runs(self) -> list[str]:
        return [run_id for run_id, run in self.runs.items() if run.outcome is None]

    def ended_runs(self) -> list[str]:
        return [run_id for run_id, run in self.runs.items() if run.outcome is not None]

    def settle(self) -> None:
        """Let every task that rests follow from its deps, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for task_id, task in self.tasks.items():
                if task.state not in {"READY", "BLOCKED"}:
                    task.reasons = set()
                    continue
                holds = (self.broken(task_id) > 0, task.human, task.removed)
                reasons = {name for name, true in zip(REASONS, holds, strict=True) if true}
                state = "BLOCKED" if reasons else "READY"
                moved = moved or (state, reasons) != (task.state, task.reasons)
                task.state, task.reasons = state, reasons

    # What happens.

    def seed(
        self, definitions: list[dict[str, Any]], limits: dict[str, int | None]
    ) -> dict[str, Any]:
        """Upsert; return the report that is expected."""
        here = {definition["id"] for definition in definitions}
        report: dict[str, Any] = {"created": [], "updated": [], "unblocked": [], "unchanged": 0}
        for position, definition in enumerate(definitions):
            task = self.tasks.get(definition["id"])
            if task is None:
                self.tasks[definition["id"]] = ModelTask(definition, position)
                report["created"].append(definition["id"])
                continue
            back = task.removed and task.state == "BLOCKED"
            if back:
                report["unblocked"].append(definition["id"])
            if task.definition != definition:
                report["updated"].append(definition["id"])
            elif not back:
                report["unchanged"] += 1
            task.definition, task.position, task.removed = definition, position, False
        gone = {t for t, task in self.tasks.items() if t not in here and not task.removed}
        report["blocked"] = {t for t in gone if self.tasks[t].state in {"READY", "BLOCKED"}}
        for task_id in gone:
            self.tasks[task_id].removed = True
        self.limits = limits
        self.settle()
        return report

    def claimable(self, agent: str) -> str | None:
        """Return the task that a claim must give."""
        mine = {t: task for t, task in self.tasks.items() if task.definition["agent"] == agent}
        limit = self.limits.get(agent)
        busy = sum(task.state in {"CLAIMED", "RUNNING"} for task in mine.values())
        if self.held & {agent, "*"} or (limit is not None and busy >= limit):
            return None
        ready = [
            t
            for t, task in mine.items()
            if task.state == "READY" and task.wait is None and not self.pending(t)
        ]
        order = {t: (-self.tasks[t].definition["priority"], self.tasks[t].position) for t in ready}
        return min(ready, key=order.__getitem__, default=None)

    def claim(self, task_id: str, run_id: str, worker: str, *, prepared: bool) -> None:
        task = self.tasks[task_id]
        task.attempts += 1
        task.run, task.state, task.asked = run_id, "CLAIMED" if prepared else "RUNNING", False
        self.runs[run_id] = ModelRun(task_id, worker, task.attempts)

    def start(self, run_id: str) -> None:
        self.holder(run_id).state = "RUNNING"

    def holder(self, run_id: str) -> ModelTask:
        return self.tasks[self.runs[run_id].task]

    def _end(self, run_id: str, outcome: str, state: str) -> ModelTask:
        task = self.holder(run_id)
        self.runs[run_id].outcome = outcome
        task.run, task.state, task.asked = None, state, False
        return task

    def done(self, run_id: str) -> None:
        self._end(run_id, "done", "DONE").lost = 0
        self.settle()

    def failed(self, run_id: str, outcome: str) -> bool:
        """Return whether the task gets another attempt."""
        task = self._end(run_id, outcome, "FAILED")
        task.lost = 0
        again = bool(task.attempts < 1 + task.definition["retries"])
        if again:
            task.state = "READY"
        self.settle()
        return again

    def blocked(self, run_id: str) -> None:
        self._end(run_id, "blocked", "BLOCKED").human = True
        self.settle()

    def released(self, run_id: str) -> None:
        task = self._end(run_id, "released", "READY")
        task.attempts -= 1
        task.lost = 0
        self.settle()

    def expired(self, run_id: str) -> None:
        task = self._end(run_id, "expired", "READY")
        task.attempts -= 1
        task.lost += 1
        task.human = task.human or task.lost >= 3
        self.settle()

    def hold(self, agent: str) -> bool:
        new = agent not in self.held
        self.held.add(agent)
        return new

    def resume(self, agent: str) -> bool:
        lifted = set(self.held) if agent == "*" else self.held & {agent}
        self.held -= lifted
        return bool(lifted)

    def end_backoff(self, now: datetime) -> None:
        for task in self.tasks.values():
            if task.wait is not None and task.wait <= now:
                task.wait = None

    def table(self) -> dict[str, dict[str, Any]]:
        """Return what the table of tasks must say."""
        return {
            task_id: {
                **task.definition,
                "state": task.state,
                "reasons": [name for name in REASONS if name in task.reasons],
                "attempts": task.attempts,
                "lost": task.lost,
                "pending": self.pending(task_id),
                "broken": self.broken(task_id),
                "removed": int(task.removed),
                "position": task.position,
                "run_id": task.run,
                "claimed_by": self.runs[task.run].worker if task.run else None,
                "asked": "release" if task.asked else None,
            }
            for task_id, task in self.tasks.items()
        }

    def run_table(self) -> dict[str, tuple[str, str, int, str | None]]:
        return {
            run_id: (run.task, run.worker, run.attempt, run.outcome)
            for run_id, run in self.runs.items()
        }


def pick(items: Iterable[str], number: int) -> str:
    """Choose one of the items by any number; nothing if there is none."""
    choices = list(items)
    return choices[number % len(choices)] if choices else ""
