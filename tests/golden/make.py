"""Makes the golden database of a released schema: a small fleet's store, as that release wrote it.

    git worktree add ../release <tag or commit>
    python tests/golden/make.py ../release

drives the command line of the sources in ../release and writes tests/golden/schema-<n>.db, n being
the schema that they write. Made once for each schema that was released, and never again: a user's
store of that release cannot be made again either.

schema-1.db was made with commit 5d20b19. That release could neither cancel nor
prepare, but its schema and its readers know CANCELLED and CLAIMED: `_touch_up` writes those two.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0
SETTINGS = "shell: {allow: [echo, 'false', sleep]}\n"
DAG = """
defaults: {agent: codex}
agents: {codex: {limit: 3, stagger: 0.01}, slow: {limit: 2}}
tasks:
  - {id: plan, agent: claude, name: "Plan the work", payload: {seconds: 0}}
  - {id: "build:ä", deps: [plan], payload: {kind: shell, cmd: "echo built"}}
  - {id: docs, deps: [plan], priority: 3, timeout: 60.5, payload: {seconds: 0}}
  - {id: review, agent: claude, deps: ["build:ä", docs], payload: {seconds: 0, x-why: "quality"}}
  - {id: broken, payload: {kind: shell, cmd: "false"}}
  - {id: after, deps: [broken, plan]}
  - {id: later, deps: [after]}
  - {id: odd, payload: {kind: unheard-of}}
  - {id: flaky, agent: flaky, retries: 3, payload: {kind: shell, cmd: "false"}}
  - {id: long, agent: slow, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: prepared, agent: slow, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: ship, agent: slow, deps: [long, prepared]}
  - {id: queued, agent: nobody, priority: -1}
  - {id: unwanted, agent: nobody}
  - {id: old, agent: nobody}
"""
RESEEDED = DAG.replace("priority: 3", "priority: 4").replace("  - {id: old, agent: nobody}\n", "")


class Fleet:
    """A project folder that the command line of a release works in."""

    def __init__(self, sources: Path, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "state" / "tasks.db"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AGENTMUX_")}
        self._environment = kept | {"PYTHONPATH": str(sources)}
        self._program = [sys.executable, "-m", "engine.cli"]
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str) -> str:
        """Carry out a command to its end; return what it printed."""
        return subprocess.run(
            [*self._program, *words],
            cwd=self.folder,
            env=self._environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        ).stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on, until `crash` at the latest."""
        started = subprocess.Popen(
            [*self._program, *words],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        self._started.append(started)
        return started

    def until(self, task_id: str, holds: Callable[[dict[str, object]], bool]) -> None:
        """Wait until a task is as it shall be."""
        deadline = time.monotonic() + PATIENCE
        while True:
            tasks = json.loads(self.run("tasks", "ls", "--json"))
            if any(task["id"] == task_id and holds(task) for task in tasks):
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"in vain: {task_id}, {tasks}")

    def crash(self) -> None:
        """End what still goes on as SIGKILL would, hosts first, and all at the same moment."""
        hosts = [host for host in self._started if host.poll() is None]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for host in hosts:
                host.send_signal(number)
        for host in hosts:
            host.wait(PATIENCE)
        if not self.database.exists():
            return
        with closing(sqlite3.connect(self.database)) as db:
            left = db.execute("SELECT pid FROM runs WHERE outcome IS NULL").fetchall()
        for (pid,) in left:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def work(fleet: Fleet) -> None:
    """Let everything happen that this release can leave in a store."""
    dag = fleet.folder / "dag.yaml"
    dag.write_text(DAG)
    (fleet.folder / "agentmux.yaml").write_text(SETTINGS)
    fleet.run("tasks", "seed", str(dag))
    hosts = [
        fleet.start("worker", "--agent", agent, "--worker-id", f"{agent}-1", "--until-idle")
        for agent in ("claude", "codex")
    ]
    for host in hosts:
        host.wait(PATIENCE)
    dag.write_text(RESEEDED)
    fleet.run("tasks", "seed", str(dag))
    fleet.run("hold", "nobody")

    flaky = fleet.start("worker", "--agent", "flaky", "--worker-id", "flaky-1")
    fleet.until("flaky", lambda task: task["attempts"] == 1 and task["state"] == "READY")
    flaky.terminate()
    flaky.wait(PATIENCE)

    stopped = fleet.start("worker", "--agent", "slow", "--worker-id", "slow-1")
    fleet.until("long", lambda task: task["state"] == "RUNNING")
    fleet.run("worker", "--stop", "--agent", "slow", "--worker-id", "slow-1")
    stopped.wait(PATIENCE)

    for worker_id, task_id in (("slow-1", "long"), ("slow-2", "prepared")):
        fleet.start("worker", "--agent", "slow", "--worker-id", worker_id)
        fleet.until(task_id, lambda task: task["state"] == "RUNNING")


def _touch_up(db: sqlite3.Connection) -> None:
    """Write the two states that no command of schema 1 leads to, and the events that tell them."""
    seq, told = db.execute("SELECT seq, type || task_id FROM events ORDER BY seq DESC").fetchone()
    if told != "TASK_STARTEDprepared":
        raise SystemExit(f"the last event is {told}, not the start of `prepared`")
    db.execute("DELETE FROM events WHERE seq = ?", (seq,))
    db.execute("UPDATE tasks SET state = 'CLAIMED', timeout_at = NULL WHERE id = 'prepared'")
    db.execute(
        "UPDATE runs SET started_at = NULL, pid = NULL, pid_started = NULL"
        " WHERE task_id = 'prepared'"
    )
    db.execute("UPDATE tasks SET state = 'CANCELLED' WHERE id = 'unwanted'")
    db.execute(
        "INSERT INTO events(ts, type, agent, task_id, state)"
        " SELECT updated_at, 'TASK_CANCELLED', agent, id, state FROM tasks WHERE id = 'unwanted'"
    )


def _hide_this_machine(db: sqlite3.Connection, folder: Path) -> None:
    """Take the folder out of every text, and the boot out of every process identity."""
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for column in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
            rows = db.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
            for (text,) in rows:
                if not isinstance(text, str):
                    continue
                hidden = text.replace(str(folder), "/project")
                if column.endswith("_started"):
                    hidden = re.sub(r"(?<=@).*", "00000000-0000-0000-0000-000000000000", hidden)
                if hidden != text:
                    db.execute(
                        f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (hidden, text)
                    )


def main() -> None:
    """Make the golden database of the sources named on the command line."""
    sources = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="agentmux-golden-") as name:
        fleet = Fleet(sources, Path(name).resolve())
        try:
            work(fleet)
        finally:
            fleet.crash()
        with closing(sqlite3.connect(fleet.database, isolation_level=None)) as db:
            (schema,) = db.execute("PRAGMA user_version").fetchone()
            if schema == 1:
                _touch_up(db)
            _hide_this_machine(db, fleet.folder)
            db.execute("PRAGMA journal_mode=DELETE").fetchone()
            db.execute("VACUUM")
        golden = HERE / f"schema-{schema}.db"
        golden.write_bytes(fleet.database.read_bytes())
    sys.stdout.write(f"{golden}: {golden.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
