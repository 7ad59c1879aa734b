"""Promises about what dies: whatever it is and whenever, nothing is lost and nothing runs twice.

A storm strikes at random; below it a host dies by SIGKILL at each point where it could be half
through with something. It is a program of its own that lays hands on the engine to die just there.
"""

from __future__ import annotations

import asyncio
import random
import signal

import pytest
from support.doomed import WORK, dies, doomed
from support.engines import Project, ended, suspend, until
from support.nursery import Nursery
from support.reckoning import acting, check_everything, guards_of, leader_of, prepare
from support.stores import HOST, a_task, everything, select, tasks_of
from support.storm import AGENTS, Storm, a_storms_dag

from engine.commands import Cancel, Command, Kill, Release, Reset, Resume, Retry, Seed, Stop
from engine.logfiles import log_files
from engine.processes.census import tagged
from engine.processes.signalling import identify, is_alive, send

SEED = 20261120


@pytest.mark.usefixtures("fast_retries")
async def test_nothing_is_lost_in_a_storm_of_50_kills_over_500_tasks(project: Project) -> None:
    prepare(project)
    dice = random.Random(SEED)
    tasks = a_storms_dag(dice, 500)
    with Nursery(project.folder) as nursery:
        storm = Storm(project, nursery, tasks, dice)
        async with project.engine() as engine:
            await engine.execute(Seed(project.dag(*tasks)))
            for agent in AGENTS:
                await engine.start_worker(agent)
            await storm.rage(engine, kills=50)
            await storm.calm(engine)
    await check_everything(project)
    assert project.states() == {"DONE": 500}
    assert storm.tally.errors == []
    assert storm.tally.in_flight >= 20, f"a storm that hurt nobody: {storm.tally}"


# At named points.


async def finish(project: Project, *commands: Command) -> None:
    """Start again: carry out the commands, work until nothing more can run, and check it all."""
    async with project.engine() as engine:
        for command in commands:
            await engine.execute(command)
        await engine.start_workers(1)
        async with asyncio.timeout(30):
            await engine.settled()
    await check_everything(project)


async def seeded(project: Project) -> None:
    """Put a few tasks into the store: the first one has a program of its own, with a child."""
    prepare(project)
    tasks = (acting("a", seconds=0.2, shape="far"), a_task("b", "a"), a_task("c"))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param("dying(Store, 'claim', after=True, when=bool)", id="claimed"),
        pytest.param("dying(Guard, 'begin')", id="before-its-guard-knows"),
        pytest.param("dying(Guard, 'begin', after=True)", id="before-the-fork"),
        pytest.param("dying(Guard, 'lead')", id="after-the-fork"),
        pytest.param("dying(Store, 'lead')", id="before-its-leader-is-stored"),
        pytest.param("dying(Store, 'lead', after=True)", id="leader-stored"),
        pytest.param("dying(guard, '_start')", id="before-its-guard-starts"),
        pytest.param("dying(guard, '_start', after=True)", id="while-its-guard-starts"),
        pytest.param("dying(Store, 'finish_and_claim')", id="before-the-end-is-stored"),
    ],
)
async def test_a_run_whose_host_died_before_its_end_was_stored_is_made_up_for(
    project: Project, patch: str
) -> None:
    await seeded(project)
    await dies(project, patch)
    assert project.state("a") == "RUNNING"
    await finish(project)
    assert project.states() == {"DONE": 3}
    assert project.kinds("a").count("LEASE_EXPIRED") == 1
    assert project.kinds("a").count("TASK_COMPLETED") == 1
    assert tasks_of(project.layout)["a"]["attempts"] == 1, "a lost run uses no retry"


async def test_a_host_that_dies_between_the_end_of_a_run_and_its_next_loses_neither(
    project: Project,
) -> None:
    await seeded(project)
    await dies(project, "dying(Store, 'finish_and_claim', after=True)")
    assert project.states() == {"DONE": 1, "RUNNING": 1, "READY": 1}
    await finish(project)
    assert project.states() == {"DONE": 3}
    assert project.kinds().count("LEASE_EXPIRED") == 1
    assert project.kinds("a").count("TASK_CLAIMED") == 1, "what is done is not done again"


# Not a task's own program: it hangs until it is ended, and the next one is through at once.
ONCE_HANGING = ["sh", "-c", "test -e marker || { touch marker; sleep 300 & wait; }"]
RUNS_A = """\
await engine.start_worker('codex', 'doomed')
while not Path('marker').exists():
    await asyncio.sleep(0.01)
"""


