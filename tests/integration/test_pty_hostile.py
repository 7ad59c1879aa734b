"""Nothing that an agent, a file or a database says can act on the terminal (DESIGN §4.6).

The real program over a state folder full of hostile text, every screen of it, judged by the bytes
that it wrote: nothing but what Textual and we write ourselves. Text that looks like markup stands
there as it is.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.hostile import (
    ALL,
    BACK,
    DAG_NAME,
    LIVING,
    MARKUP,
    PLACE,
    QUOTED,
    SEQUENCES,
    SETTINGS,
    STYLE,
    TALK,
    TITLE,
    haunted,
    talking,
    tell,
    told,
)
from support.patience import PATIENCE
from support.program import Project, on_terminal
from support.sequences import Written
from support.terminal import ESC, Terminal, dashboard, gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDE, NARROW = (160, 50), (80, 24)
CTRL_A, CTRL_Q, KILL_LINE = "\x01", "\x11", "\x15"
DOWN, RIGHT, PAGE_DOWN = f"{ESC}[B", f"{ESC}[C", f"{ESC}[6~"
DETAIL = "1 Task ─"
OURS = "agentmux evil[red].yaml"
"""The title of the terminal: what is left of the file's name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A haunted folder that nobody steers."""
    return haunted(tmp_path_factory.mktemp("haunted"))


def assert_harmless(at: Terminal) -> Written:
    """Check that nothing in what was written came from outside."""
    written = Written(at.written)
    assert not written.foreign
    # Until the store is read, the name of the file is not known.
    assert {title.split(") ")[-1] for title in written.titles} <= {OURS, "agentmux"}
    assert written.bells == 0
    assert PLACE not in written.places
    assert not any(STYLE in style for style in written.styles)
    assert written.restored
    # One way out of the terminal's other screen, and that is at the end.
    assert at.written.count(b"\x1b[?1049l") == 1
    assert TITLE not in at.screen.title
    return written


@contextmanager
def haunting(project: Project, *arguments: str, size: tuple[int, int] = WIDE) -> Iterator[Terminal]:
    """Open the dashboard, and leave it; all that it wrote must be harmless."""
    with dashboard(project.folder, "--workers", "0", *arguments, size=size) as at:
        at.shows("HELD")
        at.until(lambda text: re.search(r"! \d+", text.splitlines()[-1]), "open engine")
        yield at
        at.press(CTRL_Q)
        assert at.ended() == 0
    assert len(assert_harmless(at).copied) == at.written.count(b"\x1b]52;")


def walk(at: Terminal, *keys: str) -> str:
    """Press one after the other, each once the screen is at rest; return all that was seen."""
    seen = []
    for key in keys:
        at.press(key)
        seen.append(at.settle(0.06))
    return "\n".join(seen)


@contextmanager
def visit(at: Terminal, keys: str, sign: str, leaving: str = BACK) -> Iterator[None]:
    """Go to a screen, of which `sign` is the name, and back again."""
    at.press(keys)
    at.shows(sign)
    yield
    at.press(leaving)
    at.hides(sign)


def sift(at: Terminal, words: str, sign: str = "") -> None:
    """Filter the list that has the keys, and see `sign` in what is found."""
    at.press("/")
    at.shows("│ / ")
    at.press(KILL_LINE + words)
    at.shows(f"/ {words}")
    at.press("\r")
    at.hides(f"/ {words}")
    at.shows(sign or words)


# -- every screen ----------------------------------------------------------------------------


def test_the_panes_their_filters_and_their_marks(folder: Project) -> None:
    with haunting(folder) as at:
        seen = walk(at, "1", "G", "2", "z", PAGE_DOWN, PAGE_DOWN, "z", "3", "z", "g", "G", "z")
        seen += walk(at, "4", "G", "2g")
        for markup in MARKUP:
            assert f"t{markup}e" in seen
        # Two halves side by side are two words.
        assert "split" in seen
        assert "]52;c;UFdORUQ=end" in seen
        sift(at, "[red]", "t[red]e")
        walk(at, CTRL_A, "o", BACK)
        with visit(at, "v", "space shows or hides", "\r"):
            walk(at, "j", "j")
        sift(at, "[nothing]", "nothing matches [nothing]")
        walk(at, BACK, "/", "state:[bold]")
        at.shows("no state '[bold]'")
        walk(at, KILL_LINE, "\r", "3")
        sift(at, "[@click", "3 Events  [@click")


