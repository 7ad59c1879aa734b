"""Promises of the quarantine: what is moved there is neither lost nor mixed up with anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.clock import START

from engine.files import Layout
from engine.quarantine import backup, quarantine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


def test_each_time_has_a_private_folder_of_its_own(layout: Layout) -> None:
    folders = [quarantine(layout, START).folder for _ in range(3)]
    assert [folder.name for folder in folders] == [
        "20260101T000000000Z",
        "20260101T000000000Z-2",
        "20260101T000000000Z-3",
    ]
    assert {folder.parent for folder in folders} == {layout.state / "quarantine"}
    assert backup(layout, START).folder.parent == layout.state / "backup"
    for folder in (*folders, layout.quarantine, layout.backup):
        assert folder.stat().st_mode & 0o077 == 0


def test_no_folder_is_made_for_nothing(layout: Layout) -> None:
    aside = quarantine(layout, START)
    assert aside.take(layout.log) is None
    aside.sync()
    assert not aside.used
    assert not layout.quarantine.exists()


def test_files_of_one_name_are_all_kept(layout: Layout) -> None:
    aside = quarantine(layout, START)
    places = []
    for text in ("one", "two", "three"):
        layout.status.write_text(text)
        places.append(aside.take(layout.status))
    assert not layout.status.exists()
    assert [place.name for place in places if place] == ["status.md", "status.md.2", "status.md.3"]
    assert [place.read_text() for place in places if place] == ["one", "two", "three"]


def test_a_link_is_moved_as_such(layout: Layout, tmp_path: Path) -> None:
    target = tmp_path / "somebody else's"
    target.write_text("untouched")
    layout.log.symlink_to(target)
    place = quarantine(layout, START).take(layout.log, "log")
    assert place is not None
    assert (place.name, place.is_symlink(), target.read_text()) == ("log", True, "untouched")
