"""Promises of the rebuild: the log alone gives back the store, and nothing in it can stop that."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import damage
from support.clock import ManualClock
from support.damage import DAMAGES, open_once, stopped_dead
from support.pasts import DONE, FAILED, a_past, any_past
from support.stores import (
    HOST,
    a_dag,
    a_task,
    check_store,
    events_of,
    opened,
    select,
    tasks_of,
)

from engine.clock import to_iso
from engine.findings import Level
from engine.log.check import check_log as compare_with_log
from engine.model import EventType, ProcessId
from engine.processes.trees import seems_alive
from engine.store import orders
from engine.store.audit import audit
from engine.store.database import create_schema
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.recovery import condition
from engine.store.recovery.loglines import read_line
from engine.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.commands import Step
    from engine.files import Layout

UNTOLD = {
    "tasks": {"lease_until", "position", "asked"},
    "runs": {"n", "host_pid", "host_started", "pid", "pid_started"},
    "endings": {"host_pid", "host_started", "pid", "pid_started"},
    "workers": {"pid_started", "own_process", "note", "status", "beat_at"},
}
"""Columns that the log does not tell; see the docstring of engine.store.recovery.refolding."""
ORDER = {
    "tasks": "id",
    "runs": "n",
    "endings": "run_id",
    "workers": "id",
    "events": "seq",
    "edges": "dep, task",
    "purged": "id",
    "holds": "agent",
    "agents": "name",
    "meta": "key",
    "pace": "minute",
    "tallies": "agent, state, waiting",
}


def told(layout: Layout) -> dict[str, list[dict[str, Any]]]:
    """Return all tables without what the log does not tell."""
    tables = {}
    for table, order in ORDER.items():
        rows = select(layout, f"SELECT * FROM {table} ORDER BY {order}")
        for row in rows:
            for column in UNTOLD.get(table, ()):
                del row[column]
        tables[table] = rows
    for task in tables["tasks"]:
        if task["state"] not in {"READY", "BLOCKED"}:
            del task["removed"]
    tables["tallies"] = [row for row in tables["tallies"] if row["n"]]
    tables["meta"] = [row for row in tables["meta"] if row["key"] != "boot"]
    tables["agents"] = [row for row in tables["agents"] if row["run_limit"] or row["stagger"]]
    return tables


def same(now: dict[str, list[dict[str, Any]]], before: dict[str, list[dict[str, Any]]]) -> None:
    """Assert that two stores tell the same; name what differs."""
    assert now.keys() == before.keys()
    differences = [
        (table, place, {key: (old.get(key), new.get(key)) for key in old if old[key] != new[key]})
        for table in now
        for place, (old, new) in enumerate(zip(before[table], now[table], strict=False))
        if old != new
    ]
    assert differences == [], "table, row, column: (before, now)"
    assert {table: len(rows) for table, rows in now.items()} == {
        table: len(rows) for table, rows in before.items()
    }


def sound(layout: Layout) -> None:
    """Assert that a store and its log are free of errors, whoever looks."""
    check_store(layout)
    errors = [
        finding
        for finding in (*audit(layout.database), *compare_with_log(layout, at_work=False))
        if finding.level is Level.ERROR
    ]
    assert errors == []


def quarantined(layout: Layout, name: str = "tasks.db") -> Path:
    (found,) = layout.quarantine.glob(f"*/{name}")
    return found


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the machine's boot find a new one."""
    boots = iter(range(1000))
    monkeypatch.setattr(condition, "_boot", lambda: f"boot {next(boots)}")


