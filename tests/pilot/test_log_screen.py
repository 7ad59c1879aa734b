"""The log of a run: every key, the mouse, files that change, and output that means harm."""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from support.desk import ReadingDesk, desk
from support.screens import FakeEngine, ago, busy

from engine.errors import StorageError
from engine.model import RunOutcome
from engine.views import RunRow
from tui.actions.model import Target
from tui.logs.file import LogFile
from tui.logs.search import Search
from tui.outside import PagerError, pager_command
from tui.screens.log import LogScreen
from tui.screens.main import MainScreen
from tui.widgets.cells import Tone
from tui.widgets.gauge import thumb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


TASK = "lint:types"
LINES = "".join(f"line {n} of the output\n" for n in range(1, 201))


def run(number: int, outcome: RunOutcome | None, exit_code: int | None = None) -> RunRow:
    return RunRow(
        id=f"run-{number}",
        task_id=TASK,
        agent="codex",
        worker_id="codex-1",
        attempt=number,
        outcome=outcome,
        claimed_at=ago(1000 - number),
        started_at=ago(1000 - number),
        ended_at=None if outcome is None else ago(500 - number),
        exit_code=exit_code,
        error=None,
        result=None,
    )


class Log(ReadingDesk):
    """A desk with a log open on it."""

    @property
    def view(self) -> LogScreen:
        screen = self.app.screen
        assert isinstance(screen, LogScreen)
        return screen

    @property
    def body(self) -> list[str]:
        """The rows of the log, without the frame around them."""
        lines = self.lines
        top = next(y for y, line in enumerate(lines) if line.startswith("╭"))
        end = next(y for y, line in enumerate(lines) if line.startswith("╰"))
        return [line[1:-1].rstrip("█ ").strip("▌") for line in lines[top + 1 : end]]

    @property
    def top(self) -> str:
        return self.body[0].strip()

    @property
    def current(self) -> str:
        frame = self.view.text.frame
        return next(row.text for row in frame.rows if row.start == frame.cursor)

    @property
    def paging(self) -> bool:
        """Whether a pager is open."""
        workers = [worker for worker in self.app.workers if worker.group == "pager"]
        return any(worker.is_running for worker in workers)

    @property
    def title(self) -> str:
        return next(line for line in self.lines if line.startswith("╭"))

    @property
    def foot(self) -> str:
        return next(line for line in self.lines if line.startswith("╰"))


