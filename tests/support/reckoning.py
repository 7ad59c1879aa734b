"""Work that proves that it runs once at a time, and the reckoning once nothing is at work any more.

Whatever a run starts inherits a lock on its task's file, which is free only when the last process
of the run's tree is gone. A second run that finds it taken says so in the diary.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from support.engines import QUICK, Project, until
from support.stores import a_task, check_store, select

from engine.care.inspection import inspect
from engine.findings import Level
from engine.logfiles import log_files
from engine.model import EventType, ProcessId
from engine.processes.census import tagged
from engine.processes.signalling import identify

if TYPE_CHECKING:
    from engine.files import Layout
    from engine.model import TaskDef

SETTINGS = f"{QUICK}shell:\n  allow: [sh, {json.dumps(sys.executable)}]\n"

ACT = """\
import fcntl, os, signal, sys, time
task, seconds, shape, failures = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def note(what):
    diary = os.open("diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(diary, f"{what} {task} {os.environ['AGENTMUX_RUN_ID']}\\n".encode())
    os.close(diary)

lock = os.open(os.path.join("locks", task), os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("VIOLATION")
    sys.exit(9)
note("begin")
if shape != "alone" and os.fork() == 0:
    if shape == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if shape == "far":
        os.setsid()
        if os.fork():
            os._exit(0)
    time.sleep(600)
    os._exit(0)
time.sleep(seconds)
note("end")
sys.exit(1 if int(os.environ["AGENTMUX_ATTEMPT"]) <= failures else 0)
"""
"""A run's work: notes when it begins and ends, and leaves behind a child of the given shape."""

SHAPES = ("alone", "left", "far", "stubborn")


def prepare(project: Project) -> None:
    """Put settings and the work's program into a project."""
    project.settings(SETTINGS)
    (project.folder / "act.py").write_text(ACT)
    (project.folder / "locks").mkdir(exist_ok=True)


def acting(
    task_id: str,
    *deps: str,
    seconds: float = 0.0,
    shape: str = "alone",
    failures: int = 0,
    through_sh: bool = False,
    **more: Any,
) -> TaskDef:
    """Return a task whose runs hold their task's lock for as long as any process of them lives."""
    argv = [sys.executable, "-IS", "act.py", task_id, str(seconds), shape, str(failures)]
    if through_sh:
        argv = ["sh", "-c", '"$@" & wait $!', "sh", *argv]
    return a_task(task_id, *deps, payload={"kind": "shell", "argv": argv}, **more)


def guards_of(layout: Layout, host_pid: int | None = None) -> list[ProcessId]:
    """Return the guard processes of a state folder, or those of one host."""
    state = str(layout.state.resolve())
    found = []
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        words = process.info["cmdline"] or []
        if state not in words or not any(word.startswith("# agentmux guard") for word in words):
            continue
        guard = identify(process.info["pid"])
        if guard is not None and host_pid in (None, process.info["ppid"]):
            found.append(guard)
    return found


def leader_of(layout: Layout, task_id: str) -> ProcessId | None:
    """Return who leads the newest run of a task, None until that is stored."""
    sql = "SELECT pid, pid_started FROM runs WHERE task_id = ? ORDER BY n DESC LIMIT 1"
    for row in select(layout, sql, task_id):
        if row["pid"] is not None:
            return ProcessId(row["pid"], row["pid_started"])
    return None


def has_no_zombie(pid: int) -> bool:
    """Say whether all children of a process that have ended are reaped."""
    with suppress(psutil.NoSuchProcess):
        return not any(map(_is_zombie, psutil.Process(pid).children()))
    return True


def _is_zombie(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return False


async def check_nobody_is_left(layout: Layout) -> None:
    """Assert that no process of any run is left, no guard, and no child of ours."""
    await until(lambda: not guards_of(layout), "the guards have ended")
    assert tagged(layout.state) == {}
    assert has_no_zombie(os.getpid())


async def check_everything(project: Project) -> None:
    """Assert all that must hold once nothing is at work any more."""
    layout = project.layout
    await check_nobody_is_left(layout)
    check_store(layout)
    check_logs(layout)
    check_completions(project)
    check_diary(project)
    errors = [finding for finding in await inspect(layout) if finding.level is Level.ERROR]
    assert not errors, errors


def check_logs(layout: Layout) -> None:
    """Assert that the files of the log, in their order, are the events table, line by line."""
    told = b"".join(path.read_bytes() for path in log_files(layout))
    rows = select(layout, "SELECT line FROM event_lines ORDER BY seq")
    assert told.decode().split("\n") == [*(row["line"] for row in rows), ""]


def check_completions(project: Project) -> None:
    """Assert that no task was completed twice without having been retried in between."""
    done: set[str] = set()
    for event in project.events():
        assert event.task_id is not None or event.state is None
        if event.type in {"TASK_CREATED", "TASK_RETRIED", "TASK_PURGED"}:
            done.discard(event.task_id or "")
        elif event.type == "TASK_COMPLETED":
            assert event.task_id not in done, f"{event.task_id} was completed twice"
            done.add(event.task_id or "")
    assert done >= {
        row["id"] for row in select(project.layout, "SELECT id FROM tasks WHERE state = 'DONE'")
    }


def check_diary(project: Project) -> None:
    """Assert that the work itself saw no second run of its task, and that what is done was done."""
    diary = project.folder / "diary"
    lines = [line.split() for line in diary.read_text().splitlines()] if diary.exists() else []
    claimed = {
        event.run_id: event.task_id
        for event in project.events()
        if event.type == EventType.TASK_CLAIMED
    }
    begun: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for what, task_id, run_id in lines:
        assert what in {"begin", "end"}, f"{what} by {run_id} of {task_id}"
        assert claimed[run_id] == task_id
        (begun if what == "begin" else ended)[run_id] += 1
    assert set(begun.values()) <= {1}, "a run that began twice"
    assert ended.keys() <= begun.keys()
    noted = {task_id for _, task_id, _ in lines}
    for run in select(project.layout, "SELECT id, task_id FROM runs WHERE outcome = 'done'"):
        if run["task_id"] in noted:
            assert ended[run["id"]] == 1, f"{run['id']} is done, but its work was not"
