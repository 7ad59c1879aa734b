"""Promises of the guard process: no run outlives its host, and nobody else is touched."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.guards import SOURCE, HostProcess, all_gone, until

from engine.errors import StorageError
from engine.model import ProcessId
from engine.processes import guardian
from engine.processes.census import RUN_ID, STATE_DIR, tree_of, trees_of
from engine.processes.guard import Guard
from engine.processes.proctable import look_at, variables_of
from engine.processes.signalling import identify, is_alive
from engine.processes.trees import TAG_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN = 5.0
"""Seconds after the death of a host within which its runs are gone (DESIGN §4 rule 5)."""

SHAPES = """
import os, signal, time

def say(name):
    with open(name + ".draft", "w") as file:
        print(os.getpid(), file=file)
    os.rename(name + ".draft", name)

if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        say("grandchild")
        time.sleep(600)
    say("stubborn")
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("daemon")
        time.sleep(600)
    os._exit(0)
os.wait()
say("leader")
time.sleep(600)
"""
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


def python(code: str) -> list[str]:
    return [sys.executable, "-ISc", textwrap.dedent(code)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    made = HostProcess(tmp_path)
    yield made
    made.close()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the same user: one of no run, one of the same run of another state folder."""
    elsewhere = {RUN_ID: "run", STATE_DIR: str(tmp_path / "elsewhere")}
    started = [
        subprocess.Popen(["sleep", "600"], env={**os.environ, **variables}, start_new_session=True)
        for variables in ({}, elsewhere, {RUN_ID: "run"})
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `run` that nobody but a guard will end."""
    with subprocess.Popen(["sleep", "600"], env=tagged(tmp_path, "run")) as process:
        yield process
        process.kill()


def tagged(folder: Path, run_id: str) -> dict[str, str]:
    return {**os.environ, RUN_ID: run_id, STATE_DIR: str((folder / "state").resolve())}


def test_all_shapes_of_a_tree_are_gone_within_5_s_of_the_death_of_their_host(
    host: HostProcess, strangers: list[subprocess.Popen[bytes]]
) -> None:
    leader = host.start("run", *python(SHAPES))
    names = ("leader", "stubborn", "grandchild", "daemon")
    tree = {name: host.who(name) for name in names}
    assert tree["leader"] == leader
    assert len({os.getsid(process.pid) for process in tree.values()}) == 3

    died = host.kill()

    assert all_gone(tree.values(), died) <= WITHIN
    assert [stranger.poll() for stranger in strangers] == [None] * 3


def test_many_runs_are_ended_at_the_same_time(host: HostProcess) -> None:
    leaders = [host.start(f"run-{n}", "sh", "-c", STUBBORN) for n in range(12)]

    died = host.kill()

    assert all_gone(leaders, died) <= WITHIN


def test_sigterm_comes_first_and_may_be_answered(host: HostProcess, tmp_path: Path) -> None:
    answer = "trap 'sleep 0.3; echo bye > answer; exit' TERM; echo $$ > up; "
    host.start("run", "sh", "-c", answer + "while :; do sleep 0.02; done")
    leader = host.who("up")

    died = host.kill()

    assert all_gone([leader], died) <= WITHIN
    assert (tmp_path / "answer").read_text() == "bye\n"


def test_what_a_leader_that_has_ended_left_behind_is_ended(host: HostProcess) -> None:
    leader = host.start("run", "sh", "-c", "sleep 600 & echo $! > child")
    child = host.who("child")
    until(lambda: not is_alive(leader), "the leader has ended")

    died = host.kill()

    assert all_gone([child], died) <= WITHIN


def test_a_child_without_a_tag_is_not_lost_when_its_leader_obeys_first(host: HostProcess) -> None:
    bare = f"env -i sh -c 'echo $$ > bare; {STUBBORN.replace(chr(39), chr(34))}' & exec sleep 600"
    host.start("run", "sh", "-c", bare)
    child = host.who("bare")
    assert RUN_ID.encode() not in (variables_of(child.pid) or b"")

    died = host.kill()

    assert all_gone([child], died) <= WITHIN


def test_a_run_that_is_over_is_let_alone(
    host: HostProcess, strangers: list[subprocess.Popen[bytes]]
) -> None:
    # What carries the tag of a run that is over was there before it, or is the reaper's business.
    over = host.start("over", "sleep", "600")
    still = host.start("still", "sleep", "600")
    host.ask("over", "over")
    guard = host.guard

    died = host.kill()

    assert all_gone([still], died) <= WITHIN
    all_gone([guard], died)
    assert is_alive(over)
    assert all(stranger.poll() is None for stranger in strangers)


def test_a_leader_of_whom_nobody_was_told_is_found_by_its_tag(host: HostProcess) -> None:
    host.ask("begin", "other")
    guard = host.guard

    died = host.start_and_die("run", "sh", "-c", STUBBORN)

    assert all_gone([guard], died) <= WITHIN
    assert tree_of("run", host.state, []) == set()


def test_a_leader_that_shows_its_tag_only_after_the_host_died_is_ended(
    host: HostProcess, tmp_path: Path
) -> None:
    # As between fork and exec: there, but with the variables of the host.
    script = """
        import json, os, sys, time
        host, variables = int(sys.argv[1]), json.loads(sys.argv[2])
        try:
            while True:
                os.kill(host, 0)
                time.sleep(0.005)
        except ProcessLookupError:
            time.sleep(0.2)
        os.execvpe("sh", ["sh", "-c", "echo $$ > late; exec sleep 600"], variables)
    """
    variables = json.dumps(tagged(tmp_path, "run"))
    with subprocess.Popen(
        [*python(script), str(host.pid), variables], cwd=tmp_path, start_new_session=True
    ) as late:
        host.ask("begin", "run")
        guard = host.guard
        try:
            died = host.kill()
            all_gone([guard], died)
            assert late.wait(WITHIN) == -signal.SIGTERM
            assert time.monotonic() - died <= WITHIN
        finally:
            late.kill()


def test_a_pid_that_was_given_to_a_stranger_is_never_signalled(
    host: HostProcess, strangers: list[subprocess.Popen[bytes]]
) -> None:
    host.start("run", "sh", "-c", STUBBORN)  # so that it comes to SIGKILL, and to the groups
    for stranger in strangers:
        now = identify(stranger.pid)
        assert now is not None
        host.ask("lead", "run", now.pid, "1" + now.started)
    guard = host.guard

    all_gone([guard], host.kill())

    assert [stranger.poll() for stranger in strangers] == [None] * 3


@pytest.mark.parametrize("first", [StorageError("Too many open files"), {}])
def test_a_guard_that_cannot_look_for_a_moment_ends_the_tree_all_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: subprocess.Popen[bytes],
    first: StorageError | dict[str, set[ProcessId]],
) -> None:
    looks = 0

    def at_first_blind(*args: Any) -> dict[str, set[ProcessId]]:
        nonlocal looks
        looks += 1
        if looks > 1:
            return trees_of(*args)
        if isinstance(first, StorageError):
            raise first
        return first

    monkeypatch.setattr(guardian, "trees_of", at_first_blind)
    monkeypatch.setattr(guardian, "_SETTLED", 0.0)
    state = (tmp_path / "state").resolve()
    assert guardian._end_all(state, {"run": guardian._Run()}) == 0
    assert left.poll() == -signal.SIGTERM


def test_what_a_guard_that_does_not_listen_was_not_told_is_ended_at_the_close(
    guard: Guard, left: subprocess.Popen[bytes]
) -> None:
    guard.begin("early")
    assert guard.pid is not None
    os.kill(guard.pid, signal.SIGSTOP)
    for number in range(4_000):  # more than its pipe takes
        guard.begin(f"short-{number}")
        guard.over(f"short-{number}")
    guard.over("early")
    guard.begin("run")
    guard.close()
    assert left.poll() == -signal.SIGTERM


def test_a_guard_without_open_runs_goes_at_once_with_its_host(host: HostProcess) -> None:
    host.ask("begin", "run")
    host.ask("over", "run")
    guard = host.guard
    assert os.getsid(guard.pid) == guard.pid, "no terminal reaches it"

    assert all_gone([guard], host.kill()) < 1.0


def test_no_guard_is_started_before_it_is_needed(host: HostProcess) -> None:
    assert host.ask("tend") is None
    assert host.ask("over", "never begun") is None
    assert host.ask("begin", "run") is not None


def test_what_a_host_starts_does_not_keep_the_pipe_to_its_guard_open(host: HostProcess) -> None:
    host.ask("begin", "run")
    heir = host.heir("sleep", "600")
    leader = host.start("run", "sleep", "600")
    guard = host.guard
    try:
        died = host.kill()
        assert all_gone([leader, guard], died) <= WITHIN
        assert is_alive(heir)
    finally:
        os.kill(heir.pid, signal.SIGKILL)


def test_ctrl_c_in_the_terminal_of_the_host_does_not_end_its_guard(host: HostProcess) -> None:
    leader = host.start("run", *python("import time; time.sleep(600)"))
    guard = host.guard

    os.killpg(host.pid, signal.SIGINT)

    assert host.guard == guard
    assert all_gone([leader], host.kill()) <= WITHIN


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see which signals are ignored")
def test_no_polite_signal_ends_a_guard(host: HostProcess) -> None:
    leader = host.start("run", "sleep", "600")
    guard = host.guard
    polite = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    until(lambda: ignores(guard.pid) >= set(polite), "it has come so far as to ignore them")

    for number in polite:
        os.kill(guard.pid, number)

    assert host.guard == guard
    assert all_gone([leader], host.kill()) <= WITHIN


def ignores(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.parametrize("noticed", ["at the next message", "when it is tended"])
def test_a_guard_that_was_killed_is_replaced_by_one_that_knows_all_open_runs(
    host: HostProcess, noticed: str
) -> None:
    tree = [host.start("a", "sh", "-c", STUBBORN), host.start("b", "sleep", "600", told=False)]
    over = host.start("c", "sleep", "600")
    host.ask("over", "c")
    first = host.guard
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not is_alive(first), "it has ended")

    second = host.ask("tend") if noticed == "when it is tended" else host.ask("begin", "d")

    assert second not in {None, first.pid}
    assert look_at(first.pid) is None, "reaped"
    assert "exit code -9" in host.said.read_text()
    assert all_gone(tree, host.kill()) <= WITHIN
    assert is_alive(over)


def test_without_file_handles_the_guard_is_started_as_soon_as_there_are_some(
    host: HostProcess,
) -> None:
    host.ask("starve")
    assert host.ask("begin", "run") is None
    assert [host.ask("begin", "other") for _ in range(5)] == [None] * 5
    host.ask("feed")
    leader = host.start("third", "sleep", "600", told=False)
    early = host.start("run", "sleep", "600", told=False)

    assert host.said.read_text().count("no guard process can be started") == 1
    assert all_gone([leader, early], host.kill()) <= WITHIN


def test_a_suspended_guard_does_not_hold_up_its_host_and_hears_the_rest_later(
    host: HostProcess,
) -> None:
    host.ask("begin", "early")
    guard = host.guard
    os.kill(guard.pid, signal.SIGSTOP)
    host.ask("burst", 4_000)
    late = host.start("late", "sleep", "600", told=False)
    assert host.unsent() > 0
    assert host.guard == guard

    os.kill(guard.pid, signal.SIGCONT)
    until(lambda: host.unsent() == 0, "the rest is told")

    assert all_gone([late], host.kill()) <= WITHIN


def test_a_guard_that_reads_no_more_is_replaced(host: HostProcess) -> None:
    leader = host.start("run", "sleep", "600", told=False)
    first = host.guard
    os.kill(first.pid, signal.SIGSTOP)

    host.ask("burst", 20_000)

    assert host.guard != first
    assert not is_alive(first)
    assert all_gone([leader], host.kill()) <= WITHIN


def test_a_closed_guard_leaves_no_process_and_no_zombie(guard: Guard) -> None:
    with subprocess.Popen(["sh", "-c", "exit 7"]) as mine:
        guard.begin("run")
        pid = guard.pid
        assert pid is not None
        guard.over("run")
        until(lambda: identify(mine.pid) is None, "a child of ours is a zombie")

        guard.close()

        assert guard.pid is None
        assert look_at(pid) is None
        assert mine.wait() == 7, "whom it did not start it does not reap"


def test_runs_that_are_open_at_the_close_are_ended_before_it_returns(
    guard: Guard, left: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    guard.begin("run")
    pid = guard.pid
    assert pid is not None

    guard.close()

    assert left.poll() == -signal.SIGTERM
    assert look_at(pid) is None
    assert caplog.messages == []


def test_a_guard_that_died_before_the_close_is_replaced_if_runs_are_open(
    guard: Guard, left: subprocess.Popen[bytes]
) -> None:
    guard.begin("run")
    pid = guard.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: identify(pid) is None, "it has ended")

    guard.close()

    assert left.poll() == -signal.SIGTERM


def test_a_guard_may_be_used_again_after_its_close(guard: Guard) -> None:
    guard.begin("a")
    guard.over("a")
    guard.close()
    guard.tend()
    before = guard.pid

    guard.begin("b")

    assert before is None
    assert guard.pid is not None
    guard.over("b")


def test_a_guard_that_does_not_come_to_its_end_does_not_hold_up_the_close(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.processes.guard.AT_MOST", -2.9)  # it waits for 3 s more than this
    guard.begin("run-1")
    pid = guard.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    guard.close()

    assert look_at(pid) is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "run-1" in caplog.text


def test_a_guard_that_cannot_live_costs_a_few_starts_and_one_line(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pids: set[int | None] = set()
    monkeypatch.setattr("engine.processes.guard._BOOT", "raise SystemExit(3)")
    with monkeypatch.context() as patch:
        patch.setattr("engine.processes.guard._SECONDS", 600.0)
        guard.begin("run")
        for _ in range(200):
            pids.add(guard.pid)
            time.sleep(0.002)
            guard.tend()
    assert len(pids - {None}) == 3
    (told,) = (r.getMessage() for r in caplog.records)
    # Its pipe may tell of its end before its exit code does.
    assert re.fullmatch(
        r"the guard process (has ended \(exit code 3\)|is lost .*); another one is started", told
    )
    guard.over("run")


def test_a_program_that_cannot_be_started_is_no_error_of_the_run(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", no_memory)
        for _ in range(2):
            guard.begin("run")
            guard.lead("run", ProcessId(1, "1"))
        guard.over("run")
    assert len(caplog.records) == 1


def test_no_module_of_the_users_is_imported_by_the_guard(
    guard: Guard,
    left: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w')\n"
    for name in ("engine", "json", "sitecustomize", "usercustomize", "dataclasses", "psutil"):
        (tmp_path / f"{name}.py").write_text(trap)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    guard.begin("run")
    guard.close()
    assert left.poll() == -signal.SIGTERM, "and yet it found the engine"
    assert not (tmp_path / "sprung").exists()


def test_the_guard_carries_no_tag_of_its_own_state_folder(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tagged(tmp_path, "outer").items():
        monkeypatch.setenv(name, value)
    guard.begin("run")
    assert not TAG_NAMES & variables(guard).keys()
    guard.over("run")


def test_the_guard_of_a_nested_host_is_part_of_the_outer_run(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID, "outer")
    monkeypatch.setenv(STATE_DIR, str(tmp_path / "outer state"))
    guard.begin("run")
    found = variables(guard)
    assert found[RUN_ID] == "outer"
    assert found[STATE_DIR] == str(tmp_path / "outer state")
    guard.over("run")


def variables(guard: Guard) -> dict[str, str]:
    assert guard.pid is not None
    block = variables_of(guard.pid)
    assert block, "it lives, and has some"
    return dict(item.split("=", 1) for item in os.fsdecode(block).split("\0") if "=" in item)


def test_the_guard_loads_neither_store_nor_settings_nor_screen() -> None:
    code = "import sys; sys.path += sys.argv[1:]\n"
    code += "import engine.processes.guardian; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-PsBS", "-c", code, SOURCE, str(Path(msgspec.__file__).parents[1])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "engine.processes.guardian" in loaded
    heavy = {
        "asyncio",
        "subprocess",
        "sqlite3",
        "aiosqlite",
        "yaml",
        "rich",
        "textual",
        "engine.store",
        "engine.processes.trees",
    }
    assert heavy.isdisjoint(loaded)
