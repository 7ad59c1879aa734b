"""What a box of the graph says: symbol and id of a task, or how many a fan has of each state."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from engine import narrate
from engine.model import State
from engine.text import cells, clean_text, cut_middle
from tui import look, strokes
from tui.widgets.cells import Line, Tone, cut_end, line_width

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.views import GraphNode
    from tui.graph.boxes import Box

_ORDER = (
    narrate.HUMAN, narrate.FAILED, narrate.RUNNING, narrate.CLAIMED, narrate.UPSTREAM,
    narrate.READY, narrate.WAITING, narrate.DONE, narrate.REMOVED, narrate.CANCELLED,
)  # fmt: skip
_RANK = {symbol: rank for rank, symbol in enumerate(_ORDER)}


def symbol_of(node: GraphNode) -> str:
    """Return the symbol of a task's state."""
    return narrate.symbol(node.state, node.reasons, node.pending)


def words_of(node: GraphNode) -> str:
    """Return a task's state as people say it."""
    return "waiting" if node.state is State.READY and node.pending else node.state.lower()


def tally(nodes: Iterable[GraphNode]) -> tuple[tuple[str, int], ...]:
    """Count symbols: first what needs somebody, then what goes on, waits, is over."""
    counts = Counter(map(symbol_of, nodes))
    return tuple(sorted(counts.items(), key=lambda item: _RANK.get(item[0], len(_RANK))))


def label(box: Box, nodes: Mapping[str, GraphNode], width: int) -> Line:
    """Tell a box in at most `width` cells."""
    if not box.folded:
        symbol = symbol_of(nodes[box.key])
        tone = look.tone_of(symbol)
        return (f"{symbol} ", tone), (cut_middle(clean_text(box.key), max(1, width - 2)), tone)
    line: list[tuple[str, Tone]] = [
        (f"{strokes.FOLDED} ", Tone.TEXT),
        (f"{len(box.members):,} tasks", Tone.TEXT),
    ]
    room = width - line_width(line)
    for symbol, count in tally(nodes[member] for member in box.members):
        text = f" {symbol} {count:,}"
        if len(text) > room:
            if room > 1:
                line.append((cut_end(" …", room), Tone.DIM))
            break
        room -= len(text)
        line.append((text, look.tone_of(symbol)))
    return tuple(line)


def natural_width(box: Box) -> int:
    """Return how many cells a box wants, whatever the states of its tasks are."""
    if not box.folded:
        return 2 + cells(clean_text(box.key))
    digits = len(f"{len(box.members):,}")
    return 2 + digits + len(" tasks") + 4 * (3 + digits)
