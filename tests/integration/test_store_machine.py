"""The real store, on a real file, against a model in plain Python: whatever happens, they agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.clock import ManualClock
from support.store_model import Model, pick
from support.stores import (
    HOST,
    Opened,
    check_store,
    events_of,
    everything,
    opened,
    select,
    tasks_of,
)

from engine.clock import from_iso
from engine.dag import to_definition
from engine.errors import IllegalTransition, LeaseLost, TaskNotFound
from engine.model import AgentRule, Claim, Dag, Outcome, RunOutcome, TaskDef

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
IDS = "abcdef"
AGENTS = ("codex", "claude")
NUMBERS = st.integers(0, 1000)
DONE = Outcome(RunOutcome.DONE, result={"n": 1})
ENDS = ("done", "done, next", "failed", "timed out", "blocked", "released", "expired")


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    """Draw a small DAG; a chain of them adds, removes, changes and turns round tasks and deps."""
    order = draw(st.permutations(IDS))[: draw(st.integers(1, len(IDS)))]
    tasks: list[TaskDef] = []
    for place, task_id in enumerate(order):
        fewest = min(place, draw(st.sampled_from([0, 1, 1])))  # chains, not islands
        deps = draw(
            st.lists(
                st.sampled_from(order[:place] or IDS),
                unique=True,
                min_size=fewest,
                max_size=min(place, 2),
            )
        )
        tasks.append(
            TaskDef(
                task_id,
                draw(st.sampled_from([task_id, "other name"])),
                draw(st.sampled_from(AGENTS)),
                tuple(deps),
                draw(st.integers(-1, 1)),
                60.0,
                draw(st.integers(0, 2)),
                {"kind": "noop", "seconds": draw(st.integers(0, 1))},
            )
        )
    limits = draw(st.dictionaries(st.sampled_from(AGENTS), st.integers(1, 2)))
    rules = {agent: AgentRule(limit) for agent, limit in limits.items()}
    return Dag(tuple(draw(st.permutations(tasks))), rules, "dag.yaml")


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one thing to the store and to the model; the invariants compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="agentmux-test-"))
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.model = Model()
        self.claims: dict[str, Claim] = {}
        self.opening = opened(self.folder, clock=self.clock)
        self.it: Opened = self.runner.run(self.opening.__aenter__())

    def teardown(self) -> None:
        try:
            self.runner.run(self.opening.__aexit__(None, None, None))
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # Seeding.

    @initialize(dag=dags())
    def first_seed(self, dag: Dag) -> None:
        self.seed_for_real(dag)

    @rule(dag=dags(), how=st.sampled_from(["real", "dry", "same"]))
    def seed(self, dag: Dag, how: str) -> None:
        match how:
            case "real":
                self.seed_for_real(dag)
            case "dry":
                self.seed_dry(dag)
            case _:
                self.seed_the_same_again()

    def seed_for_real(self, dag: Dag) -> None:
        report = self.do(self.it.store.seed(dag))
        limits = {agent: rule.limit for agent, rule in dag.agents.items()}
        expected = self.model.seed([to_definition(task) for task in dag.tasks], limits)
        assert report.created == expected["created"]
        assert report.updated == expected["updated"] == list(report.changed)
        assert report.unblocked == expected["unblocked"]
        assert set(report.blocked) == expected["blocked"]
        assert report.unchanged == expected["unchanged"]

    def seed_dry(self, dag: Dag) -> None:
        before = everything(self.it.layout)
        self.do(self.it.store.seed(dag, dry_run=True))
        assert everything(self.it.layout) == before

    def seed_the_same_again(self) -> None:
        here = sorted(
            (task for task in self.model.tasks.values() if not task.removed),
            key=lambda task: task.position,
        )
        same = tuple(
            TaskDef(**{**task.definition, "deps": tuple(task.definition["deps"])}) for task in here
        )
        limits = {agent: AgentRule(limit) for agent, limit in self.model.limits.items()}
        before, told = tasks_of(self.it.layout), len(events_of(self.it.layout))
        self.do(self.it.store.seed(Dag(same, limits, "dag.yaml")))
        assert tasks_of(self.it.layout) == before
        assert [event.type for event in events_of(self.it.layout)[told:]] == ["SEEDED"]

    # Runs.

    @rule(number=NUMBERS, prepared=st.booleans())
    def claim(self, number: int, prepared: bool) -> None:
        """Claim for an agent that can, if there is one; else see that it gets nothing."""
        agent = pick(filter(self.model.claimable, AGENTS), number) or pick(AGENTS, number)
        worker = f"{agent}-{number % 3 + 1}"
        expected = self.model.claimable(agent)
        preparing = frozenset({"noop"} if prepared else ())
        claim = self.do(self.it.store.claim(agent, worker, HOST, preparing))
        self.claimed(claim, expected, worker, prepared=prepared)

    def claimed(
        self, claim: Claim | None, expected: str | None, worker: str, *, prepared: bool
    ) -> None:
        assert (claim.task.id if claim else None) == expected
        if claim is None:
            return
        assert claim.run_id not in self.claims, "a run id is never used again"
        self.claims[claim.run_id] = claim
        self.model.claim(claim.task.id, claim.run_id, worker, prepared=prepared)
        assert to_definition(claim.task) == self.model.tasks[claim.task.id].definition
        assert claim.attempt == self.model.runs[claim.run_id].attempt

    @rule(number=NUMBERS)
    def claim_in_vain(self, number: int) -> None:
        """Claim for an agent that may not or has nothing, if there is one."""
        agent = pick((a for a in AGENTS if not self.model.claimable(a)), number)
        if agent:
            assert self.do(self.it.store.claim(agent, f"{agent}-1", HOST)) is None

    @precondition(lambda self: self.model.open_runs())
    @rule(number=NUMBERS)
    def start(self, number: int) -> None:
        run_id = pick(self.model.open_runs(), number)
        if self.model.holder(run_id).state == "RUNNING":
            with pytest.raises(IllegalTransition, match="RUNNING"):
                self.do(self.it.store.start(self.claims[run_id]))
            return
        self.do(self.it.store.start(self.claims[run_id]))
        self.model.start(run_id)

    @precondition(lambda self: self.model.open_runs())
    @rule(number=NUMBERS, how=st.sampled_from(ENDS))
    def end(self, number: int, how: str) -> None:
        self.end_run(pick(self.model.open_runs(), number), how)

    @precondition(lambda self: any(map(self.model.claimable, AGENTS)))
    @rule(
        number=NUMBERS,
        how=st.sampled_from(ENDS),
        times=st.integers(1, 4),
        seconds=st.sampled_from([0.0, 400.0]),
    )
    def claim_and_end(self, number: int, how: str, times: int, seconds: float) -> None:
        """Several times in a row: three losses are what it takes to need a human."""
        for _ in range(times):
            if any(map(self.model.claimable, AGENTS)):
                self.claim(number, prepared=False)
                self.end_run(self.model.open_runs()[-1], how)
                self.advance(seconds)

    def end_run(self, run_id: str, how: str) -> None:
        claim, store = self.claims[run_id], self.it.store
        match how:
            case "done" if self.model.holder(run_id).state == "CLAIMED":
                with pytest.raises(IllegalTransition, match="CLAIMED"):
                    self.do(store.finish(claim, DONE))
            case "done":
                self.do(store.finish(claim, DONE))
                self.model.done(run_id)
            case "done, next" if self.model.holder(run_id).state == "RUNNING":
                self.model.done(run_id)
                expected = self.model.claimable(claim.task.agent)
                following = self.do(store.finish_and_claim(claim, DONE, HOST))
                self.claimed(following, expected, claim.worker_id, prepared=False)
            case "failed" | "timed out":
                self.do(store.finish(claim, Outcome(RunOutcome(how), error="no")))
                self.failed(run_id, how)
            case "blocked":
                self.do(store.finish(claim, Outcome(RunOutcome.BLOCKED, error="not allowed")))
                self.model.blocked(run_id)
            case "released":
                self.do(store.release(claim.task.id, run_id, "operator"))
                self.model.released(run_id)
            case _:
                assert self.do(store.expire(claim.task.id, run_id))
                self.model.expired(run_id)

    def failed(self, run_id: str, how: str) -> None:
        """Take the moment of the next attempt from the table, for it is random within limits."""
        again = self.model.failed(run_id, how)
        task_id = self.claims[run_id].task.id
        task, until = self.model.tasks[task_id], tasks_of(self.it.layout)[task_id]["not_before"]
        assert (until is not None) == again
        if again:
            task.wait = from_iso(until)
            nominal = 5.0 * 2 ** (task.attempts - 1)
            waits = (task.wait - self.clock.now()).total_seconds()
            assert 0.8 * nominal - 0.001 <= waits <= 1.2 * nominal

    @precondition(lambda self: self.model.ended_runs())
    @rule(number=NUMBERS, kind=st.sampled_from(["done", "failed", "blocked", "timed out"]))
    def write_with_a_run_that_is_over(self, number: int, kind: str) -> None:
        run_id = pick(self.model.ended_runs(), number)
        claim, store = self.claims[run_id], self.it.store
        before, told = tasks_of(self.it.layout), len(events_of(self.it.layout))
        with pytest.raises(LeaseLost):
            self.do(store.finish(claim, Outcome(RunOutcome(kind), error="late")))
        with pytest.raises(LeaseLost):
            self.do(store.start(claim))
        with pytest.raises(LeaseLost):
            self.do(store.progress(claim, "still here"))
        with pytest.raises(LeaseLost):
            self.do(store.release(claim.task.id, run_id, "operator"))
        assert not self.do(store.expire(claim.task.id, run_id))
        self.do(store.renew([run_id]))
        assert tasks_of(self.it.layout) == before
        late = events_of(self.it.layout)[told:]
        assert [(event.type, event.run_id, event.state) for event in late] == [
            ("LATE_RESULT", run_id, None)
        ]

    # Operators and time.

    @rule(agent=st.sampled_from([*AGENTS, "*"]), lift=st.booleans())
    def hold_or_resume(self, agent: str, lift: bool) -> None:
        if lift or self.model.held:
            assert self.do(self.it.store.resume("*")) == self.model.resume("*")
        else:
            assert self.do(self.it.store.hold(agent)) == self.model.hold(agent)
            assert self.do(self.it.store.hold(agent)) == self.model.hold(agent)
            other = AGENTS[agent == AGENTS[0]]
            assert self.do(self.it.store.resume(other)) == self.model.resume(other)

    @rule(number=NUMBERS)
    def ask_release(self, number: int) -> None:
        task_id = pick([*self.model.tasks, *self.held_tasks(), "nobody"], number)
        task = self.model.tasks.get(task_id)
        if task is None:
            with pytest.raises(TaskNotFound):
                self.do(self.it.store.ask_release(task_id))
        elif task.run is None:
            with pytest.raises(IllegalTransition, match=task.state):
                self.do(self.it.store.ask_release(task_id))
        else:
            assert self.do(self.it.store.ask_release(task_id)) == task.run
            task.asked = True

    def held_tasks(self) -> list[str]:
        return [self.model.runs[run_id].task for run_id in self.model.open_runs()]

    @rule(seconds=st.sampled_from([0.001, 5.0, 60.0]))
    def advance(self, seconds: float) -> None:
        self.do(self.clock.advance(seconds))
        self.do(self.it.store.end_backoff())
        self.model.end_backoff(self.clock.now())
        self.do(self.it.store.renew(self.model.open_runs()))

    # What holds after each step.

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        expected = self.model.table()
        table = tasks_of(self.it.layout)
        columns = set(next(iter(expected.values()), {}))
        assert {
            task_id: {key: row[key] for key in columns} for task_id, row in table.items()
        } == expected
        for task_id, task in self.model.tasks.items():
            until = table[task_id]["not_before"]
            assert (from_iso(until) if until else None) == task.wait, task_id

    @invariant()
    def the_runs_are_those_of_the_model(self) -> None:
        rows = select(self.it.layout, "SELECT * FROM runs")
        assert {
            row["id"]: (row["task_id"], row["worker_id"], row["attempt"], row["outcome"])
            for row in rows
        } == self.model.run_table()

    @invariant()
    def the_store_agrees_with_itself_and_with_its_events(self) -> None:
        check_store(self.it.layout)


def test_the_store_does_what_the_model_does() -> None:
    run_state_machine_as_test(StoreMachine)
