"""What the README says of keys, settings, kinds and samples is what the code does."""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import yaml
from msgspec.structs import asdict, replace

from engine.api.app import make_app
from engine.cli.parser import parse
from engine.config import (
    AgentConfig,
    AlertsConfig,
    ApiConfig,
    Config,
    GithubConfig,
    Mailbox,
    McpServer,
    Prices,
    Probe,
    Recover,
    ScreenConfig,
    ServiceConfig,
    ShellConfig,
    WatchConfig,
    Webhook,
    WorktreeConfig,
    load_config,
)
from engine.dag import parse_dag
from tui.actions.table import ACTIONS, shown
from tui.keymap import read_settings

if TYPE_CHECKING:
    from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def key_table() -> str:
    """The README's key table, two actions a line."""
    cells = [
        f"{' '.join(f'`{shown(key)}`' for key in action.keys)} | {action.full_help}"
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


def settings_block() -> str:
    """Return the block of *Settings* with the defaults."""
    (block,) = [block for block in yaml_blocks() if block.startswith("lease:")]
    return block


def test_the_key_table_is_that_of_the_actions() -> None:
    assert section("keys") == key_table()


def test_the_example_dag_is_refused_only_for_the_dep_that_it_does_not_show() -> None:
    (example,) = [block for block in yaml_blocks() if "# or the bare list" in block]
    example = example.replace('deps: ["spec:write"]', "deps: []")
    dag = parse_dag(example, "README.md")
    assert dag.tasks[0].timeout == 3600
    assert dag.agents["codex"].limit == 2


def test_the_settings_shown_are_the_defaults() -> None:
    shown_settings = yaml.safe_load(settings_block())
    plain = {k: v for k, v in asdict(Config()).items() if isinstance(v, float)}
    switches = {k: v for k, v in asdict(ScreenConfig()).items() if k != "ascii"}
    assert shown_settings.pop("screen") == switches
    assert shown_settings.pop("keys")
    assert {k: v for k, v in shown_settings.items() if k != "shell"} == plain
    listed = re.search(r"replaces the default: ([a-z\s#]+)\n", settings_block())
    assert listed
    assert tuple(listed[1].replace("#", " ").split()) == ShellConfig().allow


def test_the_settings_shown_can_be_taken_as_they_are(tmp_path: Path) -> None:
    settings = tmp_path / "agentmux.yaml"
    settings.write_text(settings_block())
    assert read_settings(settings)[1].chosen["kill"] == ("X",)


@pytest.mark.parametrize(
    "beginning", ["agents:", "api:", "budget:", "github:", "mcp:", "services:", "watch:"]
)
def test_the_other_settings_shown_can_be_taken_as_they_are(tmp_path: Path, beginning: str) -> None:
    (block,) = [block for block in yaml_blocks() if block.startswith(beginning)]
    settings = tmp_path / "agentmux.yaml"
    settings.write_text(block)
    assert load_config(settings) != Config()


def test_settings_of_issues_and_worktrees_are_shown_with_their_defaults(tmp_path: Path) -> None:
    settings = tmp_path / "agentmux.yaml"
    for block in yaml_blocks():
        if not block.startswith(("budget:", "github:")):
            continue
        settings.write_text(block)
        config = load_config(settings)
        assert config.worktrees == WorktreeConfig()
        assert config.github in {None, GithubConfig("acme/site", "claude")}


def test_what_is_trouble_in_a_log_is_shown_as_it_is(tmp_path: Path) -> None:
    (block,) = [block for block in yaml_blocks() if block.startswith("watch:")]
    settings = tmp_path / "agentmux.yaml"
    settings.write_text(block)
    shown = load_config(settings).watch
    assert replace(shown, files=()) == WatchConfig()


def test_where_it_is_served_is_shown_as_it_is(tmp_path: Path) -> None:
    (block,) = [block for block in yaml_blocks() if block.startswith("api:")]
    settings = tmp_path / "agentmux.yaml"
    settings.write_text(block)
    assert replace(load_config(settings).api, hosts=()) == ApiConfig()


def test_every_path_that_is_served_is_told_with_what_it_takes() -> None:
    told = README[README.index("## Over HTTP") : README.index("## States")]
    paths = make_app(None).openapi()["paths"]  # type: ignore[arg-type]
    parts = {part for path in paths for part in path.split("/")[1:] if not part.startswith("{")}
    operations = [one for methods in paths.values() for one in methods.values()]
    takes = {
        taken["name"]
        for one in operations
        for taken in one.get("parameters", ())
        if taken["in"] != "path"
    }
    assert {part for part in parts if f"/{part}" not in told} == set()
    assert {name for name in takes if name not in told} == set()


SECTIONS: tuple[type[Struct], ...] = (
    Config, ShellConfig, AgentConfig, Prices, WorktreeConfig, McpServer, GithubConfig,
    ScreenConfig, WatchConfig, AlertsConfig, Mailbox, Webhook, ServiceConfig, Probe, Recover,
    ApiConfig,
)  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_there_is_is_told(section: type[Struct]) -> None:
    told = README[README.index("## Agents") : README.index("## States")]
    known = set(re.findall(r"(\w+):", told))
    assert [name for name in section.__struct_fields__ if name not in known] == []


def commands() -> list[str]:
    """Return all that the README says of `agentmux` that could be typed."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        *(line for line in lines if line.startswith("agentmux ")),
        *re.findall(r"`(agentmux [^`]+)`", README),
    ]


def test_every_command_shown_is_one() -> None:
    assert len(commands()) > 50
    for command in set(commands()) - {"agentmux worker"}:  # that is a name only
        words = shlex.split(command, comments=True)[1:]
        try:
            parse(words)
        except SystemExit:
            pytest.fail(command)


def test_the_dag_of_the_first_steps_is_one() -> None:
    (block,) = [block for block in yaml_blocks() if block.startswith("tasks:\n")]
    api, docs, tests = parse_dag(block, "README.md").tasks
    assert (api.agent, docs.agent) == ("claude", "codex")
    assert (tests.deps, tests.payload["cwd"]) == (("api",), "{{deps.api.workspace}}")


def test_the_example_of_agents_is_a_dag() -> None:
    (block,) = [block for block in yaml_blocks() if block.startswith("defaults:")]
    dag = parse_dag(block, "README.md")
    assert {task.payload["kind"] for task in dag.tasks} == {"agent"}
    assert all("workspace" in task.payload for task in dag.tasks)


def test_every_action_that_keys_can_name_is_named() -> None:
    assert re.findall(r"`(\w+)`", section("actions")) == [action.name for action in ACTIONS]


def test_every_sample_dag_is_named() -> None:
    names = {path.stem for path in (ROOT / "sample_dags").glob("*.yaml")}
    assert {name for name in names if f"`{name}`" not in README} == set()


def named_in(document: Path) -> set[str]:
    """Return the files and folders of the project that a document names."""
    text = re.sub(r"\]\([^)]*\)", "", document.read_text(encoding="utf-8"))
    found = re.findall(r"(?<![\w/.])(?:engine|tui|tests|sample_dags|styles)/[\w/.-]*\w", text)
    return set(found) - {"tests/engine"}  # which must not be there


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_what_a_document_names_of_the_project_is_there(document: Path) -> None:
    missing = [
        name
        for name in named_in(document)
        if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()
    ]
    assert missing == []


def rooms(house: str) -> list[list[str]]:
    """Return the rooms that ARCHITECTURE.md names, as many as share a line together."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    lines = re.findall(rf"^{house}/(.*?)  ", text, re.MULTILINE)
    return [[name.strip("/ ") for name in line.split(",")] for line in lines]


@pytest.mark.parametrize("house", ["engine", "tui"])
def test_every_room_of_the_house_has_its_line(house: str) -> None:
    named = {name for line in rooms(house) for name in line}
    modules = {path.stem for path in (ROOT / house).iterdir() if not path.name.startswith("_")}
    assert modules - {"sql", "py", "parsing"} - named == set()


def test_the_rooms_stand_in_the_order_in_which_imports_point_down() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract, *_ = project["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    rank = {name: number for number, layer in enumerate(layers) for name in layer}
    ranks = [rank[first] for first, *_ in rooms("engine")]
    assert ranks == sorted(ranks)


def test_every_local_link_leads_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        assert [to for to in links if not (document.parent / unquote(to)).exists()] == []
