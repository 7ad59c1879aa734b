"""Text that is safe to show, and numbers in the few characters a screen has for them.

The one border of DESIGN §4.6: whatever an agent, a DAG file or a process printed passes through
`clean_text` before it reaches a terminal. Knows no task, no event and no library.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# No possessive quantifiers: they loop for ever in Python 3.11.2. Nothing here backtracks anyway:
# all that follows an introducer is optional, and no part of it can match another's characters.
_CSI = r"[0-?]*[ -/]*[@-~]?"
# A string sequence ends at BEL or ST. One that is not closed within its line loses only its
# introducer: nobody can hide the rest of a log behind it, and matching stays linear.
_STRING = r"(?:[^\x07\n\r\x18\x1a\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c))?"
_ACTIVE = re.compile(
    # C0 without tab and line ends, DEL, C1; then what is invisible or turns text around: soft
    # hyphen, bidi marks, overrides and isolates, zero-width, separators, BOM, annotations, tags.
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    r"\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
    rf"(?:(?<=\x1b)(?:\[{_CSI}|[\]PX^_]{_STRING}|[ -/]*[0-~]?)"
    rf"|(?<=\x9b){_CSI}"
    rf"|(?<=[\x90\x98\x9d-\x9f]){_STRING})?"
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")

ELLIPSIS = "…"
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_LONGEST_AGE = 9999 * _YEAR


def clean_text(text: str, *, newlines: bool = False) -> str:
    """Return `text` with nothing left in it that a terminal would act on.

    Escape sequences, control, bidi, zero-width and tag characters are removed, a tab becomes a
    space, a lone surrogate becomes U+FFFD. A line end becomes a space, or stays as one newline
    with `newlines`. Printable text comes back as it is. The parts of a sequence that was cut in
    two are harmless too, for no introducer survives.
    """
    if text.isprintable():
        return text
    text = _ACTIVE.sub("", text)
    text = text.replace("\t", " ").replace("\r\n", "\n").replace("\r", "\n")
    if not newlines:
        text = text.replace("\n", " ")
    return _SURROGATE.sub("\ufffd", text)


def age(seconds: float) -> str:
    """Write a span in at most five characters: 7s, 2:14, 59:59, 1h04m, 23h, 3d04h, 99d, 4y."""
    if not seconds > 0:
        return "0s"
    span = int(min(seconds, _LONGEST_AGE))
    if span < _HOUR:
        return f"{span}s" if span < _MINUTE else f"{span // _MINUTE}:{span % _MINUTE:02d}"
    if span >= _YEAR:
        return f"{span // _YEAR}y"
    days, hours, minutes = span // _DAY, span % _DAY // _HOUR, span % _HOUR // _MINUTE
    # From ten of a unit on, the smaller one has no room and no meaning.
    if days:
        return f"{days}d{hours:02d}h" if days < 10 else f"{days}d"
    return f"{hours}h{minutes:02d}m" if hours < 10 else f"{hours}h"


def duration(seconds: float) -> str:
    """Write how long something took, as `age` does but finer below ten seconds: 120ms, 4.2s."""
    if not seconds > 0:
        return "0ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    return age(round(seconds) if seconds < _MINUTE else seconds)


def cells(text: str) -> int:
    """Return how many terminal cells `text` takes; wide characters take two, marks none."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def cut_middle(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, its middle replaced by `…` if it is longer.

    A wide character is never halved, so the result may be a cell short.
    """
    if cells(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[: max(width, 0)]
    front = width // 2
    head = _fitting(text, front)
    # Marks whose base was cut away would sit on the ellipsis.
    tail = _fitting(text[::-1], width - 1 - front)[::-1]
    while tail and _cell(tail[0]) == 0:
        tail = tail[1:]
    return f"{head}{ELLIPSIS}{tail}"


def money(dollars: float) -> str:
    """Write US dollars in at most seven characters: $0.004, $1.24, $312, $1.2k, $1.2M."""
    if dollars >= 999_500:
        return f"${dollars / 1_000_000:.1f}M"
    if dollars >= 9_995:
        return f"${dollars / 1000:.1f}k"
    if dollars >= 99.995:
        return f"${dollars:.0f}"
    if dollars >= 0.00995 or dollars <= 0:
        return f"${max(dollars, 0):.2f}"
    return f"${max(dollars, 0.001):.3f}"


def tokens(count: int) -> str:
    """Write a number of tokens in at most five characters: 950, 9.5k, 34k, 120k, 1.2M, 1200M."""
    if count < 1_000:
        return str(count)
    scaled, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"


def in_bytes(size: int) -> str:
    """Write a size in at most four digits and its unit: 812 bytes, 9.5 KiB, 120 MiB."""
    number, unit = float(size), 0
    while number >= 1000 and unit < len(_SIZES) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.{1 if unit and number < 10 else 0}f} {_SIZES[unit]}"


def plural(count: int, word: str, many: str | None = None) -> str:
    """Write a count with its noun: `1 task`, `3 tasks`, `12,000 tasks`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def _fitting(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _cell(char)
        if used > width:
            return text[:index]
    return text


@lru_cache(maxsize=4096)
def _cell(char: str) -> int:
    if char.isascii():
        return 1
    # Hangul vowels and finals join the syllable before them.
    if unicodedata.category(char) in {"Mn", "Me", "Cf"} or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
