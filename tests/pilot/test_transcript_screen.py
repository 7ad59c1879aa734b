"""The transcript of a run: every key, folding, files that grow, and agents that mean harm."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support import transcripts
from support.desk import ReadingDesk, desk
from support.runs import ended_run, need
from support.runs import run as live_run
from support.screens import FakeEngine, busy
from support.transcripts import CLAIMS, answers, calls, line, result, says

from engine.commands import Resume
from engine.model import RunOutcome, Spending
from engine.views import Need
from tui.actions.model import Target
from tui.logs.viewport import Frame
from tui.logs.words import head_pieces
from tui.screens.log import LogScreen
from tui.screens.main import MainScreen
from tui.screens.transcript import TranscriptScreen
from tui.widgets.cells import Tone, line_width

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from engine.views import RunRow
    from tui.actions.model import Selection

TASK = "tests:race"


class Talk(ReadingDesk):
    """A desk with a transcript open on it."""

    @property
    def view(self) -> TranscriptScreen:
        screen = self.app.screen
        assert isinstance(screen, TranscriptScreen)
        return screen

    async def go_to(self, wanted: Callable[[Selection], bool], key: str) -> None:
        """Press a key until what is under the cursor of the dashboard is wanted."""
        for _ in range(100):
            if wanted(self.app.main.selection()):
                return
            await self.press(key)
        raise AssertionError(self.screen)

    @property
    def body(self) -> list[str]:
        """The rows of the transcript, without the frame around them."""
        lines = self.lines
        top = next(y for y, line in enumerate(lines) if line.startswith("╭"))
        end = next(y for y, line in enumerate(lines) if line.startswith("╰"))
        return [line[1:-1].rstrip("█ ").strip("▌").rstrip() for line in lines[top + 1 : end]]

    @property
    def said(self) -> str:
        return "\n".join(self.body)

    @property
    def current(self) -> str:
        """The first row of the entry that one is on."""
        frame = self.view.text.frame
        return next(row.text for row in frame.rows if row.start == frame.cursor)


def attempt(
    number: int, outcome: RunOutcome | None = RunOutcome.DONE, kind: str = "agent"
) -> RunRow:
    began = 1000.0 - 100 * number
    if outcome is None:
        row = live_run(f"run-{number}", TASK, began, worker_id="claude-1")
    else:
        row = ended_run(f"run-{number}", TASK, began, 50.0, outcome, worker_id="claude-1")
    return replace(row, attempt=number, kind=kind)


def stored(
    tmp_path: Path, runs: list[RunRow], said: Mapping[int, Iterable[str]], prompt: str = ""
) -> FakeEngine:
    queries = busy()
    queries.every_run = runs
    engine = FakeEngine(queries, state=tmp_path / "state")
    for number, lines in said.items():
        transcripts.write(folder_of(engine, number), lines, prompt=prompt)
    return engine


def folder_of(engine: FakeEngine, number: int = 1) -> Path:
    return engine.layout.run_folder(TASK, f"run-{number}")


@asynccontextmanager
async def reading(
    engine: FakeEngine, run_id: str | None = None, *, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Talk]:
    async with desk(engine=engine, size=size) as plain:
        at = Talk(plain.engine, plain.app, plain.pilot)
        at.app.open(Target("transcript", TASK, run_id))
        await at.settle()
        yield at


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """One run that goes on, whose agent has said a few things."""
    return stored(tmp_path, [attempt(1, None)], {1: CLAIMS})


@pytest.fixture
def many(tmp_path: Path) -> FakeEngine:
    """One run that is over, after 300 messages."""
    lines = [says(f"message {number}") for number in range(1, 301)]
    return stored(tmp_path, [attempt(1)], {1: lines})


# -- opening ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [("t",), ("enter", "t"), ("l", "t"), ("h", "t"), ("T", "t")])
async def test_t_opens_the_transcript_wherever_a_run_or_its_task_is(
    engine: FakeEngine, way: tuple[str, ...]
) -> None:
    async with desk(engine=engine) as plain:
        at = Talk(plain.engine, plain.app, plain.pilot)
        while at.current_task != TASK:
            await at.press("j")
        for key in way:
            await at.press(key)
        assert at.shows(TranscriptScreen), at.screen
        assert "tests:race" in at.lines[0]


@pytest.mark.parametrize("way", [("d", "t"), ("!", "t"), ("w", "t"), ("w", "3", "t")])
async def test_t_opens_it_from_the_graph_from_what_needs_one_and_from_its_worker(
    tmp_path: Path, way: tuple[str, ...]
) -> None:
    going = replace(attempt(1, None), worker_id="codex-1", agent="codex")
    engine = stored(tmp_path, [going], {1: CLAIMS})
    engine.needs = [need("human:x", Need.HUMAN, TASK, 9, "it asks you", task_id=TASK)]
    async with desk(engine=engine) as plain:
        at = Talk(plain.engine, plain.app, plain.pilot)
        while at.current_task != TASK:
            await at.press("j")
        for key in way:
            await at.press(key)
        assert at.shows(TranscriptScreen), at.screen
        assert at.view.run == going


async def test_t_opens_what_the_worker_under_the_cursor_does(engine: FakeEngine) -> None:
    async with desk(engine=engine) as plain:
        at = Talk(plain.engine, plain.app, plain.pilot)
        await at.press("1")
        await at.go_to(lambda selection: selection.opens == TASK, "j")
        await at.press("t")
        assert "tests:race" in at.lines[0]
        await at.press("escape", "4", "t")
        assert at.shows(TranscriptScreen)
        assert "research:api" in at.lines[0]
        await at.press("escape", "1")
        await at.go_to(lambda one: one.worker is not None and one.worker.id == "codex-2", "j")
        await at.press("t")
        assert at.toasts == ["codex-2 holds no task"]
        assert at.shows(MainScreen)


@pytest.mark.parametrize(("key", "kind"), [("t", TranscriptScreen), ("l", LogScreen)])
async def test_an_event_leads_to_the_run_that_it_tells_of(
    tmp_path: Path, key: str, kind: type[LogScreen]
) -> None:
    runs = [attempt(1, RunOutcome.FAILED), attempt(2, None)]
    engine = stored(tmp_path, runs, {1: [says("first try")], 2: [says("second try")]})
    engine.queries.all_events = [
        replace(event, run_id="run-1") if event.task_id == TASK else event
        for event in engine.queries.all_events
    ]
    async with desk(engine=engine) as plain:
        at = Talk(plain.engine, plain.app, plain.pilot)
        await at.press("3")
        await at.go_to(lambda selection: selection.opens == TASK, "k")
        await at.press(key)
        screen = at.app.screen
        assert isinstance(screen, kind)
        assert screen.run == runs[0]


async def test_l_shows_the_log_of_the_same_run_and_escape_leads_back(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("l")
        assert at.shows(LogScreen)
        assert not at.shows(TranscriptScreen)
        await at.press("escape")
        assert at.shows(TranscriptScreen)
        await at.press("t")
        assert at.toasts == ["this is the transcript already"]
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_it_tells_when_who_said_what(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        for words in (
            "agent     I'll look at how a claim is made",
            "tool      Read engine/store/claims.py",
            "↳ failed  Exit code 1",
            "thinks    The failing assertion",
            "unknown   this line is no JSON at all",
        ):
            assert words in at.said
        assert at.current == "The test passes, and so do the other eleven:"


async def test_the_head_tells_turns_tokens_and_cost(tmp_path: Path) -> None:
    engine = stored(tmp_path, [attempt(1)], {1: [*CLAIMS, result("all pass")]})
    async with reading(engine) as at:
        assert "12 turns · 130k tokens · $1.24" in at.lines[0]
        assert "✓ done" in at.lines[0]


async def test_what_the_store_says_of_costs_goes_before_what_the_agent_said(
    tmp_path: Path,
) -> None:
    over = replace(attempt(1), spending=Spending(turns=3, cost=0.5))
    engine = stored(tmp_path, [over], {1: [result("x")]})
    async with reading(engine) as at:
        assert "3 turns · $0.50" in at.lines[0]


# -- moving ----------------------------------------------------------------------------------


async def test_j_k_go_entry_by_entry_and_g_and_shift_g_to_the_ends(many: FakeEngine) -> None:
    async with reading(many) as at:
        assert at.current == "message 300"
        await at.press("k", "up")
        assert at.current == "message 298"
        await at.press("j")
        assert at.current == "message 299"
        await at.press("g")
        assert at.current == "message 1"
        await at.press("pagedown")
        assert at.body[0].endswith(f"message {len(at.body)}")
        await at.press("pageup", "G")
        assert at.current == "message 300"


async def test_it_follows_until_one_goes_elsewhere_and_f_follows_again(engine: FakeEngine) -> None:
    path = folder_of(engine) / "transcript.jsonl"
    async with reading(engine, size=(120, 24)) as at:
        append(path, says("a new word"))
        await at.look()
        assert at.current == "a new word"
        await at.press("k")
        append(path, says("another word"))
        await at.look()
        assert at.current == "The test passes, and so do the other eleven:"
        assert "follows" not in at.lines[0]
        await at.press("f")
        assert at.current == "another word"
        assert "follows" in at.lines[0]


async def test_half_a_line_is_told_once_it_is_whole(engine: FakeEngine) -> None:
    path = folder_of(engine) / "transcript.jsonl"
    text = says("in two halves")
    async with reading(engine) as at:
        append(path, text[:40], end="")
        await at.look()
        assert "in two halves" not in at.said
        append(path, text[40:])
        await at.look()
        assert at.current == "in two halves"


async def test_a_last_line_without_an_end_counts_when_the_run_is_over(engine: FakeEngine) -> None:
    append(folder_of(engine) / "transcript.jsonl", says("my last words"), end="")
    async with reading(engine) as at:
        assert "my last words" not in at.said
        at.engine.queries.every_run = [attempt(1)]
        await at.change()
        await at.settle()
        assert "my last words" in at.said


async def test_a_transcript_that_is_written_anew_is_read_anew(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        (folder_of(engine) / "transcript.jsonl").write_text(says("all new") + "\n")
        await at.look()
        assert [row for row in at.body if row] == ["".join(at.body).rstrip()]
        assert at.current == "all new"


# -- folding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["space", "enter"])
async def test_space_and_enter_show_all_of_an_entry_and_fold_it_again(
    tmp_path: Path, key: str
) -> None:
    text = "\n".join(f"row {number}" for number in range(1, 31))
    engine = stored(tmp_path, [attempt(1)], {1: [calls("Bash", command="ls"), answers(text)]})
    async with reading(engine, size=(120, 50)) as at:
        assert "row 4" in at.said
        assert "row 5" not in at.said
        assert "… 26 more lines" in at.said
        await at.press(key)
        assert "row 30" in at.said
        assert "more lines" not in at.said
        await at.press(key)
        assert "… 26 more lines" in at.said


async def test_the_arguments_of_a_call_are_folded_away_behind_it(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        assert "Edit engine/store/claims.py …" in at.said
        assert "AND state = 'READY'" not in at.said
        await at.press("F")
        assert "WHERE id = ? AND state = 'READY'" in at.said
        assert "Edit engine/store/claims.py …" not in at.said


async def test_an_argument_that_was_cut_is_shown_once_when_unfolded(tmp_path: Path) -> None:
    command = "make " + " ".join(f"step-{number}" for number in range(60))
    engine = stored(tmp_path, [attempt(1)], {1: [calls("Bash", command=command, timeout=9)]})
    async with reading(engine) as at:
        assert at.said.count("step-3 ") == 1
        assert "step-59" not in at.said
        await at.press("space")
        assert (at.said.count("step-3 "), at.said.count("step-59")) == (1, 1)
        assert at.current == "Bash"
        assert "timeout: 9" in at.said
        await at.press("/", *"step-59", "enter")
        assert at.said.count("step-59") == 1


async def test_the_frame_counts_entries_and_not_lines_as_they_are_written(tmp_path: Path) -> None:
    silent = [line("stream_event", event={"n": number}) for number in range(5)]
    said = {1: [says("one"), *silent, says("two"), *silent, says("three")]}
    async with reading(stored(tmp_path, [attempt(1, None)], said)) as at:
        assert "entry 3 of 3" in at.screen
        await at.press("k")
        assert "entry 2 of 3" in at.screen
        append(folder_of(at.engine) / "transcript.jsonl", says("four"))
        await at.look()
        assert "entry 2 of 4" in at.screen
        await at.press("g")
        assert "entry 1 of 4" in at.screen


async def test_p_resumes_here_what_is_held(engine: FakeEngine) -> None:
    engine.queries.held = ("*",)
    async with reading(engine) as at:
        assert "p resume" in at.footer
        await at.press("p")
        assert at.engine.commands == [Resume()]


async def test_shift_f_unfolds_all_and_folds_all(tmp_path: Path) -> None:
    text = "\n".join(f"row {number}" for number in range(1, 11))
    engine = stored(tmp_path, [attempt(1)], {1: [answers(text), answers(text)]})
    async with reading(engine) as at:
        assert at.said.count("… 6 more lines") == 2
        await at.press("F")
        assert at.said.count("row 10") == 2
        await at.press("space")
        assert at.said.count("row 10") == 1
        await at.press("F")
        assert at.said.count("… 6 more lines") == 2


# -- finding, copying, other runs ------------------------------------------------------------


async def test_slash_finds_and_n_and_shift_n_go_on(many: FakeEngine) -> None:
    async with reading(many) as at:
        await at.press("g", "/", *"age 25", "enter")
        assert at.current == "message 25"
        await at.press("n")
        assert at.current == "message 250"
        await at.press("n", "N", "N")
        assert at.current == "message 25"
        await at.press("N")
        assert at.current == "message 259"
        assert "from the end on" in at.screen


async def test_a_match_that_is_folded_away_is_unfolded(tmp_path: Path) -> None:
    text = "\n".join(f"row {number}" for number in range(1, 100))
    engine = stored(tmp_path, [attempt(1)], {1: [answers(text), says("done")]})
    async with reading(engine) as at:
        await at.press("/", *"row 77", "enter")
        assert "row 77" in at.said
        await at.press("N")
        assert "row 77" in at.said


async def test_a_regex_finds_the_name_of_a_tool(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("/", *"/^Ed.t/", "enter")
        assert at.current == "Edit engine/store/claims.py"


async def test_what_is_nowhere_is_told(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("/", *"nowhere", "enter")
        assert "no match for nowhere" in at.screen


async def test_y_copies_all_of_an_entry_and_v_several(engine: FakeEngine) -> None:
    async with reading(engine) as at:
        await at.press("y")
        assert at.app.clipboard.startswith("The test passes")
        assert at.app.clipboard.endswith("tries the next task")
        await at.press("v", "k", "k", "y")
        assert at.app.clipboard.startswith(
            "Bash pytest -q tests/race\n12 passed in 3.41s\nThe test"
        )


async def test_the_brackets_show_the_runs_before_and_after(tmp_path: Path) -> None:
    runs = [attempt(1, RunOutcome.FAILED), attempt(2, None)]
    said = {1: [says("first try")], 2: [says("second try")]}
    async with reading(stored(tmp_path, runs, said)) as at:
        assert at.current == "second try"
        await at.press("[")
        assert at.current == "first try"
        assert "run 1 of 2" in at.lines[0]
        await at.press("]")
        assert at.current == "second try"
        await at.press("]")
        assert at.toasts == ["there is no run after this one"]


# -- where there is nothing ------------------------------------------------------------------


async def test_t_on_what_is_no_agents_says_so_and_is_dimmed(tmp_path: Path) -> None:
    engine = stored(tmp_path, [attempt(1, kind="shell")], {})
    engine.queries.all_tasks = [
        replace(row, kind="shell") if row.id == TASK else row for row in engine.queries.all_tasks
    ]
    async with desk(engine=engine) as at:
        while at.current_task != TASK:
            await at.press("j")
        await at.press("t")
        assert at.toasts == [
            "tests:race is a shell task; only agents have a transcript. l shows its log"
        ]
        assert at.shows(MainScreen)


async def test_a_run_of_another_kind_leads_to_its_log(tmp_path: Path) -> None:
    async with reading(stored(tmp_path, [attempt(1, kind="shell")], {})) as at:
        assert "this is a shell task; only agents have a transcript. l shows its log" in at.said


async def test_an_agent_that_has_not_spoken_yet_is_waited_for(tmp_path: Path) -> None:
    engine = stored(tmp_path, [attempt(1, None)], {})
    async with reading(engine) as at:
        assert "no word from the agent yet" in at.said
        transcripts.write(folder_of(engine), [says("here I am")], prompt="")
        await at.look()
        assert at.current == "here I am"


async def test_a_transcript_that_was_removed_is_told_of(tmp_path: Path) -> None:
    over = replace(attempt(1), exit_code=0)
    async with reading(stored(tmp_path, [over], {})) as at:
        assert "the transcript of this run was removed" in at.said


async def test_a_folder_in_its_place_is_told_of(tmp_path: Path) -> None:
    engine = stored(tmp_path, [attempt(1)], {})
    (folder_of(engine) / "transcript.jsonl").mkdir(parents=True)
    async with reading(engine) as at:
        assert "cannot read transcript.jsonl" in at.said
        assert at.view.text.trouble
        assert at.view.text.tone(Tone.FAILED)


async def test_a_block_of_lines_that_tell_nothing_is_one_row(tmp_path: Path) -> None:
    noise = [transcripts.line("stream_event", event={"n": n}) for n in range(12_000)]
    engine = stored(tmp_path, [attempt(1)], {1: [says("before"), *noise, says("after")]})
    async with reading(engine) as at:
        assert at.current == "after"
        assert "lines that tell nothing" in at.said
        await at.press("g")
        assert at.current == "before"


# -- harm ------------------------------------------------------------------------------------


async def test_what_an_agent_prints_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    evil = "a\x1b]52;c;eA==\x07b\x1b[2Jc\u202ed [red]e[/]"
    engine = stored(tmp_path, [attempt(1)], {1: [says(evil), calls(evil, command=evil), evil]})
    async with reading(engine) as at:
        assert "abcd [red]e[/]" in at.said
        for forbidden in "\x1b\x07\u202e":
            assert forbidden not in at.screen


async def test_a_result_of_a_megabyte_is_folded_unfolded_and_scrolled(tmp_path: Path) -> None:
    text = "\n".join(f"row {number}" for number in range(120_000))
    engine = stored(tmp_path, [attempt(1)], {1: [answers(text), says("end")]})
    async with reading(engine) as at:
        await at.press("k", "space", "G", "pageup", "g")
        assert "row 3" in at.said
        assert "row 20" in at.said


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)])
async def test_it_fits_any_screen(engine: FakeEngine, size: tuple[int, int]) -> None:
    async with reading(engine, size=size) as at:
        assert all(len(line) <= size[0] for line in at.lines)
        assert "tries the next task" in " ".join(at.said.split())


# -- elsewhere -------------------------------------------------------------------------------


SPENDING = Spending(12, 127_000, 118_000, 3_000, 1.24)


async def test_the_detail_of_a_task_tells_what_its_agent_says_and_what_it_cost(
    tmp_path: Path,
) -> None:
    engine = stored(tmp_path, [], {})
    queries = engine.queries
    queries.all_tasks = [
        replace(row, kind="agent") if row.id == TASK else row for row in queries.all_tasks
    ]
    queries.spent = {f"run-{TASK}": SPENDING}
    transcripts.write(engine.layout.run_folder(TASK, f"run-{TASK}"), CLAIMS)
    async with desk(engine=engine, size=(120, 50)) as at:
        while at.current_task != TASK:
            await at.press("j")
        assert "$1.24" in at.lines[0]
        await at.press("enter")
        assert "tool     Bash pytest -q tests/race" in at.screen
        assert at.screen.count("12 turns · 130k tokens · $1.24") == 2, "of the task, of its run"


async def test_the_history_tells_what_each_run_cost(tmp_path: Path) -> None:
    runs = [attempt(1), replace(attempt(2), spending=SPENDING)]
    async with desk(engine=stored(tmp_path, runs, {})) as at:
        await at.press("h")
        (row,) = (line for line in at.lines if "#2" in line and "$1.24" in line)
        assert TASK in row
        assert "12 turns · 130k tokens · $1.24" in at.screen


@pytest.mark.parametrize("width", [80, 120])
def test_the_head_has_room_for_what_must_be_seen(width: int) -> None:
    runs = [attempt(2, None), attempt(1, RunOutcome.TIMED_OUT)]
    what = (("112 turns · 1.2M tokens · $12.34", Tone.TEXT),)
    frame = Frame(size=1 << 20, follows=True)
    pieces = head_pieces("publish:" + "x" * 60, runs, runs[0], what, frame, width)
    kept = [line_width(piece.cells) for piece in pieces if not piece.drop]
    assert sum(kept) + 2 * (len(kept) - 1) <= width - 2


def append(path: Path, text: str, *, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write(text + end)
