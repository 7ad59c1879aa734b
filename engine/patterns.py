"""Whether a text has a word in it, or matches a pattern: one meaning for SQL and for Python.

Patterns are RE2's: a match takes time linear in the text, whatever the pattern. Python's own `re`
would let `(a+)+$` hold up every reader of the store for hours. The library is loaded with the
first pattern: most people never type one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from engine.errors import ValidationError

_Search = Callable[[bytes], object]
"""Returns None if it finds nothing."""

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


def _search(pattern: str) -> _Search:
    import re2  # noqa: PLC0415 - see above

    options = re2.Options()
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False  # to stderr, which is the terminal of the dashboard
    options.max_mem = _MEMORY
    try:
        # Bytes spare a second pass over each text that would count characters.
        search: _Search = re2.compile(pattern.encode(), options).search
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "it cannot be read"
        raise ValidationError(f"/{pattern}/ is no regular expression: {reason}") from error
    return search
