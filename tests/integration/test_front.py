"""The engine as a screen has it: rows at once, commands as soon as it is open, and its failures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import pytest
from support.stores import a_task

from engine.commands import Hold, Reset, Seed, Step
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


async def test_the_engine_is_opened_only_once(project: Project) -> None:
    opened: list[Engine] = []

    async def after(engine: Engine) -> None:
        opened.append(engine)
        await asyncio.sleep(0)  # time for another one to be opened

    await seeded(project)
    async with front_of(project, after=after) as front:
        front.begin()
        front.begin()
        await front.over.wait()
        await front.execute(Hold())
        assert len(opened) == 1


async def test_a_command_for_an_engine_that_never_opens_is_told_so(project: Project) -> None:
    reached = asyncio.Event()

    async def after(_engine: Engine) -> None:
        reached.set()
        await asyncio.Event().wait()

    await seeded(project)
    async with front_of(project, after=after) as front:
        front.begin()
        order = asyncio.create_task(front.execute(Hold()))
        await asyncio.wait_for(reached.wait(), 20)
    with pytest.raises(StorageError, match="could not be opened"):
        await asyncio.wait_for(order, 5)
    assert front.opening is None


async def test_a_step_that_is_told_too_late_is_none_of_the_opening(project: Project) -> None:
    async with front_of(project) as front:
        await front.over.wait()
        front._tell(Step("mending"))  # as a thread does that was not through yet
        assert front.opening is None


class Patient:
    """Stands in for an engine. What is carried out takes for ever, and a moment to be given up."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.begun = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.told.append("closed")

    async def execute(self, *_command: object, **_more: object) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(9):
                await asyncio.sleep(0)
            self.told.append("in order")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    patient = Patient()
    monkeypatch.setattr(Front, "_make", lambda *_: patient)
    return patient


async def test_a_command_whose_caller_goes_is_given_up_in_good_order(
    project: Project, patient: Patient
) -> None:
    async with front_of(project) as front:
        order = asyncio.create_task(front.execute(Reset()))
        await asyncio.wait_for(patient.begun.wait(), 20)
        for _ in range(3):  # a second time would cut that short
            order.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({order}, timeout=20)
        for _ in range(9):
            await asyncio.sleep(0)
        assert order.cancelled()
        assert patient.told == ["in order"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_engine_is_closed_only_after_what_was_carried_out_was_given_up(
    project: Project, patient: Patient, *, cancelled: bool
) -> None:
    async with front_of(project) as front:
        order = asyncio.create_task(front.execute(Reset()))
        await asyncio.wait_for(patient.begun.wait(), 20)
        if cancelled:
            order.cancel()  # and not waited for: so Textual leaves its workers
            for _ in range(3):
                await asyncio.sleep(0)
    assert patient.told == ["in order", "closed"]
    await asyncio.wait({order}, timeout=20)
    assert order.cancelled()


async def test_whatever_fails_while_it_is_left_nothing_stays_open(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seeded(project)
    front = front_of(project)
    await front.__aenter__()
    front.begin()
    await front.over.wait()

    async def breaks() -> None:
        raise RuntimeError("this one breaks")

    monkeypatch.setattr(front, "_give_up", breaks)
    with pytest.raises(RuntimeError, match="this one breaks"):
        await front.__aexit__(None, None, None)
    with pytest.raises(StorageError, match="closed"):
        await front._early.progress()
    with pytest.raises(StorageError):
        await front.execute(Hold())


async def test_wrong_settings_are_refused_before_anything_is_made(project: Project) -> None:
    project.settings("lease: never\n")
    async with front_of(project) as front:
        front.begin()
        await asyncio.wait_for(front.over.wait(), 20)
        assert isinstance(front.failure, ValidationError)
    assert not front.layout.state.exists()
    # What the first picture shows must be right, or there is none.
    project.settings("stale_after: never\n")
    with pytest.raises(ValidationError):
        front_of(project)
    assert front_of(project, read_only=True).config.stale_after == 15
