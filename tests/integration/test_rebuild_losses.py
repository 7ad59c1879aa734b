"""Promises of the rebuild from a log that lacks lines: what is left makes a store that works."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.checkup import audit_errors
from support.damage import DAMAGES, open_once, stopped_dead
from support.pasts import a_past, any_past
from support.retelling import same, told
from support.stores import a_dag, a_task, events_of, opened, select

from engine.findings import Level
from engine.store.audit import audit

if TYPE_CHECKING:
    from pathlib import Path


async def test_events_that_the_log_lacks_come_from_the_damaged_file(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [*lines[:10], *lines[13:-5]])
    damage.zero_table(it.layout, "tallies")
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    assert any("8 events more came from the damaged file itself" in notice for notice in notices)


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("kind", DAMAGES)
async def test_what_cannot_be_saved_of_a_damaged_file_never_stops_the_rebuild(
    tmp_path: Path, kind: str
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [*lines[:10], *lines[13:-5]])
    DAMAGES[kind](it.layout)
    if kind == "-wal destroyed":
        damage.scramble_header(it.layout)  # nothing else tells that it lost something
    open_once(it.layout, clock=it.clock)
    events = [event.seq for event in events_of(it.layout)]
    assert {*range(1, 11), *range(14, len(lines) - 4)} <= {*events}
    assert audit_errors(it.layout) == []


@pytest.mark.parametrize("part", range(4))
async def test_whichever_line_is_lost_the_rest_makes_a_store_that_agrees_with_itself(
    tmp_path: Path, part: int
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        count = len(events_of(it.layout))
    text = damage.lines_of(it.layout)
    for lost in range(1 + part, count, 4):
        damage.delete(it.layout)
        damage.write_log(it.layout, [line for n, line in enumerate(text, 1) if n != lost])
        it.layout.log_lock.unlink(missing_ok=True)  # it knows of what the round before has added
        notices = open_once(it.layout, clock=it.clock)
        assert any(f"lacks 1 event ({lost})" in notice for notice in notices)
        assert audit_errors(it.layout) == [], text[lost - 1]
        (row,) = select(
            it.layout,
            "SELECT count(*) AS n FROM tasks WHERE state IN ('CLAIMED', 'RUNNING') AND NOT EXISTS"
            " (SELECT 1 FROM runs WHERE id = run_id AND outcome IS NULL)",
        )
        assert row["n"] == 0
        damage.mirror(it.layout)
        before = told(it.layout)
        damage.delete(it.layout)
        open_once(it.layout, clock=it.clock)
        same(told(it.layout), before)  # what was added to the log closes what was open


@pytest.mark.parametrize("seed", range(6))
async def test_whichever_lines_are_lost_the_rest_makes_a_store_that_works(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    async with stopped_dead(tmp_path) as it:
        await any_past(it, seed, 120)
    lines = damage.lines_of(it.layout)
    left = [line for line in lines[:-1] if chance.random() < 0.9] + lines[-1:]
    damage.write_log(it.layout, left)
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert audit_errors(it.layout) == []
        await any_past(again, seed + 1, 60)
        damage.mirror(it.layout)
    assert audit_errors(it.layout) == []


async def test_what_is_lost_for_good_is_noted_and_another_gap_is_an_error_all_the_same(
    tmp_path: Path,
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [*lines[:4], *lines[6:]])
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    (note,) = [one for one in audit(it.layout.database) if one.check == "events"]
    assert (note.level, "2 events (5 to 6)" in note.message) == (Level.NOTE, True)
    damage.by_hand(it.layout, "DELETE FROM events WHERE seq IN (7, 9)")
    assert [one.message for one in audit_errors(it.layout) if one.check == "events"] == [
        "the events table has nothing between 4 and 8: 3 lost",
        "the events table has nothing between 8 and 10: 1 lost",
    ]


@pytest.mark.parametrize("note", ["garbage", "[[3]]", '[["3", "3"]]', '{"3": 3}', "null", ""])
async def test_a_note_of_losses_that_cannot_be_read_excuses_nothing(
    tmp_path: Path, note: str
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    damage.by_hand(it.layout, f"INSERT INTO meta VALUES ('lost', '{note}'), ('log_from', '{note}')")
    assert audit_errors(it.layout) == []
    damage.by_hand(it.layout, "DELETE FROM events WHERE seq = 3")
    messages = [one.message for one in audit_errors(it.layout)]
    assert "the events table has nothing between 2 and 4: 1 lost" in messages


async def test_what_depends_on_a_task_whose_creation_is_lost_waits_until_it_is_seeded_again(
    tmp_path: Path,
) -> None:
    dag = a_dag(a_task("a"), a_task("b", "a"))
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(dag)
    lines = damage.lines_of(it.layout)
    assert b'"taskId":"a"' in lines[0]
    damage.write_log(it.layout, lines[1:])
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert again.state("b") == "BLOCKED"
        await again.store.seed(dag)
        assert (await again.claim()).task.id == "a"
    async with opened(tmp_path, clock=it.clock) as again:
        assert again.state("b") == "READY"
        assert again.row("b")["pending"] == 1
