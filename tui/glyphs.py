"""The screen in ASCII, for terminals and fonts that have nothing else.

One translation at the very end, where Textual hands over what it painted: lists, borders,
scrollbars and dialogs need not know of it. Every character becomes one of the same width, so
that columns stay where they are; what ours mean stays apart; what is foreign becomes `?`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color

SYMBOLS = {
    "●": "*",  # running
    "◐": "%",  # claimed
    "◌": "o",  # ready
    "◦": ".",  # waiting
    "✓": "+",  # done
    "✗": "x",  # failed
    "▲": "!",  # needs a person
    "⊘": "#",  # blocked by a dep
    "▽": "v",  # left the DAG
    "–": "-",  # noqa: RUF001 - an en dash: cancelled, or no value
    "·": ":",  # a note
    "○": "O",  # an idle worker
    "◑": "~",  # a stopping worker
    "△": "^",  # a stale worker
    "◆": "@",  # a marked row
    "◇": "&",  # an external agent
}
"""What each symbol of ours becomes; no two become the same."""

_OTHERS = {
    "…": "~",
    "—": "-",
    "▌": ">",  # the cursor
    "▶": ">",
    "▸": ">",
    "▾": "v",
    "▼": "v",
    "◀": "<",
    "→": ">",
    "←": "<",
    "↑": "^",
    "↓": "v",
    "⏎": "<",  # enter
    "×": "x",  # noqa: RUF001 - a multiplication sign
    "♥": "*",
    "━": "=",
    "─": "-",
    "▰": "#",
    "▱": "-",
    "█": "#",
    "▀": '"',
    "■": "#",
    "□": "-",
    "•": "*",
    "“": '"',
    "”": '"',
    "‘": "'",  # noqa: RUF001 - a quotation mark
    "’": "'",  # noqa: RUF001 - likewise
    "≥": ">",
    "≤": "<",
}
_BARS = dict(zip("▁▂▃▄▅▆▇", "_.,:-=#", strict=True))
_UPRIGHT = "│┃║╎╏┆┇┊┋▏▎▍▋▊▉▐▕╵╷╹╻╽╿"
_LEVEL = "═╌╍┄┅┈┉╴╶╸╺╼╾▔🬂🬋🬎🬭🬹"
_CORNERS = (
    "".join(map(chr, range(0x250C, 0x254C))) + "╭╮╯╰" + "".join(map(chr, range(0x2552, 0x256D)))
)

_TABLE = str.maketrans(
    dict.fromkeys(_CORNERS, "+")
    | dict.fromkeys(_UPRIGHT, "|")
    | dict.fromkeys(_LEVEL, "-")
    | _BARS
    | _OTHERS
    | SYMBOLS
)

_UNDRAWN = frozenset({"linux", "vt100", "vt102", "vt220"})
"""Terminals whose fonts lack most of our symbols, whatever the locale says."""


def wants_ascii(setting: bool | None, encoding: str, terminal: str) -> bool:
    """Say whether to draw in ASCII alone.

    `setting` is the operator's word, None for none; `encoding` that of the locale, `terminal`
    the value of TERM.
    """
    if setting is not None:
        return setting
    return encoding.lower().replace("-", "").replace("_", "") != "utf8" or terminal in _UNDRAWN


@lru_cache(maxsize=4096)
def to_ascii(text: str) -> str:
    """Return `text` in ASCII, as many cells wide."""
    if text.isascii():
        return text
    text = text.translate(_TABLE)
    return text if text.isascii() else "".join(map(_plain, text))


def _plain(char: str) -> str:
    return char if char.isascii() else "?" * cell_len(char)


class AsciiFilter(LineFilter):
    """Paints every line in ASCII. An app has it among its filters, or does not pay for it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's signature
        """Return the segments of a line in ASCII, with their styles."""
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
