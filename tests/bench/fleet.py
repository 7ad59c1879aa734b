"""A worker process for the benchmark: `fleet.py FOLDER WORKERS`, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from engine.core import Engine


async def main(folder: Path, workers: int) -> None:
    """Hold `workers` workers of codex."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Engine(folder / "state", project=folder) as engine:
        for _ in range(workers):
            await engine.start_worker("codex")
        await ended.wait()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
