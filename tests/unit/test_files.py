"""Promises about paths: ids cannot leave their folder, names are checked, files are private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Code, StorageError, ValidationError
from engine.files import Layout, check_name, safe_name, write_private

IDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200
) | st.sampled_from(
    [".", "..", "...", "a/b", "../../etc/passwd", "%2E", "~", "-rf", " ", "a" * 200]
)


@given(IDS)
def test_an_id_becomes_one_file_name_that_every_file_system_takes(task_id: str) -> None:
    name = safe_name(task_id)
    assert name not in {"", ".", ".."}
    assert not name.startswith(".")
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()
    assert len(name) <= 120


@given(IDS, IDS)
def test_different_ids_have_different_names(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_ids_that_look_like_encoded_or_shortened_ones_are_kept_apart() -> None:
    long = "x" * 199
    ids = [".", "%2E", "%252E", "a/b", "a%2Fb", long, long + "y", safe_name(long), "é", "%C3%A9"]
    assert len({safe_name(task_id) for task_id in ids}) == len(ids)


def test_an_ordinary_id_stays_readable() -> None:
    assert safe_name("impl T-004_b.c") == "impl T-004_b.c"
    assert safe_name("impl:T-004") == "impl%3AT-004"


@pytest.mark.parametrize("task_id", [".", "..", "../up", "/etc", "a/../../b", "\\", "a\nb"])
def test_a_runs_folder_lies_two_levels_below_artifacts(task_id: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    folder = layout.run_folder(task_id, "0a1b")
    assert folder.parent.parent == layout.artifacts == tmp_path / "artifacts"
    assert Path(os.path.normpath(folder)) == folder
    assert not folder.exists()


@pytest.mark.parametrize("name", ["codex", "a", "A.b_c-9", "x" * 64, ".hidden", "..x", "-"])
def test_a_proper_name_is_taken(name: str) -> None:
    assert check_name(name, "agent") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "...", "a b", "a/b", "x" * 65, "é", "a\n", "\n", "a\0", "*", "٣"]
)
def test_a_name_that_could_not_stand_for_a_file_is_refused(name: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for use in (
        lambda: check_name(name, "worker"),
        lambda: layout.pid_file("codex", name),
        lambda: layout.stop_file(name, "codex-1"),
        lambda: layout.heartbeat_file(name),
    ):
        with pytest.raises(ValidationError) as refusal:
            use()
        assert refusal.value.code is Code.VALIDATION_ERROR


def test_the_state_folder_is_private_and_making_it_twice_is_fine(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deep" / "state")
    before = os.umask(0)
    try:
        layout.create()
        layout.create()
    finally:
        os.umask(before)
    for folder in (layout.state, layout.heartbeats, layout.pids, layout.control):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_in_the_place_of_the_state_folder_is_named_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StorageError, match="state-dir") as refusal:
        Layout(tmp_path / "state").create()
    assert str(tmp_path / "state") in str(refusal.value)


def test_a_private_file_is_replaced_whole_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "codex-1.json"
    file.write_text("old")
    file.chmod(0o644)
    before = os.umask(0)
    try:
        write_private(file, "new\n")
    finally:
        os.umask(before)
    assert file.read_text() == "new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file], "no draft is left"


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "codex-1.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "half \ud800")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_private(folder, "text")
    assert file.read_text() == "old"
    assert set(tmp_path.iterdir()) == {file, folder}