async def hanging(project: Project) -> None:
    """Put a task into the store whose first run hangs, and one that waits for it."""
    prepare(project)
    a = a_task("a", payload={"kind": "shell", "argv": ONCE_HANGING})
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a, a_task("b", "a"))))


@pytest.mark.parametrize(
    ("order", "state"), [("Cancel", "CANCELLED"), ("Kill", "FAILED")], ids=["cancel", "kill"]
)
async def test_a_host_that_dies_before_it_ended_the_tree_of_what_was_taken_loses_nothing(
    project: Project, order: str, state: str
) -> None:
    await hanging(project)
    patch = f"dying_at_commit_of(orders, '{order.lower()}')"
    await dies(project, patch, f"{RUNS_A}await engine.execute({order}(('a',)))")
    assert (project.state("a"), project.state("b")) == (state, "BLOCKED")
    assert select(project.layout, "SELECT task_id FROM endings") == [{"task_id": "a"}]
    await finish(project)
    assert (project.state("a"), project.state("b")) == (state, "BLOCKED"), "that is final"
    assert select(project.layout, "SELECT * FROM endings") == []
    await finish(project, Retry(("a",)))
    assert project.states() == {"DONE": 2}


async def test_a_task_that_comes_back_waits_for_the_tree_of_the_one_that_was_purged(
    project: Project,
) -> None:
    prepare(project)
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(acting("a", seconds=300, shape="stubborn"))))
    act = (
        "await engine.start_worker('codex', 'doomed')\n"
        "while not Path('diary').exists():\n"
        "    await asyncio.sleep(0.01)\n"
        "os.kill(engine._host._guard.pid, signal.SIGSTOP)\n"  # so that the tree outlives both
        "await engine.execute(Purge(('a',)))"
    )
    process = doomed(project, "dying_at_commit_of(orders, 'purge')", act)
    assert await ended(process) == -signal.SIGKILL
    for guard in guards_of(project.layout):
        send(guard, signal.SIGKILL)
    assert tasks_of(project.layout) == {}
    left = tagged(project.layout.state)
    assert len(left) == 2, "the leader and its child"
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(acting("a"))))
        assert tasks_of(project.layout)["a"]["state"] == "READY"
        assert await engine._store.claim("codex", "early", HOST) is None
        assert all(map(is_alive, left))
    # What it does now would fail if the lock on its file were still taken.
    await finish(project)
    assert project.states() == {"DONE": 1}
    assert not any(map(is_alive, left))


@pytest.mark.parametrize(
    "order",
    [Cancel(("a",)), Kill(("a",)), Kill(("a",), force=True)],
    ids=["cancel", "kill", "kill-force"],
)
@pytest.mark.parametrize(
    "patch",
    ["dying(worker.Worker, 'interrupt')", "dying(Store, 'gone')"],
    ids=["before-it-ends-the-tree", "before-it-says-so"],
)
async def test_an_order_is_answered_although_the_host_dies_of_it(
    project: Project, patch: str, order: Command
) -> None:
    await hanging(project)
    host = doomed(project, patch)
    async with project.engine() as engine:
        await until((project.folder / "marker").exists, "a runs")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        async with asyncio.timeout(8):
            receipt = await engine.execute(order)
        assert receipt.done.keys() == {"a"}
        assert receipt.refused == ()
        assert tagged(project.layout.state) == {}, "it is answered when the tree is gone"
        assert select(project.layout, "SELECT * FROM endings") == []
    host.kill()  # by force its tree is ended without it, so that it may not have come to that
    assert await ended(host) == -signal.SIGKILL
    await finish(project, Retry(("a",)))
    assert project.states() == {"DONE": 2}


async def test_a_release_is_answered_although_the_host_dies_of_it(project: Project) -> None:
    await hanging(project)
    host = doomed(project, "dying(Store, 'release')")
    async with project.engine() as engine:
        await until((project.folder / "marker").exists, "a runs")
        async with asyncio.timeout(8):
            receipt = await engine.execute(Release(("a",)))
        assert receipt.done == {"a": "released from doomed, whose process was gone"}
        assert tagged(project.layout.state) == {}
        assert project.state("a") == "READY"
    assert await ended(host) == -signal.SIGKILL
    assert tasks_of(project.layout)["a"]["attempts"] == 0
    await finish(project)
    assert project.states() == {"DONE": 2}


