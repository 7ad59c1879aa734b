"""Why a key does nothing, in words for whoever pressed it."""

from __future__ import annotations

import pytest
from support.screens import task, worker

from engine.model import WorkerStatus
from tui.actions import legality
from tui.actions.model import Place, Selection


@pytest.mark.parametrize("status", [WorkerStatus.STOPPED, WorkerStatus.KILLED, WorkerStatus.LOST])
def test_a_worker_that_has_ended_is_neither_stopped_nor_killed_again(status: WorkerStatus) -> None:
    gone = Selection(Place.WORKER, worker("w-1", status=status))
    assert legality.stop(gone) == "w-1 is stopped already"
    assert legality.kill(gone) == "w-1 is stopped already"


def test_a_task_that_was_put_back_still_has_the_log_of_its_run() -> None:
    back = Selection(Place.TASKS, task=task("t", attempts=0, worker_id="w-1", kind="agent"))
    assert legality.a_log(back) is None
    assert legality.transcript(back) is None


def test_in_a_mixed_list_it_is_the_row_that_says_what_is_killed() -> None:
    holder = worker("w-1")
    assert Selection(Place.ATTENTION, holder).of_workers
    assert not Selection(Place.ATTENTION, holder, opens="a task").of_workers, "read or not"


def test_screens_of_one_pane_have_nothing_to_zoom() -> None:
    alone = {place for place in Place if legality.zoom(Selection(place))}
    assert alone == {
        Place.LOG, Place.TRANSCRIPT, Place.GRAPH, Place.TIMELINE, Place.EXTERNAL, Place.METRICS
    }  # fmt: skip


def test_a_transcript_is_refused_where_no_agent_has_run_and_none_will() -> None:
    ran, waits = task("t", kind="agent", worker_id="w-1"), task("t", kind="agent")
    assert legality.transcript(Selection(Place.TASKS, task=ran)) is None
    refusal = legality.transcript(Selection(Place.TASKS, task=waits))
    assert refusal == "t has not run yet: there is no transcript"
    other = Selection(Place.TASKS, task=task("t", kind="shell"))
    refusal = legality.transcript(other)
    assert refusal == "t is a shell task; only agents have a transcript. l shows its log"
    unknown = Selection(Place.TASKS, task=task("t", worker_id="w-1"))
    assert legality.transcript(unknown) is None, "of what is gone nobody knows what it was"
