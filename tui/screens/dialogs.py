"""Questions, and the help. All made of lines, all left with esc."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.text import plural
from tui import look
from tui.actions import ACTIONS, Action, Group, bindings, shown
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Cell, Line, Tone, fitted, line_width, wrapped
from tui.widgets.document import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult


class Choice(StrEnum):
    """What a question was answered with."""

    YES = "yes"
    WAIT = "wait"
    NO = "no"


class Question(ModalScreen[Choice]):
    """A title, a few sentences, and one key for each answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter,ctrl+c", "answer('yes')", "Yes", show=False),
        Binding("w", "answer('wait')", "Wait", show=False),
        Binding("n,escape", "answer('no')", "No", show=False),
    ]

    def __init__(
        self, title: str, sentences: Sequence[str], answers: Sequence[tuple[str, Choice, str]]
    ) -> None:
        super().__init__()
        self._title = title
        self._sentences = sentences
        self._answers = answers
        self._bar = Bar(gap=3, id="answers")

    def compose(self) -> ComposeResult:
        """Lay the question out."""
        with Vertical(id="question", classes="dialog") as box:
            box.border_title = Content(self._title)
            for sentence in self._sentences:
                yield Static(Content(sentence))
            yield self._bar

    def on_mount(self) -> None:
        """Show the answers."""
        self._bar.put(
            [
                Piece(((key, Tone.BOLD), (f" {words}", Tone.TEXT)), choice)
                for key, choice, words in self._answers
            ]
        )

    def action_answer(self, answer: str) -> None:
        """Answer, if this question has that answer."""
        choice = Choice(answer)
        if any(choice is offered for _, offered, _ in self._answers):
            self.dismiss(choice)

    @on(Bar.Pressed)
    def pressed(self, event: Bar.Pressed) -> None:
        """Answer with the mouse."""
        event.stop()
        self.action_answer(event.name)


def quit_question(runs: int) -> Question:
    """Ask what becomes of the runs of this process."""
    return Question(
        "Quit",
        (
            f"{plural(runs, 'run')} of this dashboard {'is' if runs == 1 else 'are'} alive.",
            "Stopping releases their tasks: ready again, and no retry is used.",
        ),
        (
            ("y ⏎", Choice.YES, "stop and release"),
            ("w", Choice.WAIT, "wait for them"),
            ("esc", Choice.NO, "stay"),
        ),
    )


def hurry_question(runs: int) -> Question:
    """Ask again while the dashboard already waits for its runs."""
    return Question(
        "Quit",
        (f"Waiting for {plural(runs, 'run')} to end; nothing new starts here.",),
        (("y ⏎", Choice.YES, "stop and release now"), ("esc", Choice.NO, "keep waiting")),
    )


def demo_question() -> Question:
    """Offer the demo to somebody who has nothing to look at yet."""
    return Question(
        "agentmux",
        (
            "There is no DAG here (agentmux/dag.yaml) and no state folder.",
            (
                "Watch the bundled demo? It works for about a minute in a temporary folder, "
                "which is removed when you quit. Nothing here is touched."
            ),
        ),
        (("y ⏎", Choice.YES, "start the demo"), ("esc", Choice.NO, "quit")),
    )


class HelpScreen(ModalScreen[None]):
    """Every action and every symbol, generated from the tables that make them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,?,enter", "leave", "Close", show=False),
        *bindings(["quit"]),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.text = Document(id="help-text")

    def compose(self) -> ComposeResult:
        """Lay the help out."""
        with Vertical(id="help", classes="dialog") as box:
            box.border_title = Content("Help")
            box.border_subtitle = Content("esc closes")
            yield self.text

    def on_mount(self) -> None:
        """Show the text."""
        self.text.show(help_lines)
        self.call_after_refresh(self._fit)

    def on_resize(self) -> None:
        """Be as high as the text, if there is room."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        self.text.styles.height = min(len(self.text.lines), self.size.height - 6)

    def action_leave(self) -> None:
        """Close the help."""
        self.dismiss()


_KEYS = 12


def help_lines(width: int) -> list[Line]:
    """Return the help for `width` cells: two columns of it if there is room."""
    half = (width - 4) // 2 if width >= 96 else width
    groups = [_group(group, half) for group in Group]
    if half == width:
        return [line for block in [*groups, _legend(half)] for line in [*block, ()]][:-1]
    steer, looking, moving, program = groups
    left = [*steer, (), *looking, (), *program]
    right = [*moving, (), *_legend(half)]
    return _beside(left, right, half)


def _beside(left: list[Line], right: list[Line], half: int) -> list[Line]:
    height = max(len(left), len(right))
    left = left + [()] * (height - len(left))
    right = right + [()] * (height - len(right))
    lines: list[Line] = []
    for first, second in zip(left, right, strict=True):
        room: Cell = (" " * (half - line_width(first) + 4), Tone.TEXT)
        lines.append((*first, room, *second))
    return lines


def _group(group: Group, width: int) -> list[Line]:
    lines: list[Line] = [((f"{group}", Tone.BOLD),)]
    for action in ACTIONS:
        if action.group is group:
            lines += _entry(action, width)
    return lines


def _entry(action: Action, width: int) -> list[Line]:
    keys = " ".join(shown(key) for key in action.keys[:2])
    first, *rest = wrapped(action.help, max(10, width - _KEYS))
    head: Line = ((fitted(keys, _KEYS - 2, right=True) + "  ", Tone.BOLD), (first, Tone.TEXT))
    return [head, *(((" " * _KEYS + text, Tone.TEXT),) for text in rest)]


def _legend(width: int) -> list[Line]:
    lines: list[Line] = [(("Symbols", Tone.BOLD),)]
    a_row = 2 if width >= 52 else 1
    column = width // a_row
    row: list[Cell] = []
    for symbol, words in look.LEGEND:
        tone = look.tone_of(symbol)
        row += [(f"  {symbol} ", tone), (fitted(words, column - 4), Tone.TEXT)]
        if len(row) == 2 * a_row:
            lines.append(tuple(row))
            row = []
    return [*lines, tuple(row)] if row else lines
