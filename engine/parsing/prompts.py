"""Texts with holes in them: `{{task.name}}`, `{{deps.spec:write}}`, `{{deps.spec:write.branch}}`.

A prompt has holes of both kinds, a folder those of deps alone. What stands in double braces and
begins with neither `task.` nor `deps.` is the text's own (templates of other programs), and stays
as it is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

# Nothing in here can match in two ways: a prompt may be a stranger's text, and a megabyte of it.
_HOLE = re.compile(r"\{\{\s*(task|deps)\.([^{}]+)\}\}")
TASK_FIELDS = ("id", "name", "agent", "attempt", "priority", "timeout", "branch", "base")
"""What of a task can be named; `branch` and `base` are those of the run's worktree."""
_TEXT = ("text", "stdout")
"""What of a result is its text, for a hole that names the dep alone."""
_MOST_NAMES = 20
_COMMAND = "/"
"""What a prompt begins with that is a command to CLIs."""


class Unfilled(Exception):  # noqa: N818 - it is what became of a hole; its caller says what to do
    """A hole stands for nothing; the text says which one, and what there would be."""


def has_holes(text: str) -> bool:
    """Say whether something is to be filled into a text."""
    return _HOLE.search(text) is not None


def find_faults(
    text: str, deps: Collection[str], fields: Collection[str] = TASK_FIELDS
) -> Iterator[str]:
    """Yield what is wrong with the holes of a text: deps that are none, and unknown `fields`.

    `fields` are those that may stand there: of its task a prompt may name all, a folder none.
    """
    for hole in _HOLE.finditer(text):
        kind, name = hole[1], hole[2].rstrip()
        if kind == "task" and not fields:
            yield f"{hole[0]} cannot stand here: only results of deps can, as {{{{deps.ID.field}}}}"
        elif kind == "task" and name not in fields:
            yield f"{hole[0]} names no field of a task; there are {', '.join(fields)}"
        elif kind == "deps" and _dep_of(name, deps) is None:
            known = f"; its deps are {', '.join(deps)}" if deps else "; it has no deps"
            yield f"{hole[0]} names no dep of this task{known}"


def fill(
    prompt: str,
    task: Mapping[str, object],
    results: Mapping[str, Mapping[str, Any] | None],
    *,
    plain: Callable[[str], str] = str,
) -> str:
    """Return the prompt with its holes filled. `results` are those of the deps, by id.

    A hole that names a dep alone gets the text of its result, or all of it as JSON; what a result
    does not have becomes nothing. What comes in is text and no more: no template that would be
    filled again, and no command, though it may stand where a command would (a line end is put
    before it then). `plain` makes of it what has no other meaning to a CLI.
    """

    def filling(hole: re.Match[str]) -> str:
        kind, name = hole[1], hole[2].rstrip()
        if kind == "task":
            return str(task[name]) if name in task else hole[0]
        dep = _dep_of(name, results)
        if dep is None:
            return hole[0]
        return plain(_show(results[dep], name[len(dep) + 1 :]))

    filled = _HOLE.sub(filling, prompt)
    became = filled.startswith(_COMMAND) and not prompt.startswith(_COMMAND)
    return f"\n{filled}" if became else filled


def fill_folder(path: str, results: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return a path with its holes filled from the results of deps, by id.

    Unlike a prompt it is worth nothing without what they stand for: text that is not empty.

    Raises:
        Unfilled: a hole has no such text.

    """

    def filling(hole: re.Match[str]) -> str:
        name = hole[2].rstrip()
        dep = _dep_of(name, results) if hole[1] == "deps" else None
        if dep is None:
            raise Unfilled(f"{hole[0]} names no dep of this task")
        result = results[dep]
        value = _value(result, name[len(dep) + 1 :])
        if isinstance(value, str) and value:
            return value
        if not result:
            raise Unfilled(f"{hole[0]} stands for nothing, for there is no result of {dep}")
        raise Unfilled(f"{hole[0]} is no text in the result of {dep}, which has {_names(result)}")

    return _HOLE.sub(filling, path)


def _names(result: Mapping[str, Any]) -> str:
    names = [name for name, value in result.items() if isinstance(value, str) and value]
    return ", ".join(names[:_MOST_NAMES]) or "none at all"


def _dep_of(name: str, deps: Collection[str]) -> str | None:
    """Return the dep that a hole names: itself, or with the way into its result after a dot."""
    fitting = [dep for dep in deps if name == dep or name.startswith(f"{dep}.")]
    return max(fitting, key=len, default=None)


def _show(result: object, way: str) -> str:
    value = _value(result, way)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(value: object, way: str) -> object:
    """Return what a way leads to in a result, None for nothing; without one its text, or all."""
    if not way and isinstance(value, dict):
        return next((value[key] for key in _TEXT if isinstance(value.get(key), str)), value)
    for step in way.split(".") if way else ():
        value = value.get(step) if isinstance(value, dict) else None
    return value
