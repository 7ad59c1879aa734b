"""Promises of the settings file: defaults, and every problem at once with line and field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import astuple

from engine.config import (
    AgentConfig,
    AlertsConfig,
    Config,
    GithubConfig,
    Mailbox,
    McpServer,
    Prices,
    ScreenConfig,
    ShellConfig,
    WatchConfig,
    Webhook,
    WorktreeConfig,
    load_config,
)
from engine.errors import Problem, StorageError, ValidationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agentmux.yaml"


def load(path: Path, text: str) -> Config:
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def problems_of(path: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(ValidationError) as caught:
        load(path, text)
    assert str(caught.value).startswith(f"{path} has ")
    return caught.value.problems


def test_no_file_means_the_defaults_of_the_design(path: Path) -> None:
    config = load_config(path)
    assert config == Config()
    assert astuple(config)[:5] == (600, 60, 5, 15, 5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "x-team: {any: thing}\n"])
def test_a_file_that_sets_nothing_means_the_defaults(path: Path, text: str) -> None:
    assert load(path, text) == Config()


def test_every_setting_is_taken_and_the_rest_stays(path: Path) -> None:
    assert load(
        path, "lease: 30\nrenew: 2.5\nheartbeat: 1\nstale_after: 3\ngrace: 0.5\n"
    ) == Config(lease=30.0, renew=2.5, heartbeat=1.0, stale_after=3.0, grace=0.5)
    assert load(path, "grace: 1\nx-note: 2\n") == Config(grace=1.0)


def test_the_allow_list_replaces_the_default_one(path: Path) -> None:
    config = load(path, "shell: {allow: [git, pytest, git], x-why: we need them}\n")
    assert config.shell.allow == ("git", "pytest")
    assert load(path, "shell: {allow: []}\n").shell.allow == ()
    assert load(path, "shell: {}\n").shell == ShellConfig()


def test_keys_are_one_or_several_for_an_action_whatever_it_is_called(path: Path) -> None:
    config = load(path, 'keys: {kill: X, quit: [Q, ctrl+b], copy: y, numbers: "#", x-mine: 1}\n')
    assert config.keys == {
        "kill": ("X",),
        "quit": ("Q", "ctrl+b"),
        "copy": ("y",),
        "numbers": ("#",),
    }
    assert load(path, "keys: {}\n").keys == {}
    assert load(path, "keys: {hold: []}\n").keys == {"hold": ()}


def test_what_the_screen_does_can_be_switched_off(path: Path) -> None:
    assert Config().screen == ScreenConfig(bell=True, title=True, toasts=True, ascii=None)
    config = load(path, "screen: {bell: false, ascii: true, x-note: 1}\n")
    assert config.screen == ScreenConfig(bell=False, ascii=True)
    assert load(path, "screen: {}\n").screen == ScreenConfig()


def test_what_a_reader_of_the_settings_cannot_take_is_told_with_all_the_rest(path: Path) -> None:
    path.write_text("grase: 1\nkeys:\n  kill: X\n  quit: [Q, R]\n  stop: 7\n")
    wrong = {"quit": "is taken", "kill": "is no key", "stop": "needs a key"}
    with pytest.raises(ValidationError) as caught:
        load_config(path, also=lambda config: [(("keys", k), wrong[k]) for k in config.keys])
    assert [str(problem) for problem in caught.value.problems] == [
        "line 1: grase: unknown key 'grase'; did you mean 'grace'?",
        "line 3: keys.kill: is no key",
        "line 4: keys.quit: is taken",
        "line 5: keys.stop: must be text, not 7; put it in quotes",
    ]
    path.write_text("keys: {kill: X}\n")
    assert load_config(path, also=lambda _config: []).keys == {"kill": ("X",)}


def test_the_default_allow_list_can_neither_write_nor_start_programs_nor_reach_the_network() -> (
    None
):
    harmless = set(ShellConfig().allow)
    assert {"echo", "true", "false", "sleep", "ls", "cat", "date"} <= harmless
    writes = {"tee", "sort", "cp", "mv", "rm", "dd", "touch", "sed", "awk", "truncate", "split"}
    starts = {"env", "xargs", "find", "nice", "timeout", "sh", "bash", "python3", "git", "sudo"}
    calls = {"curl", "wget", "ssh", "nc", "ping", "hostname"}
    assert not harmless & (writes | starts | calls)


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("\nheartbeet: 5\n", 2, "heartbeet", "did you mean 'heartbeat'"),
        ("colour: red\n", 1, "colour", "known are agents, alerts, api, budget, github"),
        ("lease: ten\n", 1, "lease", "must be a number, not 'ten'"),
        ("lease: '600'\n", 1, "lease", "remove the quotes"),
        ("lease: true\n", 1, "lease", "must be a number, not true"),
        ("lease:\n", 1, "lease", "must be a number, not nothing"),
        ("lease: [600]\n", 1, "lease", "must be a number, not a list"),
        ("lease: .inf\n", 1, "lease", "not a finite number"),
        ("lease: .nan\n", 1, "lease", "not a finite number"),
        ("lease: 1.0e+300\n", 1, "lease", "must be at most"),
        ("grace: 0\n", 1, "grace", "must be more than 0"),
        ("grace: -1\n", 1, "grace", "must be more than 0"),
        ("lease: 60\n", 1, "lease", "renew (60, the default) must be less than lease (60)"),
        ("renew: 600\n", 1, "renew", "must be less than lease (600, the default)"),
        ("lease: 5\nrenew: 9\n", 2, "renew", "renew (9) must be less than lease (5)"),
        ("stale_after: 5\n", 1, "stale_after", "heartbeat (5, the default)"),
        ("heartbeat: 20\n", 1, "heartbeat", "must be less than stale_after (15, the default)"),
        ("shell: git\n", 1, "shell", "must be a mapping, not 'git'"),
        ("shell: {alow: [git]}\n", 1, "shell.alow", "did you mean 'allow'"),
        ("shell: {allow: git}\n", 1, "shell.allow", "must be a list, not 'git'"),
        ("shell:\n  allow:\n  - git\n  - 7\n", 4, "shell.allow[1]", "put it in quotes"),
        ("shell: {allow: ['']}\n", 1, "shell.allow[0]", "must not be empty"),
        ('shell: {allow: ["a\\nb"]}\n', 1, "shell.allow[0]", "control characters"),
        ("keys: [kill]\n", 1, "keys", "must be a mapping, not a list"),
        ("keys:\n  kill: 7\n", 2, "keys.kill", "put it in quotes"),
        ("keys:\n  kill:\n", 2, "keys.kill", "must be text, not nothing"),
        ("keys:\n  kill: {a: b}\n", 2, "keys.kill", "must be text, not a mapping"),
        ("keys:\n  kill:\n  - X\n  - true\n", 4, "keys.kill[1]", "put it in quotes"),
        ('keys: {kill: ""}\n', 1, "keys.kill", "must not be empty"),
        ('keys: {kill: "a\\nb"}\n', 1, "keys.kill", "control characters"),
        ("screen: loud\n", 1, "screen", "must be a mapping, not 'loud'"),
        ("screen:\n  bel: true\n", 2, "screen.bel", "did you mean 'bell'"),
        ("screen:\n  bell: 1\n", 2, "screen.bell", "must be true or false, not 1"),
        ("screen: {ascii: 'yes'}\n", 1, "screen.ascii", "must be true or false"),
        ("api: {port: 70000}\n", 1, "api.port", "must be from 0 to 65,535"),
        ("api: {host: 7}\n", 1, "api.host", "must be text"),
        ("api: {hosts: [ok, 'a:80']}\n", 1, "api.hosts[1]", "is no name or address"),
        ("watch: {file: [a]}\n", 1, "watch.file", "did you mean 'files'"),
        ("watch: {files: a.log}\n", 1, "watch.files", "must be a list, not 'a.log'"),
        ("watch:\n  errors:\n  - ok\n  - '(a'\n", 4, "watch.errors[1]", "missing ): (a"),
        ("watch: {ignore: ['x*']}\n", 1, "watch.ignore[0]", "/x*/ matches every line"),
        ("watch: {errors: ['(?=a)']}\n", 1, "watch.errors[0]", "no regular expression"),
        ("watch: {cooldown: -1}\n", 1, "watch.cooldown", "must be at least 0"),
        ("alerts: {mailbox: {to: me}}\n", 1, "alerts.mailbox", "has no file"),
        ("alerts: {mailbox: a.txt}\n", 1, "alerts.mailbox", "must be a mapping"),
        ("alerts: {webhook: {}}\n", 1, "alerts.webhook", "has no url"),
        ("alerts: {webhook: {url: 'ftp://x'}}\n", 1, "alerts.webhook.url", "must begin with http"),
        ("alerts: {command: []}\n", 1, "alerts.command", "names no program"),
        ("lease: 700\nlease: 800\n", 2, "lease", "already set"),
        ("- lease: 5\n", 1, "", "must be a mapping, not a list"),
        ("lease: !seconds 5\n", 1, "lease", "'!seconds'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line_and_field(
    path: Path, text: str, line: int, field: str, words: str
) -> None:
    (problem,) = problems_of(path, text)
    assert (problem.line, problem.field) == (line, field)
    assert words in problem.message


def test_everything_wrong_with_one_file_is_said_at_once(path: Path) -> None:
    text = "leese: 1\nrenew: x\nrenew: 2\ngrace: -1\nshell: {allow: [1], deny: []}\n3: 4\n"
    problems = problems_of(path, text)
    assert [(problem.line, problem.field) for problem in problems] == [
        (1, "leese"),
        (2, "renew"),
        (3, "renew"),
        (4, "grace"),
        (5, "shell.deny"),
        (5, "shell.allow[0]"),
        (6, "?"),
    ]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("agents: {a: {env: {API_KEY: 1234567890}}}", "agents.a.env.API_KEY"),
        ("mcp: {a: {command: x, env: {API_KEY: 1234567890}}}", "mcp.a.env.API_KEY"),
        (
            "mcp: {a: {url: 'http://x', headers: {Authorization: 1234567890}}}",
            "mcp.a.headers.Authorization",
        ),
        ("mcp: {a: {url: 'me:1234567890@host'}}", "mcp.a.url"),
        ("alerts: {webhook: {url: 'me:1234567890@host'}}", "alerts.webhook.url"),
        (
            "alerts: {webhook: {url: 'http://x', headers: {Authorization: 1234567890}}}",
            "alerts.webhook.headers.Authorization",
        ),
    ],
)
def test_what_may_be_secret_is_not_shown_when_it_is_wrong(
    path: Path, text: str, field: str
) -> None:
    (problem,) = problems_of(path, text + "\n")
    assert problem.field == field
    assert "123" not in problem.message


def test_a_file_that_is_there_but_cannot_be_read_is_no_reason_for_defaults(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        load_config(path)


@pytest.mark.parametrize(
    "data",
    [
        b"keys: {kill: X}",
        b'"\\x6beys": {kill: X}',
        b"? 'keys'\n: {kill: X}",
        b"# " + b"x" * 70_000 + b"\nkeys: {kill: X}",
    ],
)
def test_who_wants_only_a_part_gets_it_however_it_is_written(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert load_config(path).keys == {"kill": ("X",)}
    assert load_config(path, only=["keys"]) == load_config(path)


def test_a_file_that_names_nothing_of_what_is_wanted_is_left_alone(path: Path) -> None:
    path.write_text("lease: -1\n", encoding="utf-8")
    assert load_config(path, only=["keys", "screen"]) == Config()
    assert load_config(path.with_name("gone"), only=["keys"]) == Config()
    with pytest.raises(ValidationError):
        load_config(path, only=["keys", "lease"])


def test_a_file_in_another_encoding_is_refused_to_whoever_wants_a_part(path: Path) -> None:
    path.write_text("keys: {kill: X}", encoding="utf-16")
    with pytest.raises(ValidationError, match="UTF-8"):
        load_config(path, only=["keys"])


def test_a_file_that_cannot_be_read_is_told_to_whoever_wants_a_part(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError):
        load_config(path, only=["keys"])


def test_how_agents_are_run_is_the_operators_word(path: Path) -> None:
    config = load(
        path,
        "budget: 50\n"
        "setup: npm ci --quiet\n"
        "agents:\n"
        "  claude: {args: [--model, opus], env: {A: b}, env_pass: [PATH], budget: 10}\n"
        "  mine:\n"
        "    command: [mine, --ask, '{prompt}']\n"
        "    prompt: argv\n"
        "    format: text\n"
        "    prices: {input: 3, output: 15}\n"
        "  x-note: anything\n",
    )
    assert config.budget == 50
    assert config.setup == ("npm", "ci", "--quiet")
    assert config.agents == {
        "claude": AgentConfig(
            args=("--model", "opus"), env={"A": "b"}, env_pass=("PATH",), budget=10
        ),
        "mine": AgentConfig(
            command=("mine", "--ask", "{prompt}"),
            prompt="argv",
            format="text",
            prices=Prices(3, 15),
        ),
    }


def test_logs_and_who_is_told_of_them_are_the_operators_word(path: Path) -> None:
    config = load(
        path,
        "watch: {files: [logs/*.log, logs/*.log], errors: [oops], ignore: [], cooldown: 0}\n"
        "alerts:\n"
        "  mailbox: {file: mail.txt}\n"
        "  webhook: {url: 'https://hooks.example/1', headers: {A: b}}\n"
        "  command: notify-send 'a b'\n",
    )
    assert config.watch == WatchConfig(("logs/*.log",), ("oops",), (), 0)
    assert config.alerts == AlertsConfig(
        Mailbox("mail.txt", "operator"),
        Webhook("https://hooks.example/1", {"A": "b"}),
        ("notify-send", "a b"),
    )


def test_worktrees_servers_and_issues_are_the_operators_word(path: Path) -> None:
    config = load(
        path,
        "worktrees: {folder: ../trees, keep: 5, days: 2}\n"
        "mcp:\n"
        "  files: {command: files-server --root ., cwd: docs, env: {A: b}}\n"
        "  far: {url: 'https://mcp.example/mcp', headers: {Authorization: 'Bearer ${TOKEN}'}}\n"
        "github: {repo: acme/site, agent: claude, label: robot, every: 30, comment: false}\n"
        "shell: {env_pass: [PATH, HOME], max_output: 5000}\n",
    )
    assert config.worktrees == WorktreeConfig("../trees", 5, 2)
    assert config.mcp == {
        "files": McpServer(command=("files-server", "--root", "."), cwd="docs", env={"A": "b"}),
        "far": McpServer(
            url="https://mcp.example/mcp", headers={"Authorization": "Bearer ${TOKEN}"}
        ),
    }
    assert config.github == GithubConfig("acme/site", "claude", "robot", 30, comment=False)
    assert config.shell == ShellConfig(env_pass=("PATH", "HOME"), max_output=5000)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("budget: 0", "budget", "must be more than 0, not 0"),
        ("setup: ''", "setup", "names no program"),
        ("setup: 'a \"'", "setup", "cannot be split into words: no closing quotation"),
        ("setup: {}", "setup", "must be a line of text or a list, not a mapping"),
        ("agents: {a: {format: claud}}", "agents.a.format", "did you mean 'claude'?"),
        ("agents: {a: {prompt: file}}", "agents.a.prompt", "must be stdin or argv, not 'file'"),
        ("agents: {a b: {}}", "agents.'a b'", "cannot name an agent"),
        ("agents: {a: {command: [x], prompt: argv}}", "agents.a.command", "has no {prompt}"),
        ("agents: {a: {command: 'x {prompt}'}}", "agents.a.command", "say `prompt: argv`"),
        ("agents: {a: {command: []}}", "agents.a.command", "names no program"),
        ("agents: {a: {command: 'x {promt}'}}", "agents.a.command", "{promt}, which stands for"),
        ("agents: {claude: {args: ['--x={cwd}']}}", "agents.claude.args", "there are {workspace}"),
        ("agents: {a: {prices: {input: 1}}}", "agents.a.prices", "has no output"),
        ("agents: {a: {env: {'A=B': c}}}", "agents.a.env.A=B", "cannot name an environment"),
        ("worktrees: {keep: -1}", "worktrees.keep", "must be from 0 to 1,000,000"),
        ("mcp: {a: {}}", "mcp.a", "needs either a command (stdio) or a url"),
        ("mcp: {a: {command: x, url: 'http://x'}}", "mcp.a", "needs either a command"),
        ("mcp: {a: {url: 'ftp://x'}}", "mcp.a.url", "must begin with http:// or https://"),
        (
            "mcp: {a: {url: 'http://x', headers: {'a b': c}}}",
            "mcp.a.headers.'a b'",
            "cannot name a header",
        ),
        (
            'mcp: {a: {url: "http://x", headers: {A: "b\\r\\nC: d"}}}',
            "mcp.a.headers.A",
            "must not hold control characters",
        ),
        ("github: {repo: acme}", "github", "has no agent"),
        ("github: {repo: acme, agent: a}", "github.repo", "must be owner/name, not 'acme'"),
        ("shell: {env_pass: PATH}", "shell.env_pass", "must be a list, not 'PATH'"),
        ("shell: {max_output: 1}", "shell.max_output", "must be from 4,096"),
    ],
)
def test_what_is_wrong_with_a_section_is_told_where_it_stands(
    path: Path, text: str, field: str, message: str
) -> None:
    (problem,) = problems_of(path, text + "\n")
    assert problem.field == field
    assert message in problem.message
