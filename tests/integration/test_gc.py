"""Promises of gc: what is old and needed by nothing goes, nothing else, whatever gets between."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.clock import ManualClock
from support.stores import HOST, Opened, a_dag, a_task, events_of, opened, select, tasks_of

from engine.care import gc
from engine.care.gc import Collected, Plan, parse_age
from engine.clock import SystemClock
from engine.errors import CommandNotAllowed, StorageError, ValidationError
from engine.findings import Level
from engine.log.check import check_log
from engine.log.mirror import Mirror
from engine.log.repair import rewrite
from engine.logfiles import find_end, log_files
from engine.machine import fold
from engine.model import Outcome, RunOutcome
from engine.store import forgetting, orders
from engine.store.audit import audit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.model import Claim, Dag

DAY = timedelta(days=1)
MONTH = timedelta(days=30)
DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    # Real time at first: folders carry the time of the file system.
    async with opened(tmp_path, clock=ManualClock(SystemClock().now())) as it:
        yield it


async def pass_days(it: Opened, days: float) -> None:
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(days * 86400)


def leave(it: Opened, task_id: str, run_id: str, size: int = 100) -> Path:
    """Leave behind what a run leaves."""
    folder = it.layout.run_folder(task_id, run_id)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "stdout.log").write_bytes(b"x" * size)
    (folder / "deep" / "er" / "result.json").write_bytes(b"y" * size)
    return folder


async def a_run(it: Opened, outcome: Outcome = DONE) -> tuple[Claim, Path]:
    claim = await it.claim()
    folder = leave(it, claim.task.id, claim.run_id)
    await it.store.finish(claim, outcome)
    return claim, folder


def plan(it: Opened, older_than: timedelta = MONTH) -> Plan:
    return gc.plan(it.layout, older_than, it.clock.now())


async def collect(it: Opened, older_than: timedelta = MONTH) -> Collected:
    return await gc.carry_out(plan(it, older_than), partial(forget, it))


async def forget(it: Opened, upto: int, at_most: int) -> int:
    change = partial(forgetting.forget, upto=upto, at_most=at_most)
    return await it.store._writer.write(change)


def catch_up(it: Opened) -> None:
    with closing(Mirror(it.layout, it.clock)) as mirror:
        assert mirror.catch_up()
        assert mirror.notices == []


def last_of(path: Path) -> int:
    with path.open("rb") as file:
        return find_end(file.fileno()).seq


def is_sound(it: Opened) -> bool:
    """Say whether log and table agree and fold to the tasks."""
    return audit(it.layout.database) == [] == check_log(it.layout, at_work=False)


def left(it: Opened) -> set[str]:
    """Return everything below artifacts/."""
    root = it.layout.artifacts
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("30d", MONTH),
        ("12h", DAY / 2),
        ("90m", timedelta(hours=1.5)),
        (" 45s ", timedelta(seconds=45)),
        ("0s", timedelta()),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_an_age_is_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5h", "1d 2h", "1w", "٣d", "36501d", "999999999999d", "1D"]
)
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(ValidationError, match=r"100 years|30d, 12h, 90m or 45s"):
        parse_age(text)


async def test_runs_that_ended_long_ago_lose_their_files_and_nothing_else(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("old: ü/.."), a_task("young"), a_task("x" * 200)))
    _, old = await a_run(it)
    await pass_days(it, 31)
    _, young = await a_run(it)
    claim, _ = await a_run(it)
    found = plan(it)
    assert [(run.run, run.bytes) for run in found.runs] == [(old.name, 200)]
    assert found.emptied == (old.parent.name,)
    before = left(it)
    collected = await gc.carry_out(found, partial(forget, it))
    assert (collected.runs, collected.folders, collected.bytes, collected.refused) == (
        1,
        1,
        200,
        [],
    )
    assert not old.parent.exists()
    assert before - left(it) == {
        old.parent.name,
        *(f"{old.parent.name}/{old.name}{inside}" for inside in INSIDE),
    }
    assert len(select(it.layout, "SELECT * FROM runs")) == 3, "the record of a run stays"
    await pass_days(it, 30)
    assert {run.run for run in plan(it).runs} == {young.name, claim.run_id}
    await collect(it)
    assert left(it) == set()
    assert await collect(it) == Collected()


INSIDE = ("", "/stdout.log", "/deep", "/deep/er", "/deep/er/result.json")


async def test_planning_changes_nothing(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await a_run(it)
    catch_up(it)
    await pass_days(it, 31)
    before, log = left(it), it.layout.log.read_bytes()
    assert plan(it) == plan(it)
    assert plan(it).bytes == 200
    assert (left(it), it.layout.log.read_bytes()) == (before, log)


async def test_a_run_that_goes_on_or_whose_tree_may_live_keeps_its_files(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("runs"), a_task("ending"), a_task("purged")))
    folders = []
    for _ in range(3):
        claim = await it.claim()
        folders.append(leave(it, claim.task.id, claim.run_id))
        await it.store.start(claim) if claim.state == "CLAIMED" else None
    await it.store.order(partial(orders.cancel, task_ids=["ending"]))
    await it.store.order(partial(orders.purge, task_ids=["purged"]))
    await pass_days(it, 400)
    # Claimed, and its folder not made yet.
    await it.store.seed(a_dag(a_task("runs"), a_task("begins")))
    begins = it.layout.run_folder((await it.claim()).task.id, "x").parent
    begins.mkdir()
    assert (plan(it).runs, plan(it).emptied) == ((), ())
    for folder in folders[1:]:
        await it.store.gone(folder.name)
    assert {run.run for run in plan(it).runs} == {folder.name for folder in folders[1:]}
    await collect(it)
    assert [folder.exists() for folder in (*folders, begins)] == [True, False, False, True]


async def test_a_run_that_the_store_does_not_know_goes_by_the_age_of_its_files(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim, folder = await a_run(it)
    await it.store.order(partial(orders.purge, task_ids=["a"]))
    deep = folder / "deep" / "er"
    for path in (folder, folder / "stdout.log", folder / "deep", deep / "result.json"):
        os.utime(path, (0, 0), follow_symlinks=False)
    assert plan(it).runs == (), "one folder in it is new"
    os.utime(deep, (0, 0))
    assert [run.run for run in plan(it).runs] == [claim.run_id]
    assert [run.run for run in plan(it, timedelta()).runs] == [claim.run_id]


async def test_a_run_of_another_store_beside_this_one_stays_for_a_day_at_least(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    leave(it, "theirs", "0123456789abcdef0123456789abcdef")
    await pass_days(it, 0.9)
    assert plan(it, timedelta()).runs == ()
    assert any("1 run that the store does not know" in one for one in plan(it, timedelta()).kept)
    await pass_days(it, 0.2)
    assert len(plan(it, timedelta()).runs) == 1


async def test_names_that_are_not_ours_and_links_are_left_alone(it: Opened, tmp_path: Path) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    claim, folder = await a_run(it)
    other, linked = await a_run(it)
    outside = tmp_path / "outside"
    leave(Opened(it.store, type(it.layout)(outside / "state"), it.clock), "c", "f" * 32)
    (folder / "link").symlink_to(outside, target_is_directory=True)
    away = linked.rename(tmp_path / "moved")
    linked.symlink_to(away, target_is_directory=True)
    artifacts = it.layout.artifacts
    (artifacts / "c").symlink_to(outside / "artifacts" / "c", target_is_directory=True)
    (artifacts / "notes").mkdir()
    (artifacts / "notes" / "mine").mkdir()
    (artifacts / "notes" / ("E" * 32)).mkdir()
    (artifacts / "notes" / claim.run_id).mkdir()  # of another task
    (artifacts / "not ours: ü").mkdir()
    (artifacts / ".hidden").mkdir()
    odd = os.fsdecode(b"\xff\xfe")
    (artifacts / odd).mkdir()
    (artifacts / "notes" / odd).mkdir()
    (artifacts / "README").write_text("mine")
    (artifacts / "empty").mkdir()
    await pass_days(it, 400)
    assert [run.run for run in plan(it).runs] == [claim.run_id]
    collected = await collect(it)
    assert (collected.runs, collected.folders, collected.refused) == (1, 2, [])
    assert not (artifacts / "empty").exists(), "an empty folder may be that of a task"
    assert {path.name for path in artifacts.iterdir()} == {
        ".hidden",
        "README",
        "b",
        "c",
        "not ours: ü",
        "notes",
        odd,
    }
    assert len(list((artifacts / "notes").iterdir())) == 4
    assert (away / "stdout.log").exists()
    assert (outside / "artifacts" / "c" / ("f" * 32) / "stdout.log").exists()
    assert (artifacts / "b" / other.run_id).is_symlink()


async def test_a_task_folder_that_became_a_link_meanwhile_is_not_followed(
    it: Opened, tmp_path: Path
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    _, folder = await a_run(it)
    await pass_days(it, 31)
    found = plan(it)
    moved = folder.parent.rename(tmp_path / "moved")
    folder.parent.symlink_to(moved, target_is_directory=True)
    collected = await gc.carry_out(found, partial(forget, it))
    assert (moved / folder.name / "stdout.log").exists()
    assert [refusal.subject for refusal in collected.refused] == [str(folder)]
    assert collected.runs == 0


async def test_a_folder_that_cannot_be_looked_at_is_told_and_stays(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c")))
    folders = [(await a_run(it))[1] for _ in range(3)]
    await pass_days(it, 31)
    scan = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path) in {folders[0].parent, folders[1] / "deep"}:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr("engine.care.gcplan.os.scandir", refuse)
        found = plan(it)
    assert [run.run for run in found.runs] == [folders[2].name]
    assert [str(folders[0].parent) in found.kept[0], str(folders[1]) in found.kept[1]] == [True] * 2
    assert all("Permission denied; mend" in sentence for sentence in found.kept)


async def test_what_cannot_be_removed_is_told_and_the_rest_goes(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c")))
    folders = [(await a_run(it))[1] for _ in range(3)]
    await pass_days(it, 31)
    remove = shutil.rmtree

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == folders[1].name:
            raise PermissionError(13, "Permission denied", name)
        remove(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr("engine.care.gc.shutil.rmtree", refuse)
        collected = await collect(it)
    (refusal,) = collected.refused
    assert (refusal.subject, refusal.code) == (str(folders[1]), "IO_ERROR")
    assert "Permission denied" in refusal.message
    assert (collected.runs, collected.folders) == (2, 2)
    assert [folder.exists() for folder in folders] == [False, True, False]


async def test_the_folder_of_a_task_that_was_claimed_meanwhile_stays(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=1)))
    await a_run(it, FAILED)
    await pass_days(it, 31)
    await it.store.end_backoff()
    found = plan(it)
    assert found.emptied == ("a",)
    await it.claim()
    collected = await gc.carry_out(found, partial(forget, it))
    assert (collected.runs, collected.folders) == (1, 0)
    assert left(it) == {"a"}


async def test_artifacts_that_cannot_be_listed_are_an_error(it: Opened) -> None:
    it.layout.artifacts.write_text("no folder")
    with pytest.raises(StorageError, match="artifacts: Not a directory"):
        plan(it)


async def reset(it: Opened, *ids: str) -> None:
    """Reset to these tasks; what is gone from the DAG is purged."""
    await it.store.reset(a_dag(*map(a_task, ids)), fresh=False)
    gone = [task_id for task_id in tasks_of(it.layout) if task_id not in ids]
    await it.store.order(partial(orders.purge, task_ids=gone))
    catch_up(it)


async def three_generations(it: Opened) -> None:
    """Three files of the log, each of tasks of its own, 25 days apart: the first is a month old."""
    await it.store.seed(a_dag(a_task("one"), a_task("uno")))
    await a_run(it)
    for ids in (("two",), ("three", "drei")):
        await pass_days(it, 25)
        await reset(it, *ids)
        await a_run(it)
    await pass_days(it, 1)
    catch_up(it)
    assert len(log_files(it.layout)) == 3
    assert is_sound(it)


async def test_a_rotated_log_that_nothing_needs_goes_with_its_events(it: Opened) -> None:
    await three_generations(it)
    oldest, middle, newest = log_files(it.layout)
    # The tasks of each generation are purged after the RESET, so their end lies in the next file.
    found = plan(it)
    assert ([log.path for log in found.logs], found.kept) == ([oldest], ())
    last = found.upto
    assert found.events == last
    size = oldest.stat().st_size
    collected = await gc.carry_out(found, partial(forget, it))
    assert (collected.logs, collected.events, collected.refused) == (1, last, [])
    assert collected.bytes >= size
    assert log_files(it.layout) == [middle, newest]
    assert [row["seq"] for row in select(it.layout, "SELECT min(seq) AS seq FROM events")] == [
        last + 1
    ]
    assert is_sound(it)
    assert fold(events_of(it.layout)).keys() == tasks_of(it.layout).keys() == {"three", "drei"}
    await pass_days(it, 30)
    await collect(it)
    assert log_files(it.layout) == [newest]
    assert is_sound(it)
    await it.store.hold("codex")
    catch_up(it)
    assert is_sound(it)
    assert rewrite(it.layout) is None


async def test_a_log_without_its_oldest_file_is_written_anew_as_it_was(it: Opened) -> None:
    await three_generations(it)
    await collect(it)
    before = [path.read_bytes() for path in log_files(it.layout)]
    for path in log_files(it.layout):
        path.unlink()
    catch_up(it)
    assert [path.read_bytes() for path in log_files(it.layout)] == before
    assert is_sound(it)


async def test_what_gc_leaves_of_the_log_rebuilds_the_store(tmp_path: Path) -> None:
    columns = "id, name, agent, state, reasons, attempts, deps, payload"
    async with opened(tmp_path, clock=ManualClock()) as it:
        await three_generations(it)
        await it.store.hold("gemini")
        catch_up(it)
        assert (await collect(it)).logs == 1
        tasks = select(it.layout, f"SELECT {columns} FROM tasks ORDER BY id")
    for file in it.layout.state.glob("tasks.db*"):
        file.unlink()
    async with opened(tmp_path, clock=it.clock) as again:
        assert select(again.layout, f"SELECT {columns} FROM tasks ORDER BY id") == tasks
        assert [row["agent"] for row in select(again.layout, "SELECT * FROM holds")] == ["gemini"]
        catch_up(again)
        assert is_sound(again)
        assert (await collect(again)).logs == 0, "what is left is needed"


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("a living task", "task 'one' was created before it ends"),
        ("a purged dep", "task 'dep' was created before it ends"),
        ("an ending run", "task 'one' was created before it ends"),
        ("a hold", "the hold of gemini began before it ends"),
        ("a hold of all", "the hold of [*] began before it ends"),
        ("what an older agentmux left", "task 'one' was created before it ends"),
    ],
)
async def test_a_rotated_log_that_a_rebuild_needs_stays_however_old(
    it: Opened, needs: str, reason: str
) -> None:
    await it.store.seed(a_dag(a_task("one"), a_task("dep")))
    if needs == "an ending run":
        await it.claim()
        await it.store.order(partial(orders.purge, task_ids=["one"]))
    if needs.startswith("a hold"):
        await it.store.hold("*" if "all" in needs else "gemini")
    after = [a_task("one")] if needs == "a living task" else [a_task("two")]
    if needs == "a purged dep":
        after = [a_task("dep"), a_task("two", "dep")]
    await it.store.reset(a_dag(*after), fresh=False)
    gone = {"one", "dep"} - {task.id for task in after if needs != "a purged dep"}
    await it.store.order(partial(orders.purge, task_ids=sorted(gone)))
    if needs == "what an older agentmux left":
        row = "'2020-01-01T00:00:00.000Z', 'TASK_CREATED', 'one', '{\"adopted\":true}'"
        await it.store._writer.write(
            lambda tx: tx.db.execute(f"INSERT INTO events(ts, type, task_id, data) VALUES ({row})")
        )
        await it.store._writer.write(
            lambda tx: tx.db.execute("INSERT INTO purged VALUES ('one', 1)")
        )
    catch_up(it)
    await pass_days(it, 400)
    found = plan(it)
    assert (found.logs, found.upto) == ((), 0)
    (kept,) = found.kept
    oldest, _ = log_files(it.layout)
    assert kept.startswith(f"{oldest.name} stays, a rebuild would need it: ")
    with pytest.raises(CommandNotAllowed, match=reason):
        await forget(it, last_of(oldest), 10)
    assert select(it.layout, "SELECT 1 FROM meta WHERE key = 'log_from'") == []


async def test_events_are_forgotten_only_up_to_where_a_file_begins(it: Opened) -> None:
    await three_generations(it)
    last = last_of(log_files(it.layout)[0])
    for upto in (last - 1, last + 1, 10_000):
        with pytest.raises(CommandNotAllowed, match="no file of the log begins"):
            await forget(it, upto, 10)


async def test_a_task_that_came_again_does_not_need_the_log_of_its_former_life(it: Opened) -> None:
    for _ in range(2):
        await it.store.seed(a_dag(a_task("a")))
        await a_run(it)
        await it.store.order(partial(orders.purge, task_ids=["a"]))
        await it.store.reset(a_dag(a_task("a")), fresh=False)
    catch_up(it)
    await pass_days(it, 31)
    assert [log.path for log in plan(it).logs] == log_files(it.layout)[:2]
    await collect(it)
    assert is_sound(it)
    assert len(log_files(it.layout)) == 1


async def test_a_log_whose_end_cannot_be_read_stays(it: Opened) -> None:
    await three_generations(it)
    oldest, *_ = log_files(it.layout)
    with oldest.open("ab") as log:
        log.write(b"what is this?")
    assert plan(it).logs == ()
    assert "its end cannot be read; run `agentmux doctor`" in str(plan(it).kept)


class Cut(Exception):  # noqa: N818 - no error, the end of a process
    """The end of a process."""


@pytest.mark.parametrize("steps", range(4))
async def test_a_gc_that_was_cut_short_leaves_nothing_wrong_and_is_completed_by_the_next(
    it: Opened, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    await three_generations(it)
    monkeypatch.setattr(gc, "_EVENTS_AT_ONCE", 2)
    done = 0

    async def forget_some(upto: int, at_most: int) -> int:
        nonlocal done
        if done == steps:
            raise Cut
        done += 1
        return await forget(it, upto, at_most)

    with pytest.raises(Cut):
        await gc.carry_out(plan(it), forget_some)
    assert audit(it.layout.database) == []
    notes = check_log(it.layout, at_work=False)
    assert [note.level for note in notes] == [Level.NOTE] * (steps > 0)
    if steps:
        assert "forgotten by the store" in notes[0].message
        assert "`agentmux gc`" in notes[0].advice
    assert rewrite(it.layout) is None
    # Whatever else happens before: the rest goes without regard to its age now.
    await it.store.hold("codex")
    catch_up(it)
    collected = await collect(it, timedelta(days=4000) if steps else MONTH)
    assert collected.logs == 1
    assert len(log_files(it.layout)) == 2
    assert is_sound(it)
    assert plan(it).upto == 0


async def test_a_log_that_was_forgotten_but_not_removed_goes_without_regard_to_its_age(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_generations(it)

    def refuse(_plan: Plan, _collected: Collected) -> None:
        raise PermissionError(13, "Permission denied", "events")

    with monkeypatch.context() as patched:
        patched.setattr(gc, "_remove_logs", refuse)
        collected = await collect(it)
    assert (collected.logs, len(collected.refused)) == (0, 1)
    assert [note.level for note in check_log(it.layout, at_work=False)] == [Level.NOTE]
    assert rewrite(it.layout) is None
    assert (await collect(it, timedelta(days=4000))).logs == 1
    assert is_sound(it)


async def test_a_log_that_was_written_anew_meanwhile_is_not_removed(it: Opened) -> None:
    await three_generations(it)
    found = plan(it)
    oldest, middle, _ = log_files(it.layout)
    oldest.write_bytes(middle.read_bytes())
    collected = await gc.carry_out(found, partial(forget, it))
    assert collected.logs == 0
    assert oldest.exists()


async def test_quarantine_and_backups_are_never_touched(it: Opened) -> None:
    for place in (it.layout.quarantine, it.layout.backup):
        (place / "20000101T000000000Z").mkdir(parents=True)
        (place / "20000101T000000000Z" / "events.20000101T000000000Z.jsonl").write_text("old")
        os.utime(place, (0, 0))
    await it.store.seed(a_dag(a_task("a")))
    before = sorted(path for path in it.layout.state.rglob("*") if path.is_file())
    await pass_days(it, 4000)
    await collect(it, timedelta())
    assert sorted(path for path in it.layout.state.rglob("*") if path.is_file()) == before
    assert "quarantine" in gc.UNTOUCHED
    assert "backup" in gc.UNTOUCHED


class Life:
    """Operators and workers that do anything, by the fall of the dice."""

    def __init__(self, it: Opened, dice: random.Random) -> None:
        self.it = it
        self.dice = dice
        self.removed = 0
        self.names = [f"t{n}" for n in range(6)]
        self.moves = (self.seed, self.reset, self.purge, self.hold, self.retry, self.work)

    def dag(self) -> Dag:
        chosen = sorted(self.dice.sample(self.names, self.dice.randint(1, 6)))
        deps = (self.dice.sample(chosen[:n], min(n, self.dice.randint(0, 2))) for n in range(6))
        return a_dag(*(a_task(name, *on) for name, on in zip(chosen, deps, strict=False)))

    async def seed(self) -> None:
        await self.it.store.seed(self.dag())

    async def reset(self) -> None:
        await self.it.store.reset(self.dag(), fresh=self.dice.random() < 0.5)

    async def purge(self) -> None:
        tasks = self.dice.sample(self.names, 3)
        await self.it.store.order(partial(orders.purge, task_ids=tasks))
        for row in select(self.it.layout, "SELECT run_id FROM endings"):
            await self.it.store.gone(row["run_id"])

    async def hold(self) -> None:
        store = self.it.store
        await (store.hold if self.dice.random() < 0.3 else store.resume)("codex")

    async def retry(self) -> None:
        await self.it.store.order(partial(orders.retry, task_ids=self.names))

    async def work(self) -> None:
        claim = await self.it.store.claim("codex", "codex-1", HOST)
        if claim is not None:
            leave(self.it, claim.task.id, claim.run_id)
            await self.it.store.finish(claim, self.dice.choice((DONE, FAILED)))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_log_and_table_still_fold_to_the_tasks_after_a_gc(
    it: Opened, seed: int
) -> None:
    dice = random.Random(seed)
    life = Life(it, dice)
    for _ in range(100):
        await dice.choice(life.moves)()
        await pass_days(it, dice.choice((0, 1, 20)))
        catch_up(it)
        if dice.random() < 0.3:
            collected = await collect(it)
            assert collected.refused == []
            life.removed += collected.logs
            assert is_sound(it)
    assert life.removed > 0, "the dice must have given gc something to do"
