"""The engine as a screen has it: rows at once, commands as soon as it is open, and its failures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.stores import a_task

from engine.commands import Hold, Seed
from engine.errors import StorageError, ValidationError
from engine.front import Front

if TYPE_CHECKING:
    from support.engines import Project

    from engine.core import Engine


def front_of(project: Project, **more: object) -> Front:
    return Front(project.layout.state, project=project.folder, **more)  # type: ignore[arg-type]  # as named


async def seeded(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b", "a"))))


async def test_rows_are_there_before_the_engine_is_open(project: Project) -> None:
    await seeded(project)
    async with front_of(project) as front:
        assert front.opening is not None
        assert [row.id for row in await front.queries.tasks()] == ["a", "b"]
        assert not front.over.is_set()
        assert (front.active_runs(), front.own_workers(), front.notices) == (0, (), [])
        assert (await front.attention(), await front.usage()) == ([], {})


async def test_a_command_waits_for_the_engine_and_is_then_carried_out(project: Project) -> None:
    await seeded(project)
    async with front_of(project) as front:
        order = asyncio.create_task(front.execute(Hold()))
        await asyncio.sleep(0)
        assert not order.done()
        front.begin()
        front.begin()
        assert (await order).done == {"*": "held"}
        assert front.opening is None
        assert (await front.queries.progress()).held == ("*",)


async def test_a_store_that_is_not_there_yet_is_made(project: Project) -> None:
    dag = project.dag(a_task("a"))

    async def after(engine: Engine) -> None:
        await engine.execute(Seed(dag))
        await engine.start_workers()

    async with front_of(project, after=after) as front:
        with pytest.raises(StorageError):
            await front.queries.tasks()
        await front.over.wait()
        assert front.failure is None
        assert front.own_workers() != ()
        async for _ in front.changes():
            rows = await front.queries.tasks()
            if rows[0].state == "DONE":
                break


async def test_who_listens_hears_at_once_and_again_when_the_engine_is_open(
    project: Project,
) -> None:
    await seeded(project)
    async with front_of(project) as front:
        changes = front.changes()
        await anext(changes)
        front.begin()
        await asyncio.wait_for(anext(changes), 20)
        assert front.over.is_set()


async def test_why_the_engine_cannot_be_opened_is_kept(project: Project) -> None:
    bad = project.folder / "bad.yaml"
    bad.write_text("tasks: 7")

    async def after(engine: Engine) -> None:
        await engine.execute(Seed(bad))

    async with front_of(project, after=after) as front:
        await front.over.wait()
        assert isinstance(front.failure, ValidationError)
        with pytest.raises(StorageError, match="could not be opened") as caught:
            await front.execute(Hold())
        assert caught.value.__cause__ is front.failure


async def test_leaving_while_it_opens_leaves_nothing_behind(project: Project) -> None:
    await seeded(project)
    async with front_of(project) as front:
        front.begin()
        await asyncio.sleep(0)
    assert list(project.layout.state.glob("pids/*")) == []
    async with project.engine() as engine:
        assert await engine.queries.workers() == []


async def test_settings_that_cannot_be_read_are_told_before_anything_is_opened(
    project: Project,
) -> None:
    project.settings("lease: never\n")
    with pytest.raises(ValidationError):
        front_of(project)
    assert front_of(project, read_only=True).config.lease == 600
