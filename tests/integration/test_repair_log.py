"""What `doctor --repair` does about a log that is wrong, and with it about a damaged database."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from support.checkup import errors, mends, run_doctor
from support.damage import by_hand, scribble
from support.finished import copied
from support.stores import tuples

from engine.commands import Hold
from engine.core import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.files import Layout


@pytest.fixture
def layout(finished_with_purges: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished_with_purges, tmp_path)


async def test_a_log_that_differs_is_written_anew_and_the_old_one_kept(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = b"".join([*lines[:3], *lines[4:]])
    layout.log.write_bytes(damaged)
    await mends(layout, "log", "was written anew")
    assert layout.log.read_bytes() == whole
    (kept,) = layout.quarantine.rglob("events.jsonl")
    assert kept.read_bytes() == damaged


def test_a_rebuild_past_a_damaged_line_ends_in_a_log_without_it_and_a_healthy_fleet(
    layout: Layout,
) -> None:
    lines = layout.log.read_bytes().splitlines(keepends=True)
    lines[3] = b"garbage\n"
    layout.log.write_bytes(b"".join(lines))
    layout.database.unlink()
    mended = run_doctor(layout, "--repair")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    for said in (
        "7 tasks and 31 events",
        "line 4 of events.jsonl",
        "1 event (4)",
        "was written anew",
    ):
        assert said in mended.stdout, mended.stdout
    again = run_doctor(layout)
    assert again.returncode == 0, again.stdout
    assert "note: events: when the store was rebuilt, 1 event (4) could be found nowhere" in (
        again.stdout
    )
    assert layout.log.read_bytes() == b"".join([*lines[:3], *lines[4:]])
    (kept,) = layout.quarantine.rglob("events.jsonl")
    assert kept.read_bytes() == b"".join(lines)


async def test_a_log_that_knows_more_than_the_table_is_not_written_anew(layout: Layout) -> None:
    (last,) = tuples(layout, "SELECT max(seq) FROM events")[0]
    log = layout.log.read_bytes()
    async with Engine(layout.state, project=layout.state.parent) as engine:
        by_hand(layout, f"DELETE FROM events WHERE seq > {last - 2}")
        await engine.repair()
        found = [one for one in await errors(layout) if one.check == "log"]
        assert found
        assert all("rebuild it from the log" in one.advice for one in found)
        assert layout.log.read_bytes().startswith(log)


@pytest.mark.parametrize(
    "line",
    [
        '{"seq":999,"ts":"2026-01-01T00:00:00.000Z","type":"HELD"}',
        '{"seq":999,"ts":"2026-01-01T00:00:00.000Z","type":"HELD","agent":"x"}',
        '{"seq":2,"ts":"2026-01-01T00:00:00.000Z","type":"HELD"}',
    ],
)
def test_one_bad_last_line_does_not_keep_later_events_out_of_the_log(
    layout: Layout, line: str
) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole + line.encode() + b"\n")
    mended = run_doctor(layout, "--repair")
    assert mended.returncode == 0, mended
    assert "the log is written anew, the old files are kept in" in mended.stdout
    assert layout.log.read_bytes() == whole

    async def hold() -> None:
        async with Engine(layout.state, project=layout.state.parent) as engine:
            await engine.execute(Hold("later"))

    asyncio.run(hold())
    events = tuples(layout, "SELECT line FROM event_lines ORDER BY seq")
    for file in layout.state.glob("tasks.db*"):
        file.unlink()
    assert run_doctor(layout, "--repair").returncode == 0
    assert tuples(layout, "SELECT line FROM event_lines ORDER BY seq") == events
    assert tuples(layout, "SELECT agent FROM holds") == [("later",)]


@pytest.mark.parametrize("line", ['{"seq":999,"ts":"2026","type":"HELD"}', '{"seq":999}'])
def test_a_rebuild_from_a_log_with_a_bad_last_line_leaves_a_log_that_goes_on(
    layout: Layout, line: str
) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole + line.encode() + b"\n")
    for file in layout.state.glob("tasks.db*"):
        file.unlink()
    assert run_doctor(layout, "--repair").returncode == 0
    assert layout.log.read_bytes().startswith(whole)
    told = "".join(f"{row[0]}\n" for row in tuples(layout, "SELECT line FROM event_lines"))
    assert layout.log.read_bytes() == told.encode()


def _scribble(layout: Layout) -> None:
    scribble(layout, "runs_of_task")


def _overwrite(layout: Layout) -> None:
    layout.database.write_text("no database" * 1000)


def _remove(layout: Layout) -> None:
    layout.database.unlink()


def _drop(layout: Layout) -> None:
    by_hand(layout, "DROP TRIGGER tally_update")


@pytest.mark.parametrize("damage", [_scribble, _overwrite, _remove, _drop])
def test_a_damaged_database_is_found_and_rebuilt_from_the_log(
    layout: Layout, damage: Callable[[Layout], None]
) -> None:
    query = "SELECT id, state, pending, broken, reasons FROM tasks ORDER BY id"
    before = tuples(layout, query)
    damage(layout)
    found = run_doctor(layout, "--json")
    assert (found.returncode, found.stderr) == (1, "")
    told = {one["check"]: one for one in json.loads(found.stdout)}
    assert "`agentmux doctor --repair`" in told["integrity"]["advice"]
    mended = run_doctor(layout, "--repair", "--json")
    assert mended.returncode == 0, mended
    assert any("rebuilt from the log" in one for one in json.loads(mended.stdout)["mended"])
    assert tuples(layout, query) == before
    if damage is not _remove:
        assert list(layout.quarantine.rglob("tasks.db"))
