"""What an operator can set, and what holds until then: frozen structs, nothing that reads.

All durations are seconds, all costs US dollars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

HARMLESS = (
    "basename",
    "cat",
    "date",
    "dirname",
    "echo",
    "false",
    "head",
    "ls",
    "printf",
    "pwd",
    "seq",
    "sleep",
    "tail",
    "test",
    "true",
    "uname",
    "wc",
    "whoami",
)
"""What a shell task may run unless the operator says otherwise: nothing here writes a file,
starts another program or reaches the network. (hostname asks the name server; env, xargs and
find start programs; sort and tee write.)"""


TROUBLE = (r"\bERROR\b", r"Exception\b", r"\bTraceback\b", r"\bCRITICAL\b", r"\bFAILED\b")
"""What a line of a log has in it that tells of trouble, unless the operator says otherwise."""
HARMLESS_LINES = (
    r"\bINFO:",
    r"(?i)\bhealth[-_ ]?checks?\b",
    r"\b(?:GET|HEAD|OPTIONS) /(?:health|healthz|livez|readyz)\b",
    r"\bkube-probe/",
)
"""And what none of these has in it."""


class ShellConfig(Struct, frozen=True):
    """What shell tasks may run: names of programs, or paths, compared with a command's first word.

    `env_pass` are the variables that they inherit, None: all. `max_output` is how many bytes of
    each log are kept; what is in the middle goes first.
    """

    allow: tuple[str, ...] = HARMLESS
    env_pass: tuple[str, ...] | None = None
    max_output: int = 100_000_000


class Prices(Struct, frozen=True):
    """What a CLI's tokens cost that does not say so itself: dollars for a million tokens."""

    input: float
    output: float
    cached: float | None = None


class AgentConfig(Struct, frozen=True):
    """How an agent's CLI is run. What is None is as agentmux knows it for this agent.

    `command` is the program and its arguments, `args` come after them. `prompt` says how the
    prompt is handed over (`stdin`, or `argv` in the place of `{prompt}`), `format` how the output
    is read. `env` is added to the environment, `env_pass` limits what is inherited of it.
    """

    command: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    prompt: str | None = None
    format: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    env_pass: tuple[str, ...] | None = None
    budget: float | None = None
    prices: Prices | None = None


class WorktreeConfig(Struct, frozen=True):
    """Where worktrees lie (None: beside the state folder), and how many are kept for how long.

    Those of runs that are over go once there are more than `keep`, or once they are older than
    `days`; what is not committed in them has been saved by then.
    """

    folder: str | None = None
    keep: int = 20
    days: float = 14.0


class McpServer(Struct, frozen=True):
    """A server for `mcp-call`: a `command` that speaks on stdio, or a `url` (streamable HTTP)."""

    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class GithubConfig(Struct, frozen=True):
    """Issues of `repo` with `label` become tasks of `agent`; asked for every so many seconds."""

    repo: str
    agent: str
    label: str = "agentmux"
    every: float = 60.0
    comment: bool = True


class WatchConfig(Struct, frozen=True):
    """Logs that are watched beside those of runs and our own: files and globs, from the project on.

    A line that matches one of `errors` and none of `ignore` (RE2) is told of in an alert; within
    `cooldown` seconds of one, further lines of the same log wait for the next.
    """

    files: tuple[str, ...] = ()
    errors: tuple[str, ...] = TROUBLE
    ignore: tuple[str, ...] = HARMLESS_LINES
    cooldown: float = 300.0


class Mailbox(Struct, frozen=True):
    """A file that gets a line for each alert, and who it is for."""

    file: str
    to: str = "operator"


class Webhook(Struct, frozen=True):
    """A URL to which each alert is posted as JSON."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class AlertsConfig(Struct, frozen=True):
    """Where alerts go beside the screen. `command` gets each as JSON on its stdin."""

    mailbox: Mailbox | None = None
    webhook: Webhook | None = None
    command: tuple[str, ...] | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Where alerts have to go, by the names that stand in the store."""
        wanted = {"mailbox": self.mailbox, "webhook": self.webhook, "command": self.command}
        return tuple(name for name, setting in wanted.items() if setting)


