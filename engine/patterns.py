"""Whether a text has a word in it, or matches a pattern: one meaning for SQL and for Python.

Patterns are RE2's: a match takes time linear in the text, whatever the pattern. Python's own `re`
would let `(a+)+$` hold up every reader of the store for hours. The library is loaded with the
first pattern: most people never type one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from engine.errors import ValidationError

_Search = Callable[[bytes], object]
"""Returns None if it finds nothing."""
LineSearch = Callable[..., int | None]
"""Of bytes, from an offset and to another: where the first match begins, None without one."""

_MEMORY = 8 << 20
"""Bytes that one compiled pattern may take; a larger one is refused."""
_BEYOND_LINES = ("(?", "\\A", "\\z", "\\C")
"""Syntax by which a pattern may match a text, but not the same text as a line among others."""


def check_pattern(pattern: str) -> None:
    """Raise ValidationError, with the reason, for what is no regular expression."""
    _searches(pattern)


def has_match(pattern: str, *texts: str | None) -> bool:
    """Say whether a pattern that was checked is found in one of the texts, whatever the case."""
    search, search_lines = _searches(pattern)
    known = [text for text in texts if text is not None]
    # One search costs about the same in one text and in five, and most rows do not match: as lines
    # of one text they match whenever one of them does, and sometimes besides.
    if search_lines is not None and search_lines("\n".join(known).encode()) is None:
        return False
    return any(search(text.encode()) is not None for text in known)


def has_word(word: str, *texts: str | None) -> bool:
    """Say whether a word is a part of one of the texts, whatever the case.

    Case is folded as Unicode says, in any script. Only a word that is all ASCII is compared by
    ASCII's rules: `strasse` does not find `Straße`, though `straße` finds `STRASSE`. So SQLite can
    look for it alone.
    """
    if word.isascii():
        part = word.lower().encode()
        # Of bytes only ASCII is lowered.
        return any(text is not None and part in text.encode().lower() for text in texts)
    folded = word.casefold()
    return any(text is not None and folded in text.casefold() for text in texts)


@lru_cache(maxsize=256)  # more than a filter has terms
def _searches(pattern: str) -> tuple[_Search, _Search | None]:
    """Return the search for a pattern, and the one in which `^` and `$` are ends of lines."""
    search = _search(pattern)
    beyond = any(mark in pattern for mark in _BEYOND_LINES)
    return search, None if beyond else _search(f"(?m){pattern}")


def line_search(patterns: Iterable[str]) -> LineSearch | None:
    """Return a search for the first of several patterns in bytes that hold whole lines.

    Case counts. No match goes beyond a line; `^` and `$` are its ends. None: there is no pattern.

    Raises:
        ValidationError: one of them is no regular expression.

    """
    # One by one first: two halves that are none could make a whole together.
    wanted = [pattern for pattern in patterns if _compile(pattern, fold=False)]
    if not wanted:
        return None
    regexp = _compile("(?m)" + "|".join(f"(?:{pattern})" for pattern in wanted), fold=False)

    def search(data: bytes, start: int = 0, end: int | None = None) -> int | None:
        found = regexp.search(data, start, end)
        return None if found is None else int(found.start())

    return search


def _search(pattern: str) -> _Search:
    search: _Search = _compile(pattern, fold=True).search
    return search


def _compile(pattern: str, *, fold: bool) -> Any:
    """Compile a pattern for bytes, which spares a second pass over each text to count characters.

    `fold`: whatever the case, and over ends of lines.
    """
    import re2  # noqa: PLC0415 - see above

    options = re2.Options()
    options.case_sensitive = not fold
    options.never_nl = not fold
    options.never_capture = True
    options.log_errors = False  # to stderr, which is the terminal of the dashboard
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "it cannot be read"
        raise ValidationError(f"/{pattern}/ is no regular expression: {reason}") from error
