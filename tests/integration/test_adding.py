"""Promises of AddWorkers: as many workers as can be start here, and the rest is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.engines import let_start, until
from support.stage import Stage, staged

from engine.commands import AddWorkers, Seed
from engine.errors import Code, ValidationError

if TYPE_CHECKING:
    from support.engines import Project


async def test_workers_are_added_and_work(project: Project, stage: Stage) -> None:
    stage.play = stage.wait
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"), staged("b"))))
        receipt = await engine.execute(AddWorkers("codex", 2))
        assert receipt.done == {"codex-1": "started", "codex-2": "started"}
        assert (receipt.counts, receipt.refused, receipt.dry_run) == ({"started": 2}, (), False)
        await until(lambda: len(stage.begun) == 2, "both tasks run")
    project.check()


async def test_a_dry_run_names_the_workers_that_would_start_and_starts_none(
    project: Project,
) -> None:
    async with project.engine() as engine, project.engine() as other:
        await other.start_worker("codex", "codex-2")
        planned = await engine.execute(AddWorkers("codex", 2), dry_run=True)
        assert planned.dry_run
        assert [one.id for one in await engine.queries.workers()] == ["codex-2"]
        assert project.kinds().count("WORKER_STARTED") == 1
        done = await engine.execute(AddWorkers("codex", 2))
        assert planned.done == done.done == {"codex-1": "started", "codex-3": "started"}
        assert planned.counts == done.counts


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("agent", "count"), [("a/b", 1), ("", 1), ("codex", 0), ("codex-9", 1)])
async def test_what_cannot_be_added_at_all_is_an_error(
    project: Project, agent: str, count: int, *, dry_run: bool
) -> None:
    async with project.engine() as engine:
        await engine.start_worker("codex", "codex-9")
        with pytest.raises(ValidationError):
            await engine.execute(AddWorkers(agent, count), dry_run=dry_run)
        assert [one.id for one in await engine.queries.workers()] == ["codex-9"]


async def test_those_that_could_be_started_stay_and_the_rest_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with project.engine() as engine:
        let_start(engine._host, monkeypatch, 2)
        receipt = await engine.execute(AddWorkers("codex", 5))
        assert receipt.done == {"codex-1": "started", "codex-2": "started"}
        assert receipt.counts == {"started": 2, "refused": 1}
        assert [(one.subject, one.code, one.message) for one in receipt.refused] == [
            ("codex", Code.LEASE_CONFLICT, "3 more workers of codex not started: no more")
        ]
        assert len(await engine.queries.workers()) == 2
