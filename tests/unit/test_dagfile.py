"""The dashboard notices that the DAG file has changed, and reads it no more often than it must."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from tui import dagfile
from tui.dagfile import DagFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_changed_file_is_noticed_until_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    file = DagFile(path)
    assert not file.changed()
    path.write_text("tasks: [{id: a, agent: codex}]")
    assert file.changed()
    assert file.changed()
    file.know()
    assert not file.changed()


def test_a_file_that_was_only_touched_or_replaced_by_its_like_has_not_changed(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "dag.yaml", tmp_path / "new.yaml"
    path.write_text("tasks: []")
    file = DagFile(path)
    other.write_text("tasks: []")
    other.replace(path)
    assert not file.changed()
    path.write_text("tasks: [] ")
    path.write_text("tasks: []")
    assert not file.changed()


def test_another_file_of_the_same_size_and_age_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "dag.yaml", tmp_path / "new.yaml"
    path.write_text("tasks: [a]")
    file, before = DagFile(path), path.stat()
    other.write_text("tasks: [b]")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert file.changed()


def test_a_file_that_is_away_for_a_moment_is_compared_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    file = DagFile(path)
    path.unlink()
    assert not file.changed()
    path.write_text("tasks: []")
    assert not file.changed()
    path.write_text("tasks: [{id: a, agent: codex}]")
    assert file.changed()


def test_a_file_that_comes_into_being_has_changed(tmp_path: Path) -> None:
    file = DagFile(tmp_path / "dag.yaml")
    assert not file.changed()
    file.path.write_text("tasks: []")
    assert file.changed()


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    file = DagFile(path)
    reads = []

    def counted(*arguments: object) -> object:
        reads.append(arguments)
        raise AssertionError

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert not file.changed()
    assert reads == []


def test_a_huge_file_is_compared_by_its_stat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagfile, "MOST", 4)
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    file = DagFile(path)
    assert not file.changed()
    os.utime(path, ns=(1, 1))
    assert file.changed(), "what is in it is the same, but nobody reads that"
