"""`agentmux worktrees`: the worktrees that runs were given, and the removal of those of no use."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from engine import workspaces
from engine.cli.asking import agreed
from engine.cli.progress import busy_if_slow
from engine.cli.render import Cell, Column, complain, print_table, say, say_json, say_json_list
from engine.cli.session import existing_engine
from engine.cli.signals import interruptible, told_if_interrupted
from engine.errors import Code
from engine.files import worktree_folder
from engine.model import to_json
from engine.text import age, plural
from engine.workspaces import Clone, Pruned, Stage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from engine.core import Engine
    from engine.model import Needed
    from engine.workspaces import Place, Record

T = TypeVar("T", Clone, Pruned)

TABLE = (
    Column("task", yields=2, least=12),
    Column("try", right=True, drops=3),
    Column("worktree"),
    Column("branch", yields=1, least=12),
    Column("from", yields=3, drops=2),
    Column("used", right=True, drops=4),
    Column("saved", right=True, drops=5),
    Column("path", yields=4, least=16, drops=1),
)
_REST = "interrupted: what was not removed yet stays; `agentmux worktrees prune` removes the rest"
_COMMIT = 8


async def list_worktrees(args: argparse.Namespace) -> int:
    """`worktrees ls`: every worktree of this state folder, and what it started from."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        place = _place(engine)
        found = await workspaces.list_worktrees(place)
        needed = await engine.needed_runs(record.run for record in found)
        now = engine.clock.now()
    if args.json:
        say_json_list(_as_json(place, record, needed) for record in found)
    elif found:
        print_table(TABLE, [_row(place, record, needed, now) for record in found])
    else:
        say(f"no worktrees in {place.root}: a run of an agent makes one")
    return 0


@interruptible
async def prune(args: argparse.Namespace) -> int:
    """`worktrees prune`: plan, ask, save and remove; exit 1 if one could not be removed."""
    async with existing_engine(args.state_dir, read_only=args.dry_run) as engine:
        with busy_if_slow("looking for worktrees that are over"):
            clones, plan = await _prune(engine, args, dry_run=True)
        sentence = _count(clones, plan)
        if args.dry_run or not sentence:
            if args.json:
                say_json(_pruned_as_json(clones, plan, dry_run=args.dry_run))
            elif sentence:
                say(f"a dry run, nothing was changed; it would remove {sentence}")
                _say_each(clones, plan)
            else:
                say("no worktree is old enough to go, nor are there too many")
            return _complain([*_kept(clones), *_kept(plan)])
        lines = [f"{_name(one)}: {one.why}" for one in _gone(plan)]
        lines += [f"{_name(clone)}: {clone.why}" for clone in _gone(clones)]
        what = "what is uncommitted is saved first, and branches with commits stay"
        if not args.yes and not await agreed(f"remove {sentence}", lines, what):
            return 1
        with busy_if_slow(f"removing {sentence}"), told_if_interrupted(_REST):
            clones, done = await _prune(engine, args, dry_run=False)
    if args.json:
        say_json(_pruned_as_json(clones, done, dry_run=False))
    else:
        say(f"removed {_count(clones, done) or 'nothing'}")
        _say_each(clones, done)
    return _complain([*_kept(clones), *_kept(done)])


def _place(engine: Engine) -> Place:
    return workspaces.place_of(engine.layout, engine.project, engine.config.worktrees)


async def _prune(
    engine: Engine, args: argparse.Namespace, *, dry_run: bool
) -> tuple[list[Clone], list[Pruned]]:
    place, settings, now = _place(engine), engine.config.worktrees, engine.clock.now()
    older_than = timedelta(days=settings.days) if args.older_than is None else args.older_than
    clones = await workspaces.prune_clones(place, older_than=older_than, now=now, dry_run=dry_run)
    found = await workspaces.prune(
        place,
        engine.project,
        keep=settings.keep if args.keep is None else args.keep,
        older_than=older_than,
        now=now,
        dry_run=dry_run,
        needed=engine.needed_runs,
    )
    return clones, found


def _row(place: Place, record: Record, needed: Needed, now: datetime) -> Sequence[Cell | str]:
    working = record.run in needed.at_work
    start = f"{record.base_ref} {record.base[:_COMMIT]}"
    if record.behind:
        start += f", {record.behind} behind"
    return (
        record.task,
        str(record.attempt),
        Cell("in use", "accent") if working else Cell(_word(place, record, needed), "dim"),
        record.branch,
        start,
        age((now - record.used_at).total_seconds()),
        str(len(record.saved)) if record.saved else "",
        str(_path(place, record)),
    )


def _word(place: Place, record: Record, needed: Needed) -> str:
    """Say how it is with a worktree that no run uses."""
    if record.stage in {Stage.MAKING, Stage.REMOVING}:
        return f"half {'made' if record.stage is Stage.MAKING else 'removed'}"
    if not _path(place, record).exists():
        return "gone"  # somebody removed it by hand; the next run there gets it anew
    return "waits" if record.run in needed.waiting else "over"


def _path(place: Place, record: Record) -> Path:
    return worktree_folder(place.root, record.task, record.attempt)


def _as_json(place: Place, record: Record, needed: Needed) -> dict[str, object]:
    return {
        **to_json(record),
        "path": str(_path(place, record)),
        "inUse": record.run in needed.at_work,
        "waits": record.run in needed.waiting,
    }


def _pruned_as_json(
    clones: Sequence[Clone], pruned: Sequence[Pruned], *, dry_run: bool
) -> dict[str, object]:
    return {"dryRun": dry_run, "worktrees": _rows(pruned), "clones": _rows(clones)}


def _rows(found: Sequence[Clone | Pruned]) -> list[dict[str, object]]:
    return [{**to_json(one), "path": str(one.path)} for one in found]


def _count(clones: Sequence[Clone], pruned: Sequence[Pruned]) -> str:
    """Say how many of both have gone, or would; empty if none."""
    counts = {"worktree": len(_gone(pruned)), "clone": len(_gone(clones))}
    return " and ".join(plural(count, what) for what, count in counts.items() if count)


def _gone(found: Sequence[T]) -> list[T]:
    return [one for one in found if one.removed]


def _kept(found: Sequence[T]) -> list[T]:
    return [one for one in found if not one.removed]


def _complain(kept: Sequence[Clone | Pruned]) -> int:
    """Say what had to stay; return the exit code."""
    for one in kept:
        complain(Code.IO_ERROR, f"{_name(one)} stays: {one.why}")
    return 1 if kept else 0


def _name(one: Clone | Pruned) -> str:
    return f"the clone of {one.url}" if isinstance(one, Clone) else f"{one.task}, try {one.attempt}"


def _say_each(clones: Sequence[Clone], pruned: Sequence[Pruned]) -> None:
    for clone in _gone(clones):
        say(f"{_name(clone)}: {clone.why}")
    for one in _gone(pruned):
        told = [one.why]
        if one.saved is not None:
            told.append(f"what no branch has is {one.saved}")
        if one.branch_removed:
            told.append(f"{one.branch} had no commits and went, too")
        say(f"{_name(one)}: {'; '.join(told)}")
