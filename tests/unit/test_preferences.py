"""Promises of the dashboard's memory: it keeps what was chosen, and never disturbs."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from support.patience import PATIENCE

from engine.views import Order
from tui import preferences as module
from tui.preferences import Preferences, Switch, preferences_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "agentmux" / "dashboard.json"


def written(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def inode(path: Path) -> int:
    return path.stat().st_ino


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def contents(path: Path) -> bytes:
    return path.read_bytes()


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(to)


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_the_file_lies_in_the_users_config_folder_and_no_test_touches_the_real_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert preferences_file().is_relative_to(tempfile.gettempdir())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert preferences_file() == tmp_path / "agentmux" / "dashboard.json"


async def test_what_was_chosen_is_there_in_the_next_session(path: Path) -> None:
    first = Preferences.read(path)
    first.theme = "nord"
    first.pane = "events"
    first.set_switch(Switch.BELL, on=False)
    first.set_order("tasks", Order("time", descending=True))
    first.set_hidden("history", {"worker", "agent"})
    due = [first.due]
    await first.save()
    assert [*due, first.due] == [True, False]
    second = Preferences.read(path)
    assert (second.theme, second.pane) == ("nord", "events")
    assert second.switch(Switch.BELL) is False
    assert second.switch(Switch.TITLE) is None
    assert second.order("tasks") == Order("time", descending=True)
    assert second.order("history") == Order()
    assert second.hidden("history") == {"worker", "agent"}
    assert second.hidden("tasks") == frozenset()
    assert first.notices == second.notices == []


async def test_nothing_is_written_before_something_was_chosen(path: Path) -> None:
    preferences = Preferences.read(path)
    await preferences.save()
    preferences.theme = ""  # as it was
    await preferences.save()
    assert not path.parent.parent.exists()


async def test_without_a_file_choices_last_as_long_as_the_dashboard() -> None:
    preferences = Preferences()
    preferences.theme = "nord"
    assert not preferences.due
    await preferences.save()
    assert preferences.theme == "nord"


async def test_the_file_is_for_its_user_alone_and_replaced_in_one_step(path: Path) -> None:
    put(path, '{"theme": "nord"}')
    before = inode(path)
    preferences = Preferences.read(path)
    preferences.pane = "tasks"
    await preferences.save()
    assert mode(path) == 0o600
    assert inode(path) != before
    assert names(path.parent) == [path.name]


async def test_a_new_folder_is_for_its_user_alone(path: Path) -> None:
    preferences = Preferences(path)
    preferences.theme = "nord"
    await preferences.save()
    assert mode(path.parent) == 0o700


async def test_two_dashboards_keep_each_others_choices_and_the_last_word_counts(path: Path) -> None:
    one, other = Preferences.read(path), Preferences.read(path)
    one.theme = "nord"
    one.pane = "tasks"
    other.set_switch(Switch.TITLE, on=False)
    other.pane = "events"
    await one.save()
    await other.save()
    assert written(path) == {"version": 1, "theme": "nord", "title": False, "pane": "events"}
    one.set_hidden("tasks", {"worker"})
    await one.save()
    assert written(path)["pane"] == "events"


async def test_many_writers_at_once_lose_nothing(path: Path) -> None:
    all_of_them = [Preferences.read(path) for _ in range(16)]
    for number, one in enumerate(all_of_them):
        one.set_hidden(f"list-{number}", {"worker"})
    await asyncio.gather(*(one.save() for one in all_of_them))
    assert len(written(path)) == 17


async def test_a_writer_that_never_ends_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    path.parent.mkdir(parents=True)
    held = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        preferences = Preferences(path)
        preferences.theme = "nord"
        async with asyncio.timeout(PATIENCE):
            await preferences.save()
    finally:
        os.close(held)
    assert written(path)["theme"] == "nord"


async def test_what_a_newer_version_knows_is_kept(path: Path) -> None:
    put(path, '{"version": 7, "theme": "nord", "sounds": {"done": "gong"}}')
    preferences = Preferences.read(path)
    assert preferences.theme == "nord"
    preferences.pane = "tasks"
    await preferences.save()
    assert written(path) == {
        "version": 7,
        "theme": "nord",
        "pane": "tasks",
        "sounds": {"done": "gong"},
    }
    assert preferences.notices == []


@pytest.mark.parametrize(
    "broken",
    ["", "{", "[1]", "null", '"x"', b"\xff\xfe\x00", "[" * 100_000, " " * (2 << 20)],
    ids=["empty", "cut", "list", "null", "text", "bytes", "deep", "huge"],
)
async def test_a_broken_file_is_set_aside_and_told_of_and_never_lost(
    path: Path, broken: str | bytes
) -> None:
    put(path, broken)
    before = contents(path)
    preferences = Preferences.read(path)
    (notice,) = preferences.notices
    (aside,) = names(path.parent)
    assert aside.startswith("dashboard.json.broken-")
    assert aside in notice
    assert contents(path.with_name(aside)) == before
    preferences.theme = "nord"
    await preferences.save()
    assert written(path)["theme"] == "nord"
    assert names(path.parent) == [path.name, aside]


def test_a_file_that_cannot_be_opened_is_set_aside(path: Path) -> None:
    path.mkdir(parents=True)
    preferences = Preferences.read(path)
    (notice,) = preferences.notices
    assert "set aside" in notice
    assert not path.exists()


def test_a_pipe_in_its_place_does_not_hold_the_start_up(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    reading = threading.Thread(target=Preferences.read, args=(path,), daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive()


async def test_what_cannot_be_set_aside_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, "{broken")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        preferences = Preferences.read(path)
        preferences.theme = "nord"
        await preferences.save()
    assert "nothing is remembered" in preferences.notices[0]
    assert contents(path) == b"{broken"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("theme", 5),
        ("theme", "a\x1b]0;x\x07"),
        ("theme", "x" * 201),
        ("pane", None),
        ("bell", "yes"),
        ("title", 1),
        ("toasts", []),
        ("version", True),
        ("tasks.order", "name"),
        ("tasks.order", {"column": 1}),
        ("tasks.order", {"descending": "no"}),
        ("tasks.hidden", "worker"),
        ("tasks.hidden", [1]),
    ],
)
async def test_a_value_of_the_wrong_kind_is_ignored_told_of_and_replaced(
    path: Path, key: str, value: object
) -> None:
    put(path, json.dumps({key: value, "pane": "events"} if key != "pane" else {key: value}))
    preferences = Preferences.read(path)
    (notice,) = preferences.notices
    assert key in notice
    assert notice.isprintable()
    assert preferences.order("tasks") == Order()
    assert preferences.hidden("tasks") == frozenset()
    assert preferences.switch(Switch.BELL) is None
    preferences.theme = "nord"
    await preferences.save()
    assert Preferences.read(path).notices == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT])
async def test_a_disk_that_takes_nothing_is_told_of_once_and_the_choice_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(path, '{"theme": "nord"}')
    preferences = Preferences.read(path)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        preferences.theme = "gruvbox"
        await preferences.save()
        preferences.pane = "tasks"
        await preferences.save()
        assert not preferences.due
    (notice,) = preferences.notices
    assert os.strerror(number) in notice
    assert preferences.theme == "gruvbox"
    assert written(path) == {"theme": "nord"}
    assert names(path.parent) == [path.name]
    preferences.set_switch(Switch.BELL, on=False)
    await preferences.save()
    assert written(path) == {"version": 1, "theme": "gruvbox", "pane": "tasks", "bell": False}


async def test_what_is_chosen_while_a_write_fails_is_the_last_word(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preferences = Preferences(path)
    preferences.theme = "earlier"

    def refuse(*_: object) -> list[str]:
        preferences.theme = "later"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "_merge", refuse)
        await preferences.save()
    await preferences.save()
    assert written(path)["theme"] == "later"


async def test_a_save_that_is_given_up_is_still_due(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preferences = Preferences(path)
    preferences.theme = "nord"
    writing, may_write = asyncio.Event(), threading.Event()
    loop, merge = asyncio.get_running_loop(), module._merge

    def slow(*arguments: Any) -> list[str]:
        loop.call_soon_threadsafe(writing.set)
        may_write.wait(10)
        return merge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_merge", slow)
        saving = asyncio.create_task(preferences.save())
        await asyncio.wait_for(writing.wait(), 10)
        saving.cancel()
        await asyncio.wait({saving})
        assert saving.cancelled()
        due = [preferences.due]
        may_write.set()
    await preferences.save()
    assert [*due, preferences.due] == [True, False]
    assert written(path)["theme"] == "nord"


async def test_a_link_to_a_file_elsewhere_stays_a_link(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles" / "dashboard.json"
    put(elsewhere, '{"theme": "nord"}')
    link(path, elsewhere)
    preferences = Preferences.read(path)
    preferences.pane = "tasks"
    await preferences.save()
    assert inode(path) == inode(elsewhere)
    assert written(elsewhere) == {"version": 1, "theme": "nord", "pane": "tasks"}


async def test_the_file_is_written_in_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[int] = []
    replace = module._replace

    def noted(to: Path, data: bytes) -> None:
        writers.append(threading.get_ident())
        replace(to, data)

    monkeypatch.setattr(module, "_replace", noted)
    preferences = Preferences(path)
    preferences.theme = "nord"
    await preferences.save()
    assert writers
    assert threading.get_ident() not in writers
