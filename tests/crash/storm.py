"""The storm of test_crashes by hand, longer and never the same: `python tests/crash/storm.py`.

    --seed N       the dice (default: random ones; the seed is printed)
    --tasks N      (default 500)
    --kills N      in each round (default 50)
    --minutes M    rounds over one store until the time is up: a soak (default: one round)

Says in numbers what was done, and how much memory the engine in this process had after its first
round and at the end. If a promise is broken it says so and keeps the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.engines import Project
from support.nursery import Nursery
from support.reckoning import check_everything, prepare
from support.storm import AGENTS, Storm, a_storms_dag

from engine import machine
from engine.commands import Retry, Seed
from engine.filters import Filter


def say(sentence: str) -> None:
    """Print a line at once: it may be the last."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


async def soak(project: Project, nursery: Nursery, args: argparse.Namespace) -> None:
    """Let rounds of the storm pass over one store, then reckon."""
    dice = random.Random(args.seed)
    tasks = a_storms_dag(dice, args.tasks)
    storm = Storm(project, nursery, tasks, dice)
    me = psutil.Process()
    memory: list[float] = []
    began = time.monotonic()
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        for agent in AGENTS:
            await engine.start_worker(agent)
        while not memory or time.monotonic() - began < args.minutes * 60:
            if memory:
                await engine.execute(Retry(Filter()))
            await storm.rage(engine, kills=args.kills)
            await storm.calm(engine)
            memory.append(me.memory_info().rss / 2**20)
            say(f"round {len(memory)}, {time.monotonic() - began:.0f} s: {storm.tally}")
    await check_everything(project)
    if storm.tally.errors:
        raise AssertionError(storm.tally.errors)
    kinds = Counter(project.kinds())
    say(
        f"all is well after {time.monotonic() - began:.0f} s: {kinds['TASK_CLAIMED']} runs,"
        f" {kinds['TASK_COMPLETED']} completed, {kinds['LEASE_EXPIRED']} lost with their host,"
        f" {kinds['LATE_RESULT']} late results, {kinds['RESET']} resets,"
        f" {sum(kinds.values())} events; memory {memory[0]:.1f} MiB after the first round,"
        f" {memory[-1]:.1f} MiB at the end, {max(memory):.1f} MiB at most"
    )


def main() -> None:
    """Read the arguments, let the storm loose and clean up after it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=0.0)
    args = parser.parse_args()
    machine.FIRST_BACKOFF = 0.05
    folder = Path(tempfile.mkdtemp(prefix="agentmux-storm-"))
    say(f"--seed {args.seed}, in {folder}")
    project = Project(folder)
    prepare(project)
    with Nursery(folder) as nursery:
        asyncio.run(soak(project, nursery, args))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
