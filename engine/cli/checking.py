"""The commands that check: doctor and health."""

from __future__ import annotations

import asyncio
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from engine.care.health import take_health
from engine.care.inspection import inspect
from engine.cli.progress import slow_steps
from engine.cli.render import (
    Column,
    heading,
    paint,
    print_table,
    say,
    say_json,
    say_json_list,
    say_raw,
    use_colour,
)
from engine.cli.session import existing_engine, require_store
from engine.commands import Step
from engine.config import load_config, settings_file
from engine.core import Engine
from engine.errors import AgentmuxError
from engine.executors import builtin_executors, plugins
from engine.figures import TOTALS, describe_counters, describe_health, totals_row
from engine.files import Layout
from engine.findings import Finding, Level
from engine.github import GithubError, find_gh
from engine.model import to_json
from engine.text import age, clean_text
from engine.views import HealthStatus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from engine.care.health import Report
    from engine.views import Metrics

_OF_STATUS = {
    HealthStatus.OK: "good",
    HealthStatus.WARNING: "human",
    HealthStatus.DEGRADED: "bad",
}
_STYLES = {Level.ERROR: "bad", Level.WARNING: "human", Level.NOTE: "dim"}


async def doctor(args: argparse.Namespace) -> int:
    """`doctor`: exit 1 for an inconsistency that is there, or left, but never for a note."""
    require_store(args.state_dir)
    done: list[str] = []
    with slow_steps() as on_step:
        if args.repair:
            async with Engine(args.state_dir, on_step=on_step, deep=True) as engine:
                on_step(Step("mending"))
                done = [*engine.notices, *await engine.repair()]
        on_step(Step("looking for inconsistencies"))
        findings = await inspect(Layout(args.state_dir.absolute()))
    findings += _in_settings(settings_file(Path.cwd(), args.state_dir))
    findings += await asyncio.to_thread(_in_packages)
    if args.json:
        _say_as_json(findings, done if args.repair else None)
    else:
        _say_to_people(findings, done, repaired=args.repair)
    return 1 if any(finding.level is Level.ERROR for finding in findings) else 0


def _in_settings(path: Path) -> list[Finding]:
    """Find what is wrong with the settings: no worker starts then, but nothing is lost."""
    try:
        config = load_config(path)
    except AgentmuxError as error:
        return [Finding(Level.WARNING, "settings", str(error), f"mend {path}")]
    if config.github is None:
        return []
    try:
        find_gh()
    except GithubError as error:
        what = f"issues of {config.github.repo} cannot be asked for: {error}"
        return [Finding(Level.WARNING, "github", what, f"install it, or mend {path}")]
    return []


def _in_packages() -> list[Finding]:
    """Find what is wrong with the executors of other packages: their own tasks are blocked."""
    advice = "mend or remove the package, then restart the workers"
    troubles = plugins.find(builtin_executors()).troubles
    return [Finding(Level.WARNING, "executors", trouble, advice) for trouble in troubles]


def _say_as_json(findings: Sequence[Finding], done: Sequence[str] | None) -> None:
    if done is None:
        say_json_list(to_json(finding) for finding in findings)
    else:
        say_json({"mended": done, "findings": to_json(list(findings))})


def _say_to_people(findings: Sequence[Finding], done: Sequence[str], *, repaired: bool) -> None:
    for sentence in done:
        _say_marked("mended", "good", sentence)
    if repaired and not done:
        say("nothing was mended")
    for (_, advice), group in groupby(findings, key=lambda one: (one.check, one.advice)):
        for finding in group:
            style = _STYLES[finding.level]
            _say_marked(finding.level.value, style, f"{finding.check}: {finding.message}")
        if advice:
            say(f"  what to do: {advice}")
    if not any(finding.level is Level.ERROR for finding in findings):
        say("no inconsistency is left" if done else "no inconsistency found")


async def health(args: argparse.Namespace) -> int:
    """`health`: exit 1 only when degraded, which is an alert of level error."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        seen = await take_health(engine.layout, engine.project, engine.config, engine.clock)
        metrics = await engine.queries.metrics()
    if args.json:
        say_json(to_json(seen) | {"metrics": to_json(metrics)})
    else:
        _say_health(seen)
        _say_metrics(metrics)
    return 1 if seen.degraded else 0


def _say_health(seen: Report) -> None:
    words = describe_health(seen.health)
    say_raw(paint(words, _OF_STATUS[seen.status], colour=use_colour()))
    oldest = seen.oldest_running_age
    age_of_oldest = "" if oldest is None else f", the oldest for {age(oldest / 1000)}"
    say(
        f"{seen.running_count:,} running{age_of_oldest}; "
        f"{seen.max_concurrent:,} can run at once now"
    )
    say(
        f"{seen.queued_count:,} queued, {seen.waiting_count:,} waiting, "
        f"{seen.blocked_count:,} blocked, {seen.completed_count:,} completed, "
        f"{seen.failed_count:,} failed"
    )
    if seen.alerts:
        heading("alerts")
    for alert in seen.alerts:
        _say_marked(alert.level.value, _STYLES[alert.level], f"{alert.kind}: {alert.message}")


def _say_metrics(metrics: Metrics) -> None:
    agents = metrics.of_agents()
    if not agents:
        return
    heading("runs since the beginning")
    print_table(
        [Column("agent", yields=1), *(Column(title, right=True) for title in TOTALS[1:])],
        map(totals_row, agents),
    )
    say(describe_counters(metrics))


def _say_marked(word: str, style: str, text: str) -> None:
    say_raw(f"{paint(word, style, colour=use_colour())}: {clean_text(text)}")