# The whole store.


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_store_comes_back_row_by_row_whatever_happened_to_its_file(
    tmp_path: Path, kind: str
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    assert {row["state"] for row in before["tasks"]} == {
        *("READY", "RUNNING", "DONE", "FAILED", "BLOCKED", "CANCELLED")
    }
    assert {row["type"] for row in before["events"]} == {*EventType} - {"ALERT"}
    DAMAGES[kind](it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    sound(it.layout)
    count = f"{len(before['tasks'])} tasks and {len(before['events'])} events were rebuilt"
    assert any(count in notice for notice in notices)
    assert open_once(it.layout, clock=it.clock) == []


@pytest.mark.parametrize("seed", range(12))
async def test_any_store_comes_back_row_by_row(tmp_path: Path, seed: int) -> None:
    async with stopped_dead(tmp_path) as it:
        await any_past(it, seed, 100)
        for row in select(it.layout, "SELECT run_id FROM endings"):
            await it.store.gone(row["run_id"])
        await it.clock.advance(400)  # type: ignore[attr-defined] # a test's clock
        await it.store.end_backoff()
        await it.store.hold("somebody")
        before = told(it.layout)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    sound(it.layout)


async def test_a_rebuilt_store_is_rebuilt_again_to_the_same(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    once = told(it.layout)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), once)


async def test_a_rebuilt_store_works_on(tmp_path: Path) -> None:
    dag = a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b"))
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(dag)
        await it.store.finish(await it.claim(), DONE)
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        report = await again.store.seed(dag)
        assert (report.unchanged, report.created, report.updated) == (3, [], [])
        claim = await again.claim()
        assert claim.task.id == "b", "what is finished stays finished"
        await again.store.finish(claim, DONE)
        assert (await again.claim()).task.id == "c"
        damage.mirror(it.layout)
    sound(it.layout)


async def test_the_files_of_a_log_that_was_rotated_are_read_in_the_order_of_their_events(
    tmp_path: Path,
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [])
    third = len(lines) // 3
    # The clock was set back in between: their names say the opposite.
    for name, part in (
        ("events.20260103T000000000Z.jsonl", lines[:third]),
        ("events.20260102T000000000Z.jsonl", lines[third : 2 * third]),
        ("events.jsonl", lines[2 * third :]),
    ):
        (it.layout.state / name).write_bytes(b"".join(part))
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    assert len(notices) == 1


async def test_progress_is_told_while_a_store_is_rebuilt(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(4500))))
    damage.delete(it.layout)
    steps: list[Step] = []
    open_once(it.layout, clock=it.clock, on_step=steps.append)
    reading = [step.count for step in steps if step.what == "reading the log"]
    tasks = [step.count for step in steps if step.what == "rebuilding tasks"]
    assert reading == [2000, 4000, 4501]
    assert tasks == [2000, 4000]
    assert steps[-1].what == "checking the new database"


# What was going on.


async def test_a_run_that_held_its_task_is_nobodys_so_that_it_is_ended_and_expired(
    tmp_path: Path,
) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a", timeout=60)))
        claim = await it.claim()
        before = it.row("a")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        async with Reader(it.layout.database) as reader:
            (run,) = await Lookout(reader, it.clock).active()
        assert (run.run_id, run.host) == (claim.run_id, ProcessId(0, ""))
        assert not seems_alive(run.host)
        assert to_iso(run.timeout_at) == before["timeout_at"] if run.timeout_at else False
        assert await again.store.expire("a", claim.run_id)
        following = await again.claim()
        assert following.attempt == 1, "a lost run uses no retry"
        check_store(it.layout)


async def end_by_cancel(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.cancel, "a")
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_kill(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.kill, "a")
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_timeout(it: Any) -> str:
    claim = await it.claim()
    await it.store.time_out("a", claim.run_id)
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_purge(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.purge, "a")
    await it.store.seed(a_dag(a_task("a")))
    return str(claim.run_id)


@pytest.mark.parametrize("end", [end_by_cancel, end_by_kill, end_by_timeout, end_by_purge])
async def test_a_task_is_not_claimable_while_its_former_tree_may_live(
    tmp_path: Path, end: Callable[[Any], Any]
) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        run_id = await end(it)
        await it.clock.advance(59)  # type: ignore[attr-defined] # a test's clock
        await it.store.hold("somebody")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert [row["run_id"] for row in select(it.layout, "SELECT * FROM endings")] == [run_id]
        assert await again.store.claim("codex", "codex-1", HOST) is None
        check_store(it.layout)
        await again.store.gone(run_id)
        assert (await again.claim()).task.id == "a"


async def test_a_tree_that_was_ended_long_ago_holds_up_nobody(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        await end_by_cancel(it)
        await it.clock.advance(61)  # type: ignore[attr-defined] # a test's clock
        await it.store.hold("somebody")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert (await again.claim()).task.id == "a"


async def test_a_backoff_goes_on_until_it_is_over(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a", retries=1)))
        await it.store.finish(await it.claim(), FAILED)
        until = it.row("a")["not_before"]
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    assert tasks_of(it.layout)["a"]["not_before"] == until
    await it.clock.advance(10)  # type: ignore[attr-defined] # a test's clock
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    assert tasks_of(it.layout)["a"]["not_before"] is None


# The log, line by line.

NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
DATA = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key not in {"seq", "ts", "type", "state", "adopted"}),
    VALUES,
    max_size=4,
)


