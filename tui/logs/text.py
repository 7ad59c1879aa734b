"""How the bytes of a log become lines on a screen: one rule for the log and for its tail. Pure.

A carriage return rewinds its line, so that a progress bar shows its last state, as in a terminal.
What is no UTF-8 is replaced, and `clean_text` has the last word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

SEAM_REACH = 256
"""Bytes before a seam in which the start of what it would cut in two is looked for."""

_PART = 16 * 1024
# These only ever vanish, and fastest here: a sparse file is full of them.
_SILENT = bytes({*range(0x20), 0x7F} - {*b"\t\n\r\x07\x18\x1a\x1b"})
# By far the most of what is not printed; `clean_text` would need four times as long for it.
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
# A sequence that has begun and not ended. A terminated one does not match to its end.
_OPEN_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x18\x1a\x1b]*\x1b?|[ -/]*)")


def clean_lines(data: bytes) -> str:
    """Return the text of whole lines, ready to show, with as many line ends as `data`."""
    text = data.decode(errors="replace").replace("\t", " ")
    if text.replace("\n", " ").isprintable():
        return text
    text = _COLOUR.sub(b"", data.translate(None, _SILENT)).decode(errors="replace")
    text = text.replace("\t", " ")
    if text.replace("\n", " ").isprintable():
        return text
    if "\r" in text:
        text = "\n".join(map(_rewound, text.split("\n")))
    return "".join(clean_text(part, newlines=True) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    """Split a text after lines, so that cleaning it gives way to other threads now and then."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PART) + 1 or len(text)
        yield text[start:end]
        start = end


def _rewound(line: str) -> str:
    return line.rstrip("\r").rsplit("\r", 1)[-1] if "\r" in line else line


def seam(before: bytes, after: bytes) -> int:
    """Return how many of the last bytes `before` a cut belong to what comes `after` it.

    A line that is too long is cut so that neither a character nor an escape sequence is split,
    unless it is longer than `before`: then its parts are harmless, but seen.
    """
    start = before.rfind(b"\x1b")
    if start >= 0 and _OPEN_SEQUENCE.fullmatch(before, start):
        return len(before) - start
    if not after or after[0] & 0xC0 != 0x80:
        return 0
    for back in range(1, min(3, len(before)) + 1):
        byte = before[-back]
        if byte & 0xC0 == 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte & 0xC0 != 0x80:
            return 0
    return 0
