"""Alerts come back from their events; what is none of ours does no harm."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.clock import START

from engine.model import Event, EventType
from engine.store.alerts import refold_alerts
from engine.store.database import create_schema

GOOD: dict[str, Any] = {
    "alert": 1, "kind": "log", "subject": "s", "summary": "t", "error": False, "count": 1,
    "body": None, "task": None, "run": None, "alerts": [1],
}  # fmt: skip
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
)


@given(
    st.sampled_from([EventType.ALERT, EventType.ALERT_ACKNOWLEDGED]),
    st.dictionaries(st.sampled_from(sorted(GOOD)), ODD),
    st.sets(st.sampled_from(sorted(GOOD))),
)
def test_an_event_of_somebody_else_is_no_alert(
    kind: EventType, odd: dict[str, Any], lacks: set[str]
) -> None:
    data = {name: value for name, value in (GOOD | odd).items() if name not in lacks}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create_schema(db)
        refold_alerts(db, [Event(1, START, kind, data=data), Event(2, START, kind, data=data)])
        assert db.execute("SELECT count(*) FROM alerts").fetchone()[0] <= 1