class Probe(Struct, frozen=True):
    """How a service is looked at: all that is named must hold.

    `http` is a URL, or a path on the service's port, that must answer with one of `status`; `port`
    must take connections; `files` (paths and globs) must each be there, and hold something;
    `command` must end with 0. Asked `every` so many seconds; one that takes longer than `timeout`
    has failed; so many `failures` in a row and the service is unhealthy.
    """

    http: str | None = None
    status: tuple[int, ...] = (200,)
    port: int | None = None
    files: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    every: float = 5.0
    timeout: float = 5.0
    failures: int = 3


class RecoverStep(Struct, frozen=True):
    """A command, and those that are run one after the other if it fails."""

    run: tuple[str, ...]
    otherwise: tuple[tuple[str, ...], ...] = ()


class Recover(Struct, frozen=True):
    """What is done when a service is unhealthy, `attempts` times at most until it is well again.

    `{new}` in a command is a new folder, which takes the place of `folder` when all steps are
    through. `timeout`: seconds for all of them.
    """

    steps: tuple[RecoverStep, ...] = ()
    folder: str | None = None
    attempts: int = 3
    timeout: float = 600.0


class ServiceConfig(Struct, frozen=True):
    """A program that runs beside the tasks. `stop_timeout`: seconds between SIGTERM and SIGKILL.

    It counts as ready once `ready` holds, which may take `ready_timeout` seconds, and as unhealthy
    when `health` does not. `tmux` names sessions that it makes, which end with it.
    """

    command: tuple[str, ...]
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    depends_on: tuple[str, ...] = ()
    ready: Probe | None = None
    ready_timeout: float = 60.0
    health: Probe | None = None
    restart: str = "on-failure"
    backoff: float = 1.0
    stop_timeout: float = 5.0
    tmux: tuple[str, ...] = ()
    recover: Recover | None = None


class ApiConfig(Struct, frozen=True):
    """Where the HTTP API listens. `hosts` are names by which clients may call this machine.

    Those of the loopback interface always are; an address that others can reach needs some.
    """

    host: str = "127.0.0.1"
    port: int = 8383
    hosts: tuple[str, ...] = ()


class ScreenConfig(Struct, frozen=True):
    """What a dashboard does until its user says otherwise.

    `bell` rings for what needs somebody, `title` writes into the terminal's title bar, `toasts`
    tell what just ended. `ascii`: draw with ASCII alone; None leaves that to the locale.
    """

    bell: bool = True
    title: bool = True
    toasts: bool = True
    ascii: bool | None = None


class Config(Struct, frozen=True):
    """The settings.

    `lease` is how long a claim holds without renewal, `renew` the time between renewals,
    `heartbeat` the time between signs of life, `stale_after` the silence after which a worker
    is shown as stale, `grace` the time between SIGTERM and SIGKILL. `budget` is what all agents
    together may cost. `setup` is run in a worktree before each run in it. `keys` are the keys
    that actions of the dashboard get instead of their own; which of both there are, it says itself.
    """

    lease: float = 600.0
    renew: float = 60.0
    heartbeat: float = 5.0
    stale_after: float = 15.0
    grace: float = 5.0
    budget: float | None = None
    setup: tuple[str, ...] = ()
    shell: ShellConfig = field(default_factory=ShellConfig)
    agents: Mapping[str, AgentConfig] = field(default_factory=dict)
    worktrees: WorktreeConfig = field(default_factory=WorktreeConfig)
    mcp: Mapping[str, McpServer] = field(default_factory=dict)
    github: GithubConfig | None = None
    watch: WatchConfig = field(default_factory=WatchConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    services: Mapping[str, ServiceConfig] = field(default_factory=dict)
    api: ApiConfig = field(default_factory=ApiConfig)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    screen: ScreenConfig = field(default_factory=ScreenConfig)
