"""What still fits on the disks that a fleet writes to: too little is told in time, and once."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.clock import ManualClock
from support.engines import Project, until
from support.stores import tuples

from engine.care.attention import Attention
from engine.care.health import HealthWatch, take_health
from engine.commands import Acknowledge
from engine.config import Config, WorktreeConfig
from engine.disks import Disk, DiskWatch, disks_of
from engine.errors import StorageError
from engine.files import Layout
from engine.findings import Level
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.store import Store
from engine.views import HealthStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB, GIB = 2**20, 2**30


def a_disk(folder: Path, free: int = 100 * GIB, **more: Any) -> Disk:
    return replace(Disk(folder, free, 200 * GIB, 1_000_000), **more)


@pytest.mark.parametrize(
    ("free", "size", "files", "level"),
    [
        (GIB, 200 * GIB, None, None),
        (GIB - 1, 200 * GIB, None, Level.WARNING),
        (64 * MIB, 200 * GIB, None, Level.WARNING),
        (64 * MIB - 1, 200 * GIB, None, Level.ERROR),
        (0, 200 * GIB, None, Level.ERROR),
        # A small disk is not short of room from the start.
        (50 * MIB, 64 * MIB, None, None),
        (6 * MIB, 64 * MIB, None, Level.WARNING),
        (3 * MIB, 64 * MIB, None, Level.ERROR),
        (100 * GIB, 200 * GIB, 1_000, None),
        (100 * GIB, 200 * GIB, 999, Level.WARNING),
        (100 * GIB, 200 * GIB, 99, Level.ERROR),
        (GIB - 1, 200 * GIB, 0, Level.ERROR),
    ],
)
def test_a_disk_is_short_of_bytes_or_of_files(
    tmp_path: Path, free: int, size: int, files: int | None, level: Level | None
) -> None:
    disk = Disk(tmp_path, free, size, files)
    assert disk.shortage() is level
    assert disk.shortage(1000) is not None, "and more so with a larger bound"


def test_what_is_told_names_the_folder_what_is_left_and_what_to_do(tmp_path: Path) -> None:
    little = a_disk(tmp_path / "sta\x1b[2Jte", 812 * MIB)
    advice = "`agentmux gc` and `agentmux worktrees prune` remove what is old"
    assert little.words == f"the disk of {tmp_path}/state has room for only 812 MiB; {advice}"
    full = "once it is full, nothing can be recorded any more"
    next_to_none = replace(little, free=12_345, files=1)
    assert f"only 12 KiB and 1 more file: {full}; {advice}" in next_to_none.words
    for none in (replace(little, free=0), replace(little, files=0)):
        assert (
            none.words == f"the disk of {tmp_path}/state is full: nothing can be recorded; {advice}"
        )


class Disks:
    """File systems as one wants them to be: a path is on that of its longest prefix."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: dict[str, int | OSError | None] = {}
        """Bytes; None: the file system has no size."""
        self._real = os.statvfs
        monkeypatch.setattr(os, "statvfs", self._statvfs)

    def _statvfs(self, path: Any) -> Any:
        under = [root for root in self.free if str(path).startswith(root)]
        if not under:
            return self._real(path)
        free = self.free[max(under, key=len)]
        if isinstance(free, OSError):
            raise free
        unit, size = 4096, 0 if free is None else 200 * GIB
        left = (free or 0) // unit
        return SimpleNamespace(
            f_frsize=unit, f_bavail=left, f_blocks=size // unit, f_files=0, f_favail=0
        )


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(monkeypatch)


def test_each_disk_is_looked_at_once_also_for_folders_that_are_not_there_yet(
    tmp_path: Path, disks: Disks
) -> None:
    config = Config(worktrees=WorktreeConfig("/dev/agentmux-none/trees"))
    layout = Layout(tmp_path / "project/state")
    state, trees = disks_of(layout, tmp_path, config)
    real = os.statvfs("/dev")
    assert (state.folder, trees.folder) == (layout.state, Path("/dev/agentmux-none/trees"))
    assert trees.size == real.f_blocks * real.f_frsize
    assert (trees.files is None) is (real.f_files == 0)
    assert not layout.state.exists()
    assert [disk.folder for disk in disks_of(layout, tmp_path, Config())] == [layout.state]
    # One that cannot be looked at, or has no size, hides no other.
    for odd in (OSError(5, "Input/output error"), None):
        disks.free["/dev"] = odd
        assert [disk.folder for disk in disks_of(layout, tmp_path, config)] == [layout.state]


