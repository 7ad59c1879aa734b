"""What a run says of itself is what is shown of its worker and its task while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.damage import by_hand
from support.stores import HOST, a_dag, a_task, opened, tuples

from engine.model import Outcome, RunOutcome
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.store.rows import WORKER

if TYPE_CHECKING:
    from pathlib import Path

    from support.stores import Opened


async def note_of(it: Opened) -> str:
    async with Reader(it.layout.database) as reader:
        (worker,) = await Queries(reader, it.clock, lambda _process: True).workers()
    return worker.note


async def test_what_a_run_does_now_is_told_of_its_worker_until_it_is_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a"), a_task("b")))
        await it.store.register("codex", "codex-1", HOST, lambda _host: True)
        assert await note_of(it) == ""
        claim = await it.claim()
        assert await note_of(it) == ""
        await it.store.progress(claim, "Read a.py")
        await it.store.progress(claim, "Edit a.py")
        await it.store.beat(["codex-1"])
        assert await note_of(it) == "Edit a.py"
        await it.store.finish(claim, Outcome(RunOutcome.DONE))
        assert await note_of(it) == ""
        claim = await it.claim()
        assert await note_of(it) == "", "that was another run's"
        await it.store.progress(claim, "Bash pytest -q")
        assert await note_of(it) == "Bash pytest -q"


async def test_a_damaged_event_hides_no_worker(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        await it.store.register("codex", "codex-1", HOST, lambda _host: True)
        await it.store.progress(await it.claim(), "Edit a.py")
        for data in ("{", "[]", '{"note": 7}'):
            by_hand(it.layout, f"UPDATE events SET data = '{data}' WHERE type = 'TASK_PROGRESS'")
            assert isinstance(await note_of(it), str)


async def test_to_look_for_it_reads_one_event_of_each_task_that_is_held(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        query = f"EXPLAIN QUERY PLAN SELECT {WORKER.columns} FROM workers w {WORKER.join}"
        plan = [str(row[-1]) for row in tuples(it.layout, query)]
    (look,) = (step for step in plan if "events" in step or " e " in step)
    assert look == "SEARCH e USING INDEX events_of_task (task_id=?)"