async def test_a_release_that_nobody_waits_for_any_more_is_carried_out(project: Project) -> None:
    await hanging(project)
    host = project.work("codex-1")
    await until((project.folder / "marker").exists, "a runs")
    process = doomed(
        project,
        "dying_at_commit_of(orders, 'release')",
        "await engine.execute(Hold())\nawait engine.execute(Release(('a',)))",
    )
    assert await ended(process) == -signal.SIGKILL
    await until(lambda: project.state("a") == "READY", "its worker lets go of it")
    assert tagged(project.layout.state) == {}
    host.send_signal(signal.SIGTERM)
    assert await ended(host) == 0, project.said("codex-1")
    await finish(project, Resume())
    assert project.states() == {"DONE": 2}


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param("dying(Store, 'condemn', after=True)", id="before-the-tree-is-ended"),
        pytest.param("dying(Store, 'expire')", id="before-the-task-is-freed"),
        pytest.param("dying(Store, 'expire', after=True)", id="after-it"),
    ],
)
async def test_a_reaper_that_dies_over_a_dead_hosts_run_leaves_it_to_the_next(
    project: Project, patch: str
) -> None:
    await hanging(project)
    await dies(project, "", RUNS_A + "die()")
    assert project.state("a") == "RUNNING"
    await dies(project, patch, "await engine.start_worker('claude', 'heir')")
    await finish(project)
    assert project.states() == {"DONE": 2}
    assert project.kinds("a").count("LEASE_EXPIRED") == 1


async def test_what_is_left_of_a_host_that_died_with_its_guard_is_ended_by_the_next_start(
    project: Project,
) -> None:
    prepare(project)
    a, b = acting("a", seconds=300, shape="stubborn"), acting("b", seconds=300, shape="far")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a, b)))
        host = project.work("codex-1")
        await until((project.folder / "diary").exists, "a runs")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        (guard,) = guards_of(project.layout)
        host.send_signal(signal.SIGSTOP)  # it must not start another one
        send(guard, signal.SIGKILL)
        host.kill()
        await ended(host)
        left = tagged(project.layout.state)
        assert len(left) == 2, "the leader and its child"
        # Its task changes meanwhile: only the tree tells that it may not run yet.
        await engine.execute(Seed(project.dag(acting("a", shape="left"), acting("b"))))
        await engine.start_worker("codex")
        async with asyncio.timeout(30):
            await engine.settled()
    assert not any(map(is_alive, left))
    await finish(project)
    assert project.states() == {"DONE": 2}
    assert project.kinds("a").count("LEASE_EXPIRED") == 1


@pytest.mark.parametrize("point", ["worker.Worker, 'interrupt'", "Store, 'release'"])
async def test_a_stop_is_answered_when_all_is_gone_although_the_host_dies_of_it(
    project: Project, point: str
) -> None:
    await hanging(project)
    host = doomed(project, f"dying({point})")
    async with project.engine() as engine:
        await until((project.folder / "marker").exists, "a runs")
        async with asyncio.timeout(8):
            receipt = await engine.execute(Stop(("doomed",)))
        assert receipt.done == {"doomed": "stopped"}
        assert tagged(project.layout.state) == {}
        assert project.state("a") == "READY"
    assert await ended(host) == -signal.SIGKILL
    await finish(project)
    assert project.states() == {"DONE": 2}


@pytest.mark.parametrize("name", ["enter", "leave"])
async def test_a_host_that_dies_over_the_files_of_its_worker_leaves_them_to_the_next_start(
    project: Project, name: str
) -> None:
    await seeded(project)
    await dies(project, f"dying(Presence, '{name}')", f"{WORK}\nawait engine.stop_workers()")
    assert list(project.layout.pids.iterdir()) == (
        [] if name == "enter" else [project.layout.pid_file("codex", "doomed")]
    )
    await finish(project)
    assert project.states() == {"DONE": 3}
    assert list(project.layout.pids.iterdir()) == []


