"""Promises of the holes in a prompt: what they name, what they get, what is left alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.patience import PATIENCE

from engine.parsing.prompts import TASK_FIELDS, Unfilled, fill, fill_folder, find_faults

TASK = {"id": "impl:1", "name": "Step 1", "attempt": 2}
RESULTS: dict[str, dict[str, Any] | None] = {
    "spec": {"text": "the plan", "branch": "agentmux/spec/1", "files": ["a", "b"]},
    "spec.v2": {"stdout": "newer"},
    "bare": {"exitCode": 0},
    "none": None,
}


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("do {{task.name}} ({{ task.attempt }})", "do Step 1 (2)"),
        ("{{deps.spec}}", "the plan"),
        ("{{deps.spec.branch}}", "agentmux/spec/1"),
        ("{{deps.spec.files}}", '["a", "b"]'),
        ("{{deps.spec.nothing.at.all}}", ""),
        ("{{deps.spec.v2}}", "newer"),
        ("{{deps.bare}}", '{"exitCode": 0}'),
        ("{{deps.none}}", ""),
        ("no holes {} {x} ${{ github.ref }} {{ user }}", None),
        ("{{task.name", None),
    ],
)
def test_holes_get_what_they_name_and_the_rest_stays(prompt: str, filled: str | None) -> None:
    assert fill(prompt, TASK, RESULTS) == (prompt if filled is None else filled)


def test_what_fills_a_hole_is_no_template_itself() -> None:
    assert fill("{{deps.a}}", TASK, {"a": {"text": "{{task.id}}"}}) == "{{task.id}}"


def test_what_a_hole_cannot_name_is_told_with_what_it_can() -> None:
    faults = list(find_faults("{{task.nme}} {{deps.spek}} {{task.id}} {{deps.spec.x}}", ["spec"]))
    assert faults == [
        f"{{{{task.nme}}}} names no field of a task; there are {', '.join(TASK_FIELDS)}",
        "{{deps.spek}} names no dep of this task; its deps are spec",
    ]
    assert list(find_faults("{{deps.a}}", [])) == [
        "{{deps.a}} names no dep of this task; it has no deps"
    ]


def test_what_fills_a_hole_is_no_command_of_a_cli_but_what_its_author_wrote_is() -> None:
    results = {"a": {"text": "/help me"}}
    assert fill("{{deps.a}}!", TASK, results) == "\n/help me!"
    assert fill("See {{deps.a}}", TASK, results) == "See /help me"
    assert fill("/review {{deps.a}}", TASK, results) == "/review /help me"


def test_what_fills_a_hole_can_be_made_plain_and_nothing_else_is() -> None:
    results = {"a": {"text": "ask @bob"}}
    filled = fill("@alice, {{deps.a}}", TASK, results, plain=lambda text: text.replace("@", "(at)"))
    assert filled == "@alice, ask (at)bob"


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        ("{{deps.spec.branch}}/src", "agentmux/spec/1/src"),
        ("{{ deps.place }}", "/somewhere"),
        ("no/{{holes}}", "no/{{holes}}"),
    ],
)
def test_a_folder_gets_what_its_holes_name_as_it_is(path: str, filled: str) -> None:
    assert fill_folder(path, {**RESULTS, "place": {"text": "/somewhere"}}) == filled


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("{{deps.spec.workspace}}", "{{deps.spec.workspace}} is no text in the result of spec, "),
        ("{{deps.spec.workspace}}", ", which has text, branch"),
        ("{{deps.spec.files}}", "is no text in the result of spec"),
        ("{{deps.bare}}", "is no text in the result of bare, which has none at all"),
        ("{{deps.none.workspace}}", "stands for nothing, for there is no result of none"),
        ("{{deps.other.workspace}}", "names no dep of this task"),
    ],
)
def test_a_folder_whose_hole_stands_for_nothing_is_none(path: str, why: str) -> None:
    with pytest.raises(Unfilled) as told:
        fill_folder(f"a/{path}", RESULTS)
    assert why in str(told.value)


@pytest.mark.parametrize("prompt", ["{{task." + " " * 300_000, "{{deps.x" + " " * 300_000 + "}"])
def test_no_prompt_takes_long_to_look_through(prompt: str) -> None:
    began = time.perf_counter()
    assert fill(prompt, TASK, RESULTS) == prompt
    assert list(find_faults(prompt, ["x"])) == []
    assert time.perf_counter() - began < PATIENCE
