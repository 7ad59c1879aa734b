"""Promises of seeding (DESIGN §6): one upsert, one transaction; what ran is never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    everything,
    kinds,
    opened,
    tasks_of,
)

from engine.commands import Seed
from engine.core import Engine
from engine.errors import StorageError, ValidationError
from engine.model import AgentRule, Dag, Outcome, RunOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
BLOCKED = Outcome(RunOutcome.BLOCKED, error="ask somebody")


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it
        check_store(it.layout)


async def finish(it: Opened, task_id: str, outcome: Outcome) -> None:
    claim = await it.claim()
    assert claim.task.id == task_id
    await it.store.finish(claim, outcome)


async def test_a_new_dag_is_created_in_file_order_and_the_log_alone_can_rebuild_it(
    it: Opened,
) -> None:
    dag = a_dag(a_task("b", "a", retries=2), a_task("a", priority=3), a_task("c", "a", "b"))
    report = await it.store.seed(dag)
    assert report.created == ["b", "a", "c"]
    assert (report.updated, report.blocked, report.unblocked, report.unchanged) == ([], [], [], 0)
    assert list(tasks_of(it.layout)) == ["b", "a", "c"]
    created = events_of(it.layout)[:3]
    assert [event.data["definition"]["deps"] for event in created] == [["a"], [], ["a", "b"]]
    assert kinds(events_of(it.layout)) == ["TASK_CREATED"] * 3 + ["SEEDED"]


async def test_seeding_twice_changes_nothing_and_appends_no_event_but_seeded(it: Opened) -> None:
    dag = a_dag(
        a_task("a", payload={"kind": "shell", "argv": ["echo", "ä\u2028"], "env": {"X": "1"}}),
        a_task("b", "a", timeout=0.1, priority=-4),
        agents={"codex": AgentRule(2, 1.5)},
    )
    await it.store.seed(dag)
    before, told = tasks_of(it.layout), len(events_of(it.layout))
    report = await it.store.seed(dag)
    assert (report.unchanged, report.created, report.updated) == (2, [], [])
    assert tasks_of(it.layout) == before
    assert kinds(events_of(it.layout)[told:]) == ["SEEDED"]


async def test_a_changed_task_is_redefined_and_keeps_its_history(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    await finish(it, "a", DONE)
    claim = await it.claim()
    changed = a_dag(
        a_task("a", name="New", agent="claude"),
        a_task("b", retries=3, payload={"kind": "shell", "cmd": "true"}, timeout=5),
    )
    report = await it.store.seed(changed)
    assert report.updated == ["a", "b"]
    assert report.changed == {
        "a": {"name": ("a", "New"), "agent": ("codex", "claude")},
        "b": {
            "deps": (["a"], []),
            "timeout": (3600, 5),
            "retries": (0, 3),
            "payload": ({"kind": "noop", "seconds": 0}, {"kind": "shell", "cmd": "true"}),
        },
    }
    assert (it.state("a"), it.state("b")) == ("DONE", "RUNNING")
    updated = [event for event in events_of(it.layout) if event.type == "TASK_UPDATED"]
    assert [event.state for event in updated] == ["DONE", "RUNNING"]
    await it.store.finish(claim, FAILED)
    assert it.state("b") == "READY", "the retries that it was given meanwhile count"


async def test_a_task_whose_agent_changes_is_claimed_by_the_new_one_only(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await it.store.seed(a_dag(a_task("a", agent="claude")))
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert (await it.claim("claude-1", "claude")).task.agent == "claude"


async def test_the_order_of_a_new_file_counts_without_an_event(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    report = await it.store.seed(a_dag(a_task("b"), a_task("a")))
    assert report.unchanged == 2
    assert (await it.claim()).task.id == "b"
    assert "TASK_UPDATED" not in kinds(events_of(it.layout))


async def test_a_task_that_left_the_dag_is_blocked_until_it_comes_back(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c")))
    report = await it.store.seed(a_dag(a_task("c")))
    assert report.blocked == ["a", "b"]
    assert it.reasons("a") == {"removed"}
    assert it.reasons("b") == {"removed", "upstream"}
    assert (await it.claim()).task.id == "c"
    again = await it.store.seed(a_dag(a_task("c")))
    assert (again.blocked, again.unchanged) == ([], 1), "it leaves only once"
    back = await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c")))
    assert (back.unblocked, back.unchanged, back.created) == (["a", "b"], 1, [])
    assert (it.state("a"), it.state("b")) == ("READY", "READY")
    assert (await it.claim()).task.id == "a"


async def test_a_task_that_comes_back_changed_is_unblocked_and_redefined(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    await it.store.seed(a_dag(a_task("a")))
    report = await it.store.seed(a_dag(a_task("a"), a_task("b", "a", name="New")))
    assert (report.updated, report.unblocked) == (["b"], ["b"])
    assert (it.state("b"), it.row("b")["pending"]) == ("READY", 1)


async def test_finished_and_running_tasks_that_left_the_dag_stay_as_they_are(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c"), a_task("d")))
    await finish(it, "a", DONE)
    await finish(it, "b", FAILED)
    running = await it.claim()
    prepared = await it.store.claim("codex", "codex-2", HOST, frozenset({"noop"}))
    assert prepared is not None
    report = await it.store.seed(a_dag(a_task("z")))
    assert report.blocked == []
    states = [it.state(task_id) for task_id in "abcd"]
    assert states == ["DONE", "FAILED", "RUNNING", "CLAIMED"]
    await it.store.finish(running, DONE)
    assert it.state("c") == "DONE", "it finishes its run"
    await it.store.release("d", prepared.run_id, "me")
    assert (it.state("d"), it.reasons("d")) == ("BLOCKED", {"removed"}), "but begins no other"
    back = await it.store.seed(a_dag(*(a_task(task_id) for task_id in "abcd")))
    assert back.unblocked == ["d"], "what was not blocked is not unblocked"
    assert back.unchanged == 3


async def test_a_removed_task_that_still_runs_gets_no_second_attempt(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=5)))
    claim = await it.claim()
    await it.store.seed(a_dag(a_task("b")))
    await it.store.finish(claim, FAILED)
    assert (it.state("a"), it.reasons("a")) == ("BLOCKED", {"removed"})
    await it.store.seed(a_dag(a_task("a", retries=5)))
    assert it.state("a") == "READY"
    assert it.row("a")["not_before"] is not None, "its backoff still counts"


async def test_a_new_task_stands_as_its_old_deps_make_it(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("done"), a_task("bad"), a_task("open")))
    await finish(it, "done", DONE)
    await finish(it, "bad", FAILED)
    new = (
        a_task("after all", "met", "stuck"),
        a_task("met", "done"),
        a_task("stuck", "bad", "done"),
        a_task("waits", "open", "done"),
    )
    await it.store.seed(a_dag(*new, a_task("done"), a_task("bad"), a_task("open")))
    assert (it.state("met"), it.row("met")["pending"]) == ("READY", 0)
    assert (it.state("stuck"), it.reasons("stuck")) == ("BLOCKED", {"upstream"})
    assert (it.state("after all"), it.row("after all")["pending"]) == ("BLOCKED", 2)
    assert (it.state("waits"), it.row("waits")["pending"]) == ("READY", 1)
    assert (await it.claim()).task.id == "met"


async def test_changed_deps_block_and_unblock_down_the_dag(it: Opened) -> None:
    bad, good = a_task("bad"), a_task("good")
    await it.store.seed(a_dag(bad, good, a_task("x", "good"), a_task("y", "x")))
    await finish(it, "bad", FAILED)
    await it.store.seed(a_dag(bad, good, a_task("x", "bad"), a_task("y", "x")))
    assert it.reasons("x") == it.reasons("y") == {"upstream"}
    await it.store.seed(a_dag(bad, good, a_task("x"), a_task("y", "x")))
    assert (it.state("x"), it.state("y"), it.row("x")["pending"]) == ("READY", "READY", 0)


async def test_a_reseed_does_not_lift_what_needs_a_human(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await finish(it, "a", BLOCKED)
    await it.store.seed(a_dag(a_task("b")))
    assert it.reasons("a") == {"human", "removed"}
    await it.store.seed(a_dag(a_task("a", name="New"), a_task("b")))
    assert it.reasons("a") == {"human"}
    assert it.row("a")["error"] == "ask somebody"


async def test_a_dry_run_is_the_real_plan_and_leaves_no_trace(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c"), a_task("d")))
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c")))
    await finish(it, "a", DONE)
    new = a_dag(
        a_task("d"), a_task("b", "d", retries=1), a_task("e", "a"), a_task("a"), agents={
            "codex": AgentRule(1)
        }
    )  # fmt: skip
    before = everything(it.layout)
    plan = await it.store.seed(new, dry_run=True)
    assert everything(it.layout) == before
    assert await it.store.seed(new) == plan
    assert (plan.created, plan.updated, plan.blocked) == (["e"], ["b"], ["c"])
    assert (plan.unblocked, plan.unchanged) == (["d"], 1)
    assert everything(it.layout) != before


async def test_progress_is_told_up_to_the_last_task(it: Opened) -> None:
    told: list[int] = []
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(4500))), progress=told.append)
    assert told == [0, 2000, 4000, 4500]


async def test_an_empty_dag_removes_everything(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    report = await it.store.seed(Dag((), {}, "empty.yaml"))
    assert set(report.blocked) == {"a", "b"}
    assert await it.store.claim("codex", "codex-1", HOST) is None


async def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("tasks: [{id: a, agent: codex}]\n")
    bad.write_text("tasks: [{id: a, agent: codex}, {id: b, agent: codex, deps: [nobody]}]\n")
    async with Engine(tmp_path / "state", project=tmp_path) as engine:
        await engine.execute(Seed(good))
        before = everything(engine.layout)
        with pytest.raises(ValidationError) as refusal:
            await engine.execute(Seed(bad))
        assert [problem.field for problem in refusal.value.problems] == ["tasks[1].deps[0]"]
        assert everything(engine.layout) == before


async def test_a_reseed_without_a_path_takes_the_file_last_seeded_else_the_default(
    tmp_path: Path,
) -> None:
    default, other = tmp_path / "agentmux" / "dag.yaml", tmp_path / "other.yaml"
    default.parent.mkdir()
    async with Engine(tmp_path / "state", project=tmp_path) as engine:
        with pytest.raises(StorageError, match=r"agentmux/dag\.yaml"):
            await engine.execute(Seed())
        default.write_text("tasks: [{id: a, agent: codex}]\n")
        assert (await engine.execute(Seed())).counts["created"] == 1
        other.write_text("tasks: [{id: a, agent: codex}, {id: b, agent: codex}]\n")
        await engine.execute(Seed(other))
        receipt = await engine.execute(Seed())
        assert receipt.counts["unchanged"] == 2
        assert await engine.queries.count_tasks() == 2
