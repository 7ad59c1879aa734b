"""The grammar of `agentmux`: every command, its options, and the name of the function behind it.

Functions are named, not imported, so that a command loads only what it needs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine import __version__
from engine.errors import ValidationError
from engine.filters import STATES, state_terms
from engine.model import ALL_AGENTS
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKING = "engine.cli.checking"
READING = "engine.cli.reading"
STEERING = "engine.cli.steering"
WORKING = "engine.cli.working"

_MOST_WORKERS = 64


class Parser(argparse.ArgumentParser):
    """argparse, but what the user typed is cleaned before it is shown again."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        super().error(clean_text(message))


def build_parser() -> Parser:
    """Return the parser of the whole command line.

    The namespace has `handler` ("module:function"), `state_dir` (Path) and the command's own.
    """
    parser = Parser(
        prog="agentmux",
        description="Work through a DAG of tasks with a fleet of coding agents.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"agentmux {__version__}")
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("AGENTMUX_STATE_DIR") or "state"),
        help="where the store lies (default: $AGENTMUX_STATE_DIR, else ./state)",
    )
    commands = _Commands(parser.add_subparsers(metavar="COMMAND", required=True, dest="command"))
    _add_working(commands)
    _add_tasks(commands)
    _add_reading(commands)
    _add_steering(commands)
    return parser


class _Commands:
    """A level of commands; each takes `--state-dir`, which may stand before or after it."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def add(
        self, name: str, handler: str | None, text: str, *, reads: bool = False
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = self._group.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        command.add_argument(
            "--state-dir",
            type=Path,
            metavar="DIR",
            default=argparse.SUPPRESS,  # or it would undo one that stands before the command
            help="where the store lies",
        )
        if reads:
            command.add_argument("--json", action="store_true", help="print JSON")
        if handler is not None:
            command.set_defaults(handler=handler)
        return command


def _add_working(commands: _Commands) -> None:
    run = commands.add("run", f"{WORKING}:run", "seed a DAG and work until nothing more can run")
    _add_dag(run)
    run.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="workers for each agent of the DAG, 1 to 64 (default: 1)",
    )
    run.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="stop gracefully after this many seconds and exit 1",
    )
    worker = commands.add("worker", f"{WORKING}:worker", "claim and run the tasks of one agent")
    worker.add_argument("--agent", required=True, metavar="A", help="whose tasks")
    worker.add_argument(
        "--worker-id", metavar="W", help="its name (default: the first free <agent>-<n>)"
    )
    how = worker.add_mutually_exclusive_group()
    how.add_argument(
        "--until-idle",
        action="store_true",
        help="end when no task of the agent can run now or later",
    )
    how.add_argument(
        "--stop", action="store_true", help="ask the running worker of this name to stop"
    )


def _add_tasks(commands: _Commands) -> None:
    tasks = commands.add("tasks", None, "list, show, seed, release and retry tasks")
    below = _Commands(tasks.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    ls = below.add("ls", f"{READING}:list_tasks", "list tasks", reads=True)
    _add_selection(ls)
    ls.add_argument(
        "words",
        nargs="*",
        metavar="FILTER",
        help="words, state:failed, state:!done, agent:codex, !word; all must hold",
    )
    show = below.add("show", f"{READING}:show_task", "show all about one task", reads=True)
    show.add_argument("id", metavar="ID")
    seed = below.add("seed", f"{STEERING}:seed", "bring the store in line with a DAG file")
    _add_dag(seed)
    _add_dry_run(seed)
    release = below.add("release", f"{STEERING}:release", "take tasks from their workers")
    release.add_argument("ids", nargs="*", metavar="ID")
    _add_selection(release)
    _add_dry_run(release)
    release.add_argument("--yes", action="store_true", help="do not ask")
    retry = below.add("retry", f"{STEERING}:retry", "make finished or blocked tasks ready again")
    retry.add_argument("ids", nargs="*", metavar="ID")
    _add_selection(retry)
    _add_dry_run(retry)
    retry.add_argument("--yes", action="store_true", help="do not ask")
    unlock = commands.add("unlock", f"{STEERING}:release", "the same as `tasks release`")
    unlock.add_argument("ids", nargs="+", metavar="ID")
    _add_dry_run(unlock)
    unlock.set_defaults(state=None, agent=None, yes=True)


def _add_reading(commands: _Commands) -> None:
    ps = commands.add("ps", f"{READING}:list_workers", "list workers", reads=True)
    ps.add_argument("--all", action="store_true", help="those that ended, too")
    explain = commands.add(
        "explain", f"{READING}:explain", "say why a task is not running", reads=True
    )
    explain.add_argument("id", metavar="ID")
    history = commands.add("history", f"{READING}:history", "list runs, newest first", reads=True)
    history.add_argument("id", nargs="?", metavar="ID", help="of this task only")
    history.add_argument(
        "--limit", type=_at_least_one, default=-1, metavar="N", help="the newest N only"
    )
    events = commands.add("events", f"{READING}:events", "print what happened", reads=True)
    events.add_argument(
        "--since", type=_seq, default=0, metavar="SEQ", help="only what came after this number"
    )
    events.add_argument("--follow", action="store_true", help="go on with what happens from now on")
    commands.add("status", f"{READING}:status", "write and print status.md", reads=True)
    commands.add("doctor", f"{CHECKING}:doctor", "look for inconsistencies", reads=True)


def _add_steering(commands: _Commands) -> None:
    for name, text in (("hold", "stop claiming tasks"), ("resume", "claim tasks again")):
        command = commands.add(name, f"{STEERING}:{name}", text)
        command.add_argument(
            "agent", nargs="?", default=ALL_AGENTS, metavar="AGENT", help="(default: all)"
        )


def _add_dag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "dag",
        nargs="?",
        type=Path,
        metavar="DAG",
        help="(default: the file last seeded, else agentmux/dag.yaml)",
    )


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state", type=_state, metavar="S", help=f"only these: {', '.join(STATES)}"
    )
    command.add_argument("--agent", metavar="A", help="only this agent's")


def _add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _state(text: str) -> str:
    try:
        state_terms(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _checked(convert: Callable[[str], float], text: str, *, least: float, what: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _workers(text: str) -> int:
    number = _at_least_one(text)
    if number > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{number} is more than {_MOST_WORKERS} for each agent")
    return number


def _at_least_one(text: str) -> int:
    return int(_checked(int, text, least=1, what="a whole number above 0"))


def _seq(text: str) -> int:
    return int(_checked(int, text, least=0, what="the number of an event"))


def _seconds(text: str) -> float:
    return _checked(float, text, least=0, what="a number of seconds")
