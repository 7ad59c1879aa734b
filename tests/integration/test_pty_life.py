"""The life of a dashboard in a real terminal: opened, resized, suspended, cut off, left alone.

Real programs over real state folders; what is proven is what the terminal shows, what it is
left as, and what becomes of runs, tasks and processes.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import re
import signal
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

import psutil
import pytest
from support.engines import suspend
from support.patience import PATIENCE
from support.program import Project, eventually
from support.sequences import Written
from support.terminal import ESC, Terminal, dashboard, gone

from engine.files import Layout

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

LONG = """
tasks:
  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: after, agent: codex, deps: [long]}
"""
DONE = """
tasks:
  - {id: first, agent: codex, payload: {kind: shell, cmd: "echo said by first"}}
  - {id: second, agent: codex, deps: [first], payload: {kind: noop, seconds: 0}}
  - {id: third, agent: codex, deps: [second], payload: {kind: shell, cmd: ls, cwd: nowhere}}
  - {id: fourth, agent: codex, deps: [third]}
"""
CTRL_C, CTRL_Q, CTRL_Z = "\x03", "\x11", "\x1a"
BACK = "\x7f"
"""A second key for what esc does, where a test asks for it."""
BEGUN = b"\x1b[?7l"
"""The last that is written when the terminal is taken: lines no longer wrap."""
TITLES = ("1 Workers", "2 Tasks", "3 Events", "4 Stale heartbeats")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write(LONG, "long.yaml")
    return made


@pytest.fixture
def worked(tmp_path: Path) -> Project:
    """A folder in which all that could run has run."""
    made = Project(tmp_path)
    made.write(DONE)
    assert made.run("run", "dag.yaml").returncode == 1
    return made


def sleeps(at: Terminal) -> bool:
    return "sleep" in [one.name() for one in at.tree()]


def works(at: Terminal) -> None:
    """Wait until the task that sleeps runs, and is shown to."""
    at.shows("codex-1 started long")
    at.until(lambda _: sleeps(at), "running sleep")


# -- opening ---------------------------------------------------------------------------------


def test_all_four_panes_are_filled_from_the_store(worked: Project) -> None:
    with dashboard(worked.folder, "--workers", "0") as at:
        for title in TITLES:
            at.shows(title)
        at.shows("needs you: payload.cwd: ")
        text = at.shows("fourth is blocked")
        assert all(name in text for name in ("first", "second", "third"))
        assert "no workers: a adds one" in text
        assert "every worker gives signs of life" in text
        at.press("q")
        assert at.ended() == 0
        assert at.echoes
    assert Written(at.written).restored


def test_a_folder_without_a_store_is_seeded_from_its_default_dag(tmp_path: Path) -> None:
    (tmp_path / "agentmux").mkdir()
    project = Project(tmp_path)
    project.write(LONG, "agentmux/dag.yaml")
    with dashboard(tmp_path, "--workers", "0") as at:
        at.shows("no codex worker runs")
        at.shows("waits for long")
        at.press("q")
        assert at.ended() == 0
    assert project.states() == {"long": "READY", "after": "READY"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("agentmux.yaml", "grace: never\n", ("VALIDATION_ERROR", "agentmux.yaml", "grace")),
        ("agentmux.yaml", "keys: {kill: r}\n", ("VALIDATION_ERROR", "r is the key of retry")),
        ("long.yaml", "tasks: [{id: a}]\n", ("VALIDATION_ERROR", "long.yaml", "agent")),
        ("long.yaml", "tasks: [\n", ("VALIDATION_ERROR", "long.yaml")),
    ],
)
def test_what_is_wrong_is_said_once_the_terminal_is_as_it_was(
    project: Project, name: str, content: str, words: tuple[str, ...]
) -> None:
    project.write(content, name)
    with dashboard(project.folder, "long.yaml", size=(200, 24)) as at:
        assert at.ended() == 1
        assert at.echoes
    for word in words:
        assert word in at.text
    written = Written(at.written)
    assert written.restored
    assert not written.foreign
    assert "Traceback" not in written.text
    # The refusal stands on the terminal's own screen, below what stood there.
    assert at.written.rfind(b"\x1b[?1049l") < at.written.find(words[0].encode())


# -- another size ----------------------------------------------------------------------------

SCREENS = {
    "dashboard": ("2", "blocked by third", ""),
    "detail": ("g\r", "Depends on", BACK),
    "log": ("gjjl", "said by first", BACK),
    "history": ("h", "3 runs", BACK),
    "graph": ("d", "Graph", BACK),
    "timeline": ("T", "Timeline", BACK),
    "attention": ("!", "Needs you", BACK),
    "worker": ("1w2", "Processes", BACK),
    "question": ("2gc", "One by one", "n"),
    "help": ("?", "Stop the worker gracefully", "?"),
    "palette": (":", "Show everything about", ESC),
}
"""Every screen: the keys that lead to it from the one before, words of it, the key that leaves."""
STORM = 8
SMALLEST, LARGEST = (20, 5), (250, 80)
_AGES = re.compile(r"\d[\dhms:.]*|[▁-█]+")


def likeness(text: str) -> str:
    """Return a screen without what time changes: numbers, and how much room they take.

    The first line is left out, in which words come and go with the minutes.
    """
    lines = text.splitlines()[1:]
    return "\n".join(re.sub(r"[ ─━]+", " ", _AGES.sub("#", line)) for line in lines)


def outline(text: str) -> str:
    """Return how long the lines are, and with what they begin and end: all in it may move."""
    return "\n".join(f"{line[:1]}{len(line)}{line[-1:]}" for line in text.splitlines()[1:-1])


def resized(at: Terminal, name: str, last: tuple[int, int], chance: random.Random) -> None:
    """Go to a screen, let its terminal have many sizes, and see it as it was."""
    keys, sign, leaving = SCREENS[name]
    at.press(keys)
    at.shows(sign)
    # The axis of the timeline, and its bars, go with the time.
    like = outline if name == "timeline" else likeness
    before = like(at.settle(0.3))
    for _ in range(STORM):
        columns = chance.randint(SMALLEST[0], LARGEST[0])
        at.child.setwinsize(chance.randint(SMALLEST[1], LARGEST[1]), columns)
        at.read()
    at.resize(*last)
    at.until(lambda text: like(text) == before, f"{name} as before, which was\n{before}\n")
    assert sign in at.text
    if leaving:
        at.press(leaving)
        at.hides(sign)


def test_a_resize_storm_on_any_screen_ends_in_the_picture_for_the_last_size(
    worked: Project,
) -> None:
    # With another key behind it, esc may be read as one key with alt.
    worked.write("keys: {back: [escape, backspace]}\n", "agentmux.yaml")
    chance, last = random.Random(7), (80, 24)
    with dashboard(worked.folder, size=last) as at:
        at.shows("third")
        at.shows("! 1")
        for name in SCREENS:
            resized(at, name, last, chance)
        at.press(CTRL_Q)
        assert at.ended() == 0
    assert not Written(at.written).foreign
    assert "Traceback" not in Written(at.written).text


@pytest.mark.parametrize(("keys", "sign"), [("", "third"), ("?", "Stop the worker gracefully")])
def test_a_size_that_was_another_for_a_moment_leaves_no_damage(
    worked: Project, keys: str, sign: str
) -> None:
    with dashboard(worked.folder) as at:
        at.shows("! 1")
        at.press(keys)
        at.shows(sign)
        before = likeness(at.settle())
        for _ in range(3):
            at.child.setwinsize(10, 40)
            at.resize(120, 40)  # what was cut off is lost
            at.until(lambda text: likeness(text) == before, f"picture as before:\n{before}\n")
        at.press(CTRL_Q)
        assert at.ended() == 0


# -- keys that come faster than the screen ---------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "sign", "leaving"),
    [
        ("c", "One by one", "nnn"),
        ("c", "One by one", "yyy"),
        ("?", "Stop the worker gracefully", "???"),
        (":", "an action, a task", "\r\r\r"),
        ("a", "Add a worker for", "\r\r\r"),
        ("v", "space shows or hides", "\r\r\r"),
        ("h", "History", ESC * 3),
    ],
    ids=["no", "yes", "help", "palette", "choosing", "columns", "history"],
)
def test_a_key_that_leaves_a_screen_and_repeats_leaves_no_other(
    worked: Project, keys: str, sign: str, leaving: str
) -> None:
    worked.write(DONE + "  - {id: other, agent: claude, deps: [third]}\n")
    worked.ok("tasks", "seed", "dag.yaml")
    with dashboard(worked.folder) as at:
        at.shows("third")
        at.shows("codex-1 started (")  # the engine is open
        at.press(keys)
        at.shows(sign)
        at.settle()
        at.press(leaving)
        at.hides(sign)
        at.press(CTRL_Q)
        assert at.ended() == 0


# -- suspended and resumed -------------------------------------------------------------------


def stopped(at: Terminal) -> None:
    at.until(lambda _: at.process.status() == psutil.STATUS_STOPPED, "stop")


@pytest.mark.parametrize("where", ["", "?", "/", "h", "q"])
def test_ctrl_z_gives_the_terminal_back_and_the_fleet_works_on_afterwards(
    project: Project, where: str
) -> None:
    project.write("heartbeat: 0.3\n", "agentmux.yaml")
    with dashboard(project.folder, "long.yaml") as at:
        works(at)
        at.until(lambda text: re.search(r"codex-1 .*\d%", text), "share of the CPU")
        at.press(where)
        before = likeness(at.settle())
        at.press(CTRL_Z)
        stopped(at)
        at.settle()
        echoes = at.echoes
        assert echoes
        assert Written(at.written).restored
        assert sleeps(at)
        since = len(at.written)
        at.resize(120, 40)
        at.child.kill(signal.SIGCONT)
        at.until(lambda text: likeness(text) == before, f"picture as before:\n{before}\n")
        echoes_again = at.echoes
        assert not echoes_again
        again = Written(at.written[since:]).modes
        assert again["?1049"]
        assert not again["?25"]
        assert sleeps(at)
        assert project.states() == {"long": "RUNNING", "after": "READY"}
        beats = "SELECT beat_at FROM workers WHERE id = 'codex-1'"
        beat = project.select(beats)
        assert beat
        eventually(lambda: project.select(beats) > beat)
        at.child.kill(signal.SIGTERM)
        assert at.ended() == 0
    assert project.states()["long"] == "READY"


def test_a_dashboard_that_was_stopped_from_outside_goes_on_and_ends_as_any_other(
    project: Project,
) -> None:
    with dashboard(project.folder, "long.yaml") as at:
        works(at)
        for _ in range(2):
            at.child.kill(signal.SIGSTOP)
            stopped(at)
            since = len(at.written)
            at.child.kill(signal.SIGCONT)
            at.writes(BEGUN, since=since)
        at.press("?")
        at.shows("Stop the worker gracefully")
        at.press("?")
        at.hides("Stop the worker gracefully")
        below = at.tree()
        at.press("q")
        at.shows("stop and release")
        at.press("y")
        assert at.ended() == 0
        assert at.echoes
        assert gone(below)
    assert Written(at.written).restored


def test_signals_that_come_while_it_paints_do_not_stop_it(project: Project) -> None:
    with dashboard(project.folder, "long.yaml", "--workers", "0") as at:
        at.shows("no codex worker runs")
        for _ in range(15):
            since = len(at.written)
            for _ in range(5):
                at.press("z")
                at.child.kill(signal.SIGCONT)
                at.read()
            at.writes(BEGUN, since=since)
        at.settle()
        at.press("q")
        assert at.ended() == 0
        assert at.echoes
    assert Written(at.written).restored


# -- leaving ---------------------------------------------------------------------------------


def test_ctrl_c_asks_as_q_does(project: Project) -> None:
    with dashboard(project.folder, "long.yaml") as at:
        works(at)
        at.press(CTRL_C)
        at.shows("1 run of this dashboard is alive")
        at.press("n")
        at.hides("1 run of this dashboard is alive")
        assert sleeps(at)
        below = at.tree()
        at.press(CTRL_C)
        at.shows("1 run of this dashboard is alive")
        at.press("y")
        assert at.ended() == 0
        assert at.echoes
        assert gone(below)
    assert Written(at.written).restored
    assert project.states()["long"] == "READY"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_question_leaves_the_terminal_as_it_was(
    project: Project, sent: signal.Signals
) -> None:
    with dashboard(project.folder, "long.yaml") as at:
        works(at)
        at.press("q")
        at.shows("stop and release")
        below = at.tree()
        at.child.kill(sent)
        assert at.ended() == 0
        assert at.echoes
        assert gone(below)
    assert Written(at.written).restored
    assert project.states()["long"] == "READY"


# -- several over one state folder -----------------------------------------------------------

SOON = 2.0
"""Seconds from a commit to the screen of somebody else; 0.25 where nothing else is going on."""


def committed(project: Project, kind: str) -> float:
    """Return when the newest event of a kind was written, in seconds since 1970."""
    (*_, newest) = project.events_of(kind)
    return datetime.fromisoformat(newest["ts"]).timestamp()


def test_two_dashboards_are_live_and_each_keeps_to_its_own_runs(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(
        LONG.replace("long", "one") + LONG.replace("long", "two")[7:].replace("after", "last")
    )
    with dashboard(tmp_path, "dag.yaml") as at:
        at.shows("codex-1 started one")
        with dashboard(tmp_path) as other:
            other.shows("codex-2 started two")
            at.shows("codex-2 started two")
            for asked, seen in ((at, other), (other, at)):
                for kind, sign in (("HELD", seen.shows), ("RESUMED", seen.hides)):
                    asked.press("p")
                    sign("HELD all")
                    shown = time.time()
                    assert shown - committed(project, kind) < SOON
            other.press("q")
            other.shows("1 run of this dashboard is alive")
            below = other.tree()
            other.press("y")
            assert other.ended() == 0
            assert gone(below)
        at.shows("codex-2 stopped")
        assert sleeps(at)
        assert project.states()["one"] == "RUNNING"


def dies_on_screen(project: Project, at: Terminal, worker: subprocess.Popen[str]) -> None:
    """See a worker of another process work, go silent and die."""
    at.until(lambda text: re.search(r"● +outside +codex +long", text), "worker at work")
    at.shows("of 1 busy")
    at.shows("every worker gives signs of life")
    asyncio.run(suspend(worker, Layout(project.state)))
    at.until(lambda text: re.search(r"△ +outside +\ds +alive +long", text), "stale worker")
    at.shows("△ 1")
    worker.kill()
    at.until(lambda text: re.search(r"△ +outside +\ds +gone +long", text), "dead worker")


@pytest.fixture
def attentive(project: Project) -> Project:
    project.write("heartbeat: 0.2\nstale_after: 1\ngrace: 0.5\n", "agentmux.yaml")
    return project


def test_an_outside_worker_appears_works_and_dies_and_another_takes_its_task(
    attentive: Project,
) -> None:
    with dashboard(attentive.folder, "long.yaml", "--workers", "0") as at:
        at.shows("no workers: a adds one")
        with attentive.started("worker", "--agent", "codex", "--worker-id", "outside") as worker:
            dies_on_screen(attentive, at, worker)
            at.press("a")  # who holds workers looks after those of others
            at.shows("outside is lost: its process is gone")
            at.shows("codex-1 started long")
            at.hides("△ 1")
            at.shows("1 of 1 busy")
        at.press("q")
        at.shows("1 run of this dashboard is alive")
        at.press("y")
        assert at.ended() == 0
    assert attentive.states()["long"] == "READY"


def test_what_a_dead_outside_worker_held_can_be_released_where_nobody_works(
    attentive: Project,
) -> None:
    with dashboard(attentive.folder, "long.yaml", "--workers", "0") as at:
        at.shows("no workers: a adds one")
        with attentive.started("worker", "--agent", "codex", "--worker-id", "outside") as worker:
            dies_on_screen(attentive, at, worker)
            at.press("4u")
            at.shows("no codex worker runs")
        at.press("q")
        assert at.ended() == 0
    assert attentive.states()["long"] == "READY"


# -- a store that does not answer ------------------------------------------------------------


def test_a_lost_database_is_said_with_the_age_of_the_data_and_heals_by_itself(
    worked: Project,
) -> None:
    database, aside = worked.state / "tasks.db", worked.folder / "aside.db"
    with dashboard(worked.folder, "--workers", "0") as at:
        at.shows("fourth is blocked")
        at.settle()
        database.rename(aside)
        at.until(lambda text: re.search(r"data \d+s old", text), "age of the data")
        assert "first" in at.text
        aside.rename(database)
        at.until(lambda text: not re.search(r"data .* old", text), "store that is back")
        database.rename(aside)
        database.mkdir()
        at.until(lambda text: re.search(r"data \d+s old", text), "age of the data")
        database.rmdir()
        aside.rename(database)
        at.until(lambda text: not re.search(r"data .* old", text), "store that is back")
        worked.ok("hold")
        at.shows("HELD all")
        at.press("q")
        assert at.ended() == 0


def test_while_somebody_else_writes_all_the_time_it_shows_what_there_is_and_steers_later(
    worked: Project,
) -> None:
    with dashboard(worked.folder, "--workers", "0") as at:
        at.shows("! 1 needs you")
        with closing(connected(worked)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            at.press("p")
            at.shows("database is locked")
            assert "first" in at.text
            at.press("h")
            at.shows("3 runs")
            at.press(ESC)
            at.shows("2 Tasks")
            at.hides("History")  # esc was read: no key can be taken for one with alt
            assert "HELD" not in at.text
            holder.execute("ROLLBACK")
        at.press("p")
        at.shows("HELD all")
        worked.ok("resume")
        at.hides("HELD all")
        worked.ok("hold")
        at.shows("HELD all")
        assert time.time() - committed(worked, "HELD") < SOON
        at.press("q")
        assert at.ended() == 0


WAL_LOCKS = (8, 120)
"""How many bytes of the -shm file SQLite locks, and from where: without them nobody reads."""
HEALED = 10.0
"""Seconds until it looks again; three times as long as it was held up would be longer."""


def test_a_database_that_is_locked_for_readers_is_said_and_heals_by_itself(
    worked: Project,
) -> None:
    with dashboard(worked.folder, "--workers", "0") as at:
        at.shows("! 1")
        at.settle()
        with (worked.state / "tasks.db-shm").open("r+b") as index:
            fcntl.lockf(index, fcntl.LOCK_EX, *WAL_LOCKS)
            at.until(lambda text: re.search(r"store busy for [6-9]s", text), "store that is busy")
            assert "fourth" in at.text
            fcntl.lockf(index, fcntl.LOCK_UN, *WAL_LOCKS)
        worked.ok("hold")
        text = at.shows("HELD all")
        assert time.time() - committed(worked, "HELD") < HEALED
        assert not re.search(r"store busy|data .* old", text)
        at.press("q")
        assert at.ended() == 0


def connected(project: Project) -> sqlite3.Connection:
    return sqlite3.connect(project.state / "tasks.db", isolation_level=None, timeout=PATIENCE)
