"""Where everything of the graph is, and what decides that. Pure; it may take a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tui.graph.boxes import Boxes, fold
from tui.graph.channels import Channel, route
from tui.graph.layers import Plan, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.views import GraphNode


class Structure(Struct, frozen=True):
    """All that decides where things are: the tasks with their deps, and which fans are open."""

    shape: tuple[tuple[str, tuple[str, ...]], ...] = ()
    opened: frozenset[str] = frozenset()


class Layout(Struct, frozen=True):
    """Where things are."""

    boxes: Boxes = Boxes()
    plan: Plan = Plan()
    channels: tuple[Channel, ...] = ()


def laid_out(nodes: Sequence[GraphNode], opened: frozenset[str]) -> Layout:
    """Lay the tasks out; a fan is folded unless one of it is in `opened`."""
    boxes = fold(nodes, opened)
    plan = lay_out(boxes.boxes)
    return Layout(boxes, plan, route(plan))
