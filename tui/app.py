"""The Dashboard: refreshes what is on screen, hands actions to whoever does them, quits cleanly.

The engine is opened around it (DESIGN §9). Nothing here outlives the app but what the engine
holds: leases and runs are never in a Textual worker.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import work
from textual.app import App
from textual.widgets import Input

from engine.errors import AgentmuxError
from engine.model import ALL_AGENTS
from engine.text import clean_text, plural
from tui.actions import BY_NAME, Action
from tui.screens.detail import DetailScreen
from tui.screens.dialogs import Choice, HelpScreen, hurry_question, quit_question
from tui.screens.main import MainScreen
from tui.screens.paned import PanedScreen
from tui.snapshot import explain
from tui.theme import AGENTMUX, meanings

if TYPE_CHECKING:
    from textual import events
    from textual.screen import Screen

    from engine.commands import Command, Receipt
    from tui.ports import Engine

T = TypeVar("T")

STYLES = Path(__file__).resolve().parents[1] / "styles"
PACE = 0.25
"""Seconds between two refreshes at least, however fast the store changes."""
RECHECK = 5
"""Ticks after which workers are looked at again: a process that was killed commits nothing."""
_TOLD = 4
"""Lines of a receipt that are shown before the rest is only counted."""


class Styled(App[T]):
    """An app in the project's own theme; `TEXTUAL_THEME` names another one."""

    CSS_PATH: ClassVar[list[str | os.PathLike[str]]] = [STYLES / "agentmux.tcss"]  # type: ignore[assignment]  # Textual types the one, takes the other
    ENABLE_COMMAND_PALETTE = False
    TITLE = "agentmux"

    def __init__(self) -> None:
        super().__init__()
        self.register_theme(AGENTMUX)
        wanted = os.environ.get("TEXTUAL_THEME", "")
        self.theme = wanted if wanted in self.available_themes else AGENTMUX.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give themes that know nothing of our meanings a colour for each."""
        return meanings(self.current_theme)


class Dashboard(Styled[None]):
    """The control room. `watching`: it steers nothing. `pace`: seconds between refreshes."""

    def __init__(self, engine: Engine, *, watching: bool = False, pace: float = PACE) -> None:
        super().__init__()
        self._engine = engine
        self._watching = watching
        self._pace = pace
        self._changed = True
        self._due = asyncio.Event()
        self._urgent = asyncio.Event()
        self._ticks = 0
        self._leaving = False
        self._resting = False
        self._main = MainScreen(engine, watching=watching)

    def get_default_screen(self) -> Screen[None]:
        """Open on the dashboard, with no empty screen before it."""
        return self._main

    @property
    def main(self) -> MainScreen:
        """The screen with the panes."""
        return self._main

    def on_mount(self) -> None:
        """Begin to listen."""
        self._listen()
        self._refresh_for_ever()
        self.set_interval(1.0, self.tick)

    # -- refreshing ------------------------------------------------------------------------

    @work(group="feed", exit_on_error=True)
    async def _listen(self) -> None:
        async for _ in self._engine.changes():
            self.ring(changed=True)

    @work(group="feed", exit_on_error=True)
    async def _refresh_for_ever(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            self._urgent.clear()
            changed, self._changed = self._changed, False
            self._resting = False
            await self._top.load(changed=changed)
            self._resting = not self._due.is_set()
            try:
                await asyncio.wait_for(self._urgent.wait(), self._pace)
            except TimeoutError:
                continue

    @property
    def at_rest(self) -> bool:
        """Whether all that was asked for has been read and shown."""
        return self._resting and not self._due.is_set()

    def ring(self, *, changed: bool = False, urgent: bool = False) -> None:
        """Have the screen refreshed: when its turn comes, or at once if it is `urgent`."""
        self._changed = self._changed or changed
        self._due.set()
        if urgent:
            self._urgent.set()

    def tick(self) -> None:
        """Let ages grow; look again at what changes without a commit, and at what failed."""
        self._ticks += 1
        if self._ticks % RECHECK == 0:
            self._main.recheck = True
            self.ring()
        if self._main.picture.trouble:
            self.ring(changed=True)
        self._main.quitting = self._quitting()
        for screen in self.screen_stack:
            if isinstance(screen, PanedScreen):
                screen.tick()

    @property
    def _top(self) -> PanedScreen:
        # A dialog lets the screen below shine through: that one is kept fresh.
        screens = [s for s in self.screen_stack if isinstance(s, PanedScreen)]
        return screens[-1]

    def on_paned_screen_wanted(self, event: PanedScreen.Wanted) -> None:
        """Read what a screen shows now and was not given yet."""
        event.stop()
        self.ring(urgent=True)

    # -- actions ---------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Give a fast typist's letters to the line that was opened by the key before them.

        They were sent to the list, which still had the focus then; a line that got a letter
        itself lets none of it come here.
        """
        line = self.focused
        if isinstance(line, Input) and event.is_printable and event.character is not None:
            line.insert_text_at_cursor(event.character)
            event.stop()

    async def action_act(self, name: str) -> None:
        """Do an action of the table, or say why it cannot be done."""
        action = BY_NAME[name]
        screen = self.screen
        if isinstance(screen, PanedScreen):
            selection = screen.selection()
            if reason := action.refuse(selection):
                self.say(reason, severity="warning")
                return
            if action.command is not None:
                self._carry_out(action, action.command(selection))
                return
        match name:
            case "quit":
                self.leave()
            case "help":
                self.push_screen(HelpScreen())
            case "detail":
                await self._open()
            case "pane_1" | "pane_2" | "pane_3" | "pane_4":
                await screen.run_action(f"pane({name[-1]})")
            case _:
                await screen.run_action(name)

    async def _open(self) -> None:
        task_id = self._main.selection().opens
        assert task_id is not None
        detail = DetailScreen(self._engine, task_id, watching=self._watching)
        self.push_screen(detail, lambda _: self.ring(changed=True, urgent=True))
        self.ring(changed=True, urgent=True)

    @work(group="commands", exit_on_error=True)
    async def _carry_out(self, action: Action, commands: tuple[Command, ...]) -> None:
        for command in commands:
            try:
                receipt = await self._engine.execute(command)
            except AgentmuxError as error:
                self.say(f"{action.label}: {error}", severity="error")
            except Exception as error:  # noqa: BLE001 - a command that breaks must not take the screen with it
                self.say(f"{action.label} failed: {explain(error)}", severity="error")
            else:
                self._tell(receipt)
        self.ring(changed=True, urgent=True)

    def _tell(self, receipt: Receipt) -> None:
        done = [
            f"{'all agents' if subject == ALL_AGENTS else subject}: {words}"
            for subject, words in receipt.done.items()
        ]
        if done:
            self.say(_listed(done))
        refused = [f"{refusal.subject}: {refusal.message}" for refusal in receipt.refused]
        if refused:
            self.say(_listed(refused), severity="warning")

    def say(self, text: str, *, severity: str = "information") -> None:
        """Show a message for a few seconds, as it is."""
        level = severity if severity in {"warning", "error"} else "information"
        self.notify(clean_text(text, newlines=True), severity=level, markup=False)  # type: ignore[arg-type]  # one of its literals

    # -- leaving ---------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Quit as `q` does."""
        self.leave()

    def leave(self) -> None:
        """Quit; ask first while runs of this process are alive."""
        runs = self._engine.active_runs()
        if not runs:
            self.exit()
            return
        question = hurry_question(runs) if self._leaving else quit_question(runs)
        self.push_screen(question, self._answered)

    def _answered(self, choice: Choice | None) -> None:
        if choice is Choice.YES:
            self._stop(drain=False)
        elif choice is Choice.WAIT:
            self._stop(drain=True)

    @work(group="leaving", exit_on_error=True)
    async def _stop(self, *, drain: bool) -> None:
        self._leaving = True
        self._main.quitting = self._quitting() if drain else "stopping …"
        self._main.tick()
        try:
            await self._engine.stop_workers(drain=drain)
        finally:
            self.exit()

    def _quitting(self) -> str:
        if not self._leaving:
            return ""
        runs = self._engine.active_runs()
        return f"quits when {plural(runs, 'run')} {'ends' if runs == 1 else 'end'}"


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
    return "\n".join(lines[:_TOLD] + more)
