"""How the CLIs of agents are called: what agentmux knows of them, and the operator's word over it.

Nothing here is started, and nothing passes through a shell. The only I/O is a look whether there
are signs of a login.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field, structs

from engine.config.sections import HOLES
from engine.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.config import AgentConfig

LONGEST_ARGUMENT = 131_071
"""Bytes that Linux takes as one argument (execve(2), MAX_ARG_STRLEN)."""

_MOST_SETTINGS = 4 * 1024 * 1024
_HOLE = re.compile(rf"\{{({'|'.join(HOLES)})\}}")


class Login(Struct, frozen=True):
    """By what one sees that a CLI is logged in; any one of these signs will do.

    `variables` log in by themselves, or say that the login is elsewhere; `switches` do so if they
    are `true`. `files` and `settings`
    lie in the folder that the variable `folder` names (and below it in `inside`), else in
    `~/<usual>`; settings count if they mention one of `words`. With one of `arguments` the CLI
    may be told of a login that we do not see. On macOS logins are in the `keychain`.
    """

    hint: str
    variables: tuple[str, ...]
    folder: str
    usual: str
    files: tuple[str, ...]
    inside: str = ""
    switches: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    keychain: bool = False

    def signs(self, environ: Mapping[str, str]) -> list[str]:
        """Return the names of those variables which say that there is a login."""
        switched = [name for name in self.switches if environ.get(name) == "true"]
        return [name for name in self.variables if environ.get(name)] + switched


class Cli(Struct, frozen=True):
    """How an agent's CLI is called.

    In `command`, `model` and `args` stand {workspace}, {gitdir} (the repository's own folder: a
    commit writes there, and it is not in a worktree), {admin} (what in there is the worktree's),
    {model} and {prompt}. `model` is what is added if there is one. `prompt` is `stdin` or `argv`,
    `format` one of `config.FORMATS`. Of the variables that are inherited, those of `env_pass`
    (None: all) but not those of `drop`; `env` is set. `escaped` are characters that mean something
    in a prompt, unless a backslash stands before them. `login` is None if nobody knows how this
    CLI is logged in.
    """

    name: str
    command: tuple[str, ...]
    prompt: str = "stdin"
    format: str = "text"
    model: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_pass: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    escaped: str = ""
    login: Login | None = None


CLAUDE = Cli(
    name="claude",
    command=(
        "claude", "-p", "--output-format", "stream-json", "--verbose",
        "--permission-mode", "acceptEdits",
        "--allowedTools",
        "Bash(git add *),Bash(git commit *),Bash(git status *),Bash(git diff *),Bash(git log *)",
    ),
    format="claude",
    model=("--model", "{model}"),
    env={"DISABLE_AUTOUPDATER": "1"},
    drop=(
        "CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_CHILD_SESSION",
    ),
    login=Login(
        hint="start `claude` once and log in with /login, or set ANTHROPIC_API_KEY",
        variables=(
            "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY",
            "ANTHROPIC_BASE_URL",
        ),
        folder="CLAUDE_CONFIG_DIR",
        usual=".claude",
        files=(".credentials.json", "/etc/claude-code/managed-settings.json"),
        settings=("settings.json", "../.claude.json", ".claude.json"),
        words=("apiKeyHelper", "primaryApiKey", "ANTHROPIC_", "CLAUDE_CODE_"),
        arguments=("--settings",),
        keychain=True,
    ),
)  # fmt: skip
"""Claude Code: one shot; it may edit and commit, whatever else it would ask for is refused.

`stream-json` needs `--verbose` (https://code.claude.com/docs/en/headless,
https://code.claude.com/docs/en/cli-reference; modes in .../permission-modes, variables in
.../env-vars, where logins are in .../authentication). What is dropped would make it take itself
for a part of the session that agentmux was started from.
"""

CODEX = Cli(
    name="codex",
    command=(
        "codex", "exec", "--json", "-s", "workspace-write", "--skip-git-repo-check",
        "-c", 'approval_policy="never"', "--add-dir", "{admin}", "--add-dir", "{gitdir}/objects",
        "--add-dir", "{gitdir}/refs", "--add-dir", "{gitdir}/logs", "-",
    ),
    format="codex",
    model=("--model", "{model}"),
    login=Login(
        hint="run `codex login`, or set CODEX_API_KEY",
        variables=("CODEX_API_KEY", "CODEX_ACCESS_TOKEN"),
        folder="CODEX_HOME",
        usual=".codex",
        files=("auth.json",),
        settings=("config.toml",),
        words=("model_provider", "oss_provider", "cli_auth_credentials_store", "profile"),
        arguments=("--oss", "model_provider", "--profile", "-p"),
    ),
)  # fmt: skip
"""Codex CLI: one shot in its sandbox, where it may write in the worktree and commit.

`-` takes the prompt from standard input, and the sandbox is always named since its default
depends on the folder (https://developers.openai.com/codex/noninteractive,
https://developers.openai.com/codex/cli/reference; logins in .../codex/auth). `exec` reads
CODEX_API_KEY, not OPENAI_API_KEY.

What a `.git` names stays read-only in the sandbox, also within a folder that may be written, unless
it is named itself (https://github.com/openai/codex/issues/23661;
`default_read_only_subpaths_for_writable_root` in `codex-rs/protocol/src/permissions.rs` of
https://github.com/openai/codex). So the worktree's part of the repository is named, and of the rest
only what a commit writes: neither hooks nor settings, which would run outside of the sandbox. In
/tmp and $TMPDIR it may write anything, for most programs need that, and so it may in a repository
that lies there (`exclude_slash_tmp` in https://developers.openai.com/codex/config-reference).
"""

GEMINI = Cli(
    name="gemini",
    command=("gemini", "--output-format", "stream-json", "--approval-mode", "auto_edit"),
    format="gemini",
    model=("--model", "{model}"),
    env={"NO_BROWSER": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
    escaped="@",
    login=Login(
        hint="set GEMINI_API_KEY, or start `gemini` once and choose a login",
        variables=("GEMINI_API_KEY",),
        switches=(
            "GOOGLE_GENAI_USE_GCA", "GOOGLE_GENAI_USE_VERTEXAI", "CLOUD_SHELL",
            "GEMINI_CLI_USE_COMPUTE_ADC",
        ),
        folder="GEMINI_CLI_HOME",
        usual=".gemini",
        inside=".gemini",
        files=("oauth_creds.json", ".env", "../.env"),
        settings=("settings.json",),
        words=("selectedType",),
    ),
)  # fmt: skip
r"""Gemini CLI: one shot, its edits accepted, whatever else it would ask for refused.

Standard input that is no terminal is the prompt; a leading `/` in it is a command of the CLI, and
`@path` includes a file, `\@path` does not (https://geminicli.com/docs/cli/headless,
https://geminicli.com/docs/cli/cli-reference; `packages/cli/src/ui/hooks/atCommandProcessor.ts` of
https://github.com/google-gemini/gemini-cli; logins in .../docs/get-started/authentication).
Without its two variables it would wait for a browser, or refuse a folder that is new to it.
"""

KNOWN: Mapping[str, Cli] = {cli.name: cli for cli in (CLAUDE, CODEX, GEMINI)}
"""What needs no settings."""


def cli_for(name: str, config: AgentConfig | None) -> Cli | None:
    """Return how the CLI of this name is called: the operator's word, else what we know of it.

    None: neither says so; its agent needs a `command` in agentmux.yaml.

    Raises:
        ValidationError: the prompt is to be an argument of a command that takes none.

    """
    known = KNOWN.get(name)
    if config is None:
        return known
    if config.command is not None:
        # Whatever it is, it may be logged in as nobody but its author knows.
        base = structs.replace(known or Cli(name, ()), command=config.command, login=None)
        if any("{model}" in word for word in config.command):
            base = structs.replace(base, model=())
    elif known is not None:
        base = known
    else:
        return None
    prompt = config.prompt or base.prompt
    if prompt == "argv" and not any("{prompt}" in word for word in (*base.command, *config.args)):
        raise ValidationError(
            f"agents.{name}: its command takes the prompt from standard input; for argv,"
            " give a command with {prompt} in it"
        )
    return structs.replace(
        base,
        prompt=prompt,
        format=config.format or base.format,
        args=config.args,
        env={**base.env, **config.env},
        env_pass=config.env_pass,
    )


def plain_text(cli: Cli, text: str) -> str:
    """Return a text as a prompt must have it to be no more than text to a CLI."""
    return re.sub(f"[{re.escape(cli.escaped)}]", r"\\\g<0>", text) if cli.escaped else text


def check_model(cli: Cli, model: str | None) -> None:
    """Refuse a model that a command has no place for, a place without one, and an option.

    Raises:
        ValidationError: it is one of these; the text says what to do.

    """
    takes = any("{model}" in word for word in _words(cli, model))
    if model and not takes:
        raise ValidationError(
            f"{cli.name} has no place for a model: put {{model}} into its command in"
            " agentmux.yaml, or leave the model out of the task"
        )
    if takes and not model:
        raise ValidationError(f"the command of {cli.name} needs a model: give the task one")
    if model and model.startswith("-"):
        # Else a DAG could set what is the operator's: some CLIs take it for an option.
        raise ValidationError(f"{model!r} is no model but an option: name a model in the task")


def command_line(
    cli: Cli, *, prompt: str, model: str | None, workspace: Path, gitdir: Path, admin: Path
) -> tuple[str, ...]:
    """Return the program and its arguments, each as the program will see it.

    A prompt that would be taken for an option, for it begins with `-`, gets a line end before it.

    Raises:
        ValidationError: it has no place for the model or needs one, or the prompt is too long.

    """
    check_model(cli, model)
    values = {
        "workspace": str(workspace),
        "gitdir": str(gitdir),
        "admin": str(admin),
        "model": model or "",
        "prompt": f"\n{prompt}" if prompt.startswith("-") else prompt,
    }
    filled = tuple(_HOLE.sub(lambda hole: values[hole[1]], word) for word in _words(cli, model))
    longest = max(len(os.fsencode(word)) for word in filled)
    if longest > LONGEST_ARGUMENT:
        raise ValidationError(
            f"an argument of {cli.name} has {longest:,} bytes, and {LONGEST_ARGUMENT:,} is the"
            " most: hand the prompt over by standard input (prompt: stdin)"
        )
    return filled


def _words(cli: Cli, model: str | None) -> tuple[str, ...]:
    return (*cli.command, *(cli.model if model else ()), *cli.args)


def environment(cli: Cli, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a run, from those that it inherits (see `Cli.env_pass`)."""
    kept = {name: value for name, value in inherited.items() if name not in cli.drop}
    return {**kept, **cli.env}


def missing_login(cli: Cli, environ: Mapping[str, str], home: Path) -> str | None:
    """Return what to do if there is no sign that a CLI is logged in; None if there is, or may be.

    `environ` are the variables of its runs. Files are looked for, and settings searched for a
    few words; whether a login still holds, only a run can tell.
    """
    login = cli.login
    if login is None or (login.keychain and sys.platform == "darwin"):
        return None
    if login.signs(environ):
        return None
    if any(word in argument for word in login.arguments for argument in cli.args):
        return None
    named = environ.get(login.folder)
    folder = Path(named, login.inside) if named else home / login.usual
    if any(_there(folder / name) for name in login.files):
        return None
    if any(_mentions(folder / name, login.words) for name in login.settings):
        return None
    return f"{cli.name} is not logged in: {login.hint}"


def _there(path: Path) -> bool:
    """Say whether a file is there, or cannot be known not to be."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _mentions(path: Path, words: tuple[str, ...]) -> bool:
    """Say whether a file has one of these words in it, or cannot be known not to have."""
    if not _there(path):
        return False
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_SETTINGS)
    except OSError:
        return True
    return any(word.encode() in content for word in words)
