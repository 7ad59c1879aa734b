"""Mending the log for `doctor --repair`: written anew from the events table where it differs."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from engine.clock import Clock, SystemClock
from engine.findings import Level
from engine.log.check import compare_log
from engine.log.mirror import Mirror
from engine.store.database import storage_error

if TYPE_CHECKING:
    from engine.files import Layout


def rewrite(layout: Layout, clock: Clock | None = None) -> str | None:
    """Write the log anew if it differs from the events table; return what was done, in a sentence.

    None: there was nothing to do, or only to append what the log lacked. The old files are moved
    to quarantine, never deleted. The table is taken for the truth here: whoever doubts it (the
    audit finds that it does not fold to the task table) rebuilds the store from the log instead.
    Cut short by a crash, it is completed at the next start. Blocks for about 10 s for a million
    events; call it off the event loop.

    Raises:
        StorageError: the table, the log or the disk refuses, or another process kept the log's
            lock for 20 s; nothing is lost.

    """

    def differs() -> bool:
        return any(found.level is Level.ERROR for found in compare_log(layout, at_work=False))

    try:
        with closing(Mirror(layout, clock or SystemClock())) as mirror:
            folder = mirror.rewrite(differs)
    except (OSError, sqlite3.Error) as error:
        raise storage_error(error, layout.log) from error
    if folder is None:
        return None
    name = os.path.relpath(folder, layout.state.parent)
    return f"the log differed from the events table and was written anew; the old one is in {name}"
