"""Questions: a title, a text, and one key for each answer. What leaves a screen leaves them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from textual import events, on
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from engine.text import plural
from tui.screens.once import Once
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Line, Tone, wrapped
from tui.widgets.document import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from tui.fitted import FittedApp
    from tui.widgets.document import Layout

YES, NO, WAIT, KILL = "yes", "no", "wait", "kill"


class Answer(Struct, frozen=True):
    """One way to answer: its keys as Textual names them, how they are shown, what it means.

    With `leaves` it is also what the keys mean that leave a screen.
    """

    choice: str
    keys: tuple[str, ...]
    shown: str
    words: str
    leaves: bool = False


def yes(words: str = "yes", *more: str) -> Answer:
    """Return the answer that goes ahead; `more` are further keys for it."""
    return Answer(YES, ("y", "enter", *more), "y enter", words)


def no(words: str = "no") -> Answer:
    """Return the answer that changes nothing."""
    return Answer(NO, ("n", "ctrl+c"), "n", words, leaves=True)


class Question(Once[str], ModalScreen[str]):
    """Asks, and is dismissed with the choice of the answer."""

    def __init__(self, title: str, text: Layout, answers: Sequence[Answer]) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._answers = answers
        self._choices: dict[str, str] = {}
        self.text = Document(id="question-text")
        self._bar = Bar(gap=3, id="answers")

    def compose(self) -> ComposeResult:
        """Lay the question out."""
        with Vertical(id="question", classes="dialog") as box:
            box.border_title = Content(self._title)
            yield self.text
            yield self._bar

    @on(Document.Seen)
    def seen(self, event: Document.Seen) -> None:
        """Say that there is more text than one sees."""
        event.stop()
        self.query_one("#question").border_subtitle = Content(more_text(self.text))

    def on_mount(self) -> None:
        """Show the text and the answers."""
        self.text.show(self._text)
        pieces = []
        for answer in self._answers:
            keys = (*answer.keys, *(self._leaving if answer.leaves else ()))
            self._choices |= dict.fromkeys(keys, answer.choice)
            words = ((self._shown(answer), Tone.BOLD), (f" {answer.words}", Tone.TEXT))
            pieces.append(Piece(words, answer.choice))
        self._bar.put(pieces)
        self.call_after_refresh(self._fit)

    def on_resize(self) -> None:
        """Be as high as the text, if there is room."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        self.text.styles.height = max(1, min(len(self.text.lines), self.size.height - 8))

    def hints(self) -> list[tuple[str, str]]:
        """Return the keys of the answers."""
        return [(self._shown(answer), answer.words) for answer in self._answers]

    @property
    def _leaving(self) -> dict[str, str]:
        taken = [key for answer in self._answers for key in answer.keys]
        return cast("FittedApp[Any]", self.app).keymap.leaving(taken)

    def _shown(self, answer: Answer) -> str:
        back = next(iter(self._leaving.values())) if answer.leaves else ""
        return f"{answer.shown} {back}".strip()

    def retell(self, text: Layout) -> None:
        """Show another text from now on."""
        self._text = text
        self.text.show(text)
        self._fit()

    def on_key(self, event: events.Key) -> None:
        """Answer with the keyboard."""
        choice = self._choices.get(event.key)
        if choice is not None:
            event.stop()
            event.prevent_default()
            self.answer(choice)

    @on(Bar.Pressed)
    def pressed(self, event: Bar.Pressed) -> None:
        """Answer with the mouse."""
        event.stop()
        self.answer(event.name)

    def answer(self, choice: str) -> None:
        """Be done with it."""
        self.dismiss(choice)


def more_text(text: Document) -> str:
    """Say how much more of a text there is than one sees, and how to come there."""
    above, below = text.hidden
    parts = [f"↑ {above:,}"] if above else []
    parts += [f"↓ {below:,}"] if below else []
    return f"{' '.join(parts)} more {'line' if above + below == 1 else 'lines'}" if parts else ""


def sentences(*texts: str) -> Layout:
    """Lay sentences out, wrapped, one below the other."""

    def layout(width: int) -> list[Line]:
        return [((part, Tone.TEXT),) for text in texts for part in wrapped(text, width)]

    return layout


def quit_question(runs: int, services: int = 0) -> Question:
    """Ask what becomes of the runs of this process; say that its services end with it."""
    end = "ends" if services == 1 else "end"
    kept = f"{plural(services, 'service')} of this process {end}"
    if not runs:
        return Question(
            "Quit",
            sentences(f"{kept}, too; `agentmux up` keeps services without a dashboard."),
            (yes("quit", "ctrl+c"), Answer(NO, ("n",), "", "stay", leaves=True)),
        )
    return Question(
        "Quit",
        sentences(
            f"{plural(runs, 'run')} of this dashboard {'is' if runs == 1 else 'are'} alive.",
            "",
            "Stopping releases their tasks: ready again, and no retry is used.",
            "Waiting lets them end; nothing new starts here meanwhile.",
            "Killing ends them at once: their tasks are FAILED.",
            *(["", f"{kept} after them."] if services else []),
        ),
        (
            yes("stop and release", "ctrl+c"),
            Answer(WAIT, ("w",), "w", "wait for them"),
            Answer(KILL, ("K",), "K", "kill"),
            Answer(NO, ("n",), "", "stay", leaves=True),
        ),
    )


def hurry_question(runs: int) -> Question:
    """Ask again while the dashboard already waits for its runs."""
    return Question(
        "Quit",
        sentences(f"Waiting for {plural(runs, 'run')} to end; nothing new starts here."),
        (
            yes("stop and release now", "ctrl+c"),
            Answer(KILL, ("K",), "K", "kill"),
            Answer(NO, ("n",), "", "keep waiting", leaves=True),
        ),
    )


def demo_question() -> Question:
    """Offer the demo to somebody who has nothing to look at yet."""
    return Question(
        "agentmux",
        sentences(
            "There is no DAG here (agentmux/dag.yaml) and no state folder.",
            "Watch the bundled demo? It works for about a minute in a temporary folder, "
            "which is removed when you quit. Nothing here is touched.",
        ),
        (yes("start the demo"), Answer(NO, ("n", "ctrl+c"), "", "quit", leaves=True)),
    )
