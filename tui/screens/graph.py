"""The DAG as a picture, live: layers from left to right, or a tree where there is little room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on

from engine.errors import TaskNotFound
from engine.filters import STATE, Filter, Term
from engine.model import State
from engine.text import age, clean_text, cut_middle, plural
from engine.views import CriticalPath
from tui.actions.model import Place, Selection
from tui.actions.table import BY_NAME
from tui.graph.drawing import Drawing
from tui.graph.finding import Sought, in_order, matches, next_match
from tui.graph.labels import symbol_of, words_of
from tui.graph.layout import Layout, Structure, laid_out
from tui.graph.tree import Tree
from tui.panes.findline import FindLine
from tui.panes.graph import GraphCanvas
from tui.panes.pane import Pane
from tui.screens.listing import ListingScreen
from tui.screens.paned import NARROW
from tui.snapshot import explain
from tui.styled import STYLES
from tui.widgets.cells import Cell, Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

    from engine.views import GraphNode, TaskRow, WorkerRow
    from tui.graph.boxes import Box
    from tui.graph.scene import Scene
    from tui.logs.search import Needle
    from tui.ports import Engine

LIMIT = 5000
"""Tasks that are drawn at most."""
_LARGE = 1000
"""Tasks from which on the graph is read at most every `_REST` seconds."""
_REST = 2.0
_STARTS = (State.RUNNING, State.CLAIMED)
_TASKS_KEPT = 256


class GraphScreen(ListingScreen):
    """The graph around a task, or around what runs."""

    CSS_PATH: ClassVar = [STYLES / "canvas.tcss", STYLES / "find.tcss"]

    def __init__(
        self, engine: Engine, task_id: str | None = None, *, watching: bool = False
    ) -> None:
        super().__init__(engine, watching=watching)
        self._around = task_id
        self._start = task_id
        self._tree: bool | None = None
        self._opened: frozenset[str] = frozenset()
        self._of_id: dict[str, GraphNode] = {}
        self._path = CriticalPath()
        self._total = 0
        self._held: tuple[str, ...] = ()
        self._structure: Structure | None = None
        self._layout = Layout()
        self._shown: tuple[object, ...] = ()
        self._stale = True
        self._read_at: float | None = None
        self._tasks: dict[str, TaskRow | None] = {}
        self._workers: dict[str, WorkerRow] = {}
        self._trouble = ""
        self._sought = Sought()
        self._matched: list[str] = []
        self._matched_in: tuple[object, ...] = (None, None, None)
        self._set_out: tuple[str | None, frozenset[str]] = (None, frozenset())
        self.canvas = GraphCanvas()
        self.find = FindLine(self._seek, self._close_find, id="find-line")
        self._panes = (Pane(1, "Graph", self.canvas, self.find, id="graph"),)

    def compose(self) -> ComposeResult:
        """Lay the pane out."""
        yield self.head
        yield self.tabs
        yield from self._panes
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once; the first look fills it."""
        self._caption()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The graph alone."""
        return self._panes

    @property
    def as_tree(self) -> bool:
        """Whether the tree is shown: below NARROW columns, unless somebody chose."""
        return self.size.width < NARROW if self._tree is None else self._tree

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read the graph again after a change; lay it out again only if its structure changed."""
        self._stale = self._stale or changed
        try:
            if self._stale and self._rested():
                await self._read()
            await self._lay_out()
            self._put()
            await self._read_tasks()
            self._trouble = ""
        except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
            self._trouble = explain(error)
        self.show()

    def _rested(self) -> bool:
        if self._read_at is None or len(self._of_id) < _LARGE:
            return True
        return self._engine.clock.monotonic() - self._read_at >= _REST

    async def _read(self) -> None:
        queries = self._engine.queries
        if self._start is None and self._structure is None:
            running = await queries.tasks(Filter((Term(STATE, "running"),)), limit=1)
            self._around = running[0].id if running else None
        nodes = await queries.graph(self._around, limit=LIMIT)
        progress = await queries.progress()
        path = await queries.critical_path()
        workers = await queries.workers()
        self._stale, self._read_at = False, self._engine.clock.monotonic()
        self._of_id = {node.id: node for node in nodes}
        self._total, self._held, self._path = progress.total, progress.held, path
        self._workers = {worker.id: worker for worker in workers}
        self._tasks.clear()

    async def _lay_out(self) -> None:
        if self._start is not None and self._structure is None:
            # The task that one came for is seen, whatever it would fold together with.
            self._opened = frozenset({self._start})
        shape = tuple((node.id, node.deps) for node in self._of_id.values())
        structure = Structure(shape, self._opened)
        if structure == self._structure:
            return
        nodes = tuple(self._of_id.values())
        self._layout = await asyncio.to_thread(laid_out, nodes, structure.opened)
        self._structure = structure
        self._shown = ()

    def _put(self) -> None:
        """Show the layout as it is now, with the states as they are now."""
        canvas = self.canvas
        if not canvas.size:
            return
        shown = (self._layout, self.as_tree, canvas.outer_size)
        if canvas.scene is None or shown != self._shown:
            self._shown = shown
            canvas.put(self._scene(), self._first())
            return
        canvas.scene.recolour(self._of_id)
        canvas.scene.mark(self._path.ids)
        canvas.repaint()

    def _scene(self) -> Scene:
        layout, states, path = self._layout, self._of_id, self._path.ids
        columns, lines = self.canvas.outer_size
        if self.as_tree:
            return Tree(layout.boxes, layout.plan.layer_of, states, path, columns=columns)
        return Drawing(
            layout.boxes, layout.plan, layout.channels, states, path, columns=columns, lines=lines
        )

    def _first(self) -> str | None:
        """Return the task to begin with: the one asked for, else what runs, else what is next."""
        if self._start in self._of_id:
            return self._start
        for state in _STARTS:
            found = next((n.id for n in self._of_id.values() if n.state is state), None)
            if found is not None:
                return found
        return next((task_id for task_id in self._path.ids if task_id in self._of_id), None)

    async def _read_tasks(self) -> None:
        """Read the tasks that the next keys may act on, as far as they are not known."""
        scene, box = self.canvas.scene, self.canvas.box
        if scene is None or box is None:
            return
        near = [box.key, *(scene.down(box.key, way) for way in (1, -1))]
        near += [way for step in (1, -1) if (way := scene.across(box.key, step, look=True))]
        if len(self._tasks) > _TASKS_KEPT:
            self._tasks.clear()
        for key in near:
            found = scene.boxes.find(key)
            if key in self._tasks or found is None or found.folded:
                continue
            try:
                self._tasks[key] = (await self._engine.queries.detail(key)).task
            except TaskNotFound:
                self._tasks[key] = None

    # -- showing ---------------------------------------------------------------------------

    def show(self) -> None:
        """Show what was read, all of it at once."""
        with self.app.batch_update():
            self.canvas.trouble = self._trouble if self._read_at is None else ""
            if self._trouble:
                self.canvas.repaint()
            self._caption()
            self.refresh_bars()

    def tick(self) -> None:
        """Read what changed while a large graph was left alone; try again what failed."""
        if self._stale or self._trouble:
            self._stale = True
            self.post_message(self.Wanted())

    def on_resize(self, event: events.Resize) -> None:
        """Show the tree or the graph, as there is room."""
        super().on_resize(event)
        self.post_message(self.Wanted())

    def _caption(self) -> None:
        late = self._trouble if self._read_at is not None else ""
        sought = self._sought.words(self._matches(), self.canvas.chosen)
        self._panes[0].caption(late or sought, self._foot())
        shown, total = len(self._of_id), self._total
        pieces: list[Cell] = []
        if self._read_at is not None:
            count = f"{shown:,} nearest of {total:,}" if shown < total else plural(total, "task")
            pieces.append((count, Tone.HUMAN if shown < total else Tone.TEXT))
            pieces.append((plural(len(self._layout.plan.layers), "layer"), Tone.DIM))
        if self._path.ids:
            seconds = self._path.seconds
            takes = "" if seconds is None else f" ~{age(max(1.0, seconds))}"
            takes = takes if seconds != 0 else " overdue"  # nothing is left of it but what runs
            words = f"━ critical path {plural(len(self._path.ids), 'task')}{takes}"
            pieces.append((words, Tone.TEXT))
        self.show_head("graph", *pieces)

    def _foot(self) -> str:
        box = self.canvas.box
        if box is None:
            return ""
        deps = plural(len(box.deps) + box.missing, "dep") if self._single(box.deps) else "its deps"
        parts = [self._words(box)]
        if box.missing:
            deps += f", {box.missing:,} not here"
        parts.append(deps)
        dependents = sum(len(self._layout.boxes.boxes[i].members) for i in box.dependents)
        parts.append(plural(dependents, "dependent"))
        if self._layout.boxes.fan(box.key):
            parts.append("space unfolds" if box.folded else "space folds")
        return " · ".join(parts)

    def _single(self, boxes: Sequence[int]) -> bool:
        return not any(self._layout.boxes.boxes[index].folded for index in boxes)

    def _words(self, box: Box) -> str:
        node = self._of_id.get(box.key)
        if box.folded or node is None:
            return f"{len(box.members):,} tasks with the same deps and dependents"
        room = max(12, self.size.width - 56)
        words = f"{cut_middle(clean_text(box.key), room)} {symbol_of(node)} {words_of(node)}"
        worker = self._worker(box.key)
        return words + (f" on {clean_text(worker.id)}" if worker is not None else "")

    def _worker(self, task_id: str) -> WorkerRow | None:
        task = self._tasks.get(task_id)
        if task is None or task.claimed_by is None:
            return None
        return self._workers.get(task.claimed_by)

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the task under the cursor; of a folded fan, all of its tasks."""
        box = self.canvas.box
        if box is None:
            return Selection(
                Place.GRAPH, held=self._held, watching=self._watching, tree=self.as_tree
            )
        if box.folded:
            return Selection(
                Place.GRAPH,
                held=self._held,
                watching=self._watching,
                marked=box.members,
                tree=self.as_tree,
            )
        task, worker = self._tasks.get(box.key), self._worker(box.key)
        return Selection(
            Place.GRAPH, worker, task, box.key, self._held, self._watching, tree=self.as_tree
        )

    @on(GraphCanvas.Moved)
    def cursor_moved(self, event: GraphCanvas.Moved) -> None:
        """Show what can be done with the box that is now under the cursor."""
        event.stop()
        box = self.canvas.box
        if box is not None and not box.folded and box.key not in self._tasks:
            self.post_message(self.Wanted())
        self._caption()
        self.refresh_bars()

    @on(GraphCanvas.Opened)
    async def box_opened(self, event: GraphCanvas.Opened) -> None:
        """Do what enter does; a fan unfolds."""
        event.stop()
        box = self.canvas.box
        if box is not None and box.folded:
            self._fold()
        else:
            await self.run_action("app.act('detail')")

    @on(GraphCanvas.Folded)
    def fan_folded(self, event: GraphCanvas.Folded) -> None:
        """Fold the fan under the cursor, or unfold it."""
        event.stop()
        self._fold()

    def _fold(self) -> None:
        box = self.canvas.box
        fan = self._layout.boxes.fan(box.key) if box is not None else ()
        if box is None or not fan:
            self.notify(
                "only tasks with the same deps and dependents fold, six or more", markup=False
            )
            return
        self._opened = self._opened | {fan[0]} if box.folded else self._opened.difference(fan)
        self.post_message(self.Wanted())

    # -- finding ---------------------------------------------------------------------------

    def _order(self) -> list[str]:
        scene = self.canvas.scene
        return in_order(self._of_id, scene, by_line=self.as_tree) if scene is not None else []

    def _matches(self) -> list[str]:
        """Return the tasks that match, as one comes through them; nothing without a needle."""
        needle, seen = self._sought.needle, (self._sought, self.canvas.scene, self._of_id)
        if needle is None:
            return []
        if any(one is not other for one, other in zip(seen, self._matched_in, strict=True)):
            found = matches(self._of_id.values(), needle)
            self._matched = [task_id for task_id in self._order() if task_id in found]
            self._matched_in = seen
        return self._matched

    @on(GraphCanvas.Find)
    def find_opened(self, event: GraphCanvas.Find) -> None:
        """Have somebody type what to find."""
        event.stop()
        self._set_out = self.canvas.chosen, self._opened
        self.find.open()

    def _seek(self, needle: Needle | None, text: str, trouble: str) -> None:
        """Go to the first match of what is typed so far, from where one was."""
        self._sought = Sought(needle, text, trouble)
        start, opened = self._set_out
        found = next_match(self._order(), self._matches(), start, 0)
        self._go(found or start, opened)

    @on(GraphCanvas.FindNext)
    def find_next(self, event: GraphCanvas.FindNext) -> None:
        """Go to the next match, or to the former one."""
        event.stop()
        if self._sought.needle is None:
            key = self.fitted.keymap.shown(BY_NAME["find"])
            self.notify(f"nothing to find yet: {key} asks for it", markup=False)
            return
        found = next_match(self._order(), self._matches(), self.canvas.chosen, event.step)
        self._go(found, self._opened)

    def _go(self, task_id: str | None, opened: frozenset[str]) -> None:
        """Put the cursor on a task, `opened` being the fans that are; its own is unfolded."""
        box = self._layout.boxes.find(task_id) if task_id is not None else None
        if task_id is None or box is None:
            return
        if task_id not in opened and self._layout.boxes.fan(task_id):
            opened |= {task_id}
        if opened != self._opened:
            self._opened = opened
            self.post_message(self.Wanted())
        self.canvas.choose(task_id)

    def _close_find(self) -> None:
        self.find.display = False
        self.set_focus(self.canvas)
        self._caption()

    def action_back(self) -> None:
        """Give up what is typed, or what was found; else go back."""
        if self.find.editing:
            self._sought = Sought()
            self._go(*self._set_out)
            self._close_find()
        elif self._sought.needle is not None:
            self._sought = Sought()
            self._caption()
        else:
            super().action_back()

    @on(GraphCanvas.Turned)
    def turned(self, event: GraphCanvas.Turned) -> None:
        """Show a tree instead of the graph, or the graph instead of the tree."""
        event.stop()
        self._tree = not self.as_tree
        self.post_message(self.Wanted())
