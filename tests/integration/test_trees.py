"""Promises about trees: of whatever shape, they are gone when an order says so; strangers are not.

Through the engine: what finds and ends a tree is shown in test_processes, the guard in test_guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.doomed import GUARDED
from support.engines import QUICK, Project, ended, until
from support.reckoning import check_everything, check_nobody_is_left, leader_of
from support.stores import a_task, select

from engine.commands import Cancel, Command, Kill, KillWorkers, Seed, Stop
from engine.model import ProcessId
from engine.processes import census, guardian, proctable, signalling, trees
from engine.processes.census import RUN_ID, STATE_DIR, tagged, tree_of
from engine.processes.proctable import all_pids, is_kernel_thread, session_of
from engine.processes.signalling import identify, is_alive, kill_groups, send
from engine.processes.trees import end_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.core import Engine
    from engine.processes.proctable import Look
    from engine.store.transaction import Transaction

LINGERING = QUICK.replace("grace: 0.5", "grace: 1.5")
"""A grace that leaves time to give an order between SIGTERM and SIGKILL."""

PROGRAM = """\
import os, signal, sys, time

def here(name):
    with open(name + ".draft", "w") as file:
        print(os.getpid(), file=file)
    os.rename(name + ".draft", name)

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

def abandoned():
    "A leader that exits while its child lives on."
    if os.fork() == 0:
        deaf()
        here("child")
        time.sleep(600)
    here("leader")
    while not os.path.exists("go"):
        time.sleep(0.01)
    sys.exit()

def stubborn():
    "A child that ignores SIGTERM."
    if os.fork() == 0:
        deaf()
        here("child")
        time.sleep(600)

def setsid():
    "A grandchild that called setsid."
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            here("child")
        time.sleep(600)

def daemon():
    "A double fork: its parents are gone and its session is its own."
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            here("child")
            time.sleep(600)
        os._exit(0)
    os.wait()

def chain():
    "Forks and exits, again and again, and does not care for SIGTERM."
    if os.fork() == 0:
        deaf()
        here("child")
        while True:
            if os.fork():
                os._exit(0)
            time.sleep(0.01)

