"""Promises of the census that real processes cannot be made to show at will."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.processes import census
from engine.processes.census import Census, SharedCensus, take_census, tree_of, trees_of

STATE = Path("/nowhere/state")
TAG = b"A=1\0AGENTMUX_RUN_ID=r\0AGENTMUX_STATE_DIR=/nowhere/state\0"


def test_a_child_that_appears_while_its_parent_vanishes_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listings = iter([{10, 11}, {11, 12}])
    monkeypatch.setattr(census, "all_pids", lambda: next(listings))
    monkeypatch.setattr(census, "session_of", lambda pid: None if pid == 10 else 7)
    monkeypatch.setattr(census, "variables_of", lambda pid: TAG if pid == 12 else b"B=2\0")

    assert take_census() == Census({11: 7, 12: 7}, {("r", str(STATE)): {12}}, settled=True)


def test_who_ends_between_the_listing_and_the_look_is_not_taken_for_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pids = count(2**23)
    monkeypatch.setattr(census, "all_pids", lambda: {next(pids)})
    monkeypatch.setattr(census, "session_of", lambda _: 7)
    monkeypatch.setattr(census, "variables_of", lambda _: None)

    assert not take_census().settled
    with pytest.raises(StorageError, match="too fast"):
        tree_of("r", STATE, [])


def test_a_member_that_vanishes_after_the_census_makes_it_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tagged = {("r", str(STATE)): {2**23}}
    results = iter([Census({2**23: 7}, tagged, settled=True), Census(settled=True)])
    monkeypatch.setattr(census, "take_census", lambda: next(results))

    assert tree_of("r", STATE, []) == set()
    assert list(results) == [], "both were needed"


def test_several_runs_are_found_in_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    me, parent = os.getpid(), os.getppid()
    tagged = {("r", str(STATE)): {me}, ("s", str(STATE)): {parent}, ("s", "/elsewhere"): {1}}
    censuses = iter([Census({me: 7, parent: 7}, tagged, settled=True)])
    monkeypatch.setattr(census, "take_census", lambda: next(censuses))
    monkeypatch.setattr(census, "spared_pids", set)

    found = trees_of(STATE, {"r": [], "s": [], "nobody's": []})

    assert {run_id: {process.pid for process in tree} for run_id, tree in found.items()} == {
        "r": {me},
        "s": {parent, me},
        "nobody's": set(),
    }


def test_a_run_of_which_nothing_can_be_said_does_not_hide_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = os.getpid()
    fleeting = count(2**23)
    monkeypatch.setattr(
        census,
        "take_census",
        lambda: Census({me: 7}, {("r", str(STATE)): {next(fleeting)}, ("s", str(STATE)): {me}}),
    )
    monkeypatch.setattr(census, "spared_pids", set)

    found = trees_of(STATE, {"r": [], "s": []})

    assert found.keys() == {"s"}
    assert {process.pid for process in found["s"]} == {me}


def test_threads_that_ask_during_a_census_share_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Semaphore(0), threading.Semaphore(0)
    numbers = count(1)

    def slow() -> Census:
        number = next(numbers)
        begun.release()
        assert go.acquire(timeout=20)
        return Census({number: number})

    monkeypatch.setattr(census, "take_census", slow)
    shared = SharedCensus()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(shared.take)
        assert begun.acquire(timeout=20)
        waiting = [threading.Event() for _ in range(5)]
        monkeypatch.setattr(shared._changed, "wait", _telling(shared._changed.wait, waiting))
        others = [pool.submit(shared.take) for _ in range(5)]
        for event in waiting:
            assert event.wait(20)
        go.release(2)
        assert first.result(20).sessions == {1: 1}, "begun before the others asked"
        assert [other.result(20).sessions for other in others] == [{2: 2}] * 5
    assert next(numbers) == 3


def _telling(wait: object, events: list[threading.Event]) -> object:
    left = iter(events)

    def told() -> None:
        event = next(left, None)
        if event is not None:
            event.set()
        assert callable(wait)
        wait()

    return told


def test_a_census_that_fails_leaves_the_next_one_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Census:
        raise StorageError("no /proc")

    shared = SharedCensus()
    with monkeypatch.context() as patch:
        patch.setattr(census, "take_census", broken)
        with pytest.raises(StorageError):
            shared.take()
    monkeypatch.setattr(census, "take_census", lambda: Census({1: 1}))
    assert shared.take().sessions == {1: 1}
