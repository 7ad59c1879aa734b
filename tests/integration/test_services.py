"""Services: started, awaited, looked at, mended and ended, whatever they do to get away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import ENVIRONMENT, until
from support.patience import PATIENCE
from support.program import Project as Program
from support.servers import answers, listens, server
from support.stores import tuples

from engine.commands import RestartServices, StartServices, StopServices
from engine.errors import CommandNotAllowed, LeaseConflict

if TYPE_CHECKING:
    from pathlib import Path

    from support.kept import Fleet

    from engine.core import Engine

HTTP = {"http": "/health", "every": 0.1, "timeout": 2, "failures": 2}


def begin(argv: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen(argv, cwd=cwd, env=ENVIRONMENT, stdin=silent, stderr=silent)


async def ready(engine: Engine, *names: str) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return await engine.keeper.until_ready(names or None)


async def test_a_service_is_started_awaited_and_ended_with_its_keeper(fleet: Fleet) -> None:
    port = fleet.add("web", ready=HTTP)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        assert answers(port) == 200
        assert fleet.row("web")[0] == "ready"
        assert len(fleet.lives()) == 1
    assert fleet.row("web")[:2] == ("stopped", "")
    assert not listens(port)
    assert fleet.lives() == []
    log = fleet.log("web")
    for words in (
        "begins well",
        "starting",
        "ready",
        "stopping",
        "SIGTERM to 1 process",
        "is free",
    ):
        assert words in log
    assert log.count("all of it is gone") == 1, "there was nothing before it started"
    told = tuples(fleet.project.layout, "SELECT data FROM events WHERE type = 'SERVICE'")
    assert [json.loads(data)["serviceState"] for (data,) in told][-1] == "stopped"
    fleet.project.check()


async def test_what_it_depends_on_is_ready_before_it_starts(fleet: Fleet) -> None:
    fleet.add("db", "slow")
    fleet.add("web", depends_on=["db"])
    async with fleet.engine() as engine:
        await engine.execute(StartServices(("web",)))
        await until(lambda: fleet.states().get("db") == "starting", "db starts")
        assert fleet.states()["web"] == "waiting"
        (fleet.folder / "db" / "go").touch()
        assert await ready(engine) == []
    log = fleet.log("db") + fleet.log("web")
    assert log.index("[agentmux") < log.index("begins well")


async def test_one_that_is_started_anew_is_waited_for(fleet: Fleet) -> None:
    fleet.add("web", "slow", ready=HTTP)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        waiting = asyncio.create_task(ready(engine))
        await until(fleet.lives, "it has begun")
        await engine.execute(RestartServices(("web",)))
        (fleet.folder / "web" / "go").touch()
        assert await waiting == []


async def test_what_depends_on_one_that_failed_is_not_waited_for(fleet: Fleet) -> None:
    fleet.add("db", "crash", restart="never")
    fleet.add("web", depends_on=["db"])
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == ["db", "web"]
        assert fleet.row("web")[:2] == ("waiting", "for db to be ready")


@pytest.mark.parametrize("how", ["deaf", "forks", "child"])
async def test_stopped_means_gone(fleet: Fleet, how: str) -> None:
    port = fleet.add("web", how, restart="never")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        if how == "forks":
            await until(lambda: len(fleet.lives()) == 3, "it has forked")
        await engine.execute(StopServices(None))
        assert not listens(port)
        assert fleet.lives() == []
    if how == "deaf":
        assert "SIGKILL" in fleet.log("web")


async def test_one_that_is_stopped_takes_no_other_with_it(fleet: Fleet) -> None:
    port, other = fleet.add("web", "forks"), fleet.add("web-2", "forks")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        pid = fleet.row("web-2")[4]
        await engine.execute(StopServices(("web",)))
        assert not listens(port)
        assert answers(other, "/pid") == 200
        assert fleet.row("web-2")[0] == "ready"
        assert fleet.row("web-2")[4] == pid


async def test_a_child_that_holds_the_port_is_ended_before_the_next_start(fleet: Fleet) -> None:
    port = fleet.add("web", "child")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 2, "it was started again and again")
    assert not listens(port)


async def test_a_port_that_another_program_holds_is_told(fleet: Fleet) -> None:
    port = fleet.add("web")
    other = begin(server(fleet.folder, "well", port), fleet.folder)
    try:
        await until(lambda: listens(port), "the other listens")
        async with fleet.engine() as engine:
            await engine.execute(StartServices(None))
            await until(lambda: fleet.row("web")[2] >= 1, "it waits")
            assert f"port {port} is held by pid {other.pid}" in fleet.row("web")[1]
            other.kill()
            other.wait()
            assert await ready(engine) == []
    finally:
        other.kill()
        other.wait()


async def test_a_death_is_told(fleet: Fleet) -> None:
    fleet.add("web", ready=HTTP, backoff=5)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        os.kill(fleet.row("web")[4], signal.SIGKILL)
        await until(lambda: fleet.row("web")[0] == "waiting", "it is noticed")
        assert "it ended with -9" in fleet.row("web")[1]
        assert fleet.alerts() == ["service web: it ended with -9"]


async def test_who_keeps_services_watches_without_workers_too(fleet: Fleet) -> None:
    fleet.add("web", backoff=5)
    log, mail = fleet.folder / "app.log", fleet.folder / "mail.txt"
    ways = {"mailbox": {"file": "mail.txt", "to": "operator"}}
    settings = {"services": fleet.settings, "alerts": ways, "watch": {"files": ["app.log"]}}
    fleet.project.settings(json.dumps(settings))
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        os.kill(fleet.row("web")[4], signal.SIGKILL)
        await until(lambda: mail.exists() and "it ended with -9" in mail.read_text(), "it is told")
        log.write_text("ERROR in a log\n")
        await until(lambda: "ERROR in a log" in mail.read_text(), "the log is watched")


@pytest.mark.parametrize(
    ("how", "restart", "state"),
    [
        ("done", "on-failure", "stopped"),
        ("crash", "never", "failed"),
        ("done", "never", "stopped"),
    ],
)
async def test_what_it_does_when_it_ends_is_the_operators_word(
    fleet: Fleet, how: str, restart: str, state: str
) -> None:
    fleet.add("web", how, restart=restart)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.states().get("web") == state, state)
        assert fleet.row("web")[2] == 0


@pytest.mark.parametrize(("how", "restart"), [("done", "always"), ("crash", "on-failure")])
async def test_it_is_started_again(fleet: Fleet, how: str, restart: str) -> None:
    fleet.add("web", how, restart=restart)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 3, "it was started again")


async def test_one_that_ends_at_once_is_never_ready(fleet: Fleet) -> None:
    fleet.add("web", command=["false"], restart="never")
    del fleet.settings["web"]["ready"]
    fleet.write()
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == ["web"]
    assert " ready" not in fleet.log("web")


async def test_one_that_cannot_be_started_says_what_it_lacks(fleet: Fleet) -> None:
    fleet.add("web", cwd="nowhere")
    fleet.add("db", command=["no-such-program"])
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == ["web", "db"]
    assert fleet.row("web")[1] == "it cannot be started: its cwd 'nowhere' is no folder"
    assert fleet.row("db")[1] == "it cannot be started: there is no program 'no-such-program'"


async def test_a_log_that_is_not_there_says_why(fleet: Fleet) -> None:
    fleet.add("web")
    program = Program(fleet.folder)
    async with fleet.engine():
        pass
    for name, why in (("web", "was never started"), ("wed", "there is no service 'wed'")):
        done = await asyncio.to_thread(program.run, "services", "logs", name)
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr


async def test_one_that_is_not_well_is_started_again(fleet: Fleet) -> None:
    fleet.add("web", ready=HTTP, health=HTTP)
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        (fleet.folder / "web" / "sick").touch()
        await until(lambda: fleet.row("web")[2] >= 1, "it is started again")
        (fleet.folder / "web" / "sick").unlink()
        await until(lambda: fleet.states()["web"] == "ready", "it is well again")
    assert any("answered 500, not 200" in alert for alert in fleet.alerts())


BUILD = (
    "import pathlib, sys; new = pathlib.Path(sys.argv[1]); (new / 'assets').mkdir();"
    "(new / 'index.html').write_text('<html>'); (new / 'assets' / 'a.js').write_text('1')"
)


def built(fleet: Fleet) -> dict[str, Any]:
    """Return the settings of a service whose built files are looked at, and made anew."""
    (fleet.folder / "web" / "dist" / "assets").mkdir(parents=True)
    (fleet.folder / "web" / "dist" / "index.html").write_text("<html>")
    (fleet.folder / "web" / "dist" / "assets" / "a.js").write_text("1")
    files = ["dist/index.html", "dist/assets/*.js"]
    return {"files": files, "every": 0.1, "failures": 2}


async def test_built_files_that_are_deleted_are_made_anew(fleet: Fleet) -> None:
    (fleet.folder / "web").mkdir()
    health = built(fleet)
    steps = [{"run": ["false"], "else": [["true"], [sys.executable, "-c", BUILD, "{new}"]]}]
    port = fleet.add("web", health=health, recover={"folder": "dist", "steps": steps})
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        assert answers(port, "/dist/assets/a.js") == 200
        pid = fleet.row("web")[4]
        (fleet.folder / "web" / "dist" / "assets" / "a.js").unlink()
        await until(lambda: fleet.row("web")[3] == "complete", "it is mended")
        assert answers(port, "/dist/assets/a.js") == 200
        assert fleet.row("web")[4] == pid, "a service that is mended goes on"
    assert sorted(path.name for path in (fleet.folder / "web").iterdir()) == ["dist"]


async def test_what_does_not_help_is_taken_back_and_given_up(fleet: Fleet) -> None:
    (fleet.folder / "web").mkdir()
    health = built(fleet)
    bad = "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'index.html').write_text('bad')"
    recover = {
        "folder": "dist",
        "attempts": 2,
        "steps": [[sys.executable, "-c", bad, "{new}"]],
    }
    fleet.add("web", health=health, recover=recover, restart="never")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []
        (fleet.folder / "web" / "dist" / "assets" / "a.js").unlink()
        await until(lambda: fleet.states()["web"] == "failed", "it is given up")
        assert fleet.row("web")[3] == "failed"
    index = fleet.folder / "web" / "dist" / "index.html"
    assert index.read_text() == "<html>", "the old folder is back"
    assert sorted(path.name for path in (fleet.folder / "web").iterdir()) == ["dist"]


async def test_trouble_that_stays_is_told_twice_at_most(fleet: Fleet) -> None:
    (fleet.folder / "web").mkdir()
    health = {"files": ["never"], "every": 0.05, "failures": 1}
    fleet.add("web", health=health, recover={"attempts": 2, "steps": [["false"]]})
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        await until(lambda: fleet.row("web")[2] >= 5, "it was given up, and goes on being started")
    fault = "never is not there, or empty"
    assert fleet.alerts() == [
        f"service web: it is unhealthy: {fault}",
        f"service web: {fault}; 2 recoveries did not help",
    ]


async def test_only_one_process_keeps_services(fleet: Fleet) -> None:
    fleet.add("web")
    async with fleet.engine() as one, fleet.engine() as other:
        await one.keeper.open()
        with pytest.raises(LeaseConflict, match=rf"another process \({os.getpid()}\) keeps"):
            await other.keeper.open()


async def test_operators_of_other_processes_are_obeyed(fleet: Fleet) -> None:
    port = fleet.add("web")
    async with fleet.engine() as keeper, fleet.project.engine() as other:
        with pytest.raises(CommandNotAllowed, match="agentmux up"):
            await other.execute(StartServices(None))
        await keeper.keeper.open()
        receipt = await other.execute(StartServices(("web", "nobody")))
        assert receipt.done == {"web": "started"}
        assert [refusal.subject for refusal in receipt.refused] == ["nobody"]
        assert await ready(keeper) == []
        pid = fleet.row("web")[4]
        await other.execute(RestartServices(("web",)))
        assert await ready(keeper) == []
        assert fleet.row("web")[4] != pid
        await other.execute(StopServices(None))
        assert not listens(port)


async def test_whoever_waits_for_a_keeper_hears_of_its_end(fleet: Fleet) -> None:
    port = fleet.add("web")
    up = begin([sys.executable, "-m", "engine.cli", "up"], fleet.folder)
    try:
        await until(lambda: listens(port) and fleet.states()["web"] == "ready", "it is up")
        up.send_signal(signal.SIGSTOP)
        async with fleet.project.engine() as other:
            asking = asyncio.create_task(other.execute(RestartServices(("web",))))
            asked = "SELECT name FROM services WHERE asked IS NOT NULL"
            await until(lambda: tuples(fleet.project.layout, asked), "it is asked")
            up.kill()
            up.wait()
            with pytest.raises(CommandNotAllowed, match="has ended"):
                await asyncio.wait_for(asking, PATIENCE)
    finally:
        up.kill()
        up.wait()
    await until(lambda: not fleet.lives(), "the guard has ended them")


async def test_nothing_outlives_a_keeper_that_is_killed(fleet: Fleet) -> None:
    port = fleet.add("web", "forks")
    up = begin([sys.executable, "-m", "engine.cli", "up"], fleet.folder)
    try:
        await until(lambda: listens(port) and len(fleet.lives()) == 3, "it is up")
    finally:
        up.kill()
        up.wait()
    await until(lambda: not fleet.lives(), "the guard has ended them")
    async with fleet.engine() as engine:
        await engine.execute(StartServices(None))
        assert await ready(engine) == []


def test_up_without_services_leaves_no_store_behind(tmp_path: Path) -> None:
    done = Program(tmp_path).run("up")
    assert (done.returncode, "names no services" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


async def test_up_starts_services_and_works_through_a_dag(fleet: Fleet) -> None:
    port = fleet.add("web", ready=HTTP)
    fleet.settings["web"]["health"] = HTTP
    fleet.project.settings(
        json.dumps({"services": fleet.settings, "shell": {"allow": [sys.executable]}})
    )
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/health')"
    dag = {"tasks": [{"id": "ask", "agent": "codex", "payload": {"kind": "shell"}}]}
    dag["tasks"][0]["payload"] |= {"argv": [sys.executable, "-c", ask]}  # type: ignore[operator]
    (fleet.folder / "dag.yaml").write_text(json.dumps(dag))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "engine.cli", "up", "dag.yaml"],
        cwd=fleet.folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("web: ")]
    assert (told.count("web: ready"), told.count("web: stopped")) == (1, 1), told
    assert told[-1] == "web: stopped"
    assert not listens(port)
