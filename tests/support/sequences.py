"""What a program wrote to a terminal, taken apart strictly: text, and all that is not text.

Textual writes few kinds of sequences; whatever else is in the stream came from outside.
"""

from __future__ import annotations

import re
from collections import Counter

_TOKEN = re.compile(
    r"(?P<csi>\x1b\[(?P<mark>[<=>?]?)(?P<numbers>[0-9;:]*)(?P<middle>[ -/]*)(?P<final>[@-~]))"
    r"|(?P<osc>\x1b\](?P<words>[^\x00-\x1f\x7f-\x9f]*)(?:\x07|\x1b\\))"
    r"|(?P<other>\x1b[\s\S]?|[\x00-\x1f\x7f-\x9f])"
    # What turns text around, or is not to be seen in it.
    r"|(?P<unseen>[\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f])"
)
MODES = {
    "?1049", "?25", "?7",  # the other screen, the cursor, wrapped lines
    "?1000", "?1003", "?1006", "?1015",  # the mouse
    "?1004", "?2004", "?2026", "?2048",  # focus, pasting, painting at once, sizes
}  # fmt: skip
_QUERIES = {"\x1b[?2026$p", "\x1b[?2048$p"}
_KEYBOARD = {"\x1b[>25u", "\x1b[<u"}
_TITLES = {"\x1b[22;0t", "\x1b[23;0t"}
_POINTER = re.compile(r"22;[a-z-]+")


class Written:
    """What a program wrote. Bytes that are no UTF-8 are an error: C1 controls would be such."""

    def __init__(self, data: bytes) -> None:
        self._text = data.decode("utf-8", errors="strict")
        self.titles: list[str] = []
        """What it set the title to."""
        self.copied: list[str] = []
        """What it put on the clipboard, as OSC 52 has it."""
        self.foreign: Counter[str] = Counter()
        """All that neither Textual nor we write."""
        self.styles: set[str] = set()
        """The parameters of all that chose colours."""
        self.places: set[tuple[int, int]] = set()
        """Where the cursor was put: column and row."""
        self.modes: dict[str, bool] = {}
        """Modes that were switched, and whether they are on."""
        self.bells = 0
        self.balance: Counter[str] = Counter()
        """What was put aside and not brought back: titles and ways of the keyboard."""
        for found in _TOKEN.finditer(self._text):
            self._take(found)

    @property
    def text(self) -> str:
        """All of its text, without what is not text."""
        return _TOKEN.sub("", self._text)

    def _take(self, found: re.Match[str]) -> None:
        token = found.group()
        if found["osc"]:
            self._take_osc(token, found["words"])
        elif found["csi"]:
            self._take_csi(token, found)
        elif token == "\x07":
            self.bells += 1
        elif token not in {"\r", "\n"} or self._is_lone(found):
            self.foreign[token] += 1

    def _is_lone(self, found: re.Match[str]) -> bool:
        """Say whether it is a CR that begins no line: the terminal makes CR LF of each LF."""
        return found.group() == "\r" and self._text[found.end() : found.end() + 1] != "\n"

    def _take_osc(self, token: str, words: str) -> None:
        kind, _, rest = words.partition(";")
        if kind == "0":
            self.titles.append(rest)
        elif kind == "52":
            self.copied.append(rest)
        elif not _POINTER.fullmatch(words):
            self.foreign[token] += 1

    def _take_csi(self, token: str, found: re.Match[str]) -> None:
        mark, numbers, final = found["mark"], found["numbers"], found["final"]
        if token in _QUERIES:
            return
        if token in _KEYBOARD:
            self.balance["keyboard"] += 1 if mark == ">" else -1
        elif token in _TITLES:
            self.balance["title"] += 1 if numbers.startswith("22") else -1
        elif mark + numbers in MODES and final in "hl" and not found["middle"]:
            self.modes[mark + numbers] = final == "h"
        elif final == "m" and not mark and not found["middle"]:
            self.styles.add(numbers)
        elif final == "H" and re.fullmatch(r"\d+;\d+", numbers) and not mark:
            row, column = map(int, numbers.split(";"))
            self.places.add((column, row))
        else:
            self.foreign[token] += 1

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was before: one screen, a cursor, no mouse, no title."""
        on = {mode for mode, is_on in self.modes.items() if is_on}
        return on <= {"?25", "?7"} and not +self.balance and not -self.balance
