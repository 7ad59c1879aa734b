"""Agents that somebody else has started: known, listed, missed when they are gone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.clock import ManualClock
from support.engines import Project, until
from support.stores import a_task, tuples

from engine import registry as registry_module
from engine.commands import BeatAgents, RegisterAgent, Seed, UnregisterAgents
from engine.config import Config
from engine.errors import Code, LeaseConflict, ValidationError
from engine.files import Layout
from engine.model import External, ProcessId
from engine.orders.on_agents import AgentOrders
from engine.processes.signalling import identify, seems_alive
from engine.registry import RegistryWatch, find_strangers
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
SLEEPING = {"kind": "shell", "argv": ["sleep", "600"]}


class Room:
    """A store and who watches over its registered agents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(folder / "state")
        self.clock = ManualClock()
        self.store = Store(self.layout, self.clock, lease=600)
        self.reader = Reader(self.layout.database)

    @property
    def watch(self) -> RegistryWatch:
        return RegistryWatch(
            store=self.store,
            lookout=Lookout(self.reader, self.clock),
            project=self.folder,
            config=Config(),
            clock=self.clock,
        )

    def ids(self) -> list[str]:
        return [row[0] for row in tuples(self.layout, "SELECT id FROM externals ORDER BY id")]

    def alerts(self) -> list[str]:
        return [row[0] for row in tuples(self.layout, "SELECT summary FROM alerts ORDER BY id")]


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(registry_module, "find_strangers", lambda *_: [])
    room = Room(tmp_path)
    room.layout.create()
    await room.store.open()
    async with room.reader:
        yield room
    await room.store.close()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def who(process: subprocess.Popen[bytes]) -> ProcessId:
    found = identify(process.pid)
    assert found is not None
    return found


async def test_one_whose_process_is_gone_is_forgotten_with_an_alert(
    room: Room, sleeper: subprocess.Popen[bytes]
) -> None:
    await room.store.register_agent(External("mine", "claude", who(sleeper)))
    watch = room.watch
    await watch.look()
    assert room.ids() == ["mine"]
    sleeper.kill()
    sleeper.wait()
    await watch.look()
    assert room.ids() == []
    assert room.alerts() == [f"agent mine (claude) vanished: its process {sleeper.pid} is gone"]
    kinds = [row[0] for row in tuples(room.layout, "SELECT type FROM events ORDER BY seq")]
    assert kinds == ["AGENT_REGISTERED", "AGENT_UNREGISTERED", "ALERT"]


async def test_one_without_process_or_window_must_beat(room: Room) -> None:
    await room.store.register_agent(External("far", "robot"))
    watch = room.watch
    for _ in range(10):
        await room.clock.advance(50)
        await room.store.beat_agents(["far"])
        await watch.look()
    for _ in range(6):
        await room.clock.advance(50)
        await watch.look()
    assert room.ids() == ["far"]
    await room.clock.advance(1)
    await watch.look()
    assert room.ids() == []
    assert room.alerts() == ["agent far (robot) vanished: it was silent for 5:01"]


async def test_who_slept_has_the_time_to_beat_again(room: Room) -> None:
    await room.store.register_agent(External("far", "robot"))
    watch = room.watch
    await watch.look()
    await room.clock.advance(8 * 3600)
    for _ in range(6):
        await watch.look()
        await room.clock.advance(50)
    assert room.ids() == ["far"]
    await watch.look()
    assert room.ids() == []


