"""Promises of what is told to somebody who looks away: little, in time, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
from support.screens import NOW, FakeQueries

from engine.model import Event, EventType, Reason, RunOutcome, State
from engine.views import Progress
from tui.attendant import BATCH, BRIEF, GATHER, LONG, MOST, RING, Attendant, Ear, Toast, title

BUSY = Progress(total=10, by_state={State.RUNNING: 2, State.READY: 8}, ready=8, dag="x/build.yaml")


def event(type: EventType, seq: int = 1, **more: Any) -> Event:  # noqa: A002 - as in the row
    return Event(seq=seq, ts=NOW, type=type, **more)


def done(name: str) -> Event:
    return event(
        EventType.TASK_COMPLETED,
        task_id=name,
        worker_id="codex-1",
        state=State.DONE,
        data={"durationMs": 41_000},
    )


def failed(name: str, **data: Any) -> Event:
    return event(
        EventType.TASK_FAILED,
        task_id=name,
        state=State.FAILED,
        data={"error": "exit code 1"} | data,
    )


def asking(name: str) -> Event:
    return event(
        EventType.TASK_BLOCKED,
        task_id=name,
        state=State.BLOCKED,
        data={"reasons": [Reason.HUMAN], "error": "not allowed: ssh"},
    )


class Day:
    """An attendant, and the time that goes by."""

    def __init__(self) -> None:
        self.attendant = Attendant()
        self.now = 100.0
        self.attendant.note(BUSY, [], 0, self.now)

    def passes(self, seconds: float, *events: Event, needs: int = 0, at: Progress = BUSY) -> Any:
        self.now += seconds
        return self.attendant.note(at, events, needs, self.now)

    def toasts(self, seconds: float, *events: Event) -> list[Toast]:
        return list(self.passes(seconds, *events).toasts)


def test_one_that_finished_is_told_at_once_and_in_words() -> None:
    assert Day().toasts(0.25, done("tests:unit")) == [
        Toast("✓ codex-1 finished tests:unit in 41s", "information", BRIEF)
    ]


def test_one_that_failed_is_told_as_an_error_and_stays_longer() -> None:
    assert Day().toasts(0.25, failed("lint")) == [
        Toast("✗ lint failed: exit code 1", "error", LONG)
    ]


def test_one_that_needs_somebody_is_told_as_a_warning() -> None:
    (toast,) = Day().toasts(0.25, asking("deploy"))
    assert (toast.text, toast.severity) == ("▲ deploy needs you: not allowed: ssh", "warning")


def test_many_become_one_that_counts_and_names_what_failed() -> None:
    (toast,) = Day().toasts(0.25, *(done(f"t{n}") for n in range(12)), failed("a"), failed("b"))
    assert toast.text == "12 tasks done; 2 failed: a, b"
    assert toast.severity == "error"


def test_only_a_few_names_are_named() -> None:
    (toast,) = Day().toasts(0.25, *(failed(f"t{n}") for n in range(500)))
    assert toast.text == "500 failed: t0, t1, t2, …"


def test_what_comes_within_a_second_is_told_together_and_not_forgotten() -> None:
    day = Day()
    assert len(day.toasts(0, done("a"))) == 1
    assert day.toasts(0.25, done("b")) == []
    assert day.toasts(0.25, done("c")) == []
    (toast,) = day.toasts(GATHER)
    assert toast.text == "2 tasks done"
    assert day.toasts(GATHER) == []


def test_never_more_than_three_are_up_however_much_happens() -> None:
    day = Day()
    up: list[float] = []
    counted = 0
    for step in range(400):
        for toast in day.toasts(0.25, *(done(f"t{step}-{n}") for n in range(50))):
            up.append(day.now + toast.seconds)
            counted += int(toast.text.split()[0].replace(",", ""))
        assert sum(end > day.now for end in up) <= MOST
    for toast in day.toasts(LONG):
        counted += int(toast.text.split()[0].replace(",", ""))
    assert counted == 400 * 50


@pytest.mark.parametrize(
    "quiet",
    [
        failed("a", outcome=RunOutcome.KILLED),
        event(EventType.TASK_FAILED, task_id="a", state=State.READY, data={"error": "x"}),
        event(
            EventType.TASK_BLOCKED, task_id="a", state=State.BLOCKED, data={"reasons": ["upstream"]}
        ),
        event(EventType.TASK_STARTED, task_id="a", state=State.RUNNING),
        event(EventType.WORKER_STOPPED, worker_id="codex-1"),
    ],
    ids=["killed by the operator", "tried again", "upstream", "started", "stopped"],
)
def test_what_needs_no_looking_up_is_not_told(quiet: Event) -> None:
    assert Day().toasts(0.25, quiet) == []


def test_names_from_outside_are_cleaned_and_cut() -> None:
    (toast,) = Day().toasts(0.25, failed("a\x1b]0;x\x07" + "b" * 200), failed("[red]c"))
    assert toast.text.isprintable()
    assert len(toast.text) < 100
    assert "[red]c" in toast.text


def test_the_bell_rings_when_something_new_needs_somebody() -> None:
    day = Day()
    assert day.passes(1).bell is False
    assert day.passes(1, needs=1).bell is True
    assert day.passes(1, needs=1).bell is False


def test_the_bell_says_nothing_of_what_was_there_at_the_start() -> None:
    attendant = Attendant()
    assert attendant.note(BUSY, [], 3, 0.0).bell is False
    assert attendant.note(BUSY, [], 3, 60.0).bell is False
    assert attendant.note(BUSY, [], 4, 120.0).bell is True


def test_the_bell_says_nothing_of_what_was_there_before_anybody_could_look() -> None:
    attendant = Attendant()
    assert attendant.note(BUSY, [], None, 0.0).bell is False
    assert attendant.note(BUSY, [], 3, 60.0).bell is False
    assert attendant.note(BUSY, [], 4, 120.0).bell is True


def test_the_bell_rings_seldom_but_forgets_nothing() -> None:
    day = Day()
    assert day.passes(1, needs=1).bell
    assert not any(day.passes(0.25, needs=2 + n).bell for n in range(20))
    assert day.passes(RING, needs=21).bell
    assert not day.passes(RING, needs=21).bell


def test_what_was_settled_meanwhile_rings_no_more() -> None:
    day = Day()
    assert day.passes(1, needs=1).bell
    assert not day.passes(1, needs=2).bell
    assert not day.passes(1, needs=1).bell
    assert not day.passes(RING, needs=1).bell
    assert not day.passes(1, needs=0).bell
    assert day.passes(1, needs=1).bell


def test_the_title_counts_what_needs_somebody() -> None:
    assert title(BUSY, 2) == "(2) agentmux build.yaml"
    assert title(BUSY, 0) == "agentmux build.yaml"
    assert title(Progress(), 0) == "agentmux"
    assert title(Progress(dag="a\x07\x1b]0;b\x07.yaml"), 1) == "(1) agentmux a.yaml"


ALL_DONE = Progress(total=10, by_state={State.DONE: 10})
STUCK = Progress(total=10, by_state={State.DONE: 7, State.FAILED: 1, State.BLOCKED: 2})


@pytest.mark.parametrize(
    ("end", "words"),
    [(ALL_DONE, "✓ all 10 tasks done"), (STUCK, "nothing more can run: 7 tasks done, 3 not")],
)
def test_the_end_of_the_work_is_told_once(end: Progress, words: str) -> None:
    day = Day()
    assert [toast.text for toast in day.passes(1, done("last"), at=end).toasts] == [words]
    assert day.passes(20, at=end).toasts == ()


def test_a_dashboard_opened_after_the_end_says_nothing_of_it() -> None:
    attendant = Attendant()
    assert attendant.note(ALL_DONE, [], 0, 0.0).toasts == ()
    assert attendant.note(ALL_DONE, [], 0, 20.0).toasts == ()


async def test_the_ear_hears_each_event_once_and_none_of_the_past() -> None:
    queries = FakeQueries(all_events=[event(EventType.SEEDED, n) for n in range(1, 6)])
    ear = Ear()
    assert await ear.listen(queries) == []
    assert await ear.listen(queries) == []
    queries.all_events += [event(EventType.SEEDED, 6), event(EventType.SEEDED, 7)]
    assert [one.seq for one in await ear.listen(queries)] == [6, 7]
    assert await ear.listen(queries) == []


async def test_of_a_flood_the_ear_hears_the_newest() -> None:
    queries = FakeQueries(all_events=[event(EventType.SEEDED, 1)])
    ear = Ear()
    await ear.listen(queries)
    queries.all_events += [event(EventType.SEEDED, n) for n in range(2, 5 * BATCH)]
    heard = await ear.listen(queries)
    assert len(heard) == BATCH
    assert heard[-1].seq == 5 * BATCH - 1
    assert await ear.listen(queries) == []


async def test_an_event_between_two_reads_is_not_heard_twice() -> None:
    class Racing(FakeQueries):
        async def last_seq(self) -> int:
            last = await super().last_seq()
            self.all_events.append(event(EventType.SEEDED, last + 1))
            return last

    ear, racing = Ear(), Racing(all_events=[event(EventType.SEEDED, 1)])
    heard: list[int] = []
    for _ in range(4):
        heard += [one.seq for one in await ear.listen(racing)]
    assert heard == sorted(set(heard))
