"""Promises about the stand-ins: they say what is checked in, take and refuse what real ones do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest
from support.standins.install import (
    NAMES,
    PATIENCE,
    PROMPT,
    RECORDED,
    TRANSCRIPTS,
    install,
    record,
    run,
    transcript,
)

from engine.agents.clis import KNOWN, command_line, environment
from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.verdict import VerdictKind, judge

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("bin with space") / "bin")


def summed(name: str, output: bytes) -> Summary:
    reader, summary = reader_for(name), Summary()
    for line in output.splitlines(keepends=True):
        for entry in reader.read(line):
            summary.take(entry)
    return summary


@pytest.mark.parametrize("name", NAMES)
def test_the_transcripts_are_what_the_stand_ins_say(name: str, folder: Path) -> None:
    for scenario in RECORDED:
        path = transcript(name, scenario)
        kept = path.read_bytes() if path.exists() else b""
        assert record(name, scenario, folder) == kept, f"{scenario}: see standins/install.py"
    known = {transcript(name, scenario) for scenario in RECORDED}
    assert set(TRANSCRIPTS.glob(f"{name}-*")) <= known


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("ok", VerdictKind.DONE),
        ("long-lines", VerdictKind.DONE),
        ("partial-line", VerdictKind.DONE),
        ("fails", VerdictKind.FAILED),
        ("sudden-death", VerdictKind.FAILED),
        ("rate-limit", VerdictKind.LATER),
        ("turn-limit", VerdictKind.TURNS),
        ("no-login", VerdictKind.LOGIN),
    ],
)
def test_a_run_ends_as_its_scenario_has_it(
    name: str, scenario: str, kind: VerdictKind, folder: Path, tmp_path: Path
) -> None:
    ran = run(folder, name, scenario, cwd=tmp_path, model="m-1")
    summary, now = summed(name, ran.stdout), datetime.now(UTC)
    found = judge(name, ran.returncode, summary, ran.stderr.decode(), now)
    assert (found.kind, summary.unknown) == (kind, int(scenario == "sudden-death")), ran.stderr
    if kind is VerdictKind.LATER:
        assert found.not_before is not None
        # In an hour, but Codex and the words of Claude Code name minutes only.
        assert 3400 < (found.not_before - now).total_seconds() < 3800
    if kind is VerdictKind.DONE and name != "codex":
        assert summary.model == "m-1"


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_reaches_its_files_and_its_commit(
    name: str, folder: Path, tmp_path: Path
) -> None:
    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    git("init", "-q")
    ran = run(folder, name, "edits", cwd=tmp_path, more={"STANDIN_WRITE": "unsaved.txt"})
    assert ran.returncode == 0, ran.stdout
    assert git("show", "HEAD:standin.txt") == PROMPT + "\n"
    assert git("status", "--porcelain") == "?? unsaved.txt\n"
    assert (tmp_path / "unsaved.txt").read_text() == PROMPT


@pytest.mark.parametrize(
    ("name", "args", "variables", "code", "words"),
    [
        ("claude", ["-p", "--output-format", "stream-json"], {}, 1, "requires --verbose"),
        ("claude", ["-p", "--loud"], {}, 1, "error: unknown option '--loud'"),
        ("claude", ["-p", "--output-format", "stream-json", "--verbose", "--permission-mode",
                    "all"], {}, 1, "is invalid"),
        ("codex", ["exec", "--json", "--full-auto", "-"], {}, 2, "unexpected argument"),
        ("codex", ["exec", "--json", "-s", "none", "-"], {}, 2, "invalid value"),
        ("codex", ["exec", "--json", "-"], {}, 1, "Not inside a trusted directory"),
        ("gemini", ["--loud"], {}, 1, "Unknown argument: loud"),
        ("gemini", ["-o", "stream-json", "--approval-mode", "all"], {}, 1, "approval-mode"),
        ("gemini", ["-o", "stream-json"], {}, 55, "trusted directory"),
        ("gemini", ["-o", "stream-json"], {"GEMINI_CLI_TRUST_WORKSPACE": "true"}, 42, "No input"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_as_the_real_ones_refuse_them(
    name: str,
    args: list[str],
    variables: dict[str, str],
    code: int,
    words: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    ran = subprocess.run(
        [str(folder / name), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **variables},
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (code, "")
    assert words in ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_commands_give_the_prompt_on_standard_input_or_fail(
    name: str, folder: Path, tmp_path: Path
) -> None:
    cli = KNOWN[name]
    words = command_line(
        cli, prompt="", model=None, workspace=tmp_path, gitdir=tmp_path, admin=tmp_path
    )
    ran = subprocess.run(
        [str(folder / words[0]), *words[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(cli, os.environ),
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode != 0
    assert re.search("input|prompt", ran.stderr.splitlines()[-1], re.IGNORECASE)


def _started(folder: Path, name: str, scenario: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a stand-in, and return once it has said something."""
    cli = KNOWN[name]
    words = command_line(cli, prompt="", model=None, workspace=cwd, gitdir=cwd, admin=cwd)
    process = subprocess.Popen(
        [str(folder / words[0]), *words[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
        env={**environment(cli, os.environ), "STANDIN": scenario, "STANDIN_PACE": "0.002"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(PROMPT.encode())
    process.stdin.close()
    assert process.stdout.readline()
    return process


@pytest.mark.parametrize(("name", "code"), [("claude", 143), ("codex", -15), ("gemini", 0)])
def test_an_endless_one_ends_at_sigterm_as_the_real_one_does(
    name: str, code: int, folder: Path, tmp_path: Path
) -> None:
    with _started(folder, name, "endless", tmp_path) as process:
        process.terminate()
        assert process.wait(PATIENCE) == code
        assert process.stdout is not None
        summary = summed(name, process.stdout.read())
    assert summary.result is None
    assert judge(name, code, summary, "", datetime.now(UTC)).kind is VerdictKind.FAILED


def test_one_that_ignores_sigterm_goes_on_talking(folder: Path, tmp_path: Path) -> None:
    with _started(folder, "claude", "ignores-term", tmp_path) as process:
        try:
            process.terminate()
            assert process.stdout is not None
            # More than a pipe held when it was told to end.
            assert sum(len(process.stdout.readline()) for _ in range(200)) > 65_536
            assert process.poll() is None
        finally:
            process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_one_that_leaves_a_child_ends_itself(folder: Path, tmp_path: Path) -> None:
    with _started(folder, "codex", "leaves-child", tmp_path) as process:
        assert process.stdout is not None
        # Not to the end: the child holds the pipe open.
        said = b"".join(process.stdout.readline() for _ in range(2))
        found = re.search(rb"process (\d+)", said)
        assert found is not None
        child = psutil.Process(int(found[1]))
        try:
            assert process.wait(PATIENCE) == 0
            assert child.is_running()
            assert child.name() == "sleep"
        finally:
            child.kill()


def test_a_big_one_says_as_much_as_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    ran = run(folder, "gemini", "big", cwd=tmp_path, more={"STANDIN_SIZE": "0.5"})
    assert 0.5 < len(ran.stdout) / (1 << 20) < 0.6
    assert summed("gemini", ran.stdout).unknown == 0
