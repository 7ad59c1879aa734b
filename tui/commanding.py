"""How the dashboard steers: asks with a dry run, carries out, tells the receipt; and how it quits.

Commands go through the engine's one door. Nothing here knows what is on which screen.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual import work
from textual.widgets import Input

from engine.commands import GIVEN_UP, AddWorkers, Command, KillWorkers, Receipt, Reset
from engine.errors import AgentmuxError
from engine.text import plural
from tui.screens.question import (
    KILL,
    NO,
    WAIT,
    YES,
    Answer,
    Question,
    hurry_question,
    no,
    quit_question,
    yes,
)
from tui.snapshot import explain
from tui.steering import FEW, is_long, plan_of, receipt_text, step_text, title_of, told
from tui.styled import Styled

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

    from engine.commands import Step
    from tui.fitted import Fitting
    from tui.ports import Engine

_HURRY, _GIVE_UP = "hurry", "give up"


class Commanding(Styled[None]):
    """An app that hands commands to the engine. `ring` has the screen refreshed."""

    def __init__(self, engine: Engine, fitting: Fitting | None = None) -> None:
        super().__init__(fitting)
        self._engine = engine
        self._leaving = False
        self._asks_to_leave = False

    @property
    def engine(self) -> Engine:
        """The engine that is steered."""
        return self._engine

    def ring(self, *, changed: bool = False, urgent: bool = False) -> None:
        """Have the screen refreshed."""
        raise NotImplementedError

    # -- commands --------------------------------------------------------------------------

    @work(group="commands", exit_on_error=True)
    async def carry_out(
        self,
        commands: tuple[Command, ...],
        *,
        asks: bool,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Carry commands out one by one; with `asks` each only after a yes to its dry run.

        `done` is called once something was carried out.
        """
        where = self.screen
        for command in commands:
            try:
                if asks and not await self._agreed(command, where):
                    break
                receipt = await self._execute(command)
            except AgentmuxError as error:
                self.say(f"{title_of(command)}: {error}", severity="error")
            except Exception as error:  # noqa: BLE001 - a command that breaks must not take the screen with it
                self.say(f"{title_of(command)} failed: {explain(error)}", severity="error")
            else:
                if receipt is not None:
                    self._tell(command, receipt)
                    self.up_to_date(command)
                    done()
        self.ring(changed=True, urgent=True)

    def up_to_date(self, command: Command) -> None:
        """Note that what a command asks for is so now."""

    async def _agreed(self, command: Command, where: Screen[Any]) -> bool:
        """Show what a command would do and ask; where it would do nothing, only say so.

        Somebody who went on to another screen, or types, is not asked: the next key is meant for
        something else, and could be a yes.
        """
        receipt = await self._engine.execute(command, dry_run=True)
        plan = plan_of(
            command,
            receipt,
            grace=self._engine.config.grace,
            workers=await self._engine.queries.workers(),
            externals=await self._engine.queries.externals(),
        )
        if not plan.changes and not is_long(receipt):
            _, refused = told(receipt)
            self.say("\n".join(refused) or "nothing would change", severity="warning")
            if not refused:
                self.up_to_date(command)
            return False
        if self.screen is not where or isinstance(self.focused, Input):
            self.say(f"{plan.title}: not asked, for you went on; press its key again")
            return False
        answers = (yes(plan.title.lower()), no("leave it")) if plan.changes else (no("back"),)
        return await self.push_screen_wait(Question(plan.title, plan.text, answers)) == YES

    async def _execute(self, command: Command) -> Receipt | None:
        """Carry a command out; a reset shows whom it waits for. None: it was given up."""
        if not isinstance(command, Reset):
            return await self._engine.execute(command)
        hurry, loop = asyncio.Event(), asyncio.get_running_loop()
        showing = _Waiting(self)

        def on_step(step: Step) -> None:
            loop.call_soon_threadsafe(showing.tell, step)

        working = asyncio.create_task(
            self._engine.execute(command, on_step=on_step, hurry=hurry),
            name="reset",
        )
        given_up = False

        def answered(choice: str | None) -> None:
            nonlocal given_up
            if choice == _HURRY:
                hurry.set()
            elif choice == _GIVE_UP:
                given_up = True
                working.cancel()

        showing.answered = answered
        try:
            return await working
        except asyncio.CancelledError:
            if not given_up:
                raise  # it is this dashboard that goes, and the reset with it: see Front
            self.say(f"{GIVEN_UP}: {showing.stands}")
            return None
        finally:
            showing.close()

    def _tell(self, command: Command, receipt: Receipt) -> None:
        done, refused = told(receipt)
        if is_long(receipt):
            text = receipt_text(receipt)
            self.push_screen(Question(title_of(command), text, (no("back"),)))
            return
        if done:
            self.say(_first(done))
        if refused:
            self.say(_first(refused), severity="warning")

    @work(group="commands", exit_on_error=True)
    async def add_worker(self, agent: str | None) -> None:
        """Start one more worker for an agent; ask for which if it is not clear."""
        try:
            agents = list(await self._engine.queries.agent_counts())
        except AgentmuxError as error:
            self.say(str(error), severity="error")
            return
        if not agents:
            self.say("no tasks, so no agent to work for: seed a DAG first", severity="warning")
            return
        if len(agents) > 1:
            from tui.screens.choosing import Choosing  # noqa: PLC0415 - rarely needed

            chosen = await self.push_screen_wait(Choosing("Add a worker for", agents, agent))
        else:
            chosen = agents[0]
        if chosen is not None:
            self.carry_out((AddWorkers(chosen),), asks=False)

    # -- leaving ---------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Quit as `q` does."""
        self.leave()

    @work(group="leaving", exit_on_error=True)
    async def leave(self) -> None:
        """Quit; ask first while runs or services of this process are alive."""
        if self._asks_to_leave:
            return
        runs, services = self._engine.active_runs(), len(self._engine.own_services())
        if not runs and (self._leaving or not services):
            self.exit()
            return
        question = hurry_question(runs) if self._leaving else quit_question(runs, services)
        self._asks_to_leave = True
        try:
            choice = await self.push_screen_wait(question)
        finally:
            self._asks_to_leave = False
        if choice != NO:
            self._stop(choice)

    @work(group="stopping", exit_on_error=True)
    async def _stop(self, choice: str) -> None:
        self._leaving = True
        self.tell_leaving(self.leaving_words if choice == WAIT else "stopping …")
        try:
            if choice == KILL:
                with suppress(AgentmuxError):
                    await self._engine.execute(KillWorkers(self._engine.own_workers()))
            await self._engine.stop_workers(drain=choice == WAIT)
            await self._engine.stop_services()
        finally:
            self.exit()

    def tell_leaving(self, words: str) -> None:
        """Show that the app is about to quit."""
        raise NotImplementedError

    @property
    def leaving_words(self) -> str:
        """What is still waited for before the app quits; empty if it does not quit."""
        if not self._leaving:
            return ""
        runs, services = self._engine.active_runs(), len(self._engine.own_services())
        going = f"{plural(runs, 'run')}" if runs or not services else plural(services, "service")
        return f"quits when {going} {'ends' if (runs or services) == 1 else 'end'}"


class _Waiting:
    """The screen over a reset, from its first step that waits for somebody to its end."""

    def __init__(self, app: Commanding) -> None:
        self._app = app
        self._screen: Question | None = None
        self.answered: Callable[[str | None], None] = lambda _choice: None
        self.stands = "claims go on"
        """How things stand once it is given up."""

    def tell(self, step: Step) -> None:
        """Show a step."""
        if step.what == GIVEN_UP:
            self.stands = step.next
        elif self._screen is None:
            self._screen = Question(
                "Reset",
                step_text(step),
                (
                    Answer(_HURRY, ("K",), "K", "kill those that are left"),
                    Answer(_GIVE_UP, ("n",), "", "give the reset up", leaves=True),
                ),
            )
            self._app.push_screen(self._screen, self.answered)
        elif self._screen.is_current:
            self._screen.retell(step_text(step))

    def close(self) -> None:
        """Take the screen away, if nobody has."""
        if self._screen is not None and self._screen.is_current:
            self._app.pop_screen()


def _first(lines: list[str]) -> str:
    more = [f"and {len(lines) - FEW:,} more"] if len(lines) > FEW else []
    return "\n".join(lines[:FEW] + more)
