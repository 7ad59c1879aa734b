"""The whole dashboard in a real terminal: started, watched, left, hung up on, killed softly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pexpect
import psutil
import pyte
import pytest
from support.program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ESC = "\x1b"
PATIENCE = 60.0
"""Seconds until a wait has failed; what is waited for takes a few, on a busy machine more."""

LONG = """
tasks:
  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: after, agent: codex, deps: [long]}
"""


class Terminal:
    """A terminal with the dashboard in it. Every wait is bounded."""

    def __init__(self, folder: Path, *arguments: str, size: tuple[int, int] = (120, 40)) -> None:
        columns, rows = size
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "tui", *arguments],
            cwd=str(folder),
            env=ENVIRONMENT | {"TMPDIR": str(folder)},
            dimensions=(rows, columns),
            timeout=PATIENCE,
        )
        self.child.delaybeforesend = None
        self.process = psutil.Process(self.child.pid)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    def press(self, keys: str) -> None:
        self.child.send(keys)

    def until(self, fulfilled: Callable[[str], object], what: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while not fulfilled(self.text):
            if time.monotonic() > deadline:
                pytest.fail(f"no {what} within {PATIENCE} s; the screen is:\n{self.text}")
            try:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=0.2))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                pytest.fail(f"the program ended before {what}; the screen is:\n{self.text}")
        return self.text

    def shows(self, words: str) -> str:
        return self.until(lambda text: words in text, repr(words))

    def ended(self) -> int | None:
        """Wait for the end; return the exit status, None after a signal."""
        deadline = time.monotonic() + PATIENCE
        while self.child.isalive():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not end; the screen is:\n{self.text}")
            try:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=0.2))
            except (pexpect.TIMEOUT, pexpect.EOF):
                continue
        status: int | None = self.child.exitstatus
        return status

    def tree(self) -> list[psutil.Process]:
        return self.process.children(recursive=True)


@contextmanager
def terminal(
    folder: Path, *arguments: str, size: tuple[int, int] = (120, 40)
) -> Iterator[Terminal]:
    opened = Terminal(folder, *arguments, size=size)
    try:
        yield opened
    finally:
        opened.child.close(force=True)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    return not alive


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "tasks", "ls", "--json"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    return {task["id"]: task for task in json.loads(done.stdout)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "long.yaml").write_text(LONG)
    return tmp_path


def test_the_demo_starts_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with terminal(tmp_path, "--demo") as at:
        for title in ("1 Workers", "2 Tasks", "3 Events", "4 Stale heartbeats", "? help"):
            at.shows(title)
        at.shows("claude-1")
        at.shows(" finished ")
        at.press("?")
        at.shows("Stop the worker gracefully")
        below = at.tree()
        # Not esc: with the next key behind it, it may be read as one key with alt.
        at.press("?q")
        at.shows("stop and release")
        at.press("y")
        assert at.ended() == 0
        assert gone(below)
    assert list(tmp_path.iterdir()) == []


def test_quitting_stops_the_run_and_releases_its_task(project: Path) -> None:
    with terminal(project, "long.yaml") as at:
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        at.shows("codex-1 started long")
        below = at.tree()
        at.press("q")
        at.shows("1 run of this dashboard is alive")
        at.press("\r")
        assert at.ended() == 0
        assert gone(below)
    long = tasks(project)["long"]
    assert (long["state"], long["attempts"]) == ("READY", 0)
    assert list((project / "state" / "pids").iterdir()) == []


def test_escape_stays_and_the_run_goes_on(project: Path) -> None:
    with terminal(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        at.press("q")
        at.shows("stop and release")
        at.press(ESC)
        at.until(lambda text: "stop and release" not in text, "closed question")
        assert "sleep" in [one.name() for one in at.tree()]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_and_releases_unasked(project: Path, sent: signal.Signals) -> None:
    with terminal(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        below = at.tree()
        at.child.kill(sent)
        assert at.ended() == 0
        assert gone(below)
    assert tasks(project)["long"]["state"] == "READY"


def test_a_terminal_that_goes_away_leaves_no_process_and_no_claim(project: Path) -> None:
    with terminal(project, "long.yaml") as at:
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        below = [at.process, *at.tree()]
        at.child.ptyproc.fileobj.close()
        assert gone(below)
        at.child.ptyproc.closed = at.child.ptyproc.terminated = True
    assert tasks(project)["long"]["state"] == "READY"


def test_a_second_dashboard_watches_and_steers_nothing(project: Path) -> None:
    with terminal(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        with terminal(project, "--watch", size=(80, 24)) as other:
            other.shows("watching")
            other.shows("long")
            other.press("u")
            other.shows("only watches")
            other.press("1")
            other.shows("codex-1")
            other.press("q")
            assert other.ended() == 0
        assert "sleep" in [one.name() for one in at.tree()]


def test_what_another_process_commits_is_shown(project: Path) -> None:
    with terminal(project, "long.yaml", "--workers", "0") as at:
        at.shows("no codex worker is there")
        subprocess.run(
            [sys.executable, "-m", "engine.cli", "hold"],
            cwd=project,
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        at.shows("HELD all")
        at.press("p")
        at.until(lambda text: "HELD" not in text, "resumed claims")
        at.press("q")
        assert at.ended() == 0


def test_where_nothing_is_yet_the_demo_is_offered_and_no_means_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        at.shows("Watch the bundled demo?")
        at.press(ESC)
        assert at.ended() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_offered_demo_starts_after_yes(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        at.shows("Watch the bundled demo?")
        at.press("y")
        at.shows("claude-1")
        at.press("q")
        at.shows("stop and release")
        at.press("y")
        assert at.ended() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_resize_storm_ends_in_the_right_layout(project: Path) -> None:
    with terminal(project, "long.yaml", "--workers", "0") as at:
        at.shows("no codex worker is there")
        for columns in (80, 120, 60, 200, 99, 100, 80):
            at.child.setwinsize(30, columns)
        at._screen.resize(30, 80)
        at.shows("▌2 Tasks 2")
        at.press("q")
        assert at.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--watch",), 1, "there is nothing to watch yet"),
        (("missing.yaml",), 1, "missing.yaml"),
        (("--demo", "long.yaml"), 2, "--demo brings its own DAG"),
        (("--watch", "long.yaml"), 2, "--watch seeds nothing"),
        (("--workers", "many"), 2, "'many' is no number from 0 to 64"),
        (("--version",), 0, "agentmux-tui"),
    ],
)
def test_what_cannot_be_opened_is_said_in_plain_text(
    project: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    with terminal(project, *arguments, size=(200, 24)) as at:
        at.shows(words)
        assert at.ended() == status


def test_without_a_terminal_it_says_what_works_without_one(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tui", "long.yaml"],
        cwd=project,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "`agentmux run` works without one" in done.stderr
