"""What only a person can settle: told once, oldest first, and looked for no more than it pays."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
from support.clock import START, ManualClock
from support.engines import Project, until
from support.stores import a_task

from engine.care import attention as attention_module
from engine.care import health as health_module
from engine.care.attention import Attention, _words
from engine.care.facts import Alert, Kind
from engine.care.health import HealthWatch, Report, assess
from engine.commands import Cancel, Hold, Retry, Seed
from engine.config import Config
from engine.core import Engine
from engine.findings import Level
from engine.store import needs as needs_module
from engine.store.needs import NeedyTask
from engine.views import Need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.model import TaskDef
    from engine.views import AttentionRow

FORBIDDEN = {"kind": "shell", "cmd": "rm -rf nothing"}
BROKEN = {"kind": "shell", "cmd": "sh -c 'exit 3'"}


@asynccontextmanager
async def worked(project: Project, *tasks: TaskDef) -> AsyncIterator[Engine]:
    """Open an engine over a DAG that has been worked until nothing more can run."""
    project.settings("shell: {allow: [sh, sleep]}\n")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_workers()
        await engine.settled()
        await engine.stop_workers()
        yield engine


def in_short(rows: list[AttentionRow]) -> list[tuple[str, str]]:
    return [(str(row.need), row.subject) for row in rows]


async def test_who_waits_for_a_person_and_who_has_no_retry_left_is_told_oldest_first(
    project: Project,
) -> None:
    tasks = [
        a_task("ask", payload=FORBIDDEN, priority=3),
        a_task("bad", payload=BROKEN, priority=2),
        a_task("good", priority=1),
        a_task("after", "bad"),
    ]
    async with worked(project, *tasks) as engine:
        rows = await engine.attention()
    assert in_short(rows) == [("human", "ask"), ("exhausted", "bad")]
    ask, bad = rows
    assert (ask.task_id, bad.task_id) == ("ask", "bad")
    assert ask.words.startswith("needs you: ")
    assert "retry" in ask.words
    assert bad.words.startswith("failed: exit code 3")
    assert ask.since <= bad.since


@pytest.mark.parametrize(
    ("attempts", "retries", "told"), [(3, 2, True), (2, 2, False), (1, 0, False)]
)
def test_that_no_retry_is_left_is_told_only_where_there_was_one(
    attempts: int, retries: int, *, told: bool
) -> None:
    task = NeedyTask("a", True, None, attempts, retries, False, START)
    assert ("no retry is left" in _words(task)) is told


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("error", ["log in, then retry the task", "exit code 3", None])
def test_that_a_retry_helps_is_told_once(error: str | None, *, failed: bool) -> None:
    task = NeedyTask("a", failed, error, 1, 0, False, START)
    assert _words(task).count("retry") == 1


async def test_what_was_settled_is_told_no_more_and_a_retry_that_fails_again_is(
    project: Project,
) -> None:
    tasks = [a_task("ask", payload=FORBIDDEN), a_task("bad", payload=BROKEN)]
    async with worked(project, *tasks) as engine:
        assert len(await engine.attention()) == 2
        await engine.execute(Cancel(("ask",)))
        await engine.execute(Retry(("bad",)))
        await until(lambda: _needs(engine), "both are settled")
        await engine.start_workers()
        await engine.settled()
        await until(lambda: _needs(engine, "bad"), "it failed again")


async def _needs(engine: Engine, *subjects: str) -> bool:
    return [row.subject for row in await engine.attention()] == list(subjects)


async def test_a_task_that_failed_and_left_the_dag_needs_nobody(project: Project) -> None:
    async with worked(project, a_task("bad", payload=BROKEN), a_task("good")) as engine:
        assert len(await engine.attention()) == 1
        await engine.execute(Seed(project.dag(a_task("good"))))
        await until(lambda: _needs(engine), "it is told no more")


async def test_held_claims_and_a_long_queue_need_nobody(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*(a_task(f"t{n}") for n in range(30)))))
        await engine.execute(Hold("codex"))
        assert await engine.attention() == []


async def test_a_worker_that_is_gone_is_told_once_with_what_it_held_and_since_when(
    project: Project,
) -> None:
    project.settings("lease: 600\nstale_after: 15\nshell: {allow: [sleep]}\n")
    sleeper = a_task("long", payload={"kind": "shell", "cmd": "sleep 300"})
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(sleeper)))
        process = project.work("codex-9")
        await until(lambda: project.state("long") == "RUNNING", "it runs")
        process.kill()
        process.wait()
        (dead,) = await engine.queries.workers()
        rows = await engine.attention()
        (row,) = [one for one in rows if one.need is Need.STALE]
        assert (row.subject, row.worker_id, row.key) == ("codex-9", "codex-9", "stale:codex-9")
        assert "holds task 'long'" in row.words
        assert row.since == dead.beat_at
        assert not [one for one in rows if one.need is Need.ALERT]


def told(*alerts: Alert) -> Any:
    """Let health tell these alerts; return what stands in for it, which counts its calls."""

    async def take(*_: object) -> Report:
        take.calls += 1  # type: ignore[attr-defined]
        health = assess(alerts)
        return Report(health.status, health.parts, 0, 0, 0, 0, 0, 0, 0, None, 0, (), alerts, START)

    take.calls = 0  # type: ignore[attr-defined]
    return take


@asynccontextmanager
async def made_up(
    project: Project, monkeypatch: pytest.MonkeyPatch, *alerts: Alert
) -> AsyncIterator[tuple[Attention, ManualClock, Any]]:
    """Attention over an empty store, a clock that stands still, and made-up health."""
    health = told(*alerts)
    monkeypatch.setattr(health_module, "take_health", health)
    clock = ManualClock()
    async with project.engine() as engine:
        read = engine.queries
        watch = HealthWatch(engine.layout, project.folder, Config(), clock, read.last_seq)
        attention = Attention(engine.layout, clock, watch, read.last_seq, read.alerts)
        yield attention, clock, health


ORPHAN = Alert(Level.ERROR, Kind.ORPHAN, "run-1", "processes of it live: 4711")
STRANGE = Alert(Level.ERROR, Kind.INCONSISTENCY, "tallies", "they are wrong")
RESET = Alert(Level.WARNING, Kind.RESET, None, "a reset has begun")
NOTE = Alert(Level.NOTE, Kind.ORPHAN, None, "no /proc")


async def test_alerts_without_a_time_are_as_old_as_our_first_sight_of_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with made_up(project, monkeypatch, ORPHAN, STRANGE, NOTE) as (attention, clock, _):
        first = await attention.rows()
        await clock.advance(60)
        again = await attention.rows()
    assert in_short(first) == [("alert", "tallies"), ("orphan", "run-1")]
    assert first == again
    assert {row.since for row in first} == {START}


async def test_health_is_asked_now_and_then_however_often_we_are(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with made_up(project, monkeypatch, ORPHAN) as (attention, clock, health):
        await asyncio.gather(*(attention.rows() for _ in range(20)))
        assert health.calls == 1
        await clock.advance(9.9)
        await attention.rows()
        assert health.calls == 1, "nothing was committed"
        await clock.advance(0.2)
        await attention.rows()
        assert health.calls == 2
        monkeypatch.setattr(attention._health, "_last_seq", AsyncMock(return_value=7))
        await clock.advance(4.9)
        await attention.rows()
        assert health.calls == 2
        await clock.advance(0.2)
        await attention.rows()
        assert health.calls == 3


async def test_a_reset_is_told_only_once_it_must_have_been_given_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with made_up(project, monkeypatch, RESET) as (attention, clock, _):
        assert await attention.rows() == []
        await clock.advance(59)
        assert await attention.rows() == []
        await clock.advance(2)
        (row,) = await attention.rows()
    assert (row.need, row.subject, row.since) == (Need.ALERT, "reset", START)


@pytest.mark.parametrize("kind", [Kind.LOGIN, Kind.BUDGET])
async def test_claims_that_stay_held_are_told_with_the_agent_whose_they_are(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    held = Alert(Level.WARNING, kind, "claude", "claims are held")
    async with made_up(project, monkeypatch, held, STRANGE) as (attention, _, _):
        rows = await attention.rows()
    assert {row.subject: (row.held, row.agent) for row in rows} == {
        "claude": ("claude", None), "tallies": (None, None),
    }  # fmt: skip


async def test_that_no_worker_serves_an_agent_is_told_only_once_it_is_so_for_a_while(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    unserved = Alert(Level.WARNING, Kind.UNSERVED, "claude", "no claude worker runs")
    async with made_up(project, monkeypatch, unserved) as (attention, clock, _):
        assert await attention.rows() == [], "workers may be about to start"
        await clock.advance(5)
        (row,) = await attention.rows()
    assert (row.need, row.subject, row.agent) == (Need.ALERT, "claude", "claude")
    assert row.words == "no claude worker runs"


async def test_tasks_are_looked_through_only_after_something_happened(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    read = needs_module.read_needs

    def counted(database: Path, limit: int) -> needs_module.NeedyTasks:
        looks.append(limit)
        return read(database, limit)

    monkeypatch.setattr(attention_module, "read_needs", counted)
    async with worked(project, a_task("bad", payload=BROKEN)) as engine:
        for _ in range(5):
            assert len(await engine.attention()) == 1
        assert len(looks) == 1


async def test_of_very_many_the_oldest_are_told_and_the_rest_is_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "MOST", 5)
    tasks = [a_task(f"t{n:02d}") for n in range(20)]
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
    with closing(sqlite3.connect(project.layout.database)) as db:
        for n in range(20):
            moment = (START + timedelta(seconds=100 - n)).isoformat(timespec="milliseconds")
            state, reasons = ("BLOCKED", '["human"]') if n % 4 == 0 else ("FAILED", "[]")
            db.execute(
                "UPDATE tasks SET state = ?, reasons = ?, attempts = 3, retries = 2,"
                " error = 'no', updated_at = ? WHERE id = ?",
                (state, reasons, moment[:23] + "Z", f"t{n:02d}"),
            )
        db.commit()
    async with Engine(project.layout.state, project=project.folder, read_only=True) as engine:
        rows = await engine.attention()
    assert [row.subject for row in rows] == ["t19", "t18", "t17", "t16", "t15", "15 more"]
    assert rows[0].words.startswith("failed after 3 attempts, no retry is left: no; ")
    assert rows[-1].words == "and 15 more tasks: 11 failed and 4 blocked"
    assert (rows[-1].key, rows[-1].task_id) == ("more", None)
    assert len({row.key for row in rows}) == len(rows)


async def test_a_run_that_takes_very_long_is_told_with_its_task(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Alert(Level.WARNING, Kind.STUCK, "long", "it has been with codex-1 for 1h00m")
    async with made_up(project, monkeypatch, stuck) as (attention, _, _):
        (row,) = await attention.rows()
    assert (row.need, row.task_id, row.key) == (Need.ALERT, "long", "stuck:long")


async def test_a_look_that_took_long_is_not_taken_again_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with made_up(project, monkeypatch) as (attention, clock, _):
        read = needs_module.read_needs

        def slowly(database: Path, limit: int) -> needs_module.NeedyTasks:
            clock._elapsed += 0.2
            return read(database, limit)

        monkeypatch.setattr(attention_module, "read_needs", slowly)
        assert await attention.rows() == []
        seen = attention._seq
        async with project.engine() as engine:
            await engine.execute(Seed(project.dag(a_task("new"))))
        await attention.rows()
        assert attention._seq == seen
        await clock.advance(10)
        await attention.rows()
        assert attention._seq > seen
