"""The palette: every action, every task and worker by name, themes and switches, by typing.

It is Textual's own, with one source for all of it. Imported when it is first opened: no
dashboard that nobody opens it in pays for it. What comes from outside is shown as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from msgspec import Struct
from textual.binding import Binding
from textual.command import CommandList, CommandPalette, DiscoveryHit, Hit, Provider
from textual.content import Content

from engine import narrate
from engine.errors import AgentmuxError
from engine.filters import parse_filter
from engine.model import LIVE_WORKERS
from engine.text import clean_text, cut_middle
from tui import look
from tui.actions.table import ACTIONS
from tui.preferences import Switch
from tui.screens.once import Once
from tui.screens.paned import PanedScreen
from tui.widgets.cells import cut_end, fitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from textual.binding import BindingType
    from textual.command import Hits
    from textual.style import Style
    from textual.theme import Theme

    from tui.actions.model import Action, Selection
    from tui.keymap import Keymap
    from tui.ports import Engine

_STYLES = Path(__file__).resolve().parents[1] / "styles"
MOST = 20
"""Tasks, and workers, that are shown at most; who types more sees others."""
_LONGEST = 60
_KEY = 9
"""Cells for the key, or for what kind of thing it is."""
_FOUND = 1.0
_BY_MEANING = 0.1

_SWITCHES = {
    Switch.BELL: ("bell", "Ring the terminal's bell when something needs you"),
    Switch.TITLE: ("title", "Show in the terminal's title what needs you"),
    Switch.TOASTS: ("toasts", "Tell in the corner what just finished or failed"),
}


class _Entry(Struct, frozen=True):
    """One thing at hand. `alias` is another name of it, `reason` why it cannot be done now."""

    name: str
    words: str
    chosen: Callable[[], object]
    key: str = ""
    alias: str = ""
    reason: str | None = None

    def shown(self, offsets: Sequence[int] = (), style: Style | str = "") -> Content:
        """Return the line that names it, what was matched in it told apart by `style`."""
        content = Content(self.name)
        for offset in offsets:
            content = content.stylize(style, offset, offset + 1)
        line = Content(fitted(self.key, _KEY, right=True) + "  ") + content
        return line if self.reason is None else line.stylize("$waiting")

    def told(self, room: int) -> str:
        """Return the line that says what it does, or why it cannot be done now."""
        return _told(self.words if self.reason is None else f"not now: {self.reason}", room)


class Host(Protocol):
    """What the palette asks of the app."""

    keymap: Keymap
    theme: str

    @property
    def engine(self) -> Engine:
        """The engine."""

    @property
    def available_themes(self) -> dict[str, Theme]:
        """All themes by name."""

    async def action_act(self, name: str) -> None:
        """Do an action of the table, or say why not."""

    def say(self, text: str, *, severity: str = ...) -> None:
        """Show a message."""

    def choose_theme(self, name: str) -> None:
        """Show another theme, and remember it."""

    def has_on(self, switch: Switch) -> bool:
        """Say whether something is switched on."""

    def turn(self, switch: Switch) -> bool:
        """Turn a switch over."""


class Palette(Once[None], CommandPalette):
    """The palette over the screen that is shown. Push it as any screen."""

    CSS_PATH = _STYLES / "palette.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pagedown", "page('down')", show=False),
        Binding("pageup", "page('up')", show=False),
        Binding("escape", "escape", show=False, id="back"),
    ]

    def __init__(self) -> None:
        super().__init__(
            [Everything],
            placeholder="an action, a task, a worker, a theme …",
            id="--command-palette",
        )

    def hints(self) -> list[tuple[str, str]]:
        """Return its keys, for the footer below it."""
        keymap = cast("Host", self.app).keymap
        back = next(iter(keymap.leaving().values()))
        return [("↓ ↑", "move"), ("enter", "do it"), (back, "leave")]

    async def action_page(self, direction: str) -> None:
        """Go a screenful `up` or `down`, where the terminal has room for one line at least.

        Where it has none, Textual has laid nothing out, and raises.
        """
        found = self.query_one(CommandList)
        if found.scrollable_content_region.area:
            await found.run_action(f"page_{direction}")


class Everything(Provider):
    """All that can be chosen: what is at hand first, then what the store has to be asked for.

    Of all of it one thing is done, once: enter pressed twice is one choice.
    """

    _chosen = False

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    @property
    def _room(self) -> int:
        # The palette is as wide as its stylesheet says, less borders, padding and scrollbar.
        return min(84, self.app.size.width * 96 // 100) - 6

    async def discover(self) -> Hits:
        """Offer every action, then the switches and the themes."""
        for entry in self._at_hand():
            yield DiscoveryHit(
                entry.shown(),
                self._once(entry.chosen),
                text=entry.name,
                help=entry.told(self._room),
            )

    async def search(self, query: str) -> Hits:
        """Offer what fits what was typed: actions by name or meaning, tasks by filter words."""
        matcher = self.matcher(query)
        for entry in self._at_hand():
            score, offsets = matcher.fuzzy_search.match(query, entry.name)
            other = matcher.match(entry.alias)
            if score or other:
                score = _FOUND + max(score, other)  # what is at hand stands above what was found
            elif query.casefold() in entry.words.casefold():
                score = _BY_MEANING
            if score:
                yield Hit(
                    score,
                    entry.shown(offsets, matcher.match_style),
                    self._once(entry.chosen),
                    text=entry.name,
                    help=entry.told(self._room),
                )
        async for hit in self._found(query):
            yield hit

    def _once(self, chosen: Callable[[], object]) -> Callable[[], object]:
        def choose() -> object:
            if self._chosen:
                return None
            self._chosen = True
            return chosen()

        return choose

    # -- at hand ---------------------------------------------------------------------------

    def _at_hand(self) -> Iterator[_Entry]:
        screen = self.screen
        selection = screen.selection() if isinstance(screen, PanedScreen) else None
        for action in ACTIONS:
            reason = refusal(action, selection)
            yield _Entry(
                _named(action, selection),
                action.full_help if selection is None else action.help_for(selection),
                self._doing(action, reason),
                key=self._host.keymap.shown(action),
                alias=action.name.replace("_", " "),
                reason=reason,
            )
        for switch, (name, words) in _SWITCHES.items():
            turn = "off" if self._host.has_on(switch) else "on"
            yield _Entry(f"{name}: turn {turn}", words, self._turning(switch))
        for name in sorted(self._host.available_themes):
            now = "the theme now" if name == self._host.theme else "Show everything in this theme"
            yield _Entry(f"theme: {name}", now, self._dressing(name))

    def _doing(self, action: Action, reason: str | None) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            if reason is not None:
                self._host.say(reason, severity="warning")
            elif action.local and self.focused is not None:
                await self.focused.run_action(action.local)
            else:
                await self._host.action_act(action.name)

        return do

    def _turning(self, switch: Switch) -> Callable[[], None]:
        def turn() -> None:
            on = self._host.turn(switch)
            self._host.say(f"{switch}: {'on' if on else 'off'}")

        return turn

    def _dressing(self, name: str) -> Callable[[], None]:
        return lambda: self._host.choose_theme(name)

    # -- asked for -------------------------------------------------------------------------

    async def _found(self, query: str) -> Hits:
        queries = self._host.engine.queries
        try:
            where = parse_filter(query)
            tasks = await queries.tasks(where, limit=MOST)
            workers = await queries.workers()
        except AgentmuxError:
            return  # half a word of the filter language, or a store that cannot be read now
        now = self._host.engine.clock.now()
        for rank, task in enumerate(tasks):
            symbol = look.task_symbol(task, now)
            called = "" if task.name == task.id else f" · {clean_text(task.name)}"
            words = f"{look.state_words(task, now)}{called}"
            go = self._once(self._going("detail", task_id=task.id))
            yield _find(_FOUND - rank / 1000, f"{symbol} task", task.id, words, go, self._room)
        wanted = query.casefold()
        live = [w for w in workers if w.status in LIVE_WORKERS and wanted in w.id.casefold()]
        for rank, worker in enumerate(live[:MOST]):
            symbol = narrate.RUNNING if worker.task_id else look.IDLE
            words = f"works on {clean_text(worker.task_id)}" if worker.task_id else "idle"
            go = self._once(self._going("worker", worker_id=worker.id))
            yield _find(
                _FOUND - 0.5 - rank / 1000, f"{symbol} worker", worker.id, words, go, self._room
            )

    def _going(self, name: str, **to: Any) -> Callable[[], object]:
        screen = self.screen
        return lambda: screen.post_message(PanedScreen.Go(name, **to))


def _named(action: Action, selection: Selection | None) -> str:
    label = action.label if selection is None else action.label_for(selection)
    return label or action.name.replace("_", " ")


def refusal(action: Action, selection: Selection | None) -> str | None:
    """Return why an action cannot be done for what is selected, None if it can."""
    if selection is None:
        return "close this first"
    if action.local and action.places and selection.place not in action.places:
        return f"only on a screen with a {' or a '.join(sorted(action.places))}"
    return action.refuse(selection)


def _find(
    score: float, kind: str, name: str, words: str, go: Callable[[], object], room: int
) -> Hit:
    name = cut_middle(clean_text(name), _LONGEST)
    return Hit(
        score,
        Content(fitted(kind, _KEY, right=True) + "  " + name),
        go,
        text=name,
        help=_told(words, room),
    )


def _told(words: str, room: int) -> str:
    indent = _KEY + 2
    # Textual reads the help of a hit as markup, unless it is content already.
    return cast("str", Content(" " * indent + cut_end(words, room - indent)))
