"""Promises of the DAG file (DESIGN §6): its meaning, and every refusal with line and field."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dag import from_definition, load_dag, parse_dag, to_definition
from engine.errors import Problem, StorageError, ValidationError
from engine.model import AgentRule, Dag, TaskDef
from engine.parsing.cycles import find_cycles

if TYPE_CHECKING:
    from pathlib import Path


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ValidationError) as caught:
        parse_dag(text, "dag.yaml")
    assert str(caught.value).startswith("dag.yaml has ")
    return caught.value.problems


def payload_problem(payload: str) -> Problem:
    (problem,) = problems_of(f"- id: a\n  agent: codex\n  payload: {payload}\n")
    assert problem.line == 3
    return problem


EVERYTHING = """
x-note: kept and ignored
tasks:
  - id: "plan:ticketize"
    name: "Generate tickets"
    agent: codex
    deps: ["spec:write"]
    priority: -3
    timeout: 1.5
    retries: 2
    payload: {kind: shell, cmd: "echo hi", env: {A: b}, cwd: sub, x-why: because}
    x-owner: me
  - id: "spec:write"
defaults: {agent: claude, timeout: 600, retries: 1, priority: 7}
agents: {codex: {limit: 2, stagger: 60}, claude: {}, x-pool: nothing}
"""


def test_every_field_is_taken_and_defaults_fill_the_rest() -> None:
    payload = {
        "kind": "shell",
        "cmd": "echo hi",
        "env": {"A": "b"},
        "cwd": "sub",
        "x-why": "because",
    }
    assert parse_dag(EVERYTHING, "here") == Dag(
        tasks=(
            TaskDef(
                id="plan:ticketize",
                name="Generate tickets",
                agent="codex",
                deps=("spec:write",),
                priority=-3,
                timeout=1.5,
                retries=2,
                payload=payload,
            ),
            TaskDef("spec:write", "spec:write", "claude", (), 7, 600.0, 1, {"kind": "noop"}),
        ),
        agents={"codex": AgentRule(2, 60.0), "claude": AgentRule(None, 0.0)},
        source="here",
    )


def test_a_bare_list_is_a_dag_and_the_file_order_is_kept() -> None:
    dag = parse_dag(
        "- {id: b, agent: x, payload: {seconds: 1}}\n- {id: a, agent: x, deps: [b]}\n", ""
    )
    assert [task.id for task in dag.tasks] == ["b", "a"]
    assert dag.tasks[0] == TaskDef("b", "b", "x", (), 0, 3600.0, 0, {"kind": "noop", "seconds": 1})
    assert dag.agents == {}


def test_an_id_is_any_text_up_to_200_characters() -> None:
    for task_id in ("x" * 200, "../../etc/passwd", "a b", "日本 🎉", "yes!", "{line}", "-"):
        text = yaml.safe_dump([{"id": task_id, "agent": "x"}], allow_unicode=True)
        assert parse_dag(text, "").tasks[0].id == task_id


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("", 1, "", "must be a list of tasks, not nothing"),
        ("hello", 1, "", "must be a list of tasks, not 'hello'"),
        ("x-a: 1\n", 1, "", "has no tasks"),
        ("tasks:\n", 1, "tasks", "must be a list of tasks, not nothing"),
        ("tasks: {a: 1}\n", 1, "tasks", "must be a list of tasks, not a mapping"),
        ("tasks: []\ntaks: []\n", 2, "taks", "did you mean 'tasks'"),
        ("- {id: a, agent: x}\n- just text\n", 2, "[1]", "must be a mapping, not 'just text'"),
        ("tasks:\n- {agent: x}\n", 2, "tasks[0]", "has no id"),
        ("- {id: a}\n", 1, "[0]", "has no agent"),
        ("- {id: 1, agent: x}\n", 1, "[0].id", "must be text, not 1; put it in quotes"),
        ("- {id: , agent: x}\n", 1, "[0].id", "must be text, not nothing"),
        ("- {id: '', agent: x}\n", 1, "[0].id", "must not be empty"),
        (f"- {{id: {'x' * 201}, agent: x}}\n", 1, "[0].id", "at most 200 characters"),
        ('- {id: "a\\nb", agent: x}\n', 1, "[0].id", "U+000A"),
        ('- {id: "a\\x7Fb", agent: x}\n', 1, "[0].id", "U+007F"),
        ('- {id: "a\\x9Bb", agent: x}\n', 1, "[0].id", "U+009B"),
        ('- {id: "a\\0", agent: x}\n', 1, "[0].id", "U+0000"),
        ("- {id: a, agent: x, name: 3}\n", 1, "[0].name", "must be text"),
        (f"- {{id: a, agent: x, name: {'x' * 501}}}\n", 1, "[0].name", "at most 500"),
        ('- {id: a, agent: x, name: "\\e[2J"}\n', 1, "[0].name", "U+001B"),
        ("- {id: a, agent: a b}\n", 1, "[0].agent", "'a b' cannot name an agent"),
        ("- {id: a, agent: ..}\n", 1, "[0].agent", "cannot name an agent"),
        ("- {id: a, agent: '*'}\n", 1, "[0].agent", "cannot name an agent"),
        ("- {id: a, agent: é}\n", 1, "[0].agent", "cannot name an agent"),
        (f"- {{id: a, agent: {'x' * 65}}}\n", 1, "[0].agent", "1 to 64"),
        ("- {id: a, agent: 7}\n", 1, "[0].agent", "must be text, not 7"),
        ("- {id: a, agent: x, deps: b}\n", 1, "[0].deps", "must be a list, not 'b'"),
        ("- {id: a, agent: x, deps: [1]}\n", 1, "[0].deps[0]", "put it in quotes"),
        ("- id: a\n  agent: x\n  deps:\n  - b\n", 4, "[0].deps[0]", "there is no task 'b'"),
        ("- {id: a, agent: x, deps: [a]}\n", 1, "[0].deps[0]", "cannot depend on itself"),
        (
            "- {id: a, agent: x}\n- {id: b, agent: x, deps: [a, a]}\n",
            2,
            "[1].deps[1]",
            "already a dep",
        ),
        ("- {id: spec:a, agent: x, deps: [spce:a]}\n", 1, "[0].deps[0]", "did you mean 'spec:a'"),
        ("- {id: a, agent: x, priority: 1.5}\n", 1, "[0].priority", "must be a whole number"),
        ("- {id: a, agent: x, priority: true}\n", 1, "[0].priority", "must be a whole number"),
        ("- {id: a, agent: x, priority: 1000001}\n", 1, "[0].priority", "to 1,000,000"),
        ("- {id: a, agent: x, timeout: 0}\n", 1, "[0].timeout", "must be more than 0"),
        ("- {id: a, agent: x, timeout: 2592001}\n", 1, "[0].timeout", "must be at most 2,592,000"),
        ("- {id: a, agent: x, timeout: .nan}\n", 1, "[0].timeout", "not a finite number"),
        ("- {id: a, agent: x, timeout: 1h}\n", 1, "[0].timeout", "must be a number, not '1h'"),
        ("- {id: a, agent: x, retries: -1}\n", 1, "[0].retries", "from 0 to 1,000"),
        ("- {id: a, agent: x, retries: 1001}\n", 1, "[0].retries", "from 0 to 1,000"),
        ("- {id: a, agent: x, payload: noop}\n", 1, "[0].payload", "must be a mapping, not 'noop'"),
        ("- {id: a, agent: x, dep: []}\n", 1, "[0].dep", "did you mean 'deps'"),
        ("- {id: a, id: b, agent: x}\n", 1, "[0].id", "'id' is already set"),
        ("tasks: []\ndefaults: 3\n", 2, "defaults", "must be a mapping"),
        ("tasks: []\ndefaults: {id: x}\n", 2, "defaults.id", "unknown key"),
        ("tasks: []\ndefaults: {timeout: -1}\n", 2, "defaults.timeout", "more than 0"),
        ("tasks: []\nagents: [codex]\n", 2, "agents", "must be a mapping"),
        ("tasks: []\nagents: {a b: {}}\n", 2, "agents.'a b'", "cannot name an agent"),
        ("tasks: []\nagents: {x: 2}\n", 2, "agents.x", "must be a mapping"),
        ("tasks: []\nagents: {x: {limit: 0}}\n", 2, "agents.x.limit", "from 1 to"),
        ("tasks: []\nagents: {x: {limit: }}\n", 2, "agents.x.limit", "not nothing"),
        ("tasks: []\nagents: {x: {stagger: -1}}\n", 2, "agents.x.stagger", "at least 0"),
        ("tasks: []\nagents: {x: {limits: 1}}\n", 2, "agents.x.limits", "did you mean 'limit'"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_field(
    text: str, line: int, field: str, words: str
) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.field) == (line, field)
    assert words in problem.message


def test_a_duplicate_id_names_both_lines() -> None:
    (problem,) = problems_of("- {id: a, agent: x}\n\n- agent: x\n  id: a\n")
    assert (problem.line, problem.field) == (4, "[1].id")
    assert problem.message == "'a' is already the id of the task on line 1"


@pytest.mark.parametrize(
    ("payload", "field", "words"),
    [
        ("{kind: 3}", "kind", "must be text"),
        ("{kind: ''}", "kind", "must not be empty"),
        ("{seconds: -0.5}", "seconds", "at least 0"),
        ("{seconds: two}", "seconds", "must be a number"),
        ("{second: 2}", "second", "did you mean 'seconds'"),
        ("{fail_attempts: -1}", "fail_attempts", "from 0"),
        ("{fail_attempts: 1.0}", "fail_attempts", "whole number"),
        ("{kind: shell}", "", "has nothing to run"),
        ("{kind: shell, cmd: ls, argv: [ls]}", "argv", "keep one"),
        ("{kind: shell, cmd: [ls]}", "cmd", "must be text, not a list"),
        ("{kind: shell, cmd: ''}", "cmd", "must not be empty"),
        ("{kind: shell, cmd: '  '}", "cmd", "names no program"),
        ("{kind: shell, cmd: '\"\" x'}", "cmd", "names no program"),
        ("{kind: shell, cmd: 'echo \"x'}", "cmd", "cannot be split"),
        ("{kind: shell, cmd: 'echo x\\'}", "cmd", "cannot be split"),
        ('{kind: shell, cmd: "echo \\0"}', "cmd", "U+0000"),
        (f"{{kind: shell, cmd: {'x' * 100_001}}}", "cmd", "at most 100,000"),
        ("{kind: shell, argv: ls}", "argv", "must be a list"),
        ("{kind: shell, argv: []}", "argv", "must not be empty"),
        ("{kind: shell, argv: ['']}", "argv[0]", "must not be empty"),
        ("{kind: shell, argv: [sleep, 2]}", "argv[1]", "must be text, not 2; put it in quotes"),
        ('{kind: shell, argv: [echo, "\\0"]}', "argv[1]", "U+0000"),
        ("{kind: shell, cmd: ls, cwd: a, repoPath: b}", "repoPath", "another name for cwd"),
        ("{kind: shell, cmd: ls, cwd: 3}", "cwd", "must be text"),
        ("{kind: shell, cmd: ls, repoPath: ''}", "repoPath", "must not be empty"),
        ("{kind: shell, cmd: ls, env: [A]}", "env", "must be a mapping"),
        ("{kind: shell, cmd: ls, env: {A: 1}}", "env.A", "must be text, not 1"),
        ('{kind: shell, cmd: ls, env: {A: "\\0"}}', "env.A", "U+0000"),
        ("{kind: shell, cmd: ls, env: {A=B: x}}", "env.A=B", "cannot name an environment"),
        ("{kind: shell, cmd: ls, env: {AGENTMUX_RUN_ID: x}}", "env.AGENTMUX_RUN_ID", "is set by"),
        ("{kind: shell, cmd: ls, env: {LD_PRELOAD: x}}", "env.LD_PRELOAD", "may not be set"),
        ("{kind: shell, cmd: ls, env: {MY_API_KEY: x}}", "env.MY_API_KEY", "looks like a secret"),
        ("{kind: shell, cmd: ls, args: [x]}", "args", "did you mean 'argv'"),
        ('{kind: shell, cmd: ls, cwd: "{{deps.x.workspace}}"}', "cwd", "names no dep"),
        ('{kind: shell, cmd: ls, repoPath: "a/{{task.id}}"}', "repoPath", "only results of deps"),
    ],
)
def test_a_payload_of_a_known_kind_is_checked(payload: str, field: str, words: str) -> None:
    problem = payload_problem(payload)
    assert problem.field == "[0].payload" + "." * bool(field) + field
    assert words in problem.message


def test_a_payload_of_another_kind_passes_untouched() -> None:
    fields = "seconds: x, deep: [{a: [1, 2.5, ~, yes]}], when: 2026-01-01"
    dag = parse_dag(f"- {{id: a, agent: x, payload: {{kind: magic, {fields}}}}}", "")
    deep = [{"a": [1, 2.5, None, True]}]
    assert json.loads(json.dumps(dag.tasks[0].payload)) == {
        "kind": "magic", "seconds": "x", "deep": deep, "when": "2026-01-01",
    }  # fmt: skip


def test_everything_wrong_with_one_file_is_said_at_once_in_line_order() -> None:
    problems = problems_of("""\
