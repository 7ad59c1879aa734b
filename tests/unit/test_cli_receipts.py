"""Plans, receipts, steps and notices in words; and what a signal does to a command that steers."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.patience import PATIENCE

from engine import receipts
from engine.cli import progress
from engine.cli.logs import log_to_stderr
from engine.cli.logs import tell as tell_notices
from engine.cli.progress import in_words, slow_steps, steps
from engine.cli.signals import interruptible
from engine.commands import (
    Cancel,
    Command,
    EndedRun,
    Hold,
    Kill,
    KillWorkers,
    Purge,
    Receipt,
    Refusal,
    Release,
    Reset,
    Retry,
    Seed,
    Step,
    Stop,
)
from engine.errors import Code
from engine.text import clean_text

EVIL = "\x1b[2J\x1b]0;x\x07\u202e\n# forged\x7f\x9b31m"


def end(task_id: str, worker_id: str = "w1", *pids: int) -> EndedRun:
    return EndedRun(f"run-of-{task_id}", task_id, worker_id, pids)


PLANS: list[tuple[Command, Receipt, str]] = [
    (
        Cancel(("a", "b", "c")),
        Receipt(
            True,
            dict.fromkeys("abc", "cancelled"),
            (Refusal("d", Code.ILLEGAL_TRANSITION, "task 'd' is DONE: cannot cancel"),),
            {"cancelled": 3, "runs ended": 2, "tasks blocked by it": 7, "refused": 1},
            (end("a", "w1", 4411), end("b", "w2", 4412)),
        ),
        (
            "2 runs get SIGTERM (pids 4411, 4412), 3 tasks → CANCELLED, 7 tasks blocked by it, "
            "1 refused (task 'd' is DONE: cannot cancel)"
        ),
    ),
    (
        Kill(("a", "b"), force=True),
        Receipt(True, dict.fromkeys("ab", "killed"), (), {}, (end("a", "w1", 7), end("b"))),
        "1 run gets SIGKILL (pid 7), 1 run ends, 2 tasks → FAILED",
    ),
    (Release(("a",)), Receipt(True, {"a": "released from w1"}), "1 task → READY"),
    (Purge(("a",)), Receipt(True, {"a": "purged"}), "1 task → gone"),
    (
        Retry(("a", "b")),
        Receipt(True, {"a": "ready again", "b": "retried, but something else blocks it"}),
        "1 task → READY, 1 task → BLOCKED",
    ),
    (
        Stop(None),
        Receipt(True, {"w1": "stopped"}, (), {}, (end("a", "w1", 7),)),
        "1 run gets SIGTERM (pid 7), 1 worker stopped, 1 task → READY",
    ),
    (
        Stop(("w1",), drain=True),
        Receipt(True, {"w1": "stops after a"}),
        "1 worker to stop once the current task is finished",
    ),
    (KillWorkers(("w1",)), Receipt(True, {"w1": "killed"}), "1 worker killed"),
    (Hold(), Receipt(True, {"*": "held"}), ""),
    (Seed(), Receipt(True, {}, (), {"created": 2, "unchanged": 1}), "2 created, 1 unchanged"),
]


@pytest.mark.parametrize(("command", "receipt", "sentence"), PLANS)
def test_a_plan_says_what_becomes_of_processes_and_of_tasks(
    command: Command, receipt: Receipt, sentence: str
) -> None:
    assert receipts.plan(command, receipt) == sentence


def test_the_plan_of_a_reset_says_what_comes_after_what_and_who_decides() -> None:
    receipt = Receipt(True, {"w1": "stopped"}, (), {"workers stopped": 1, "created": 2})
    gentle = receipts.plan(Reset(), receipt)
    assert "all workers stopped (if one is alive after 15 s, it stops there" in gentle
    assert gentle.endswith("the DAG seeded (2 created) and claims go on")
    assert "if one is alive after 3 s, it is killed" in receipts.plan(
        Reset(force=True, timeout=3), receipt
    )


def test_a_receipt_names_the_first_subjects_and_counts_the_rest() -> None:
    done = {f"t{n}": "cancelled" for n in range(receipts.LISTED + 2)}
    lines = receipts.done_lines(Receipt(done=done, ends=(end("t0", "w1", 3, 2),)))
    assert lines[0] == "t0: cancelled (pids 2, 3)"
    assert lines[1] == "t1: cancelled"
    assert lines[receipts.LISTED :] == ["… and 2 more"]
    (line,) = receipts.done_lines(Receipt(done={"w1": "stopped"}, ends=(end("t0", "w1", 3),)))
    assert line == "w1: stopped (run: pid 3)"
    assert receipts.sums(Receipt(counts={"killed": 1, "runs ended": 1})) == "1 killed, 1 run ended"


def test_refusals_of_one_kind_are_told_a_few_times_and_then_counted() -> None:
    refused = [
        Refusal(f"t{n}", Code.ILLEGAL_TRANSITION, f"task {f't{n}'!r} is DONE: cannot cancel")
        for n in range(412)
    ]
    refused.insert(1, Refusal("x", Code.TASK_NOT_FOUND, "no task 'x'"))
    lines = receipts.refusal_lines(refused)
    assert lines[0] == (Code.ILLEGAL_TRANSITION, "task 't0' is DONE: cannot cancel")
    assert lines[1] == (Code.TASK_NOT_FOUND, "no task 'x'")
    assert len(lines) == receipts.ALIKE + 2
    assert lines[-1] == (Code.ILLEGAL_TRANSITION, "409 more: each is DONE: cannot cancel")


def test_refusals_of_very_many_kinds_do_not_flood() -> None:
    refused = [Refusal(f"t{n}", Code.LEASE_CONFLICT, f"reason {n}") for n in range(100)]
    lines = receipts.refusal_lines(refused)
    assert len(lines) == receipts.LISTED + 1
    assert lines[-1] == (Code.LEASE_CONFLICT, "80 more, for other reasons")


@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.sampled_from(Code), st.sampled_from(["a", "'a' b"])).map(
            lambda facts: Refusal(*facts)
        )
    )
)
def test_every_refusal_is_told_or_counted(refused: list[Refusal]) -> None:
    assert sum(count for _, _, count in receipts.grouped(refused)) == len(refused)
    told = 0
    for _, sentence in receipts.refusal_lines(refused):
        more = re.match(r"([\d,]+) more", sentence)
        told += int(more[1]) if more else 1
    assert told == len(refused)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Step("seeding", 12000), "seeding: 12,000"),
        (Step("reading the log", next="rebuilding"), "reading the log; rebuilding"),
        (
            Step("waiting", 0, ("w1 (pid 7) with a",), 14.2, "then the log is rotated"),
            "waiting (15s left): w1 (pid 7) with a; then the log is rotated",
        ),
        (Step("waiting", 0, tuple(f"w{n}" for n in range(10))), None),
        (Step(EVIL, 0, (EVIL,), 1.0, EVIL), None),
    ],
)
def test_a_step_is_one_clean_line(step: Step, line: str | None) -> None:
    words = in_words(step)
    assert clean_text(words) == words
    assert line is None or words == line
    assert "w7 and 2 more" in words or len(step.waiting_for) < 10


def test_a_pipe_gets_a_line_for_each_change_and_none_for_each_second(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with steps(pipes=True) as tell:
        tell(Step("waiting", 0, ("w1", "w2"), 15.0))
        tell(Step("waiting", 0, ("w1", "w2"), 14.0))
        tell(Step("waiting", 0, ("w2",), 13.0))
        tell(Step("seeding", 100))
        tell(Step("seeding", 200))
    assert capsys.readouterr().err.splitlines() == [
        "waiting (15s left): w1, w2", "waiting (13s left): w2", "seeding: 100",
    ]  # fmt: skip
    with steps() as tell:
        tell(Step("seeding", 100))
    assert capsys.readouterr().err == ""


async def test_quick_steps_are_not_shown_and_the_last_one_is_once_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with slow_steps(pipes=True) as tell:
        tell(Step("checking the database"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "MOMENT", 0.0)
    with slow_steps(pipes=True) as tell:
        tell(Step("checking the database"))
        tell(Step("reading the log"))
        async with asyncio.timeout(PATIENCE):
            while not (shown := capsys.readouterr().err):  # noqa: ASYNC110 - a timer, no event
                await asyncio.sleep(0)
        tell(Step("rebuilding"))
    assert shown == "reading the log\n"
    assert capsys.readouterr().err == "rebuilding\n"


def test_a_notice_that_was_logged_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("engine")
    before = logger.handlers[:]
    logger.handlers.clear()
    try:
        log_to_stderr()
        logging.getLogger("engine.store").warning("moved aside")
        tell_notices(["moved aside", "cleaned up", "cleaned up"])
    finally:
        logger.handlers[:] = before
    assert capsys.readouterr().err.splitlines() == [
        "agentmux: warning: moved aside", "agentmux: warning: cleaned up",
    ]  # fmt: skip


async def test_a_signal_cancels_a_command_and_a_second_one_cannot_cut_its_cleaning_up() -> None:
    cleaned = asyncio.Event()

    @interruptible
    async def command(_args: Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
            cleaned.set()
        return 0

    async with asyncio.timeout(PATIENCE):
        assert await command(Namespace()) == 128 + signal.SIGTERM
    assert cleaned.is_set()


async def test_a_command_that_is_through_when_the_signal_comes_keeps_its_exit_code() -> None:
    @interruptible
    async def command(_args: Namespace) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 1

    assert await command(Namespace()) == 1
