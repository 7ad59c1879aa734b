"""Screens that are left once, however often somebody presses the key that leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.await_complete import AwaitComplete

from tui.styled import STYLES

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.screen import Screen as Base
else:

    class Base(Generic[T]):
        """No widget: Textual takes the styles of a class from the first widget it comes of."""


class Once(Base[T]):
    """What makes a screen one that is dismissed once. Stands before the kind of screen it is.

    Keys that were pressed before it was gone still reach it. Textual would take away the screen
    below for them, or end the program where there is none.
    """

    CSS_PATH: ClassVar = STYLES / "dialogs.tcss"

    def hints(self) -> Sequence[tuple[str, str]]:
        """Return the keys that it takes and what each does, for the footer below it."""
        return ()

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Leave the screen with a result, unless it is left already or another one is above."""
        return super().dismiss(result) if self.is_active else AwaitComplete()