tasks:
  - {id: a, agent: x, deps: [b]}
  - {id: b, agent: x, deps: [a, nope]}
  - {id: a, agent: y y}
  - id: 3
    tiemout: 3
    timeout: !foo 3
    payload: {kind: shell, env: {A: 1}}
  - no task
agents: {x: {limit: 0}}
""")
    assert [(problem.line, problem.field) for problem in problems] == [
        (2, "tasks[0].deps"),
        (3, "tasks[1].deps[1]"),
        (4, "tasks[2].agent"),
        (4, "tasks[2].id"),
        (5, "tasks[3].id"),
        (5, "tasks[3]"),
        (6, "tasks[3].tiemout"),
        (7, "tasks[3].timeout"),
        (8, "tasks[3].payload"),
        (8, "tasks[3].payload.env.A"),
        (9, "tasks[4]"),
        (10, "agents.x.limit"),
    ]


def test_a_problem_of_defaults_is_told_once_and_not_for_every_task() -> None:
    tasks = "".join(f"- {{id: t{n}}}\n" for n in range(5))
    (problem,) = problems_of(f"defaults: {{agent: '?', x-any: 1}}\ntasks:\n{tasks}")
    assert problem.field == "defaults.agent"


def test_a_cycle_is_printed_as_the_way_round() -> None:
    (problem,) = problems_of(
        "- {id: c, agent: x, deps: [a]}\n- {id: a, agent: x, deps: [b]}\n"
        "- {id: b, agent: x, deps: [c]}\n- {id: outside, agent: x, deps: [a]}\n"
    )
    assert (problem.line, problem.field) == (1, "[0].deps")
    assert problem.message.endswith(": c → a → b → c")


def test_each_knot_of_tasks_is_reported_with_one_cycle() -> None:
    problems = problems_of(
        "- {id: a, agent: x, deps: [b]}\n- {id: b, agent: x, deps: [a]}\n"
        "- {id: c, agent: x, deps: [d, a]}\n- {id: d, agent: x, deps: [c]}\n"
    )
    assert [problem.message.partition(": ")[2] for problem in problems] == [
        "a → b → a",
        "c → d → c",
    ]


def test_a_long_cycle_is_cut_in_the_middle() -> None:
    count = 5000
    tasks = "".join(f"- {{id: t{n}, agent: x, deps: [t{(n + 1) % count}]}}\n" for n in range(count))
    (problem,) = problems_of(tasks)
    assert "t0 → t1 → t2" in problem.message
    assert "4,989 more" in problem.message
    assert problem.message.endswith("→ t4999 → t0")


@pytest.mark.parametrize("closed", [False, True])
def test_a_chain_of_100000_tasks_needs_no_recursion(closed: bool) -> None:
    count = 100_000
    graph = [[node + 1] for node in range(count)]
    graph[-1] = [0] if closed else []
    cycles = find_cycles(graph)
    assert [len(cycle) for cycle in cycles] == ([count + 1] if closed else [])


GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, size - 1), max_size=size, unique=True), min_size=size, max_size=size
    )
)


@given(GRAPHS)
def test_a_cycle_is_found_in_each_knot_and_nowhere_else(graph: list[list[int]]) -> None:
    graph = [[target for target in targets if target != node] for node, targets in enumerate(graph)]
    reach = [set(targets) for targets in graph]
    for _ in graph:
        reach = [targets.union(*(reach[target] for target in targets)) for targets in reach]
    knots = {
        frozenset(other for other in reach[node] if node in reach[other])
        for node in range(len(graph))
        if node in reach[node]
    }
    cycles = find_cycles(graph)
    assert len(cycles) == len(knots)
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(after in graph[node] for node, after in itertools.pairwise(cycle))
        (knot,) = [knot for knot in knots if set(cycle) <= knot]
        assert cycle[0] == min(knot)


def test_one_task_with_many_deps_and_many_unknown_ones_is_not_slow() -> None:
    # 20,000 deps of one task: a search for each among those before it would take minutes.
    tasks = "".join(f"- {{id: t{n}, agent: x}}\n" for n in range(20_000))
    deps = ", ".join(f"t{n}" for n in range(20_000))
    dag = parse_dag(f"{tasks}- {{id: last, agent: x, deps: [{deps}]}}\n", "")
    assert len(dag.tasks[-1].deps) == 20_000
    problems = problems_of(f"- {{id: last, agent: x, deps: [{deps}]}}\n")
    assert str(problems[-1]) == "and 19,900 more"


NAMES = st.text("abcXYZ019._-", min_size=1, max_size=8).filter(lambda name: set(name) != {"."})
LINES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
TASKS = st.lists(
    st.fixed_dictionaries(
        {"id": LINES, "agent": NAMES},
        optional={
            "name": LINES,
            "priority": st.integers(-1_000_000, 1_000_000),
            "timeout": st.floats(0.1, 1e6),
            "retries": st.integers(0, 1000),
            "payload": st.fixed_dictionaries({"kind": st.just("other")}, optional={"a": LINES}),
        },
    ),
    max_size=6,
    unique_by=lambda task: str(task["id"]),
)


@given(TASKS)
@settings(deadline=None)
def test_a_task_survives_the_way_through_yaml_and_through_the_event_log(
    tasks: list[dict[str, Any]],
) -> None:
    for index, task in enumerate(tasks):
        task["deps"] = [other["id"] for other in tasks[index + 1 :]]
    dag = parse_dag(yaml.safe_dump(tasks, allow_unicode=True), "")
    for task, read in zip(tasks, dag.tasks, strict=True):
        definition = to_definition(read)
        assert {key: definition[key] for key in task} == task
        assert from_definition(json.loads(json.dumps(definition))) == read


@pytest.mark.parametrize("key", list(to_definition(TaskDef("a", "a", "x"))))
def test_a_damaged_definition_is_refused(key: str) -> None:
    for damage in ({key: object()}, {}):
        definition = to_definition(TaskDef("a", "a", "x"))
        del definition[key]
        with pytest.raises(ValidationError, match=f"damaged: {key}"):
            from_definition(definition | damage)


def test_a_file_that_is_not_there_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        load_dag(tmp_path / "none.yaml")
    assert str(tmp_path / "none.yaml") in str(caught.value)


def test_a_loaded_dag_remembers_its_file(tmp_path: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("- {id: a, agent: x}\n", encoding="utf-8")
    assert load_dag(path).source == str(path)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.sampled_from(["a", "b", "shell", "noop", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["id", "agent", "deps", "payload", "kind", "cmd", "env", "tasks", "timeout"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
@settings(deadline=None)
def test_no_shape_of_a_file_raises_anything_but_validation_error(value: object) -> None:
    for top in (
        value,
        [value],
        {"tasks": [value]},
        {"tasks": value, "agents": value, "defaults": value},
    ):
        with contextlib.suppress(ValidationError):
            parse_dag(yaml.safe_dump(top), "")
