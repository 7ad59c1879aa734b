"""Promises about real processes: found whatever they do, ended, and nobody else touched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.patience import PATIENCE

import engine
from engine.errors import StorageError
from engine.model import Claim, ProcessId, State, TaskDef
from engine.processes import signalling, trees
from engine.processes.census import tree_of
from engine.processes.proctable import look_at
from engine.processes.signalling import identify, is_alive
from engine.processes.trees import Child, TreeSurvived, end_tree, environment, gone, spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = str(Path(engine.__file__).parent.parent)


def python(code: str) -> list[str]:
    return [sys.executable, "-ISc", textwrap.dedent(code)]


@dataclass
class Run:
    """A run without an engine: its tag, its files, and what was started for it."""

    folder: Path
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    children: list[Child] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def roots(self) -> list[ProcessId]:
        return [child.identity for child in self.children]

    def environment(self) -> dict[str, str]:
        claim = Claim(
            self.run_id, TaskDef("t:1", "t", "a"), "a-1", 1, State.RUNNING, MOMENT, MOMENT
        )
        return environment(os.environ, claim, self.state)

    def start(self, argv: Sequence[str]) -> Child:
        child = spawn(
            argv,
            cwd=self.folder,
            env=self.environment(),
            stdout=self.folder / "out.log",
            stderr=self.folder / "err.log",
        )
        self.children.append(child)
        return child

    def tree(self, *roots: ProcessId) -> set[ProcessId]:
        return tree_of(self.run_id, self.state, roots)

    async def end(self, grace: float = 5.0) -> None:
        async with asyncio.timeout(PATIENCE):
            await end_tree(self.run_id, self.state, self.roots, grace=grace)

    async def line_in(self, name: str) -> str:
        """Wait until a process has written a line to a file, and return it."""
        path = self.folder / name
        async with asyncio.timeout(PATIENCE):
            # A file raises no event that could be awaited.
            while not path.exists() or path.read_text()[-1:] != "\n":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return path.read_text()

    async def said(self, name: str) -> ProcessId:
        """Wait until a process has written its pid to a file, and return who it is."""
        process = identify(int(await self.line_in(name)))
        assert process is not None
        return process


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    made = Run(tmp_path)
    yield made
    await made.end(grace=0)
    for child in made.children:
        child.reap()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


async def test_what_the_leader_leaves_behind_is_ended(run: Run) -> None:
    leader = run.start(["sh", "-c", "sleep 60 & echo $! > child"])
    child = await run.said("child")
    await asyncio.wait_for(leader.ended(), PATIENCE)
    assert is_alive(child)

    await run.end()

    assert not is_alive(child)
    assert leader.reap() == 0


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(run: Run) -> None:
    run.start(["sh", "-c", "trap '' TERM; echo $$ > stubborn; while :; do sleep 0.1; done"])
    stubborn = await run.said("stubborn")

    begun = asyncio.get_running_loop().time()
    await run.end(grace=0.2)

    assert not is_alive(stubborn)
    assert asyncio.get_running_loop().time() - begun >= 0.2
    assert run.children[0].reap() == -signal.SIGKILL


async def test_sigterm_comes_first_and_may_be_answered(run: Run) -> None:
    child = run.start(
        ["sh", "-c", "trap 'exit 7' TERM; echo $$ > up; while :; do sleep 0.02; done"]
    )
    await run.said("up")

    await run.end()

    assert child.reap() == 7


async def test_a_grandchild_that_called_setsid_is_found_by_its_tag(run: Run) -> None:
    run.start(
        python("""
            import os, time
            if os.fork() == 0:
                os.setsid()
                print(os.getpid(), file=open("far", "w"))
                time.sleep(60)
            time.sleep(60)
        """)
    )
    far = await run.said("far")
    assert os.getsid(far.pid) == far.pid
    assert far in run.tree()

    await run.end()

    assert not is_alive(far)


async def test_a_double_fork_is_found_by_its_tag(run: Run) -> None:
    leader = run.start(
        python("""
            import os, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    print(os.getpid(), file=open("daemon", "w"))
                    time.sleep(60)
                os._exit(0)
            os.wait()
        """)
    )
    daemon = await run.said("daemon")
    await asyncio.wait_for(leader.ended(), PATIENCE)
    assert os.getsid(daemon.pid) != leader.identity.pid

    await run.end()

    assert not is_alive(daemon)


SCRUBBED = """env -i sh -c 'echo $$ > bare; exec sleep 60' & """


async def test_a_child_without_the_tag_is_found_by_the_session_of_its_leader(run: Run) -> None:
    leader = run.start(["sh", "-c", SCRUBBED])
    bare = await run.said("bare")
    await asyncio.wait_for(leader.ended(), PATIENCE)
    assert bare in run.tree(leader.identity)

    await run.end()

    assert not is_alive(bare)


async def test_a_child_without_tag_and_session_is_found_by_descent(run: Run) -> None:
    run.start(["env", "-i", "PATH=" + os.defpath, *python(BARE)])
    bare = await run.said("bare")
    assert bare not in run.tree()
    assert bare in run.tree(*run.roots)

    await run.end()

    assert not is_alive(bare)


BARE = """
import os, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), file=open("bare", "w"))
    time.sleep(60)
