"""What a person should look at, and what to do about it: decided from what was seen. Pure.

Each threshold stands here with its reason; who looks, and how often, is `health`'s.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from engine.care.facts import Alert, Facts, Kind
from engine.care.leftovers import orphans
from engine.clock import to_iso
from engine.findings import CAP, RESET_ADVICE, RESET_BEGUN, Level
from engine.machine import ENDING_SECONDS
from engine.model import ACTIVE, ALL_AGENTS, LOOK, UP, HoldCause, ServiceState, State, WorkerStatus
from engine.narrate import how_lifted
from engine.text import age, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.store.vitals import HoldingRun, KnownWorker, Vitals

STUCK_SECONDS = 1800.0
"""A run older than this is told: half the default time limit, so there is still time to look."""
FEW_FAILURES = 5
"""Fewer runs that failed within an hour tell nothing yet, however few completed."""
MOST_WORKTREE_FAILURES = 10
"""One or a few are a hiccup of git or of a disk; beyond that, no run gets one any more."""
LONG_QUEUE = 10
"""More claimable tasks than this wait for nothing but a worker: add some, or mend what stops
them."""

_HELD_BY = {HoldCause.LOGIN: Kind.LOGIN, HoldCause.BUDGET: Kind.BUDGET}
"""What holds claims until somebody does something about it; others end as they were meant to."""


def stale(facts: Facts) -> list[KnownWorker]:
    """Return the workers that should live, but are silent or whose process is gone."""
    patience = timedelta(seconds=facts.stale_after)
    return [
        worker
        for worker in facts.vitals.workers
        if worker.host not in facts.alive or facts.now - worker.beat_at > patience
    ]


def judge(facts: Facts) -> tuple[Alert, ...]:
    """Say what a person should look at, errors first."""
    alerts = [
        *_inconsistencies(facts.vitals),
        *_orphans(facts),
        *_endings(facts),
        *_stale_workers(facts),
        *_resetting(facts.vitals),
        *_worktrees(facts),
        *_disks(facts),
        *_services(facts),
        *_failing(facts),
        *_noticed(facts.vitals),
        *_stuck(facts),
        *_unserved(facts),
        *_queue(facts.vitals),
        *_held(facts.vitals),
        *_unpriced(facts.vitals),
        *_feeds(facts),
    ]
    order = list(Level)
    return tuple(sorted(alerts, key=lambda alert: order.index(alert.level)))


def _stale_workers(facts: Facts) -> Iterator[Alert]:
    held = {run.worker_id: run for run in facts.vitals.runs}
    for worker in stale(facts):
        run = held.get(worker.id)
        if worker.host in facts.alive:
            what = f"worker {worker.id!r} (pid {worker.host.pid}) is silent"
            advice = f"is its process stopped or hung? `agentmux kill {worker.id}` ends it"
        else:
            what = f"worker {worker.id!r} is gone without a word (pid {worker.host.pid})"
            advice = "the next worker that starts cleans up after it, or `agentmux doctor --repair`"
        silence = age((facts.now - worker.beat_at).total_seconds())
        holds = f" and holds task {run.task_id!r}" if run is not None else ""
        level = Level.WARNING if run is None else Level.ERROR
        message = f"{what} for {silence}{holds}; {advice}"
        yield Alert(level, Kind.STALE, worker.id, message)


def _orphans(facts: Facts) -> Iterator[Alert]:
    if isinstance(facts.processes, str):
        message = f"nobody can tell whether processes were left behind: {facts.processes}"
        yield Alert(Level.NOTE, Kind.ORPHAN, None, message)
        return
    kept = bool(facts.vitals.keepers & facts.alive)
    for run_id, left in orphans(facts.processes, facts.vitals, kept=kept).items():
        if run_id.startswith(LOOK):
            continue  # it is over in seconds; the next start ends one that is not
        pids = ", ".join(str(process.pid) for process in left)
        yield Alert(
            Level.ERROR,
            Kind.ORPHAN,
            run_id,
            f"run {run_id} holds no task, but processes of it live: {pids}; "
            "`agentmux doctor --repair` ends them",
        )


def _endings(facts: Facts) -> Iterator[Alert]:
    for run in facts.vitals.leaving:
        span = (facts.now - run.since).total_seconds()
        if span > ENDING_SECONDS:
            yield Alert(
                Level.ERROR,
                Kind.ENDING,
                run.run_id,
                f"run {run.run_id} lost task {run.task_id!r} {age(span)} ago, and its processes "
                "are not known to be gone; `agentmux doctor --repair` ends them",
            )


def _inconsistencies(vitals: Vitals) -> Iterator[Alert]:
    flaws = {run.task_id: run.flaw for run in vitals.runs if run.flaw}
    for (agent, state, _), n in vitals.tallies.items():
        if n < 0:
            flaws[agent] = f"the tallies table counts {n} tasks {state} of {agent}"
    active = sum(n for (_, state, _), n in vitals.tallies.items() if state in ACTIVE)
    if active != len(vitals.runs):
        flaws["tallies"] = (
            f"{plural(len(vitals.runs), 'task')} {'are' if len(vitals.runs) != 1 else 'is'} "
            f"claimed or running, the tallies table says {active}"
        )
    for subject, flaw in flaws.items():
        yield Alert(
            Level.ERROR, Kind.INCONSISTENCY, subject, f"{flaw}; `agentmux doctor` says what to do"
        )


def _resetting(vitals: Vitals) -> Iterator[Alert]:
    if vitals.resetting:
        yield Alert(
            Level.WARNING,
            Kind.RESET,
            None,
            f"{RESET_BEGUN}; {RESET_ADVICE}",
        )


def _stuck(facts: Facts) -> Iterator[Alert]:
    old: list[tuple[float, HoldingRun]] = []
    for run in facts.vitals.runs:
        if run.since is not None:
            span = (facts.now - run.since).total_seconds()
            if span > STUCK_SECONDS:
                old.append((span, run))
    old.sort(key=lambda one: -one[0])
    for span, run in old[:CAP]:
        yield Alert(
            Level.WARNING,
            Kind.STUCK,
            run.task_id,
            f"task {run.task_id!r} has been with {run.worker_id} for {age(span)}, longer than "
            f"{STUCK_SECONDS / 60:.0f} minutes; look at its output, or `agentmux tasks kill` it",
        )
    if len(old) > CAP:
        more = f"and {len(old) - CAP:,} more runs are older than {STUCK_SECONDS / 60:.0f} minutes"
        yield Alert(Level.WARNING, Kind.STUCK, None, more)


def _queued(vitals: Vitals) -> Counter[str]:
    queued: Counter[str] = Counter()
    for (agent, state, waits), n in vitals.tallies.items():
        if state is State.READY and not waits and n > 0:
            queued[agent] += n
    return queued


def _queue(vitals: Vitals) -> Iterator[Alert]:
    queued = _queued(vitals)
    if queued.total() > LONG_QUEUE:
        agents = _listed(f"{n:,} for {agent}" for agent, n in queued.most_common())
        yield Alert(
            Level.WARNING,
            Kind.QUEUE,
            None,
            f"{plural(queued.total(), 'task')} are queued, more than {LONG_QUEUE}: {agents}; add "
            "workers with `agentmux worker --agent`",
        )


def _unserved(facts: Facts) -> Iterator[Alert]:
    """Tell of agents that have work which nobody there could ever take."""
    vitals = facts.vitals
    served = {
        worker.agent
        for worker in vitals.workers
        if worker.host in facts.alive and worker.status is WorkerStatus.LIVE
    }
    for agent, n in _queued(vitals).items():
        if agent in served or {agent, ALL_AGENTS} & set(vitals.held):
            continue
        yield Alert(
            Level.WARNING,
            Kind.UNSERVED,
            agent,
            f"no {agent} worker runs, and {plural(n, 'task')} "
            f"{'waits' if n == 1 else 'wait'} for one; "
            f"`agentmux worker --agent {agent} --worker-id {agent}-1` starts one",
        )


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - 5
    return ", ".join([*listed[:5], *([f"{more:,} more agents"] if more > 0 else [])])


def _held(vitals: Vitals) -> Iterator[Alert]:
    queued = _queued(vitals)
    for agent in vitals.held:
        if agent == ALL_AGENTS and vitals.resetting:
            continue  # told already, with what to do
        n = queued.total() if agent == ALL_AGENTS else queued[agent]
        whose = "all agents" if agent == ALL_AGENTS else f"agent {agent!r}"
        cause, reason = vitals.causes.get(agent, (HoldCause.OPERATOR, ""))
        why = f" ({reason})" if reason else ""
        tasks = f"{plural(n, 'queued task')} {'wait' if n != 1 else 'waits'} for it"
        yield Alert(
            Level.WARNING if n else Level.NOTE,
            _HELD_BY.get(cause, Kind.HELD),
            agent,
            f"claims are held for {whose}{why}, {tasks}; {how_lifted(cause, agent)}",
        )


def _unpriced(vitals: Vitals) -> Iterator[Alert]:
    for agent, runs in vitals.unpriced.items():
        yield Alert(
            Level.WARNING,
            Kind.UNPRICED,
            agent,
            f"the budget cannot count agent {agent!r}: {plural(runs, 'run')} of it took tokens and "
            f"told no cost, so one works at a time; give `prices:` under `agents: {agent}:` in "
            "agentmux.yaml, 0 if it costs nothing",
        )


def _feeds(facts: Facts) -> Iterator[Alert]:
    for feed in facts.vitals.feeds:
        if feed.name == facts.feed:  # else nobody wants it any more
            message = f"issues of {feed.name} are not heard of: {feed.error}"
            yield Alert(Level.WARNING, Kind.FEED, feed.name, message)


def _worktrees(facts: Facts) -> Iterator[Alert]:
    if facts.worktree_failures > MOST_WORKTREE_FAILURES:
        yield Alert(
            Level.ERROR,
            Kind.WORKTREES,
            None,
            f"{facts.worktree_failures:,} worktrees in a row could not be made; "
            "`agentmux history` says why: mend that",
        )


def _disks(facts: Facts) -> Iterator[Alert]:
    for disk in facts.disks:
        level = disk.shortage()
        if level is not None:
            yield Alert(level, Kind.DISK, disk.name, disk.words)


def _services(facts: Facts) -> Iterator[Alert]:
    for service in facts.vitals.services:
        name, state = service.name, service.state
        kept = service.keeper in facts.alive
        says = f"service {name!r} is {state}" + (f": {service.message}" if service.message else "")
        level = Level.ERROR
        if kept and state in {ServiceState.UNHEALTHY, ServiceState.FAILED}:
            advice = (
                f"`agentmux services logs {name}` tells more, `agentmux services restart {name}` "
                "tries again"
            )
        elif kept and state is ServiceState.RECOVERING:
            level, advice = Level.WARNING, f"`agentmux services logs {name}` tells each step"
        elif kept and state is ServiceState.WAITING and service.restarts:
            level, advice = Level.WARNING, f"`agentmux services logs {name}` tells more"
        elif not kept and state in UP:
            level, says = Level.WARNING, f"nobody keeps service {name!r}, which was {state}"
            advice = "`agentmux up` starts it again"
        else:
            continue
        yield Alert(level, Kind.SERVICE, name, f"{says}; {advice}")


def _failing(facts: Facts) -> Iterator[Alert]:
    since = to_iso(facts.now - timedelta(hours=1))[:16]
    lately = [ended for minute, ended in facts.vitals.pace.items() if minute >= since]
    done, failed = (sum(column) for column in zip((0, 0), *lately, strict=True))
    if failed > done and failed >= FEW_FAILURES:
        yield Alert(
            Level.WARNING,
            Kind.FAILING,
            None,
            f"in the last hour {plural(failed, 'run')} failed and {done:,} completed; "
            "`agentmux history` says why",
        )


def _noticed(vitals: Vitals) -> Iterator[Alert]:
    if vitals.noticed:
        tell = "tells" if vitals.noticed == 1 else "tell"
        yield Alert(
            Level.WARNING,
            Kind.NOTICED,
            None,
            f"{plural(vitals.noticed, 'alert')} that {tell} of an error "
            f"{'waits' if vitals.noticed == 1 else 'wait'} for somebody; "
            "`agentmux alerts ls` lists, `agentmux alerts ack` acknowledges them",
        )
