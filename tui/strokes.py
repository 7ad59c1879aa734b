"""The characters with which the graph and the timeline draw, in one table.

Each is one cell wide, and `tui.glyphs` has another one for it where there is ASCII only. States
and workers have their symbols in `engine.narrate` and `tui.look`; nothing of those is here.
"""

from __future__ import annotations

LEFT, RIGHT, UP, DOWN = 8, 4, 2, 1
"""Bits: the sides of a cell to which a line goes from its middle."""

_LINES = " ╷╻╵│╽╹╿┃╶╭┎╰├┟┖┞┠╺┍┏┕┝┢┗┡┣╴╮┒╯┤┧┚┦┨─┬┰┴┼╁┸╀╂╼┮┲┶┾╆┺╄╊╸┑┓┙┥┪┛┩┫╾┭┱┵┽╅┹╃╉━┯┳┷┿╈┻╇╋"
# Of each side none, a light or a heavy line: 3 to the power of 4, left counting most.
_WORTH = ((LEFT, 27), (RIGHT, 9), (UP, 3), (DOWN, 1))

ARROW = "▸"
"""Where a line comes to the task that waits."""
ELSEWHERE = "┄"
"""A line that leads to something that is not drawn here."""
FOLDED = "■"
"""A fan of tasks that is shown as one."""
CURSOR = "▌"
"""Stands before what the cursor is on."""

IDLE = "─"
"""A worker that is there and has no run."""
NOW = "▾"
"""Where the present is on the axis of time."""
TICK = "╷"
"""Where a time of the axis is exactly."""
UNDERLINE = "━"
"""On the axis: the time that the chosen run takes."""
EDGE = "▏"
"""Where a bar begins right behind another one."""
MANY = "+"
"""More than nine runs within one cell."""


def stroke(sides: int, heavy: int = 0) -> str:
    """Return the character with lines to these sides, to the `heavy` ones a heavy line."""
    drawn = sides | heavy
    return _LINES[sum(worth * (2 if heavy & bit else 1) for bit, worth in _WORTH if drawn & bit)]


BRANCH, LAST_BRANCH, TRUNK = stroke(UP | RIGHT | DOWN), stroke(UP | RIGHT), stroke(UP | DOWN)
"""The guides of the tree."""
