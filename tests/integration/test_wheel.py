"""What is installed is all that is needed: the wheel works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel would put into site-packages."""
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = built.glob("agentmux-*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    return site


def run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_wheel_carries_styles_samples_sql_and_types(unpacked: Path) -> None:
    for needed in (
        "styles/agentmux.tcss",
        "sample_dags/demo.yaml",
        "engine/sql/schema.sql",
        "engine/py.typed",
    ):
        assert (unpacked / needed).is_file(), needed
    assert not (unpacked / "tests").exists()


def test_the_command_line_works_from_the_wheel_alone(unpacked: Path, tmp_path: Path) -> None:
    sample = unpacked / "sample_dags" / "smoke.yaml"
    done = run(unpacked, tmp_path, "engine.cli", "run", str(sample))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state" / "tasks.db").exists()


def test_both_scripts_are_installed_and_tell_the_same_version(
    unpacked: Path, tmp_path: Path
) -> None:
    (entry,) = unpacked.glob("agentmux-*.dist-info/entry_points.txt")
    assert "agentmux = engine.cli:main" in entry.read_text()
    assert "agentmux-tui = tui.__main__:main" in entry.read_text()
    versions = {
        run(unpacked, tmp_path, module, "--version").stdout.split()[-1]
        for module in ("engine.cli", "tui")
    }
    assert len(versions) == 1
