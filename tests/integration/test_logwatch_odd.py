"""What is odd about a log, or done to what was found there, costs no other line."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.logs import LogDesk


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [a_pipe, a_folder, a_device, a_socket, a_circle])
@pytest.mark.parametrize("glob", ["odd.log", "o*.log", "**/o*.log"])
async def test_what_is_no_log_holds_up_none(
    desk: LogDesk, make: Callable[[Path], None], glob: str
) -> None:
    make(desk.folder / "odd.log")
    watcher = await desk.watcher(glob, "app.log")
    await desk.look(watcher)
    desk.write("ERROR the door is open")
    for _ in range(2):
        await desk.look(watcher)
    assert desk.alerts() == [(1, "1 line in app.log: ERROR the door is open")]


async def test_links_that_lead_in_circles_are_not_followed(desk: LogDesk) -> None:
    deep = desk.folder / "logs" / "web" / "deep"
    deep.mkdir(parents=True)
    for name in ("back", "up", "round"):
        (deep / name).symlink_to(desk.folder)
    log = deep / "app.log"
    log.touch()
    watcher = await desk.watcher("**/*.log", "logs/**/deep/**/*.log", "logs/**")
    await desk.look(watcher)
    log.write_text("ERROR the door is open\n")
    for _ in range(2):
        await desk.look(watcher)
    assert desk.alerts() == [(1, "1 line in logs/web/deep/app.log: ERROR the door is open")]


@pytest.mark.parametrize("what", ["draft", "folder"])
async def test_what_was_found_is_told_though_somebody_has_removed_it(
    desk: LogDesk, what: str
) -> None:
    watcher = await desk.watcher(cooldown=300)
    await desk.look(watcher)
    desk.write("ERROR 1")
    for _ in range(2):
        await desk.look(watcher)
    desk.write("ERROR 2")
    await desk.look(watcher, 10)
    if what == "draft":
        (draft,) = desk.layout.alerts.glob("*.draft")
        draft.unlink()
    else:
        shutil.rmtree(desk.layout.alerts)
    await desk.look(watcher, 10)
    desk.write("ERROR 3")
    await desk.look(watcher, 10)
    await desk.look(watcher, 300)
    assert desk.alerts() == [(1, "1 line in app.log: ERROR 1"), (2, "2 lines in app.log: ERROR 2")]
    (body,) = sorted(desk.layout.alerts.iterdir())[-1:]
    assert "    ERROR 3\n" in body.read_text()
    assert "\0" not in body.read_text()


@pytest.mark.parametrize("at", [100, 7_990, 60_000])
async def test_no_part_of_a_secret_is_told_wherever_the_line_is_cut(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    secret = "open-sesame-4242-and-further-words"
    monkeypatch.setenv("DOOR_TOKEN", secret)
    watcher = await desk.watcher()
    await desk.look(watcher)
    desk.write("ERROR ".ljust(at, "x") + secret + "y" * 100_000)
    for _ in range(2):
        await desk.look(watcher)
    ((_, summary),) = desk.alerts()
    assert "open-" not in summary + "".join(desk.bodies())


async def test_names_of_any_kind_are_names_of_logs(
    desk: LogDesk, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["-rf.log", "a b.log", "n" * 250 + ".log", "\x1b[31m.log", "line\nend.log", "[a].log"]
    for name in (*names, "\udcff.log"):
        (desk.folder / name).touch()
    watcher = await desk.watcher("*.log", cooldown=0)
    await desk.look(watcher)
    assert "1 file is not watched: no UTF-8 in the name" in caplog.text
    for name in (*names, "\udcff.log"):
        (desk.folder / name).write_text("ERROR\n")
    for _ in range(2):
        await desk.look(watcher)
    assert len(desk.alerts()) == len(names)
    assert not any("\x1b" in summary or "\n" in summary for _, summary in desk.alerts())
    again = await desk.watcher("*.log", cooldown=0)
    await desk.look(again)
    assert len(desk.alerts()) == len(names)


async def test_logs_leave_most_of_the_open_files_to_others(
    desk: LogDesk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (80, 4096))
    logs = [desk.folder / f"{number:02}.log" for number in range(50)]
    for log in logs:
        log.touch()
    for _ in range(2):
        watcher = await desk.watcher("*.log", cooldown=0)
        await desk.look(watcher)
        opened = {file.path for file in psutil.Process().open_files()}
        assert len(opened & {str(log) for log in logs}) == 20
        for log in logs:
            with log.open("a") as file:
                file.write("ERROR\n")
        for _ in range(2):
            await desk.look(watcher)
    assert "30 more than 20 files are not watched" in caplog.text
    assert len(desk.alerts()) == 40
