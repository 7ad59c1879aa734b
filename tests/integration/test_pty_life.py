"""The life of a dashboard in a real terminal: opened, resized, suspended, cut off, left alone.

Real programs over real state folders; what is proven is what the terminal shows, what it is
left as, and what becomes of runs, tasks and processes.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
from support.program import Project
from support.sequences import Written
from support.terminal import Terminal, dashboard

if TYPE_CHECKING:
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
  - {id: third, agent: codex, deps: [second], payload: {kind: shell, cmd: "sudo reboot"}}
  - {id: fourth, agent: codex, deps: [third]}
"""
CTRL_C, CTRL_Q, CTRL_Z = "\x03", "\x11", "\x1a"
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
        at.shows("needs you: 'sudo' is not on the allow-list")
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
        at.shows("ready for a codex worker")
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
    "dashboard": ("", "2 Tasks"),
    "detail": ("g\r", "Depends on"),
    "log": ("jjl", "said by first"),
    "history": ("h", "Runs"),
    "graph": ("d", "Graph"),
    "timeline": ("T", "Timeline"),
    "attention": ("!", "needs you"),
    "worker": ("1w", "Worker"),
    "question": ("c", "· "),
    "help": ("?", "Stop the worker gracefully"),
    "palette": (":", "an action, a task"),
}
STORM = 100
SMALLEST, LARGEST = (20, 5), (250, 80)
_AGES = re.compile(r"\d[\dhms:.]*|[▁-█]")


def likeness(text: str) -> str:
    """Return a screen without what time changes: numbers, and how much room they take."""
    return "\n".join(re.sub(r"[ ─━]+", " ", _AGES.sub("#", line)) for line in text.splitlines())


def storm(at: Terminal, last: tuple[int, int]) -> None:
    chance = random.Random(7)
    for _ in range(STORM):
        columns = chance.randint(SMALLEST[0], LARGEST[0])
        at.child.setwinsize(chance.randint(SMALLEST[1], LARGEST[1]), columns)
        at.read()
    at.resize(*last)


@pytest.mark.parametrize("last", [(120, 40), (80, 24)], ids=["120x40", "80x24"])
@pytest.mark.parametrize("screen", SCREENS)
def test_a_resize_storm_ends_in_the_picture_for_the_last_size(
    worked: Project, screen: str, last: tuple[int, int]
) -> None:
    keys, sign = SCREENS[screen]
    with dashboard(worked.folder, size=last) as at:
        at.shows("third")
        at.press(keys)
        at.shows(sign)
        before = likeness(at.settle())
        storm(at, last)
        at.until(lambda text: likeness(text) == before, f"picture as before:\n{before}\n")
        at.press(CTRL_Q)
        status = at.ended()
        print(at.text[-3000:])
        assert status == 0
    assert not Written(at.written).foreign
