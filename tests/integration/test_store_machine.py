"""The real store, on a real file, against a model in plain Python: whatever happens, they agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from copy import deepcopy
from datetime import timedelta
from functools import partial
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
from support.soundness import Tables, check_tables
from support.store_model import Model, pick
from support.stores import (
    HOST,
    LEASE,
    OTHER_HOST,
    Opened,
    events_of,
    everything,
    opened,
    tasks_of,
)

from engine.clock import from_iso, to_iso
from engine.dag import to_definition
from engine.errors import IllegalTransition, LeaseConflict, LeaseLost, TaskNotFound
from engine.model import (
    AgentRule,
    Claim,
    Dag,
    Outcome,
    RunOutcome,
    Spending,
    TaskDef,
    WorkerStatus,
)
from engine.store import orders
from engine.store.audit import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from engine.store.orders import Orders
    from engine.store.seeding import SeedReport

T = TypeVar("T")
IDS = "abcdef"
AGENTS = ("codex", "claude")
NUMBERS = st.integers(0, 1000)
DONE = Outcome(RunOutcome.DONE, result={"n": 1})
ENDS = (
    *("done", "done, next", "failed", "timed out", "blocked", "put back", "put back, held"),
    *("released", "expired", "time over"),
)
ORDERS: dict[str, Callable[..., Orders]] = {
    "release": orders.release,
    "cancel": orders.cancel,
    "kill": orders.kill,
    "retry": orders.retry,
    "purge": orders.purge,
}
ASKED = ("release", "cancel", "kill", "kill", "retry", "retry", "retry", "downstream", "purge")


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


def definitions(dag: Dag) -> list[dict[str, Any]]:
    return [to_definition(task) for task in dag.tasks]


def limits_of(dag: Dag) -> dict[str, int | None]:
    return {agent: rule.limit for agent, rule in dag.agents.items()}


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
        self.it.store._random.seed(0)  # The jitter: what is done again must go the same way.

    def teardown(self) -> None:
        try:
            self.runner.run(self.opening.__aexit__(None, None, None))
            assert audit(self.it.layout.database) == []
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def do_dry(self, work: Coroutine[Any, Any, T]) -> T:
        """Do a dry run, and see that it left nothing behind."""
        before = everything(self.it.layout)
        answer = self.do(work)
        assert everything(self.it.layout) == before
        return answer

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
                report = self.do_dry(self.it.store.seed(dag, dry_run=True))
                copy = deepcopy(self.model)
                self.compare_reports(report, copy.seed(definitions(dag), limits_of(dag)))
            case _:
                self.seed_the_same_again()

    def seed_for_real(self, dag: Dag) -> None:
        report = self.do(self.it.store.seed(dag))
        self.compare_reports(report, self.model.seed(definitions(dag), limits_of(dag)))

    @staticmethod
    def compare_reports(report: SeedReport, expected: dict[str, Any]) -> None:
        assert report.created == expected["created"]
        assert report.updated == expected["updated"] == list(report.changed)
        assert report.unblocked == expected["unblocked"]
        assert set(report.blocked) == expected["blocked"]
        assert report.unchanged == expected["unchanged"]
        assert set(report.retried) == expected.get("retried", set())

    def seed_the_same_again(self) -> None:
        here = sorted(
            (task for task in self.model.tasks.values() if not task.removed),
            key=lambda task: task.position,
        )
        ids = {task.definition["id"] for task in here}
        if not all(ids.issuperset(task.definition["deps"]) for task in here):
            return  # A dep was purged: no file can say the same now.
        same = tuple(
            TaskDef(**{**task.definition, "deps": tuple(task.definition["deps"])}) for task in here
        )
        rules = {agent: AgentRule(limit) for agent, limit in self.model.limits.items()}
        dag = Dag(same, rules, "dag.yaml")
        self.model.seed(definitions(dag), limits_of(dag))  # Positions close up behind purged ones.
        before, told = tasks_of(self.it.layout), len(events_of(self.it.layout))
        self.do(self.it.store.seed(dag))
        after = tasks_of(self.it.layout)
        for row in (*before.values(), *after.values()):
            del row["position"]
        assert after == before
        assert [event.type for event in events_of(self.it.layout)[told:]] == ["SEEDED"]

    # Reset.

    @rule(
        dag=dags(),
        how=st.sampled_from(["begin", "abandon", "complete", "complete", "dry"]),
        fresh=st.booleans(),
    )
    def reset(self, dag: Dag, how: str, fresh: bool) -> None:
        store, model = self.it.store, self.model
        told = len(events_of(self.it.layout))
        match how:
            case "begin":
                self.do(store.begin_reset())
                model.begin_reset()
            case "abandon":
                self.do(store.abandon_reset())
                model.end_reset()
            case "complete":
                report = self.do(store.reset(dag, fresh=fresh))
                expected = model.complete_reset(definitions(dag), limits_of(dag), fresh=fresh)
                self.compare_reports(report, expected)
                assert events_of(self.it.layout)[told].type == "RESET"
            case _:
                report = self.do_dry(store.reset(dag, fresh=fresh, dry_run=True))
                copy = deepcopy(model)
                expected = copy.complete_reset(definitions(dag), limits_of(dag), fresh=fresh)
                self.compare_reports(report, expected)

    # Runs.

    def can_claim(self) -> list[str]:
        """Return the workers whose claim must give them something."""
        names = (f"{agent}-{number}" for agent in AGENTS for number in (1, 2, 3))
        return [name for name in names if self.model.claimable(name[:-2], name)]

    @rule(number=NUMBERS, prepared=st.booleans(), times=st.integers(1, 3))
    def claim_some(self, number: int, prepared: bool, times: int) -> None:
        for more in range(times):
            self.claim(number + more, prepared=prepared)

    def claim(self, number: int, *, prepared: bool) -> None:
        """Claim for a worker that can, if there is one; else see that it gets nothing."""
        worker = pick(self.can_claim(), number) or f"{pick(AGENTS, number)}-{number % 3 + 1}"
        agent = worker[:-2]
        expected = self.model.claimable(agent, worker)
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
        """Claim for a worker that may not or has nothing, if there is one."""
        names = {f"{agent}-{number}" for agent in AGENTS for number in (1, 2, 3)}
        worker = pick(sorted(names - set(self.can_claim())), number)
        if worker:
            assert self.do(self.it.store.claim(worker[:-2], worker, HOST)) is None

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
    @rule(number=NUMBERS, how=st.sampled_from(ENDS), tree_gone=st.booleans())
    def end(self, number: int, how: str, tree_gone: bool) -> None:
        self.end_run(pick(self.model.open_runs(), number), how, tree_gone=tree_gone)

    @precondition(lambda self: self.can_claim())
    @rule(
        number=NUMBERS,
        how=st.sampled_from(ENDS),
        times=st.integers(1, 4),
        seconds=st.sampled_from([0.0, 400.0]),
    )
    def claim_and_end(self, number: int, how: str, times: int, seconds: float) -> None:
        """Several times in a row: three losses are what it takes to need a human."""
        for _ in range(times):
            if self.can_claim():
                self.claim(number, prepared=False)
                self.end_run(self.model.open_runs()[-1], how)
                self.advance(seconds)

    def end_run(self, run_id: str, how: str, *, tree_gone: bool = True) -> None:
        """End a run as its worker reports it, or as others do."""
        claim, store, model = self.claims[run_id], self.it.store, self.model
        if how in {"released", "expired", "time over"}:
            self.take_from_run(run_id, how)
            return
        later = self.clock.now() + timedelta(seconds=20)
        result = Outcome(
            RunOutcome.RELEASED if "put back" in how else RunOutcome(how.split(",", maxsplit=1)[0]),
            error="no",
            result={"n": 1},
            spending=Spending(1, 10, None, 2, 0.1),
            not_before=later if "put back" in how else None,
            holds=how == "put back, held",
        )
        finish = partial(store.finish, claim, result, tree_gone=tree_gone)
        task = model.holder(run_id)
        match how:
            case "done" | "done, next" if task.state == "CLAIMED":
                with pytest.raises(IllegalTransition, match="CLAIMED"):
                    self.do(finish())
            case "done":
                self.do(finish())
                model.done(run_id, tree_gone=tree_gone)
            case "done, next":
                model.done(run_id, tree_gone=tree_gone)
                expected = model.claimable(claim.task.agent, claim.worker_id)
                ending = store.finish_and_claim(claim, result, HOST, tree_gone=tree_gone)
                self.claimed(self.do(ending), expected, claim.worker_id, prepared=False)
            case _ if task.asked == "expire":
                self.do(finish())
                if tree_gone:
                    model.expired(run_id)
            case "blocked":
                self.do(finish())
                model.blocked(run_id, tree_gone=tree_gone)
            case "put back" | "put back, held":
                self.do(finish())
                model.put_back(run_id, later, holds=result.holds, tree_gone=tree_gone)
            case _:
                self.do(finish())
                self.failed(run_id, how, tree_gone=tree_gone)

    def take_from_run(self, run_id: str, how: str) -> None:
        task_id, store, model = self.claims[run_id].task.id, self.it.store, self.model
        match how:
            case "released":
                self.do(store.release(task_id, run_id, "operator"))
                model.released(run_id)
            case "expired":
                assert self.do(store.expire(task_id, run_id))
                model.expired(run_id)
            case _:
                ended_by_others = model.holder(run_id).asked == "expire"
                assert self.do(store.time_out(task_id, run_id)) is not ended_by_others
                if not ended_by_others:
                    self.failed(run_id, "timed out", tree_gone=False)

    def failed(self, run_id: str, how: str, *, tree_gone: bool) -> None:
        """Take the moment of the next attempt from the table, for it is random within limits."""
        again = self.model.failed(run_id, how, tree_gone=tree_gone)
        task_id = self.claims[run_id].task.id
        task, until = self.model.tasks[task_id], tasks_of(self.it.layout)[task_id]["not_before"]
        assert (until is not None) == again
        if again:
            task.wait = from_iso(until)
            nominal = 5.0 * 2 ** (task.attempts - 1)
            waits = (task.wait - self.clock.now()).total_seconds()
            assert 0.8 * nominal - 0.001 <= waits <= 1.2 * nominal

    @precondition(lambda self: self.claims)
    @rule(number=NUMBERS)
    def see_a_tree_gone(self, number: int) -> None:
        """Rather one that is waited for; of others it means nothing."""
        run_id = pick(self.model.endings, number) or pick(self.claims, number)
        self.do(self.it.store.gone(run_id))
        self.model.gone(run_id)

    @precondition(lambda self: self.model.open_runs())
    @rule(number=NUMBERS, condemn=st.booleans())
    def lead_or_condemn(self, number: int, condemn: bool) -> None:
        run_id = pick(self.model.open_runs(), number)
        claim, task = self.claims[run_id], self.model.holder(run_id)
        if condemn:
            assert self.do(self.it.store.condemn(claim.task.id, run_id))
            task.asked = "expire"
        elif task.asked == "expire":
            with pytest.raises(LeaseLost):
                self.do(self.it.store.lead(claim, OTHER_HOST))
        else:
            self.do(self.it.store.lead(claim, OTHER_HOST))

    @precondition(lambda self: self.claims.keys() - set(self.model.open_runs()))
    @rule(
        number=NUMBERS,
        kind=st.sampled_from(["done", "failed", "blocked", "timed out"]),
        tree_gone=st.booleans(),
    )
    def write_with_a_run_that_is_over(self, number: int, kind: str, tree_gone: bool) -> None:
        """Also of a task that was purged: whoever works on it does not know."""
        going = self.model.open_runs()
        run_id = pick((run_id for run_id in self.claims if run_id not in going), number)
        claim, store = self.claims[run_id], self.it.store
        known = run_id in self.model.runs or run_id in self.model.endings
        before, told = tasks_of(self.it.layout), len(events_of(self.it.layout))
        for write in (
            store.start(claim),
            store.progress(claim, "still here"),
            store.lead(claim, OTHER_HOST),
            store.release(claim.task.id, run_id, "operator"),
        ):
            with pytest.raises(LeaseLost):
                self.do(write)
        assert not self.do(store.expire(claim.task.id, run_id))
        assert not self.do(store.condemn(claim.task.id, run_id))
        assert not self.do(store.time_out(claim.task.id, run_id))
        self.do(store.renew([run_id]))
        outcome = Outcome(RunOutcome(kind), error="late")
        with pytest.raises(LeaseLost):
            self.do(store.finish(claim, outcome, tree_gone=tree_gone))
        if tree_gone:
            self.model.gone(run_id)
            for row in before.values():
                row["ending"] = None if row["ending"] == run_id else row["ending"]
        assert tasks_of(self.it.layout) == before
        (late,) = events_of(self.it.layout)[told:]
        assert (late.type, late.run_id, late.state) == ("LATE_RESULT", run_id, None)
        assert (late.task_id, late.data) == (claim.task.id, {"outcome": kind, "error": "late"})
        assert late.worker_id == (claim.worker_id if known else None)

    # Operators and time.

    @rule(agent=st.sampled_from([*AGENTS, "*"]), lift=st.booleans())
    def hold_or_resume(self, agent: str, lift: bool) -> None:
        store, model = self.it.store, self.model
        new = agent not in model.held or agent in model.lifts
        assert self.do_dry(store.hold(agent, dry_run=True)) is new
        if agent in model.lifts and not lift:
            assert self.do(store.hold(agent)) is model.hold(agent) is True
        elif model.held:
            name = agent if lift else "*"
            dry = self.do_dry(store.resume(name, dry_run=True))
            assert self.do(store.resume(name)) is dry is model.resume(name)
        else:
            assert self.do(store.hold(agent)) is model.hold(agent) is True
            assert self.do(store.hold(agent)) is model.hold(agent) is False
            other = AGENTS[agent == AGENTS[0]]
            assert self.do(store.resume(other)) is model.resume(other)

    @rule(
        kind=st.sampled_from(ASKED),
        numbers=st.lists(NUMBERS, min_size=1, max_size=4),
        of_a_run=st.booleans(),
        dry_run=st.booleans(),
    )
    def order(self, kind: str, numbers: list[int], of_a_run: bool, dry_run: bool) -> None:
        if of_a_run and not self.model.open_runs():
            self.claim(numbers[0], prepared=len(numbers) == 1)
        options = {"downstream": True} if kind == "downstream" else {}
        kind = "retry" if kind == "downstream" else kind
        legal = [task_id for task_id in self.model.tasks if self.model.may(kind, task_id)]
        held = [self.model.runs[run_id].task for run_id in self.model.open_runs()]
        choices = [*legal, *legal, *self.model.tasks, "nobody"]
        task_ids = held[:of_a_run] + [pick(choices, number) for number in numbers]
        change = partial(ORDERS[kind], task_ids=task_ids, **options)
        model = deepcopy(self.model) if dry_run else self.model
        blocked = self.blocked_tasks(model)
        before = {task_id: task.state for task_id, task in model.tasks.items()}
        done, refused = model.order(kind, task_ids, **options)
        do = self.do_dry if dry_run else self.do
        answers = do(self.it.store.order(change, dry_run=dry_run))
        assert {
            task_id: (one.state, one.run_id, one.worker_id) for task_id, one in answers.done.items()
        } == done
        assert answers.refused.keys() == refused
        for task_id, error in answers.refused.items():
            if task_id not in before:
                assert isinstance(error, TaskNotFound)
            else:
                assert isinstance(error, IllegalTransition)
                # Another task of the order may have moved it before its turn came.
                assert error.state.split()[0] in {before[task_id], model.tasks[task_id].state}
        if len(done) == 1:  # One of several may also have moved another before its turn came.
            others = model.tasks.keys() - done.keys()
            assert answers.blocked == len((self.blocked_tasks(model) - blocked) & others)
            assert answers.unblocked == len((blocked - self.blocked_tasks(model)) & others)

    @staticmethod
    def blocked_tasks(model: Model) -> set[str]:
        return {task_id for task_id, task in model.tasks.items() if task.state == "BLOCKED"}

    @rule(
        agent=st.sampled_from(AGENTS),
        number=st.integers(1, 3),
        what=st.sampled_from(
            ["register", "register", "take over", "kill", "stopping", "stopped", "lost", "killed"]
        ),
    )
    def live_and_die(self, agent: str, number: int, what: str) -> None:
        worker, store, model = f"{agent}-{number}", self.it.store, self.model
        is_there = model.workers.get(worker) in {"live", "stopping"}
        match what:
            case "register" if is_there:
                with pytest.raises(LeaseConflict):
                    self.do(store.register(agent, worker, HOST, lambda _: True))
            case "register" | "take over":
                self.do(store.register(agent, worker, HOST, lambda _: False))
                model.workers[worker] = "live"
            case "kill":
                change = partial(orders.kill_held, worker_id=worker, host=HOST)
                dry = self.do_dry(store.order(change, dry_run=True))
                answers = self.do(store.order(change))
                done = {
                    task_id: (one.state, one.run_id, one.worker_id)
                    for task_id, one in answers.done.items()
                }
                assert dry.done == answers.done
                assert done == model.kill_held(worker)
            case _:
                moved = self.do(store.set_status(worker, HOST, WorkerStatus(what)))
                assert moved is (is_there and model.workers[worker] != what)
                if moved:
                    model.workers[worker] = what

    @rule(seconds=st.sampled_from([0.001, 5.0, 60.0]))
    def advance(self, seconds: float) -> None:
        self.do(self.clock.advance(seconds))
        self.do(self.it.store.end_backoff())
        self.model.end_backoff(self.clock.now())
        before = tasks_of(self.it.layout)
        until = self.do(self.it.store.renew(self.model.open_runs()))
        assert (until - self.clock.now()).total_seconds() == LEASE
        for task_id, row in tasks_of(self.it.layout).items():
            if row["run_id"] is None or row["asked"] == "expire":
                assert row["lease_until"] == before[task_id]["lease_until"]
            else:
                assert from_iso(row["lease_until"]) == until

    # What holds after each step.

    @invariant()
    def the_store_says_what_the_model_says_and_agrees_with_its_events(self) -> None:
        tables, model = Tables.read(self.it.layout), self.model
        expected = model.table()
        columns = set(next(iter(expected.values()), {}))
        assert {
            task_id: {key: row[key] for key in columns} for task_id, row in tables.tasks.items()
        } == expected
        for task_id, task in model.tasks.items():
            until = tables.tasks[task_id]["not_before"]
            assert (from_iso(until) if until else None) == task.wait, task_id
        rows = tables.rows
        assert {
            row["id"]: (row["task_id"], row["worker_id"], row["attempt"], row["outcome"])
            for row in rows["runs"]
        } == model.run_table()
        assert {
            row["run_id"]: (row["task_id"], row["agent"]) for row in rows["endings"]
        } == model.endings
        assert {row["agent"] for row in rows["holds"]} == model.held
        lifts = {row["agent"]: row["until"] for row in rows["holds"] if row["until"]}
        assert lifts == {agent: to_iso(until) for agent, until in model.lifts.items()}
        assert {row["id"]: row["status"] for row in rows["workers"]} == model.workers
        resets = [row["value"] for row in rows["meta"] if row["key"] == "reset"]
        assert resets == ([model.reset] if model.reset else [])
        check_tables(tables)


def test_the_store_does_what_the_model_does() -> None:
    run_state_machine_as_test(StoreMachine)
