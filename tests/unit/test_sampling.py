"""Shares of the CPU between two looks, and a tree in order, from numbers made up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from engine.model import ProcessId
from engine.processes.sampling import Reading, Sample, _read, in_order, usage_between

if TYPE_CHECKING:
    from engine.views import Usage


def reading(pid: int, own: float, *, ppid: int = 1, waited: float = 0.0, mb: int = 1) -> Reading:
    return Reading(ProcessId(pid, str(pid)), ppid, own, waited, mb << 20)


def usage(before: list[Reading], after: list[Reading], *, span: float = 2.0) -> Usage:
    former, latest = Sample(10.0, {"r": tuple(before)}), Sample(10.0 + span, {"r": tuple(after)})
    return usage_between(former, latest)["r"]


def test_a_first_look_knows_the_memory_but_no_share() -> None:
    (found,) = usage_between(Sample(), Sample(5.0, {"r": (reading(7, 3.0, mb=2),)})).values()
    assert (found.cpu, found.memory, found.processes) == (None, 2 << 20, 1)


def test_a_run_takes_what_all_of_its_processes_take() -> None:
    found = usage([reading(7, 3.0), reading(8, 1.0)], [reading(7, 4.0), reading(8, 1.5)])
    assert found.cpu == pytest.approx(75)
    assert (found.memory, found.processes) == (2 << 20, 2)


def test_a_child_that_was_new_counts_from_its_start() -> None:
    assert usage([reading(7, 1.0)], [reading(7, 1.0), reading(8, 1.0, ppid=7)]).cpu == 50


def test_what_a_child_had_used_before_it_ended_is_not_counted_again_with_its_parent() -> None:
    before = [reading(7, 0.0), reading(8, 100.0, ppid=7)]
    assert usage(before, [reading(7, 0.0, waited=101.0)]).cpu == 50


def test_short_lived_children_between_two_looks_are_counted_with_their_parent() -> None:
    assert usage([reading(7, 0.0)], [reading(7, 0.0, waited=4.0)]).cpu == 200


def test_a_child_that_nobody_waited_for_makes_no_share_negative() -> None:
    before = [reading(7, 5.0), reading(8, 100.0, ppid=1)]
    assert usage(before, [reading(7, 6.0)]).cpu == 50
    assert usage(before, [reading(7, 5.0)]).cpu == 0


def test_a_pid_that_was_given_to_another_is_another() -> None:
    other = Reading(ProcessId(7, "8"), 1, 1.0, 0.0, 0)
    assert usage([reading(7, 50.0)], [other]).cpu == 0


def test_a_process_that_has_only_the_pid_of_another_is_not_read() -> None:
    assert _read(ProcessId(os.getpid(), "1")) is None


def test_parents_come_before_their_children_and_orphans_on_their_own() -> None:
    tree = [
        reading(30, 0, ppid=20),
        reading(12, 0, ppid=10),
        reading(99, 0, ppid=1),
        reading(20, 0, ppid=10),
        reading(10, 0, ppid=4),
        reading(31, 0, ppid=20),
    ]
    assert [(depth, one.process.pid) for depth, one in in_order(tree)] == [
        (0, 10), (1, 12), (1, 20), (2, 30), (2, 31), (0, 99),
    ]  # fmt: skip