time.sleep(60)
"""


async def test_the_session_of_a_reaped_leader_is_not_taken_at_its_word(run: Run) -> None:
    # Its number may be a stranger's by then: somebody in it must carry the tag.
    leader = run.start(["sh", "-c", SCRUBBED])
    bare = await run.said("bare")
    await asyncio.wait_for(leader.ended(), PATIENCE)
    leader.reap()
    try:
        assert run.tree(leader.identity) == set()
    finally:
        os.kill(bare.pid, signal.SIGKILL)
        await asyncio.wait_for(gone(bare), PATIENCE)


async def test_one_with_the_tag_vouches_for_the_session_of_a_reaped_leader(run: Run) -> None:
    leader = run.start(["sh", "-c", "sleep 60 & " + SCRUBBED])
    bare = await run.said("bare")
    await asyncio.wait_for(leader.ended(), PATIENCE)
    leader.reap()
    assert bare in run.tree(leader.identity)


async def test_strangers_survive(run: Run, stranger: subprocess.Popen[bytes]) -> None:
    other_run = Run(run.folder, run.run_id + "0")
    other_state = Run(run.folder / "elsewhere", run.run_id)
    other_state.folder.mkdir()
    others = [other.start(["sleep", "60"]) for other in (other_run, other_state)]
    mine = run.start(["sleep", "60"])
    try:
        await run.end()
        assert not is_alive(mine.identity)
        assert all(is_alive(other.identity) for other in others)
        assert stranger.poll() is None
    finally:
        for other in (other_run, other_state):
            await other.end(grace=0)
        for child in others:
            child.reap()


async def test_a_pid_that_was_given_to_a_stranger_is_never_signalled(
    run: Run, stranger: subprocess.Popen[bytes]
) -> None:
    now = identify(stranger.pid)
    assert now is not None
    before = ProcessId(now.pid, "1" + now.started)
    assert run.tree(before) == set()

    await end_tree(run.run_id, run.state, [before], grace=0)
    signalling.send(before, signal.SIGKILL)
    signalling.kill_groups([before])

    assert stranger.poll() is None
    assert is_alive(now)
    assert not is_alive(before)


async def test_without_pidfds_all_the_same_is_done_by_looking(
    run: Run, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trees, signalling):
        monkeypatch.setattr(module, "open_pidfd", lambda _pid: None)
    now = identify(stranger.pid)
    assert now is not None
    signalling.send(ProcessId(now.pid, "1" + now.started), signal.SIGKILL)
    leader = run.start(["sh", "-c", "sleep 60 & sleep 60 & wait"])

    await run.end()

    assert not is_alive(leader.identity)
    assert run.tree(*run.roots) == set()
    assert stranger.poll() is None


PROBE = """
import asyncio, json, os, sys
from pathlib import Path
from engine.errors import LeaseConflict
from engine.processes.census import tree_of
from engine.processes.trees import end_tree
state = Path(os.environ["AGENTMUX_STATE_DIR"])
run_id = os.environ["AGENTMUX_RUN_ID"]
before = [process.pid for process in tree_of(run_id, state, [])]
try:
    asyncio.run(end_tree(run_id, state, [], grace=1))
