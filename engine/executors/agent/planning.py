"""What a task of kind `agent` asks for, checked: which program, which prompt, which repository.

Looks, and makes nothing. What is wrong here is wrong at the next attempt, too.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.agents.clis import Cli, check_model, cli_for, environment, missing_login
from engine.errors import ValidationError
from engine.executors.programs import Refused, find_program, inherited
from engine.files import open_regular
from engine.github import GithubError, find_gh, repository_of
from engine.parsing.prompts import find_faults
from engine.text import clean_text
from engine.workspaces import (
    Source,
    WorkspaceError,
    can_commit,
    check_source,
    origin_of,
    place_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.config import Config
    from engine.executors.base import Site
    from engine.model import TaskDef

_LARGEST_PROMPT = 4 * 1024 * 1024
_PATIENCE = 10.0
"""Seconds that all repositories together are looked at beforehand."""


class Expected(Struct, frozen=True):
    """What has to be there when the agent is through: a `commit`, a `pull_request`, a `file`."""

    commit: bool = False
    pull_request: bool = False
    file: str | None = None


class Plan(Struct, frozen=True):
    """A task that can be carried out. `program` is a path, `prompt` has its holes still.

    `setup` is what runs before the agent, its first word a path; empty if nothing does.
    `variables` are those of the agent, before its worktree and the run's tag are added.
    """

    cli: Cli
    program: str
    prompt: str
    model: str | None
    source: Source
    expected: Expected
    setup: tuple[str, ...]
    variables: Mapping[str, str]


class _Means(Struct, frozen=True):
    """What all tasks of one CLI share; see Plan."""

    cli: Cli
    program: str
    setup: tuple[str, ...]
    variables: Mapping[str, str]


class Planner:
    """Plans tasks; what many of them share is looked for once. Reads files: not for the loop."""

    def __init__(self, project: Path, config: Config) -> None:
        self._project = project
        self._config = config
        self._known: dict[str, _Means | str] = {}

    def plan(self, task: TaskDef) -> Plan:
        """Return what a task asks for.

        Raises:
            Refused: it cannot be carried out as things are; the text says what to do.

        """
        payload = task.payload
        means = self._means(payload.get("cli") or task.agent)
        model, expected = payload.get("model"), _expected(payload.get("expect"))
        try:
            check_model(means.cli, model)
            if expected.pull_request:
                find_gh()
        except (ValidationError, GithubError) as error:
            raise Refused(str(error)) from error
        return Plan(
            cli=means.cli,
            program=means.program,
            prompt=_prompt(task, self._project),
            model=model,
            source=Source.read(payload.get("workspace"), self._project),
            expected=expected,
            setup=means.setup,
            variables=means.variables,
        )

    def _means(self, name: str) -> _Means:
        known = self._known.get(name)
        if known is None:
            try:
                known = _find_means(name, self._project, self._config)
            except Refused as refusal:
                known = str(refusal)
            self._known[name] = known
        if isinstance(known, str):
            raise Refused(known)
        return known


async def find_unfit(tasks: Sequence[TaskDef], site: Site) -> dict[str, str]:
    """Return why tasks cannot be carried out as things are, by id; see `Checker.preflight`."""
    unfit, wanted = await asyncio.to_thread(_plan_all, tasks, site)
    with suppress(TimeoutError):  # what is not known by then the runs will tell
        async with asyncio.timeout(_PATIENCE):
            for want, (plan, task_ids) in wanted.items():
                if error := await _why_unusable(want, plan, site):
                    unfit |= dict.fromkeys(task_ids, error)
    return unfit


class _Want(Struct, frozen=True):
    """What tasks want of a repository: pull requests, commits by the CLI of that name."""

    source: Source
    pulls: bool
    commits: str | None


def _plan_all(
    tasks: Sequence[TaskDef], site: Site
) -> tuple[dict[str, str], dict[_Want, tuple[Plan, list[str]]]]:
    """Return why tasks cannot be done, and what the others want: one's plan, and the ids of all."""
    planner, unfit = Planner(site.project, site.config), {}
    wanted: dict[_Want, tuple[Plan, list[str]]] = {}
    for task in tasks:
        try:
            plan = planner.plan(task)
        except Refused as refusal:
            unfit[task.id] = str(refusal)
        else:
            wanted.setdefault(_want(plan), (plan, []))[1].append(task.id)
    return unfit, wanted