def test_tasks_and_their_logs(folder: Project) -> None:
    with haunting(folder) as at:
        for found in ("[@click=app.quit]x[/]", "e61"):
            sift(at, found)
            with visit(at, "\r", DETAIL):
                walk(at, "1", "G", "2", "G", "3g", "G", "4g", "G", "1")
                at.shows(DETAIL)
        sift(at, "[red]log")
        with visit(at, "l", "{task}e61%se62"):  # its end
            seen = walk(at, "W", "g", *[PAGE_DOWN] * 4, "W", RIGHT, "#", "g", PAGE_DOWN)
            for markup in MARKUP:
                assert f"said {markup} so" in seen
            walk(at, "/", "cut ", "\r")
            at.shows("cut  so")
            walk(at, "n", "n", "/", "said [/", "\r")
            at.shows("said [/] so")
            walk(at, "e", "e", "G")
            at.shows("{task}e61%se62")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_transcript(tmp_path: Path, size: tuple[int, int]) -> None:
    with haunting(talking(tmp_path), size=size) as at:
        walk(at, "2G")
        with visit(at, "t", "Transcript"):
            seen = walk(at, "F", "g", *[PAGE_DOWN] * 7)
            for markup in MARKUP:
                assert f"said {markup} so" in seen
            walk(at, "/", "said [/", "\r")
            at.shows("said [/] so")
            walk(at, "n", "N", "v", "j", "y", "F", "G", BACK)  # the search is over
        with visit(at, "\r", DETAIL if size == WIDE else "1 Task"):
            walk(at, "3", "g", "G")


def test_a_transcript_on_the_command_line(tmp_path: Path) -> None:
    project = talking(tmp_path)
    for how in ((), ("--detailed",), ("--json",)):
        told = project.ok("transcript", TALK, *how)
        assert told.replace("\n", "").isprintable()
        code, shown = on_terminal(project, "transcript", TALK, *how, columns=100)
        assert code == 0
        assert re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\n", "").isprintable()
        assert how == ("--json",) or "said [@click=app.quit]x[/] so" in told


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_other_screens(folder: Project, size: tuple[int, int]) -> None:
    with haunting(folder, size=size) as at:
        seen = []
        with visit(at, "h", "1 Runs"):
            seen += [walk(at, "j", "2G", "1")]
            sift(at, "[red]")
            walk(at, "v", "\r", "O", BACK)
        with visit(at, "d", "1 Graph"):
            seen += [walk(at, RIGHT, "G", "v", "G", "g")]
        with visit(at, "T", "1 Timeline"):
            seen += [walk(at, "G", "+", "j", RIGHT)]
        with visit(at, "!", "Needs you"):
            seen += [walk(at, "G", PAGE_DOWN, "2G", "1g")]
        for keys in ("g", "G"):
            with visit(at, f"1{keys}w", "2 Processes"):
                seen += [walk(at, "2", "3", "4G", "3")]
        with visit(at, "?", "Stop the worker gracefully", "?"):
            pass
        signs = ("[red]", "message", "[$error]", "[2J") if size == WIDE else ("[red]", "message")
        assert all(any(sign in text for text in seen) for sign in signs)


def test_the_palette(folder: Project) -> None:
    with haunting(folder) as at:
        for typed in ("[red]", "@click", "w[", "]0;"):
            at.press(":")
            at.shows("an action, a task")
            at.press(typed)
            hit = re.compile(rf"(task|worker) .*{re.escape(typed)}")
            at.until(hit.search, f"hit for {typed}")
            walk(at, DOWN, "\r")
            at.hides("an action, a task")
            at.shows("Events")
            at.press(BACK)
            at.shows("4 Stale")


def test_what_is_copied_is_clean(folder: Project) -> None:
    with haunting(folder) as at:
        sift(at, "[red]log")
        at.press("l")
        at.shows("{task}e61%se62")
        at.press("g")
        at.shows("said  so")
        walk(at, "v", PAGE_DOWN, PAGE_DOWN)
        assert b"\x1b]52;" not in at.written
        at.press("y")
        at.shows("copied ")
    (copied,) = Written(at.written).copied
    kind, _, data = copied.partition(";")
    text = base64.b64decode(data).decode()
    assert kind == "c"
    assert "said [@click=app.quit]x[/] so" in text
    assert text.replace("\n", "").isprintable()


# -- steering --------------------------------------------------------------------------------


def test_questions(folder: Project) -> None:
    with haunting(folder) as at:
        for keys, title in (("2gjK", "─ Kill "), ("D", "─ Purge "), ("c", "─ Cancel ")):
            with visit(at, keys, title, "n"):
                walk(at, "G")
        at.press("1gK")
        at.shows("no live worker")
        at.press("2" + CTRL_A)
        at.shows("67 marked")
        for keys, title in (("K", "─ Kill "), ("r", "─ Retry "), ("u", "─ Release ")):
            with visit(at, keys, title, "n"):
                walk(at, PAGE_DOWN, "G")
        for keys, title in (("S", "─ Reseed "), ("R", "─ Reset ")):
            with visit(at, keys, title, "n"):
                at.shows("blocked: no longer in the DAG")
                walk(at, PAGE_DOWN, "G")


