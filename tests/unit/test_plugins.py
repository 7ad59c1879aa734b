"""Promises about executors of other packages: whatever they do concerns their own tasks alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs
from support.patience import PATIENCE
from support.solo import Solo, error_of

from engine.executors import plugins
from engine.executors.base import Site
from engine.executors.programs import Program, make_private, start
from engine.model import Outcome, RunOutcome
from engine.preflight import checker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from engine.executors.base import Executor, RunContext
    from engine.processes.trees import Child

DONE = Outcome(RunOutcome.DONE)


@pytest.fixture
def stage(tmp_path: Path) -> Solo:
    return Solo(tmp_path)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Let each test find for itself what there is."""
    plugins._declared.cache_clear()
    plugins._loaded.clear()
    yield
    while children:
        assert children.pop().reap() is not None
    plugins._declared.cache_clear()
    plugins._loaded.clear()


def install(folder: Path, name: str, kind: str, source: str) -> None:
    """Put a module with an entry point of its own where it can be imported."""
    (folder / f"{name}.py").write_text(source)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[agentmux.executors]\n{kind} = {name}:Made\n")


class Played:
    """An executor that does what a test wants."""

    prepares = True

    def __init__(self, play: Callable[[RunContext], Any]) -> None:
        self._play = play

    async def run(self, context: RunContext) -> Outcome:
        return await self._play(context)  # type: ignore[no-any-return]  # that is what is tested


def guest(play: Callable[[RunContext], Any]) -> Executor:
    return plugins._Guest("odd", Played(play))


children: list[Child] = []


async def sleeper(context: RunContext) -> None:
    """Start what nobody ends."""
    make_private(context.artifacts)
    log = context.artifacts / "log"
    program = Program(("/bin/sh", "-c", "sleep 60 & sleep 60"), context.project, os.environ)
    child = start(context, program, stdout=log, stderr=log)
    children.append(child)
    await context.started(child.identity)


def test_what_is_declared_is_loaded_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    counts = tmp_path / "counts"
    source = (
        f"with open({str(counts)!r}, 'a') as file: file.write('x')\n"
        "class Made:\n    def run(self): ...\n"
    )
    install(tmp_path, "counted_executor", "counted", source)
    first = plugins.third_party(())
    assert list(first) == ["counted"]
    assert plugins.third_party(())["counted"] is first["counted"]
    assert counts.read_text() == "x"
    assert not first["counted"].prepares


def test_a_kind_that_comes_with_agentmux_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "usurping_executor", "shell", "raise SystemExit")
    assert plugins.third_party({"noop", "shell"}) == {}
    assert "usurping_executor" not in sys.modules
    assert "shell comes with agentmux: that of usurping_executor:Made" in caplog.text


def test_a_package_whose_import_hangs_holds_up_neither_others_nor_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    hangs = "import threading\nthreading.Event().wait()\n"
    install(tmp_path, "hanging_executor", "hanging", hangs)
    install(tmp_path, "quick_executor", "quick", "class Made:\n    def run(self): ...\n")
    script = (
        "from engine.executors import plugins\n"
        "plugins.IMPORT = 3.0\n"
        "found = plugins.find(())\n"
        "print(*found.troubles, type(found.executors['quick']).__name__, sep='\\n')\n"
    )
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, timeout=PATIENCE, check=True
    )
    late, quick = done.stdout.decode().splitlines()
    assert late == (
        "the executor of kind 'hanging' cannot be loaded (hanging_executor:Made of "
        "hanging_executor): it was not imported within 3 s"
    )
    assert quick == "_Guest"


