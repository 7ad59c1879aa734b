"""The Dashboard: refreshes what is on screen, opens screens, hands actions to whoever does them.

The engine is opened around it (DESIGN §9). Nothing here outlives the app but what the engine
holds: leases and runs are never in a Textual worker.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from engine.commands import Command, Reset, Seed
from engine.errors import AgentmuxError
from engine.model import Event, EventType
from engine.text import clean_text
from engine.views import Progress
from tui.actions.model import Target
from tui.actions.table import BY_NAME
from tui.aside import EVERY, Aside
from tui.attendant import Attendant, Ear
from tui.commanding import Commanding
from tui.navigation import screen_for, target_of
from tui.screens.main import MainScreen
from tui.screens.paned import PanedScreen

if TYPE_CHECKING:
    from textual.screen import Screen

    from tui.dagfile import DagFile
    from tui.fitted import Fitting
    from tui.ports import Engine

PACE = 0.25
"""Seconds between two refreshes at least, however fast the store changes."""
TICK = 1.0
"""Seconds after which ages have grown by one."""
SHARE = 3.0
"""Times as long as a refresh took, the dashboard rests before the next: a store that is slow to
read is not read all the time."""
LONGEST_REST = 2.0
"""Seconds after which it looks again in any case: a store that was locked for a minute, and is not
any more, must not stay old on the screen for three."""
_OF_LISTS = frozenset({"sort", "reverse", "columns", "mark", "mark_all"})
"""Actions that only some lists know; elsewhere they must not act on a list that one cannot see."""
RECHECK = 5
"""Ticks after which workers are looked at again: a process that was killed commits nothing."""


class Dashboard(Commanding):
    """The control room. `watching`: it steers nothing.

    `pace`: seconds between refreshes. `ticks`: seconds between two ticks, None for no ticks but
    those that somebody else gives it.
    """

    def __init__(
        self,
        engine: Engine,
        fitting: Fitting | None = None,
        *,
        watching: bool = False,
        pace: float = PACE,
        ticks: float | None = TICK,
    ) -> None:
        super().__init__(engine, fitting)
        self._every = ticks
        self._watching = watching
        self._pace = pace
        self._changed = False
        self._due = asyncio.Event()
        self._urgent = asyncio.Event()
        self._ticks = 0
        self._resting = False
        self._main = MainScreen(engine, watching=watching)
        self._aside = Aside(engine)
        self._progress = Progress()
        self._ear = Ear()
        self._attendant = Attendant()
        self._file: DagFile | None = None
        self._seeded = False
        self._dag = ""

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
        self._look_aside()
        if self._every is not None:
            self.set_interval(self._every, self.tick)
        self._see_opened()

    @work(group="opening", exit_on_error=True)
    async def _see_opened(self) -> None:
        """Tell what was mended at the opening; leave if there is nothing to be shown."""
        await self._engine.over.wait()
        if self._engine.failure is not None:
            self.exit(return_code=1)
        for notice in self._engine.notices:
            self.say(notice, severity="warning")
        for words in self.news:
            self.say(words)
        self.ring(changed=True, urgent=True)

    # -- refreshing ------------------------------------------------------------------------

    @work(group="feed", exit_on_error=True)
    async def _listen(self) -> None:
        news = self._engine.changes()
        await anext(news)  # what is there already: the screen begins with it by itself
        async for _ in news:
            self._aside.changed()
            self.ring(changed=True)

    @work(group="feed", exit_on_error=True)
    async def _look_aside(self) -> None:
        await self._engine.over.wait()
        while True:
            if await self._aside.look():
                self._main.tell(self._aside.facts)
                for screen in self.screen_stack:
                    if isinstance(screen, PanedScreen):
                        screen.needs = len(self._aside.facts.needs)
                        screen.refresh_bars()
            await self._look_at_file()
            await asyncio.sleep(EVERY)

    @work(group="feed", exit_on_error=True)
    async def _refresh_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        await self._main.begun.wait()
        if self._engine.over.is_set():
            await self._attend()
        self._resting = not self._due.is_set()
        self.call_after_refresh(self._seen)
        while True:
            await self._due.wait()
            self._due.clear()
            self._urgent.clear()
            changed, self._changed = self._changed, False
            self._resting = False
            began = loop.time()
            await self._top.load(changed=changed)
            if changed and self._engine.over.is_set():
                await self._attend()
            took = loop.time() - began
            self._resting = not self._due.is_set()
            self.call_after_refresh(self._seen)
            try:
                await asyncio.wait_for(self._urgent.wait(), self._rest(took))
            except TimeoutError:
                continue

    def _rest(self, took: float) -> float:
        return max(self._pace, min(took * SHARE, LONGEST_REST))

    def _seen(self) -> None:
        """Go on with what would have held up the first picture."""
        self._engine.begin()
        if not gc.isenabled():
            gc.freeze()
            gc.enable()

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
        self._main.quitting = self.leaving_words
        self._note([])
        if self.preferences.due or self.preferences.notices:
            self._remember()
        for screen in self.screen_stack:
            if isinstance(screen, PanedScreen):
                screen.tick()

    async def _attend(self) -> None:
        """Tell what has happened to somebody who looks elsewhere."""
        queries = self._engine.queries
        try:
            events = await self._ear.listen(queries)
            if self._top is not self._main:
                self._progress = await queries.progress()
        except Exception:  # noqa: BLE001 - whatever a query throws, the panes say so
            return
        self._seeded = self._seeded or any(e.type is EventType.SEEDED for e in events)
        if self._top is self._main:
            self._progress = self._main.picture.progress.value
        self._note(events)

    def _note(self, events: list[Event]) -> None:
        needs = len(self._aside.facts.needs) if self._aside.knows_needs else None
        now = self._engine.clock.monotonic()
        self.attend(self._attendant.note(self._progress, events, needs, now))

    @work(group="preferences", exclusive=True, exit_on_error=True)
    async def _remember(self) -> None:
        """Keep what the user chose, and say what is wrong with where it is kept."""
        if self.preferences.due:
            await self.preferences.save()
        for notice in self.preferences.notices:
            self.say(notice, severity="warning")
        self.preferences.notices.clear()

    async def _look_at_file(self) -> None:
        """Say so when the DAG file on disk is another one than was seeded."""
        from tui.dagfile import DagFile  # noqa: PLC0415 - not before the first picture

        dag = self._main.picture.progress.value.dag
        if not dag or self._watching:
            return
        if self._file is None or self._dag != dag:
            self._dag, self._file = dag, await asyncio.to_thread(DagFile, Path(dag))
        elif self._seeded:
            self._seeded = False
            await asyncio.to_thread(self._file.know)
        changed = await asyncio.to_thread(self._file.changed)
        self._main.news = f"{clean_text(self._file.path.name)} changed: S" if changed else ""

    def up_to_date(self, command: Command) -> None:
        """Take the DAG file for known once it was seeded, or would change nothing."""
        if isinstance(command, Seed | Reset) and self._file is not None:
            self._seeded = True  # the next look takes it for known, off the event loop
            self._main.news = ""

    @property
    def _top(self) -> PanedScreen:
        # A dialog lets the screen below shine through: that one is kept fresh.
        screens = [s for s in self.screen_stack if isinstance(s, PanedScreen)]
        # The stack is emptied on the way out, while this still may ask.
        return screens[-1] if screens else self._main

    def on_paned_screen_wanted(self, event: PanedScreen.Wanted) -> None:
        """Read what a screen shows now and was not given yet."""
        event.stop()
        self.ring(urgent=True)

    # -- actions ---------------------------------------------------------------------------

    async def action_act(self, name: str) -> None:
        """Do an action of the table, or say why it cannot be done."""
        action = BY_NAME[name]
        screen = self.screen
        if isinstance(screen, PanedScreen):
            screen.pin()
            selection = screen.selection()
            if reason := action.refuse(selection):
                self.say(reason, severity="warning")
                return
            commands = action.command(selection) if action.command is not None else ()
            if commands:
                bulk = bool(selection.marked)
                self.carry_out(
                    commands,
                    asks=action.asks or bulk,
                    done=screen.clear_marks if bulk else lambda: None,
                )
                return
            if target := target_of(name, selection):
                self.open(target)
                return
            if name == "filter" and not hasattr(screen, "action_filter"):
                name = "palette"  # what is typed next must not act on anything
            elif name in _OF_LISTS and selection.place not in action.places:
                self.say(f"{action.label or name} is for lists that can do it", severity="warning")
                return
        try:
            await self._do(name)
        except AgentmuxError as error:
            self.say(str(error), severity="error")

    async def _do(self, name: str) -> None:
        screen = self.screen
        match name:
            case "quit":
                self.leave()
            case "help":
                from tui.screens.help import HelpScreen  # noqa: PLC0415 - only when it is wanted

                self.push_screen(HelpScreen(self.keymap))
            case "palette":
                from tui.palette import Palette  # noqa: PLC0415 - likewise

                self.push_screen(Palette())
            case "add" if isinstance(screen, PanedScreen):
                self.add_worker(screen.selection().agent)
            case "pane_1" | "pane_2" | "pane_3" | "pane_4" | "pane_5":
                await screen.run_action(f"pane({name[-1]})")
            case _ if BY_NAME[name].local:
                await self.run_action(BY_NAME[name].local, self.focused)
            case _ if hasattr(screen, f"action_{name}"):
                await screen.run_action(name)
            case _:
                self.say(f"{BY_NAME[name].label or name}: not on this screen", severity="warning")

    def open(self, target: Target) -> None:
        """Show another screen, unless it is shown already; a graph gives way to another."""
        here = self.screen.target if isinstance(self.screen, PanedScreen) else None
        if here == target:
            self.say("this is on the screen already", severity="warning")
            return
        if here is not None and here.name == target.name == "graph":
            self.pop_screen()
        screen = screen_for(target, self._engine, watching=self._watching)
        screen.target = target
        screen.needs = len(self._aside.facts.needs)
        self.push_screen(screen, lambda _: self.ring(changed=True, urgent=True))
        self.ring(changed=True, urgent=True)

    def on_paned_screen_go(self, event: PanedScreen.Go) -> None:
        """Go where a screen leads."""
        event.stop()
        self.open(Target(event.name, event.task_id, event.run_id, event.worker_id))

    def tell_leaving(self, words: str) -> None:
        """Show that the app is about to quit."""
        self._main.quitting = words
        self._main.tick()
