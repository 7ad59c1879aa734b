"""What a run has said until now, in a few fields: counts, the last words, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.agents.vocabulary import Entry, Kind, Role, Trouble
from engine.model import Spending

if TYPE_CHECKING:
    from datetime import datetime


class Summary(Struct):
    """Takes entries one by one. Texts are as the agent wrote them.

    `messages` are those of the agent (thoughts are none), `tools` the number of calls of each
    tool, `errors` those that were told, `unknown` lines that no format knows. `doing` is the last
    call (`Edit src/x.py`). `error`, `trouble` and `until` are what was told last since the agent
    itself did or said something: it has got over what was before.
    """

    messages: int = 0
    tools: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    unknown: int = 0
    session: str = ""
    model: str = ""
    doing: str = ""
    error: str = ""
    spending: Spending = Spending()
    trouble: Trouble | None = None
    until: datetime | None = None
    result: Entry | None = None
    pieces: list[str] = field(default_factory=list)
    """The last message of the agent itself, in the pieces that it came in."""
    speaking: bool = False
    """Whether nothing has come since then."""

    @property
    def calls(self) -> int:
        """How many tools were used, in all."""
        return sum(self.tools.values())

    @property
    def text(self) -> str:
        """What the agent itself, not one of its subagents, said last."""
        return "".join(self.pieces)

    @property
    def succeeded(self) -> bool:
        """Whether it has given a result, and that not of a failure."""
        return self.result is not None and not self.result.failed

    @property
    def answer(self) -> str:
        """What came of it in the agent's words: its result, else what it said last."""
        result = self.result
        return result.text if result and result.text and not result.failed else self.text

    def take(self, entry: Entry) -> None:
        """Add an entry."""
        kind, speaking = entry.kind, False
        if kind is Kind.MESSAGE:
            speaking = self._hear(entry)
        elif kind is Kind.CALL:
            self._go_on()
            self.tools[entry.tool] = self.tools.get(entry.tool, 0) + 1
            self.doing = f"{entry.tool} {entry.text}".strip()
        elif kind is Kind.ERROR:
            self.errors += 1
            self.error = entry.text
        elif kind is Kind.UNKNOWN:
            self.unknown += 1
        elif kind in {Kind.SESSION, Kind.RESULT}:
            self.session, self.model = entry.session or self.session, entry.model or self.model
            self.result = entry if kind is Kind.RESULT else self.result
        self.speaking = speaking
        if entry.trouble is not None:
            same = entry.trouble is self.trouble
            self.trouble = entry.trouble
            self.until = entry.until or (self.until if same else None)
        if entry.spending is not None:
            self.spending = _sum_up(self.spending, entry.spending)

    def _hear(self, entry: Entry) -> bool:
        """Add a message; say whether the next piece may belong to it."""
        if entry.role is not Role.AGENT:
            return False
        self._go_on()
        if entry.parent:
            self.messages += 1
            return False
        if entry.goes_on and self.speaking:
            self.pieces.append(entry.text)
        else:
            self.messages += 1
            self.pieces = [entry.text]
            if not (self.tools or entry.goes_on):
                # A program that names no tools is seen at work by what it says.
                self.doing = entry.text
        return True

    def _go_on(self) -> None:
        self.trouble = self.until = None
        self.error = ""


def _sum_up(known: Spending, told: Spending) -> Spending:
    """Return what is told now; what was told before and is not told now stays."""
    pairs = ((getattr(told, name), getattr(known, name)) for name in Spending.__struct_fields__)
    return Spending(*[old if new is None else new for new, old in pairs])
