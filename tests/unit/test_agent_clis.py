"""Promises about how the CLIs of agents are called, and what is seen of their logins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.agents.clis import (
    KNOWN,
    LONGEST_ARGUMENT,
    Cli,
    cli_for,
    command_line,
    environment,
    missing_login,
    plain_text,
)
from engine.config.settings import AgentConfig
from engine.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKSPACE, GITDIR = Path("/w/tree"), Path("/w/repo/.git")


def line(cli: Cli | None, prompt: str = "Do it.", model: str | None = None) -> tuple[str, ...]:
    assert cli is not None
    places = {"workspace": WORKSPACE, "gitdir": GITDIR, "admin": GITDIR / "worktrees/1"}
    return command_line(cli, prompt=prompt, model=model, **places)


def test_the_built_in_commands() -> None:
    assert " ".join(line(KNOWN["claude"])) == (
        "claude -p --output-format stream-json --verbose --permission-mode acceptEdits"
        " --allowedTools Bash(git add *),Bash(git commit *),Bash(git status *),Bash(git diff *),"
        "Bash(git log *)"
    )
    assert " ".join(line(KNOWN["codex"], model="o9")) == (
        'codex exec --json -s workspace-write --skip-git-repo-check -c approval_policy="never"'
        " --add-dir /w/repo/.git/worktrees/1 --add-dir /w/repo/.git/objects"
        " --add-dir /w/repo/.git/refs --add-dir /w/repo/.git/logs - --model o9"
    )
    assert " ".join(line(KNOWN["gemini"])) == (
        "gemini --output-format stream-json --approval-mode auto_edit"
    )
    for name, cli in KNOWN.items():
        assert (cli.name, cli.prompt, cli.format) == (name, "stdin", name)


def test_who_is_not_known_needs_a_command() -> None:
    assert cli_for("aider", None) is None
    assert cli_for("aider", AgentConfig(format="text")) is None
    cli = cli_for("aider", AgentConfig(command=("aider", "--yes")))
    assert cli == Cli("aider", ("aider", "--yes"))
    assert (cli.prompt, cli.format, cli.login) == ("stdin", "text", None)


def test_the_operators_word_goes_over_what_is_known() -> None:
    config = AgentConfig(args=("--max-turns", "9"), env={"DISABLE_AUTOUPDATER": "0", "X": "1"})
    cli = cli_for("claude", config)
    assert line(cli)[-2:] == ("--max-turns", "9")
    assert cli is not None
    assert environment(cli, {"X": "0", "CLAUDECODE": "1", "HOME": "/h"}) == {
        "DISABLE_AUTOUPDATER": "0",
        "X": "1",
        "HOME": "/h",
    }
    kept = cli_for("claude", AgentConfig(env={"CLAUDECODE": "1"}))
    assert kept is not None
    assert environment(kept, {})["CLAUDECODE"] == "1"
    own = cli_for("claude", AgentConfig(command=("/opt/claude", "-p"), format="text"))
    assert own is not None
    assert (own.format, own.login, line(own, model="m")) == (
        "text", None, ("/opt/claude", "-p", "--model", "m"),
    )  # fmt: skip
    assert cli_for("codex", AgentConfig(env_pass=("HOME",))) is not None


def test_holes_are_filled_once_and_nothing_else_is_touched() -> None:
    command = ("x", "--dir={workspace}", "--json", '{"a": {}}', "-m", "{model}", "{prompt}")
    cli = cli_for("x", AgentConfig(command=command, prompt="argv"))
    prompt = "{model} $(rm -rf /) 'quoted' {workspace}"
    assert line(cli, prompt, "m") == (
        "x", "--dir=/w/tree", "--json", '{"a": {}}', "-m", "m", prompt,
    )  # fmt: skip


def test_a_model_that_has_no_place_is_refused_and_so_is_a_place_without_one() -> None:
    with pytest.raises(ValidationError, match=r"put \{model\} into its command"):
        line(cli_for("x", AgentConfig(command=("x",))), model="m")
    with pytest.raises(ValidationError, match="give the task one"):
        line(cli_for("x", AgentConfig(command=("x", "{model}"))))


def test_a_prompt_that_no_argument_can_hold_is_refused() -> None:
    cli = cli_for("x", AgentConfig(command=("x", "{prompt}"), prompt="argv"))
    assert line(cli, "x" * LONGEST_ARGUMENT)
    with pytest.raises(ValidationError, match="prompt: stdin"):
        line(cli, "ü" * (LONGEST_ARGUMENT // 2 + 1))


def test_a_prompt_that_is_to_be_an_argument_of_a_command_without_one_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"agents\.claude: .* standard input"):
        cli_for("claude", AgentConfig(prompt="argv"))


@pytest.mark.skipif(sys.platform == "darwin", reason="logins are in the keychain there")
@pytest.mark.parametrize("name", KNOWN)
def test_no_sign_of_a_login_says_what_to_do(name: str, tmp_path: Path) -> None:
    for folder in (".claude", ".codex", ".gemini"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".claude/settings.json").write_text('{"permissions": {}}')
    (tmp_path / ".codex/config.toml").write_text('model = "x"\n')
    (tmp_path / ".gemini/settings.json").write_text('{"ui": {}}')
    told = missing_login(KNOWN[name], {"GEMINI_API_KEY": "", "OPENAI_API_KEY": "x"}, tmp_path)
    login = KNOWN[name].login
    assert login is not None
    assert told == f"{name} is not logged in: {login.hint}"


@pytest.mark.parametrize(
    "environ",
    [{"GOOGLE_API_KEY": "x"}, {"GOOGLE_GEMINI_BASE_URL": "http://x"}, {"CLOUD_SHELL": "1"}],
)
def test_what_gemini_takes_for_no_login_is_none(environ: Mapping[str, str], tmp_path: Path) -> None:
    assert missing_login(KNOWN["gemini"], environ, tmp_path) is not None


@pytest.mark.parametrize(
    ("name", "environ", "files", "args"),
    [
        ("claude", {"ANTHROPIC_API_KEY": "x"}, {}, ()),
        ("claude", {"CLAUDE_CODE_USE_VERTEX": "1"}, {}, ()),
        ("claude", {}, {".claude/.credentials.json": ""}, ()),
        ("claude", {"CLAUDE_CONFIG_DIR": "{home}/c"}, {"c/.credentials.json": ""}, ()),
        ("claude", {}, {".claude/settings.json": '{"apiKeyHelper": "/x"}'}, ()),
        ("claude", {}, {".claude/settings.json": "{}", ".claude.json": '{"primaryApiKey"}'}, ()),
        ("claude", {}, {}, ("--settings", "x.json")),
        ("codex", {"CODEX_API_KEY": "x"}, {}, ()),
        ("codex", {}, {".codex/auth.json": ""}, ()),
        ("codex", {"CODEX_HOME": "{home}/c"}, {"c/auth.json": ""}, ()),
        ("codex", {}, {".codex/config.toml": 'model_provider = "own"'}, ()),
        ("codex", {}, {}, ("--oss",)),
        ("gemini", {"GEMINI_API_KEY": "x"}, {}, ()),
        ("gemini", {"GOOGLE_GENAI_USE_VERTEXAI": "true"}, {}, ()),
        ("gemini", {"CLOUD_SHELL": "true"}, {}, ()),
        ("gemini", {}, {".gemini/oauth_creds.json": ""}, ()),
        ("gemini", {"GEMINI_CLI_HOME": "{home}/g"}, {"g/.gemini/oauth_creds.json": ""}, ()),
        ("gemini", {}, {".gemini/settings.json": '{"selectedType": "x"}'}, ()),
    ],
)
def test_a_sign_of_a_login_or_of_one_that_is_elsewhere_is_enough(
    name: str,
    environ: Mapping[str, str],
    files: Mapping[str, str],
    args: tuple[str, ...],
    tmp_path: Path,
) -> None:
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    cli = cli_for(name, AgentConfig(args=args))
    assert cli is not None
    given = {key: value.replace("{home}", str(tmp_path)) for key, value in environ.items()}
    assert missing_login(cli, given, tmp_path) is None


def test_of_a_command_of_the_operators_own_nothing_is_demanded(tmp_path: Path) -> None:
    cli = cli_for("claude", AgentConfig(command=("my-claude",)))
    assert cli is not None
    assert missing_login(cli, {}, tmp_path) is None


def test_a_prompt_that_begins_like_an_option_is_none() -> None:
    cli = cli_for("x", AgentConfig(command=("x", "--ask={prompt}", "{prompt}"), prompt="argv"))
    assert line(cli, "--version") == ("x", "--ask=\n--version", "\n--version")
    assert line(cli, "a --b") == ("x", "--ask=a --b", "a --b")


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_that_is_an_option_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="'--yolo' is no model but an option"):
        line(KNOWN[name], model="--yolo")


def test_what_means_something_to_a_cli_in_a_prompt_can_be_made_plain() -> None:
    assert plain_text(KNOWN["gemini"], r"@a b@c \@d") == r"\@a b\@c \\@d"
    for name in ("claude", "codex"):
        assert plain_text(KNOWN[name], "@a /b") == "@a /b"
