"""Promises of the YAML reader: the values of SafeLoader, and a refusal for everything else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Problem, StorageError, ValidationError
from engine.parsing import yamlfile
from engine.parsing.checks import Findings
from engine.parsing.yamlfile import LARGEST_FILE, parse_yaml, read_text

if TYPE_CHECKING:
    from pathlib import Path


def value_of(text: str) -> object:
    document = parse_yaml(text, "x.yaml")
    document.refuse(Findings())
    return document.value


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ValidationError) as caught:
        value_of(text)
    assert str(caught.value).startswith("x.yaml has ")
    return caught.value.problems


def only_problem(text: str) -> Problem:
    (problem,) = problems_of(text)
    return problem


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(
        ["1", "0x1F", "yes", "~", "null", "1_000", "1:30", "2026-01-01", "<<", "=", "1e3"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)


@given(VALUES, st.sampled_from([None, True, False]))
@settings(deadline=None)
def test_what_safe_dump_writes_is_read_as_safe_loader_reads_it(
    value: object, flow: bool | None
) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    read = value_of(text)
    assert read == yaml.safe_load(text)
    assert repr(read) == repr(yaml.safe_load(text))  # 1 is not True, nor 1.0


PLAIN = """1 -1 +1 0 0o7 017 0b101 0x1f 1_000 -0x1F 190:20:30 1.5 -1.5 .5 1. 1.5e+3 1e3 1.5e3
    190:20:30.15 +.5 1_0.5 yes Yes YES yES no on off true True TRUE false y n ~ null Null NULL nULL
    text -x .x '1' "1" 'yes' "~" '' "" 08 0b2 0x 12e03 -- 1.2.3 127.0.0.1 1,2"""
TAGGED = (
    "!!str 1",
    "!!int '3'",
    "!!float 3",
    "!!bool 'yes'",
    "!!null ~",
    "! 1",
    "!!str",
    "! {a: 1}",
)


@pytest.mark.parametrize("scalar", [*PLAIN.split(), *TAGGED])
def test_a_scalar_means_what_it_means_to_safe_loader(scalar: str) -> None:
    text = f"k: {scalar}\n"
    assert repr(value_of(text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize("moment", ["2026-01-31", "2026-01-31T10:00:00Z", "2026-01-31 10:00:00"])
def test_a_date_stays_text_because_json_has_none(moment: str) -> None:
    assert value_of(f"k: {moment}") == {"k": moment}


@pytest.mark.parametrize(
    "text",
    [
        "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3, z: 4}",
        "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nuse: {<<: [*a, *b], z: 1}",
        "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nuse: {<<: *b}",
        "a: &a [1, 2]\nb: *a\nc: [*a, *a]",
        "&k key: 1\nother: *k",
        "'<<': {x: 1}",
    ],
)
def test_aliases_and_merge_keys_mean_what_they_mean_to_safe_loader(text: str) -> None:
    assert value_of(text) == yaml.safe_load(text)


def test_an_anchor_may_be_set_again() -> None:
    assert value_of("a: &x 1\nb: *x\nc: &x 2\nd: *x") == {"a": 1, "b": 1, "c": 2, "d": 2}


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "---\n...\n", "~"])
def test_an_empty_text_is_none(text: str) -> None:
    assert value_of(text) is None


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert value_of(read_text(path)) == {"a": 1}
    assert value_of("\ufeffa: 1") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "b.c", "'c' is already set"),
        ("a:\n- x: 1\n- x: 1\n  'x': 2\n", 4, "a[1].x", "already set"),
        ("a: 1\n1: x\n", 2, "?", 'put it in quotes: "1"'),
        ("a: 1\nyes: x\n", 2, "?", "a key must be text, not true"),
        ("? [a, b]\n: x\n", 1, "?", "a key must be text, not a list"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "b", "python/object:os.system"),
        ("a: !foo 1\n", 1, "a", "'!foo'"),
        ("a: !!binary aGk=\n", 1, "a", "'!!binary'"),
        ("a: !!set {x}\n", 1, "a", "'!!set'"),
        ("a: !!int x\n", 1, "a", "is no !!int"),
        ("a: [1, .nan]\n", 1, "a[1]", "not a finite number"),
        ("a: -.inf\n", 1, "a", "not a finite number"),
        (f"a: {'9' * 400}.5\n", 1, "a", "too long for a number"),
        (f"a: {'9' * 399}.\n", 1, "a", "not a finite number"),
        ("a: 9223372036854775808\n", 1, "a", "too large for a whole number"),
        (f"a: 0x{'f' * 300}\n", 1, "a", "too large for a whole number"),
        (f"a: 1{':1' * 5000}\n", 1, "a", "too long for a number"),
        ("a: *nope\n", 1, "a", "*nope is used before any &nope"),
        ("a: &a [1, *a]\n", 1, "a[1]", "*a stands inside itself"),
        ("a: &a\n  <<: *a\n", 2, "a.<<", "*a stands inside itself"),
        ("a: {<<: 1}\n", 1, "a.<<", "<< takes a mapping"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", 2, "b.<<", "use a list"),
        ("a: 1\n---\nb: 1\n", 2, "", "a second document"),
        (
            "a: 1\nb: [1,\nc: 2\n",
            4,
            "",
            "not valid YAML: while parsing a flow sequence that begins on line 2",
        ),
        ("a: 1\n\tb: 2\n", 2, "", "not valid YAML"),
        ("a: 1\nb: c: d\n", 2, "", "not valid YAML"),
        ("a: 1\nb: \x00\n", 2, "", "(U+0000)"),
        ("a: 1\n\nb: \x1b[2J\n", 3, "", "(U+001B)"),
        ("a: \ud800\n", 1, "", "(U+D800)"),
        ("[" * 101 + "]" * 101, 1, "[0]" * 100, "nested more than 100 levels"),
        ("[" * 100_000, 1, "[0]" * 100, "nested more than 100 levels"),
        ("{a: " * 5_000, 1, ".".join("a" * 100), "nested more than 100 levels"),
    ],
)
def test_what_a_file_must_not_hold_is_refused_with_its_line_and_field(
    text: str, line: int, field: str, words: str
) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.field) == (line, field)
    assert words in problem.message


def test_a_hundred_levels_are_not_too_deep() -> None:
    value: Any = value_of("[" * 100 + "]" * 100)
    for _ in range(99):
        (value,) = value
    assert value == []


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    levels = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    problem = only_problem("\n".join(levels))
    assert "aliases" in problem.message
    assert problem.line < 10


def test_one_long_text_behind_many_aliases_is_a_bomb_too() -> None:
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]"
    assert "aliases" in only_problem(text).message


def test_a_merge_bomb_is_refused() -> None:
    keys = ", ".join(f"k{n}: {n}" for n in range(2000))
    uses = "\n".join(f"u{n}: {{<<: *a}}" for n in range(20_000))
    assert "aliases" in only_problem(f"a: &a {{{keys}}}\n{uses}").message


def test_ten_thousand_tasks_may_share_one_anchor() -> None:
    uses = "\n".join(f"- {{<<: *base, id: t{n}}}" for n in range(10_000))
    value: Any = value_of(f"- &base {{agent: codex, timeout: 60, payload: {{seconds: 1}}}}\n{uses}")
    assert value[-1] == {"agent": "codex", "timeout": 60, "payload": {"seconds": 1}, "id": "t9999"}


def test_all_problems_are_reported_at_once_in_line_order() -> None:
    problems = problems_of("a: !x 1\nb: .nan\na: 2\n3: 4\nc: *d\n")
    assert [problem.line for problem in problems] == [1, 2, 3, 4, 5]


def test_a_value_that_the_reader_refused_is_no_second_problem() -> None:
    document = parse_yaml("a: .nan\nb: x\n", "x.yaml")
    findings = Findings()
    findings.add(("a",), "must be a number, not nothing")
    findings.add(("b",), "must be a number, not 'x'")
    with pytest.raises(ValidationError) as caught:
        document.refuse(findings)
    assert [problem.line for problem in caught.value.problems] == [1, 2]


def test_a_long_list_of_problems_is_cut_and_the_rest_counted() -> None:
    text = "".join(f"{n}: x\n" for n in range(250))
    problems = problems_of(text)
    assert len(problems) == 101
    assert str(problems[-1]) == "and 150 more"


def test_a_finding_in_an_aliased_value_has_the_line_where_the_alias_stands() -> None:
    document = parse_yaml("a: &a\n  x: {y: 1}\nb:\n  c: *a\n", "x.yaml")
    findings = Findings()
    findings.add(("a", "x", "y"), "direct")
    findings.add(("b", "c", "x", "y"), "through the alias")
    with pytest.raises(ValidationError) as caught:
        document.refuse(findings)
    assert [(p.line, p.field) for p in caught.value.problems] == [(2, "a.x.y"), (4, "b.c.x.y")]


def test_an_odd_key_cannot_break_the_line_of_its_problem() -> None:
    problem = only_problem('"a\\nb\\e[2J": {1: 2}\n')
    assert "\n" not in str(problem)
    assert "\x1b" not in str(problem)


def test_an_error_names_the_file_first(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"^my\.yaml has 1 problem; nothing was changed:\n"):
        parse_yaml("a: [", "my.yaml")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.yaml")


def test_what_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ValidationError) as caught:
        read_text(path)
    assert caught.value.problems == (Problem(2, "", "is not UTF-8 (byte 0xFF)"),)


def test_a_file_over_64_mib_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(100 * LARGEST_FILE)  # sparse: reading it would fill the memory
    with pytest.raises(ValidationError, match="larger than 64 MiB"):
        read_text(path)


def test_a_text_over_64_mib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "LARGEST_FILE", 10)
    with pytest.raises(ValidationError, match="larger than"):
        parse_yaml("ab: éééé", "x.yaml")


@pytest.mark.parametrize("what", ["folder", "pipe", "below a file", "forbidden"])
def test_what_cannot_be_read_is_a_storage_error_that_names_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.yaml"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "below a file":
        path.touch()
        path = path / "y.yaml"
    elif os.geteuid() == 0:
        pytest.skip("root may read everything")
    else:
        path.touch(mode=0o000)
    with pytest.raises(StorageError) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


@given(st.text(max_size=80) | st.text("-?:[]{}&*!|>'\"%@`#, \n\t<=ab1~.\\", max_size=80))
@settings(deadline=None)
def test_no_text_raises_anything_but_validation_error(text: str) -> None:
    with contextlib.suppress(ValidationError):
        value_of(text)


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_no_file_raises_anything_but_validation_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ValidationError):
        value_of(read_text(path))


def test_without_the_c_parser_the_same_is_read_and_refused() -> None:
    # A fresh interpreter in which PyYAML cannot find its C half.
    script = """
import sys
sys.modules["yaml._yaml"] = None
import yaml
assert not yaml.__with_libyaml__
from engine.errors import ValidationError
from engine.parsing.checks import Findings
from engine.parsing.yamlfile import parse_yaml
def read(text):
    document = parse_yaml(text, "x.yaml")
    document.refuse(Findings())
    return document.value
assert read("a: &a {b: [1, 0x1f, 'x', yes]}\\nc: {<<: *a}\\n")["c"] == {"b": [1, 31, "x", True]}
for bad in ("a: 1\\na: 2", "[" * 5000, "a: [", "a: \\x00", 'a: "\\\\ud800"', "a: *b", "a: !x 1"):
    try:
        read(bad)
    except ValidationError as error:
        print(error.problems[0].line)
    else:
        raise SystemExit(f"{bad[:20]!r} was taken")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["2", "1", "1", "1", "1", "1", "1"]