globals()[sys.argv[1]]()
here("leader")
time.sleep(600)
"""
SHAPES = ("abandoned", "stubborn", "setsid", "daemon", "chain")


class Grove:
    """A run whose tree has a shape, another run beside it, and strangers."""

    def __init__(self, project: Project, shape: str) -> None:
        self.project = project
        self.shape = shape
        self.strangers: list[subprocess.Popen[bytes]] = []
        self.tree: dict[str, ProcessId] = {}
        self.sibling: ProcessId | None = None
        settings = LINGERING if shape == "abandoned" else QUICK
        project.settings(f"{settings}shell:\n  allow: [sleep, '{sys.executable}']\n")
        (project.folder / "tree.py").write_text(PROGRAM)

    def dag(self) -> Path:
        argv = [sys.executable, "-IS", "tree.py", self.shape]
        a = a_task("a", payload={"kind": "shell", "argv": argv})
        return self.project.dag(a, a_task("b", payload={"kind": "shell", "cmd": "sleep 600"}))

    async def grown(self) -> None:
        """Wait until all of it is there, and let strangers come that look much like it."""
        for name in ("leader", "child"):
            await until((self.project.folder / name).exists, f"the {name} is there")
            who = identify(int((self.project.folder / name).read_text()))
            if who is not None:  # a link of a chain has gone by now
                self.tree[name] = who
        await until(lambda: leader_of(self.project.layout, "a"), "its leader is known")
        await until(lambda: leader_of(self.project.layout, "b"), "the other run's leader is known")
        assert self.tree["leader"] == leader_of(self.project.layout, "a")
        self.sibling = leader_of(self.project.layout, "b")
        (row,) = select(self.project.layout, "SELECT id FROM runs WHERE task_id = 'a'")
        elsewhere = str(self.project.folder / "elsewhere")
        self.stranger({})
        self.stranger({RUN_ID: row["id"], STATE_DIR: elsewhere})
        self.stranger({RUN_ID: row["id"]})
        if self.shape == "abandoned":
            (self.project.folder / "go").touch()
            await until(lambda: not is_alive(self.tree["leader"]), "the leader has gone")
            assert is_alive(self.tree["child"])

    def stranger(self, variables: dict[str, str]) -> None:
        self.strangers.append(
            subprocess.Popen(["sleep", "600"], env=os.environ | variables, start_new_session=True)
        )

    @property
    def others(self) -> set[ProcessId]:
        """What is left of runs other than the one whose tree was to be ended."""
        runs = tagged(self.project.layout.state)
        (mine,) = select(self.project.layout, "SELECT id FROM runs WHERE task_id = 'a'")
        assert mine["id"] not in runs.values(), "it is answered when the tree is gone"
        return set(runs)

    def check(self) -> None:
        """Assert that the tree is gone and that all others are there."""
        assert self.others == ({self.sibling} if self.sibling else set())
        assert not any(map(is_alive, self.tree.values()))
        assert [one.poll() for one in self.strangers] == [None] * 3

    def close(self) -> None:
        for one in self.strangers:
            one.kill()
            one.wait()


@pytest.fixture(params=SHAPES)
def grove(project: Project, request: pytest.FixtureRequest) -> Iterator[Grove]:
    made = Grove(project, request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("order", "states"),
    [
        # A leader that was through by itself before the stop has done its task.
        (Stop(("codex-1",)), {"READY", "DONE"}),
        (Kill(("a",)), {"FAILED"}),
        (Kill(("a",), force=True), {"FAILED"}),
        (KillWorkers(("codex-1",)), {"FAILED"}),
        (Cancel(("a",)), {"CANCELLED"}),
    ],
    ids=["stop", "kill", "kill-force", "kill-worker", "cancel"],
)
async def test_the_tree_is_gone_when_the_order_is_answered_and_nobody_else_is(
    grove: Grove, order: Command, states: set[str]
) -> None:
    project = grove.project
    async with project.engine() as engine:
        await engine.execute(Seed(grove.dag()))
        await engine.start_worker("codex", "codex-1")
        await until(lambda: project.state("a") == "RUNNING", "a runs")
        await engine.start_worker("codex", "codex-2")
        await grove.grown()
        receipt = await engine.execute(order)
        assert receipt.refused == ()
        grove.check()
        assert project.state("a") in states
        if grove.shape != "abandoned":
            assert project.state("a") != "DONE"
        assert project.state("b") == "RUNNING"
    await check_everything(project)


async def test_the_tree_is_gone_5_s_after_its_host_and_the_task_is_free_at_the_next_start(
    grove: Grove,
) -> None:
    project = grove.project
    async with project.engine() as engine:
        await engine.execute(Seed(grove.dag()))
        host = project.work("codex-1")
        other = project.work("codex-2")
        await grove.grown()
        (row,) = select(project.layout, "SELECT host_pid FROM runs WHERE task_id = 'a'")
        dying, living = (host, other) if row["host_pid"] == host.pid else (other, host)
        died = time.monotonic()
        dying.kill()
        await until(lambda: not any(map(is_alive, grove.tree.values())), "the tree has gone")
        await until(lambda: len(tagged(project.layout.state)) == 1, "all of it")
        assert time.monotonic() - died < GUARDED
        await until(lambda: project.state("a") == "READY", "the other host has noticed")
        grove.check()
        living.terminate()
        assert await ended(living) == 0
        await ended(dying)
        await check_nobody_is_left(project.layout)
    assert project.kinds("a").count("LEASE_EXPIRED") == 1
    await check_everything(project)


def test_a_process_is_not_gone_while_it_gives_back_what_it_held(tmp_path: Path) -> None:
    """Its variables go first, then its memory, and only then its files and locks."""
    tag = {RUN_ID: "run", STATE_DIR: str((tmp_path / "state").resolve())}
    code = "held = bytearray(b'x') * (256 << 20); print(flush=True); import time; time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-ISc", code], env=os.environ | tag, stdout=subprocess.PIPE
    ) as large:
        assert large.stdout is not None
        large.stdout.readline()
        who = identify(large.pid)
        assert who is not None
        large.kill()
        while is_alive(who):
            # Found by its tag alone, as whoever left its session and its parents is.
            gone = tree_of("run", tmp_path / "state", []) == set()
            assert not (gone and is_alive(who)), "its files may be open still"


# A pid that is given to a stranger while we look away.


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def before(now: ProcessId) -> ProcessId:
    """Return who had this pid before."""
    return ProcessId(now.pid, f"1{now.started}")


class Reuse:
    """Lets a process be taken for the one that had its pid before, until that one is signalled.

    So its pid changes hands in the worst of moments: after a look, and before the next one.
    """

    def __init__(self, stranger: ProcessId, monkeypatch: pytest.MonkeyPatch) -> None:
        self.former = before(stranger)
        self.taken_for_former = True
        self.heard: list[signal.Signals] = []
        self._look_at = proctable.look_at
        monkeypatch.setattr(census, "look_at", self.look_at)
        monkeypatch.setattr(signalling, "look_at", self.look_at)
        for module in (trees, guardian):
            monkeypatch.setattr(module, "send", self.send)

    def look_at(self, pid: int) -> Look | None:
        look = self._look_at(pid)
        if look is not None and pid == self.former.pid and self.taken_for_former:
            return replace(look, started=self.former.started)
        return look

    def send(self, process: ProcessId, number: signal.Signals) -> None:
        if process == self.former and self.taken_for_former:
            # It dies of this very signal, and the next one to be born gets its pid.
            self.heard.append(number)
            self.taken_for_former = False
        else:
            send(process, number)


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `run` that only SIGKILL ends: it is for its sake that there is one."""
    tag = {RUN_ID: "run", STATE_DIR: str((tmp_path / "state").resolve())}
    code = "trap '' TERM; echo > up; while :; do sleep 0.02; done"
    process = subprocess.Popen(["sh", "-c", code], env=os.environ | tag, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
async def reuse(
    tmp_path: Path,
    stranger: subprocess.Popen[bytes],
    deaf: subprocess.Popen[bytes],  # noqa: ARG001 - it is there, and deaf
    monkeypatch: pytest.MonkeyPatch,
) -> Reuse:
    """The stranger gets the pid of a member of `run` that SIGTERM ends."""
    await until((tmp_path / "up").exists, "the deaf one is deaf")
    now = identify(stranger.pid)
    assert now is not None
    return Reuse(now, monkeypatch)


def only_the_deaf_one_was_killed(
    reuse: Reuse, stranger: subprocess.Popen[bytes], deaf: subprocess.Popen[bytes]
) -> None:
    assert reuse.heard == [signal.SIGTERM], "it was a member then"
    assert deaf.wait(10) == -signal.SIGKILL, "so it has come to that"
    assert stranger.poll() is None


async def test_who_gets_a_pid_between_sigterm_and_sigkill_is_not_killed(
    tmp_path: Path,
    stranger: subprocess.Popen[bytes],
    deaf: subprocess.Popen[bytes],
    reuse: Reuse,
) -> None:
    await end_tree("run", tmp_path / "state", [reuse.former], grace=0.2)
    only_the_deaf_one_was_killed(reuse, stranger, deaf)


async def test_the_guard_does_not_kill_who_gets_a_pid_between_sigterm_and_sigkill(
    tmp_path: Path,
    stranger: subprocess.Popen[bytes],
    deaf: subprocess.Popen[bytes],
    reuse: Reuse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guardian, "_GRACE", 0.2)
    runs = {"run": guardian._Run(known={reuse.former})}
    assert guardian._end_all(tmp_path / "state", runs) == 0
    only_the_deaf_one_was_killed(reuse, stranger, deaf)


LATE_CHILD = """
import os, signal, sys, time
def bear(*_):
    if os.fork() == 0:
        os.setsid()
        with open(sys.argv[1], "w") as file:
            print(os.getpid(), file=file)
        os.execve("/bin/sleep", ["sleep", "600"], {})
signal.signal(signal.SIGTERM, bear)
print("ready", flush=True)
while True:
    time.sleep(600)
"""


@pytest.fixture
def bearing(tmp_path: Path) -> Iterator[tuple[ProcessId, Path]]:
    """A leader that at SIGTERM has a child which nothing but its parent betrays."""
    note = tmp_path / "late"
    with subprocess.Popen(
        [sys.executable, "-ISc", LATE_CHILD, str(note)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        try:
            assert leader.stdout is not None
            leader.stdout.readline()
            who = identify(leader.pid)
            assert who is not None
            yield who, note
        finally:
            leader.kill()
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(note.read_text()), signal.SIGKILL)


async def test_who_is_born_during_the_grace_dies_with_its_parent(
    tmp_path: Path, bearing: tuple[ProcessId, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, note = bearing
    monkeypatch.setattr(trees, "kill_groups", partial(kill_and_wait, leader))
    await end_tree("run", tmp_path / "state", [leader], grace=0.5)
    assert not is_there(int(note.read_text()))


async def test_who_is_born_after_the_guards_sigterm_dies_with_its_parent(
    tmp_path: Path, bearing: tuple[ProcessId, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, note = bearing
    monkeypatch.setattr(guardian, "kill_groups", partial(kill_and_wait, leader))
    monkeypatch.setattr(guardian, "_GRACE", 0.5)
    monkeypatch.setattr(guardian, "_POLL", 1.0)  # it looks at the begin and at the end of that
    runs = {"run": guardian._Run(known={leader})}
    assert await asyncio.to_thread(guardian._end_all, tmp_path / "state", runs) == 0
    assert not is_there(int(note.read_text()))


def kill_and_wait(leader: ProcessId, leaders: Iterable[ProcessId]) -> None:
    kill_groups(leaders)
    while is_alive(leader):
        time.sleep(0.001)


def is_there(pid: int) -> bool:
    who = identify(pid)
    return who is not None and is_alive(who)


@pytest.mark.parametrize("grace", [0.2, 0.0], ids=["SIGTERM", "SIGKILL"])
async def test_who_gets_a_pid_between_the_look_and_the_signal_hears_nothing(
    tmp_path: Path,
    stranger: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    grace: float,
) -> None:
    now = identify(stranger.pid)
    assert now is not None
    looks = [{before(now)}]
    monkeypatch.setattr(trees, "tree_of", lambda *whose: looks.pop() if looks else tree_of(*whose))
    await end_tree("run", tmp_path / "state", [before(now)], grace=grace)
    assert looks == []
    assert stranger.poll() is None


@pytest.mark.parametrize("whose", ["leader", "host"])
async def test_a_stranger_with_the_pid_of_a_dead_leader_or_host_lives_on_and_holds_nothing_up(
    project: Project, stranger: subprocess.Popen[bytes], whose: str
) -> None:
    project.settings(f"{QUICK}shell: {{allow: [sh]}}\n")
    argv = ["sh", "-c", "test -e marker || { touch marker; sleep 600 & wait; }"]
    now = identify(stranger.pid)
    assert now is not None
    async with project.engine() as engine:
        shell = a_task("a", payload={"kind": "shell", "argv": argv})
        await engine.execute(Seed(project.dag(shell)))
        host = project.work("codex-1")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        host.kill()
        await ended(host)
        await until(lambda: not tagged(project.layout.state), "its guard has done its work")
        await give_pid(engine, before(now), whose)
        assert project.state("a") == "RUNNING"
        for order in (Stop(("codex-1",)), KillWorkers(("codex-1",), force=True)):
            receipt = await engine.execute(order)
            assert [refusal.code for refusal in receipt.refused] == ["WORKER_NOT_FOUND"]
        await engine.start_worker("codex")
        await until(lambda: project.state("a") == "DONE", "the next one does it")
    assert stranger.poll() is None
    assert project.kinds("a").count("LEASE_EXPIRED") == 1
    await check_everything(project)


async def give_pid(engine: Engine, process: ProcessId, whose: str) -> None:
    """Let the store say that a process was the leader of all runs, or the host of all workers."""
    tables = {
        "leader": [("runs", "pid", "pid_started")],
        "host": [("runs", "host_pid", "host_started"), ("workers", "pid", "pid_started")],
    }[whose]

    def change(tx: Transaction) -> None:
        for table, pid, started in tables:
            tx.db.execute(
                f"UPDATE {table} SET {pid} = ?, {started} = ?", (process.pid, process.started)
            )

    await engine._store._writer.write(change)


FROM_WITHOUT = """
import subprocess, sys
from pathlib import Path
from engine.processes.census import RUN_ID, STATE_DIR, tree_of
state = Path(sys.argv[1])
with subprocess.Popen(["sleep", "600"], env={RUN_ID: "run", STATE_DIR: str(state)}) as child:
    print([member.pid for member in tree_of("run", state, [])] == [child.pid])
    child.kill()
"""


def test_a_shell_that_came_into_a_container_from_without_finds_its_children(tmp_path: Path) -> None:
    """Its session has no number in there."""
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a pid namespace here")
    told = subprocess.run(
        [*enter, sys.executable, "-c", FROM_WITHOUT, str(tmp_path.resolve())],
        capture_output=True,
        check=True,
        text=True,
    )
    assert told.stdout.split() == ["True"]


def test_who_has_no_session_is_found_by_the_tag_also_beside_kernel_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are the children of an init that calls no setsid, and whatever CI systems start."""
    monkeypatch.setattr(
        census, "session_of", lambda pid: 0 if session_of(pid) is not None else None
    )
    tag = {RUN_ID: "run", STATE_DIR: str(tmp_path.resolve())}
    child = subprocess.Popen(["sleep", "600"], env=os.environ | tag)
    try:
        assert {member.pid for member in tree_of("run", tmp_path, [])} == {child.pid}
    finally:
        child.kill()
        child.wait()


def test_kernel_threads_are_told_from_processes() -> None:
    told = {pid for pid in all_pids() if is_kernel_thread(pid)}
    assert os.getpid() not in told
    kthreadd = Path("/proc/2/comm")
    assert (2 in told) == (kthreadd.exists() and kthreadd.read_text() == "kthreadd\n")
