"""The command line of `agentmux-tui`: what to open, and the engine around the dashboard.

Textual is imported only once it is known that there is something to show: `--version`, `--help`
and every refusal answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from engine import __version__
from engine.errors import AgentmuxError, StorageError, ValidationError
from engine.files import Layout
from engine.text import clean_text
from tui.terminal import lasting_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.core import Engine

SAMPLES = Path(__file__).resolve().parents[1] / "sample_dags"
STATE_DIR = "AGENTMUX_STATE_DIR"
DEFAULT_DAG = Path("agentmux/dag.yaml")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Plan(NamedTuple):
    """What is to be opened. `seed`: the DAG to seed first, None to take the store as it is.

    `up`: services are started, and workers once these are ready.
    `serve`: what is other than in the settings of the HTTP API, None not to serve.
    """

    state_dir: Path
    project: Path
    seed: Path | None
    workers: int
    watching: bool
    up: bool = False
    serve: Mapping[str, int] | None = None


def main(argv: list[str] | None = None) -> int:
    """Run the dashboard and return its exit code: 0 after a clean quit, 1 if it was refused."""
    # What is made at the start is there to stay: looking through it again and again for garbage
    # takes a tenth of the time to the first picture. The dashboard switches it on again.
    gc.disable()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.demo and (args.dag or args.watch or args.state_dir or args.up):
        parser.error("--demo brings its own DAG and state folder")
    if args.watch and args.dag:
        parser.error("--watch seeds nothing: leave the DAG out")
    if args.watch and args.up:
        parser.error("--watch starts nothing: leave --up out")
    if not sys.stdout.isatty():
        parser.error("the dashboard needs a terminal; `agentmux run` works without one")
    if os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
        parser.error("TERM names no terminal that can be drawn on; set it, or use `agentmux run`")
    try:
        if args.demo or (_nothing_here(args) and asyncio.run(_offer_demo())):
            with _demo(args) as plan:
                return asyncio.run(_show(plan))
        if _nothing_here(args):
            return 0
        return asyncio.run(_show(_plan(args)))
    except AgentmuxError as error:
        # Names of files and of keys in them are not ours: nothing of them may act on the terminal.
        sys.stderr.write(clean_text(f"{error.code}: {error}\n", newlines=True))
    except KeyboardInterrupt:
        return 130
    return 1


class _Parser(argparse.ArgumentParser):
    """A parser that repeats arguments without letting them act on the terminal."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        super().error(clean_text(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agentmux-tui", description="The dashboard of agentmux: watch a DAG at work, steer it."
    )
    parser.add_argument("--version", action="version", version=f"agentmux-tui {__version__}")
    parser.add_argument(
        "dag",
        nargs="?",
        type=Path,
        metavar="DAG",
        help=f"seed this DAG first (default: the store as it is, or {DEFAULT_DAG} for a new one)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="workers in this process for each agent of the DAG (default 1)",
    )
    parser.add_argument(
        "--up",
        action="store_true",
        help="start the services of agentmux.yaml, and the workers once these are ready",
    )
    parser.add_argument(
        "--watch", action="store_true", help="only watch: no workers, nothing can be steered"
    )
    parser.add_argument(
        "--serve",
        nargs="?",
        type=_port,
        const={},
        metavar="PORT",
        help="serve the HTTP API, too (default: api: port: of agentmux.yaml, else 8383)",
    )
    parser.add_argument(
        "--demo", action="store_true", help="the bundled demo, in a temporary folder"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help=f"where the store lies (default: ${STATE_DIR}, else ./state)",
    )
    return parser


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 64")
    return number


def _port(text: str) -> Mapping[str, int]:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; a DAG goes before --serve")
    return {"port": number}


def _state_dir(args: argparse.Namespace) -> Path:
    return args.state_dir or Path(os.environ.get(STATE_DIR) or "state")


def _nothing_here(args: argparse.Namespace) -> bool:
    named = args.dag or args.watch or args.up or args.state_dir or os.environ.get(STATE_DIR)
    return not named and not Layout(Path("state")).database.exists() and not DEFAULT_DAG.exists()


