"""What an operator can ask, as values. `Engine.execute` is the only door that takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.model import ALL_AGENTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.errors import Code


@dataclass(frozen=True, slots=True)
class Seed:
    """Upsert the tasks of a DAG file. None: the file last seeded, else agentmux/dag.yaml."""

    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """No new claims for an agent, or for all."""

    agent: str = ALL_AGENTS


@dataclass(frozen=True, slots=True)
class Resume:
    """Claims again."""

    agent: str = ALL_AGENTS


@dataclass(frozen=True, slots=True)
class Release:
    """Take tasks from their workers and make them READY; uses no retry."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Make tasks READY again that are finished, or BLOCKED `human`; attempts count afresh."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop workers: at once, their tasks released, or with `drain` after the current task."""

    worker_ids: tuple[str, ...]
    drain: bool = False


Command = Seed | Hold | Resume | Release | Retry | Stop


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one part of a command was not done."""

    subject: str
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a command did or, after a dry run, would do.

    `done` says for each subject (a task, a worker, an agent) what happened to it, in words.
    `counts` sums them up, for example `created: 3`.
    """

    dry_run: bool = False
    done: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
