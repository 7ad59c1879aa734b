"""What all pictures share: one time zone, no preferences, a cursor that does not blink."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from textual.widgets import Input

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    for name in ("TEXTUAL_THEME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    # Twice a second the same screen would be another picture.
    monkeypatch.setattr(Input.cursor_blink, "_default", False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