def _plan(args: argparse.Namespace) -> Plan:
    state_dir, seed = _state_dir(args), args.dag
    if not Layout(state_dir).database.exists():
        if args.watch:
            raise StorageError(f"no store in {state_dir}: there is nothing to watch yet")
        if seed is None and not DEFAULT_DAG.exists() and not args.up:
            raise StorageError(
                f"no store in {state_dir} and no {DEFAULT_DAG}; name a DAG: agentmux-tui DAG"
            )
        seed = seed or (DEFAULT_DAG if DEFAULT_DAG.exists() else None)
    workers = 0 if args.watch else args.workers
    return Plan(state_dir, Path.cwd(), seed, workers, args.watch, args.up, args.serve)


@contextmanager
def _demo(args: argparse.Namespace) -> Iterator[Plan]:
    with tempfile.TemporaryDirectory(prefix="agentmux-demo-") as folder:
        project = Path(folder)
        dag = SAMPLES / "demo.yaml"
        yield Plan(project / "state", project, dag, args.workers, watching=False, serve=args.serve)


async def _offer_demo() -> bool:
    from tui.fitted import read_fitting  # noqa: PLC0415 - see the module's docstring
    from tui.offer import Offer  # noqa: PLC0415

    offer = Offer(await asyncio.to_thread(read_fitting, Path.cwd(), Path("state")))
    with lasting_terminal(), _on_signals(offer.exit):
        return await offer.run_async() is True


async def _show(plan: Plan) -> int:
    from engine.front import Front  # noqa: PLC0415 - see the module's docstring
    from tui.app import Dashboard  # noqa: PLC0415
    from tui.fitted import Fitting, read_fitting  # noqa: PLC0415

    async def begin(engine: Engine) -> None:
        from engine.commands import Seed, StartServices  # noqa: PLC0415

        if plan.seed is not None:
            await engine.execute(Seed(plan.seed))
        if plan.up:
            await engine.execute(StartServices(None))
        if plan.workers:
            await engine.start_workers(plan.workers, after_services=plan.up)
        if plan.serve is not None:
            try:
                fitting.news.append(await _serve(engine, plan.serve))
            except AgentmuxError as error:
                fitting.preferences.notices.append(f"not served: {error}")

    try:
        fitting = await asyncio.to_thread(read_fitting, plan.project, plan.state_dir)
    except ValidationError as error:
        if not plan.watching:
            raise
        fitting = Fitting()  # who only looks must see the fleet all the more
        fitting.preferences.notices.append(f"the defaults are used: {error}")
    async with Front(
        plan.state_dir, project=plan.project, read_only=plan.watching, after=begin
    ) as front:
        dashboard = Dashboard(front, fitting, watching=plan.watching)
        with lasting_terminal(), _on_signals(dashboard.exit):
            await dashboard.run_async()
    await fitting.preferences.save()
    if front.failure is not None:
        raise front.failure
    return dashboard.return_code or 0


async def _serve(engine: Engine, other: Mapping[str, int]) -> str:
    """Serve the HTTP API for as long as the engine is open; say where.

    Raises:
        AgentmuxError: why it cannot be served.

    """
    from msgspec.structs import replace  # noqa: PLC0415

    from engine.api import load_serving  # noqa: PLC0415

    serving = await asyncio.to_thread(load_serving)
    api = await engine.attach(serving.served(engine, replace(engine.config.api, **other)))
    return f"served at {api.url}; the token is in {api.token}"


@contextmanager
def _on_signals(leave: Callable[[], object]) -> Iterator[None]:
    """Leave at a signal; the engine around the app then stops and releases what runs.

    A signal that our parent told us to ignore stays ignored.
    """
    loop = asyncio.get_running_loop()
    heard = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    for one in heard:
        loop.add_signal_handler(one, leave)
    try:
        yield
    finally:
        for one in heard:
            loop.remove_signal_handler(one)


if __name__ == "__main__":
    sys.exit(main())
