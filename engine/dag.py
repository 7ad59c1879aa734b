"""Reads a DAG file: from YAML to a validated Dag, or to every problem of the file at once.

The rules are those of DESIGN §6. It knows nothing of the store: what seeding changes is
decided there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from engine.errors import StorageError, ValidationError
from engine.model import AgentRule, Dag, TaskDef
from engine.parsing.checks import (
    DAY,
    Findings,
    closest,
    line_of_text,
    mapping,
    name_of,
    number,
    sequence,
    show,
    whole,
)
from engine.parsing.cycles import find_cycles
from engine.parsing.payloads import (
    DEFAULT_KIND,
    check_payload,
    check_workspace,
    normal_payload,
)
from engine.parsing.yamlfile import parse_yaml, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.parsing.checks import Check, Place

_AGENT = name_of("an agent")
_TEXT = line_of_text(longest=200)
_DEFAULTS: Mapping[str, Check] = {
    "agent": _AGENT,
    "priority": whole(low=-1_000_000, high=1_000_000),
    "timeout": number(above=0, high=30 * DAY),
    "retries": whole(low=0, high=1000),
}
_FILE_DEFAULTS: Mapping[str, Check] = {**_DEFAULTS, "workspace": lambda _value: None}
_TASK: Mapping[str, Check] = {
    "id": _TEXT,
    "name": line_of_text(longest=500),
    "deps": sequence,
    "payload": mapping,
    **_DEFAULTS,
}
_RULE: Mapping[str, Check] = {
    "limit": whole(low=1, high=1_000_000),
    "stagger": number(low=0, high=30 * DAY),
}
_NOOP: Mapping[str, Any] = {"kind": DEFAULT_KIND}
_TOP = ("agents", "defaults", "tasks")

_MOST_HINTS = 10
_MOST_IDS_FOR_HINTS = 2_000
"""Looking for a similar id costs time for each id there is."""
_LONGEST_WAY = 12
"""Ids of a cycle that are printed before it is cut in the middle."""


def load_dag(path: Path) -> Dag:
    """Read and validate a DAG file.

    Raises:
        ValidationError: with every problem of the file, each with line and field.
        StorageError: the file is not there or cannot be read.

    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise StorageError(f"there is no DAG file {path}; check the path") from error
    return parse_dag(text, str(path))


def parse_dag(text: str, source: str) -> Dag:
    """Validate a DAG. `source` names it in errors and in the result.

    Raises:
        ValidationError: with every problem of the text, each with line and field.

    """
    document = parse_yaml(text, source)
    reader = _Reader()
    dag = reader.read(document.value, source)
    document.refuse(reader.findings)
    return dag


def to_definition(task: TaskDef) -> dict[str, Any]:
    """Write a task as the JSON object that TASK_CREATED carries."""
    return {
        "id": task.id,
        "name": task.name,
        "agent": task.agent,
        "deps": list(task.deps),
        "priority": task.priority,
        "timeout": task.timeout,
        "retries": task.retries,
        "payload": dict(task.payload),
    }


_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "id": str,
    "name": str,
    "agent": str,
    "deps": list,
    "priority": int,
    "timeout": (int, float),
    "retries": int,
    "payload": dict,
}


def from_definition(data: Mapping[str, Any]) -> TaskDef:
    """Read what `to_definition` wrote. Only shapes are checked: limits may have changed since.

    Raises:
        ValidationError: the object is not a task's definition.

    """
    for key, shape in _SHAPE.items():
        if not isinstance(data.get(key), shape):
            raise ValidationError(
                f"a stored task definition is damaged: {key} is {show(data.get(key))}"
            )
    return TaskDef(
        id=data["id"],
        name=data["name"],
        agent=data["agent"],
        deps=tuple(data["deps"]),
        priority=data["priority"],
        timeout=float(data["timeout"]),
        retries=data["retries"],
        payload=data["payload"],
    )


