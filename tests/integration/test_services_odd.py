"""Services that are odd, or kept on a machine that is: none is lost, and none gets away."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.engines import ENVIRONMENT, suspend, until
from support.patience import PATIENCE
from support.servers import listens
from support.stores import tuples

from engine.commands import RestartServices, StartServices, StopServices
from engine.errors import CommandNotAllowed, ValidationError
from engine.services import ending

if TYPE_CHECKING:
    from pathlib import Path

    from support.kept import Fleet

UP = [sys.executable, "-m", "engine.cli", "up"]
NEVER: dict[str, Any] = {"ready": {"files": ["never"], "every": 0.1}, "ready_timeout": 0.2}


def begin(fleet: Fleet) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen(UP, cwd=fleet.folder, env=ENVIRONMENT, stdin=silent, stderr=silent)


async def test_who_takes_his_time_to_end_is_not_called_left(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "WATCHDOG", 2.0)
    fleet.add("web", "deaf", stop_timeout=3)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await engine.keeper.until_ready() == []
        await engine.execute(StopServices(None))
        assert fleet.row("web")[:2] == ("stopped", "")
        assert fleet.alerts() == []


async def test_one_that_does_not_speak_http_is_not_ready_and_stays_kept(fleet: Fleet) -> None:
    port = fleet.add("web", ready={"http": "/", "every": 0.1, "timeout": 1}, ready_timeout=0.3)
    script = fleet.folder / "ssh.py"
    script.write_text(
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "while True:\n"
        "    with server.accept()[0] as one: one.sendall(b'SSH-2.0\\r\\n')\n"
    )
    fleet.settings["web"]["command"] = [sys.executable, str(script), str(port)]
    fleet.write()
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 2, "it is started again")
        assert "does not speak HTTP" in fleet.log("web")


def dist(fleet: Fleet, name: str = "dist") -> Path:
    folder = fleet.folder / "web" / name
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("of old")
    return folder


async def test_the_old_folder_comes_back_when_no_new_one_helped(fleet: Fleet) -> None:
    folder = dist(fleet)
    steps = ["touch {new}/index.html"]
    recover = {"folder": "dist", "steps": steps, "attempts": 2}
    fleet.add("web", recover=recover, **NEVER)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[3] == "failed", "all attempts are used up")
        await until(lambda: (folder / "index.html").read_text() == "of old", "it is back")
        await engine.execute(StopServices(None))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["dist"]


@pytest.mark.parametrize("folder", ["/", ".", "..", "dist/..", "./"])
async def test_what_no_folder_can_take_the_place_of_is_refused(fleet: Fleet, folder: str) -> None:
    fleet.add("web", recover={"folder": folder, "steps": ["touch {new}/a"]})
    with pytest.raises(ValidationError, match="folder"):
        async with fleet.engine():
            pass


async def test_the_place_of_what_is_needed_is_not_taken(fleet: Fleet) -> None:
    fleet.add("web", recover={"folder": "../../self", "steps": ["touch {new}/a"]}, **NEVER)
    (fleet.folder.parent / "self").symlink_to(fleet.folder)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.states().get("web") == "waiting", "it has failed")
        await until(lambda: "cannot be replaced" in fleet.log("web"), "it is refused")
    assert (fleet.folder.parent / "self").is_symlink()


@pytest.mark.parametrize(
    "step",
    ["rm -r {new}", "sh -c 'rm -r {new}; touch {new}'", "sh -c 'rm -r {new}; ln -s / {new}'"],
)
async def test_steps_that_make_no_folder_do_no_harm(fleet: Fleet, step: str) -> None:
    folder = dist(fleet, "[d]ist")
    recover = {"folder": folder.name, "steps": [step], "attempts": 2}
    fleet.add("web", recover=recover, **NEVER)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[3] == "failed", "it is given up")
        await until((folder / "index.html").exists, "it is there")
        assert fleet.states()["web"] != "stopped"
    assert (folder / "index.html").read_text() == "of old"


async def test_no_step_outlives_a_keeper_that_is_killed(fleet: Fleet) -> None:
    script = fleet.folder / "step.py"
    script.write_text(
        "import os, pathlib, time\n"
        "if os.fork() == 0: os.setsid()\n"
        "pathlib.Path(f'{os.getpid()}.step').touch()\n"
        "time.sleep(600)\n"
    )
    fleet.add("web", recover={"steps": [[sys.executable, str(script)]]}, **NEVER)
    up = begin(fleet)
    found = fleet.folder / "web"
    try:
        await until(lambda: len([*found.glob("*.step")]) == 2, "a step is at work")
    finally:
        up.kill()
        up.wait()
    pids = [int(path.stem) for path in found.glob("*.step")]
    await until(lambda: not any(map(psutil.pid_exists, pids)), "the guard has ended it")


@pytest.mark.parametrize("what", ["ready", "step"])
async def test_no_secret_of_a_service_is_told(fleet: Fleet, what: str) -> None:
    complaint = [
        sys.executable,
        "-c",
        "import os, sys; sys.exit('no ' + os.environ['DB_PASSWORD'])",
    ]
    settings: dict[str, Any] = {**NEVER, "env": {"DB_PASSWORD": "sesame-4242"}}
    if what == "ready":
        settings["ready"] = {"command": complaint, "every": 0.1}
    else:
        settings["recover"] = {"steps": [complaint]}
    fleet.add("web", **settings)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 2, "it fails")
    told = fleet.log("web") + str(tuples(fleet.project.layout, "SELECT data FROM events"))
    assert "no [DB_PASSWORD]" in told
    assert "sesame" not in told


async def test_what_is_in_the_way_of_its_log_ends_nothing(fleet: Fleet) -> None:
    fleet.add("web")
    async with fleet.engine() as engine:
        log = fleet.project.layout.service_log("web")
        log.parent.mkdir(exist_ok=True)
        log.mkdir()
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 1, "it waits")
        assert "it cannot be kept" in fleet.row("web")[1]
        log.rmdir()
        async with asyncio.timeout(PATIENCE):
            assert await engine.keeper.until_ready() == []
        await engine.execute(StopServices(None))
        shutil.rmtree(log.parent)
        await engine.execute(StartServices(None))
        assert await engine.keeper.until_ready() == []


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
async def test_sessions_of_a_keeper_that_was_killed_are_ended(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    monkeypatch.setitem(ENVIRONMENT, "TMUX_TMPDIR", str(tmp_path))
    monkeypatch.delenv("TMUX", raising=False)

    def tmux(*words: str) -> str:
        argv = ["tmux", "-f", "/dev/null", *words]
        return subprocess.run(argv, check=False, capture_output=True, text=True).stdout

    tmux("new-session", "-d", "-s", "mine", "sleep", "600")
    try:
        fleet.add("web", tmux=["web-logs"], backoff=0.5)
        command = fleet.settings["web"]["command"]
        shell = f"tmux new-session -d -s web-logs sleep 600 && exec {' '.join(command)}"
        fleet.settings["web"]["command"] = ["sh", "-c", shell]
        fleet.write()
        port = fleet.ports["web"]
        up = begin(fleet)
        try:
            await until(lambda: listens(port), "it is up")
        finally:
            up.kill()
            up.wait()
        await until(lambda: not fleet.lives(), "the guard has ended it")
        assert "web-logs" in tmux("list-sessions")
        async with fleet.engine() as engine:
            await engine.execute(StartServices(None))
            assert await engine.keeper.until_ready() == []
            assert fleet.row("web")[2] == 0
        assert tmux("list-sessions", "-F", "#S").split() == ["mine"]
    finally:
        tmux("kill-server")


async def test_nobody_waits_for_a_keeper_that_was_killed(fleet: Fleet) -> None:
    port = fleet.add("web")
    up = begin(fleet)
    try:
        await until(lambda: listens(port), "it is up")
        await suspend(up, fleet.project.layout)
        async with fleet.project.engine() as other:
            asked = [
                asyncio.create_task(other.execute(command))
                for command in (RestartServices(("web",)), StopServices(("web",)))
            ]
            sql = "SELECT 1 FROM services WHERE asked IS NOT NULL"
            await until(lambda: tuples(fleet.project.layout, sql), "it is asked")
            up.kill()
            up.wait()
            async with asyncio.timeout(ending.WATCHDOG):
                restarted, stopped = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        up.kill()
        up.wait()
    assert isinstance(restarted, CommandNotAllowed)
    assert not isinstance(stopped, BaseException)
    await until(lambda: not fleet.lives(), "the guard has ended it")


def test_a_life_that_calls_itself_one_is_no_harm() -> None:
    assert ending.is_life(ending.new_life("web"), "web")
    assert not ending.is_life(ending.new_life("web-2"), "web")
    assert ending.is_life("service-web-", "web")