@pytest.mark.parametrize("does", ["raise KeyboardInterrupt", "raise GeneratorExit", "1/0"])
async def test_whatever_a_module_raises_when_it_is_imported_concerns_its_kind_alone(
    stage: Solo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"raising_executor_{len(does)}"
    install(tmp_path, name, "raising", does)
    found = plugins.find(())
    (trouble,) = found.troubles
    assert trouble.startswith("the executor of kind 'raising' cannot be loaded")
    executor, context = found.executors["raising"], stage.context({})
    outcome = await executor.run(context)
    assert outcome.kind is RunOutcome.BLOCKED
    checker = checker_of(executor)
    assert checker is not None
    site = Site(context.layout, context.project, context.config)
    assert await checker.preflight([context.claim.task], site) == {"t": outcome.error}


async def test_two_packages_for_one_kind_are_both_refused(
    stage: Solo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("one_executor", "other_executor"):
        install(tmp_path, name, "same", "")
    outcome = await plugins.third_party(())["same"].run(stage.context({}))
    assert outcome.kind is RunOutcome.BLOCKED
    assert "(one_executor:Made of one_executor and other_executor:Made of other" in (
        error_of(outcome)
    )
    assert "only one package may bring a kind" in error_of(outcome)


def test_metadata_that_cannot_be_read_harm_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_group: str) -> list[EntryPoint]:
        raise ValueError("odd \033[2Jmetadata")

    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "unread_executor", "unread", "")
    monkeypatch.setattr("importlib.metadata.entry_points", broken)
    assert plugins.third_party(()) == {}
    assert "executors of other packages cannot be found: odd metadata" in caplog.text


async def test_a_guest_that_is_through_is_taken_at_its_word(stage: Solo) -> None:
    async def play(_context: RunContext) -> Outcome:
        return Outcome(RunOutcome.FAILED, result={"a": 1}, error="no \033[2Jway", exit_code=3)

    executor = guest(play)
    assert executor.prepares
    outcome = await executor.run(stage.context({}))
    assert outcome == Outcome(RunOutcome.FAILED, result={"a": 1}, error="no way", exit_code=3)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("return", "it returned NoneType, not Outcome"),
        ("exit", "it called exit('bye')"),
        ("cancel", "something in it was cancelled, but nobody had asked for that"),
    ],
)
async def test_a_guest_cannot_end_its_worker(stage: Solo, does: str, said: str) -> None:
    async def play(_context: RunContext) -> None:
        if does == "exit":
            sys.exit("bye")
        if does == "cancel":
            raise asyncio.CancelledError

    outcome = await guest(play).run(stage.context({}))
    assert outcome.kind is RunOutcome.FAILED
    assert error_of(outcome) == f"internal error of the executor of kind 'odd': {said}"


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_a_guest_that_prepares_has_begun_once_before_it_is_done(
    stage: Solo, times: int
) -> None:
    begun = 0

    async def begin() -> None:
        nonlocal begun
        begun += 1

    async def play(context: RunContext) -> Outcome:
        for _ in range(times):
            await context.begin()
        return DONE

    await guest(play).run(structs.replace(stage.context({}), begin=begin))
    assert begun == 1


async def test_what_a_guest_leaves_running_is_ended_before_its_run_is_over(stage: Solo) -> None:
    stage.grace = 0.5

    async def careless(context: RunContext) -> Outcome:
        await sleeper(context)
        assert stage.tree()
        return DONE

    async with asyncio.timeout(PATIENCE):
        assert await guest(careless).run(stage.context({})) == DONE
    assert stage.tree() == set()

    async def failing(context: RunContext) -> Outcome:
        await sleeper(context)
        raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"):
        await guest(failing).run(stage.context({}))
    assert stage.tree() == set()


async def test_a_stop_ends_what_a_guest_has_started_and_passes(stage: Solo) -> None:
    stage.grace = 0.5
    up = asyncio.Event()

    async def waiting(context: RunContext) -> Outcome:
        await sleeper(context)
        up.set()
        await asyncio.Event().wait()
        return DONE

    async with asyncio.timeout(PATIENCE):
        run = asyncio.ensure_future(guest(waiting).run(stage.context({})))
        await up.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert stage.tree() == set()


async def test_a_stop_that_comes_once_a_guest_is_through_does_not_lose_its_result(
    stage: Solo,
) -> None:
    stage.grace = 0.2
    through = asyncio.Event()

    async def play(context: RunContext) -> Outcome:
        await sleeper(context)
        through.set()
        return DONE

    async with asyncio.timeout(PATIENCE):
        run = asyncio.ensure_future(guest(play).run(stage.context({})))
        await through.wait()
        run.cancel()
        assert await run == DONE
    assert stage.tree() == set()
