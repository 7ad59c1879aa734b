"""An engine whose rows are chosen by hand, for screens: a fixed clock, no files, no processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple, replace
from support import lists
from support.lists import picked, place_of, sorted_runs, sorted_tasks, waits, window
from support.patience import PATIENCE

from engine.commands import Command, OnStep, Receipt, Step
from engine.config import Config
from engine.errors import TaskNotFound
from engine.files import Layout
from engine.filters import Filter
from engine.model import (
    Event,
    EventType,
    Reason,
    RunOutcome,
    ServiceState,
    Spending,
    State,
    WorkerStatus,
)
from engine.views import (
    AttentionRow,
    CriticalPath,
    EventSpan,
    ExternalRow,
    GraphNode,
    Health,
    Metrics,
    Neighbour,
    Order,
    ProcessRow,
    Progress,
    RunRow,
    ServiceRow,
    TaskDetail,
    TaskRow,
    Usage,
    WorkerRow,
)
from tui.app import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from textual.app import App
    from textual.pilot import Pilot

NOW = lists.NOW


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


def service(name: str, state: ServiceState = ServiceState.READY, **more: Any) -> ServiceRow:
    row = ServiceRow(
        name=name,
        state=state,
        since=ago(134),
        message="",
        port=None,
        pid=5100 + sum(map(ord, name)) % 100,
        restarts=0,
        recovery="",
        keeper=4321,
    )
    return replace(row, **more)


def external(id: str, **more: Any) -> ExternalRow:  # noqa: A002 - as in the row
    row = ExternalRow(
        id=id,
        type="claude",
        pid=6200 + sum(map(ord, id)) % 100,
        tmux=None,
        meta={},
        registered_at=ago(1800),
        beat_at=ago(7),
    )
    return replace(row, **more)


@dataclass
class FakeQueries:
    """What a store would answer. `broken` makes the queries that it names raise.

    `spent`: what runs took, by id.
    """

    all_tasks: list[TaskRow] = field(default_factory=list)
    all_workers: list[WorkerRow] = field(default_factory=list)
    all_events: list[Event] = field(default_factory=list)
    all_externals: list[ExternalRow] = field(default_factory=list)
    all_services: list[ServiceRow] = field(default_factory=list)
    held: tuple[str, ...] = ()
    recent: tuple[int, ...] = ()
    dag: str = "agentmux/build.yaml"
    every_run: list[RunRow] = field(default_factory=list)
    path: CriticalPath = field(default_factory=CriticalPath)
    numbers: Metrics = field(default_factory=Metrics)
    spent: dict[str, Spending] = field(default_factory=dict)
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
        waiting = sum(1 for row in self.all_tasks if waits(row))
        return Progress(
            total=len(self.all_tasks),
            by_state=counts,
            ready=counts.get(State.READY, 0) - waiting,
            waiting=waiting,
            needs_human=sum(1 for row in self.all_tasks if Reason.HUMAN in row.reasons),
            held=self.held,
            recent=self.recent,
            dag=self.dag,
            spending=replace(added_up(self.spent.values()), turns=None),
        )

    async def tasks(
        self,
        where: Filter = Filter(),  # noqa: B008 - frozen, and empty for ever
        *,
        limit: int = -1,
        offset: int = 0,
        order: Order = Order(),  # noqa: B008 - as above
    ) -> list[TaskRow]:
        await self._asked("tasks")
        return window(self._sorted(where, order), offset, limit)

    async def count_tasks(self, where: Filter) -> int:
        await self._asked("count_tasks")
        return len(picked(self.all_tasks, where))

    async def locate_task(
        self,
        where: Filter,
        task_id: str,
        order: Order = Order(),  # noqa: B008 - as above
    ) -> int | None:
        await self._asked("locate_task")
        return place_of(task_id, self._sorted(where, order))

    async def task_ids(self, where: Filter) -> list[str]:
        await self._asked("task_ids")
        return [row.id for row in picked(self.all_tasks, where)]

    def _sorted(self, where: Filter, order: Order) -> list[TaskRow]:
        return sorted_tasks(picked(self.all_tasks, where), order)

    async def runs(
        self,
        task_id: str | None = None,
        *,
        where: Filter = Filter(),  # noqa: B008 - as above
        limit: int = -1,
        offset: int = 0,
        order: Order = Order(),  # noqa: B008 - as above
    ) -> list[RunRow]:
        await self._asked("runs")
        rows = [run for run in self.every_run if task_id in {None, run.task_id}]
        return window(sorted_runs(picked(rows, where), order), offset, limit)

    async def count_runs(self, where: Filter) -> int:
        await self._asked("count_runs")
        return len(picked(self.every_run, where))

    async def locate_run(
        self,
        where: Filter,
        run_id: str,
        order: Order = Order(),  # noqa: B008 - as above
    ) -> int | None:
        await self._asked("locate_run")
        return place_of(run_id, sorted_runs(picked(self.every_run, where), order))

    async def run(self, run_id: str) -> RunRow | None:
        await self._asked("run")
        return next((run for run in self.every_run if run.id == run_id), None)

    async def event_seqs(self, where: Filter, *, after: int, upto: int) -> list[int]:
        await self._asked("event_seqs")
        return [one.seq for one in picked(self.all_events, where) if after < one.seq <= upto]

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        await self._asked("events_at")
        return [one for one in self.all_events if one.seq in set(seqs)]

    async def metrics(self) -> Metrics:
        await self._asked("metrics")
        return self.numbers

    async def agent_counts(self) -> Mapping[str, Mapping[State, int]]:
        await self._asked("agent_counts")
        counts: dict[str, dict[State, int]] = {}
        for row in sorted(self.all_tasks, key=lambda row: row.agent):
            of_agent = counts.setdefault(row.agent, {})
            of_agent[row.state] = of_agent.get(row.state, 0) + 1
        return counts

    async def workers(self) -> list[WorkerRow]:
        await self._asked("workers")
        return list(self.all_workers)

    async def externals(self) -> list[ExternalRow]:
        await self._asked("externals")
        return list(self.all_externals)

    async def services(self) -> list[ServiceRow]:
        await self._asked("services")
        return list(self.all_services)

    async def events(self, *, after: int = 0, limit: int = -1) -> list[Event]:
        await self._asked("events")
        rows = [event for event in self.all_events if event.seq > after]
        return rows if limit < 0 else rows[:limit]

    async def event_span(self) -> EventSpan:
        await self._asked("event_span")
        seqs = [event.seq for event in self.all_events]
        gaps = ((one + 1, other - 1) for one, other in pairwise(seqs) if other > one + 1)
        return EventSpan(seqs[0], seqs[-1], tuple(gaps)) if seqs else EventSpan()

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
                id=_run_id(task_id, number, row.attempts),
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
                spending=self.spent.get(_run_id(task_id, number, row.attempts), Spending()),
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
            spending=added_up(run.spending for run in runs),
        )

    async def graph(self, around: str | None = None, *, limit: int = 5000) -> list[GraphNode]:  # noqa: ARG002 - a fake graph is small
        await self._asked("graph")
        return [
            GraphNode(
                id=row.id,
                name=row.name,
                agent=row.agent,
                state=row.state,
                reasons=row.reasons,
                pending=row.pending,
                deps=row.deps,
            )
            for row in self.all_tasks[:limit]
        ]

    async def critical_path(self) -> CriticalPath:
        await self._asked("critical_path")
        return self.path

    async def spans(self, since: datetime, until: datetime, limit: int = 5000) -> list[RunRow]:
        await self._asked("spans")
        return [
            run
            for run in sorted(self.every_run, key=lambda run: run.claimed_at)
            if run.claimed_at <= until and (run.ended_at is None or run.ended_at >= since)
        ][-limit:]


def _run_id(task_id: str, number: int, newest: int) -> str:
    return f"run-{task_id}" if number == newest else f"run-{task_id}-{number}"


def added_up(spent: Iterable[Spending]) -> Spending:
    """Return what several runs took together; what nobody told stays unknown."""
    parts = zip(*map(astuple, spent), strict=True)
    return Spending(*(sum(filter(None, part)) or None for part in parts))


class FakeEngine:
    """Hands out FakeQueries, remembers commands, says that something changed when told to."""

    def __init__(self, queries: FakeQueries | None = None, *, state: Path = Path("state")) -> None:
        self.config = Config()
        self.layout = Layout(state)
        self.clock = FixedClock()
        self.queries = queries or FakeQueries()
        self.commands: list[Command] = []
        self.dry_runs: list[Command] = []
        self.receipt = Receipt()
        self.plan: Receipt | None = None
        self.steps: list[Step] = []
        self.notices: list[str] = []
        self.opening: Step | None = None
        self.failure: BaseException | None = None
        self.begun = 0
        self.over = asyncio.Event()
        self.over.set()
        self.hurry: asyncio.Event | None = None
        self.mine: tuple[str, ...] = ("claude-1", "codex-1")
        self.needs: list[AttentionRow] = []
        self.well = Health()
        self.texts: dict[int, str] = {}
        self.used: dict[str, Usage] = {}
        self.processes: dict[str, list[ProcessRow]] = {}
        self.refusal: Exception | None = None
        self.runs = 0
        self.stopped: list[bool] = []
        self.kept: tuple[str, ...] = ()
        self.workers_wait = False
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.may_step = asyncio.Event()
        self.may_step.set()
        self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[None]:
        while True:
            yield
            await self._changed.wait()
            self._changed.clear()

    def change(self) -> None:
        self._changed.set()

    async def execute(
        self,
        command: Command,
        *,
        dry_run: bool = False,
        on_step: OnStep = lambda _step: None,
        hurry: asyncio.Event | None = None,
    ) -> Receipt:
        self.hurry = hurry
        (self.dry_runs if dry_run else self.commands).append(command)
        if self.refusal is not None:
            raise self.refusal
        if dry_run:
            return replace(self.plan or self.receipt, dry_run=True)
        for step in self.steps:
            on_step(step)
            await self.may_step.wait()
        return self.receipt

    async def attention(self) -> list[AttentionRow]:
        return list(self.needs)

    async def health(self) -> Health:
        return self.well

    async def alert_text(self, number: int) -> str:
        return self.texts.get(number, "")

    async def usage(self) -> Mapping[str, Usage]:
        return dict(self.used)

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        return list(self.processes.get(run_id, []))

    def begin(self) -> None:
        self.begun += 1

    def own_workers(self) -> tuple[str, ...]:
        return self.mine

    def active_runs(self) -> int:
        return self.runs

    async def stop_workers(self, *, drain: bool = False) -> None:
        self.stopped.append(drain)
        await self.may_stop.wait()

    def own_services(self) -> tuple[str, ...]:
        return self.kept

    async def stop_services(self) -> None:
        self.kept = ()


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
    async with asyncio.timeout(PATIENCE):
        while not app.at_rest:
            await pilot.pause(0.01)
        await pilot.pause()


def screen_text(app: App[Any]) -> str:
    """Return what is on the screen, as lines of text without colours."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()[:height]
    return "\n".join(line.text[:width] for line in lines)
