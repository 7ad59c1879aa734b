"""Promises of the mirror: whose events it writes, and what it never touches."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.stores import Opened, a_dag, a_task, opened

from engine.clock import SystemClock
from engine.errors import StoreGone
from engine.files import Layout
from engine.log.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a"), a_task("b")))
        yield it


def caught_up(it: Opened) -> Mirror:
    """Return an open mirror that has written all there is."""
    mirror = Mirror(it.layout, it.clock)
    assert mirror.catch_up()
    return mirror


async def test_events_of_a_store_in_the_place_of_its_own_do_not_come_into_the_log(
    it: Opened, tmp_path: Path
) -> None:
    with closing(caught_up(it)) as mirror:
        log = it.layout.log.read_bytes()
        await it.store.hold("codex")
        it.layout.database.rename(tmp_path / "away")
        it.layout.database.write_bytes(b"")
        with pytest.raises(StoreGone):
            mirror.catch_up()
        assert it.layout.log.read_bytes() == log
        it.layout.database.unlink()
        (tmp_path / "away").rename(it.layout.database)
        assert mirror.catch_up()
        assert it.layout.log.read_bytes() != log


def test_the_lock_of_the_log_is_not_opened_through_a_link(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    theirs = tmp_path / "theirs"
    theirs.write_text("12345\n")
    layout.log_lock.symlink_to(theirs)
    with closing(Mirror(layout, SystemClock())) as mirror, pytest.raises(OSError, match="symbolic"):
        mirror.catch_up()
    assert theirs.read_text() == "12345\n"


async def test_what_is_cut_off_is_on_the_disk_before(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught_up(it).close()
    with it.layout.log.open("ab") as log:
        log.write(b"no event")
    steps: list[str] = []
    sync, cut = os.fsync, os.ftruncate

    def noted_sync(file: int) -> None:
        steps.append(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    def noted_cut(file: int, size: int) -> None:
        steps.append("cut")
        cut(file, size)

    monkeypatch.setattr("engine.log.mirror.os.fsync", noted_sync)
    monkeypatch.setattr("engine.log.mirror.os.ftruncate", noted_cut)
    caught_up(it).close()
    assert "events.jsonl.tail" in steps[: steps.index("cut")]


async def test_a_log_is_not_set_aside_for_a_table_that_lacks_events(it: Opened) -> None:
    caught_up(it).close()
    log = it.layout.log.read_bytes()
    last = "(SELECT max(seq) FROM events)"
    damage.by_hand(it.layout, f"DELETE FROM events WHERE seq = {last} - 1")
    damage.by_hand(it.layout, f"UPDATE events SET agent = 'x' WHERE seq = {last}")
    with closing(caught_up(it)) as mirror:
        (notice,) = mirror.notices
    assert "run `agentmux doctor`" in notice
    assert it.layout.log.read_bytes() == log
    assert not it.layout.quarantine.exists()