@given(names=st.tuples(NAMES, NAMES, NAMES, NAMES), data=DATA)
def test_an_event_that_was_read_from_its_line_gives_back_that_line(
    names: tuple[str | None, ...], data: dict[str, Any]
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create_schema(db)
        tx = Transaction(db, ManualClock().now())
        agent, worker, task, run = names
        tx.event(
            EventType.ALERT, agent=agent, worker_id=worker, task_id=task, run_id=run, data=data
        )
        tx.flush()
        line = db.execute("SELECT line FROM event_lines").fetchone()[0]
        try:
            row = read_line(line.encode())
        except UnicodeEncodeError:
            pytest.fail("half a character is no reason to give up")
        if row is None:
            assert "\\ud" in line, "only half a character is refused"
            return
        db.execute("DELETE FROM events")
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        assert db.execute("SELECT line FROM event_lines").fetchone()[0] == line


CREATED = {
    "seq": 1,
    "ts": "2026-01-01T00:00:00.000Z",
    "type": "TASK_CREATED",
    "agent": "codex",
    "taskId": "a",
    "state": "READY",
    "definition": {
        "id": "a",
        "name": "a",
        "agent": "codex",
        "deps": [],
        "priority": 0,
        "timeout": 60.0,
        "retries": 0,
        "payload": {"kind": "noop"},
    },
}
CLAIMED = {
    "seq": 2,
    "ts": "2026-01-01T00:00:00.000Z",
    "type": "TASK_CLAIMED",
    "agent": "codex",
    "workerId": "codex-1",
    "taskId": "a",
    "runId": "r",
    "state": "CLAIMED",
    "attempt": 1,
    "attempts": 1,
}


def without(event: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != key}


def defined(**changes: Any) -> dict[str, Any]:
    return CREATED | {"definition": CREATED["definition"] | changes}  # type: ignore[operator] # a dict


UNUSABLE: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b"   ",
    "zeros": bytes(200),
    "no JSON": b'{"seq":1,',
    "no UTF-8": b'{"seq":1,"ts":"\xff"}',
    "no object": b"[1, 2]",
    "a number": b"17",
    "deep": b'{"seq":1,"ts":' + b"[" * 100_000,
    "a huge number": b'{"seq":' + b"9" * 10_000 + b"}",
    "NaN": b'{"seq":1,"ts":"2026-01-01T00:00:00.000Z","type":"ALERT","x":NaN}',
    "infinity": b'{"seq":1,"ts":"2026-01-01T00:00:00.000Z","type":"ALERT","x":1e999}',
    **{
        name: json.dumps(event).encode()
        for name, event in {
            "no seq": without(CREATED, "seq"),
            "seq is text": CREATED | {"seq": "1"},
            "seq is 0": CREATED | {"seq": 0},
            "seq is huge": CREATED | {"seq": 2**63},
            "seq is true": CREATED | {"seq": True},
            "no time": without(CREATED, "ts"),
            "time is none": CREATED | {"ts": "yesterday"},
            "time in another way": CREATED | {"ts": "2026-01-01T00:00:00Z"},
            "unknown type": CREATED | {"type": "TASK_COMPLETFD"},
            "unknown state": CREATED | {"state": "BUSY"},
            "no state": without(CREATED, "state"),
            "no task": without(CREATED, "taskId"),
            "task is a number": CREATED | {"taskId": 7},
            "half a character": CREATED | {"taskId": "\ud800"},
            "half a character inside": defined(name="\udfff"),
            "no definition": without(CREATED, "definition"),
            "definition is text": CREATED | {"definition": "x"},
            "definition of another": defined(id="b"),
            "deps are numbers": defined(deps=[1]),
            "priority is huge": defined(priority=2**70),
            "timeout is text": defined(timeout="60"),
            "no attempt": without(CLAIMED, "attempt"),
            "attempts are negative": CLAIMED | {"attempts": -1},
            "no run": without(CLAIMED, "runId"),
            "no worker": without(CLAIMED, "workerId"),
            "unknown outcome": CLAIMED | {"outcome": "lucky"},
            "unknown reason": CLAIMED | {"reasons": ["because"]},
            "reasons are a number": CLAIMED | {"reasons": 3},
            "result is a list": CLAIMED | {"result": []},
            "error is a number": CLAIMED | {"error": 3},
            "hold of nobody": {**without(CREATED, "agent"), "type": "HELD"},
            "worker of nobody": CREATED | {"type": "WORKER_STARTED"},
            "rules of nothing": CREATED | {"type": "SEEDED", "dag": "d", "agents": {"a": 1}},
            "no DAG": CREATED | {"type": "SEEDED"},
        }.items()
    },
}


