"""Speed and memory as ratios, measured side by side in one run: `python tests/bench/run.py`.

Every ratio is taken within one round, its two sides right after one another in fresh folders on
the same disk; the table gives the median of the rounds and their range. Nothing here is a test:
machines differ, ratios do less.

    --quick        a tenth of the tasks, one round: does it run at all?
    --rounds N     (default 5)
    --only WORDS   rows whose name contains one of these words, separated by commas
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import agents
import load
import screen
import sides
import steering
import talk
import watching
import worktrees

if TYPE_CHECKING:
    from collections.abc import Iterator


Measure = Callable[[Callable[[], Path]], tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what is measured, the target in words, and one round of it.

    `measure` is handed a maker of fresh folders and returns (figure, detail).
    """

    name: str
    target: str
    measure: Measure


def _rows(scale: int) -> list[Row]:
    tasks = 10_000 // scale

    def drained(workers: int) -> Measure:
        def measure(fresh: Callable[[], Path]) -> tuple[float, str]:
            floor = sides.floor(fresh(), tasks)
            ours = sides.engine(fresh(), sides.independent(tasks), workers)
            return floor / ours, f"{tasks / ours:.0f}/s, floor {tasks / floor:.0f}/s"

        return measure

    def processes(fresh: Callable[[], Path]) -> tuple[float, str]:
        floor = sides.floor(fresh(), tasks)
        ours = sides.processes(fresh(), tasks, 4, 2)
        return floor / ours, f"{tasks / ours:.0f}/s, floor {tasks / floor:.0f}/s"

    def chain(fresh: Callable[[], Path]) -> tuple[float, str]:
        commit = sides.floor(fresh(), 1000) / 1000
        hop = sides.engine(fresh(), sides.chain(300), 8) / 300
        return hop / (2 * commit), f"{hop * 1e3:.2f} ms a hop, a commit {commit * 1e3:.2f} ms"

    def seed(fresh: Callable[[], Path]) -> tuple[float, str]:
        path = dag_file(fresh(), tasks)
        alone = sides.yaml_load(path)
        ours = sides.seed(fresh(), path)
        return ours / alone, f"{ours:.2f} s, CSafeLoader alone {alone:.2f} s"

    def memory(fresh: Callable[[], Path]) -> tuple[float, str]:
        path = dag_file(fresh(), tasks * 10)
        command = [sys.executable, __file__, "--seed-only", str(fresh()), str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        mib = int(done.stdout) / 1024
        return mib, "peak RSS in MiB of a process that seeds them"

    def huey(fresh: Callable[[], Path]) -> tuple[float, str]:
        theirs = sides.huey(fresh(), tasks, 8)
        ours = sides.engine(fresh(), sides.independent(tasks), 8)
        return theirs / ours, f"{tasks / ours:.0f}/s, huey {tasks / theirs:.0f}/s"

    def claims(fresh: Callable[[], Path]) -> tuple[float, str]:
        few = sides.claims(fresh(), 1000, 500)
        many = sides.claims(fresh(), 100_000 // scale, 500)
        return many / few, f"{many * 1e6:.0f} us, among 1,000 {few * 1e6:.0f} us"

    def wal(fresh: Callable[[], Path]) -> tuple[float, str]:
        transitions = 100_000 // scale
        return sides.wal(fresh(), transitions // 3), "MB at its largest"

    n = f"{tasks:,}"
    return [
        Row(f"{n} noop tasks, 8 workers / bare loop", ">= 0.7", drained(8)),
        Row(f"{n} noop tasks, 64 workers / bare loop", ">= 1.5", drained(64)),
        Row(f"{n} noop tasks, 4 processes x 2 / bare loop", ">= 0.4", processes),
        Row("chain of 300, a hop / two bare commits", "<= 2", chain),
        Row(f"seed {n} tasks from YAML / CSafeLoader alone", "<= 1.2", seed),
        Row(f"seed {tasks * 10:,} tasks, peak RSS", "<= 600", memory),
        Row(f"{n} noop tasks, 8 workers / huey, 8 threads", ">= 1.5", huey),
        Row(f"claim among {100_000 // scale:,} READY / among 1,000", "<= 1.3", claims),
        Row(f"WAL over {100_000 // scale:,} transitions with a reader", "<= 64", wal),
    ]


def _steering_rows(scale: int) -> list[Row]:
    tasks = 10_000 // scale

    def cancel(*, outside: bool) -> Measure:
        times = 20 // min(scale, 5)

        def measure(fresh: Callable[[], Path]) -> tuple[float, str]:
            return steering.cancel(fresh(), times, outside=outside), f"s, median of {times}"

        return measure

    def reset(fresh: Callable[[], Path]) -> tuple[float, str]:
        return steering.reset(fresh(), dag_file(fresh(), tasks)), "s"

    def purge(fresh: Callable[[], Path]) -> tuple[float, str]:
        return steering.purge(fresh(), dag_file(fresh(), tasks)), "s"

    def start(fresh: Callable[[], Path]) -> tuple[float, str]:
        return steering.start(fresh(), dag_file(fresh(), tasks * 10), tasks * 100), "s"

    def rebuild(fresh: Callable[[], Path]) -> tuple[float, str]:
        return steering.rebuild(fresh(), tasks * 10), "s"

    def listed(fresh: Callable[[], Path]) -> tuple[float, str]:
        return load.window(fresh(), dag_file(fresh(), tasks * 10), 300)

    def worktree(fresh: Callable[[], Path]) -> tuple[float, str]:
        return worktrees.ensure(fresh(), 1000 // min(scale, 5), 9)

    n = f"{tasks:,}"
    return [
        Row("cancel reaches its process, same process", "<= 0.3", cancel(outside=False)),
        Row("cancel reaches its process, another one", "<= 1", cancel(outside=True)),
        Row(f"reset of {n} tasks", "<= 2", reset),
        Row(f"purge of {n} tasks", "<= 2", purge),
        Row(f"start after SIGKILL, {tasks * 10:,} tasks, {tasks * 100:,} events", "<= 2", start),
        Row(f"rebuild of {tasks * 10:,} tasks from the log", "<= 60", rebuild),
        Row(f"HTTP API: 100 tasks out of {tasks * 10:,}, p95, ms", "<= 30", listed),
        Row("ensure_worktree / git worktree add, 1,000 files", "<= 1.5", worktree),
    ]


def _screen_rows(scale: int) -> list[Row]:
    many, events, seconds = 100_000 // scale, 1_000_000 // scale, 20 // min(scale, 4)

    def over(tasks: int, measure: Callable[..., tuple[float, str]], *more: float) -> Measure:
        return lambda _fresh: measure(tasks, events if tasks >= many else 0, *more)

    def throughput(fresh: Callable[[], Path]) -> tuple[float, str]:
        return screen.throughput(fresh, many // 10)

    n = f"{many:,} tasks"
    return [
        Row("dashboard: start to full screen, 10 tasks / bare", "<= 1.4", over(10, screen.start)),
        Row(
            f"dashboard: the same, {n}, {events:,} events / bare",
            "<= 1.6",
            over(many, screen.start),
        ),
        Row(f"dashboard: idle CPU, {n}, over bare", "<= 0.5", over(many, screen.idle, seconds)),
        Row("dashboard: CPU at 200 events/s by others", "<= 15", over(many, screen.load, seconds)),
        Row("dashboard: key to repaint meanwhile, p95", "<= 30", over(many, screen.keys, seconds)),
        Row(
            f"dashboard: memory, {many * 10:,} tasks, {events:,} events, over bare",
            "<= 30",
            over(many * 10, screen.memory),
        ),
        Row(
            f"transcript of {200 // scale} MB: open, its end on the screen",
            "<= 0.5",
            lambda fresh: talk.opened(fresh(), 200_000_000 // scale),
        ),
        Row(
            "dashboard: CPU with 20 agents that write 200 lines/s each",
            "<= 20",
            lambda fresh: agents.followed(fresh(), 20, 200, float(seconds)),
        ),
        Row("dashboard: throughput of 8 workers / headless", ">= 0.7", throughput),
    ]


def _watching_rows(scale: int) -> list[Row]:
    seconds = 20.0 / min(scale, 4)
    return [
        Row(
            "200 logs watched: CPU at rest",
            "<= 1",
            lambda fresh: watching.rest(fresh(), 200, seconds),
        ),
        Row(
            "a log of 50 MB/s watched: a heartbeat late at most",
            "<= 0.1",
            lambda fresh: watching.flood(fresh(), 50e6, seconds / 2),
        ),
        Row(
            "death of a service until it is known",
            "<= 1",
            lambda fresh: watching.death(fresh(), 10 // min(scale, 5)),
        ),
    ]


def _all_rows(scale: int) -> list[Row]:
    return [*_rows(scale), *_steering_rows(scale), *_watching_rows(scale), *_screen_rows(scale)]


def dag_file(folder: Path, tasks: int) -> Path:
    """Write a DAG of `tasks` tasks with 0 to 3 deps each, as a person would lay it out."""
    path = folder / "big.yaml"
    with path.open("w", encoding="utf-8") as file:
        file.write("tasks:\n")
        for i in range(tasks):
            deps = sorted({max(0, i - 7 * k * k - 1) for k in range(i % 4)} - {i}) if i else []
            names = ", ".join(f"task-{dep:06d}" for dep in deps)
            file.write(
                f"  - id: task-{i:06d}\n    name: Task number {i}\n    agent: agent-{i % 7}\n"
                f"    deps: [{names}]\n    payload:\n      kind: noop\n"
            )
    return path


@contextlib.contextmanager
def _folders() -> Iterator[Callable[[], Path]]:
    root = Path(tempfile.mkdtemp(prefix="agentmux-bench-"))
    made: list[Path] = []

    def fresh() -> Path:
        made.append(Path(tempfile.mkdtemp(dir=root)))
        return made[-1]

    try:
        yield fresh
    finally:
        shutil.rmtree(root)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed-only", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.seed_only:
        sides.seed(*args.seed_only)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    words = [word for word in args.only.split(",") if word]
    scale = 10 if args.quick else 1
    rows = [row for row in _all_rows(scale) if not words or any(word in row.name for word in words)]
    found: dict[str, list[tuple[float, str]]] = {row.name: [] for row in rows}
    with screen.stores():
        for _ in range(1 if args.quick else args.rounds):
            for row in rows:
                with _folders() as fresh:
                    found[row.name].append(row.measure(fresh))
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {python}, SQLite {sqlite3.sqlite_version}")
    print("\n| figure | must reach | median | range | last round |\n|---|---|---|---|---|")
    for row in rows:
        values = [value for value, _ in found[row.name]]
        shape = ".0f" if max(values) >= 20 else ".2f"
        print(
            f"| {row.name} | {row.target} | {statistics.median(values):{shape}} |"
            f" {min(values):{shape}} to {max(values):{shape}} | {found[row.name][-1][1]} |"
        )


if __name__ == "__main__":
    main()