except LeaseConflict:
    refused = True
else:
    refused = False
after = [process.pid for process in tree_of(run_id, state, [])]
me = {"me": os.getpid(), "parent": os.getppid(), "refused": refused}
me |= {"before": before, "after": after}
draft = Path("report.draft")
draft.write_text(json.dumps(me))
draft.rename("report")
"""


async def test_who_is_part_of_a_tree_ends_nobody_of_it(run: Run) -> None:
    script = f"sleep 60 & echo $! > sibling; PYTHONPATH='{SOURCE}' '{sys.executable}' -c '{PROBE}'"
    # A last command would replace the shell, and there would be no ancestor.
    leader = run.start(["sh", "-c", script + "; exit 5"])
    sibling = await run.said("sibling")

    await asyncio.wait_for(leader.ended(), PATIENCE)

    errors = (run.folder / "err.log").read_text()
    report = json.loads((run.folder / "report").read_text())
    assert report["parent"] == leader.identity.pid, errors
    assert report["before"] == [sibling.pid]
    assert report["refused"], "what it may not end, it cannot call gone"
    assert report["after"] == [sibling.pid]
    assert leader.reap() == 5


async def test_a_process_that_keeps_replacing_its_program_is_seen_every_time(run: Run) -> None:
    # While the kernel swaps the program, the environment reads as empty.
    (run.folder / "again.sh").write_text('[ -e up ] || echo $$ > up; exec sh "$0"\n')
    run.start(["sh", "again.sh"])
    restless = await run.said("up")
    for _ in range(100):
        assert restless in run.tree()


async def test_a_chain_of_forks_cannot_outrun_the_end(run: Run) -> None:
    run.start(
        python("""
            import os, signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for n in range(100_000):
                if os.fork():
                    os._exit(0)
                if n == 50:
                    print(os.getpid(), file=open("fled", "w"))
        """)
    )
    await run.line_in("fled")

    await run.end(grace=0.1)

    assert await asyncio.to_thread(run.tree, *run.roots) == set()


@pytest.mark.parametrize("pause", [0, 0.01], ids=["at-once", "later"])
async def test_a_cancellation_comes_through_only_when_the_tree_is_gone(
    run: Run, pause: float
) -> None:
    run.start(["sh", "-c", "trap '' TERM; echo $$ > stubborn; while :; do sleep 0.1; done"])
    stubborn = await run.said("stubborn")
    ending = asyncio.create_task(end_tree(run.run_id, run.state, run.roots, grace=0.3))
    for _ in range(3):
        await asyncio.sleep(pause)
        ending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(ending, PATIENCE)

    assert not is_alive(stubborn)


async def test_what_survives_sigkill_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_UNKILLABLE", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(trees, "send", lambda *_: None)
        patch.setattr(trees, "kill_groups", lambda _: None)
        child = run.start(["sleep", "60"])
        with pytest.raises(TreeSurvived, match=str(child.identity.pid)) as raised:
            await run.end(grace=0)
    assert raised.value.survivors == {child.identity}


async def test_a_tree_that_cannot_be_looked_at_is_not_taken_for_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_handles(*_: object) -> int:
        raise OSError(24, "Too many open files")

    child = run.start(["sleep", "60"])
    monkeypatch.setattr(trees, "_UNKILLABLE", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr("engine.processes.proctable.os.open", out_of_handles)
        with pytest.raises(StorageError):
            identify(child.identity.pid)
        with pytest.raises(StorageError):
            is_alive(child.identity)
        with pytest.raises(StorageError):
            await run.end(grace=0)
    assert is_alive(child.identity)


async def test_a_tree_that_cannot_be_looked_at_in_the_end_is_not_taken_for_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: object) -> set[ProcessId]:
        raise StorageError("Too many open files")

    run.start(["sleep", "60"])
    monkeypatch.setattr(trees, "_UNKILLABLE", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(trees, "tree_of", blind)
        with pytest.raises(StorageError):
            await run.end(grace=0.05)


async def test_a_look_at_a_tree_that_fails_is_repeated(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = run.start(["sleep", "60"])
    failures = 2

    def at_first_blind(*args: Any) -> set[ProcessId]:
        nonlocal failures
        if failures:
            failures -= 1
            raise StorageError("Too many open files")
        return tree_of(*args)

    monkeypatch.setattr(trees, "tree_of", at_first_blind)
    await run.end()
    assert not is_alive(child.identity)


async def test_no_zombie_is_left_and_until_then_the_pid_stays_taken(run: Run) -> None:
    child = run.start(["true"])
    await asyncio.wait_for(child.ended(), PATIENCE)
    assert identify(child.identity.pid) is None, "a zombie is nobody"
    assert not is_alive(child.identity)
    assert look_at(child.identity.pid) is not None, "but its pid is not free"

    assert child.reap() == 0

    assert look_at(child.identity.pid) is None
    assert child.reap() == 0, "asking again changes nothing"


async def test_a_leader_whose_main_thread_has_left_is_alive(run: Run) -> None:
    child = run.start(
        python("""
            import _thread, ctypes, os, time
            def work():
                time.sleep(0.1)
                print(os.getpid(), file=open("up", "w"), flush=True)
                time.sleep(60)
            _thread.start_new_thread(work, ())
            ctypes.CDLL(None).pthread_exit(None)
        """)
    )
    assert await run.said("up") == child.identity
    assert is_alive(child.identity)


async def test_output_goes_to_private_files_and_an_heir_of_it_does_not_block_the_end(
    run: Run,
) -> None:
    child = run.start(["sh", "-c", "echo out; echo err >&2; sleep 60 & read line; echo $line"])

    await asyncio.wait_for(child.ended(), PATIENCE)
    await run.end()

    assert (run.folder / "out.log").read_text() == "out\n\n"
    assert (run.folder / "err.log").read_text() == "err\n"
    assert (run.folder / "out.log").stat().st_mode & 0o777 == 0o600


async def test_a_program_that_cannot_start_leaves_nothing(run: Run) -> None:
    with pytest.raises(FileNotFoundError):
        run.start(["/does/not/exist"])
    with pytest.raises(ValueError, match="null byte"):
        run.start(["true", "\0"])
    assert run.tree() == set()


def test_the_tag_cannot_be_replaced(tmp_path: Path) -> None:
    claim = Claim("r", TaskDef("t", "t", "a"), "w", 3, State.RUNNING, MOMENT, MOMENT)
    base = {"AGENTMUX_RUN_ID": "outer", "PATH": "/bin"}
    assert environment(base, claim, tmp_path / "x" / ".." / "state") == {
        "AGENTMUX_RUN_ID": "r",
        "AGENTMUX_STATE_DIR": str(tmp_path / "state"),
        "AGENTMUX_TASK_ID": "t",
        "AGENTMUX_WORKER_ID": "w",
        "AGENTMUX_ATTEMPT": "3",
        "PATH": "/bin",
    }


def test_nobody_has_a_pid_that_nobody_has() -> None:
    assert identify(2**22 + 1) is None
    mine = identify(os.getpid())
    assert mine is not None
    assert is_alive(mine)