def test_the_lines_that_are_broken_below_can_be_used_as_they_are() -> None:
    for event in (CREATED, CLAIMED, CLAIMED | {"seq": 2**63 - 1}):
        assert read_line(json.dumps(event).encode()) is not None


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_line_that_is_no_event_is_not_taken(kind: str) -> None:
    assert read_line(UNUSABLE[kind]) is None


async def test_lines_that_are_no_events_are_passed_over_kept_and_told(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    good = damage.lines_of(it.layout)
    bad = [line + b"\n" for line in UNUSABLE.values()]
    mixed = [line for pair in zip(good, bad, strict=False) for line in pair]
    torn = b'{"seq":400,"ts":"2026'
    damage.write_log(it.layout, [*mixed, *good[len(bad) :], torn])
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    kept = quarantined(it.layout, "bad-lines.jsonl")
    assert kept.read_bytes() == b"".join([*bad, torn, b"\n"])
    assert kept.stat().st_mode & 0o077 == 0
    assert any(
        all(
            part in notice
            for part in (f"{len(bad) + 1} lines", "line 2 of events.jsonl", str(kept))
        )
        for notice in notices
    )


async def test_a_line_that_comes_twice_counts_once(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    twice = [*lines[:20], *lines[10:20], *lines[20:], lines[5], lines[-1]]
    damage.write_log(it.layout, twice)
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    kept = quarantined(it.layout, "bad-lines.jsonl").read_bytes()
    assert kept == b"".join([*lines[10:20], lines[5], lines[-1]])
    assert any("12 lines" in notice for notice in notices)


async def test_lines_in_the_wrong_order_are_put_right(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [*lines[30:], *lines[:30]])
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)


async def test_a_damaged_digit_does_not_move_an_event_behind_all_others(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    lines = damage.lines_of(it.layout)
    (number,) = [n for n, line in enumerate(lines) if b'"HELD"' in line and b'"held"' in line]
    lines[number] = lines[number].replace(b'{"seq":', b'{"seq":9', 1)
    damage.write_log(it.layout, lines)
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    assert events_of(it.layout)[-1].seq == len(lines)
    assert any(f"lacks 1 event ({number + 1})" in notice for notice in notices)
    assert quarantined(it.layout, "bad-lines.jsonl").read_bytes() == lines[number]


async def test_a_line_that_somebody_wrote_in_another_way_says_the_same(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    other = [
        json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True) + "\n"
        for line in damage.lines_of(it.layout)
    ]
    damage.write_log(it.layout, [line.encode() for line in other])
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    after = told(it.layout)
    for table in before.keys() - {"events", "tasks"}:
        assert after[table] == before[table], table
    for events in (before["events"], after["events"]):
        for event in events:
            event["data"] = json.loads(event["data"])
    assert after["events"] == before["events"]


# What is lost.


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
    errors = [one for one in audit(it.layout.database) if one.level is Level.ERROR]
    assert {one.check for one in errors} <= {"events"}


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
        errors = [one for one in audit(it.layout.database) if one.level is Level.ERROR]
        assert [one.check for one in errors] == ["events"], (text[lost - 1], errors)
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
        errors = [one for one in audit(it.layout.database) if one.level is Level.ERROR]
        assert {one.check for one in errors} <= {"events"}
        await any_past(again, seed + 1, 60)
        damage.mirror(it.layout)
    errors = [one for one in audit(it.layout.database) if one.level is Level.ERROR]
    assert {one.check for one in errors} <= {"events"}


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
