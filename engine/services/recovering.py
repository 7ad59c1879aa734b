"""A service that is not well is mended by the operator's own commands, in a folder of their own.

What they make takes the place of the old folder in one step; the old one stays beside it until the
service is well with a new one, and comes back if it never is.
"""

from __future__ import annotations

import asyncio
import glob
import shlex
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.config.services import NEW
from engine.processes.calling import call
from engine.services.swapping import exchange, mend, remove
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from engine.config import Recover

_FRESH = "agentmux-new"
_OLD = "agentmux-old"


class RecoveryFailed(Exception):  # noqa: N818 - never reaches a user as such; it becomes a message
    """A recovery did not help; the text says why. The folder is as it was before."""


class Recovery:
    """The recovery of one service. `tell` writes a line into its log.

    `needed` are folders in whose place nothing may come, nor in that of a folder above them.
    """

    def __init__(
        self, recover: Recover, cwd: Path, needed: Iterable[Path], tell: Callable[[str], None]
    ) -> None:
        self._recover = recover
        self._cwd = cwd
        self._needed = (cwd, *needed)
        self._tell = tell
        self._folder = cwd / recover.folder if recover.folder is not None else None

    @property
    def _old(self) -> Path:
        """Where the old folder stays until the service is well with the new one."""
        assert self._folder is not None
        return self._folder.with_name(f"{self._folder.name}.{_OLD}")

    def tidy(self) -> None:
        """Put right what a process left that died in the midst of one. Raises OSError.

        An old folder stays: nobody knows yet whether the service is well with the new one.
        """
        if self._folder is None:
            return
        mend(self._folder)
        for fresh in self._folder.parent.glob(f"{glob.escape(self._folder.name)}.{_FRESH}-*"):
            remove(fresh)

    def settle(self) -> None:
        """Let the old folder go: the service is well with the new one. Raises OSError."""
        if self._folder is not None:
            remove(self._old)

    def take_back(self) -> None:
        """Let the old folder come back, if it is there still: nothing helped. Raises OSError."""
        if self._folder is not None and self._old.exists():
            exchange(self._folder, self._old)
            self._tell(f"recover: the old {self._folder.name} is back")
            remove(self._old)

    async def run(self, env: Mapping[str, str], is_well: Callable[[], Awaitable[str]]) -> None:
        """Run the steps, swap, and look: `is_well` returns what is still wrong.

        `env` are the variables of the steps. The old folder stays beside the new one until `settle`
        or `take_back`, also if this is called again before.

        Raises:
            RecoveryFailed: a step failed, or the service is not well with what they made.

        """
        fresh: Path | None = None
        if self._folder is not None:
            name = f"{self._folder.name}.{_FRESH}-{uuid.uuid4().hex[:8]}"
            fresh = self._folder.with_name(name)
        try:
            if fresh is not None:
                self._check_folder()
                fresh.mkdir(parents=True)
            await self._steps(env, fresh)
            await self._swap(fresh, is_well)
        except OSError as error:
            raise RecoveryFailed(f"{error.filename}: {error.strerror}") from error
        finally:
            if fresh is not None:
                with suppress(OSError):  # the next start tries again
                    await asyncio.to_thread(remove, fresh)

    def _check_folder(self) -> None:
        assert self._folder is not None
        folder = self._folder.resolve()
        for needed in self._needed:
            if needed.resolve().is_relative_to(folder):
                raise RecoveryFailed(f"{folder} cannot be replaced: {needed} is in it")

    async def _steps(self, env: Mapping[str, str], fresh: Path | None) -> None:
        deadline = time.monotonic() + self._recover.timeout
        for step in self._recover.steps:
            why = await self._call(step.run, env, fresh, deadline)
            if why and not step.otherwise:
                raise RecoveryFailed(why)
            for command in step.otherwise if why else ():
                if why := await self._call(command, env, fresh, deadline):
                    raise RecoveryFailed(why)

    async def _call(
        self,
        command: tuple[str, ...],
        env: Mapping[str, str],
        fresh: Path | None,
        deadline: float,
    ) -> str:
        """Run one command; return why it failed, empty if it did not."""
        argv = [word.replace(NEW, str(fresh)) for word in command]
        shown = clean_text(shlex.join(argv))
        left = deadline - time.monotonic()
        if left <= 0:
            return f"{shown}: there was no time left"
        self._tell(f"recover: {shown}")
        try:
            called = await call(argv, cwd=self._cwd, env=env, seconds=left, wants_output=False)
        except TimeoutError:
            why = f"{shown} took longer than {self._recover.timeout:g} s in all"
        except (OSError, ValueError) as error:
            why = f"{shown} cannot be started: {error}"
        else:
            if called.code == 0:
                return ""
            said = clean_text(called.err, newlines=True).strip().splitlines()
            why = f"{shown} ended with {called.code}" + (f": {said[-1]}" if said else "")
        self._tell(f"recover: {why}")
        return why

    async def _swap(self, fresh: Path | None, is_well: Callable[[], Awaitable[str]]) -> None:
        if fresh is None or self._folder is None:
            if why := await is_well():
                raise RecoveryFailed(why)
            return
        folder, old = self._folder, self._old
        await asyncio.to_thread(_take_place, folder, fresh, old)
        self._tell(f"recover: what was made is in place of {folder.name}")
        try:
            why = await is_well()
        except BaseException:
            exchange(folder, old)
            raise
        if why:
            self._tell(f"recover: {why}")
            await asyncio.to_thread(self.take_back)
            raise RecoveryFailed(why)


def _take_place(folder: Path, fresh: Path, old: Path) -> None:
    """Put a new folder in the place of another, which is called `old` then. Raises OSError.

    If there is an `old` one already nobody was well with the other, and that goes.
    """
    folder.mkdir(exist_ok=True)
    exchange(folder, fresh)
    if not old.exists():
        fresh.rename(old)
