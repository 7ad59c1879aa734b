"""The output of a run: the newest of a task or any earlier one, while it goes on or long after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.actions.model import Place, Selection
from tui.logs import words
from tui.logs.viewport import Viewport
from tui.screens.reading import ReadingScreen
from tui.snapshot import explain
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from pathlib import Path

    from engine.growing import Standing
    from engine.views import RunRow
    from tui.logs.viewport import Frame
    from tui.ports import Engine
    from tui.widgets.bars import Piece

_RUNS = 1000


class LogScreen(ReadingScreen):
    """The log of one run. Without a `run_id`, that of the task's newest run.

    What is a text of a run, too, but another one, is a kind of it.
    """

    PLACE = Place.LOG

    def __init__(
        self, engine: Engine, task_id: str, run_id: str | None = None, *, watching: bool = False
    ) -> None:
        self._stream = "stdout"
        path = self._file_in(engine.layout.run_folder(task_id, run_id or "-"))
        super().__init__(engine, path, watching=watching)
        self._task_id = task_id
        self._run_id = run_id
        self._runs: tuple[RunRow, ...] = ()

    def _file_in(self, folder: Path) -> Path:
        """Return the file that is shown, of those in the folder of a run."""
        return folder / f"{self._stream}.log"

    @property
    def run(self) -> RunRow | None:
        """The run whose log is shown, None if there is none or it is not read yet."""
        return next((run for run in self._runs if run.id == self._run_id), None)

    @property
    def stream(self) -> str:
        """Which of the two files is shown."""
        return self._stream

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read which runs there are."""
        if not changed and self._read and not self._trouble:
            return
        queries = self._engine.queries
        try:
            runs = await queries.runs(self._task_id, limit=_RUNS)
            if self._run_id is not None and self._run_id not in {run.id for run in runs}:
                run = await queries.run(self._run_id)
                runs = [*runs, run] if run is not None else runs
            held = (await queries.progress()).held
        except Exception as error:  # noqa: BLE001 - whatever it is, the screen says so and lives on
            self._trouble = explain(error)
        else:
            self._trouble, self._read = "", True
            was_live = self._live
            self._runs, self._held = tuple(runs), held
            if self._run_id is None and runs:
                self._go_to_run(runs[0].id)
            elif was_live and not self._live:
                self.text.ask(Viewport.refresh)
        self.show()
        self.refresh_bars()

    @property
    def _live(self) -> bool:
        run = self.run
        return run is not None and run.outcome is None

    def _head_pieces(self, frame: Frame) -> list[Piece]:
        what = ((self._stream, Tone.TEXT),)
        return words.head_pieces(self._task_id, self._runs, self.run, what, frame, self.size.width)

    def _nothing_yet(self, standing: Standing) -> str:
        if self.run is None:
            return words.why_no_run(self._task_id, self._run_id, self.TITLED.lower())
        return self._why_empty(self.run, standing)

    def _why_empty(self, run: RunRow, standing: Standing) -> str:
        return words.why_empty(run, self._stream, standing)

    # -- other files -----------------------------------------------------------------------

    def _go_to_run(self, run_id: str) -> None:
        self._run_id = run_id
        self._open_file()
        self.refresh_bars()

    def _open_file(self) -> None:
        folder = self._engine.layout.run_folder(self._task_id, self._run_id or "-")
        self.open(self._file_in(folder))

    def do(self, what: str) -> None:
        """Show another file of this run, or the same of another run."""
        match what:
            case "stream":
                self._stream = "stdout" if self._stream == "stderr" else "stderr"
                self._open_file()
            case "former run":
                self._other_run(-1)
            case "later run":
                self._other_run(1)

    def _other_run(self, step: int) -> None:
        ids = [run.id for run in self._runs]
        at = ids.index(self._run_id) - step if self._run_id in ids else -1
        if 0 <= at < len(ids):
            self._go_to_run(ids[at])
        else:
            self._say(f"there is no run {'after' if step > 0 else 'before'} this one", "warning")

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the run, and whether there are others before and after it."""
        ids = [run.id for run in self._runs]
        at = ids.index(self._run_id) if self._run_id in ids else None
        return Selection(
            self.PLACE,
            opens=self._task_id,
            held=self._held,
            watching=self._watching,
            run=self.run,
            earlier=at is not None and at + 1 < len(ids),
            later=bool(at),
        )