def stored(
    tmp_path: Path, runs: list[RunRow], files: dict[tuple[int, str], str | bytes]
) -> FakeEngine:
    queries = busy()
    queries.every_run = runs[::-1]  # the fake has them in the order in which they began
    engine = FakeEngine(queries, state=tmp_path / "state")
    for (number, stream), text in files.items():
        folder = engine.layout.run_folder(TASK, f"run-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        data = text.encode() if isinstance(text, str) else text
        (folder / f"{stream}.log").write_bytes(data)
    return engine


def file_of(engine: FakeEngine, number: int = 1, stream: str = "stdout") -> Path:
    return engine.layout.run_folder(TASK, f"run-{number}") / f"{stream}.log"


@asynccontextmanager
async def reading(
    engine: FakeEngine, run_id: str | None = None, *, size: tuple[int, int] = (100, 30)
) -> AsyncIterator[Log]:
    async with desk(engine=engine, size=size) as plain:
        at = Log(plain.engine, plain.app, plain.pilot)
        at.app.open(Target("log", TASK, run_id))
        await at.settle()
        yield at


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """One run that ended, with 200 lines of output."""
    runs = [run(1, RunOutcome.FAILED, 1)]
    return stored(tmp_path, runs, {(1, "stdout"): LINES, (1, "stderr"): ""})


# -- moving ----------------------------------------------------------------------------------


async def test_it_opens_at_the_end_and_says_what_it_shows(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        assert at.current == "line 200 of the output"
        for words in (TASK, "#1", "✗ failed", "stdout", "4K"):
            assert words in at.lines[0]
        assert "line 200 of 200" in at.foot


async def test_l_on_a_task_opens_its_log_and_escape_leaves_it(engine: FakeEngine) -> None:
    async with desk(engine=engine) as plain:
        at = Log(plain.engine, plain.app, plain.pilot)
        while at.current_task != TASK:
            await at.press("j")
        await at.press("l")
        assert at.shows(LogScreen)
        assert at.current == "line 200 of the output"
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_j_k_and_the_arrows_go_line_by_line(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("k", "up", "k")
        assert at.current == "line 197 of the output"
        await at.press("j", "down")
        assert at.current == "line 199 of the output"


async def test_g_goes_to_the_top_and_shift_g_to_the_end(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        for top, end in (("g", "G"), ("home", "end")):
            await at.press(top)
            assert (at.top, "line 1 of 200" in at.foot) == ("line 1 of the output", True)
            await at.press(end)
            assert at.current == "line 200 of the output"


async def test_the_page_keys_go_by_screenfuls(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "pagedown")
        assert at.top == f"line {len(at.body)} of the output"
        await at.press("pageup")
        assert at.top == "line 1 of the output"


async def test_fast_keys_are_all_taken(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g")
        for _ in range(40):
            await at.pilot.press("j")
        await at.settle()
        assert at.current == "line 41 of the output"


async def test_shift_w_breaks_long_lines_or_lets_them_run_out_of_sight(tmp_path: Path) -> None:
    text = "start " + "." * 300 + " finish\nshort\n"
    engine = stored(tmp_path, [run(1, RunOutcome.DONE, 0)], {(1, "stdout"): text})
    async with reading(engine) as at:
        assert "finish" in at.screen
        await at.press("W")
        assert "finish" not in at.screen
        assert [line.strip() for line in at.body[:3]][1:] == ["short", ""]
        for _ in range(12):
            await at.press("right")
        assert "finish" in at.screen
        assert "start" not in at.screen
        assert at.view.text.frame.rows[0].left
        for _ in range(12):
            await at.press("left")
        assert "start" in at.screen
        await at.press("W")
        assert "finish" in at.screen


async def test_the_number_sign_numbers_the_lines(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        assert at.body[-1].strip() == "line 200 of the output"
        await at.press("#")
        assert at.body[-1].split() == ["200", "line", "200", "of", "the", "output"]
        await at.press("g")
        assert at.body[0].split()[:2] == ["1", "line"]
        await at.press("#")
        assert at.top == "line 1 of the output"


# -- growing ---------------------------------------------------------------------------------


@pytest.fixture
def live(tmp_path: Path) -> FakeEngine:
    runs = [run(1, None)]
    return stored(tmp_path, runs, {(1, "stdout"): LINES, (1, "stderr"): ""})


async def test_a_growing_log_is_followed_unless_f_or_moving_up_says_otherwise(
    live: FakeEngine,
) -> None:
    async with reading(live) as at:
        with file_of(live).open("a", buffering=1) as file:
            assert "follows" in at.lines[0]
            file.write("new\n")
            await at.until(lambda: at.current == "new")
            await at.press("f")
            assert "follows" not in at.lines[0]
            file.write("newer\n")
            await at.look()
            assert (at.current, "newer" in at.screen) == ("new", False)
            assert "line 201 of 202" in at.foot
            await at.press("f")
            assert (at.current, "follows" in at.lines[0]) == ("newer", True)
            await at.press("k")
            file.write("newest\n")
            await at.look()
            assert "newest" not in at.screen
            await at.press("G")
            assert at.current == "newest"
            assert "follows" in at.lines[0]


async def test_a_log_that_was_written_anew_is_shown_anew(live: FakeEngine) -> None:
    async with reading(live) as at:
        file_of(live).write_text("fresh\n")
        await at.look()
        assert [line.strip() for line in at.body if line.strip()] == ["fresh"]
        assert "line 1 of 1" in at.foot


async def test_the_first_output_of_a_run_appears_by_itself(tmp_path: Path) -> None:
    engine = stored(tmp_path, [run(1, None)], {})
    async with reading(engine) as at:
        assert "no output yet on stdout" in at.screen
        path = file_of(engine)
        path.parent.mkdir(parents=True)
        path.write_text("hello\n")
        await at.until(lambda: "hello" in at.screen)


# -- finding ---------------------------------------------------------------------------------


async def test_n_right_after_enter_is_no_letter_of_what_is_sought(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash")
        await at.burst(*"line 19", "enter", "n")
        await at.until(lambda: at.current == "line 190 of the output")
        assert at.view.find.input.value == "line 19"


async def test_a_search_given_up_in_the_same_breath_leaves_nothing(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash")
        first = at.current
        await at.burst(*"line 19", "escape")
        assert at.current == first
        assert not at.view.find.display
        assert "line 19" not in at.title


async def test_slash_finds_while_one_types_and_n_and_shift_n_go_on(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash", *"line 1")
        assert at.current == "line 1 of the output"
        await at.press("9")
        assert at.current == "line 19 of the output"
        await at.press("enter")
        assert not at.view.find.display
        assert at.view.text.has_focus
        await at.press("n")
        assert at.current == "line 190 of the output"
        await at.press("n", "N", "N")
        assert at.current == "line 19 of the output"
        await at.press("N")
        assert at.current == "line 199 of the output"
        assert "from the end on" in at.title
        await at.press("n")
        assert at.current == "line 19 of the output"
        assert "from the top on" in at.title


async def test_n_pressed_fast_is_taken_as_often_as_it_was_pressed(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash", *"line", "enter")
        for _ in range(7):
            at.view.text.action_find_next(1)
        await at.settle()
        await at.until(lambda: at.current == "line 8 of the output")


async def test_matches_are_marked_and_the_current_one_differently(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash", *"output", "enter")
        styles = {
            (str(segment.style and segment.style.reverse), segment.text)
            for y in range(3)
            for segment in at.view.text.render_line(y)
            if segment.text == "output"
        }
        assert styles == {("True", "output"), ("None", "output")}


async def test_a_regular_expression_is_found_and_a_bad_one_explained(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g", "slash", *"/1[5]7 o/", "enter")
        assert at.current == "line 157 of the output"
        await at.press("g", "slash", *"/(/")
        assert "missing" in at.title
        assert at.current == "line 1 of the output"


async def test_what_is_nowhere_is_said_and_the_place_kept(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("k", "slash", *"zebra")
        assert "no match for zebra" in at.title
        assert at.current == "line 199 of the output"


async def test_escape_gives_up_what_was_typed_and_goes_back(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("slash", *"line 33")
        assert at.current == "line 33 of the output"
        await at.press("escape")
        assert at.current == "line 200 of the output"
        assert at.shows(LogScreen)
        await at.press("n")
        assert "/ asks for it" in at.toasts[-1]


async def test_escape_ends_the_selection_then_the_search_then_the_log(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("slash", *"line 33", "enter", "v", "j")
        assert "selecting" in at.foot
        await at.press("escape")
        assert "selecting" not in at.foot
        assert any(row.marks for row in at.view.text.frame.rows)
        await at.press("escape")
        assert not any(row.marks for row in at.view.text.frame.rows)
        assert at.shows(LogScreen)
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_typing_on_gives_up_the_search_before_and_keys_do_not_wait_for_it(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Search.step

    def endless(search: Search, file: LogFile, limit: int) -> None:
        if getattr(search.needle, "text", "") == "zebra":
            time.sleep(0.02)  # as long as a step may take; one that takes no time takes the core
        else:
            step(search, file, limit)

    monkeypatch.setattr(Search, "step", endless)
    async with reading(engine) as at:
        reader = at.view.text.reader
        await at.pilot.press("g", "slash", *"zebra")
        await at.until(lambda: "searching" in at.title)
        await at.pilot.press("enter", "j", "j")
        await at.until(lambda: at.current == "line 3 of the output")
        await at.until(lambda: reader.searching)
        await at.pilot.press("slash", *"line 7 ")
        await at.until(lambda: at.current == "line 7 of the output")
        await at.until(lambda: not reader.searching)
        await at.pilot.press(*["backspace"] * 7, *"zebra")
        await at.until(lambda: reader.searching)
        await at.pilot.press("escape")
        await at.until(lambda: reader.idle)
        assert at.current == "line 3 of the output"


# -- copying ---------------------------------------------------------------------------------


async def test_y_copies_the_line_and_with_a_selection_its_lines(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("k", "y")
        assert at.app.clipboard == "line 199 of the output"
        assert at.toasts[-1] == "copied 1 line"
        await at.press("v", "k", "k")
        assert at.view.text.frame.chosen is not None
        await at.press("y")
        assert at.app.clipboard.split("\n") == [f"line {n} of the output" for n in (197, 198, 199)]
        assert at.toasts[-1] == "copied 3 lines"
        assert at.view.text.frame.chosen is None


async def test_a_copy_is_clean_and_never_larger_than_a_mebibyte(tmp_path: Path) -> None:
    text = "\x1b]52;c;aGk=\x07\x1b[31mred\x1b[0m\n" + "x" * 3_000_000 + "\n"
    engine = stored(tmp_path, [run(1, RunOutcome.DONE, 0)], {(1, "stdout"): text})
    async with reading(engine) as at:
        await at.press("g", "y")
        assert at.app.clipboard == "red"
        await at.press("G", "y")
        assert set(at.app.clipboard) == {"x"}
        assert 900_000 < len(at.app.clipboard) <= 1024 * 1024
        assert "the first 1 MiB" in at.toasts[-1]


# -- other files -----------------------------------------------------------------------------


async def test_e_goes_to_stderr_and_back(tmp_path: Path) -> None:
    files: dict[tuple[int, str], str | bytes] = {(1, "stdout"): "out\n", (1, "stderr"): "err\n"}
    engine = stored(tmp_path, [run(1, RunOutcome.DONE, 0)], files)
    async with reading(engine) as at:
        assert (at.top, "stdout" in at.lines[0]) == ("out", True)
        await at.press("e")
        assert (at.top, "stderr" in at.lines[0]) == ("err", True)
        await at.press("e")
        assert at.top == "out"


async def test_the_brackets_go_to_the_runs_before_and_after(tmp_path: Path) -> None:
    runs = [run(3, None), run(2, RunOutcome.DONE, 0), run(1, RunOutcome.FAILED, 1)]
    files: dict[tuple[int, str], str | bytes] = {(n, "stdout"): f"output {n}\n" for n in (1, 2, 3)}
    engine = stored(tmp_path, runs, files)
    async with reading(engine) as at:
        assert (at.top, "run 3 of 3" in at.lines[0]) == ("output 3", True)
        await at.press("[")
        assert (at.top, "run 2 of 3" in at.lines[0], "✓" in at.lines[0]) == ("output 2", True, True)
        await at.press("[", "[")
        assert at.top == "output 1"
        assert "no run before" in at.toasts[-1]
        await at.press("]", "]", "]")
        assert at.top == "output 3"
        assert "no run after" in at.toasts[-1]


async def test_the_brackets_are_dimmed_where_there_is_no_run_and_not_offered_with_only_one(
    tmp_path: Path,
) -> None:
    runs = [run(2, None), run(1, RunOutcome.FAILED, 1)]
    files: dict[tuple[int, str], str | bytes] = {(n, "stdout"): "output\n" for n in (1, 2)}

    def tones(at: Log) -> dict[str, Tone]:
        return {piece.name: piece.cells[0][1] for piece in at.view.keys._pieces}

    async with reading(stored(tmp_path, runs, files)) as at:
        assert (tones(at)["former_run"], tones(at)["later_run"]) == (Tone.BOLD, Tone.OFF)
        await at.press("[")
        assert (tones(at)["former_run"], tones(at)["later_run"]) == (Tone.OFF, Tone.BOLD)
    async with reading(stored(tmp_path, runs[:1], files)) as at:
        assert not {"former_run", "later_run"} & {*tones(at)}


async def test_an_earlier_run_is_opened_by_its_id(tmp_path: Path) -> None:
    runs = [run(2, None), run(1, RunOutcome.FAILED, 1)]
    engine = stored(tmp_path, runs, {(1, "stdout"): "earlier\n", (2, "stdout"): "newest\n"})
    async with reading(engine, "run-1") as at:
        assert (at.top, "#1" in at.lines[0]) == ("earlier", True)


async def test_a_run_that_ends_while_it_is_read_says_so(live: FakeEngine) -> None:
    async with reading(live) as at:
        assert "● running" in at.lines[0]
        live.queries.every_run = [run(1, RunOutcome.DONE, 0)]
        await at.change()
        assert "✓ done" in at.lines[0]
        assert "follows" not in at.lines[0]


def _removed(engine: FakeEngine) -> None:
    file_of(engine).unlink()


def _linked(engine: FakeEngine) -> None:
    file_of(engine).unlink()
    file_of(engine).symlink_to("/etc/passwd")


def _piped(engine: FakeEngine) -> None:
    file_of(engine).unlink()
    os.mkfifo(file_of(engine))


def _emptied(engine: FakeEngine) -> None:
    file_of(engine).write_text("")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(_removed, "removed, by agentmux gc or by hand", id="gc"),
        pytest.param(_linked, "no regular file", id="link"),
        pytest.param(_piped, "no regular file", id="pipe"),
        pytest.param(_emptied, "wrote nothing to stdout; e shows stderr", id="empty"),
    ],
)
async def test_why_there_is_nothing_to_read_is_said(
    engine: FakeEngine, harm: Callable[[FakeEngine], None], words: str
) -> None:
    harm(engine)
    async with reading(engine, size=(140, 30)) as at:
        assert words in at.screen
        assert "root:" not in at.screen
        await at.press("j", "g", "G", "y", "v", "n", "W", "#", "right")
        assert words in at.screen


async def test_a_run_without_a_process_and_without_files_is_no_loss(tmp_path: Path) -> None:
    async with reading(stored(tmp_path, [run(1, RunOutcome.DONE)], {})) as at:
        assert "left no output" in at.screen


async def test_a_task_without_a_run_has_no_log(tmp_path: Path) -> None:
    async with reading(stored(tmp_path, [], {})) as at:
        assert "has not run yet" in at.screen


async def test_a_file_that_is_removed_while_it_is_read_can_be_read_on(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        _removed(engine)
        await at.look()
        assert "the file was removed" in at.foot
        await at.press("g")
        assert at.top == "line 1 of the output"


async def test_a_store_that_fails_is_told_and_the_log_can_be_read_on(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        engine.queries.broken["runs"] = StorageError("the database is locked")
        await at.change()
        assert "the database is locked" in at.title
        await at.press("g")
        assert at.top == "line 1 of the output"
        engine.queries.broken.clear()
        await at.change()
        assert "locked" not in at.title


async def test_an_error_while_reading_is_told_in_its_place(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(engine) as at:

        def fail(*_args: Any) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr("tui.logs.viewport.Viewport.page", fail)
            await at.press("pageup")
            assert "Input/output error" in at.screen
        await at.press("g")
        assert at.top == "line 1 of the output"


# -- the user's pager ------------------------------------------------------------------------


async def test_shift_p_opens_the_file_in_the_pager_of_the_user(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    pager = tmp_path / "my pager"
    pager.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{told}"\n')
    pager.chmod(0o700)
    monkeypatch.setenv("PAGER", f"'{pager}' -x 'a b'")
    async with reading(engine) as at:
        monkeypatch.setattr(at.app, "suspend", nullcontext)
        await at.press("P")
        await at.until(lambda: not at.paging)
        assert told.read_text().split("\n")[:3] == ["-x", "a b", str(file_of(engine).absolute())]
        await at.press("g")
        assert at.top == "line 1 of the output"


async def test_the_screen_lives_on_while_the_pager_is_open_and_its_end_is_waited_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\nread line < "{gate}"\n')
    pager.chmod(0o700)
    monkeypatch.setenv("PAGER", str(pager))
    async with reading(engine) as at:
        monkeypatch.setattr(at.app, "suspend", nullcontext)
        await at.press("P")
        assert at.paging
        with file_of(engine).open("a") as file:
            file.write("new\n")
        at.view.tick()
        await at.until(lambda: at.view.text.frame.lines == 201)
        assert at.paging
        await asyncio.to_thread(gate.write_text, "go\n")
        await at.until(lambda: not at.paging)
        assert at.current == "new"


async def test_a_pager_that_cannot_be_used_is_explained(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(engine) as at:
        monkeypatch.setenv("PAGER", "no-such-pager --option")
        await at.press("P")
        assert "there is no pager no-such-pager" in at.toasts[-1]
        monkeypatch.setenv("PAGER", "true")
        await at.press("P")
        assert "cannot be given" in at.toasts[-1]
        _linked(engine)
        await at.press("P")
        assert "cannot read" in at.toasts[-1]


def test_the_pager_is_split_as_a_shell_would_and_less_without_a_word(tmp_path: Path) -> None:
    less = tmp_path / "less"
    less.write_text("#!/bin/sh\n")
    less.chmod(0o700)
    path = str(tmp_path)
    assert pager_command({"PATH": path}) == [str(less), "-f"]
    assert pager_command({"PATH": path, "PAGER": "  "}) == [str(less), "-f"]
    assert pager_command({"PATH": path, "PAGER": "less -S '+G x'"}) == [str(less), "-S", "+G x"]
    for wrong in ("more", "'less", "less;x", "$(less)"):
        with pytest.raises(PagerError):
            pager_command({"PATH": path, "PAGER": wrong})


# -- the mouse -------------------------------------------------------------------------------


async def test_a_click_sets_the_line_and_a_drag_selects_lines(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("g")
        text = at.view.text
        await at.pilot.click(text, offset=(5, 4))
        await at.settle()
        assert (at.current, text.frame.chosen) == ("line 5 of the output", None)
        await at.pilot.mouse_down(text, offset=(5, 2))
        await at.pilot.hover(text, offset=(5, 6))
        await at.pilot.mouse_up(text, offset=(5, 6))
        await at.settle()
        await at.press("y")
        assert at.app.clipboard.split("\n") == [f"line {n} of the output" for n in range(3, 8)]


async def test_the_wheel_scrolls_and_the_cursor_stays_in_sight(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        from textual import events

        await at.press("g")
        text = at.view.text
        for _ in range(5):
            text.post_message(
                events.MouseScrollDown(text, 3, 3, 0, 1, 0, shift=False, meta=False, ctrl=False)
            )
        await at.settle()
        assert (at.top, at.current) == ("line 16 of the output",) * 2


async def test_the_scrollbar_is_dragged_to_any_place(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        gauge = at.view.gauge
        height = gauge.size.height
        assert gauge._thumb.stop == height
        await at.pilot.mouse_down(gauge, offset=(0, 0))
        await at.pilot.mouse_up(gauge, offset=(0, 0))
        await at.settle()
        assert at.top == "line 1 of the output"
        await at.pilot.mouse_down(gauge, offset=(0, 0))
        await at.pilot.hover(gauge, offset=(0, height // 2))
        await at.pilot.mouse_up(gauge, offset=(0, height // 2))
        await at.settle()
        assert 60 < int(at.top.split()[1]) < 140


@pytest.mark.parametrize("height", [1, 2, 3, 20])
def test_the_scrollbar_touches_an_edge_only_where_the_log_ends(height: int) -> None:
    assert not thumb(height, 0.0, 1.0)
    for percent in range(100):
        begin, end = percent / 101, (percent + 1) / 101
        cells = thumb(height, begin, end)
        assert 1 <= len(cells) <= max(1, height)
        assert cells.start >= 0
        assert cells.stop <= height
        if height > 2:
            assert (cells.start == 0) == (begin == 0)
            assert (cells.stop == height) == (end >= 1)


# -- hostile output --------------------------------------------------------------------------

HOSTILE = (
    b"\x1b]0;title\x07 \x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\ \x1b]52;c;aGk=\x07 \x1b[2J\n"
    b"\x1bP1$r0m\x1b\\ \x9b31m \x9d0;x\x9c \xc2\x9b2J \x7f \x08\x08 \x00 \x0e\x0f\n"
    + "\u202etxt.exe\u202c \u2066x\u2069 \u200b \ufeff\n".encode()
    + b"[red]markup[/red] [link=x]brackets[/]\n"
    + b"\x1b]52;c;unterminated\n"
    + b"plain after it\n"
)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("keys", [(), ("W",), ("#",)], ids=["wrapped", "cut", "numbered"])
async def test_no_output_acts_on_the_terminal(
    tmp_path: Path, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    split = b"." * (256 * 1024 - len(HOSTILE) - 3) + b"\n" + HOSTILE * 60
    engine = stored(tmp_path, [run(1, RunOutcome.DONE, 0)], {(1, "stdout"): split})
    async with reading(engine, size=size) as at:
        for key in (*keys, "g", "pagedown", "G", "pageup", "slash", "x", "enter"):
            await at.press(key)
            harm = [c for c in at.screen if unicodedata.category(c) in {"Cc", "Cf"} and c != "\n"]
            assert not harm
        await at.press("G")
        assert "[red]markup[/red] [link=x]brackets[/]" in at.screen
        assert "plain after it" in at.screen


async def test_a_hostile_name_is_shown_clean(tmp_path: Path) -> None:
    engine = stored(tmp_path, [], {})
    async with desk(engine=engine) as plain:
        at = Log(plain.engine, plain.app, plain.pilot)
        at.app.open(Target("log", "a\x1b]0;x\x07b[red]"))
        await at.settle()
        assert "ab[red]" in at.lines[0]
        assert "ab[red] has not run yet" in at.screen


# -- sizes -----------------------------------------------------------------------------------


async def test_a_line_of_a_megabyte_and_a_gigabyte_of_log_open_with_few_reads(
    tmp_path: Path,
) -> None:
    text = "x" * 1_000_000 + "\nlast\n"
    engine = stored(tmp_path, [run(1, RunOutcome.DONE, 0)], {(1, "stdout"): b"first\n"})
    with file_of(engine).open("r+b") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + text.encode())
    async with reading(engine) as at:
        assert at.current == "last"
        log = at.view.text._viewport.file
        assert isinstance(log, LogFile)
        assert log.counted
        assert log.reads < log.size // (256 * 1024) + 60
        before = log.reads
        await at.press("g", "pagedown", "pageup", "G", "k", "k", "pageup", "j")
        assert log.reads - before < 60
        assert len(log._pieces) <= 160


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (200, 60)])
async def test_the_head_line_keeps_what_matters_at_every_size(
    engine: FakeEngine, size: tuple[int, int]
) -> None:
    async with reading(engine, size=size) as at:
        for words in (TASK, "#1", "failed", "stdout"):
            assert words in at.lines[0]
        assert "line 200 of 200" in at.foot


async def test_the_file_is_closed_with_the_screen(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        log = at.view.text._viewport.file
        assert isinstance(log, LogFile)
        assert log._file is not None
        await at.press("escape")
        await at.until(lambda: log._file is None)
