"""Tables line up, pipes get everything, terminals get what fits, and nothing acts on either."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import shapes
from engine.cli import report, tables
from engine.cli.logs import LineFormatter
from engine.cli.parser import parse
from engine.cli.progress import in_short
from engine.cli.render import (
    Cell,
    Column,
    OutputClosedError,
    complain,
    say,
    say_json_list,
    say_raw,
    table,
)
from engine.cli.signals import Signals
from engine.errors import Code, StorageError
from engine.model import Event, EventType, Reason, RunOutcome, Spending, State, WorkerStatus
from engine.shapes import as_json
from engine.text import cells, clean_text
from engine.views import Progress, RunRow, SpentRow, TaskDetail, TaskRow, WorkerRow

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
EVIL = "\x1b[2J\x1b]0;x\x07\u202e|`[x](http://e)\n# forged\x7f\x9b31m"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def task(task_id: str = "impl:T-004", state: State = State.READY, **more: Any) -> TaskRow:
    values: dict[str, Any] = {
        "name": task_id, "agent": "codex", "deps": (), "reasons": (), "error": None, "attempts": 0,
        "retries": 0, "priority": 0, "pending": 0, "claimed_by": None, "run_id": None,
        "lease_until": None, "timeout_at": None, "not_before": None, "worker_id": None,
        "started_at": None, "ended_at": None, "created_at": ago(100), "updated_at": ago(60),
    }  # fmt: skip
    return TaskRow(id=task_id, state=state, **(values | more))


def worker(**more: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": "codex-1", "agent": "codex", "pid": 4411, "status": WorkerStatus.LIVE, "alive": True,
        "task_id": None, "run_id": None, "run_started_at": None, "lease_until": None,
        "started_at": ago(100), "beat_at": ago(2), "note": "",
    }  # fmt: skip
    return WorkerRow(**(values | more))


CELLS = st.text(max_size=30) | st.builds(Cell, st.text(max_size=10), st.sampled_from(["", "good"]))
COLUMNS = [
    Column("id", yields=1, least=5),
    Column("n", right=True),
    Column("why", yields=2, least=6),
]


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.none() | st.integers(10, 60))
def test_a_table_has_a_line_for_each_row_and_its_columns_begin_at_one_place(
    rows: list[tuple[Cell | str, ...]], width: int | None
) -> None:
    lines = table(COLUMNS, rows, width=width)
    assert len(lines) == len(rows) + 1
    assert all(clean_text(line) == line for line in lines)
    start = cells(lines[0][: lines[0].index("why")])
    for line, (*_, last) in zip(lines[1:], rows, strict=True):
        text = clean_text(last if isinstance(last, str) else last.text)
        if text:
            assert start < cells(line) <= start + cells(text)


def test_a_pipe_gets_every_id_in_full() -> None:
    long = "x" * 300
    assert long in "\n".join(table(COLUMNS, [(long, "1", long)]))


def test_a_narrow_terminal_cuts_sentences_first_and_ids_in_the_middle() -> None:
    columns = [Column("id", yields=1, least=8), Column("why", yields=2, least=10, sentence=True)]
    rows = [("impl:aaaaaaaaaa:T-004", "waits for a great many tasks")]
    assert table(columns, rows, width=40)[1] == "impl:aaaaaaaaaa:T-004  waits for a grea…"
    assert table(columns, rows, width=24)[1] == "impl:a…T-004  waits for…"
    assert table(columns, rows, width=5)[1] == "impl…004  waits for…"


def test_a_terminal_too_narrow_loses_columns_in_their_order_and_a_pipe_none() -> None:
    columns = [
        Column("id"),
        Column("old", drops=2),
        Column("agent", drops=1),
        Column("none", drops=1),
    ]
    rows = [("abcdef", "1:00 ago", "codex", "")]
    assert table(columns, rows)[0] == "id      old       agent  none"
    assert table(columns, rows, width=80)[0] == "id      old       agent"
    assert table(columns, rows, width=14)[1] == "abcdef  codex"
    assert table(columns, rows, width=6)[1] == "abcdef"


@given(st.integers(40, 200), st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_the_task_list_fits_any_terminal_of_forty_columns_or_more(
    width: int, texts: list[str]
) -> None:
    rows = [
        task("t" + text, name=text, agent="a" * 30, worker_id="w" * 30, state=State.FAILED,
             error=text, attempts=3)
        for text in texts
    ]  # fmt: skip
    lines = table(tables.TASKS, tables.task_rows(rows, NOW), width=width)
    assert all(cells(line) <= width for line in lines)


def test_wide_characters_do_not_push_columns_out_of_line() -> None:
    lines = table([Column("id"), Column("agent")], [("漢字", "a"), ("abcd", "a")])
    assert [cells(line) for line in lines[1:]] == [7, 7]


def test_lines_do_not_end_in_spaces() -> None:
    lines = table([Column("id"), Column("note"), Column("end")], [("a", "", ""), ("abc", "b", "")])
    assert lines[1:] == ["a", "abc  b"]


def test_colour_does_not_move_columns_and_only_a_terminal_gets_it() -> None:
    rows = [(Cell("done", "good"), "x")]
    plain = table([Column("state"), Column("id")], rows)
    coloured = table([Column("state"), Column("id")], rows, colour=True)
    assert "\x1b" not in "".join(plain)
    assert "\x1b[32mdone\x1b[0m" in coloured[1]
    assert [clean_text(line) for line in coloured] == plain


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_reads_back_and_holds_nothing_that_acts_on_a_terminal(value: Any) -> None:
    text = as_json(value)
    assert json.loads(text) == value
    assert text.isprintable()
    assert text.isascii()


@pytest.mark.parametrize("values", [[], [{"id": "a"}], [{"id": "a"}, {"id": "b"}]])
def test_a_json_list_has_one_element_a_line(
    values: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    say_json_list(iter(values))
    out = capsys.readouterr().out
    assert json.loads(out) == values
    assert len(out.splitlines()) == (len(values) + 2 if values else 1)


def test_what_is_printed_for_people_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    complain(Code.IO_ERROR, EVIL)
    out, err = capsys.readouterr()
    assert clean_text(out, newlines=True) == out
    assert clean_text(err, newlines=True) == err
    assert err.startswith("agentmux: IO_ERROR: ")


def test_a_closed_pipe_is_told_apart_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OutputClosedError):
        say_raw("x")


@pytest.mark.parametrize(
    ("row", "word", "reason"),
    [
        (task(), "ready", ""),
        (task(deps=("a", "b"), pending=2), "waiting", "waits for a, b"),
        (task(deps=("a", "b", "c"), pending=2), "waiting", "waits for 2 of 3 deps"),
        (task(deps=("a", "done"), pending=1), "waiting", "waits for a"),
        (task(not_before=NOW + timedelta(seconds=9)), "waiting", "tries again in 9s"),
        (
            task(not_before=NOW + timedelta(seconds=9), error="exit code 1"),
            "waiting",
            "tries again in 9s: exit code 1",
        ),
        (task(not_before=ago(1), error="exit code 1"), "ready", ""),
        (task(state=State.FAILED, error="exit code 1"), "failed", "exit code 1"),
        (task(state=State.DONE, error="an old one"), "done", ""),
        (task(state=State.RUNNING, error="an old one"), "running", ""),
        (
            task(state=State.BLOCKED, reasons=(Reason.HUMAN,), error="not allowed"),
            "blocked",
            "needs you: not allowed",
        ),
        (
            task(state=State.BLOCKED, reasons=(Reason.UPSTREAM, Reason.REMOVED)),
            "blocked",
            "a dep did not succeed; it left the DAG",
        ),
    ],
)
def test_a_list_of_tasks_says_why_each_is_not_going_on(
    row: TaskRow, word: str, reason: str
) -> None:
    assert tables.state_word(row, NOW) == word
    assert tables.why(row, NOW, known={"done": State.DONE}) == reason


def test_a_held_agent_is_the_reason_of_its_ready_tasks_only() -> None:
    assert tables.why(task(), NOW, held=["codex"]) == "claims are held"
    assert tables.why(task(), NOW, held=["*"]) == "claims are held"
    assert tables.why(task(), NOW, held=["claude"]) == ""
    assert tables.why(task(state=State.RUNNING), NOW, held=["*"]) == ""


def test_times_in_a_task_list_are_relative() -> None:
    running = task(state=State.RUNNING, claimed_by="codex-1", started_at=ago(134), attempts=1)
    done = task(state=State.DONE, started_at=ago(50), ended_at=ago(9), attempts=2, retries=2)
    lines = table(tables.TASKS, tables.task_rows([running, done], NOW))
    assert " 1/1  2:14  1:00 ago" in lines[1]
    assert " 2/3   41s  1:00 ago" in lines[2]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (worker(), "idle"),
        (worker(task_id="a"), "working"),
        (worker(status=WorkerStatus.STOPPING, task_id="a"), "stopping"),
        (worker(beat_at=ago(16)), "stale"),
        (worker(alive=False), "gone"),
        (worker(alive=False, status=WorkerStatus.STOPPED), "stopped"),
    ],
)
def test_a_worker_is_what_its_process_and_its_heartbeat_say(row: WorkerRow, word: str) -> None:
    assert shapes.worker_status(row, NOW, 15) == word
    assert word in table(tables.WORKERS, tables.worker_rows([row], NOW, 15))[1]


@pytest.mark.parametrize("outcome", [None, *RunOutcome])
def test_a_run_of_every_outcome_has_a_row(outcome: RunOutcome | None) -> None:
    run = RunRow(
        "r1", "a", "codex", "codex-1", 1, outcome, ago(50), ago(50), ago(8), 3, "boom", None
    )  # fmt: skip
    line = table(tables.RUNS, tables.run_rows([run], NOW))[1]
    assert (outcome.value if outcome else "running") in line
    assert "42s" in line
    assert "boom" in line


def test_a_run_and_its_task_tell_tokens_and_cost() -> None:
    spending = Spending(12, 127_000, 118_000, 3_000, 1.24)
    run = RunRow(
        "r1", "a", "codex", "codex-1", 1, None, ago(50), ago(50), None, None, None, None, spending
    )  # fmt: skip
    title, line = table(tables.RUNS, tables.run_rows([run], NOW))
    assert title.split()[-5:-2] == ["tokens", "cost", "exit"]
    assert line.split()[-3:-1] == ["130k", "$1.24"]
    detail = TaskDetail(task("a"), {}, 60.0, None, (), (), (run,), (), (), spending)
    told = dict(tables.definition_lines(detail, NOW))
    assert told["cost"] == "12 turns · 130k tokens · $1.24"
    nothing = tables.definition_lines(replace(detail, spending=Spending()), NOW)
    assert "cost" not in dict(nothing)


def test_an_event_in_json_has_the_shape_of_the_log() -> None:
    event = Event(7, NOW, EventType.TASK_CLAIMED, task_id="a", data={"attempt": 1})
    assert shapes.event_json(event) == {
        "seq": 7, "ts": "2026-11-20T12:00:00.000Z", "type": "TASK_CLAIMED", "taskId": "a",
        "attempt": 1,
    }  # fmt: skip


def test_an_event_of_another_day_shows_its_date() -> None:
    old = Event(1, ago(3 * 86400), EventType.TASK_READY, task_id="a")
    today = Event(1, NOW, EventType.TASK_READY, task_id="a")
    assert "-11-1" in tables.event_line(old, NOW)
    assert "-11-" not in tables.event_line(today, NOW)


def status(**more: Any) -> report.Status:
    values: dict[str, Any] = {
        "at": NOW, "progress": Progress(), "agents": {}, "blocked": [], "blocked_count": 0,
        "workers": [], "events": [], "stale_after": 15.0,
    }  # fmt: skip
    return report.Status(**(values | more))


def test_no_text_from_outside_can_forge_a_line_of_the_report() -> None:
    evil = status(
        progress=Progress(total=1, dag=EVIL, held=(EVIL,)),
        agents={EVIL: {State.BLOCKED: 1}},
        blocked=[task(EVIL, State.BLOCKED, agent=EVIL, reasons=(Reason.HUMAN,), error=EVIL)],
        blocked_count=1,
        workers=[worker(id=EVIL, agent=EVIL, task_id=EVIL)],
        spent=[SpentRow(EVIL, 1, Spending(cost=1.0))],
        events=[Event(1, NOW, EventType.TASK_READY, task_id=EVIL)],
    )
    text = report.as_markdown(evil)
    calm = status(
        progress=Progress(total=1, dag="x", held=("x",)),
        agents={"x": {State.BLOCKED: 1}},
        blocked=[task("x", State.BLOCKED, agent="x", reasons=(Reason.HUMAN,), error="x")],
        blocked_count=1,
        workers=[worker(id="x", agent="x", task_id="x")],
        spent=[SpentRow("x", 1, Spending(cost=1.0))],
        events=[Event(1, NOW, EventType.TASK_READY, task_id="x")],
    )
    assert clean_text(text, newlines=True) == text
    assert len(text.splitlines()) == len(report.as_markdown(calm).splitlines())
    assert "\n# forged" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in {4, 5, 7, 10}
    assert json.loads(as_json(report.as_json(evil)))["blocked"][0]["id"] == EVIL


def test_the_report_counts_what_it_does_not_list() -> None:
    text = report.as_markdown(status(blocked=[task(state=State.BLOCKED)], blocked_count=3))
    assert "## Blocked (3)" in text
    assert "… and 2 more." in text


ODD = r"a\b\\| *x* [y](z://q) <i> ~&#!$"


def test_the_report_tells_what_each_agent_took_and_all_of_them() -> None:
    rows = [
        SpentRow("claude", 2, Spending(None, 1_200_000, 900_000, 40_000, 3.5)),
        SpentRow("gemini", 0, Spending(None, 300_000, 0, 10_000, 0.0)),
    ]
    text = report.as_markdown(status(spent=rows))
    assert "| claude | 2 | 1.2M | 900k | 40k | \\$3.50 |" in text
    assert "| gemini | 0 | 300k | 0 | 10k | unknown |" in text
    assert "| all | 2 | 1.5M | 900k | 50k | \\$3.50 |" in text
    assert "| claude | 2 | 1.2M | 900k | 40k | $3.50 |" in report.as_read(text)
    assert report.as_read(report.escape(ODD)) == ODD
    assert "Spent since" not in report.as_markdown(status())


def test_an_empty_report_says_so_everywhere() -> None:
    text = report.as_markdown(status())
    for sentence in ("No tasks.", "None.", "No worker is live.", "Nothing has happened yet."):
        assert sentence in text


def test_progress_in_short_leaves_out_what_there_is_none_of() -> None:
    numbers = Progress(
        total=9, by_state={State.RUNNING: 1, State.CLAIMED: 1, State.DONE: 5}, ready=2
    )
    assert in_short(numbers) == "● 2  ◌ 2"
    spending = Spending(None, 98_000, 61_000, 4_000, 1.24)
    assert in_short(Progress(ready=2, spending=spending)) == "◌ 2  102k tokens · $1.24"


@pytest.mark.parametrize("argv", [["--state-dir", "x", "ps"], ["ps", "--state-dir", "x"]])
def test_the_state_folder_may_stand_before_and_after_the_command(argv: list[str]) -> None:
    assert str(parse(argv).state_dir) == "x"


def test_the_state_folder_comes_from_the_environment_unless_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTMUX_STATE_DIR", str(tmp_path))
    assert parse(["tasks", "ls"]).state_dir == tmp_path
    args = parse(["tasks", "--state-dir", "y", "ls"])
    assert str(args.state_dir) == "y"
    monkeypatch.delenv("AGENTMUX_STATE_DIR")
    assert str(parse(["ps"]).state_dir) == "state"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["tasks"],
        ["fly"],
        ["tasks", "ls", "--state", "ASLEEP"],
        ["run", "--workers", "0"],
        ["run", "--timeout", "soon"],
        ["run", "--timeout", "inf"],
        ["events", "--since", "-1"],
        ["worker"],
        ["worker", "--agent", "a", "--stop", "--until-idle"],
        ["worker", "--agent", "a", "--stop"],
        ["stop"],
        ["kill", "w1", "--all"],
        ["tasks", "purge"],
        ["gc", "--older-than", "soon"],
        ["reset", "--timeout", "nan"],
        ["tasks", "show"],
        ["ps", "\x1b[2J"],
    ],
)
def test_wrong_usage_ends_with_2_and_clean_words(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert "usage: agentmux" in err
    assert clean_text(err, newlines=True) == err


async def test_signals_only_ask_however_often_they_come() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        await signals.wait()
        assert signals.first is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_signal_that_our_parent_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_foreseen_error_is_logged_without_a_traceback_and_a_bug_with_one() -> None:
    def logged(error: Exception) -> str:
        try:
            raise error
        except type(error):
            record = logging.LogRecord("engine", logging.ERROR, "", 0, EVIL, None, sys.exc_info())
        return LineFormatter().format(record)

    foreseen = logged(StorageError("disk full" + EVIL))
    assert "disk full" in foreseen
    assert "Traceback" not in foreseen
    assert clean_text(foreseen, newlines=True) == foreseen
    assert "Traceback" in logged(KeyError("x"))
