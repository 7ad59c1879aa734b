"""agentmux called from inside a task: what is part of a run can neither end it nor call it gone."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.engines import ENVIRONMENT

from engine.files import Layout

if TYPE_CHECKING:
    from pathlib import Path

_END = """
import asyncio, sys
from pathlib import Path
from engine.errors import AgentmuxError
from engine.model import ProcessId
from engine.processes.signalling import identify
from engine.processes.trees import end_tree
roots = [identify(int(pid)) for pid in sys.argv[3:]]
try:
    asyncio.run(end_tree(sys.argv[2], Path(sys.argv[1]), roots, grace=0))
except AgentmuxError as error:
    print(error.code)
else:
    print("gone")
"""
_START = """
import asyncio, sys
from pathlib import Path
from engine.core import Engine
from engine.errors import AgentmuxError
async def main():
    async with Engine(Path(sys.argv[1])) as engine:
        await engine.start_worker("codex")
try:
    asyncio.run(main())
except AgentmuxError as error:
    print(error.code)
else:
    print("started")
"""


def _said(code: str, *arguments: object, env: dict[str, str], prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env)
    return done.stdout.strip()


def _tag(state: Path, run_id: str = "r1") -> dict[str, str]:
    return ENVIRONMENT | {"AGENTMUX_RUN_ID": run_id, "AGENTMUX_STATE_DIR": str(state)}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout.state


def test_a_process_of_a_run_cannot_call_its_tree_gone(state: Path) -> None:
    assert _said(_END, state, "r1", env=_tag(state)) == "LEASE_CONFLICT"


def test_nor_can_one_that_a_process_of_the_run_has_started_without_the_tag(state: Path) -> None:
    # The shell carries the tag and waits; what it starts does not.
    wiped = f"env -u AGENTMUX_RUN_ID {sys.executable} -c '{_END}' {state} r1; true"
    done = subprocess.run(
        ["sh", "-c", wiped], capture_output=True, text=True, timeout=60, check=True, env=_tag(state)
    )
    assert done.stdout.strip() == "LEASE_CONFLICT"


def test_nor_one_in_the_session_of_its_leader(state: Path) -> None:
    script = f"{sys.executable} -c '{_END}' {state} r1 $$; true"
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert done.stdout.strip() == "LEASE_CONFLICT"


def test_other_runs_and_other_fleets_can_be_ended_from_inside_a_run(
    state: Path, tmp_path: Path
) -> None:
    assert _said(_END, state, "r2", env=_tag(state)) == "gone"
    assert _said(_END, tmp_path / "other", "r1", env=_tag(state)) == "gone"


def test_no_worker_of_the_same_fleet_starts_inside_a_run(state: Path, tmp_path: Path) -> None:
    assert _said(_START, state, env=_tag(state)) == "COMMAND_NOT_ALLOWED"
    assert _said(_START, tmp_path / "other" / "state", env=_tag(state)) == "started"
