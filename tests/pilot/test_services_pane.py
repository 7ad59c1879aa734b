"""Services on the screen: the pane that comes with them, its keys, their screens, and quitting."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.desk import Desk, ReadingDesk, desk
from support.patience import PATIENCE
from support.screens import FakeEngine, FakeQueries, busy, service, settle

from engine.commands import Receipt, RestartServices, StartServices, Step, StopServices
from engine.config import Config, Probe, ServiceConfig
from engine.errors import CommandNotAllowed
from engine.model import ServiceState
from tui.actions.model import Place
from tui.app import Dashboard
from tui.panes.services import ServicesPane
from tui.screens import main
from tui.screens.main import MainScreen
from tui.screens.question import Question
from tui.screens.service import ServiceLogScreen, ServiceScreen

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.commands import Command

ROOT = Path(__file__).resolve().parents[2]
WEB = ServiceConfig(
    ("npm", "run", "preview"), port=4173, depends_on=("db",), ready=Probe(http="/", port=4173)
)
DOWN = {"pid": None, "keeper": None}


def several() -> FakeQueries:
    """The busy fleet, with a service that is well, one that is not, and one that is down."""
    queries = busy()
    queries.all_services = [
        service("db", port=5432),
        service("docs", ServiceState.STOPPED, **DOWN),
        service("web", ServiceState.UNHEALTHY, port=4173, message="GET /health answers 500"),
    ]
    return queries


def pane_of(at: Desk, number: int) -> str:
    return next(line for line in at.lines if f" {number} Services " in line)


# -- the pane --------------------------------------------------------------------------------


async def test_a_fleet_without_services_has_four_panes_and_5_says_why() -> None:
    async with desk() as at:
        assert "5 Services" not in at.screen
        await at.press("5")
        assert at.place is Place.TASKS
        assert at.toasts == ["there are no services: `services:` in agentmux.yaml names some"]


def test_who_has_no_services_does_not_pay_for_their_pane() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests'); import asyncio; from support.desk import desk\n"
        "async def look():\n"
        "    async with desk(): pass\n"
        "asyncio.run(look())\n"
        "print({'tui.panes.services', 'tui.screens.service', 'tui.screens.external',"
        " 'engine.services.keeper'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "set()\n"


async def test_services_are_read_only_after_a_change() -> None:
    async with desk(several()) as at:
        before = at.engine.queries.asked.count("services")
        await at.press("5", "j", "2", "j", "3", "k")
        at.app.tick()
        await at.settle()
        assert at.engine.queries.asked.count("services") == before
        await at.change()
        assert at.engine.queries.asked.count("services") == before + 1


async def test_the_pane_comes_with_the_first_service() -> None:
    async with desk() as at:
        at.engine.queries.all_services = [service("web", port=4173)]
        await at.change()
        assert "5 Services" in at.screen
        await at.press("5")
        assert at.place is Place.SERVICES


async def test_services_that_only_the_settings_name_are_shown_as_stopped() -> None:
    engine = FakeEngine(busy())
    engine.config = Config(services={"web": WEB})
    async with desk(engine=engine) as at:
        row = next(line for line in at.lines if "web" in line)
        assert "–  web" in row  # noqa: RUF001 - the symbol
        assert "4173" in row
        assert "stopped" in row
        assert "0 of 1 ready" in at.screen


async def test_each_service_tells_how_it_stands_and_why() -> None:
    async with desk(several(), size=(200, 60)) as at:
        assert "1 of 3 ready" in at.screen
        assert any("✓  db" in line and "ready" in line for line in at.lines)
        assert any("✗  web" in line and "unhealthy: GET /health" in line for line in at.lines)
        assert pane_of(at, 5)
        assert at.app.main.query_one("#services").has_class("-broken")


async def test_a_service_whose_keeper_is_gone_is_told_as_lost() -> None:
    queries = busy()
    queries.all_services = [service("web", keeper=None)]
    async with desk(queries) as at:
        assert any("△  web" in line and "nobody keeps it any more" in line for line in at.lines)
        queries.all_services = [service("web")]
        await at.change()
        assert any("✓  web" in line for line in at.lines)


async def test_who_died_without_a_commit_is_seen_all_the_same() -> None:
    queries = busy()
    queries.all_services = [service("web")]
    async with desk(queries) as at:
        queries.all_services = [service("web", keeper=None)]
        for _ in range(5):
            at.app.tick()
        await at.settle()
        assert any("△  web" in line for line in at.lines)


async def test_below_100_columns_the_services_are_the_fifth_tab() -> None:
    async with desk(several(), size=(80, 24)) as at:
        assert "5 Services 1/3" in at.lines[1]
        assert "5432" not in at.screen
        await at.press("5")
        assert "5432" in at.screen
        places = []
        for key in ("tab", "shift+tab"):
            await at.press(key)
            places.append(at.place)
        assert places == [Place.WORKERS, Place.SERVICES]


async def test_z_gives_the_services_the_whole_screen_and_back() -> None:
    async with desk(several()) as at:
        await at.press("5", "z")
        assert "2 Tasks" not in "".join(at.lines[2:])
        assert "GET /health answers 500" in at.screen
        await at.press("z")
        assert "3 Events" in at.screen


async def test_the_dashboard_opens_on_the_services_if_it_was_left_there() -> None:
    queries = several()
    async with desk(queries) as at:
        await at.press("5")
        preferences = at.app.preferences
    app = Dashboard(FakeEngine(queries), pace=0.01, ticks=None)
    app.preferences.pane = preferences.pane
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert app.main.selection().place is Place.SERVICES


async def test_a_failed_read_leaves_the_rows_and_says_why() -> None:
    queries = several()
    async with desk(queries) as at:
        queries.broken["services"] = CommandNotAllowed("the disk is gone")
        await at.change()
        assert "✓  db" in at.screen
        assert "the disk is gone" in pane_of(at, 5)


# -- steering --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (("5", "s"), StopServices(("db",))),
        (("5", "r"), RestartServices(("db",))),
        (("5", "j", "a"), StartServices(("docs",))),
        (("5", "j", "r"), RestartServices(("docs",))),
        (("5", "j", "j", "s"), StopServices(("web",))),
        (("5", "enter", "s"), StopServices(("db",))),
        (("5", "j", "enter", "a"), StartServices(("docs",))),
        (("5", "l", "r"), RestartServices(("db",))),
    ],
)
async def test_services_are_started_stopped_and_restarted_by_key(
    keys: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    async with desk(engine=FakeEngine(several(), state=tmp_path)) as at:
        at.engine.receipt = Receipt(done={"db": "done as asked"})
        await at.press(*keys)
        assert at.engine.commands == [command]
        assert at.engine.dry_runs == [], "nothing is lost: nobody is asked"
        assert at.toasts == ["db: done as asked"]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (("5", "a"), "db is ready already"),
        (("5", "j", "s"), "docs is not up"),
        (("5", "K"), "s stops a service, and kills what has not ended after its stop_timeout"),
        (("5", "c"), "choose a task first"),
        (("5", "u"), "choose a task or a worker first"),
        (("5", "D"), "choose a task first"),
        (("5", "t"), "choose a task or a run first"),
        (("5", "space"), "services are not marked: each is started and stopped by itself"),
    ],
)
async def test_what_makes_no_sense_for_a_service_says_why(keys: tuple[str, ...], why: str) -> None:
    async with desk(several()) as at:
        await at.press(*keys)
        assert at.toasts == [why]
        assert at.engine.commands == []


async def test_a_service_that_is_stopping_is_not_stopped_again() -> None:
    queries = busy()
    queries.all_services = [service("web", ServiceState.STOPPING)]
    async with desk(queries) as at:
        await at.press("5", "s")
        assert at.toasts == ["web is stopping already"]


async def test_the_footer_begins_with_what_only_services_know() -> None:
    async with desk(several()) as at:
        await at.press("5")
        assert at.footer.split()[:6] == ["s", "stop", "r", "restart", "a", "start"]
        assert "transcript" not in at.footer
        await at.press("2")
        assert "restart" not in at.footer


async def test_who_only_watches_sees_services_and_steers_none() -> None:
    async with desk(several(), watching=True) as at:
        for key in ("s", "a", "r"):
            await at.press("5", key)
        assert at.engine.commands == []
        assert set(at.toasts) == {"this dashboard only watches; start it without --watch to steer"}


async def test_a_slow_stop_does_not_hold_the_screen_up() -> None:
    async with desk(several()) as at:
        at.engine.steps = [Step("stopping")]
        at.engine.may_step.clear()
        at.engine.receipt = Receipt(done={"db": "stopped"})
        await at.press("5", "s")
        assert at.engine.commands == [StopServices(("db",))]
        await at.press("2", "j")
        assert at.place is Place.TASKS
        assert at.toasts == []
        at.engine.may_step.set()
        await at.settle()
        assert at.toasts == ["db: stopped"]


async def test_what_the_engine_refuses_is_told() -> None:
    async with desk(several()) as at:
        at.engine.refusal = CommandNotAllowed("no process keeps the services")
        await at.press("5", "r")
        assert at.toasts == ["Restart: no process keeps the services"]


# -- a service in full -----------------------------------------------------------------------


async def test_enter_shows_how_a_service_stands_its_settings_and_its_log(tmp_path: Path) -> None:
    queries = several()
    engine = FakeEngine(queries, state=tmp_path / "state")
    engine.config = Config(services={"web": WEB})
    log = engine.layout.service_log("web")
    log.parent.mkdir(parents=True)
    log.write_text("listening on 4173\n\x1b[31mred\x1b[0m\n")
    async with desk(engine=engine) as at:
        await at.press("5", "G", "enter")
        assert at.shows(ServiceScreen)
        for words in (
            "✗ unhealthy", "GET /health answers 500", "npm run preview", "http /, port 4173",
            "db", "process 4321", "listening on 4173", "red",
        ):  # fmt: skip
            assert words in at.screen
        log.write_text("listening on 4173\nand on\n")
        queries.all_services[2] = service("web", port=4173)
        at.app.screen.tick()  # type: ignore[attr-defined]  # a PanedScreen
        await at.change()
        assert "✓ ready" in at.screen
        assert "and on" in at.screen
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_a_service_that_is_forgotten_is_told_so() -> None:
    queries = several()
    async with desk(queries) as at:
        await at.press("5", "enter")
        queries.all_services = []
        await at.change()
        assert "there is no such service any more" in at.screen
        await at.press("s")
        assert at.toasts == ["choose a service first"]


async def test_l_follows_the_log_of_a_service(tmp_path: Path) -> None:
    engine = FakeEngine(several(), state=tmp_path / "state")
    log = engine.layout.service_log("db")
    log.parent.mkdir(parents=True)
    log.write_text("ready for connections\n")
    async with desk(engine=engine) as there:
        at = ReadingDesk(there.engine, there.app, there.pilot)
        await at.press("5", "l")
        assert at.shows(ServiceLogScreen)
        assert "ready for connections" in at.screen
        assert "✓ ready" in at.lines[0]
        with log.open("a") as file:
            file.write("a query\n")
        await at.look()
        assert "a query" in at.screen
        await at.press("slash", *"query", "enter", "l")
        assert at.toasts == ["this is the log already"]
        await at.press("e")
        assert at.toasts[-1] == "a service has one log: there is no stream here"
        await at.press("escape", "escape")
        assert at.shows(MainScreen)


async def test_the_log_of_a_service_that_never_ran_says_what_would_fill_it(tmp_path: Path) -> None:
    async with desk(engine=FakeEngine(several(), state=tmp_path)) as there:
        at = ReadingDesk(there.engine, there.app, there.pilot)
        await at.press("5", "j", "l")
        assert "it has not been started yet: a starts it" in at.screen


# -- quitting --------------------------------------------------------------------------------


async def test_quitting_says_how_many_services_end_and_ends_them() -> None:
    async with desk(several()) as at:
        at.engine.kept = ("db", "web")
        await at.press("q")
        assert at.shows(Question)
        assert "2 services of this process end" in at.screen
        await at.press("n")
        assert at.shows(MainScreen)
        await at.press("q")
        await at.pilot.press("y")
        await at.pilot.pause()
        assert not at.engine.own_services()
        assert not at.app.is_running


async def test_quitting_with_runs_says_what_becomes_of_both() -> None:
    async with desk(several()) as at:
        at.engine.kept, at.engine.runs = ("db",), 2
        await at.press("q")
        assert "2 runs of this dashboard are alive." in at.screen
        assert "1 service of this process ends after them." in at.screen


async def test_services_of_another_process_are_no_reason_to_ask() -> None:
    async with desk(several()) as at:
        await at.pilot.press("q")
        await at.pilot.pause()
        assert not at.app.is_running


async def test_workers_that_wait_for_services_are_told_of() -> None:
    engine = FakeEngine(FakeQueries(all_services=[service("db", ServiceState.STARTING)]))
    engine.workers_wait = True
    async with desk(engine=engine) as at:
        assert "workers start once all services are ready" in at.screen


async def test_a_pane_that_is_long_in_coming_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = ServicesPane.compose

    def slowly(self: ServicesPane) -> ComposeResult:
        time.sleep(main._PATIENCE * 2)  # as a machine under load does
        return compose(self)

    monkeypatch.setattr(ServicesPane, "compose", slowly)
    engine = FakeEngine(FakeQueries(all_services=[service("db", ServiceState.STARTING)]))
    async with desk(engine=engine) as at:
        assert "db" in at.screen
