"""The grammar of `agentmux`: every command, its options, and the name of the function behind it.

Functions are named, not imported, so that a command loads only what it needs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine import __version__
from engine.cli.arguments import (
    Commands,
    Parser,
    add_dag,
    add_dry_run,
    add_selection,
    add_yes,
    age,
    at_least_none,
    at_least_one,
    need,
    need_text,
    pair,
    port,
    refuse_rest,
    seconds,
    seq,
    workers,
)
from engine.model import ALL_AGENTS

if TYPE_CHECKING:
    import argparse

AGENTS = "engine.cli.agents"
ALERTS = "engine.cli.alerts"
CHECKING = "engine.cli.checking"
COLLECTING = "engine.cli.collecting"
READING = "engine.cli.reading"
SERVICES = "engine.cli.services"
SERVING = "engine.cli.serving"
STEERING = "engine.cli.steering"
TRANSCRIPT = "engine.cli.transcript"
WORKING = "engine.cli.working"
WORKTREES = "engine.cli.worktrees"

_ASKS = (
    "It shows what it would do and asks first, unless --yes; without a terminal --yes is needed."
)
_ASKS_BULK = (
    "For one task that is named it is done at once. For several, or those that --state and "
    "--agent find, it shows what it would do and asks first, unless --yes; without a terminal "
    "--yes is needed."
)
_CODES = (
    "Exit codes: 0 done, 1 refused or failed (with a code on stderr), 2 wrong usage, "
    "130 after Ctrl+C."
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; whatever is wrong with it raises SystemExit(2), help SystemExit(0)."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    refuse_rest(args, rest)
    need_text(parser, args)
    if (check := getattr(args, "check", None)) is not None:
        check(args)
    return args


def build_parser() -> Parser:
    """Return the parser of the whole command line.

    The namespace has `handler` ("module:function"), `state_dir` (Path) and the command's own.
    `check`, if it is there, is called with it and exits for what argparse cannot know.
    """
    parser = Parser(
        prog="agentmux",
        description="Work through a DAG of tasks with a fleet of coding agents.",
        epilog=_CODES,
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
    commands = Commands(parser.add_subparsers(metavar="COMMAND", required=True, dest="command"))
    _add_working(commands)
    _add_services(commands)
    _add_serving(commands)
    _add_workers(commands)
    _add_tasks(commands)
    _add_reading(commands)
    _add_fleet(commands)
    _add_agents(commands)
    _add_alerts(commands)
    _add_upkeep(commands)
    _add_worktrees(commands)
    return parser


def _add_working(commands: Commands) -> None:
    run = commands.add("run", f"{WORKING}:run", "seed a DAG and work until nothing more can run")
    add_dag(run)
    _add_work_limits(run)
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

    def check(args: argparse.Namespace) -> None:
        if args.stop and args.worker_id is None:
            worker.error("--stop needs --worker-id; `agentmux ps` lists the live workers")

    worker.set_defaults(check=check)


def _add_serving(commands: Commands) -> None:
    serve = commands.add(
        "serve",
        f"{SERVING}:serve",
        "serve the HTTP API until Ctrl+C",
        more="Each request needs the token that lies in api.token of the state folder.",
    )
    serve.add_argument(
        "--host",
        metavar="H",
        help="the address to listen on (default: api: host: of agentmux.yaml, else 127.0.0.1)",
    )
    serve.add_argument(
        "--port",
        type=port,
        metavar="P",
        help="0: any that is free (default: api: port: of agentmux.yaml, else 8383)",
    )


def _add_workers(commands: Commands) -> None:
    stop = commands.add(
        "stop",
        f"{STEERING}:stop",
        "stop workers gracefully: what they run is released",
        json=True,
        more=f"Workers that are named are stopped at once. With --all: {_ASKS}",
    )
    _add_worker_names(stop)
    stop.add_argument("--drain", action="store_true", help="let them finish their task first")
    kill = commands.add(
        "kill",
        f"{STEERING}:kill_workers",
        "end workers: what they run is FAILED, its processes are ended, then a worker process too",
        json=True,
        more=f"A process that other workers share goes on. {_ASKS}",
    )
    _add_worker_names(kill)
    kill.add_argument("--force", action="store_true", help="SIGKILL at once, not SIGTERM first")


def _add_worker_names(command: argparse.ArgumentParser) -> None:
    command.add_argument("workers", nargs="*", metavar="WORKER", help="see `agentmux ps`")
    command.add_argument("--all", action="store_true", help="all that live")
    add_dry_run(command)
    add_yes(command)

    def check(args: argparse.Namespace) -> None:
        if bool(args.workers) == args.all:
            command.error("name the workers, or say --all (`agentmux ps` lists them)")

    command.set_defaults(check=check)


def _add_tasks(commands: Commands) -> None:
    tasks = commands.add("tasks", None, "list, show, seed and steer tasks")
    below = Commands(tasks.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    ls = below.add("ls", f"{READING}:list_tasks", "list tasks", json=True)
    add_selection(ls)
    ls.add_argument(
        "words",
        nargs="*",
        metavar="FILTER",
        help="words, state:failed,blocked, agent:codex, name:/^impl/, !word; all must hold",
    )
    show = below.add("show", f"{READING}:show_task", "show all about one task", json=True)
    show.add_argument("id", metavar="ID")
    seed = below.add(
        "seed",
        f"{STEERING}:seed",
        "bring the store in line with a DAG file",
        json=True,
        more="Tasks that lack a program, a login, a prompt or a repository are BLOCKED and named, "
        "with what to do; --dry-run names them, too, and stores nothing.",
    )
    add_dag(seed)
    add_dry_run(seed)
    _add_order(below, "cancel", "end tasks for good, and the runs that hold them", _ASKS)
    _add_order(below, "release", "take tasks from their workers: READY again", _ASKS_BULK)
    retry = _add_order(below, "retry", "make finished or blocked tasks READY again", _ASKS_BULK)
    retry.add_argument(
        "--downstream",
        action="store_true",
        help="and every finished task that depends on them, however far down; asks, too",
    )
    kill = _add_order(below, "kill", "end the runs of tasks, which are FAILED then", _ASKS)
    kill.add_argument("--force", action="store_true", help="SIGKILL at once, not SIGTERM first")
    _add_order(below, "purge", "remove tasks and the record of their runs", _ASKS)
    unlock = commands.add(
        "unlock", f"{STEERING}:release", "the same as `tasks release`", json=True, more=_ASKS_BULK
    )
    unlock.add_argument("ids", nargs="+", metavar="ID")
    add_dry_run(unlock)
    add_yes(unlock)
    unlock.set_defaults(state=None, agent=None)


def _add_order(below: Commands, name: str, text: str, more: str) -> argparse.ArgumentParser:
    order = below.add(name, f"{STEERING}:{name}", text, json=True, more=more)
    order.add_argument(
        "ids", nargs="*", metavar="ID", help="with --state or --agent: those of them that match"
    )
    add_selection(order)
    add_dry_run(order)
    add_yes(order)
    need(order, "ids", "state", "agent", what="name tasks, or choose them by --state or --agent")
    return order


def _add_reading(commands: Commands) -> None:
    ps = commands.add("ps", f"{READING}:list_workers", "list workers", json=True)
    ps.add_argument("--all", action="store_true", help="those that ended, too")
    explain = commands.add(
        "explain", f"{READING}:explain", "say why a task is not running", json=True
    )
    explain.add_argument("id", metavar="ID")
    history = commands.add("history", f"{READING}:history", "list runs, newest first", json=True)
    history.add_argument("id", nargs="?", metavar="ID", help="of this task only")
    history.add_argument(
        "--limit", type=at_least_one, default=-1, metavar="N", help="the newest N only"
    )
    events = commands.add("events", f"{READING}:events", "print what happened", json=True)
    events.add_argument(
        "--since", type=seq, default=0, metavar="SEQ", help="only what came after this number"
    )
    events.add_argument("--follow", action="store_true", help="go on with what happens from now on")
    _add_transcript(commands)
    _add_status(commands)


def _add_transcript(commands: Commands) -> None:
    transcript = commands.add(
        "transcript",
        f"{TRANSCRIPT}:transcript",
        "show what the agent of a run said and did",
        json=True,
        more="At the end, with --json too: messages, tool uses, turns, tokens, cost, how it ended.",
    )
    transcript.add_argument("task", metavar="TASK", help="its newest run, unless --run")
    transcript.add_argument(
        "--run", metavar="R", help="an attempt number or the id of a run, see `agentmux history`"
    )
    transcript.set_defaults(meant="--run")
    transcript.add_argument(
        "--detailed", action="store_true", help="all of long texts, arguments and results"
    )
    transcript.add_argument(
        "--follow",
        action="store_true",
        help="go on with what comes until the run is over; without --run, with the runs after it",
    )


def _add_status(commands: Commands) -> None:
    status = commands.add("status", f"{READING}:status", "write and print status.md", json=True)
    status.add_argument(
        "--watch",
        action="store_true",
        help="tell in plain sentences, line after line, what happens, until Ctrl+C; write nothing",
    )
    status.add_argument(
        "--every",
        type=seconds,
        metavar="S",
        help="with --watch: at least so many seconds between two summaries (default: 10)",
    )
    status.add_argument(
        "--until-done",
        action="store_true",
        help="with --watch: end when no task is left to work; 1 unless all are done",
    )

    def check(args: argparse.Namespace) -> None:
        if not args.watch and (args.every is not None or args.until_done):
            status.error("--every and --until-done go with --watch")
        args.every = 10.0 if args.every is None else args.every

    status.set_defaults(check=check)


def _add_fleet(commands: Commands) -> None:
    for name, text in (("hold", "stop claiming tasks"), ("resume", "claim tasks again")):
        command = commands.add(name, f"{STEERING}:{name}", text, json=True)
        command.add_argument(
            "agent", nargs="?", default=ALL_AGENTS, metavar="AGENT", help="(default: all)"
        )
        add_dry_run(command)
    reset = commands.add(
        "reset",
        f"{STEERING}:reset",
        "hold claims, stop all workers, rotate the log, seed anew, resume",
        json=True,
        more=f"If a worker is still alive when the time is over nothing is reset. {_ASKS}",
    )
    add_dag(reset, "--dag")
    reset.add_argument(
        "--force", action="store_true", help="kill the workers that are still alive then"
    )
    reset.add_argument(
        "--timeout",
        type=seconds,
        default=15.0,
        metavar="S",
        help="seconds to wait for the workers (default: 15)",
    )
    reset.add_argument(
        "--fresh", action="store_true", help="also begin every task anew that is in the DAG"
    )
    add_dry_run(reset)
    add_yes(reset)


def _add_work_limits(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=workers,
        default=1,
        metavar="N",
        help="workers for each agent of the DAG, 1 to 64 (default: 1)",
    )
    command.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="stop gracefully after this many seconds and exit 1",
    )


def _add_services(commands: Commands) -> None:
    up = commands.add(
        "up",
        f"{WORKING}:up",
        "start services, wait until they are ready, and work through a DAG",
        more="Without a DAG it keeps the services until Ctrl+C. They end with it.",
    )
    add_dag(up)
    _add_work_limits(up)
    services = commands.add("services", None, "list, start, stop and restart services")
    below = Commands(services.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    below.add("ls", f"{SERVICES}:list_services", "list services", json=True)
    for name, text in (
        ("start", "start services, and what they depend on"),
        ("stop", "end services, and all that they have started"),
        ("restart", "end services and start them anew"),
    ):
        command = below.add(name, f"{SERVICES}:{name}", text, json=True)
        command.add_argument("services", nargs="*", metavar="SERVICE", help="(default: all)")
        add_dry_run(command)
    logs = below.add("logs", f"{SERVICES}:logs", "print what a service has printed")
    logs.add_argument("service", metavar="SERVICE")
    logs.add_argument("--follow", action="store_true", help="go on with what comes")


def _add_agents(commands: Commands) -> None:
    agents = commands.add(
        "agents", None, "know agents that were started by hand, in tmux or by another tool"
    )
    below = Commands(agents.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    register = below.add("register", f"{AGENTS}:register", "let an agent be known", json=True)
    register.add_argument("agent", metavar="ID")
    register.add_argument("--type", required=True, metavar="T", help="claude, codex, anything")
    register.add_argument(
        "--pid", type=at_least_one, metavar="P", help="its process: it is there while that is"
    )
    register.add_argument(
        "--tmux", metavar="SESSION:WINDOW", help="its window: it is there while that is"
    )
    register.add_argument(
        "--meta", type=pair, action="append", default=[], metavar="K=V", help="anything else"
    )
    add_dry_run(register)
    beat = below.add("beat", f"{AGENTS}:beat", "say that it is alive", json=True)
    beat.add_argument("agents", nargs="+", metavar="ID")
    unregister = below.add("unregister", f"{AGENTS}:unregister", "forget it", json=True)
    unregister.add_argument("agents", nargs="+", metavar="ID")
    unregister.add_argument(
        "--end", action="store_true", help="end its window and its process first"
    )
    add_yes(unregister)
    add_dry_run(unregister)
    below.add("ls", f"{AGENTS}:list_agents", "list them", json=True)


def _add_alerts(commands: Commands) -> None:
    alerts = commands.add("alerts", None, "list, show and acknowledge alerts")
    below = Commands(alerts.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    ls = below.add("ls", f"{ALERTS}:list_alerts", "list alerts that wait for somebody", json=True)
    ls.add_argument("--all", action="store_true", help="those that were acknowledged, too")
    show = below.add("show", f"{ALERTS}:show", "print all that an alert tells", json=True)
    show.add_argument("alert", type=at_least_one, metavar="N", help="its number")
    ack = below.add("ack", f"{ALERTS}:acknowledge", "say that somebody has seen to them", json=True)
    ack.add_argument("alerts", type=at_least_one, nargs="*", metavar="N", help="their numbers")
    ack.add_argument("--all", action="store_true", help="all there are")

    def check(args: argparse.Namespace) -> None:
        if bool(args.alerts) == args.all:
            ack.error("name alerts by their numbers, or give --all")

    ack.set_defaults(check=check)


def _add_upkeep(commands: Commands) -> None:
    commands.add(
        "health",
        f"{CHECKING}:health",
        "say how the fleet is, and why; print counts and alerts",
        json=True,
        more="Exit 1 only if degraded, which is an alert of level error.",
    )
    doctor = commands.add(
        "doctor",
        f"{CHECKING}:doctor",
        "look for inconsistencies",
        json=True,
        more="Exit 1 for an inconsistency that is there, or left after a repair; never for a note.",
    )
    doctor.add_argument(
        "--repair", action="store_true", help="mend what can be mended safely, and say what was"
    )
    gc = commands.add(
        "gc",
        f"{COLLECTING}:collect",
        "remove artifacts of finished runs and rotated logs that nothing needs",
        json=True,
        more=_ASKS,
    )
    gc.add_argument(
        "--older-than",
        type=age,
        default="30d",
        metavar="AGE",
        help="only what ended so long ago: 30d, 12h, 90m, 45s (default: 30d)",
    )
    add_dry_run(gc)
    add_yes(gc)


def _add_worktrees(commands: Commands) -> None:
    trees = commands.add("worktrees", None, "list and remove the worktrees of agents")
    below = Commands(trees.add_subparsers(metavar="COMMAND", required=True, dest="subcommand"))
    below.add("ls", f"{WORKTREES}:list_worktrees", "list worktrees", json=True)
    prune = below.add(
        "prune",
        f"{WORKTREES}:prune",
        "remove worktrees whose runs are over",
        json=True,
        more="What is not committed in them is saved under refs/agentmux/saved first, and a branch "
        "with commits stays; so does one in which a run is to go on, until it is old. The clone of "
        f"a URL goes if it is as old, unused, and its remote has all that is in it. {_ASKS}",
    )
    prune.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help="those used last so long ago: 14d, 12h (default: worktrees: days: of agentmux.yaml)",
    )
    prune.add_argument(
        "--keep",
        type=at_least_none,
        metavar="N",
        help="all but the newest N (default: worktrees: keep: of agentmux.yaml)",
    )
    add_dry_run(prune)
    add_yes(prune)
