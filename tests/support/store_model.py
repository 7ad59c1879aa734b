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
ACTIVE = {"CLAIMED", "RUNNING"}
OVER = {"DONE", "FAILED", "CANCELLED"}
REASONS = ("upstream", "human", "removed")

Answer = tuple[str | None, str | None, str | None]
"""What became of one task of an order: its state (None: gone), the run that held it, its worker."""


@dataclass
class ModelRun:
    task: str
    worker: str
    attempt: int
    agent: str
    outcome: str | None = None


@dataclass
class ModelTask:
    """`definition` is what a seed said last. `wait` is the end of its backoff, None: none.

    `asked` is what others want of the run that holds it: release, expire. `ending` is the former
    run whose tree may still live.
    """

    definition: dict[str, Any]
    position: int
    state: str = "READY"
    human: bool = False
    removed: bool = False
    attempts: int = 0
    lost: int = 0
    wait: datetime | None = None
    run: str | None = None
    asked: str | None = None
    ending: str | None = None
    reasons: set[str] = field(default_factory=set)


@dataclass
class Model:
    """`purged` are all that ever were, with the last state. `reset` is whose hold a reset found.

    `endings` are the runs that lost their task before their tree was gone: (task, agent). `lifts`
    are those of `held` that lift by themselves, and when.
    """

    tasks: dict[str, ModelTask] = field(default_factory=dict)
    runs: dict[str, ModelRun] = field(default_factory=dict)
    purged: dict[str, str] = field(default_factory=dict)
    endings: dict[str, tuple[str, str]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    lifts: dict[str, datetime] = field(default_factory=dict)
    reset: str | None = None
    limits: dict[str, int | None] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)

    # What follows from the rest.

    def deps(self, task_id: str) -> list[str]:
        """Return the states of a task's deps; those that are gone keep their last one."""
        return [
            self.tasks[dep].state if dep in self.tasks else self.purged[dep]
            for dep in self.tasks[task_id].definition["deps"]
        ]

    def pending(self, task_id: str) -> int:
        return sum(state != "DONE" for state in self.deps(task_id))

    def broken(self, task_id: str) -> int:
        return sum(state in BAD for state in self.deps(task_id))

    def open_runs(self) -> list[str]:
        return [run_id for run_id, run in self.runs.items() if run.outcome is None]

    def below(self, task_ids: Iterable[str]) -> set[str]:
        """Return what depends on these tasks, however far down."""
        found: set[str] = set()
        wave = set(task_ids)
        while wave:
            wave = {t for t, task in self.tasks.items() if wave & set(task.definition["deps"])}
            wave -= found
            found |= wave
        return found

    def settle(self) -> None:
        """Let every task that rests follow from its deps, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for task_id, task in self.tasks.items():
                if task.state not in {"READY", "BLOCKED"}:
                    task.reasons, task.human = set(), False
                    continue
                holds = (self.broken(task_id) > 0, task.human, task.removed)
                reasons = {name for name, true in zip(REASONS, holds, strict=True) if true}
                state = "BLOCKED" if reasons else "READY"
                moved = moved or (state, reasons) != (task.state, task.reasons)
                task.state, task.reasons = state, reasons

    # Seeding.

    def seed(
        self, definitions: list[dict[str, Any]], limits: dict[str, int | None]
    ) -> dict[str, Any]:
        """Upsert; return the report that is expected."""
        here = {definition["id"] for definition in definitions}
        report: dict[str, Any] = {"created": [], "updated": [], "unblocked": [], "unchanged": 0}
        for position, definition in enumerate(definitions):
            task = self.tasks.get(definition["id"])
            if task is None:
                self._create(definition, position)
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

    def _create(self, definition: dict[str, Any], position: int) -> None:
        """A new task waits all the same for the tree of a run of the one that it replaces."""
        task = self.tasks[definition["id"]] = ModelTask(definition, position)
        for run_id, (task_id, _) in self.endings.items():
            if task_id == definition["id"]:
                task.ending = run_id

    def begin_reset(self) -> None:
        if self.reset is None:
            self.reset = "theirs" if "*" in self.held else "ours"
        self.held.add("*")

    def end_reset(self) -> None:
        if self.reset == "ours":
            self.held.discard("*")
        self.reset = None

    def complete_reset(
        self,
        definitions: list[dict[str, Any]],
        limits: dict[str, int | None],
        *,
        fresh: bool,
    ) -> dict[str, Any]:
        report = self.seed(definitions, limits)
        ids = [definition["id"] for definition in definitions]
        retried = {t for t in ids if self.may("retry", t)} if fresh else set()
        self.order("retry", list(retried))
        report["retried"] = retried
        self.end_reset()
        return report

    # Runs.

    def claimable(self, agent: str, worker: str = "") -> str | None:
        """Return the task that a claim must give. No worker: one of whom nothing is known."""
        mine = {t: task for t, task in self.tasks.items() if task.definition["agent"] == agent}
        limit = self.limits.get(agent)
        busy = sum(task.state in ACTIVE for task in mine.values())
        busy += sum(its_agent == agent for _, its_agent in self.endings.values())
        if self.held & {agent, "*"} or (limit is not None and busy >= limit):
            return None
        if self.workers.get(worker, "live") != "live":
            return None
        ready = [
            t
            for t, task in mine.items()
            if (task.state, task.wait, task.ending) == ("READY", None, None) and not self.pending(t)
        ]
        order = {t: (-self.tasks[t].definition["priority"], self.tasks[t].position) for t in ready}
        return min(ready, key=order.__getitem__, default=None)

    def claim(self, task_id: str, run_id: str, worker: str, *, prepared: bool) -> None:
        task = self.tasks[task_id]
        task.attempts += 1
        task.run, task.state, task.asked = run_id, "CLAIMED" if prepared else "RUNNING", None
        self.runs[run_id] = ModelRun(task_id, worker, task.attempts, task.definition["agent"])

    def start(self, run_id: str) -> None:
        self.holder(run_id).state = "RUNNING"

    def holder(self, run_id: str) -> ModelTask:
        return self.tasks[self.runs[run_id].task]

    def _end(self, run_id: str, outcome: str, state: str, *, tree_gone: bool = True) -> ModelTask:
        task, run = self.holder(run_id), self.runs[run_id]
        run.outcome = outcome
        task.run, task.state, task.asked = None, state, None
        if not tree_gone:
            self.endings[run_id] = (run.task, run.agent)
            task.ending = run_id
        return task

    def gone(self, run_id: str) -> None:
        self.endings.pop(run_id, None)
        for task in self.tasks.values():
            if task.ending == run_id:
                task.ending = None

    def done(self, run_id: str, *, tree_gone: bool = True) -> None:
        self._end(run_id, "done", "DONE", tree_gone=tree_gone).lost = 0
        self.settle()

    def failed(self, run_id: str, outcome: str, *, tree_gone: bool = True) -> bool:
        """Return whether the task gets another attempt."""
        task = self._end(run_id, outcome, "FAILED", tree_gone=tree_gone)
        task.lost = 0
        again = bool(task.attempts < 1 + task.definition["retries"])
        if again:
            task.state = "READY"
        self.settle()
        return again

    def blocked(self, run_id: str, *, tree_gone: bool = True) -> None:
        self._end(run_id, "blocked", "BLOCKED", tree_gone=tree_gone).human = True
        self.settle()

    def released(self, run_id: str) -> None:
        task = self._end(run_id, "released", "READY")
        task.attempts -= 1
        task.lost = 0
        self.settle()

    def put_back(self, run_id: str, until: datetime, *, holds: bool, tree_gone: bool) -> None:
        """Its agent has to wait: so do the task and, if it holds, all of the agent."""
        task = self._end(run_id, "released", "READY", tree_gone=tree_gone)
        task.attempts -= 1
        task.lost = 0
        task.wait = until
        agent = task.definition["agent"]
        if holds and (agent not in self.held or self.lifts.get(agent, until) < until):
            self.held.add(agent)
            self.lifts[agent] = until
        self.settle()

    def expired(self, run_id: str) -> None:
        task = self._end(run_id, "expired", "READY")
        task.attempts -= 1
        task.lost += 1
        task.human = task.lost >= 3
        self.settle()

    def end_backoff(self, now: datetime) -> None:
        for task in self.tasks.values():
            if task.wait is not None and task.wait <= now:
                task.wait = None
        for agent in [agent for agent, until in self.lifts.items() if until <= now]:
            del self.lifts[agent]
            self.held.discard(agent)

    # Operators.

    def hold(self, agent: str) -> bool:
        new = agent not in self.held or agent in self.lifts
        self.held.add(agent)
        self.lifts.pop(agent, None)
        return new

    def resume(self, agent: str) -> bool:
        lifted = set(self.held) if agent == "*" else self.held & {agent}
        self.held -= lifted
        self.lifts = {name: until for name, until in self.lifts.items() if name not in lifted}
        if agent == "*":
            self.reset = None
        waits = [one for task_id, one in self.tasks.items() if self._was_put_back(task_id, agent)]
        for task in waits:
            task.wait = None
        return bool(lifted or waits)

    def _was_put_back(self, task_id: str, agent: str) -> bool:
        """Say whether a task of the agent waits for what its own limits asked for."""
        task, runs = self.tasks[task_id], [run for run in self.runs.values() if run.task == task_id]
        return (
            task.wait is not None
            and task.state == "READY"
            and agent in {task.definition["agent"], "*"}
            and runs[-1].outcome == "released"
        )

    def order(
        self, kind: str, task_ids: Iterable[str], *, downstream: bool = False
    ) -> tuple[dict[str, Answer], set[str]]:
        """Return what becomes of each task, and which are refused."""
        done: dict[str, Answer] = {}
        refused: set[str] = set()
        ids = list(dict.fromkeys(task_ids))
        if downstream:
            below = self.below(t for t in ids if t in self.tasks and self.may("retry", t))
            ids += [t for t in below if t not in ids and self._is_worth_a_retry(t)]
        before = {t: task.state for t, task in self.tasks.items()}
        for task_id in ids:
            task = self.tasks.get(task_id)
            if task is None or not self.may(kind, task_id):
                refused.add(task_id)
            else:
                worker = self.runs[task.run].worker if task.run else None
                run_id, state = task.run, self._carry_out(kind, task_id)
                done[task_id] = (state, run_id, worker)
        if kind == "retry":
            mended = {
                t
                for t in refused & self.tasks.keys()
                if (before[t], self.tasks[t].state) == ("BLOCKED", "READY")
            }
            refused -= mended
            done = {t: (self.tasks[t].state, None, None) for t in [*done, *mended]}
        return done, refused

    def may(self, kind: str, task_id: str) -> bool:
        task = self.tasks[task_id]
        match kind:
            case "release" | "kill":
                return task.state in ACTIVE
            case "cancel":
                return task.state in {"READY", "BLOCKED", *ACTIVE}
            case "retry":
                return task.state in OVER or (task.human and not task.removed)
            case _:
                return True

    def _is_worth_a_retry(self, task_id: str) -> bool:
        return self.may("retry", task_id) or self.tasks[task_id].state in ACTIVE

    def _carry_out(self, kind: str, task_id: str) -> str | None:
        task = self.tasks[task_id]
        match kind:
            case "release":
                task.asked = task.asked or "release"
                return task.state
            case "kill":
                self._take(task, "killed", "FAILED")
            case "cancel":
                self._take(task, "cancelled", "CANCELLED")
            case "retry":
                task.state, task.human, task.attempts, task.lost = "READY", False, 0, 0
                task.wait = None
            case "purge":
                if task.state not in OVER:
                    self._take(task, "cancelled", "CANCELLED")
                self.purged[task_id] = task.state
                del self.tasks[task_id]
                self.runs = {r: run for r, run in self.runs.items() if run.task != task_id}
        self.settle()
        return task.state if task_id in self.tasks else None

    def _take(self, task: ModelTask, outcome: str, state: str) -> None:
        """Nothing may come of the run any more, but its tree may still live."""
        if task.run is not None:
            self._end(task.run, outcome, state, tree_gone=False)
        task.state, task.wait, task.lost = state, None, 0

    def kill_held(self, worker: str) -> dict[str, Answer]:
        if self.workers.get(worker) == "live":
            self.workers[worker] = "stopping"
        held = [self.runs[r].task for r in self.open_runs() if self.runs[r].worker == worker]
        return self.order("kill", held)[0]

    # What the tables must say.

    def table(self) -> dict[str, dict[str, Any]]:
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
                "asked": task.asked,
                "ending": task.ending,
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
