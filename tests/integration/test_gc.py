"""Promises of gc: artifacts that are old and needed by nobody go, nothing else does."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.aged import (
    DAY,
    FAILED,
    MONTH,
    a_run,
    catch_up,
    collect,
    forget,
    leave,
    left,
    pass_days,
    plan,
)
from support.clock import ManualClock
from support.engines import until
from support.stores import Opened, a_dag, a_task, opened, select

from engine.care import gc, gcplan
from engine.care.gc import Collected
from engine.clock import SystemClock
from engine.errors import StorageError, ValidationError
from engine.model import AlertKind, NewAlert
from engine.moments import parse_age
from engine.store import orders
from engine.store.database import WriteLock
from engine.store.watched import WatchedLog, Watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    # Real time at first: folders carry the time of the file system.
    async with opened(tmp_path, clock=ManualClock(SystemClock().now())) as it:
        yield it


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


async def test_what_an_alert_told_goes_long_after_it_was_acknowledged(it: Opened) -> None:
    folder = it.layout.alerts
    names = ("old.md", "open.md", "new.md", "stray.md", "begun.draft", "stray.draft", "other.txt")
    for name in names:
        (folder / name).write_text("12345")
    noticed = NewAlert(AlertKind.LOG, "app.log", "1 line")
    told = [replace(noticed, body=f"alerts/{name}") for name in names[:3]]
    old, _, new = await it.store.raise_alerts(told)
    begun = it.layout.alert_draft("file:/app.log")
    (folder / "begun.draft").rename(begun)
    await it.store.note_watched(Watching(logs=(WatchedLog("file:/app.log", draft=5),)))
    await it.store.acknowledge([old])
    await pass_days(it, 31)
    await it.store.acknowledge([new])
    collected = await collect(it)
    assert {path.name for path in folder.iterdir()} == {
        "open.md",
        "new.md",
        begun.name,
        "other.txt",
    }
    assert (collected.bodies, collected.bytes) == (3, 15)
    assert await collect(it) == Collected()


async def test_no_task_folder_is_removed_while_its_task_may_be_claimed(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    _, folder = await a_run(it)
    await pass_days(it, 31)
    found = plan(it)
    with closing(WriteLock(it.layout.write_lock)) as lock:
        lock.acquire()
        collecting = asyncio.create_task(gc.carry_out(found, partial(forget, it)))
        await until(lambda: not folder.exists(), "the run's folder went first")
        await asyncio.sleep(0.1)
        assert left(it) == {"a"}, "whoever holds the lock may just claim it"
        lock.release()
        assert (await collecting).folders == 1


async def test_a_run_that_is_purged_while_gc_looks_keeps_its_files(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    folder = leave(it, "a", claim.run_id)
    await pass_days(it, 400)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0))
    loop, ask = asyncio.get_running_loop(), gcplan._Finder._ask

    def purged_before(finder: gcplan._Finder, run_ids: list[str]) -> object:
        purge = it.store.order(partial(orders.purge, task_ids=["a"]))
        asyncio.run_coroutine_threadsafe(purge, loop).result(10)
        return ask(finder, run_ids)

    monkeypatch.setattr(gcplan._Finder, "_ask", purged_before)
    found = await asyncio.to_thread(plan, it)
    assert found.runs == (), "it is being ended, and may write until it is gone"
