"""What tests of searches share: what is looked for, a search to its end, all there is to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.logs.search import Spot, parse_needle

if TYPE_CHECKING:
    from tui.logs.pieces import Pieces
    from tui.logs.search import Needle, Search


def needle(text: str) -> Needle:
    found = parse_needle(text)
    assert found is not None
    return found


def run(file: Pieces, search: Search, limit: int = 100) -> Search:
    for _ in range(10_000):
        if search.done:
            return search
        search.step(file, limit)
    raise AssertionError("the search never ends")


def naive(file: Pieces, what: Needle) -> list[Spot]:
    spots = []
    at = 0
    while at < file.size:
        piece = file.piece(at)
        span = what.first(piece.text)
        while span is not None:
            spots.append(Spot(at, span[0], span[1] - span[0]))
            span = what.first(piece.text, span[0] + 1)
        at = piece.end
    return spots
