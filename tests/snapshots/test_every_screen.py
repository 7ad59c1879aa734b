"""Every screen and every question at the three sizes, dark and light.

Each is opened once and then resized and recoloured, which is a promise as well: the picture is that
of an app that began so. `pytest tests/snapshots --snapshot-update` takes new ones.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from pytest_textual_snapshot import SVGImageExtension
from support.fleet import fleet, serving
from support.metrics import with_metrics
from support.screens import NOW, settle
from textual.command import CommandList
from textual.widgets import Input
from textual.worker import WorkerState

from engine.commands import EndedRun, Receipt, Refusal, Step
from engine.errors import Code
from engine.filters import EVENT_FIELDS, parse_filter
from tui.app import Dashboard
from tui.palette import Palette
from tui.screens.reading import ReadingScreen
from tui.theme import AGENTMUX, AGENTMUX_LIGHT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from support.screens import FakeEngine
    from syrupy.assertion import SnapshotAssertion
    from textual.pilot import Pilot

SIZES = [(80, 24), (120, 40), (200, 60)]
THEMES = {"dark": AGENTMUX.name, "light": AGENTMUX_LIGHT.name}

KILL = Receipt(
    done={"tests:race": "killed; its run by codex-1 ended"},
    counts={"killed": 1, "runs ended": 1, "tasks blocked by it": 2},
    ends=(EndedRun("run-tests:race", "tests:race", "codex-1", (4471, 4480, 4481)),),
)
RESEED = Receipt(
    done={
        "bench:claims": "created",
        "impl:T-004": 'updated: timeout 3600 → 900; cmd "pytest -q" → "pytest -q --maxfail=1"',
        "spike:graphql": "blocked: no longer in the DAG",
    },
    counts={"created": 1, "updated": 1, "unchanged": 24, "blocked": 1},
)
REFUSED = Receipt(
    done={"impl:T-004": "released from claude-1"},
    refused=tuple(
        Refusal(f"spec:part-{n}", Code.LEASE_CONFLICT, f"'spec:part-{n}' is done: nobody holds it")
        for n in range(1, 9)
    ),
    counts={"released": 1, "refused": 8},
)
WAITING = Step(
    "waiting for workers to stop",
    waiting_for=("codex-1 (pid 4471) with tests:race", "claude-1 (pid 4402) with impl:T-004"),
    seconds_left=12.0,
    next="then the log is rotated, the DAG is seeded and claims go on",
)


def _app(engine: FakeEngine) -> Dashboard:
    return Dashboard(engine, pace=0.01, ticks=None)


async def assert_looks(
    app: Dashboard,
    snapshot: SnapshotAssertion,
    act: Callable[[Pilot[None]], Awaitable[None]],
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    themes: Sequence[str] = tuple(THEMES),
) -> None:
    """Act in an app, and compare how it then looks at each size and in each theme."""
    pictures = {}
    app.theme = THEMES[themes[0]]
    async with app.run_test(size=sizes[0], notifications=True) as pilot:
        await act(pilot)
        for name in themes:
            app.theme = THEMES[name]
            for width, height in sizes:
                await pilot.resize_terminal(width, height)
                await _rest(pilot)
                pictures[f"{width}x{height}-{name}"] = app.export_screenshot()
    svg = snapshot.use_extension(SVGImageExtension)
    different = [name for name, picture in pictures.items() if svg(name=name) != picture]
    assert not different


async def _rest(pilot: Pilot[None]) -> None:
    await pilot.pause()
    screen = pilot.app.screen
    if isinstance(screen, ReadingScreen):
        await until(pilot, partial(getattr, screen.text.reader, "idle"))


def press(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def run_before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
            await _rest(pilot)

    return run_before


async def until(pilot: Pilot[None], fulfilled: Callable[[], bool]) -> None:
    """Wait until something is so, and painted. Bounded."""
    async with asyncio.timeout(20):
        while not fulfilled():
            await pilot.pause(0.01)
        await pilot.pause()


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((), id="dashboard"),
        pytest.param(("j", "enter"), id="detail"),
        pytest.param(("j", "l"), id="log"),
        pytest.param(("j", "l", "/", *"share", "enter"), id="log-find"),
        pytest.param(("j", "t"), id="transcript"),
        pytest.param(("j", "t", "F", "/", *"claim", "enter"), id="transcript-find"),
        pytest.param(("h",), id="history"),
        pytest.param(("d",), id="graph"),
        pytest.param(("1", "j", "j", "w"), id="worker"),
        pytest.param(("!",), id="attention"),
        pytest.param(("?",), id="help"),
        pytest.param(("space", "j", "space", "o"), id="marked"),
        pytest.param(("a",), id="choosing"),
        pytest.param(("v",), id="columns"),
    ],
)
async def test_screen(snapshot: SnapshotAssertion, tmp_path: Path, keys: tuple[str, ...]) -> None:
    app = _app(fleet(tmp_path / "state"))
    await assert_looks(app, snapshot, press(*keys))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(("5",), id="pane"),
        pytest.param(("5", "G", "enter"), id="service"),
        pytest.param(("5", "G", "l"), id="log"),
        pytest.param(("1", "G"), id="external"),
        pytest.param(("1", "G", "enter"), id="external-in-full"),
        pytest.param(("q",), id="quit"),
    ],
)
async def test_services(snapshot: SnapshotAssertion, tmp_path: Path, keys: tuple[str, ...]) -> None:
    engine = serving(tmp_path / "state")
    engine.kept = ("db", "web")
    await assert_looks(_app(engine), snapshot, press(*keys))


@pytest.mark.parametrize("size", SIZES, ids=[f"{width}x{height}" for width, height in SIZES])
async def test_timeline(snapshot: SnapshotAssertion, tmp_path: Path, size: tuple[int, int]) -> None:
    # Opened it shows all; resized it keeps its scale.
    await assert_looks(_app(fleet(tmp_path / "state")), snapshot, press("T"), sizes=[size])


@pytest.mark.parametrize(
    "keys", [pytest.param((), id="dashboard"), pytest.param(("M",), id="metrics")]
)
async def test_health(snapshot: SnapshotAssertion, tmp_path: Path, keys: tuple[str, ...]) -> None:
    app = _app(with_metrics(fleet(tmp_path / "state")))
    await assert_looks(app, snapshot, press(*keys))


async def test_event_filter(snapshot: SnapshotAssertion, tmp_path: Path) -> None:
    app = _app(fleet(tmp_path / "state"))
    wanted = parse_filter("type:failed", EVENT_FIELDS, now=NOW)

    def filtered() -> bool:
        picture = app.main.picture
        matching = picture.wants.matching if picture.wants is not None else None
        shown = matching is not None and matching.where == wanted and picture.events.value.complete
        return shown and app.at_rest

    async def type_filter(pilot: Pilot[None]) -> None:
        await press("3", "/", *"type:failed")(pilot)
        await until(pilot, filtered)

    await assert_looks(app, snapshot, type_filter)


@pytest.mark.parametrize(
    ("keys", "plan"),
    [
        pytest.param(("j", "K"), KILL, id="kill"),
        pytest.param(("S",), RESEED, id="reseed"),
        pytest.param(("space", "u"), REFUSED, id="bulk"),
        pytest.param(("space", "u", "y"), REFUSED, id="receipt"),
    ],
)
async def test_question(
    snapshot: SnapshotAssertion, tmp_path: Path, keys: tuple[str, ...], plan: Receipt
) -> None:
    engine = fleet(tmp_path / "state")
    engine.plan = engine.receipt = plan
    await assert_looks(_app(engine), snapshot, press(*keys))


async def test_reset_that_waits(snapshot: SnapshotAssertion, tmp_path: Path) -> None:
    engine = fleet(tmp_path / "state")
    engine.steps = [WAITING]
    engine.may_step.clear()
    engine.plan = Receipt(done={"codex-1": "stopped, tests:race released"})

    async def reset(pilot: Pilot[None]) -> None:
        await press("R", "y")(pilot)
        while len(pilot.app.screen_stack) == 1:
            await pilot.pause(0.01)

    await assert_looks(_app(engine), snapshot, reset)


async def test_quit(snapshot: SnapshotAssertion, tmp_path: Path) -> None:
    engine = fleet(tmp_path / "state")
    engine.runs = 2
    await assert_looks(_app(engine), snapshot, press("q"))


@pytest.mark.parametrize("theme", THEMES)
async def test_palette(snapshot: SnapshotAssertion, tmp_path: Path, theme: str) -> None:
    app = _app(fleet(tmp_path / "state"))

    async def search(pilot: Pilot[None]) -> None:
        await press(":")(pilot)
        await until(pilot, lambda: isinstance(app.screen, Palette) and _found(app, "needs you"))
        # All letters at once: of every letter by itself there would be a search, cut short or not.
        app.screen.query_one(Input).insert_text_at_cursor("race")
        await until(pilot, lambda: _found(app, "tests:race"))

    # Who changes the theme there has left it: Textual does not repaint what is below it.
    await assert_looks(app, snapshot, search, themes=[theme])


def _found(app: Dashboard, words: str) -> bool:
    """Say whether the palette shows all that it finds, and among it these words."""
    at_work = any(
        worker.node is app.screen and worker.state in {WorkerState.PENDING, WorkerState.RUNNING}
        for worker in app.workers
    )
    options = app.screen.query_one(CommandList).options
    return not at_work and any(words in str(option.prompt) for option in options)
