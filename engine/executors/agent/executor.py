"""One run of an agent: its worktree, its program, its outcome, and what it leaves behind.

Whatever ends the run — success, failure, a stop, a kill, its time — what is not committed in its
worktree is saved to a ref before this returns; if this process dies, whoever finds the run does
it (engine.reaper).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from engine.agents.clis import command_line, plain_text
from engine.errors import AgentmuxError, LeaseLost, ValidationError
from engine.executors.agent.following import Follower
from engine.executors.agent.planning import Planner, find_unfit
from engine.executors.agent.reporting import STOPPED, End, report, telling_line
from engine.executors.agent.watching import StopFile, finish_unless
from engine.executors.capping import Caps
from engine.executors.programs import Program, Refused, ending, make_private, start, tail
from engine.files import shown_path, write_private
from engine.model import NO_WORKTREE, Outcome, RunOutcome
from engine.parsing.prompts import fill
from engine.processes.trees import environment
from engine.secrets import redact, redact_all
from engine.shield import heed_cancellation, shielded
from engine.text import clean_text
from engine.workspaces import (
    WorkspaceError,
    ensure_worktree,
    finished,
    is_lasting,
    place_of,
    saved_run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.executors.agent.planning import Plan
    from engine.executors.base import RunContext, Site
    from engine.model import TaskDef
    from engine.processes.trees import Child
    from engine.workspaces import Place, Saved, Worktree

log = logging.getLogger(__name__)

_OURS = ("workspace", "branch", "saved")
"""What of a result we have named ourselves: whoever goes on from there must find it."""


class AgentExecutor:
    """Runs the CLI of `cli` (default: the task's agent) with a prompt, in a worktree of its own.

    The run's folder gets prompt.md, agent.json, transcript.jsonl, transcript.times, stderr.log and
    result.json; setup.log if there is a setup.
    """

    prepares = True

    async def preflight(self, tasks: Sequence[TaskDef], site: Site) -> dict[str, str]:
        """Look for the CLI, signs of its login, the setup, the prompt's file, the repository."""
        return await find_unfit(tasks, site)

    async def run(self, context: RunContext) -> Outcome:
        """Make the worktree, run the agent in it to its end, save what it left uncommitted.

        Raises:
            TreeSurvived: a process of the run cannot be killed.
            StorageError: the run's processes cannot be looked at.
            LeaseLost: the run lost its task before it began.

        """
        task, config = context.claim.task, context.config
        try:
            plan = await asyncio.to_thread(Planner(context.project, config).plan, task)
            await asyncio.to_thread(make_private, context.artifacts)
        except Refused as refusal:
            return Outcome(RunOutcome.BLOCKED, error=str(refusal))
        except OSError as error:
            return _cannot("start", error)
        place = place_of(context.layout, context.project, config.worktrees)
        context.starting()  # git is the first process of the run
        try:
            worktree = await ensure_worktree(
                place,
                plan.source,
                context.project,
                task.id,
                context.claim.attempt,
                context.claim.run_id,
                context.clock,
                after=await context.before(),
                tag=environment({}, context.claim, context.state_dir),
                needed=context.needed,
            )
        except WorkspaceError as error:
            kind = RunOutcome.BLOCKED if error.hopeless else RunOutcome.FAILED
            return Outcome(kind, error=f"{NO_WORKTREE}{error}")
        except asyncio.CancelledError:
            # It may be ready all the same; then its record has this run at work in it.
            await shielded(self._leave(context, place), reraise=False)
            raise
        try:
            outcome = await _work(context, plan, place, worktree)
        except BaseException:
            # Stopped, killed, timed out or in trouble: nothing of the work may be lost.
            await shielded(self._leave(context, place), reraise=False)
            raise
        saved = await shielded(self._leave(context, place), reraise=False)
        keep = asyncio.to_thread(_keep, context, outcome, saved, plan.variables)
        return await shielded(keep, reraise=False)

    async def _leave(self, context: RunContext, place: Place) -> Saved | str | None:
        """Save what is uncommitted; note that the run is over."""
        task_id, run_id = context.claim.task.id, context.claim.run_id
        saved: Saved | str | None = None
        try:
            saved = await saved_run(place, task_id, run_id)
        except AgentmuxError as error:
            # It is in the worktree still, and nothing removes that before it is saved.
            saved = f"what is not committed could not be saved: {error}"
            log.warning("%s: %s", task_id, saved)
        try:
            await finished(place, task_id, run_id, context.clock)
        except AgentmuxError as error:
            log.warning("worktrees: %s", error)
        return saved


async def _work(context: RunContext, plan: Plan, place: Place, worktree: Worktree) -> Outcome:
    """Run the setup and the agent in a worktree, and say how that ended."""
    folder, began = context.artifacts, context.clock.monotonic()
    variables = worktree.environment(plan.variables)
    stop = await asyncio.to_thread(StopFile, worktree.path)
    try:
        prompt = await _prompt(context, plan, worktree)
        argv = command_line(
            plan.cli,
            prompt=prompt,
            model=plan.model,
            workspace=worktree.path,
            gitdir=worktree.repo,
            admin=worktree.admin,
        )
        await asyncio.to_thread(_note, context, plan, worktree, prompt)
        if plan.setup and (failed := await _set_up(context, plan.setup, worktree, variables, stop)):
            return failed
    except (Refused, ValidationError) as refusal:
        return Outcome(RunOutcome.BLOCKED, error=str(refusal))
    except OSError as error:
        return _cannot("prepare", error)
    await context.begin()
    settings = context.config.agents.get(plan.cli.name)
    lines, stderr = folder / "transcript.jsonl", folder / "stderr.log"
    child: Child | None = None
    follower = Follower(
        form=plan.cli.format,
        folder=worktree.path,
        lines=lines,
        times=folder / "transcript.times",
        clock=context.clock,
        prices=settings.prices if settings is not None else None,
        progress=context.progress,
        variables=variables,
        timeout=context.claim.task.timeout,
    )
    program = Program((plan.program, *argv[1:]), worktree.path, variables)
    given = folder / "prompt.md" if plan.cli.prompt == "stdin" else None
    try:
        async with (
            Caps(sys.maxsize, lines, secrets=variables),  # of what it says no line is left out
            Caps(context.config.shell.max_output, stderr, secrets=variables),
            follower,
        ):
            child = start(context, program, stdout=lines, stderr=stderr, stdin=given)
            reasons = (stop.is_asked, follower.is_through, follower.is_in_vain)
            code, why = await finish_unless(context, child, *reasons)
    except Refused as refusal:
        return Outcome(RunOutcome.BLOCKED, error=str(refusal))
    except OSError as error:
        return _cannot("start", error)
    except BaseException as error:
        reaped = child.reap() if child is not None else None
        done = isinstance(error, asyncio.CancelledError) and follower.has_succeeded()
        if reaped is None or not done:
            await shielded(_tell_spending(follower), reraise=False)
            raise
        # It was stopped, but had given its result by then.
        code, why = reaped, follower.is_through
    stopped = why == stop.is_asked
    if stopped:
        await shielded(asyncio.to_thread(stop.take_away), reraise=False)
    took = round((context.clock.monotonic() - began) * 1000)
    through = why == follower.is_through or (stopped and follower.has_succeeded())
    vain = why == follower.is_in_vain
    end = End(code, took, stopped=stopped, through=through, vain=vain)
    # Once the agent is through, a stop must not lose its result.
    work = report(context, plan, place, worktree, follower, end)
    return await shielded(work, reraise=False)


async def _prompt(context: RunContext, plan: Plan, worktree: Worktree) -> str:
    results = await context.results()
    plain = partial(plain_text, plan.cli)
    prompt = fill(plan.prompt, _fields(context, worktree), results, plain=plain)
    return prompt.encode(errors="replace").decode()  # halves of characters that JSON can hold


async def _tell_spending(follower: Follower) -> None:
    try:
        await follower.tell_all()
    except LeaseLost:
        log.debug("its claim was taken")


def _fields(context: RunContext, worktree: Worktree) -> dict[str, object]:
    task = context.claim.task
    return {
        "id": task.id,
        "name": task.name,
        "agent": task.agent,
        "attempt": context.claim.attempt,
        "priority": task.priority,
        "timeout": f"{task.timeout:g}",
        "branch": worktree.branch,
        "base": worktree.base,
    }


def _note(context: RunContext, plan: Plan, worktree: Worktree, prompt: str) -> None:
    about = {
        "cli": plan.cli.name,
        "format": plan.cli.format,
        "folder": str(worktree.path),
        "branch": worktree.branch,
        "base": worktree.base,
        "made": worktree.made,
    }
    write_private(context.artifacts / "prompt.md", prompt)
    write_private(context.artifacts / "agent.json", json.dumps(about, ensure_ascii=False) + "\n")


async def _set_up(
    context: RunContext,
    setup: tuple[str, ...],
    worktree: Worktree,
    variables: Mapping[str, str],
    stop: StopFile,
) -> Outcome | None:
    """Run the operator's setup in the worktree; return the outcome if nothing is to follow.

    Raises:
        Refused: it will not start the next time either.
        OSError: it cannot be started.

    """
    output = context.artifacts / "setup.log"
    async with Caps(context.config.shell.max_output, output, secrets=variables):
        program = Program(setup, worktree.path, variables)
        child = start(context, program, stdout=output, stderr=output)
        code, why = await finish_unless(context, child, stop.is_asked)
    context.starting()  # that was one tree of the run; the agent's is to come
    heed_cancellation()  # a setup has no result that could be lost
    if why is not None:
        await asyncio.to_thread(stop.take_away)
        return Outcome(RunOutcome.BLOCKED, error=STOPPED)
    if code == 0:
        return None
    said = telling_line(await asyncio.to_thread(tail, output, variables))
    error = f"setup failed ({ending(code)})" + (f": {said}" if said else "")
    where = shown_path(output, context.project)
    return Outcome(RunOutcome.FAILED, error=f"{error}; see {where}", exit_code=code)


def _keep(
    context: RunContext,
    outcome: Outcome,
    saved: Saved | str | None,
    variables: Mapping[str, str],
) -> Outcome:
    """Return the outcome with what was saved, and write its result beside the transcript.

    Nothing in it that others have named shows one of the secrets in `variables`.
    """
    if outcome.error is not None:
        outcome = replace(outcome, error=redact(outcome.error, variables))
    if outcome.result is None:
        return outcome
    result: dict[str, Any] = dict(outcome.result)
    if isinstance(saved, str):
        _add_note(result, saved)
    elif saved is not None:
        result["saved"] = saved.ref
        if saved.missing:
            result["notSaved"] = list(saved.missing)
    ours = {name: result[name] for name in _OURS if name in result}
    result = redact_all(result, variables) | ours
    try:
        text = json.dumps(result, ensure_ascii=False)
        write_private(context.artifacts / "result.json", f"{text}\n")
    except OSError as error:  # the work is done: its result goes to the store in any case
        _add_note(result, f"result.json could not be written: {error.strerror}")
    return replace(outcome, result=result)


def _add_note(result: dict[str, Any], note: str) -> None:
    result["note"] = f"{result['note']}; {note}" if "note" in result else note


def _cannot(what: str, error: OSError) -> Outcome:
    where = f"{error.filename}: " if error.filename else ""
    why = clean_text(f"cannot {what}: {where}{error.strerror}")
    if is_lasting(error):
        return Outcome(RunOutcome.BLOCKED, error=f"{why}; mend that, then retry the task")
    return Outcome(RunOutcome.FAILED, error=why)
