"""`status --watch` in words: sentences that make sense by themselves, and no flood of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from engine.cli.spoken import LISTED, Glance, Happened, span, summary, summary_json
from engine.model import Event, EventType, Spending, State, WorkerStatus
from engine.views import AttentionRow, Need, Progress, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def glance(
    by_state: dict[State, int] | None = None,
    *,
    workers: Sequence[WorkerRow] = (),
    needs: Sequence[AttentionRow] = (),
    **more: Any,
) -> Glance:
    counts = by_state or {}
    progress = Progress(total=sum(counts.values()), by_state=counts, **more)
    return Glance(NOW, progress, workers, needs, 15.0)


def worker(name: str, task_id: str | None = None, *, since: float = 0) -> WorkerRow:
    started = ago(since) if task_id else None
    return WorkerRow(
        id=name, agent="codex", pid=4711, status=WorkerStatus.LIVE, alive=True, task_id=task_id,
        run_id=None, run_started_at=started, lease_until=None, started_at=NOW, beat_at=NOW, note="",
    )  # fmt: skip


def need(subject: str, seconds: float = 90) -> AttentionRow:
    return AttentionRow(
        f"human:{subject}", Need.HUMAN, subject, ago(seconds), "needs you", task_id=subject
    )


def event(seq: int, kind: EventType, task_id: str | None = None, **more: Any) -> Event:
    return Event(seq, ago(100 - seq), kind, task_id=task_id, **more)


def without_time(lines: Sequence[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in lines]


def test_a_summary_says_how_far_it_is_who_works_and_what_needs_somebody() -> None:
    seen = glance(
        {State.DONE: 4, State.RUNNING: 1, State.READY: 3, State.FAILED: 1, State.BLOCKED: 1},
        ready=1, waiting=2, held=("gemini", "*"), dag="dag.yaml",
        workers=[worker("codex-1", "tests:race", since=134), worker("codex-2")],
        needs=[need("deploy")],
    )  # fmt: skip
    first, *lines = summary(seen)
    assert first.endswith(" 4 of 10 tasks of dag.yaml are done.")
    assert lines == [
        "Of the others: 1 running, 1 ready, 2 waiting, 1 failed, 1 blocked.",
        "2 workers are live, 1 at work.",
        "codex-1 has run tests:race for 2 minutes.",
        "Claims are held for gemini, all agents.",
        "1 thing needs you:",
        "deploy: needs you. It has been so for 1 minute.",
    ]


def test_a_dag_without_tasks_and_one_that_is_all_done_are_said_so() -> None:
    assert summary(glance())[0].endswith("there are no tasks.")
    done, *rest = summary(glance({State.DONE: 2}))
    assert done.endswith(" all 2 tasks are done.")
    assert rest == ["No worker is live.", "Nothing needs you."]


@pytest.mark.parametrize(
    ("spending", "told"),
    [
        (Spending(None, 3_100_000, 0, 20_000, 1234.5), "3,120,000 tokens and $1,234.50"),
        (Spending(None, 1, None, None), "1 token"),
        (Spending(cost=0.5), "$0.50"),
    ],
)
def test_what_is_spent_is_said_and_alone_is_no_news(spending: Spending, told: str) -> None:
    seen = glance({State.RUNNING: 1}, spending=spending)
    assert f"Spent until now: {told}." in summary(seen)
    assert seen.counts == glance({State.RUNNING: 1}).counts
    assert summary_json(seen)["progress"]["spending"]["cost"] == spending.cost


def test_a_need_is_told_in_full_once_and_only_counted_later() -> None:
    seen = glance({State.BLOCKED: 2}, needs=[need("a"), need("b")])
    assert summary(seen, {"human:a"})[-2:] == [
        "2 things need you, 1 of them new:",
        "b: needs you. It has been so for 1 minute.",
    ]
    assert summary(seen, {"human:a", "human:b"})[-1] == "2 things need you, as before."


def test_many_workers_and_needs_are_counted_beyond_the_first() -> None:
    many = range(LISTED + 3)
    seen = glance(
        {State.RUNNING: 13},
        workers=[worker(f"w{n}", f"t{n}") for n in many],
        needs=[need(f"n{n}") for n in many],
    )
    lines = summary(seen)
    assert "And 3 workers more are at work." in lines
    assert lines[-1] == "And 3 things more."
    assert len(lines) < 2 * LISTED + 10


def test_nothing_an_agent_says_can_act_on_the_terminal_or_forge_a_line() -> None:
    bad = "\x1b]52;c;x\x07a\nAt 12:00:00 all is well\u202e"
    happened = Happened()
    happened.add([event(1, EventType.TASK_PROGRESS, "t", data={"note": bad})])
    seen = glance({State.BLOCKED: 1}, needs=[need(bad)], dag=bad, workers=[worker("w", bad)])
    lines = [*summary(seen), *happened.lines(NOW)]
    assert all(line.isprintable() for line in lines)


def test_each_event_is_a_line_with_its_time_and_a_start_says_enough_of_the_claim() -> None:
    happened = Happened()
    run = {"run_id": "r", "worker_id": "w"}
    happened.add(
        [
            event(1, EventType.TASK_CLAIMED, "a", **run),
            event(2, EventType.TASK_STARTED, "a", **run),
            event(3, EventType.TASK_CLAIMED, "b", run_id="other", worker_id="w2"),
            event(4, EventType.TASK_COMPLETED, "a", **run),
        ]
    )
    assert without_time(happened.lines(NOW)) == [
        "w started a", "w2 claimed b", "w finished a",
    ]  # fmt: skip


def test_a_flood_of_one_kind_is_counted_and_the_rest_is_still_told_in_order() -> None:
    happened = Happened()
    happened.add(event(n, EventType.TASK_CREATED, f"t{n}") for n in range(1, 1201))
    happened.add([event(1201, EventType.TASK_CANCELLED, "t7")])
    assert without_time(happened.lines(NOW)) == ["1,200 tasks were added", "t7 was cancelled"]


@pytest.mark.parametrize("kind", EventType)
def test_ten_of_any_kind_are_told_one_by_one_and_more_are_never_lost(kind: EventType) -> None:
    few, many = Happened(), Happened()
    few.add(event(n, kind, f"t{n}") for n in range(LISTED))
    many.add(event(n, kind, f"t{n}") for n in range(LISTED + 5))
    assert len(few.lines(NOW)) == LISTED
    lines = many.lines(NOW)
    assert len(lines) >= 1
    assert any(f"{LISTED + 5}" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"), (1, "1 second"), (59.9, "59 seconds"), (60, "1 minute"),
        (3599, "59 minutes"), (3600, "1 hour"), (3840, "1 hour and 4 minutes"),
        (7300, "2 hours and 1 minute"), (86400 * 3, "3 days"),
    ],
)  # fmt: skip
def test_a_span_is_written_as_it_is_said(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_time_alone_is_no_reason_for_another_summary() -> None:
    one, other = (
        glance(
            {State.RUNNING: 1}, workers=[worker("w", "t", since=since)], needs=[need("n", since)]
        )
        for since in (10, 4000)
    )
    assert one.counts == other.counts
    assert one.counts != glance({State.RUNNING: 1}, workers=[worker("w")]).counts
