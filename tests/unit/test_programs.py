"""Promises of what all executors share that run a program."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE
from support.solo import Solo

from engine.errors import LeaseLost
from engine.executors.programs import (
    ALWAYS_PASSED,
    Program,
    Refused,
    ending,
    finish,
    inherited,
    make_private,
    start,
    tail,
)
from engine.processes.proctable import look_at

if TYPE_CHECKING:
    from pathlib import Path

    from engine.model import ProcessId

TOKEN = "tok-0123456789"
HIDDEN = {"API_TOKEN": TOKEN, "GREETING": "hello there"}


async def run_program(stage: Solo, *argv: str, stdin: Path | None = None) -> tuple[int, str]:
    context = stage.context({})
    make_private(context.artifacts)
    out, err = context.artifacts / "out", context.artifacts / "err"
    program = Program(argv, stage.project, {"PATH": os.defpath})
    child = start(context, program, stdout=out, stderr=err, stdin=stdin)
    async with asyncio.timeout(PATIENCE):
        code = await finish(context, child)
    return code, out.read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Solo:
    return Solo(tmp_path)


async def test_a_program_reads_the_file_that_it_is_given(stage: Solo) -> None:
    prompt = stage.project / "prompt"
    prompt.write_text("do this\nand that")
    assert await run_program(stage, "/bin/cat", stdin=prompt) == (0, "do this\nand that")


async def test_a_program_that_is_given_nothing_finds_the_end_of_its_input(stage: Solo) -> None:
    assert await run_program(stage, "/bin/cat") == (0, "")


async def test_input_that_is_no_file_is_not_waited_for(stage: Solo) -> None:
    os.mkfifo(stage.project / "pipe")
    with pytest.raises(OSError, match="regular"):
        await run_program(stage, "/bin/cat", stdin=stage.project / "pipe")
    with pytest.raises(Refused, match="nowhere"):
        await run_program(stage, "/bin/cat", stdin=stage.project / "nowhere")
    assert stage.started == []


async def test_a_program_gets_the_variables_it_is_given_and_the_tag_and_no_others(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_HOST", "1")
    code = "import os; print(*sorted(os.environ))"
    _, out = await run_program(stage, sys.executable, "-ISc", code)
    tags = ["ATTEMPT", "RUN_ID", "STATE_DIR", "TASK_ID", "WORKER_ID"]
    names = [name for name in out.split() if name != "LC_CTYPE"]  # Python's own doing
    assert names == [f"AGENTMUX_{tag}" for tag in tags] + ["PATH"]


async def test_who_loses_the_task_twice_over_ends_the_program_and_reaps_it(stage: Solo) -> None:
    """The store says so when the leader is told, and the host in the next moment."""

    async def lost(process: ProcessId) -> None:
        stage.started.append(process)
        asyncio.get_running_loop().call_soon(run.cancel)
        raise LeaseLost("run-1")

    stage.on_start = lost  # type: ignore[method-assign]
    run = asyncio.create_task(run_program(stage, "/bin/sleep", "600"))
    with pytest.raises(asyncio.CancelledError):
        await run
    (leader,) = stage.started
    assert look_at(leader.pid) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGTERM, "ended by SIGTERM"),
        (-99, "ended by signal 99"),
    ],
)
def test_an_exit_code_reads_in_words(code: int, words: str) -> None:
    assert ending(code) == words


# what is inherited


def test_all_is_inherited_unless_a_list_says_otherwise() -> None:
    base = {"PATH": "/bin", "A": "1", "B": "2"}
    assert inherited(None, base) == base
    assert inherited((), base) == {"PATH": "/bin"}
    assert inherited(["B"], base) == {"PATH": "/bin", "B": "2"}


def test_a_list_names_variables_or_all_that_begin_alike() -> None:
    base = {"AWS_REGION": "1", "AWS_PROFILE": "2", "aws_x": "3", "LAWS_": "4"}
    assert inherited(["AWS_*"], base) == {"AWS_REGION": "1", "AWS_PROFILE": "2"}


def test_what_hardly_any_program_works_without_is_always_inherited() -> None:
    always = {"PATH", "HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    base = dict.fromkeys([*always, "SSH_AUTH_SOCK", "API_KEY"], "x")
    assert set(inherited((), base)) == always
    assert set(ALWAYS_PASSED) == always - {"LC_ALL", "LC_CTYPE"} | {"LC_*"}


# tails


def show(tmp_path: Path, log: bytes, variables: dict[str, str] | None = None) -> str:
    (tmp_path / "log").write_bytes(log)
    return tail(tmp_path / "log", variables)


def test_a_tail_names_a_secret_instead_of_telling_it(tmp_path: Path) -> None:
    log = b"hello there\nAuthorization: " + TOKEN.encode() + b"\nend"
    assert show(tmp_path, log, HIDDEN) == "hello there\nAuthorization: [API_TOKEN]\nend"


def test_a_secret_in_colour_is_none_the_less_one(tmp_path: Path) -> None:
    log = f"\033[1m{TOKEN[:4]}\033[31m{TOKEN[4:]}\033[0m".encode()
    assert show(tmp_path, log, HIDDEN) == "[API_TOKEN]"


def test_a_secret_of_several_lines_is_found_before_the_lines_are_counted(tmp_path: Path) -> None:
    secret = "\n".join(f"key line {n}" for n in range(30))
    text = show(tmp_path, f"before\n{secret}\nafter\n".encode(), {"DEPLOY_KEY": secret})
    assert text == "before\n[DEPLOY_KEY]\nafter"


@pytest.mark.parametrize("others", [0, 1, 40])
def test_not_even_the_end_of_a_secret_is_told_where_the_tail_begins(
    tmp_path: Path, others: int
) -> None:
    """The tail is cut from one endless line, wherever that begins; other secrets make it shorter.

    More than the tail has to be read to know the secret that it begins in.
    """
    secret, size = TOKEN.encode(), len(TOKEN)
    between = secret * others
    for after in range(4096 - 2 * size, 4096 + 6 * size):
        log = b"." * 9_000 + secret + b"." * (after - len(between)) + between
        text = show(tmp_path, log, HIDDEN)
        assert not set(text) & set(TOKEN), (after, text.strip("."))


def test_a_tail_takes_any_bytes_beside_a_secret(tmp_path: Path) -> None:
    log = b"caf\303\251 \377 " + TOKEN.encode() + b" \303"
    assert show(tmp_path, log, HIDDEN) == "café \ufffd [API_TOKEN] \ufffd"


def test_a_tail_without_secrets_is_the_last_4_kib_and_20_lines(tmp_path: Path) -> None:
    assert show(tmp_path, b"x" * 9_000) == "x" * 4096
    assert show(tmp_path, b"x" * 9_000, HIDDEN) == "x" * 4096
    many = b"".join(b"%d\n" % n for n in range(3_000))
    for variables in (None, HIDDEN):
        assert show(tmp_path, many, variables).split("\n") == [str(n) for n in range(2980, 3000)]
    long = b"".join(b"%0300d\n" % n for n in range(100))
    assert show(tmp_path, long, HIDDEN) == show(tmp_path, long)
    assert show(tmp_path, long).split("\n")[0] == f"{87:0300}"


def test_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert [(tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b")] == [0o700, 0o700]
    make_private(tmp_path / "a" / "b")