def test_receipts_and_refusals(tmp_path: Path) -> None:
    with haunting(haunted(tmp_path)) as at:
        at.press("a")
        at.shows("Add a worker for")
        walk(at, "j", "j", "j", "\r")  # an agent of that name is refused, by its name
        at.shows("characters A-Z")
        at.press("p")
        at.shows("p resume")
        at.press("p")  # all of them, and that of an agent which an operator had held
        at.shows("claims are resumed for")
        walk(at, "S", "y")
        at.shows("it left the DAG")
        walk(at, "n", CTRL_A)
        for key, title in (("u", "─ Release "), ("c", "─ Cancel ")):
            at.press(key)
            at.shows(title)
            with visit(at, "y", "n esc back", "n"):
                walk(at, "G")
        at.press("3G")
        at.shows(" was cancelled")


def test_a_run_of_this_dashboard_is_shown_questioned_and_left(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(SETTINGS, "agentmux.yaml")
    project.write(LIVING, DAG_NAME)
    with dashboard(tmp_path, DAG_NAME, size=WIDE) as at:
        at.shows("codex-1 started [red]long[/]")
        with visit(at, "1w", "Processes"):
            at.shows("sleep 300")
            walk(at, "2", "G", "4")
        with visit(at, "2gK", "SIGTERM", "n"):
            pass
        with visit(at, "q", "1 run of this dashboard is alive", "n"):
            pass
        below = at.tree()
        at.press("q")
        at.shows("1 run of this dashboard is alive")
        at.press("y")
        assert at.ended() == 0
        assert gone(below)
    assert_harmless(at)


# -- what comes while one looks --------------------------------------------------------------


def test_toasts_title_and_head(tmp_path: Path) -> None:
    project = haunted(tmp_path)
    with haunting(project) as at:
        at.writes(b"\x1b]0;(")
        signs = ("task0 failed", "finished task1", "task2 needs", "by[red] is lost", "messagenow")
        words = (SEQUENCES[0], SEQUENCES[3], SEQUENCES[23], "[red]", ALL)
        for number, (word, sign) in enumerate(zip(words, signs, strict=True)):
            kind, data = list(told(f"now{word}"))[(1, 4, 2, 9, 7)[number]]
            with closing(sqlite3.connect(project.state / "tasks.db", timeout=PATIENCE)) as db, db:
                tell(db, kind, data, task_id=f"task{number}{word}", worker_id=f"by{word}")
            at.shows(sign)
        project.write("tasks: []\n", DAG_NAME)
        at.shows(f"{OURS.removeprefix('agentmux ')} changed: S")
    assert any(title.startswith("(") for title in Written(at.written).titles)


def test_text_that_is_no_utf_8_is_said_in_its_pane_and_the_rest_goes_on(tmp_path: Path) -> None:
    project = haunted(tmp_path)
    with haunting(project, size=(250, 60)) as at:
        with closing(sqlite3.connect(project.state / "tasks.db", timeout=PATIENCE)) as db, db:
            db.execute("UPDATE tasks SET name = CAST(x'1b5d303b50574e45440727ff9b324a' AS TEXT)")
        at.shows("Could not decode to UTF-8")
        at.shows("data ")
        for keys, sign in (
            ("1w", "Processes"),
            ("!", "Needs you"),
            ("d", "1 Graph"),
            ("h", "1 Runs"),
        ):
            with visit(at, keys, sign):
                pass
        assert "e62 is lost" in walk(at, "3G")


# -- what is never opened --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "arguments", "words"),
    [
        (DAG_NAME, f"tasks: [{{id: a, agent: b, {QUOTED}: 1}}]", (DAG_NAME,), "has 1 problem"),
        (DAG_NAME, f"tasks: [{{id: {QUOTED}, agent: {QUOTED}}}]", (DAG_NAME,), "VALIDATION_ERROR"),
        ("agentmux.yaml", f"{QUOTED}: 1", (DAG_NAME,), "has 1 problem"),
        ("agentmux.yaml", f"keys: {{kill: {QUOTED}}}", (DAG_NAME,), "VALIDATION_ERROR"),
        ("other", "", (DAG_NAME,), "evil"),
        ("other", "", ("--watch", "--state-dir", f"st{ALL}"), "nothing to watch"),
        ("other", "", ("--workers", ALL), "is no number"),
    ],
    ids=["dag-key", "dag-value", "setting", "key", "missing-dag", "state-dir", "option"],
)
def test_what_cannot_be_opened_is_told_without_acting(
    tmp_path: Path, name: str, content: str, arguments: tuple[str, ...], words: str
) -> None:
    Project(tmp_path).write(content, name)
    with dashboard(tmp_path, *arguments, size=(200, 50)) as at:
        assert at.ended() in {1, 2}
        assert words in at.text
    written = Written(at.written)
    assert not written.foreign
    assert set(written.titles) <= {"agentmux"}  # the screen may be up before the error is known
    assert written.restored
