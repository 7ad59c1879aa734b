"""What an entry is called and what is to be read of it, in words for every face. Pure.

All text that leaves this module is clean (DESIGN §4.6).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from engine.agents.vocabulary import Entry, Kind, Role
from engine.narrate import describe_spending
from engine.text import clean_text, plural

WHO = 8
"""Characters of the longest `who`."""
LONGEST = 256 * 1024
"""Characters of an entry that are told, and of its arguments; those that are left are counted."""

_BRIEF = {
    Kind.SESSION: 1, Kind.MESSAGE: 24, Kind.CALL: 2, Kind.ANSWER: 4, Kind.ERROR: 8,
    Kind.RESULT: 3, Kind.UNKNOWN: 1,
}  # fmt: skip
_BRIEF_ROLE = {Role.USER: 6, Role.THOUGHT: 3}
_WHO = {
    Kind.SESSION: "session", Kind.CALL: "tool", Kind.ANSWER: "↳", Kind.ERROR: "error",
    Kind.RESULT: "result", Kind.UNKNOWN: "unknown",
}  # fmt: skip
_ROLES = {Role.USER: "prompt", Role.AGENT: "agent", Role.THOUGHT: "thinks", None: "says"}
_SUB = "·"


class Mood(StrEnum):
    """How loud something is told."""

    PLAIN = "plain"
    QUIET = "quiet"
    """Thoughts, answers of tools, what nobody understands."""
    BUSY = "busy"
    """A tool is used."""
    GOOD = "good"
    BAD = "bad"


class Told(Struct, frozen=True):
    """An entry in words: who speaks, and `text`, of which the first `title` characters stand out.

    `brief` is how many rows of it are shown unless one wants all; whatever stands past `whole`
    characters is only shown then.
    """

    who: str
    text: str
    mood: Mood
    title: int = 0
    brief: int = 1
    whole: int = 0


def tell(entry: Entry) -> Told:
    """Tell an entry."""
    text, title, more = _words(entry)
    text = _tidy(text)
    whole = len(text)
    if more:
        text = f"{text}\n{_tidy(more)}"
    who = _ROLES[entry.role] if entry.kind is Kind.MESSAGE else _WHO[entry.kind]
    if entry.kind is Kind.ANSWER and entry.failed:
        who = "↳ failed"
    elif entry.parent and len(who) < WHO:
        who = _SUB + who
    brief = _BRIEF[entry.kind]
    if entry.role is not None:
        brief = _BRIEF_ROLE.get(entry.role, brief)
    return Told(who, text, _mood(entry), len(clean_text(title)), brief, whole)


def _words(entry: Entry) -> tuple[str, str, str]:
    """Return the text, that part of its begin which stands out, and what more there is."""
    match entry.kind:
        case Kind.SESSION:
            return " · ".join(filter(None, (entry.model, entry.session, entry.text))), "", ""
        case Kind.CALL:
            text = f"{entry.tool} {entry.text}".rstrip()
            return text, entry.tool, _arguments(entry)
        case Kind.ANSWER:
            return entry.text.strip("\n") or "nothing", "", ""
        case Kind.RESULT:
            cost = describe_spending(entry.spending) if entry.spending is not None else ""
            trouble = entry.trouble or ("failed" if entry.failed else "done")
            title = " · ".join(filter(None, (trouble, cost)))
            return f"{title}\n{entry.text}".rstrip(), title, ""
        case Kind.ERROR:
            title = entry.trouble or ""
            return f"{title}: {entry.text}" if title else entry.text, title, ""
    return entry.text, "", ""


def _arguments(entry: Entry) -> str:
    """Return the arguments of a call, each on its line; nothing if there is only what was told."""
    try:
        arguments = msgspec.json.decode(entry.detail)
    except msgspec.DecodeError:
        return "" if entry.detail.strip() == entry.text.strip() else entry.detail
    if not isinstance(arguments, dict):
        return ""
    if [value for value in arguments.values() if value != ""] == [entry.text]:
        return ""  # the one that there is was told already
    return "\n".join(f"{name}: {_value(value)}" for name, value in arguments.items())


def _value(value: object) -> str:
    if not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return f"\n{value.rstrip()}" if "\n" in value.rstrip() else value


def _mood(entry: Entry) -> Mood:
    if entry.kind is Kind.ERROR or entry.failed:
        return Mood.BAD
    if entry.kind is Kind.RESULT:
        return Mood.GOOD
    if entry.kind is Kind.CALL:
        return Mood.BUSY
    if entry.kind is Kind.MESSAGE and entry.role is not Role.THOUGHT:
        return Mood.PLAIN
    return Mood.QUIET


def _tidy(text: str) -> str:
    left = len(text) - LONGEST
    text = clean_text(text[:LONGEST], newlines=True).rstrip()
    if left > 0:
        text += f"\n… {plural(left, 'more character')}: see transcript.jsonl"
    return text or "–"  # noqa: RUF001 - an en dash stands for no value
