"""What is known beside the picture of the store: usage, needs, health, the critical path.

Each costs more than a look at a window, so none of them holds a refresh up.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from engine.views import AttentionRow, CriticalPath, Health

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.views import Usage
    from tui.ports import Engine

EVERY = 2.0
"""Seconds between two looks."""
USAGE_AFTER = 10.0
"""Seconds after a change for which processes are looked for although there were none."""
NEEDS_EVERY = 5.0
"""Seconds after which somebody may have gone silent, or a process may be left, without a commit."""
PATH_EVERY = 10.0
"""Seconds between two looks at the critical path: it reads all that is unfinished."""


class Facts(Struct, frozen=True):
    """What was found last. `usage` is by run; `path_at` is when the path was read."""

    usage: Mapping[str, Usage] = field(default_factory=dict)
    needs: tuple[AttentionRow, ...] = ()
    health: Health = Health()
    path: CriticalPath = CriticalPath()
    path_at: datetime | None = None


class Aside:
    """Looks at the facts now and then. Call `look` in a loop of its own.

    A look that fails leaves the fact as it was: the panes tell that the store cannot be read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._needs_at = self._path_at = float("-inf")
        self._changed_for_needs = self._changed_for_path = True
        self._changed_at = engine.clock.monotonic()
        self.facts = Facts()
        self.knows_needs = False
        """Whether `facts.needs` was ever read."""

    def changed(self) -> None:
        """Note that the store has changed."""
        self._changed_for_needs = self._changed_for_path = True
        self._changed_at = self._engine.clock.monotonic()

    async def look(self) -> bool:
        """Look at what is due. Return whether anything is different now."""
        before, now = self.facts, self._engine.clock.monotonic()
        # Without a commit no run begins, and soon after it its processes are there.
        if self.facts.usage or now - self._changed_at < USAGE_AFTER:
            with suppress(Exception):
                self.facts = replace(self.facts, usage=await self._engine.usage())
        if self._changed_for_needs or now - self._needs_at >= NEEDS_EVERY:
            self._changed_for_needs, self._needs_at = False, now
            try:
                needs = tuple(await self._engine.attention())
                health = await self._engine.health()
            except Exception:  # noqa: BLE001 - see the class
                self._changed_for_needs = True
            else:
                self.facts, self.knows_needs = replace(self.facts, needs=needs, health=health), True
        if self._changed_for_path and now - self._path_at >= PATH_EVERY:
            self._changed_for_path, self._path_at = False, now
            moment = self._engine.clock.now()
            try:
                path = await self._engine.queries.critical_path()
            except Exception:  # noqa: BLE001 - see the class
                self._changed_for_path = True
            else:
                self.facts = replace(self.facts, path=path, path_at=moment)
        return self.facts != before