class Stage:
    """A store, the disk it lies on, and who watches that."""

    def __init__(self, folder: Path, disks: Disks) -> None:
        self.folder, self._disks = folder, disks
        self.layout = Layout(folder / "state")
        self.clock = ManualClock()
        self.store = Store(self.layout, self.clock, lease=600)
        self.reader = Reader(self.layout.database)
        self.left(100 * GIB)

    def left(self, free: int | OSError) -> None:
        self._disks.free[str(self.folder)] = free

    def watch(self) -> DiskWatch:
        return DiskWatch(
            config=Config(),
            store=self.store,
            lookout=Lookout(self.reader, self.clock),
            layout=self.layout,
            project=self.folder,
        )

    def alerts(self) -> list[tuple[str, str, int]]:
        return tuples(self.layout, "SELECT kind, subject, error FROM alerts ORDER BY id")


@pytest.fixture
async def stage(tmp_path: Path, disks: Disks) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path, disks)
    stage.layout.create()
    await stage.store.open()
    async with stage.reader:
        yield stage
    await stage.store.close()


async def test_what_became_worse_is_an_alert_once_until_it_is_over(stage: Stage) -> None:
    watch, name = stage.watch(), str(stage.layout.state)
    little, none = ("disk", name, 0), ("disk", name, 1)
    for free, alerts in (
        (100 * GIB, []),
        (GIB - 5000, [little]),
        (GIB + 5000, [little]),  # it hovers
        (GIB - 5000, [little]),
        (63 * MIB, [little, none]),
        (65 * MIB, [little, none]),
        (63 * MIB, [little, none]),
        (500 * MIB, [little, none]),  # less bad, and no news
        (63 * MIB, [little, none, none]),  # it has been better for a while
        (3 * GIB, [little, none, none]),
        (GIB - 5000, [little, none, none, little]),
    ):
        stage.left(free)
        await watch.look()
        await watch.look()
        assert stage.alerts() == alerts, free


async def test_a_disk_that_cannot_be_looked_at_for_a_moment_is_no_new_one_after_it(
    stage: Stage,
) -> None:
    watch = stage.watch()
    for free in (MIB, OSError(5, "Input/output error"), MIB):
        stage.left(free)
        await watch.look()
        assert len(stage.alerts()) == 1


async def test_who_watches_next_repeats_nothing_that_nobody_has_acknowledged(stage: Stage) -> None:
    stage.left(GIB - 5000)
    await stage.watch().look()
    await stage.watch().look()
    assert len(stage.alerts()) == 1
    await stage.store.acknowledge(None)
    await stage.watch().look()
    assert len(stage.alerts()) == 2
    stage.left(MIB)
    await stage.watch().look()
    assert [error for _, _, error in stage.alerts()] == [0, 0, 1]


async def test_an_alert_that_finds_no_room_itself_is_raised_once_there_is_some(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = stage.watch()
    stage.left(0)

    async def full(*_: object) -> None:
        raise StorageError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "raise_alerts", full)
        with pytest.raises(StorageError):
            await watch.look()
    stage.left(MIB)
    await watch.look()
    assert [error for _, _, error in stage.alerts()] == [1]


@asynccontextmanager
async def attention(project: Project) -> AsyncIterator[tuple[Any, Attention]]:
    async with project.engine() as engine:
        read = engine.queries
        watch = HealthWatch(
            engine.layout, project.folder, engine.config, engine.clock, read.last_seq
        )
        yield engine, Attention(engine.layout, engine.clock, watch, read.last_seq, read.alerts)


async def test_health_says_it_and_it_needs_somebody_once_until_it_is_acknowledged(
    project: Project, disks: Disks
) -> None:
    disks.free[str(project.folder)] = 12 * MIB
    async with attention(project) as (engine, needs):
        name = str(engine.layout.state)
        seen = await take_health(engine.layout, project.folder, engine.config, engine.clock)
        (part,) = [part for part in seen.parts if part.name == "disks"]
        assert (seen.degraded, part.status) == (True, HealthStatus.DEGRADED)
        assert [f"the disk of {name} has room for only 12 MiB" in one for one in part.reasons]

        # Whoever keeps workers watches.
        await engine.start_worker("codex", "codex-1")
        await until(lambda: engine.queries.alerts(5), "an alert")
        assert [row.subject for row in await needs.rows()] == [name]
        (alert,) = await engine.queries.alerts(5)
        assert (alert.kind, alert.error, alert.subject) == ("disk", True, name)

        await engine.execute(Acknowledge(None))
        assert [row.key for row in await needs.rows()] == [f"disk:{name}"], "it is still so"
        disks.free[str(project.folder)] = 100 * GIB
        seen = await take_health(engine.layout, project.folder, engine.config, engine.clock)
        assert "disks" not in [part.name for part in seen.parts if part.reasons]
