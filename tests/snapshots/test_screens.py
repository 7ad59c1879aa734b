"""How every screen looks, at the three sizes: compared with pictures that people have looked at.

`pytest tests/snapshots --snapshot-update` takes new ones; look at them before you keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.screens import FakeEngine, FakeQueries, busy, settle

from engine.errors import StorageError
from tui.app import Dashboard
from tui.offer import Offer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from textual.pilot import Pilot

    Compare = Callable[..., bool]

SIZES = [(80, 24), (120, 40), (200, 60)]
sizes = pytest.mark.parametrize("size", SIZES, ids=[f"{w}x{h}" for w, h in SIZES])


def dashboard(queries: FakeQueries, *, runs: int = 0, watching: bool = False) -> Dashboard:
    engine = FakeEngine(queries)
    engine.runs = runs
    return Dashboard(engine, watching=watching, pace=0.01, ticks=None)


def press(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def run_before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.press(*keys)
        await settle(pilot)

    return run_before


@sizes
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((), id="dashboard"),
        pytest.param(("?",), id="help"),
        pytest.param(("j", "enter"), id="detail"),
        pytest.param(("/", *"state:blocked"), id="filter"),
    ],
)
def test_screen(snap_compare: Compare, size: tuple[int, int], keys: tuple[str, ...]) -> None:
    assert snap_compare(dashboard(busy()), terminal_size=size, run_before=press(*keys))


@sizes
def test_quit_question(snap_compare: Compare, size: tuple[int, int]) -> None:
    app = dashboard(busy(), runs=2)
    assert snap_compare(app, terminal_size=size, run_before=press("q"))


@sizes
def test_empty(snap_compare: Compare, size: tuple[int, int]) -> None:
    app = dashboard(FakeQueries(dag=""), watching=True)
    assert snap_compare(app, terminal_size=size, run_before=press())


@sizes
def test_demo_offer(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert snap_compare(Offer(), terminal_size=size)


@pytest.mark.parametrize("pane", ["1", "3", "4"])
def test_tab(snap_compare: Compare, pane: str) -> None:
    assert snap_compare(dashboard(busy()), terminal_size=(80, 24), run_before=press(pane))


@pytest.mark.parametrize("pane", ["2", "3", "4"])
def test_detail_tab(
    snap_compare: Compare, pane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = FakeEngine(busy(), state=tmp_path / "state")
    folder = engine.layout.run_folder("lint:types", "run-lint:types")
    folder.mkdir(parents=True)
    (folder / "stdout.log").write_text("".join(f"src/api/{n}.py: ok\n" for n in range(40)))
    (folder / "stderr.log").write_text("Traceback (most recent call last):\n  [red]boom[/]\n")
    app = Dashboard(engine, pace=0.01, ticks=None)
    keys = (*("j" for _ in range(7)), "enter", pane)
    assert snap_compare(app, terminal_size=(80, 24), run_before=press(*keys))


def test_trouble(snap_compare: Compare) -> None:
    queries = busy()
    queries.broken["tasks"] = StorageError("the database is locked; another program holds it")
    assert snap_compare(dashboard(queries), terminal_size=(120, 40), run_before=press())


def test_refusal(snap_compare: Compare) -> None:
    app = dashboard(busy())
    assert snap_compare(app, terminal_size=(120, 40), run_before=press("G", "u"))


def test_a_builtin_light_theme(snap_compare: Compare) -> None:
    app = dashboard(busy())
    app.theme = "textual-light"
    assert snap_compare(app, terminal_size=(120, 40), run_before=press())
