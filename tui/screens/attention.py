"""What needs a person, the oldest first, and what can be done about the one under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container

from engine.errors import TaskNotFound
from engine.text import plural
from tui.actions.model import Group, Place, Selection
from tui.actions.table import ACTIONS
from tui.describe import laid_out
from tui.describe_fleet import need_about
from tui.panes.attention import NeedsList
from tui.panes.pane import Pane
from tui.screens.listing import ListingScreen, late, never_read, read
from tui.snapshot import Section, explain
from tui.styled import STYLES
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult

    from engine.views import AttentionRow, TaskRow, WorkerRow
    from tui.ports import Engine
    from tui.widgets.cells import Line

_EVERY = 5
"""Ticks between two looks, though nothing was committed: a process may have died."""
_NEAR = 2
"""Rows before and behind the cursor whose tasks are read too: the next key may be there already."""
_TOLD = frozenset({"detail", "log", "worker"})
"""What is told of beside the actions that steer."""
_NOT_TOLD = frozenset({"reseed", "reset"})
"""What steers the whole fleet settles nothing here."""


class AttentionScreen(ListingScreen):
    """One list of what only a person can settle."""

    CSS_PATH: ClassVar = STYLES / "lists.tcss"

    def __init__(self, engine: Engine, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        self._ticks = 0
        self._due = True
        self._needs: Section[tuple[AttentionRow, ...]] = Section(())
        self._workers: Section[dict[str, WorkerRow]] = Section({})
        self._held: Section[tuple[str, ...]] = Section(())
        self._tasks: dict[str, TaskRow | None] = {}
        self._texts: dict[int, str] = {}
        self._trouble = ""
        self.rows = NeedsList(engine.clock.now)
        self.about = Document(id="need-about")
        self._panes = (
            Pane(1, "Needs you", self.rows, id="needs"),
            Pane(2, "Details", self.about, id="need"),
        )

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        yield self.head
        yield self.tabs
        with Container(id="attention", classes="box"):
            yield from self._panes
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once; the first look fills it."""
        self._caption()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The needs, and what can be done about the one under the cursor."""
        return self._panes

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Look again if the store changed or it is time; and read what is under the cursor."""
        fresh = changed or self._due or bool(self._needs.trouble)
        if fresh:
            self._due = False
            now = self._engine.clock.now
            self._needs = await read(self._needs, self._read_needs, now)
            self._workers = await read(self._workers, self._read_workers, now)
            self._held = await read(self._held, self._read_held, now)
        self._put()
        self._tasks = await self._read_tasks({} if fresh else self._tasks)
        self._texts = await self._read_texts()
        self.show()

    async def _read_needs(self) -> tuple[AttentionRow, ...]:
        return tuple(await self._engine.attention())

    async def _read_workers(self) -> dict[str, WorkerRow]:
        return {worker.id: worker for worker in await self._engine.queries.workers()}

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    def _put(self) -> None:
        needs, window = self._needs.value, self.rows.window
        places = (index for index, need in enumerate(needs) if need.key == window.cursor)
        cursor_at = next(places, None) if window.cursor is not None else None
        offset, limit = window.moved(cursor_at)
        offset = min(offset, max(0, len(needs) - limit))
        self.rows.trouble = never_read(self._needs)
        self.rows.put(
            needs[offset : offset + limit],
            offset=offset,
            total=len(needs),
            cursor_at=cursor_at,
            cursor=window.cursor,
        )

    async def _read_tasks(self, known: dict[str, TaskRow | None]) -> dict[str, TaskRow | None]:
        """Return the tasks that are known and those that the next keys may act on."""
        tasks, at = dict(known), self.rows.cursor
        self._trouble = ""
        for need in self._needs.value[max(0, at - _NEAR) : at + _NEAR + 1]:
            task_id = self._task_of(need)
            if task_id is None or task_id in tasks:
                continue
            try:
                tasks[task_id] = (await self._engine.queries.detail(task_id)).task
            except TaskNotFound:
                tasks[task_id] = None
            except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
                self._trouble = explain(error)
        return tasks

    async def _read_texts(self) -> dict[int, str]:
        """Return what the alerts near the cursor tell that does not fit into a line."""
        at = self.rows.cursor
        near = self._needs.value[max(0, at - _NEAR) : at + _NEAR + 1]
        numbers = [need.alert for need in near if need.alert is not None]
        texts = {}
        for number in numbers:
            if number in self._texts:
                texts[number] = self._texts[number]  # an alert does not change
                continue
            try:
                texts[number] = await self._engine.alert_text(number)
            except Exception as error:  # noqa: BLE001 - as above
                self._trouble = explain(error)
        return texts

    def _task_of(self, need: AttentionRow) -> str | None:
        """Return the task that a need is about: its own, or the one that its worker holds."""
        if need.task_id is not None or need.worker_id is None:
            return need.task_id
        worker = self._workers.value.get(need.worker_id)
        return worker.task_id if worker is not None else None

    def show(self) -> None:
        """Show what can be done about the row under the cursor."""
        with self.app.batch_update():
            self.chose()
            self.refresh_bars()

    def chose(self) -> None:
        """Tell the row under the cursor in full; its task is read if it is not known yet."""
        need = self.rows.current
        if need is not None:
            task_id = self._task_of(need)
            unread = task_id is not None and task_id not in self._tasks
            unread |= need.alert is not None and need.alert not in self._texts
            if unread and not self._trouble:
                self.post_message(self.Wanted())
        self.about.show(laid_out(self._about))
        self._caption()

    def _about(self, width: int) -> list[Line]:
        need = self.rows.current
        if need is None:
            return []
        text = self._texts.get(need.alert, "") if need.alert is not None else ""
        return need_about(need, list(self._keys(need)), self._engine.clock.now(), width, text)

    def _keys(self, need: AttentionRow) -> Iterator[tuple[str, str]]:
        """Tell the keys that act on the row under the cursor, as the footer would."""
        selection, keymap = self.selection(), self.fitted.keymap
        for action in ACTIONS:
            match action.name:
                case "add":
                    told = need.agent is not None
                case "hold":
                    told = need.held is not None and not selection.holds
                case name:
                    steers = action.group is Group.STEER and action.command is not None
                    told = name in _TOLD or (steers and name not in _NOT_TOLD)
            if told and action.refuse(selection) is None:
                yield keymap.shown(action), action.help_for(selection)

    def tick(self) -> None:
        """Let the ages grow, and look again now and then."""
        self._ticks += 1
        if self._ticks % _EVERY == 0 or self._needs.trouble:
            self._due = True
            self.want()
        with self.app.batch_update():
            self.rows.repaint(only_ageing=True)
            self.about.show(laid_out(self._about))

    def _caption(self) -> None:
        needs, about = self._panes
        count = self.rows.total
        trouble = late(self._needs)
        needs.caption(trouble, f"{count:,}" if self.rows.given else "")
        about.caption(self._trouble or late(self._workers), count="")
        words = plural(count, "thing") if count else ""
        self.show_head("Needs you", (words, Tone.HUMAN), trouble=trouble)

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the task and the worker that the row under the cursor is about."""
        need = self.rows.current
        task: TaskRow | None = None
        worker: WorkerRow | None = None
        opens: str | None = None
        if need is not None:
            opens = self._task_of(need)
            task = self._tasks.get(opens) if opens is not None else None
            worker_id = need.worker_id or (task.claimed_by if task is not None else None)
            worker = self._workers.value.get(worker_id) if worker_id is not None else None
        return Selection(
            Place.ATTENTION,
            worker,
            task,
            opens,
            self._held.value,
            self._watching,
            about=None if need is None else need.agent or need.held,
            alert=None if need is None else need.alert,
        )
