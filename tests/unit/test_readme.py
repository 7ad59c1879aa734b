"""What the README says of keys, settings, kinds and samples is what the code does."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

import yaml
from msgspec.structs import asdict

from engine.config import Config, ScreenConfig, ShellConfig
from engine.dag import parse_dag
from tui.actions.table import ACTIONS, shown
from tui.keymap import read_settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def key_table() -> str:
    """The README's key table, two actions a line."""
    cells = [
        f"{' '.join(f'`{shown(key)}`' for key in action.keys)} | {action.help}"
        for action in ACTIONS
    ]
    half = (len(cells) + 1) // 2
    rows = [
        f"| {left} | {right or ' | '} |"
        for left, right in zip_longest(cells[:half], cells[half:], fillvalue="")
    ]
    return "\n".join(["| key | does | key | does |", "|---|---|---|---|", *rows])


def section(name: str) -> str:
    found = re.search(rf"<!-- {name}.*?-->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    assert found, f"the README has no section {name}"
    return found[1].strip()


def yaml_blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_the_key_table_is_that_of_the_actions() -> None:
    assert section("keys") == key_table()


def test_the_example_dag_is_refused_only_for_the_dep_that_it_does_not_show() -> None:
    example = yaml_blocks()[0].replace('deps: ["spec:write"]', "deps: []")
    dag = parse_dag(example, "README.md")
    assert dag.tasks[0].timeout == 3600
    assert dag.agents["codex"].limit == 2


def test_the_settings_shown_are_the_defaults() -> None:
    shown_settings = yaml.safe_load(yaml_blocks()[1])
    plain = {k: v for k, v in asdict(Config()).items() if k not in {"shell", "keys", "screen"}}
    switches = {k: v for k, v in asdict(ScreenConfig()).items() if k != "ascii"}
    assert shown_settings.pop("screen") == switches
    assert shown_settings.pop("keys")
    assert {k: v for k, v in shown_settings.items() if k != "shell"} == plain
    listed = re.search(r"replaces the default: ([a-z\s#]+)\n", yaml_blocks()[1])
    assert listed
    assert tuple(listed[1].replace("#", " ").split()) == ShellConfig().allow


def test_the_settings_shown_can_be_taken_as_they_are(tmp_path: Path) -> None:
    settings = tmp_path / "agentmux.yaml"
    settings.write_text(yaml_blocks()[1])
    assert read_settings(settings)[1].chosen["kill"] == ("X",)


def test_every_action_that_keys_can_name_is_named() -> None:
    assert re.findall(r"`(\w+)`", section("actions")) == [action.name for action in ACTIONS]


def test_every_sample_dag_is_named() -> None:
    names = {path.stem for path in (ROOT / "sample_dags").glob("*.yaml")}
    assert {name for name in names if f"`{name}`" not in README} == set()


def test_every_local_link_leads_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        assert [to for to in links if not (document.parent / unquote(to)).exists()] == []
