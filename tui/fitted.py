"""An app that fits its terminal, the operator's settings and its user's habits.

Which theme it starts with, whether it draws in colour and beyond ASCII, which keys do what, what
the terminal's title says, what is switched on. What the app is for, it does not know.
"""

from __future__ import annotations

import locale
import os
import shutil
from typing import TYPE_CHECKING, ClassVar, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace
from textual import events, on
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.geometry import Size
from textual.notifications import Notify

from engine.config import ScreenConfig, settings_file
from tui.glyphs import AsciiFilter, wants_ascii
from tui.inorder import InOrderApp
from tui.keymap import Keymap, read_settings
from tui.preferences import Preferences, Switch, preferences_file
from tui.terminal import TitleBar
from tui.theme import AGENTMUX, AGENTMUX_LIGHT, OURS, meanings, starting_theme
from tui.toasts import Shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from textual.filter import LineFilter
    from textual.notifications import SeverityLevel

    from tui.attendant import Word

T = TypeVar("T")


class Fitting(Struct, frozen=True):
    """What an app is fitted with: the operator's settings and keys, the user's choices.

    `news` is told once the engine is open.
    """

    settings: ScreenConfig = field(default_factory=ScreenConfig)
    keymap: Keymap = field(default_factory=Keymap)
    preferences: Preferences = field(default_factory=Preferences)
    news: list[str] = field(default_factory=list)


def read_fitting(project: Path, state_dir: Path) -> Fitting:
    """Read what a dashboard over this state folder is fitted with; blocks for two small files.

    Raises:
        ValidationError: agentmux.yaml is wrong, or has keys that would not work; all of it.
        StorageError: it is there and cannot be read.

    """
    config, keymap = read_settings(settings_file(project, state_dir))
    return Fitting(config.screen, keymap, Preferences.read(preferences_file()))


class FittedApp(InOrderApp[T]):
    """An app in one of our themes or Textual's; `TEXTUAL_THEME` names another to start with.

    What the user chose goes before what the operator set.
    """

    # The palette is an action of ours; its keys are in the table.
    ENABLE_COMMAND_PALETTE = False
    # In every program, also while one types or is asked something: no key of the table's.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True)
    ]

    def __init__(self, fitting: Fitting | None = None) -> None:
        # Needed while Textual builds the app.
        self.title_bar = TitleBar()
        self._is_dressed = False
        no_colour = "NO_COLOR" in os.environ
        # Of an app in colours of its own, Textual would leave the greys: those are colours, too.
        super().__init__(ansi_color=True if no_colour else None)
        fitting = fitting or Fitting()
        self.settings = fitting.settings
        self.keymap = fitting.keymap
        self.preferences = fitting.preferences
        self.news = fitting.news
        self.set_keymap(self.keymap.overrides())
        terminal = os.environ.get("TERM", "")
        self._ascii = wants_ascii(self.settings.ascii, locale.getencoding(), terminal)
        self._in_ascii = AsciiFilter()
        if self._ascii:
            self.keymap = replace(self.keymap, plain=True)
        self._is_dressed = True
        for theme in OURS:
            self.register_theme(theme)
        name = starting_theme(
            os.environ.get("TEXTUAL_THEME", ""),
            self.preferences.theme,
            self.available_themes,
            few_colours=no_colour or self.console.color_system == "standard",
        )
        if name == self.theme:
            # Textual read it from the environment before ours were known, and fell back.
            self.theme = AGENTMUX.name if name != AGENTMUX.name else AGENTMUX_LIGHT.name
        self.theme = name

    def watch_theme(self) -> None:
        """Have the colours at hand before anything is parsed."""
        self.stylesheet.set_variables(self.get_css_variables())

    def refresh_css(self, animate: bool = True) -> None:
        """Style all there is anew. What comes first is styled once, and right, without it."""
        if self.screen_stack:
            super().refresh_css(animate)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give each of our meanings its colour in the theme."""
        # Of the theme that Textual begins with nothing is ever seen; mending it takes a while.
        return meanings(self.current_theme if self._is_dressed else AGENTMUX)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every painted line goes through at last."""
        filters = super().get_line_filters()
        return [*filters, self._in_ascii] if self._ascii else filters

    def get_driver_class(self) -> type[Driver]:
        """Return the platform's driver, with a title bar."""
        return self.title_bar.driver_class(super().get_driver_class())

    @on(Driver.SignalResume)
    def resumed(self) -> None:
        """Paint all of the screen anew: after a suspension the terminal shows nothing of it."""
        self.refresh(layout=True)

    def on_resize(self, event: events.Resize) -> None:
        """Paint all of the screen anew, be it as large as Textual saw it last.

        The terminal may have been smaller for a moment: what it had no room for is lost. Of two
        signals in a row, Textual may tell of the later one first: then it is told again.
        """
        if not (self.screen_stack and self.screen.is_mounted):
            return
        size = event.size if self.is_headless else Size(*shutil.get_terminal_size())
        if size != event.size:
            self.post_message(events.Resize(size, size))
        self.refresh()

    def attend(self, word: Word) -> None:
        """Say what an attendant wants said, by whatever of it is switched on."""
        if self.has_on(Switch.TITLE):
            self.title_bar.show(word.title)
        if word.bell and self.has_on(Switch.BELL):
            self.bell()
        for toast in word.toasts if self.has_on(Switch.TOASTS) else ():
            self.notify(toast.text, severity=toast.severity, timeout=toast.seconds, markup=False)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a toast, as Textual does; all that notifies comes here."""
        seconds = self.NOTIFICATION_TIMEOUT if timeout is None else timeout
        self.post_message(Notify(Shown(message, title, severity, seconds, markup=markup)))

    # -- what the user chooses -------------------------------------------------------------

    def choose_theme(self, name: str) -> None:
        """Show another theme from now on, and remember it."""
        self.theme = name
        self.preferences.theme = name

    def has_on(self, switch: Switch) -> bool:
        """Say whether something is switched on: as the user left it, else as it is set."""
        chosen = self.preferences.switch(switch)
        return bool(getattr(self.settings, switch)) if chosen is None else chosen

    def turn(self, switch: Switch) -> bool:
        """Turn a switch over, remember it, and return whether it is on now."""
        on = not self.has_on(switch)
        self.preferences.set_switch(switch, on)
        if switch is Switch.TITLE and not on:
            self.title_bar.show("")
        return on