# Around the log.


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        ("dying(mirror.Mirror, '_append')", 0),
        ("dying(mirror, '_write_all')", 0),
        (
            "mirror._write_all = lambda file, data: (os.write(file, data[:len(data) // 2]), die())",
            1,
        ),
        ("dying(mirror, '_write_mark')", 1),
    ],
    ids=["before", "begun", "in-the-middle", "before-the-mark"],
)
async def test_what_was_committed_before_a_host_died_is_in_the_log_after_the_next_start(
    project: Project, patch: str, left: int
) -> None:
    prepare(project)
    dag = project.dag(a_task("a"), a_task("b", "a"))
    await dies(project, "", f"{patch}\nawait engine.execute(Seed(Path('{dag.name}')))")
    assert project.states() == {"READY": 2}
    assert (project.layout.log.stat().st_size > 0) == bool(left)
    await finish(project)
    assert project.states() == {"DONE": 2}
    assert not project.layout.quarantine.exists()


@pytest.mark.parametrize(
    ("patch", "files"),
    [
        ("dying(mirror.Mirror, '_rotate')", ["events.jsonl"]),
        ("dying(Path, 'rename', after=True)", ["rotated"]),
        ("dying(mirror.Mirror, '_rotate', after=True)", ["rotated", "events.jsonl"]),
    ],
    ids=["before", "renamed", "no-line-yet"],
)
async def test_a_rotation_in_which_its_host_died_is_completed_by_the_next_start(
    project: Project, patch: str, files: list[str]
) -> None:
    await seeded(project)
    await dies(project, "", f"{patch}\nawait engine.execute(Reset())")
    names = [path.name for path in log_files(project.layout)]
    assert [name if name == "events.jsonl" else "rotated" for name in names] == files
    await finish(project)
    assert project.states() == {"DONE": 3}
    _, newest = log_files(project.layout)
    assert newest.read_text().split("\n")[0].find('"type":"RESET"') > 0


# Around the store itself, seeds and resets.


@pytest.mark.parametrize(
    "patch",
    [
        "dying(opening.Opening, '_bring_up_to_date')",
        "dying(opening, 'create_schema')",
        "dying(opening, 'create_schema', after=True)",
        "dying(journal.Journal, 'open')",
    ],
    ids=["empty-file", "before-the-schema", "after-it", "no-log-yet"],
)
async def test_a_host_that_dies_while_it_makes_the_store_is_in_nobodys_way(
    project: Project, patch: str
) -> None:
    prepare(project)
    assert await ended(doomed(project, patch)) == -signal.SIGKILL
    assert project.layout.database.exists()
    await finish(project, Seed(project.dag(a_task("a"), a_task("b", "a"))))
    assert project.states() == {"DONE": 2}
    assert not project.layout.quarantine.exists()


OTHER_DAG = (a_task("b", name="another b"), a_task("d", "b", agent="gemini"))


@pytest.mark.parametrize("name", ["_create", "_mark_removed", "_set_agents"])
async def test_a_host_that_dies_inside_a_reseed_leaves_no_trace_of_it(
    project: Project, name: str
) -> None:
    await seeded(project)
    before = everything(project.layout)
    other = project.dag(*OTHER_DAG)
    act = f"await engine.execute(Seed(Path('{other.name}')))"
    await dies(project, f"dying(seeding, '{name}', after=True)", act)
    assert everything(project.layout) == before
    await finish(project, Seed(other))
    assert project.states() == {"DONE": 2, "BLOCKED": 2}


async def test_a_reseed_whose_host_died_right_after_it_is_there_as_a_whole(
    project: Project,
) -> None:
    await seeded(project)
    other = project.dag(*OTHER_DAG)
    act = f"await engine.execute(Seed(Path('{other.name}')))"
    await dies(project, "dying_at_commit_of(seeding, 'seed')", act)
    await finish(project)
    assert project.states() == {"DONE": 2, "BLOCKED": 2}
    assert project.kinds().count("SEEDED") == 2


RESET = f"{RUNS_A}await engine.execute(Reset())"
BEFORE_THE_COMMIT = {
    "before-the-hold": "dying(Store, 'begin_reset')",
    "after-the-hold": "dying(Store, 'begin_reset', after=True)",
    "while-workers-are-asked": "dying(Presence, 'ask_stop', after=True)",
    "after-workers-stopped": "dying(reset.Resetter, '_stop_all', after=True)",
    "inside-the-transaction": "dying(resetting, '_lift')",
}
AFTER_THE_COMMIT = {
    "before-the-mirror": "dying_at_commit_of(resetting, 'complete')",
    "before-workers-start-again": "dying(Store, 'reset', after=True)",
}