async def test_two_registrars_in_a_race_make_one_entry(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    script = (
        "import asyncio, sys, pathlib\n"
        "from engine.clock import SystemClock\n"
        "from engine.files import Layout\n"
        "from engine.model import External\n"
        "from engine.store.store import Store\n"
        "async def main():\n"
        "    store = Store(Layout(pathlib.Path('state').absolute()), SystemClock(), lease=600)\n"
        "    await store.open()\n"
        "    for n in range(50):\n"
        "        agent = External(f'a{n}', 'robot', meta={'by': sys.argv[1]})\n"
        "        print(int(await store.register_agent(agent)))\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, name),
            cwd=tmp_path,
            env=here,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    said = [(await racer.communicate())[0].split() for racer in racers]
    assert [len(lines) for lines in said] == [50, 50]
    assert sum(line == b"1" for lines in said for line in lines) == 50
    assert len(tuples(layout, "SELECT 1 FROM externals")) == 50
    assert len(tuples(layout, "SELECT 1 FROM events")) == 50


async def test_an_id_is_that_of_who_lives(
    project: Project, sleeper: subprocess.Popen[bytes]
) -> None:
    async with project.engine() as engine:
        await engine.execute(RegisterAgent(External("mine", "claude", who(sleeper))))
        again = await engine.execute(
            RegisterAgent(External("mine", "claude", who(sleeper), meta={"k": "v"}))
        )
        assert again.done == {"mine": "updated"}
        me = identify(os.getpid())
        with pytest.raises(LeaseConflict, match=r"its process .* lives"):
            await engine.execute(RegisterAgent(External("mine", "claude", me)))
        await engine.start_worker("codex")
        with pytest.raises(LeaseConflict, match="is the id of a worker"):
            await engine.execute(RegisterAgent(External("codex-1", "codex")))
        (row,) = await engine.queries.externals()
        assert (row.pid, row.meta) == (sleeper.pid, {"k": "v"})


@pytest.mark.parametrize(
    "agent",
    [
        External("a b", "claude"),
        External("..", "claude"),
        External("a", ""),
        External("a", "claude", ProcessId(2**22 + 1, "0@x")),
        External("a", "claude", tmux="none:here"),
        External("a", "claude", tmux="a:b:c"),
        External("a", "claude", meta={"a b": "c"}),
        External("a", "claude", meta={"a": "c" * 2000}),
        External("a", "claude", meta={str(n): "" for n in range(60)}),
    ],
)
async def test_what_cannot_be_known_is_refused(project: Project, agent: External) -> None:
    async with project.engine() as engine:
        with pytest.raises(ValidationError):
            await engine.execute(RegisterAgent(agent))
        assert await engine.queries.externals() == []


async def test_one_can_be_ended(project: Project, sleeper: subprocess.Popen[bytes]) -> None:
    async with project.engine() as engine:
        await engine.execute(RegisterAgent(External("mine", "claude", who(sleeper))))
        receipt = await engine.execute(UnregisterAgents(("mine", "other"), end=True))
        assert receipt.done == {"mine": f"ended: pid {sleeper.pid}"}
        assert [refusal.subject for refusal in receipt.refused] == ["other"]
        assert sleeper.wait(5) == -15
        receipt = await engine.execute(BeatAgents(("mine",)))
        assert receipt.done == {}


async def test_none_of_the_fleet_is_ended_by_mistake(project: Project) -> None:
    project.settings(json.dumps({"shell": {"allow": ["sleep"]}}))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t", payload=SLEEPING))))
        worker = project.work("codex-9")
        sql = "SELECT pid FROM runs WHERE pid IS NOT NULL"
        await until(lambda: tuples(project.layout, sql), "it runs")
        ((leader,),) = tuples(project.layout, sql)
        pids = {"worker": worker.pid, "run": leader, "me": os.getpid(), "parent": os.getppid()}
        for name, pid in (pids | {"init": 1}).items():
            await engine.execute(RegisterAgent(External(name, "claude", identify(pid))))
        ending = UnregisterAgents((*pids, "init"), end=True)
        for dry_run in (True, False):
            receipt = await engine.execute(ending, dry_run=dry_run)
            assert receipt.done == {}
            assert [refusal.code for refusal in receipt.refused] == [Code.COMMAND_NOT_ALLOWED] * 5
        assert identify(leader) is not None
        assert worker.poll() is None


@pytest.fixture
def tmux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux")
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    monkeypatch.delenv("TMUX", raising=False)

    def tmux(*words: str) -> str:
        argv = ["tmux", "-u", "-f", "/dev/null", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    tmux("new-session", "-d", "-s", "fleet", "-n", "one", *SLEEPER)
    yield tmux
    with suppress(subprocess.CalledProcessError):
        tmux("kill-server")


async def end_server(tmux: Callable[..., str]) -> None:
    server = identify(int(tmux("display-message", "-p", "#{pid}")))
    assert server is not None
    tmux("kill-server")
    await until(lambda: not seems_alive(server), "the server is gone")


async def test_a_window_of_tmux_is_an_agents_place(
    project: Project, tmux: Callable[..., str]
) -> None:
    tmux("new-window", "-d", "-t", "fleet", "-n", "two", *SLEEPER)
    async with project.engine() as engine:
        await engine.execute(RegisterAgent(External("a", "claude", tmux="fleet:one")))
        await engine.execute(RegisterAgent(External("b", "claude", tmux="fleet:two")))
        await engine.start_worker("codex")
        await engine.execute(UnregisterAgents(("a",), end=True))
        rows = await engine.queries.externals()
        assert [row.id for row in rows] == ["b"]
        tmux("kill-window", "-t", "fleet:two")
        await until(lambda: not tuples(project.layout, "SELECT 1 FROM externals"), "b is missed")
    (alert,) = tuples(project.layout, "SELECT summary FROM alerts")
    assert alert == ("agent b (claude) vanished: its window fleet:two is gone",)


async def test_windows_are_told_apart_whatever_they_are_called(
    project: Project, tmux: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    for name in ("3", "b\u00fcro", "li\u2028ne", "twins", "twins"):
        tmux("new-window", "-d", "-t", "fleet", "-n", name, *SLEEPER)
    tmux("new-session", "-d", "-s", "fleet-2", *SLEEPER)
    tmux("new-window", "-d", "-t", "fleet-2", *SLEEPER)
    named = {"index": "fleet:3", "umlaut": "fleet:b\u00fcro", "all": "fleet-2"}
    async with project.engine() as engine:
        for name, window in named.items():
            await engine.execute(RegisterAgent(External(name, "claude", tmux=window)))
        with pytest.raises(ValidationError, match="no window"):
            await engine.execute(RegisterAgent(External("other", "claude", tmux="flee:one")))
        with pytest.raises(LeaseConflict, match="called fleet:twins; register fleet:4 or fleet:5"):
            await engine.execute(RegisterAgent(External("twin", "claude", tmux="fleet:twins")))
        receipt = await engine.execute(UnregisterAgents((*named,), end=True))
        assert set(receipt.done) == set(named)
    left = tmux("list-windows", "-a", "-F", "#{session_name}:#{window_index}").split()
    assert left == ["fleet:0", "fleet:1", "fleet:4", "fleet:5"]


async def test_a_window_is_known_by_what_it_is_not_by_what_it_is_called(
    project: Project, tmux: Callable[..., str]
) -> None:
    for name in ("two", "three", "four"):
        tmux("new-window", "-d", "-t", "fleet", "-n", name, *SLEEPER)
    registered = {"a": "fleet:two", "b": "fleet:3", "c": "fleet:three"}
    async with project.engine() as engine:
        for name, window in registered.items():
            await engine.execute(RegisterAgent(External(name, "claude", tmux=window)))
        tmux("swap-window", "-d", "-s", "fleet:0", "-t", "fleet:3")
        tmux("rename-window", "-t", "fleet:0", "new")
        tmux("kill-window", "-t", "fleet:two")
        tmux("new-window", "-d", "-t", "fleet", "-n", "two", *SLEEPER)
        ended = await engine.execute(UnregisterAgents(("a", "b"), end=True))
        gone = "registered no more; it was gone before"
        assert ended.done == {"a": gone, "b": "ended: tmux fleet:3"}
        left = tmux("list-windows", "-a", "-F", "#{window_name}").split()
        assert sorted(left) == ["one", "three", "two"]
        # Another server gives the same ids again.
        await end_server(tmux)
        for number in range(3):
            tmux("new-session", "-d", "-s", f"fleet{number}", "-n", "three", *SLEEPER)
        ended = await engine.execute(UnregisterAgents(("c",), end=True))
        assert ended.done == {"c": gone}
    assert tmux("list-windows", "-a", "-F", "#{window_name}").split() == ["three"] * 3


async def test_a_window_that_cannot_be_seen_from_here_is_neither_gone_nor_ended(
    room: Room, tmux: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = AgentOrders(
        store=room.store,
        lookout=Lookout(room.reader, room.clock),
        layout=room.layout,
        config=Config(),
    )
    await orders.carry_out(RegisterAgent(External("a", "claude", tmux="fleet:one")), dry_run=False)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TMUX_TMPDIR", str(room.folder / "state"))
        await room.watch.look()
        receipt = await orders.carry_out(UnregisterAgents(("a",), end=True), dry_run=False)
    assert "does not answer here" in receipt.refused[0].message
    assert room.ids() == ["a"]
    assert tmux("list-windows", "-a", "-F", "#{window_name}").split() == ["one"]
    await end_server(tmux)
    await room.watch.look()
    assert room.alerts() == ["agent a (claude) vanished: its window fleet:one is gone"]


async def test_a_window_that_one_is_in_oneself_is_spared(
    project: Project, tmux: Callable[..., str]
) -> None:
    script = project.folder / "end.sh"
    register = f"{sys.executable} -m engine.cli agents register me --type claude --tmux fleet:me"
    unregister = f"{sys.executable} -m engine.cli agents unregister me --end --yes"
    script.write_text(f"cd {project.folder}; {register}; {unregister} 2>said; touch over; cat")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag()))
    tmux("new-window", "-d", "-t", "fleet", "-n", "me", "sh", str(script))
    await until((project.folder / "over").exists, "it was asked")
    assert "fleet:me has process" in (project.folder / "said").read_text()
    assert "me" in tmux("list-windows", "-a", "-F", "#{window_name}").split()


def test_an_agent_that_nobody_has_told_of_is_found(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.symlink_to(sys.executable)
    inside, outside = tmp_path / "project", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    ours = {**os.environ, "AGENTMUX_RUN_ID": "r", "AGENTMUX_STATE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen([str(program), *SLEEPER[1:]], cwd=cwd, env=env)
        for cwd, env in ((inside, None), (outside, None), (inside, ours))
    ]
    try:
        (stranger,) = find_strangers(["claude"], inside)
        assert stranger.process.pid == started[0].pid
        assert stranger.command == "claude"
    finally:
        for process in started:
            process.kill()
            process.wait()
