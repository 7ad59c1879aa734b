"""Executors of other packages, installed by pip and used by `agentmux` as its users run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.patience import PATIENCE
from support.program import ENVIRONMENT, PROGRAM

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"

DAG = """
tasks:
  - {id: good, agent: a, payload: {kind: python, script: hello.py}}
  - {id: bad, agent: a, payload: {kind: python, script: bad.py}}
  - {id: lost, agent: a, payload: {kind: python, script: nowhere.py}}
"""
BROKEN = """
tasks:
  - {id: no-module, agent: a, payload: {kind: no-module}}
  - {id: no-object, agent: a, payload: {kind: no-object}}
  - {id: no-run, agent: a, payload: {kind: no-run}}
  - {id: exits, agent: a, payload: {kind: exits}}
  - {id: no-outcome, agent: a, payload: {kind: no-outcome}}
  - {id: unknown, agent: a, payload: {kind: unheard-of}}
  - {id: built-in, agent: a, payload: {kind: shell, cmd: "echo still here"}}
  - {id: good, agent: a, payload: {kind: python, script: hello.py}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds both packages as pip installs them."""
    folder = tmp_path_factory.mktemp("installed")
    packages = [str(PLUGINS / name) for name in ("python_script", "broken")]
    # With the build backend that is here already: nothing is fetched.
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *packages],
        check=True,
        capture_output=True,
        timeout=4 * PATIENCE,
    )
    return folder


class Fleet:
    """A project whose agentmux has other packages beside it."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self.folder = folder
        self.env = ENVIRONMENT | {
            "PYTHONPATH": os.pathsep.join([str(packages), ENVIRONMENT["PYTHONPATH"]])
        }

    def agentmux(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *args],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def run(self, dag: str) -> tuple[dict[str, str], dict[str, str], str]:
        """Run a DAG; return states, errors, and what was written to stderr."""
        (self.folder / "dag.yaml").write_text(dag)
        done = self.agentmux("run", "dag.yaml")
        tasks = json.loads(self.agentmux("tasks", "ls", "--json").stdout)
        states = {task["id"]: task["state"] for task in tasks}
        return states, {task["id"]: task["error"] or "" for task in tasks}, done.stderr


@pytest.fixture
def fleet(tmp_path: Path, installed: Path) -> Fleet:
    (tmp_path / "hello.py").write_text("import os; print(os.environ['AGENTMUX_TASK_ID'])")
    (tmp_path / "bad.py").write_text("raise SystemExit('no, \\033[2Jnever')")
    return Fleet(tmp_path, installed)


def test_a_package_with_an_entry_point_brings_a_kind_of_task(fleet: Fleet) -> None:
    states, errors, _ = fleet.run(DAG)
    assert states == {"good": "DONE", "bad": "FAILED", "lost": "BLOCKED"}
    assert errors["bad"] == "exit code 1: no, never"
    assert "payload.script: 'nowhere.py' is no file of" in errors["lost"]
    assert '"printed": "good"' in fleet.agentmux("tasks", "show", "good", "--json").stdout
    (log,) = fleet.folder.glob("artifacts/good/*/stdout.log")
    assert log.read_text() == "good\n"


def test_a_broken_package_blocks_its_own_tasks_and_says_why(fleet: Fleet) -> None:
    states, errors, said = fleet.run(BROKEN)
    assert states == {
        "no-module": "BLOCKED",
        "no-object": "BLOCKED",
        "no-run": "BLOCKED",
        "exits": "BLOCKED",
        "no-outcome": "FAILED",
        "unknown": "BLOCKED",
        "built-in": "DONE",
        "good": "DONE",
    }
    assert errors["no-module"] == (
        "the executor of kind 'no-module' cannot be loaded (agentmux_broken_parts:Executor of "
        "agentmux-broken): ModuleNotFoundError: No module named 'agentmux_broken_parts'; mend or "
        "remove the package, restart the workers, retry the task"
    )
    assert "AttributeError: module 'agentmux_broken' has no attribute" in errors["no-object"]
    assert "NoRun has no method run" in errors["no-run"]
    assert "SystemExit: no licence found" in errors["exits"]
    assert errors["no-outcome"].endswith("'no-outcome': it returned str, not Outcome")
    assert errors["unknown"].startswith("no executor for kind 'unheard-of'; known: ")
    assert "python" in errors["unknown"]
    assert "executor of kind 'no-module' cannot be loaded" in said
    doctor = fleet.agentmux("doctor")
    assert doctor.returncode == 0, "nothing is inconsistent for that"
    for kind in ("no-module", "no-object", "no-run", "exits"):
        assert (
            f"warning: executors: the executor of kind '{kind}' cannot be loaded" in doctor.stdout
        )
    assert "what to do: mend or remove the package, then restart the workers" in doctor.stdout
    assert re.search(
        "shell comes with agentmux: that of agentmux_broken:NoOutcome .* not used", said
    )


def test_contributing_shows_the_package_as_it_is() -> None:
    text = (PLUGINS.parents[1] / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^```(?:toml|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    files = ("pyproject.toml", "agentmux_python_script.py")
    assert shown == [(PLUGINS / "python_script" / name).read_text() for name in files]


def test_where_no_package_brings_one_importlib_metadata_is_not_even_imported(
    tmp_path: Path,
) -> None:
    script = (
        "import sys\n"
        "from engine.executors.plugins import third_party\n"
        "assert third_party(()) == {}\n"
        "assert 'importlib.metadata' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=PATIENCE
    )
