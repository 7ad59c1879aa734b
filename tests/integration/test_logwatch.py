"""Trouble in a log becomes an alert: each line is told of, once, whatever dies in between."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.engines import Project, until
from support.stores import a_task, tuples

from engine.commands import Purge, Seed
from engine.errors import StorageError
from engine.logwatch import gathering

if TYPE_CHECKING:
    from support.logs import LogDesk


async def test_an_alert_is_a_row_an_event_and_a_file(desk: LogDesk) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("all is well", "2026-01-01 ERROR the door is open", "INFO: no ERROR at all")
    await desk.look(watcher)
    assert desk.alerts() == []  # more of it may be about to come
    await desk.look(watcher)
    assert desk.alerts() == [(1, "1 line in app.log: 2026-01-01 ERROR the door is open")]
    assert desk.bodies() == ["2026-01-01 ERROR the door is open"]
    ((kind, data),) = tuples(desk.layout, "SELECT type, data FROM events")
    assert kind == "ALERT"
    assert "the door is open" in data
    (body,) = desk.layout.alerts.iterdir()
    assert body.stat().st_mode & 0o777 == 0o600
    await desk.look(watcher, 1000)
    assert len(desk.alerts()) == 1


async def test_lines_within_the_cooldown_wait_and_none_is_lost(desk: LogDesk) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR 0")
    await desk.look(watcher)
    await desk.look(watcher)
    for number in range(1, 40):
        desk.write(f"ERROR {number}")
        await desk.look(watcher, 5)
    assert len(desk.alerts()) == 1
    await desk.look(watcher, 300)
    assert [count for count, _ in desk.alerts()] == [1, 39]
    assert desk.bodies() == [f"ERROR {number}" for number in range(40)]


async def test_a_cooldown_outlives_the_process(desk: LogDesk) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR 0")
    await desk.look(watcher)
    await desk.look(watcher)
    desk.write("ERROR 1")
    await desk.look(watcher, 5)
    watcher = await desk.watcher()
    desk.write("ERROR 2")
    await desk.look(watcher, 5)
    assert len(desk.alerts()) == 1
    await desk.look(watcher, 300)
    assert [count for count, _ in desk.alerts()] == [1, 2]
    assert desk.bodies() == ["ERROR 0", "ERROR 1", "ERROR 2"]


@pytest.mark.parametrize("after_bodies", [False, True])
async def test_whoever_dies_before_the_commit_loses_no_line_and_tells_none_twice(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch, after_bodies: bool
) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR 0")
    if not after_bodies:
        await desk.look(watcher, 10)

    async def full(*_: object) -> list[int]:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "note_watched", full)
        desk.write("ERROR 1")
        for _ in range(3):
            with pytest.raises(StorageError):
                await desk.look(watcher, 10)
    watcher = await desk.watcher()
    desk.write("ERROR 2")
    await desk.look(watcher, 10)
    await desk.look(watcher, 10)
    assert [count for count, _ in desk.alerts()] == [3]
    assert desk.bodies() == ["ERROR 0", "ERROR 1", "ERROR 2"]


async def test_a_store_that_fails_for_a_while_costs_nothing(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)

    async def full(*_: object) -> list[int]:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "note_watched", full)
        for number in range(3):
            desk.write(f"ERROR {number}")
            with pytest.raises(StorageError):
                await desk.look(watcher, 10)
    desk.write("ERROR 3")
    await desk.look(watcher, 10)
    assert [count for count, _ in desk.alerts()] == [4]
    assert desk.bodies() == [f"ERROR {number}" for number in range(4)]


async def test_a_folder_that_takes_no_draft_for_a_while_costs_nothing(
    desk: LogDesk, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.layout.alerts.rmdir()
    desk.layout.alerts.touch()
    for number in range(3):
        desk.write(f"ERROR {number}")
        await desk.look(watcher, 10)
    assert desk.alerts() == []
    assert [record.message for record in caplog.records] == [
        f"app.log: {desk.layout.alert_draft(f'file:{desk.log}')}: Not a directory"
    ]
    desk.layout.alerts.unlink()
    await desk.look(watcher, 10)
    assert [count for count, _ in desk.alerts()] == [3]
    assert desk.bodies() == ["ERROR 0", "ERROR 1", "ERROR 2"]


async def test_what_was_written_before_anybody_watched_is_not_told(desk: LogDesk) -> None:
    desk.write("ERROR of last year")
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR of today")
    await desk.look(watcher)
    await desk.look(watcher)
    assert desk.bodies() == ["ERROR of today"]


async def test_what_was_written_while_nobody_watched_is(desk: LogDesk) -> None:
    watcher = await desk.watcher("*.log")
    await desk.look(watcher)
    await desk.look(watcher, 10)
    (desk.folder / "other.log").write_text("ERROR in a new file\n")
    watcher = await desk.watcher("*.log")
    await desk.look(watcher)
    await desk.look(watcher)
    assert desk.bodies() == ["ERROR in a new file"]


async def test_who_is_not_watched_any_more_is_forgotten(desk: LogDesk) -> None:
    watcher = await desk.watcher()
    desk.write("well")
    await desk.look(watcher)
    await desk.look(watcher, 10)
    watcher = await desk.watcher("other.log")
    desk.write("ERROR")
    await desk.look(watcher)
    await desk.look(watcher, 10)
    assert desk.alerts() == []
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR again")
    await desk.look(watcher)
    await desk.look(watcher, 10)
    assert desk.bodies() == ["ERROR again"]


async def test_a_traceback_comes_with_its_lines(desk: LogDesk) -> None:
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write(
        "well",
        "Traceback (most recent call last):",
        '  File "app.py", line 1, in main',
        "    open_door()",
        "KeyError: 'door'",
        "well again",
        "ERROR: the next",
    )
    await desk.look(watcher)
    await desk.look(watcher)
    assert desk.bodies() == [
        "Traceback (most recent call last):",
        'File "app.py", line 1, in main',
        "open_door()",
        "KeyError: 'door'",
        "ERROR: the next",
    ]
    assert [count for count, _ in desk.alerts()] == [2]


async def test_nothing_in_a_log_can_act_or_tell_a_secret(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR_TOKEN", "open-sesame-42")
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR \x1b]0;evil\x07\x1b[31mred open-sesame-42", "ERROR " + "x" * 10_000)
    await desk.look(watcher)
    await desk.look(watcher)
    ((_, summary),) = desk.alerts()
    assert summary == "2 lines in app.log: ERROR red [DOOR_TOKEN]"
    first, second = desk.bodies()
    assert first == "ERROR red [DOOR_TOKEN]"
    assert len(second) == gathering._LONGEST


async def test_a_body_has_an_end_but_the_count_has_none(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "LARGEST", 1000)
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write(*(f"ERROR {number}" for number in range(10_000)))
    await desk.look(watcher)
    await desk.look(watcher)
    assert [count for count, _ in desk.alerts()] == [10_000]
    assert 50 < len(desk.bodies()) < 100


async def test_the_errors_of_a_run_are_told_when_it_is_over(project: Project) -> None:
    project.settings("shell: {allow: [sh]}\n")
    loud = {"kind": "shell", "argv": ["sh", "-c", "echo ERROR: no door >&2"]}
    quiet = {"kind": "shell", "argv": ["sh", "-c", "echo ERROR; echo well >&2"]}
    async with project.engine() as engine:
        dag = project.dag(a_task("loud", payload=loud), a_task("quiet", payload=quiet))
        await engine.execute(Seed(dag))
        await engine.start_worker("codex", until_idle=True)
        await engine.wait_workers()
    rows = tuples(project.layout, "SELECT summary, task_id FROM alerts")
    assert rows == [("1 line in the errors of loud: ERROR: no door", "loud")]
    assert tuples(project.layout, "SELECT * FROM watched WHERE source LIKE 'run:%'") == []
    project.check()


async def test_and_while_it_goes_on(project: Project) -> None:
    project.settings("shell: {allow: [sh]}\n")
    loud = {"kind": "shell", "argv": ["sh", "-c", "echo ERROR: no door >&2; sleep 600"]}
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("loud", payload=loud))))
        await engine.start_worker("codex")
        await until(lambda: tuples(project.layout, "SELECT 1 FROM alerts"), "it is told")
        assert project.state("loud") == "RUNNING"
        await engine.execute(Purge(("loud",)))
    assert len(tuples(project.layout, "SELECT 1 FROM alerts")) == 1


async def test_our_own_log_is_watched(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    del caplog
    import logging

    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("one"))))
        await engine.start_worker("codex")
        logging.getLogger("engine.host").error("the host has a problem")
        await until(lambda: tuples(project.layout, "SELECT 1 FROM alerts"), "it is told")
    ((summary,),) = tuples(project.layout, "SELECT summary FROM alerts")
    assert summary.startswith("1 line in agentmux.log: ")
    assert summary.endswith("ERROR engine.host: the host has a problem")


async def test_the_next_process_watches_when_one_is_killed(project: Project) -> None:
    project.settings("watch: {files: [app.log], cooldown: 0}\n")
    log = project.folder / "app.log"
    project.work("codex-1")

    def told() -> int:
        return len(tuples(project.layout, "SELECT 1 FROM alerts"))

    await until(project.layout.watch_lock.exists, "somebody watches")
    await until(
        lambda: tuples(project.layout, "SELECT 1 FROM meta WHERE key LIKE 'watched:f%'"),
        "it has looked",
    )
    log.write_text("ERROR 1\n")
    await until(lambda: told() == 1, "the first is told")
    project.work("codex-2")
    await until(lambda: len(tuples(project.layout, "SELECT 1 FROM workers")) == 2, "it lives")
    os.kill(project.processes[0].pid, signal.SIGKILL)
    with log.open("a") as file:
        file.write("ERROR 2\n")
    await until(lambda: told() == 2, "the second is told by the other")
    await asyncio.to_thread(project.processes[1].terminate)