class _Reader:
    """One reading of one file. Goes on after every fault; what it returns then is not used."""

    def __init__(self) -> None:
        self.findings = Findings()
        self._defaults: dict[str, Any] = {}
        self._top: Place = ()
        self._index: dict[str, int] = {}
        self._hints = 0

    def read(self, value: object, source: str) -> Dag:
        agents: dict[str, AgentRule] = {}
        if isinstance(value, dict):
            self._top = ("tasks",)
            self.findings.check_keys(value, _TOP, ())
            if "defaults" in value:
                self._read_defaults(value["defaults"])
            if "agents" in value:
                agents = self._read_agents(value["agents"])
            if "tasks" not in value:
                self.findings.add((), "has no tasks; give a list under `tasks:`")
                return Dag((), agents, source)
            value = value["tasks"]
        if not isinstance(value, list):
            self.findings.add(self._top, f"must be a list of tasks, not {show(value)}")
            return Dag((), agents, source)
        tasks = [self._read_task(index, item) for index, item in enumerate(value)]
        deps = [item.get("deps", ()) if isinstance(item, dict) else () for item in value]
        self._check_deps(deps)
        return Dag(tuple(task for task in tasks if task), agents, source)

    def _read_defaults(self, value: object) -> None:
        if self.findings.check(value, mapping, ("defaults",)):
            defaults = cast("dict[str, Any]", value)
            self.findings.check_fields(defaults, _FILE_DEFAULTS, ("defaults",))
            if "workspace" in defaults:
                check_workspace(defaults["workspace"], ("defaults", "workspace"), self.findings)
            self._defaults = defaults

    def _read_agents(self, value: object) -> dict[str, AgentRule]:
        rules: dict[str, AgentRule] = {}
        if not self.findings.check(value, mapping, ("agents",)):
            return rules
        for name, rule in cast("dict[str, Any]", value).items():
            place = ("agents", name)
            if name.startswith("x-"):
                continue
            self.findings.check(name, _AGENT, place)
            if not self.findings.check(rule, mapping, place):
                continue
            self.findings.check_fields(rule, _RULE, place)
            if not self.findings.items:
                rules[name] = AgentRule(rule.get("limit"), float(rule.get("stagger", 0)))
        return rules

    def _read_task(self, index: int, value: object) -> TaskDef | None:
        place = (*self._top, index)
        if not isinstance(value, dict):
            self.findings.add(place, f"a task must be a mapping, not {show(value)}")
            return None
        self.findings.check_fields(value, _TASK, place)
        if "id" not in value:
            self.findings.add(place, "has no id")
        elif isinstance(value["id"], str):
            self._note_id(value["id"], index)
        if "agent" not in value and "agent" not in self._defaults:
            self.findings.add(place, "has no agent; name one here or under `defaults:`")
        payload = value.get("payload")
        if isinstance(payload, dict):
            deps = value.get("deps")
            named = [dep for dep in deps if isinstance(dep, str)] if isinstance(deps, list) else []
            check_payload(payload, (*place, "payload"), self.findings, named)
        # Once anything is wrong the tasks are not wanted, and their values not to be trusted.
        return None if self.findings.items else self._make(value)

    def _note_id(self, task_id: str, index: int) -> None:
        first = self._index.setdefault(task_id, index)
        if first != index:
            self.findings.add(
                (*self._top, index, "id"),
                f"{show(task_id)} is already the id of the task on line",
                (*self._top, first, "id"),
            )

    def _make(self, value: Mapping[str, Any]) -> TaskDef:
        merged = {**self._defaults, **value} if self._defaults else value
        payload = merged.get("payload", _NOOP)
        if "kind" not in payload:
            payload = {**_NOOP, **payload}
        return TaskDef(
            id=merged["id"],
            name=merged.get("name", merged["id"]),
            agent=merged["agent"],
            deps=tuple(merged.get("deps", ())),
            priority=merged.get("priority", 0),
            timeout=float(merged.get("timeout", 3600.0)),
            retries=merged.get("retries", 0),
            payload=normal_payload(payload, self._defaults),
        )

    def _check_deps(self, all_deps: list[object]) -> None:
        """Check that every dep is there, once, and that no task waits for itself."""
        graph = [
            self._targets(index, deps) if deps and isinstance(deps, list) else []
            for index, deps in enumerate(all_deps)
        ]
        # A file in which every task stands below its deps holds no cycle.
        if all(target < index for index, targets in enumerate(graph) for target in targets):
            return
        ids = {index: task_id for task_id, index in self._index.items()}
        for cycle in find_cycles(graph):
            way = _write_way([ids[index] for index in cycle])
            self.findings.add((*self._top, cycle[0], "deps"), f"the deps run in a circle: {way}")

    def _targets(self, index: int, deps: list[object]) -> list[int]:
        """Return the numbers of the tasks that the deps of a task name."""
        targets: dict[int, None] = {}
        for at, dep in enumerate(deps):
            target = self._index.get(dep) if isinstance(dep, str) else None
            if target is None or target == index or target in targets:
                self._refuse_dep(dep, target, (*self._top, index, "deps", at), index)
            else:
                targets[target] = None
        return list(targets)

    def _refuse_dep(self, dep: object, target: int | None, place: Place, index: int) -> None:
        if not isinstance(dep, str):
            self.findings.check(dep, _TEXT, place)
        elif target is None:
            self.findings.add(place, f"there is no task {show(dep)}{self._similar(dep)}")
        elif target == index:
            self.findings.add(place, "a task cannot depend on itself")
        else:
            self.findings.add(place, f"{show(dep)} is already a dep of this task; remove one")

    def _similar(self, dep: str) -> str:
        self._hints += 1
        if self._hints > _MOST_HINTS or len(self._index) > _MOST_IDS_FOR_HINTS:
            return ""
        close = closest(dep, self._index)
        return "" if close is None else f"; did you mean {show(close)}?"


def _write_way(ids: list[str]) -> str:
    words = [word if word.isprintable() and len(word) <= 200 else show(word) for word in ids]
    if len(words) > _LONGEST_WAY:
        half = _LONGEST_WAY // 2
        words[half:-half] = [f"… {len(words) - 2 * half:,} more …"]
    return " → ".join(words)
