"""Feeds that fail: told by the process that asks, for whoever looks in any other.

A fact of the moment, so no event: a store that is rebuilt hears of it with the next try.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.clock import from_iso

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime

    from engine.store.transaction import Transaction

FEED = "feed:"
"""What the keys in `meta` begin with; the name of the feed follows."""


class FeedTrouble(Struct, frozen=True):
    """A feed, as the repository whose issues become tasks, that has failed since then."""

    name: str
    since: datetime
    error: str


def note_feed(tx: Transaction, name: str, error: str | None) -> None:
    """Note that a feed fails, or (None) that it works; see Store.note_feed."""
    key = f"{FEED}{name}"
    if error is None:
        tx.db.execute("DELETE FROM meta WHERE key = ?", (key,))
        return
    tx.db.execute(
        "INSERT INTO meta VALUES (?1, json_array(?2, ?3)) ON CONFLICT DO UPDATE SET"
        " value = json_array(json_extract(value, '$[0]'), ?3)",
        (key, tx.ts, error),
    )


def failing_feeds(db: sqlite3.Connection) -> tuple[FeedTrouble, ...]:
    """Return the feeds that failed when they were asked last, by name."""
    rows = db.execute("SELECT key, value FROM meta WHERE key GLOB ? ORDER BY key", (f"{FEED}*",))
    found = []
    for key, value in rows:
        since, error = json.loads(value)
        found.append(FeedTrouble(key.removeprefix(FEED), from_iso(since), str(error)))
    return tuple(found)
