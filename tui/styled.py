"""An app in the project's own style: what the dashboard and the offer of the demo share."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, TypeVar

from engine.text import clean_text
from tui.fitted import FittedApp

if TYPE_CHECKING:
    import os

    from tui.fitted import Fitting

T = TypeVar("T")

_ONCE = 4.0
"""Seconds within which the same message is shown once."""
STYLES = Path(__file__).resolve().parents[1] / "styles"


class Styled(FittedApp[T]):
    """An app with our stylesheets, that shows messages as they are."""

    CSS_PATH: ClassVar[list[str | os.PathLike[str]]] = [  # type: ignore[assignment]  # Textual types the one, takes the other
        STYLES / "agentmux.tcss",
        STYLES / "toasts.tcss",
    ]
    TITLE = "agentmux"

    def __init__(self, fitting: Fitting | None = None) -> None:
        super().__init__(fitting)
        self._said: dict[str, float] = {}

    def say(self, text: str, *, severity: str = "information") -> None:
        """Show a message for a few seconds, as it is."""
        now = monotonic()
        if now - self._said.get(text, float("-inf")) < _ONCE:
            return  # it is on the screen already
        self._said = {t: at for t, at in self._said.items() if now - at < _ONCE} | {text: now}
        level = severity if severity in {"warning", "error"} else "information"
        self.notify(clean_text(text, newlines=True), severity=level, markup=False)  # type: ignore[arg-type]  # one of its literals
