"""What the dashboard computes before it paints: columns, words, bars, tails. No app in here."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from rich.cells import cell_len
from support.screens import NOW, ago, busy, running, task

from engine.model import Reason, RunOutcome, Spending, State
from engine.views import Neighbour, Progress, RunRow, TaskDetail
from tui import look
from tui.actions.model import Place, Selection
from tui.actions.table import ACTIONS, BY_NAME
from tui.describe import LONGEST, log_lines, run_lines, task_lines
from tui.describe_fleet import run_about
from tui.headline import Mood, Pace, headline, meter, sparkline, time_left
from tui.keymap import Keymap
from tui.panes.tasks import TasksList
from tui.screens.help import help_lines
from tui.snapshot import Section, Snapshot
from tui.tail import Tail, read_tail
from tui.widgets.bars import Bar
from tui.widgets.cells import Tone, cut_end, fitted, line_width, wrapped
from tui.widgets.columns import GAP, fit
from tui.widgets.rows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.views import TaskRow
    from tui.widgets.cells import Line


@pytest.mark.parametrize("width", range(20, 220, 7))
def test_columns_fill_the_width_exactly_or_lose_the_least_important(width: int) -> None:
    columns = TasksList.COLUMNS
    fitting = fit(columns, [60] * len(columns), width)
    taken = sum(cells for _, cells in fitting) + GAP * (len(fitting) - 1)
    kept = {index for index, _ in fitting}
    lost = [column.drop for index, column in enumerate(columns) if index not in kept]
    stays = [c.drop for index, c in enumerate(columns) if index in kept and c.drop]
    assert taken == width or not stays
    assert not lost or not stays or min(lost) > max(stays)
    assert all(cells >= columns[index].least for index, cells in fitting)


def test_a_wide_character_is_never_halved() -> None:
    for width in range(1, 12):
        for text in ("日本語のテキスト", "a日b本c", "plain text here"):
            assert cell_len(cut_end(text, width)) <= width
            assert cell_len(fitted(text, width)) == width
            assert cell_len(fitted(text, width, right=True, middle=True)) == width


@pytest.mark.parametrize("width", [2, 7, 20, 80])
def test_wrapping_loses_nothing_and_never_exceeds_the_width(width: int) -> None:
    text = "a sentence with anextraordinarilylongwordinit and 日本語のテキスト at its end"
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_window_moves_with_its_cursor() -> None:
    window = Window(first=100, height=10, cursor="x", cursor_at=105)
    assert window.moved(105) == (90, 30)
    assert window.moved(3) == (0, 30)
    assert window.moved(None) == (90, 30)


def test_a_bar_of_progress_is_as_wide_as_asked_and_shows_what_is_rare() -> None:
    counts = {State.DONE: 1, State.RUNNING: 1, State.FAILED: 1}
    for width in (8, 20, 40):
        cells = meter(Progress(total=100_000, by_state=counts), width)
        assert line_width(cells) == width
        assert {tone for text, tone in cells if text} == {
            Tone.DONE,
            Tone.RUNNING,
            Tone.FAILED,
            Tone.RULE,
        }


def test_a_sparkline_begins_with_the_first_minute_of_work() -> None:
    assert sparkline((0, 0, 1, 0, 4)) == "▃▁▇"
    assert sparkline((0, 0)) == ""


def test_the_pace_is_what_was_seen_and_else_what_the_store_counted() -> None:
    pace = Pace()
    assert pace.per_minute(()) is None
    assert pace.per_minute((0, 0, 7)) is None
    assert pace.per_minute((0, 10, 20, 0)) == 15
    for second in range(0, 130, 10):
        pace.note(NOW + timedelta(seconds=second), second // 10)
    assert pace.per_minute((0, 10, 20, 0)) == pytest.approx(6)
    pace.note(NOW + timedelta(seconds=140), 0)
    assert pace.per_minute((0, 10, 20, 0)) == 15


def test_a_clock_that_is_set_back_leaves_no_pace_behind() -> None:
    pace = Pace()
    for second in range(0, 60, 10):
        pace.note(NOW + timedelta(seconds=second), second)
    for second in range(0, 60, 10):
        pace.note(NOW + timedelta(hours=-1, seconds=second), 60 + second // 10)
    assert pace.per_minute(()) == pytest.approx(6)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({State.DONE: 5, State.READY: 5}, "~1:00 left"),
        ({State.DONE: 10}, "all done"),
        ({State.DONE: 8, State.FAILED: 1, State.BLOCKED: 1}, "over, 2 tasks not done"),
        ({}, ""),
    ],
)
def test_the_time_left_is_told_in_words(counts: dict[State, int], words: str) -> None:
    ready = counts.get(State.READY, 0)
    progress = Progress(total=sum(counts.values()), by_state=counts, ready=ready)
    assert time_left(progress, 5.0)[0] == words


def test_the_time_left_is_never_less_than_the_critical_path_takes() -> None:
    progress = Progress(total=10, by_state={State.DONE: 5, State.READY: 5}, ready=1, waiting=4)
    assert time_left(progress, 5.0, 30.0)[0] == "~1:00 left"
    assert time_left(progress, 5.0, 300.0)[0] == "~5:00 left"
    assert time_left(progress, None, 300.0)[0] == ""


def test_nobody_tells_the_time_left_while_nothing_can_start() -> None:
    counts = {State.DONE: 5, State.READY: 5}
    held = Progress(total=10, by_state=counts, ready=5, held=("*",))
    assert time_left(held, 5.0, 300.0)[0] == ""
    waiting = Progress(total=10, by_state=counts, ready=0, waiting=5)
    assert time_left(waiting, 5.0, 300.0)[0] == ""
    held = Progress(total=10, by_state=counts, ready=3, waiting=2, held=("codex",), held_back=3)
    assert time_left(held, 5.0, 300.0)[0] == ""
    assert time_left(replace(held, held_back=2), 5.0, 300.0)[0] == "~5:00 left"


def test_work_that_takes_longer_than_it_ever_did_is_overdue_and_not_done_in_no_time() -> None:
    last = Progress(total=10, by_state={State.DONE: 9, State.RUNNING: 1})
    assert time_left(last, 600.0, 0.0)[0] == "overdue"
    assert time_left(last, None, 0.0)[0] == ""
    assert time_left(last, 600.0, 0.2)[0] == "~1s left"
    more = Progress(total=10, by_state={State.DONE: 5, State.RUNNING: 1, State.READY: 4}, ready=4)
    assert time_left(more, 5.0, 0.0)[0] == "~1:00 left"


def told(mood: Mood, **more: Any) -> str:
    progress = Progress(total=9, by_state={State.READY: 8, State.BLOCKED: 1}, **more)
    picture = Snapshot(progress=Section(progress, NOW))
    return "  ".join(
        "".join(text for text, _ in piece.cells) for piece in headline(picture, NOW, 200, mood)
    )


def test_the_headline_counts_what_needs_you_as_the_footer_does() -> None:
    assert "▲ 1 needs you" in told(Mood(), needs_human=1)
    assert "▲ 3 need you" in told(Mood(needs=3), needs_human=1)
    assert "need" not in told(Mood())
    footer = BY_NAME["attention"]
    assert footer.label_for(Selection(Place.TASKS), 1) == "1 needs you"
    assert footer.label_for(Selection(Place.TASKS), 3) == "3 need you"
    assert footer.label_for(Selection(Place.TASKS)) == "needs you"


def test_the_headline_says_whom_nobody_serves_and_what_helps() -> None:
    assert "no claude worker runs: a adds one" in told(Mood(unserved=("claude",)))
    assert "2 agents without a worker: a adds one" in told(Mood(unserved=("claude", "codex")))
    assert "worker" not in told(Mood())


def test_at_60_columns_the_headline_keeps_what_is_wrong() -> None:
    progress = Progress(
        total=100,
        by_state={State.FAILED: 3, State.BLOCKED: 2, State.RUNNING: 4, State.READY: 50},
        ready=20,
        waiting=30,
        needs_human=1,
        held=("gemini",),
        recent=(1, 2, 3),
    )
    picture = Snapshot(progress=Section(progress, NOW))
    bar = Bar()
    bar._pieces = tuple(headline(picture, NOW, 60, Mood(stale_workers=1, rate=3.0)))
    text = " ".join(cell for piece in bar._pieces if not piece.drop for cell, _ in piece.cells)
    for words in ("✗ 3", "▲ 1", "△ 1", "● 4", "HELD gemini", "0/100"):
        assert words in text


@pytest.mark.parametrize(
    ("width", "spending", "told"),
    [
        (200, Spending(None, 98_000, 61_000, 4_000, 1.24), "102k tokens · $1.24"),
        (120, Spending(None, 98_000, 61_000, 4_000, 1.24), "$1.24"),
        (120, Spending(None, 98_000, 61_000, 4_000), "102k tokens"),
        (120, Spending(), ""),
    ],
)
def test_the_headline_tells_the_cost_and_where_it_has_room_the_tokens(
    width: int, spending: Spending, told: str
) -> None:
    picture = Snapshot(progress=Section(Progress(total=9, spending=spending), NOW))
    pieces = [
        "".join(text for text, _ in piece.cells) for piece in headline(picture, NOW, width, Mood())
    ]
    assert [text for text in pieces if "$" in text or "token" in text] == [told] * bool(told)


def test_why_names_the_deps_in_the_way_as_far_as_they_are_known() -> None:
    waits = task("x", deps=("a", "b", "c"), pending=2)
    known = {"a": State.DONE, "b": State.RUNNING, "c": State.READY}
    assert look.why(waits, NOW, known=known) == "waits for b, c"
    assert look.why(waits, NOW) == "waits for 2 of 3 tasks"
    broken = task("x", State.BLOCKED, deps=("a", "b"), reasons=(Reason.UPSTREAM,))
    assert look.why(broken, NOW, known={"b": State.FAILED}) == "blocked by b"
    assert look.why(task("x"), NOW, held=("codex",)) == "claims are held"
    assert look.why(task("x"), NOW) == "waits for a codex worker"
    assert look.why(task("x"), NOW, idle={"codex": False}) == "waits for a codex worker"
    assert look.why(task("x"), NOW, idle={"claude": True}) == "ready, but no codex worker runs"
    assert look.why(task("x", not_before=ago(-12)), NOW) == "again in 12s"
    assert look.why(running("x", "codex-1", 5), NOW, notes={"x": "thinking"}) == "thinking"


def test_the_tail_of_a_large_file_is_its_last_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    tail = read_tail(path)
    assert tail.cut
    assert tail.lines[-1] == "line 99999"
    assert len(tail.lines) == 500


def test_the_tail_survives_whatever_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    assert read_tail(path) == Tail()
    path.write_bytes(
        b"10%\r50%\r100%\r\n\xff\xfe\x1b]52;c;aGk=\x07\x1b[2Jok\n\x00" + b"x" * 1_000_000
    )
    tail = read_tail(path)
    assert all(line.isprintable() for line in tail.lines)
    assert tail.cut
    path.write_bytes(b"10%\r50%\r100%\r\nok\x1b[2J\n")
    assert read_tail(path).lines == ("100%", "ok")
    assert "cannot read" in read_tail(tmp_path).error


MEGABYTE = "word " * 200_000
WHOLE = "agentmux tasks show ID --json"


def detail_of(row: TaskRow, **more: Any) -> TaskDetail:
    facts: dict[str, Any] = {
        "payload": {}, "timeout": 60.0, "result": None, "deps": (), "dependents": (),
        "runs": (), "events": (), "explanation": (),
    }  # fmt: skip
    return TaskDetail(task=row, **(facts | more))


def words(lines: Sequence[Line]) -> str:
    return "\n".join("".join(text for text, _ in line) for line in lines)


@pytest.mark.parametrize(
    "much",
    [
        {"error": MEGABYTE},
        {"payload": {"prompt": MEGABYTE}},
        {"result": {"lines": [MEGABYTE, {"a": [MEGABYTE]}]}},
        {"result": {f"key-{n}": n for n in range(100_000)}},
        {"explanation": (MEGABYTE,)},
        {"name": MEGABYTE},
    ],
    ids=lambda much: next(iter(much)),
)
def test_of_a_megabyte_of_words_the_beginning_is_told_and_where_the_rest_is(much: Any) -> None:
    of_task = {key: text for key, text in much.items() if key in {"error", "name"}}
    rest = {key: text for key, text in much.items() if key not in of_task}
    lines = task_lines(detail_of(task("a", State.FAILED, **of_task), **rest), NOW, 60)
    assert len(words(lines)) < 3 * LONGEST
    assert words(lines).count(WHOLE) == 1


def test_what_is_not_too_long_is_told_whole() -> None:
    error = "x" * LONGEST
    row = task("a", State.FAILED, error=error)
    result = {"text": "y" * (LONGEST - 200), "list": [1, {"a": None}], "wide": "é\x1b[2Jé"}
    text = words(task_lines(detail_of(row, result=result), NOW, 60))
    assert text.count("x") >= LONGEST
    assert text.count("y") >= LONGEST - 200
    assert '[1, {"a": null}]' in text
    assert "éé" in text
    assert WHOLE not in text


def test_what_is_nested_too_deep_is_said_to_be() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    assert "nested too deep" in words(task_lines(detail_of(task("a"), result={"d": deep}), NOW, 60))


def test_the_long_errors_of_runs_are_cut_in_the_list_and_told_whole_elsewhere() -> None:
    row = RunRow(
        id="r", task_id="a", agent="codex", worker_id="codex-1", attempt=1,
        outcome=RunOutcome.FAILED, claimed_at=NOW, started_at=NOW, ended_at=NOW, exit_code=1,
        error="word " * 1000, result=None,
    )  # fmt: skip
    listed = words(run_lines([row], NOW, 60))
    assert listed.count("word") < 200
    assert WHOLE in listed
    assert words(run_about(row, NOW, 60)).count("word") == 1000
    long = words(run_about(replace(row, error=MEGABYTE, result={"a": MEGABYTE}), NOW, 60))
    assert len(long) < 3 * LONGEST
    assert long.count(WHOLE) == 2


def test_no_line_of_a_text_is_wider_than_its_pane() -> None:
    queries = busy()
    long = task(
        "i" * 200, name="n" * 300, error="e" * 500, deps=tuple("d" * n for n in range(1, 60))
    )
    tails = (("stdout", Tail(("x" * 500,), cut=True)), ("stderr", Tail(error="no")))
    detail = TaskDetail(
        task=long,
        payload={"kind": "shell", "cmd": "c" * 400, "env": {"A": "b" * 300}},
        timeout=60,
        result={"lastLines": ["z" * 300]},
        deps=tuple(Neighbour("d" * 200, None) for _ in range(20)),
        dependents=(Neighbour("q" * 10, State.READY),),
        runs=(),
        events=tuple(queries.all_events),
        explanation=("w" * 300,),
    )
    for width in (30, 60, 120):
        for lines in (
            task_lines(detail, NOW, width),
            log_lines(tails, width),
            help_lines(width, Keymap()),
        ):
            assert all(line_width(line) <= width for line in lines)


def test_the_legend_and_the_help_cover_what_the_screen_uses() -> None:
    text = "\n".join("".join(cell for cell, _ in line) for line in help_lines(120, Keymap()))
    assert all(symbol in text for symbol, _ in look.LEGEND)
    assert all(action.help.split()[0] in text for action in ACTIONS)
