"""Services under a dashboard: real servers that keys start and stop, and that end with it."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from support.engines import until
from support.screens import screen_text
from support.servers import answers, listens
from support.stores import a_task
from support.terminal import dashboard, gone

from engine.commands import RegisterAgent, Seed, StartServices, StopServices
from engine.errors import ValidationError
from engine.front import Front
from engine.model import External
from engine.processes.signalling import identify
from tui.app import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.kept import Fleet
    from textual.pilot import Pilot


class Room:
    """A dashboard on a real engine."""

    def __init__(self, front: Front, app: Dashboard, pilot: Pilot[None]) -> None:
        self.front = front
        self.app = app
        self.pilot = pilot

    async def shows(self, *words: str) -> None:
        """Wait until a line of the screen has all of these words."""

        def shown() -> bool:
            lines = screen_text(self.app).splitlines()
            return any(all(word in line for word in words) for line in lines)

        await until(shown, f"the screen shows {words}")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


@asynccontextmanager
async def room(fleet: Fleet) -> AsyncIterator[Room]:
    async with fleet.project.engine() as engine:
        await engine.execute(Seed(fleet.project.dag(a_task("a"))))
    async with Front(fleet.project.layout.state, project=fleet.folder) as front:
        app = Dashboard(front, pace=0.01)
        async with app.run_test(size=(160, 40)) as pilot:
            yield Room(front, app, pilot)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"], cwd=tmp_path) as process:
        yield process
        process.kill()


async def test_keys_start_stop_and_restart_a_server(fleet: Fleet) -> None:
    port = fleet.add("web")
    async with room(fleet) as at:
        await at.shows("–  web", "stopped")  # noqa: RUF001 - the symbol
        await at.press("5", "a")
        await at.shows("✓  web", "ready")
        assert answers(port) == 200
        first = fleet.row("web")[4]
        assert at.front.own_services() == ("web",)
        await at.press("r")
        await until(lambda: fleet.row("web")[4] != first, "another process")
        await at.shows("✓  web", "ready")
        await at.press("l")
        await at.shows("begins well")
        await at.press("escape", "s")
        await at.shows("–  web", "stopped")  # noqa: RUF001 - the symbol
        assert not listens(port)
        assert at.front.own_services() == ()


async def test_one_that_fails_says_why_in_its_row_and_its_log(fleet: Fleet) -> None:
    fleet.add("web", "crash", restart="never")
    async with room(fleet) as at:
        await at.press("5", "a")
        await at.shows("✗  web", "it ended with 3")
        await at.press("enter")
        await at.shows("begins crash")


async def test_the_screen_goes_on_while_a_deaf_server_is_stopped(fleet: Fleet) -> None:
    port = fleet.add("web", "deaf", stop_timeout=2)
    async with room(fleet) as at:
        await at.press("5", "a")
        await at.shows("✓  web", "ready")
        await at.press("s")
        await at.shows("◑  web", "stopping")
        await at.press("2", "enter")
        await at.shows("Definition")
        assert listens(port), "it takes its time"
        await at.press("escape")
        await at.shows("–  web", "stopped")  # noqa: RUF001 - the symbol


async def test_what_a_dashboard_keeps_ends_with_it(fleet: Fleet) -> None:
    port = fleet.add("web")
    async with room(fleet) as at:
        await at.front.execute(StartServices(None))
        await at.shows("✓  web", "ready")
        await at.press("q")
        await at.shows("1 service of this process ends")
        await at.press("y")
        await until(lambda: not at.app.is_running, "it has left")
        assert not listens(port), "before the terminal is given back"
    assert fleet.states() == {"web": "stopped"}


async def test_k_ends_an_agent_that_somebody_else_has_started(
    fleet: Fleet, sleeper: subprocess.Popen[bytes]
) -> None:
    async with room(fleet) as at:
        agent = External("helper", "claude", identify(sleeper.pid), meta={"branch": "main"})
        await at.front.execute(RegisterAgent(agent))
        await at.shows("◇  helper", f"external pid {sleeper.pid}")
        await at.press("1", "K")
        await at.shows("1 agent ended")
        await at.press("y")
        await until(lambda: sleeper.poll() is not None, "it is ended")
        await at.shows("no workers")


async def test_workers_wait_until_all_services_are_ready(fleet: Fleet) -> None:
    fleet.add("web", "slow")
    fleet.add("db")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.project.dag(a_task("a"))))
        await engine.execute(StartServices(None))
        await engine.start_workers(after_services=True)
        await until(lambda: fleet.states()["db"] == "ready", "one is ready")
        assert engine.workers_wait
        assert engine.own_workers() == ()
        (fleet.folder / "web" / "go").touch()
        await engine.settled()
        assert engine.own_workers()
        assert fleet.states() == {"web": "ready", "db": "ready"}


async def test_workers_that_wait_are_given_up_with_the_others(fleet: Fleet) -> None:
    fleet.add("web", "slow")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await engine.start_workers(after_services=True)
        await engine.stop_workers()
        assert not engine.workers_wait


async def test_to_start_all_services_where_there_are_none_is_an_error(fleet: Fleet) -> None:
    async with fleet.engine() as engine:
        with pytest.raises(ValidationError, match="names no services"):
            await engine.execute(StartServices(None))
        with pytest.raises(ValidationError, match="names no services"):
            await engine.execute(StopServices(None))


# -- the program -----------------------------------------------------------------------------


def test_up_starts_services_then_workers_and_leaves_neither(fleet: Fleet) -> None:
    port = fleet.add("web", "slow")
    dag = fleet.project.dag(a_task("a"))
    with dashboard(fleet.folder, "--up", dag.name) as at:
        at.shows("workers start once all services are ready")
        at.shows("web")
        (fleet.folder / "web" / "go").touch()
        at.shows("codex-1 finished a")
        assert answers(port) == 200
        below = at.tree()
        at.press("q")
        at.shows("1 service of this process ends")
        at.press("y")
        assert at.ended() == 0
        assert gone(below)
    assert not listens(port)


def test_a_signal_ends_the_services_unasked(fleet: Fleet) -> None:
    port = fleet.add("web")
    with dashboard(fleet.folder, "--up") as at:
        at.shows("1 of 1 ready")
        below = at.tree()
        at.process.terminate()
        assert at.ended() == 0
        assert gone(below)
    assert not listens(port)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--up",), "VALIDATION_ERROR: agentmux.yaml names no services"),
        (("--up", "--watch"), "--watch starts nothing: leave --up out"),
        (("--up", "--demo"), "--demo brings its own DAG and state folder"),
    ],
)
def test_up_where_nothing_can_be_started_is_refused(
    tmp_path: Path, args: tuple[str, ...], why: str
) -> None:
    with dashboard(tmp_path, *args) as at:
        assert at.ended() in {1, 2}
        assert why in " ".join(at.text.split())
