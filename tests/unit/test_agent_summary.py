"""Promises about what is kept of a run: counts, the last words, what it took and is troubled by."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.standins.install import transcript

from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.vocabulary import Entry, Kind, Role, Trouble
from engine.model import Spending

UNTIL = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


def told(*entries: Entry) -> Summary:
    summary = Summary()
    for entry in entries:
        summary.take(entry)
    return summary


def said(text: str, *, parent: str = "", goes_on: bool = False, role: Role = Role.AGENT) -> Entry:
    return Entry(Kind.MESSAGE, text, role=role, parent=parent, goes_on=goes_on)


def of(name: str, scenario: str) -> Summary:
    reader = reader_for(name, "/home/dev/shop")
    lines = transcript(name, scenario).read_bytes().splitlines(keepends=True)
    return told(*(entry for line in lines for entry in reader.read(line)))


@pytest.mark.parametrize(
    ("name", "tools", "spending"),
    [
        ("claude", {"Read": 1, "Edit": 1, "Bash": 2}, Spending(7, 7000, 6300, 350, 0.07)),
        ("codex", {"shell": 3, "edit": 1}, Spending(None, 6000, 5400, 300)),
        (
            "gemini",
            {"read_file": 1, "replace": 1, "run_shell_command": 2},
            Spending(None, 6000, 5400, 420),
        ),
    ],
)
def test_a_run_that_went_well(name: str, tools: dict[str, int], spending: Spending) -> None:
    summary = of(name, "ok")
    assert (summary.messages, summary.tools, summary.calls) == (2, tools, 4)
    assert (summary.errors, summary.unknown, summary.trouble) == (0, 0, None)
    assert summary.session == "00000000-0000-0000-0000-000000000007"
    assert summary.model == ("" if name == "codex" else "standin-1")
    assert summary.doing.endswith("pytest -q")
    assert summary.text == summary.answer == "The price is 2 now, and the tests pass."
    assert summary.spending == spending


@pytest.mark.parametrize(("name", "unknown"), [("claude", 10), ("codex", 9), ("gemini", 7)])
def test_lines_that_nobody_knows_are_counted(name: str, unknown: int) -> None:
    summary = of(name, "unknown-types")
    assert summary.unknown == unknown
    assert summary.answer == "Whatever that was, I am done."


def test_what_a_subagent_says_is_no_answer() -> None:
    summary = of("claude", "subagents")
    assert (summary.messages, summary.tools) == (2, {"Task": 1, "Bash": 1})
    summary = told(said("mine"), said("its", parent="t1"))
    assert (summary.text, summary.messages) == ("mine", 2)


def test_pieces_belong_together_only_if_nothing_stands_between_them() -> None:
    tool = Entry(Kind.CALL, "x.py", tool="Read")
    summary = told(said("a", goes_on=True), said("b", goes_on=True), tool)
    assert (summary.text, summary.messages) == ("ab", 1)
    summary = told(
        said("a"), said("hm", role=Role.THOUGHT), said("c", goes_on=True), said("d", goes_on=True)
    )
    assert (summary.text, summary.messages) == ("cd", 2)


def test_who_names_no_tools_is_seen_at_work_by_what_it_says() -> None:
    assert told(said("compiling")).doing == "compiling"
    assert told(Entry(Kind.CALL, "a.py", tool="Edit"), said("done")).doing == "Edit a.py"


def test_a_trouble_lasts_until_the_agent_goes_on() -> None:
    limit = Entry(Kind.ERROR, "limit", trouble=Trouble.RATE, until=UNTIL)
    again = Entry(Kind.ERROR, "limit, in words", trouble=Trouble.RATE)
    last = Entry(Kind.RESULT, "no", failed=True, trouble=Trouble.RATE)
    summary = told(limit, again, last)
    assert (summary.trouble, summary.until, summary.errors) == (Trouble.RATE, UNTIL, 2)
    assert summary.error == "limit, in words"
    summary = told(limit, said("hm", role=Role.THOUGHT))
    assert summary.trouble is Trouble.RATE
    for going_on in (said("on"), said("on", parent="t1"), Entry(Kind.CALL, tool="Read")):
        summary = told(limit, going_on)
        assert (summary.trouble, summary.until, summary.error) == (None, None, "")
    summary = told(limit, Entry(Kind.ERROR, "401", trouble=Trouble.LOGIN))
    assert (summary.trouble, summary.until) == (Trouble.LOGIN, None)


def test_what_was_told_of_spending_stays_if_it_is_not_told_again() -> None:
    summary = told(
        Entry(Kind.CALL, spending=Spending(1, 100, 50)),
        Entry(Kind.CALL, spending=Spending(2, 200, 150)),
        Entry(Kind.RESULT, failed=True, spending=Spending(turns=3, cost=0.5)),
    )
    assert summary.spending == Spending(3, 200, 150, None, 0.5)


def test_the_answer_is_the_result_of_a_run_that_succeeded() -> None:
    assert told(said("a"), Entry(Kind.RESULT, "b")).answer == "b"
    assert told(said("a"), Entry(Kind.RESULT, "")).answer == "a"
    assert told(said("a"), Entry(Kind.RESULT, "b", failed=True)).answer == "a"