def _want(plan: Plan) -> _Want:
    expected = plan.expected
    # Whose name is in a clone that is not made yet, or what a setup or a command of the operator's
    # own see to, nobody knows.
    known = plan.source.url is None and not plan.setup and plan.cli.login is not None
    commits = known and (expected.commit or expected.pull_request)
    return _Want(plan.source, expected.pull_request, plan.cli.name if commits else None)


async def _why_unusable(want: _Want, plan: Plan, site: Site) -> str | None:
    place, source = place_of(site.layout, site.project, site.config.worktrees), want.source
    try:
        await check_source(place, source, site.project)
        if want.commits and not await can_commit(site.project, plan.variables):
            return (
                "it expects a commit, and git does not know in whose name: set user.name and "
                "user.email with `git config`, then retry the task"
            )
        if want.pulls and repository_of(await origin_of(source, site.project) or "") is None:
            return (
                "it expects a pull request, and its repository has no origin on GitHub; give it "
                "one, or expect a commit, then retry the task"
            )
    except WorkspaceError as error:
        return f"no worktree: {error}" if error.hopeless else None
    return None


def _find_means(name: str, project: Path, config: Config) -> _Means:
    cli = _cli(name, config)
    variables = environment(cli, inherited(cli.env_pass, os.environ))
    path = variables.get("PATH", "")
    program = find_program(cli.command[0], project, path)
    if program is None:
        raise Refused(
            f"{clean_text(cli.command[0])!r}, the CLI of {cli.name}, was not found; install it or "
            "mend PATH, then retry the task"
        )
    # Not Path.home: that raises where nobody knows the user, as in some containers.
    home = variables.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
    if hint := missing_login(cli, variables, Path(home)):
        kept = cli.login.signs(os.environ) if cli.login else []
        if kept:
            hint = f"{name} is not logged in: {kept[0]} is not in its `env_pass`; put it there"
        raise Refused(f"{hint}, then retry the task")
    setup = config.setup
    if setup:
        first = find_program(setup[0], project, path)
        if first is None:
            word = clean_text(setup[0])
            raise Refused(f"setup: {word!r} was not found; mend it in agentmux.yaml, then retry")
        setup = (first, *setup[1:])
    return _Means(cli, program, setup, variables)


def _cli(name: str, config: Config) -> Cli:
    try:
        cli = cli_for(name, config.agents.get(name))
    except ValidationError as error:
        raise Refused(str(error)) from error
    if cli is None:
        raise Refused(
            f"agentmux knows no CLI {clean_text(name)!r}: give its `command:` under "
            f"`agents: {clean_text(name)}:` in agentmux.yaml, or name another with `cli:` in the "
            "task's payload; then retry the task"
        )
    return cli


def _prompt(task: TaskDef, project: Path) -> str:
    prompt, name = task.payload.get("prompt"), task.payload.get("promptFile")
    if isinstance(prompt, str):
        return prompt
    if not isinstance(name, str):
        raise Refused(
            "payload: give either prompt or promptFile; mend the DAG, then retry the task"
        )
    shown = clean_text(name)
    try:
        with open_regular(project / name, linked=True) as file:
            data = file.read(_LARGEST_PROMPT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Refused(
            f"the prompt {shown} cannot be read: {why}; mend that, then retry the task"
        ) from error
    if len(data) > _LARGEST_PROMPT:
        raise Refused(f"the prompt {shown} is larger than 4 MiB; make it smaller, then retry")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(
            f"the prompt {shown} is no UTF-8 text; mend it, then retry the task"
        ) from error
    if not text.strip():
        raise Refused(f"the prompt {shown} is empty; write it, then retry the task")
    if fault := next(find_faults(text, task.deps), None):
        raise Refused(f"the prompt {shown}: {fault}; mend it, then retry the task")
    return text


def _expected(value: Any) -> Expected:
    if isinstance(value, dict):
        return Expected(file=value.get("file"))
    return Expected(commit=value == "commit", pull_request=value == "pull-request")
