"""Why a key does nothing, in words for whoever pressed it."""

from __future__ import annotations

import pytest
from support.screens import worker

from engine.model import WorkerStatus
from tui.actions import legality
from tui.actions.model import Place, Selection


@pytest.mark.parametrize("status", [WorkerStatus.STOPPED, WorkerStatus.KILLED, WorkerStatus.LOST])
def test_a_worker_that_has_ended_is_neither_stopped_nor_killed_again(status: WorkerStatus) -> None:
    gone = Selection(Place.WORKER, worker("w-1", status=status))
    assert legality.stop(gone) == "w-1 is stopped already"
    assert legality.kill(gone) == "w-1 is stopped already"


def test_in_a_mixed_list_it_is_the_row_that_says_what_is_killed() -> None:
    holder = worker("w-1")
    assert Selection(Place.ATTENTION, holder).of_workers
    assert not Selection(Place.ATTENTION, holder, opens="a task").of_workers, "read or not"


def test_screens_of_one_pane_have_nothing_to_zoom() -> None:
    alone = {place for place in Place if legality.zoom(Selection(place))}
    assert alone == {Place.LOG, Place.GRAPH, Place.TIMELINE}