@pytest.mark.parametrize(
    "patch", (points := BEFORE_THE_COMMIT | AFTER_THE_COMMIT).values(), ids=points
)
async def test_a_reset_that_was_cut_short_is_completed_by_doing_it_again(
    project: Project, patch: str
) -> None:
    await hanging(project)
    other = project.work("gemini-1", agent="gemini")
    await until(lambda: "WORKER_STARTED" in project.kinds(), "another worker is there")
    await dies(project, patch, RESET)
    resets = int(patch in AFTER_THE_COMMIT.values())
    assert project.kinds().count("RESET") == resets
    async with project.engine() as engine:
        await engine.execute(Reset())
    assert await ended(other) == 0, project.said("gemini-1")
    assert project.kinds().count("RESET") == resets + 1
    assert select(project.layout, "SELECT * FROM holds") == []
    assert select(project.layout, "SELECT * FROM meta WHERE key = 'reset'") == []
    await finish(project)
    assert project.states() == {"DONE": 2}
    assert len(log_files(project.layout)) == resets + 2


@pytest.mark.parametrize("patch", BEFORE_THE_COMMIT.values(), ids=BEFORE_THE_COMMIT)
async def test_a_reset_that_was_cut_short_can_be_left_at_that(project: Project, patch: str) -> None:
    await hanging(project)
    await dies(project, patch, RESET)
    held = select(project.layout, "SELECT agent FROM holds")
    assert held == ([] if "begin_reset')" in patch else [{"agent": "*"}]), "nobody claims meanwhile"
    await finish(project, Resume())
    assert project.states() == {"DONE": 2}
    assert "RESET" not in project.kinds()
    assert select(project.layout, "SELECT * FROM meta WHERE key = 'reset'") == []


@pytest.mark.parametrize("patch", AFTER_THE_COMMIT.values(), ids=AFTER_THE_COMMIT)
async def test_a_reset_whose_host_died_right_after_it_is_complete(
    project: Project, patch: str
) -> None:
    await hanging(project)
    await dies(project, patch, RESET)
    await finish(project)
    assert project.states() == {"DONE": 2}
    assert project.kinds().count("RESET") == 1
    assert len(log_files(project.layout)) == 2


# Suspended past its lease.


async def test_a_host_that_slept_past_its_lease_comes_too_late_and_its_tree_was_ended(
    project: Project,
) -> None:
    prepare(project)
    # It succeeds while its host is stopped, and leaves a child behind that does not go by itself.
    first_run = "trap '' TERM; sleep 300 & echo $! > child; wait_for=go"
    work = (
        f"if mkdir marker; then {first_run}; else wait_for=end; fi;"
        " while [ ! -e $wait_for ]; do sleep 0.02; done"
    )
    shell = {"kind": "shell", "argv": ["sh", "-c", work]}
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=shell))))
        first = project.work("codex-1")
        said = project.folder / "child"
        await until(lambda: said.exists() and said.read_text(), "the first one runs it")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        leader, child = leader_of(project.layout, "a"), identify(int(said.read_text()))
        assert leader is not None
        assert child is not None
        await suspend(first, project.layout)
        (project.folder / "go").touch()
        await until(lambda: not is_alive(leader), "the leader is through")
        assert is_alive(child)
        await engine.start_worker("codex", "codex-2")
        await until(lambda: "LEASE_EXPIRED" in project.kinds("a"), "its lease is over")
        assert not is_alive(child), "the tree is gone before the task is free"
        await until(lambda: project.kinds("a").count("TASK_CLAIMED") == 2, "the second one has it")
        first.send_signal(signal.SIGCONT)
        await until(lambda: "LATE_RESULT" in project.kinds("a"), "the first one comes too late")
        assert project.state("a") == "RUNNING", "the second one still holds it"
        (project.folder / "end").touch()
        await until(lambda: project.state("a") == "DONE", "the second one does it")
        first.send_signal(signal.SIGTERM)
        assert await ended(first) == 0, project.said("codex-1")
    late = next(event for event in project.events("a") if event.type == "LATE_RESULT")
    assert (late.worker_id, late.data["outcome"]) == ("codex-1", "done")
    done = [event for event in project.events("a") if event.type == "TASK_COMPLETED"]
    assert [event.worker_id for event in done] == ["codex-2"]
    await check_everything(project)
