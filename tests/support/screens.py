"""An engine whose rows are chosen by hand, for screens: a fixed clock, no files, no processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.commands import Command, Receipt
from engine.config import Config
from engine.errors import TaskNotFound
from engine.files import Layout
from engine.filters import AGENT, STATE, WAITING, TaskFilter, Term
from engine.model import (
    Event,
    EventType,
    Reason,
    RunOutcome,
    State,
    WorkerStatus,
)
from engine.views import Neighbour, Progress, RunRow, TaskDetail, TaskRow, WorkerRow
from tui.app import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from textual.app import App
    from textual.pilot import Pilot

NOW = datetime(2026, 3, 14, 10, 12, 46, tzinfo=UTC)
_ORDER = (
    (State.RUNNING, State.CLAIMED),
    (State.BLOCKED,),
    (State.FAILED,),
    (State.READY,),
    (State.DONE,),
    (State.CANCELLED,),
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class FixedClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOW).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        await asyncio.sleep(0)


def task(id: str, state: State = State.READY, **more: Any) -> TaskRow:  # noqa: A002 - as in the row
    row = TaskRow(
        id=id,
        name=id,
        agent="codex",
        state=state,
        deps=(),
        reasons=(),
        error=None,
        attempts=0,
        retries=0,
        priority=0,
        pending=0,
        claimed_by=None,
        run_id=None,
        lease_until=None,
        timeout_at=None,
        not_before=None,
        worker_id=None,
        started_at=None,
        ended_at=None,
        created_at=ago(600),
        updated_at=ago(60),
    )
    return replace(row, **more)


def running(id: str, worker_id: str, seconds: float, **more: Any) -> TaskRow:  # noqa: A002 - as above
    facts: dict[str, Any] = {
        "agent": worker_id.rsplit("-", 1)[0],
        "attempts": 1,
        "claimed_by": worker_id,
        "worker_id": worker_id,
        "run_id": f"run-{id}",
        "started_at": ago(seconds),
        "lease_until": ago(seconds - 600),
        "timeout_at": ago(seconds - 3600),
    }
    return task(id, State.RUNNING, **(facts | more))


def ended(id: str, state: State, worker_id: str, took: float, **more: Any) -> TaskRow:  # noqa: A002 - as above
    facts: dict[str, Any] = {
        "agent": worker_id.rsplit("-", 1)[0],
        "attempts": 1,
        "worker_id": worker_id,
        "started_at": ago(took + 90),
        "ended_at": ago(90),
    }
    return task(id, state, **(facts | more))


def worker(id: str, holds: TaskRow | None = None, **more: Any) -> WorkerRow:  # noqa: A002 - as in the row
    row = WorkerRow(
        id=id,
        agent=id.rsplit("-", 1)[0],
        pid=4400 + sum(map(ord, id)) % 100,
        status=WorkerStatus.LIVE,
        alive=True,
        task_id=holds.id if holds is not None else None,
        run_id=holds.run_id if holds is not None else None,
        run_started_at=holds.started_at if holds is not None else None,
        lease_until=holds.lease_until if holds is not None else None,
        started_at=ago(900),
        beat_at=ago(2),
        note="",
    )
    return replace(row, **more)


@dataclass
class FakeQueries:
    """What a store would answer. `broken` makes the queries that it names raise."""

    all_tasks: list[TaskRow] = field(default_factory=list)
    all_workers: list[WorkerRow] = field(default_factory=list)
    all_events: list[Event] = field(default_factory=list)
    held: tuple[str, ...] = ()
    recent: tuple[int, ...] = ()
    dag: str = "agentmux/build.yaml"
    broken: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gate: Callable[[str], Awaitable[None]] | None = None

    async def _asked(self, name: str) -> None:
        self.asked.append(name)
        if self.gate is not None:
            await self.gate(name)
        if name in self.broken:
            raise self.broken[name]

    async def progress(self) -> Progress:
        await self._asked("progress")
        counts: dict[State, int] = {}
        for row in self.all_tasks:
            counts[row.state] = counts.get(row.state, 0) + 1
        waiting = sum(1 for row in self.all_tasks if _waits(row))
        return Progress(
            total=len(self.all_tasks),
            by_state=counts,
            ready=counts.get(State.READY, 0) - waiting,
            waiting=waiting,
            needs_human=sum(1 for row in self.all_tasks if Reason.HUMAN in row.reasons),
            held=self.held,
            recent=self.recent,
            dag=self.dag,
        )

    def _matching(self, where: TaskFilter, order: str) -> list[TaskRow]:
        rows = [row for row in self.all_tasks if all(_holds(row, term) for term in where.terms)]
        return sorted(rows, key=_rank) if order == "screen" else rows

    async def tasks(
        self,
        where: TaskFilter = TaskFilter(),  # noqa: B008 - frozen, and empty for ever
        *,
        limit: int = -1,
        offset: int = 0,
        order: Literal["screen", "file"] = "file",
    ) -> list[TaskRow]:
        await self._asked("tasks")
        rows = self._matching(where, order)[offset:]
        return rows if limit < 0 else rows[:limit]

    async def count_tasks(self, where: TaskFilter) -> int:
        await self._asked("count_tasks")
        return len(self._matching(where, "file"))

    async def locate_task(self, where: TaskFilter, task_id: str) -> int | None:
        await self._asked("locate_task")
        ids = [row.id for row in self._matching(where, "screen")]
        return ids.index(task_id) if task_id in ids else None

    async def workers(self) -> list[WorkerRow]:
        await self._asked("workers")
        return list(self.all_workers)

    async def events(self, *, after: int = 0, limit: int = -1) -> list[Event]:
        await self._asked("events")
        rows = [event for event in self.all_events if event.seq > after]
        return rows if limit < 0 else rows[:limit]

    async def last_seq(self) -> int:
        await self._asked("last_seq")
        return self.all_events[-1].seq if self.all_events else 0

    async def detail(self, task_id: str) -> TaskDetail:
        await self._asked("detail")
        row = next((row for row in self.all_tasks if row.id == task_id), None)
        if row is None:
            raise TaskNotFound(task_id)
        states = {other.id: other.state for other in self.all_tasks}
        outcomes = {
            State.DONE: RunOutcome.DONE,
            State.FAILED: RunOutcome.FAILED,
            State.BLOCKED: RunOutcome.BLOCKED,
        }
        runs = [
            RunRow(
                id=f"run-{task_id}" if number == row.attempts else f"run-{task_id}-{number}",
                task_id=task_id,
                agent=row.agent,
                worker_id=row.worker_id or "codex-1",
                attempt=number,
                outcome=outcomes.get(row.state) if number == row.attempts else RunOutcome.FAILED,
                claimed_at=row.started_at or ago(100),
                started_at=row.started_at or ago(100),
                ended_at=row.ended_at if number == row.attempts else ago(200),
                exit_code=0 if row.state is State.DONE else 1 if number < row.attempts else None,
                error=row.error if number == row.attempts else "exit code 1: connection reset",
                result=None,
            )
            for number in range(row.attempts, 0, -1)
        ]
        return TaskDetail(
            task=row,
            payload={"kind": "shell", "cmd": "pytest -q tests/race --maxfail=1", "cwd": "."},
            timeout=600.0,
            result={"exitCode": 0, "lastLines": ["12 passed in 3.4 s"]}
            if row.state is State.DONE
            else None,
            deps=tuple(Neighbour(dep, states.get(dep)) for dep in row.deps),
            dependents=tuple(
                Neighbour(other.id, other.state)
                for other in self.all_tasks
                if task_id in other.deps
            ),
            runs=tuple(runs),
            events=tuple(event for event in self.all_events if event.task_id == task_id),
            explanation=(f"{task_id} is {row.state.lower()}.",),
        )


class FakeEngine:
    """Hands out FakeQueries, remembers commands, says that something changed when told to."""

    def __init__(self, queries: FakeQueries | None = None, *, state: Path = Path("state")) -> None:
        self.config = Config()
        self.layout = Layout(state)
        self.clock = FixedClock()
        self.queries = queries or FakeQueries()
        self.commands: list[Command] = []
        self.receipt = Receipt()
        self.refusal: Exception | None = None
        self.runs = 0
        self.stopped: list[bool] = []
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[None]:
        while True:
            yield
            await self._changed.wait()
            self._changed.clear()

    def change(self) -> None:
        self._changed.set()

    async def execute(self, command: Command, *, dry_run: bool = False) -> Receipt:
        assert not dry_run
        self.commands.append(command)
        if self.refusal is not None:
            raise self.refusal
        return self.receipt

    def active_runs(self) -> int:
        return self.runs

    async def stop_workers(self, *, drain: bool = False) -> None:
        self.stopped.append(drain)
        await self.may_stop.wait()


def _waits(row: TaskRow) -> bool:
    late = row.not_before is not None and row.not_before > NOW
    return row.state is State.READY and (row.pending > 0 or late)


def _rank(row: TaskRow) -> tuple[int, bool]:
    return next(i for i, states in enumerate(_ORDER) if row.state in states), _waits(row)


def _holds(row: TaskRow, term: Term) -> bool:
    if term.field == STATE:
        found = WAITING if _waits(row) else row.state.lower()
        matches = found == term.value
    elif term.field == AGENT:
        matches = row.agent == term.value
    else:
        text = f"{row.id} {row.name} {row.agent} {row.worker_id or ''}".lower()
        matches = term.value.lower() in text
    return matches is not term.negated


def event(seq: int, type: EventType, seconds: float, **more: Any) -> Event:  # noqa: A002 - as in the row
    return Event(seq=seq, ts=ago(seconds), type=type, **more)


def busy() -> FakeQueries:
    """Return a fleet in the middle of its work: every state, every reason, one stale worker."""
    impl = running("impl:T-004", "claude-1", 134, name="Implement step 4", retries=1)
    race = running("tests:race", "codex-1", 41, name="Concurrency tests")
    api = running("research:api", "gemini-2", 329, name="Read the API", lease_until=ago(-271))
    docs = task(
        "docs:status",
        State.CLAIMED,
        name="Status page",
        agent="claude",
        attempts=1,
        claimed_by="claude-2",
        worker_id="claude-2",
        started_at=None,
        lease_until=ago(-598),
    )
    human = ended(
        "deploy:staging",
        State.BLOCKED,
        "claude-1",
        3,
        name="Deploy to staging",
        attempts=2,
        retries=1,
        reasons=(Reason.HUMAN,),
        error="command not allowed: ssh; add it to shell.allow in agentmux.yaml",
    )
    failed = ended(
        "lint:types",
        State.FAILED,
        "codex-2",
        12,
        name="Type check",
        attempts=3,
        retries=2,
        error="exit code 1: 4 errors in src/api/routes.py",
    )
    rows = [
        impl,
        race,
        api,
        docs,
        human,
        failed,
        task(
            "release:notes",
            State.BLOCKED,
            name="Release notes",
            reasons=(Reason.UPSTREAM,),
            deps=("lint:types",),
            pending=1,
        ),
        task("old:cleanup", State.BLOCKED, name="Old clean-up", reasons=(Reason.REMOVED,)),
        task("review:ui", name="Review the screens", agent="gemini"),
        task("bench:store", name="Measure the store", agent="claude"),
        task(
            "flaky:download",
            name="Download the models",
            agent="gemini",
            attempts=1,
            retries=2,
            not_before=ago(-12),
            error="exit code 7",
        ),
        task(
            "review:spec",
            name="Review the architecture",
            deps=("impl:T-004", "impl:T-003"),
            pending=1,
        ),
        task(
            "integrate:all",
            name="Bring everything together",
            agent="claude",
            deps=("review:spec", "tests:race", "docs:status"),
            pending=3,
        ),
        task(
            "publish:a-rather-long-identifier-that-nobody-would-want-to-type-twice",
            name="A name that is as long as names get when people explain everything in them",
            deps=("integrate:all",),
            pending=1,
        ),
        *(
            ended(
                f"impl:T-{n:03d}",
                State.DONE,
                f"codex-{1 + n % 2}",
                7 * n,
                name=f"Implement step {n}",
            )
            for n in range(1, 4)
        ),
        *(
            ended(f"spec:part-{n}", State.DONE, "gemini-1", 11 + n, name=f"Specify part {n}")
            for n in range(1, 9)
        ),
        task("spike:graphql", State.CANCELLED, name="Try GraphQL", agent="gemini"),
    ]
    events: list[Event] = []
    for row in rows:
        if row.state is State.DONE:
            who: dict[str, Any] = {
                "task_id": row.id, "worker_id": row.worker_id, "agent": row.agent,
            }  # fmt: skip
            events.append(event(0, EventType.TASK_CLAIMED, 200, state=State.CLAIMED, **who))
            events.append(event(0, EventType.TASK_STARTED, 200, state=State.RUNNING, **who))
            events.append(
                event(
                    0,
                    EventType.TASK_COMPLETED,
                    120,
                    state=State.DONE,
                    data={"durationMs": 41_000},
                    **who,
                )
            )
    events += [
        event(
            0,
            EventType.TASK_FAILED,
            95,
            state=State.FAILED,
            task_id="lint:types",
            worker_id="codex-2",
            data={
                "error": "exit code 1: 4 errors in src/api/routes.py",
                "attempts": 3,
                "retries": 2,
            },
        ),
        event(
            0,
            EventType.TASK_BLOCKED,
            94,
            state=State.BLOCKED,
            task_id="release:notes",
            data={"reasons": ["upstream"]},
        ),
        event(
            0,
            EventType.TASK_BLOCKED,
            90,
            state=State.BLOCKED,
            task_id="deploy:staging",
            data={"reasons": ["human"], "error": "command not allowed: ssh"},
        ),
        event(
            0,
            EventType.TASK_STARTED,
            41,
            state=State.RUNNING,
            task_id="tests:race",
            worker_id="codex-1",
        ),
        event(
            0,
            EventType.TASK_PROGRESS,
            9,
            state=State.RUNNING,
            task_id="impl:T-004",
            worker_id="claude-1",
            data={"note": "Edit src/api/routes.py"},
        ),
        event(
            0,
            EventType.TASK_CLAIMED,
            2,
            state=State.CLAIMED,
            task_id="docs:status",
            worker_id="claude-2",
        ),
    ]
    numbered = [replace(one, seq=number) for number, one in enumerate(events, 1)]
    return FakeQueries(
        all_tasks=rows,
        all_workers=[
            worker("claude-1", impl, note="Edit src/api/routes.py", beat_at=ago(2)),
            worker("claude-2", docs, beat_at=ago(1)),
            worker("codex-1", race, note="pytest -q tests/race", beat_at=ago(1)),
            worker("codex-2", beat_at=ago(3)),
            worker("gemini-1", status=WorkerStatus.STOPPING, beat_at=ago(4)),
            worker("gemini-2", api, beat_at=ago(72), pid=4411),
            worker("codex-9", status=WorkerStatus.STOPPED, alive=False, beat_at=ago(4000)),
        ],
        all_events=numbered,
        recent=(0, 2, 5, 9, 14, 11),
    )


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and painted. Bounded."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    async with asyncio.timeout(10):
        while not app.at_rest:
            await pilot.pause(0.01)
        await pilot.pause()


def screen_text(app: App[Any]) -> str:
    """Return what is on the screen, as lines of text without colours."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()[:height]
    return "\n".join(line.text[:width] for line in lines)
