"""The graph on paper: everything is placed once, lines never lie, folding keeps counts."""

from __future__ import annotations

import random
import sys
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from engine.model import Reason, State
from engine.views import GraphNode
from tui import strokes
from tui.glyphs import to_ascii
from tui.graph.boxes import FAN, Boxes, fold
from tui.graph.channels import MOST_TRACKS, Channel, route
from tui.graph.drawing import Drawing
from tui.graph.labels import tally
from tui.graph.layers import Piece, Plan, lay_out, spread
from tui.graph.tree import Tree
from tui.graph.wires import Strokes, width_of
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tui.graph.scene import Scene

Dag = dict[str, tuple[str, ...]]


def nodes(dag: Dag, **states: State) -> list[GraphNode]:
    return [
        GraphNode(id, id, "codex", states.get(id, State.READY), (), 0, deps)
        for id, deps in dag.items()  # noqa: A001 - as in the row
    ]


def laid_out(dag: Dag, opened: Iterable[str] = ()) -> tuple[Boxes, Plan, tuple[Channel, ...]]:
    boxes = fold(nodes(dag), frozenset(opened))
    plan = lay_out(boxes.boxes)
    return boxes, plan, route(plan)


def drawing(
    dag: Dag, *critical: str, columns: int = 120, lines: int = 40, **states: State
) -> Scene:
    known = nodes(dag, **states)
    return Drawing(*laid_out(dag), {n.id: n for n in known}, critical, columns=columns, lines=lines)


def tree(dag: Dag, *critical: str, columns: int = 80) -> Scene:
    boxes, plan, _ = laid_out(dag)
    known = {node.id: node for node in nodes(dag)}
    return Tree(boxes, plan.layer_of, known, critical, columns=columns)


def line(scene: Scene, y: int, left: int = 0, right: int = 500) -> str:
    begins, patches = scene.line(y, left, right)
    text = "".join(patch.text for patch in patches)
    return (" " * begins + text)[left:right]


def text(scene: Scene) -> list[str]:
    return [line(scene, y).rstrip() for y in range(scene.height)]


@st.composite
def dags(draw: st.DrawFn, most: int = 24) -> Dag:
    """Any DAG; deps may be gone."""
    count = draw(st.integers(0, most))
    dag: Dag = {}
    for index in range(count):
        known = st.sampled_from([f"t{n}" for n in range(index)] + ["gone"])
        dag[f"t{index}"] = tuple(draw(st.lists(known, max_size=4, unique=True)))
    return dag


# -- folding ---------------------------------------------------------------------------------


@given(dags())
def test_folding_keeps_every_task_exactly_once(dag: Dag) -> None:
    boxes = fold(nodes(dag))
    assert sorted(id for box in boxes.boxes for id in box.members) == sorted(dag)  # noqa: A001 - as in the row
    for index, box in enumerate(boxes.boxes):
        assert len(box.members) == 1 or len(box.members) >= FAN
        for member in box.members:
            assert (boxes.at or {})[member] == index
            assert set(dag[member]) == set(dag[box.key])


@given(dags())
def test_folding_keeps_the_edges(dag: Dag) -> None:
    boxes = fold(nodes(dag))
    at = boxes.at or {}
    expected = {(at[dep], at[id]) for id, deps in dag.items() for dep in deps if dep in at}  # noqa: A001 - as in the row
    assert {(d, i) for i, box in enumerate(boxes.boxes) for d in box.deps} == expected
    assert {(i, d) for i, box in enumerate(boxes.boxes) for d in box.dependents} == expected


def fan(count: int) -> Dag:
    middle = {f"m{n}": ("start",) for n in range(count)}
    return {"start": (), **middle, "end": tuple(middle)}


def test_a_fan_folds_from_six_tasks_on() -> None:
    assert len(fold(nodes(fan(FAN - 1))).boxes) == FAN + 1
    folded = fold(nodes(fan(FAN)))
    assert [box.members for box in folded.boxes if box.folded] == [
        tuple(f"m{n}" for n in range(FAN))
    ]
    assert folded.fan("m3") == tuple(f"m{n}" for n in range(FAN))
    assert folded.fan("start") == ()


def test_a_fan_of_which_any_member_is_opened_stays_unfolded() -> None:
    boxes = fold(nodes(fan(9)), {"m7"})
    assert len(boxes.boxes) == 11
    assert boxes.fan("m0") == tuple(f"m{n}" for n in range(9))


def test_a_folded_fan_tells_what_needs_somebody_first() -> None:
    dag = fan(9)
    known = {node.id: node for node in nodes(dag, m1=State.DONE, m2=State.RUNNING, m3=State.DONE)}
    human = known["m5"]
    known["m5"] = GraphNode(
        human.id, human.name, human.agent, State.BLOCKED, (Reason.HUMAN,), 0, human.deps
    )
    scene = Drawing(*laid_out(dag), known, columns=120, lines=40)
    assert "■ 9 tasks ▲ 1 ● 1 ◌ 5 ✓ 2" in "\n".join(text(scene))
    assert sum(count for _, count in tally(known[f"m{n}"] for n in range(9))) == 9


def test_a_dep_that_is_not_in_the_picture_is_counted_not_followed() -> None:
    box = fold(nodes({"a": ("gone", "far", "gone"), "b": ("a", "gone")})).boxes
    assert [(one.deps, one.missing) for one in box] == [((), 2), ((0,), 1)]


# -- layers and rows -------------------------------------------------------------------------


@given(dags())
def test_every_box_has_one_place_of_its_own(dag: Dag) -> None:
    boxes, plan, _ = laid_out(dag)
    items = [item for layer in plan.layers for item in layer]
    assert sorted(items) == list(range(len(plan.row_of)))
    assert set(range(len(boxes.boxes))) <= set(items)
    places = [(plan.layer_of[item], plan.row_of[item]) for item in items]
    assert len(set(places)) == len(places)
    assert min(plan.row_of, default=0) == 0


@given(dags())
def test_the_layer_is_the_longest_way_from_a_beginning(dag: Dag) -> None:
    boxes, plan, _ = laid_out(dag)
    for index, box in enumerate(boxes.boxes):
        assert plan.layer_of[index] == max((plan.layer_of[d] + 1 for d in box.deps), default=0)


@given(dags())
def test_the_pieces_of_a_net_lead_from_its_sources_to_its_targets(dag: Dag) -> None:
    boxes, plan, _ = laid_out(dag)
    onward: dict[int, set[int]] = {}
    for layer, pieces in enumerate(plan.pieces):
        for piece in pieces:
            assert {plan.layer_of[item] for item in piece.left} == {layer}
            assert {plan.layer_of[item] for item in piece.right} == {layer + 1}
            for item in piece.left:
                onward.setdefault(item, set()).update(piece.right)
    for index, box in enumerate(boxes.boxes):
        reached: set[int] = set()
        todo = [index]
        while todo:
            for item in onward.get(todo.pop(), ()):
                (reached.add if item < len(boxes.boxes) else todo.append)(item)
        assert reached == set(box.dependents)
        assert index not in plan.cut_out


@given(dags())
def test_the_same_tasks_give_the_same_picture(dag: Dag) -> None:
    assert laid_out(dag) == laid_out(dict(dag))


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 10)), max_size=30).map(
        lambda pairs: ([wish for wish, _ in pairs], [weight for _, weight in pairs])
    )
)
def test_rows_keep_their_order_and_never_meet(pairs: tuple[list[float], list[float]]) -> None:
    rows = spread(*pairs)
    assert len(rows) == len(pairs[0])
    assert all(one < other for one, other in pairwise(rows))


def test_rows_that_wish_for_places_apart_get_them() -> None:
    assert spread([0.2, 4.0, 9.9], [1.0, 1.0, 1.0]) == [0, 4, 10]
    assert spread([5.0, 5.0, 5.0], [1.0, 1.0, 1.0]) == [4, 5, 6]


def test_a_chain_is_a_straight_line() -> None:
    assert text(drawing({"a": (), "b": ("a",), "c": ("b",)})) == ["   ◌ a ──▸ ◌ b ──▸ ◌ c"]


# -- lines -----------------------------------------------------------------------------------


def overlaps(strokes_of: Strokes, width: int) -> list[str]:
    """Everything in a channel that would make lines of two nets look like one."""
    found: list[str] = []
    for y, flat in strokes_of._flat.items():
        for (a0, a1, one), (b0, b1, other) in combinations(flat, 2):
            arrive = a1 == b1 == width
            if one != other and max(a0, b0) <= min(a1, b1) and not arrive:
                found.append(f"row {y}: {a0}-{a1} and {b0}-{b1}")
    for x, bars in strokes_of._upright.items():
        for (low, high, _), (start, end, _) in combinations(bars, 2):
            if max(low, start) <= min(high, end):
                found.append(f"track {x}: {low}-{high} and {start}-{end}")
    return found


@given(dags(40))
def test_lines_of_two_nets_meet_only_where_they_come_to_the_same_box(dag: Dag) -> None:
    _, plan, channels = laid_out(dag, dag)
    for pieces, channel in zip(plan.pieces, channels, strict=True):
        assert len(pieces) == len(channel.wires)
        assert channel.tracks <= MOST_TRACKS
        assert overlaps(Strokes(channel), width_of(channel)) == []


@given(dags(40))
def test_every_line_that_is_drawn_goes_from_its_left_rows_to_its_right_rows(dag: Dag) -> None:
    _, plan, channels = laid_out(dag, dag)
    for channel in channels:
        for wire in channel.wires:
            if not wire.drawn:
                continue
            alone = Strokes(channel, [(wire, wire.left, wire.right)])
            assert [y for y in range(-1, 4 * plan.height) if alone.enters(y)] == list(wire.left)
            assert [y for y in range(-1, 4 * plan.height) if alone.leaves(y)] == list(wire.right)
            assert joined(alone, width_of(channel), 4 * plan.height)


def joined(alone: Strokes, width: int, height: int) -> bool:
    """Whether all cells of a wire hang together, and each side of a cell is answered."""
    cells = {(x, y): side for y in range(height) for x, side in enumerate(alone.row(y)[0]) if side}
    ways = (
        (strokes.LEFT, -1, 0, strokes.RIGHT), (strokes.RIGHT, 1, 0, strokes.LEFT),
        (strokes.UP, 0, -1, strokes.DOWN), (strokes.DOWN, 0, 1, strokes.UP),
    )  # fmt: skip
    todo = [next(iter(cells))]
    seen = set(todo)
    while todo:
        x, y = todo.pop()
        for side, right, down, answer in ways:
            other = (x + right, y + down)
            if not cells[x, y] & side or not 0 <= other[0] < width:
                continue
            if not cells.get(other, 0) & answer:
                return False
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen == set(cells)


def test_two_lines_that_change_places_step_aside_instead_of_lying() -> None:
    channel = route(
        lay_out(fold(nodes({"a": (), "b": (), "c": ("b",), "d": ("a", "b"), "e": ("a",)})).boxes)
    )
    assert all(wire.drawn for wire in channel[0].wires)
    # The layout avoids it wherever it can; here it is asked for by hand.
    plan = Plan(
        layer_of=(0, 0, 1, 1),
        row_of=(0, 1, 0, 1),
        pieces=(
            lay_out(fold(nodes({"a": (), "b": (), "c": ("b",), "d": ("a",)})).boxes).pieces[0],
        ),
    )
    swapped = route(plan)[0]
    assert [wire.left + wire.right for wire in swapped.wires] == [(0, 2), (2, 0)]
    assert [wire.step is not None for wire in swapped.wires].count(True) == 1
    assert overlaps(Strokes(swapped), width_of(swapped)) == []


def test_a_line_that_steps_aside_never_turns_back() -> None:
    # The first half of the first line finds two tracks taken; its second half has to wait for a
    # line that takes the first track, and must still come behind its own first half.
    rows = {"p": (0, 4), "r": (1,), "s": (3,), "a": (15,), "b": (30,), "low": (2,), "mid": (15,)}
    slots = [slot for places in rows.values() for slot in places] + [30]
    p, q, r, s, a, b, low, mid, high = range(9)
    pieces = (
        Piece(0, (p, q), (mid,)),
        Piece(1, (r,), (low,)),
        Piece(2, (s,), (low,)),
        Piece(3, (a,), (high,)),
        Piece(4, (b,), (mid,)),
    )
    channel = route(Plan(row_of=slots, pieces=(pieces,)))[0]
    assert all(wire.drawn for wire in channel.wires)
    stepped = [wire for wire in channel.wires if wire.step is not None]
    assert stepped
    for wire in stepped:
        assert wire.track is not None
        assert wire.second is not None
        assert wire.track < wire.second
    assert overlaps(Strokes(channel), width_of(channel)) == []


def test_a_line_passes_behind_one_that_it_does_not_belong_to() -> None:
    boxes = fold(nodes({"a": (), "b": (), "x": ("a",), "y": ("b",), "z": ("a",)}))
    sorted_plan = lay_out(boxes.boxes)
    plan = replace(sorted_plan, row_of=(0, 1, 0, 1, 2))
    scene = Drawing(
        boxes, plan, route(plan), {n.id: n for n in nodes(dict.fromkeys("abxyz", ()))},
        columns=80, lines=40,
    )  # fmt: skip
    assert text(scene) == [
        "   ◌ a ─┬──▸ ◌ x",
        "        │",
        "   ◌ b ─│──▸ ◌ y",
        "        │",
        "        ╰──▸ ◌ z",
    ]


def test_the_picture_is_as_it_should_be() -> None:
    dag = {
        "plan": (), "a": ("plan",), "b": ("plan",), "test": ("a",), "join": ("a", "b"),
        "ship": ("join", "test", "gone"), "lone": (),
    }  # fmt: skip
    assert text(drawing(dag, "plan", "a", "join", "ship", plan=State.DONE, a=State.RUNNING)) == [
        "           ┏━━▸ ● a ━┱──▸ ◌ test ─╮",
        "           ┃         ┃            │",
        "   ✓ plan ━┹──▸ ◌ b ─┺━━▸ ◌ join ━┷━┄▸ ◌ ship",
        "",
        "   ◌ lone",
    ]


def test_the_lines_of_the_critical_path_are_heavy_and_those_of_the_cursor_bright() -> None:
    scene = drawing({"a": (), "b": ("a",), "c": ("a",)}, "a", "b")
    assert "━" in "".join(text(scene))
    scene.point("c")
    tones = {p.tone for y in range(scene.height) for p in scene.line(y, 0, 200)[1] if "─" in p.text}
    assert Tone.TEXT in tones
    scene.point(None)
    scene.mark(())
    assert "━" not in "".join(text(scene))


@given(dags(), st.integers(0, 60), st.integers(1, 60))
def test_any_part_of_a_line_is_painted_as_the_whole_is(dag: Dag, left: int, width: int) -> None:
    scene = drawing(dag)
    for y in range(scene.height):
        whole = line(scene, y, 0, scene.width).ljust(left + width)
        assert line(scene, y, left, left + width).rstrip() == whole[left : left + width].rstrip()


def test_only_what_is_seen_is_painted() -> None:
    scene = drawing(chain(3000))
    begins, patches = scene.line(0, 9000, 9120)
    assert begins > 8900
    assert sum(len(patch.text) for patch in patches) < 300


def test_every_character_has_one_of_its_width_in_ascii() -> None:
    drawn = {strokes.stroke(sides, heavy) for sides in range(16) for heavy in range(16)}
    others = {
        value for value in vars(strokes).values() if isinstance(value, str) and len(value) == 1
    }
    for char in drawn | others:
        assert cell_len(char) == len(to_ascii(char)) == 1
        assert to_ascii(char) != "?"


# -- moving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [drawing, tree])
@given(dag=dags(16))
def test_a_box_is_found_where_it_says_that_it_is(kind: Any, dag: Dag) -> None:
    scene = kind(dag)
    taken: set[tuple[int, int]] = set()
    for box in scene.boxes.boxes:
        x, y, width = scene.spot(box.key)
        assert 0 <= y < scene.height
        assert x + width <= scene.width
        assert scene.at(x + 1, y) == box.key
        assert scene.near(x, y, x, x + 1) == box.key
        cells = {(x + n, y) for n in range(width)}
        assert not taken & cells
        taken |= cells
    assert scene.spot("nobody") is None
    assert (scene.end(last=False) is None) == (not dag)


@pytest.mark.parametrize("kind", [drawing, tree])
@given(dag=dags(16))
def test_across_follows_edges_and_down_stays_in_line(kind: Any, dag: Dag) -> None:
    scene = kind(dag)
    boxes = scene.boxes.boxes
    for box in boxes:
        right, left = scene.across(box.key, 1), scene.across(box.key, -1)
        assert right in {boxes[i].key for i in box.dependents} or not box.dependents
        assert left in {boxes[i].key for i in box.deps} or not box.deps
        assert scene.spot(scene.down(box.key, 1)).y >= scene.spot(box.key).y
        assert scene.spot(scene.down(box.key, -99)).y <= scene.spot(box.key).y


def test_left_goes_back_to_where_right_came_from() -> None:
    scene = drawing({"a": (), "b": (), "c": ("a", "b"), "d": ("b",)})
    for start in ("a", "b"):
        assert scene.across(scene.across(start, 1), -1) == start


# -- the tree --------------------------------------------------------------------------------


def test_the_tree_names_the_other_deps() -> None:
    dag = {"a": (), "b": (), "c": ("a", "b", "gone"), "d": ("c",), "e": ("a",)}
    assert text(tree(dag)) == [
        " ◌ a",
        " ├─ ◌ c  also under b  1 not shown",
        " │  ╰─ ◌ d",
        " ╰─ ◌ e",
        " ◌ b",
    ]


@given(dags())
def test_in_the_tree_every_box_stands_once_and_below_a_dep(dag: Dag) -> None:
    scene = tree(dag)
    assert scene.height == len(scene.boxes.boxes)
    for box in scene.boxes.boxes:
        if box.deps:
            spots = [scene.spot(scene.boxes.boxes[dep].key) for dep in box.deps]
            mine = scene.spot(box.key)
            assert mine is not None
            assert any(s is not None and s.y < mine.y and s.x < mine.x for s in spots)


# -- size ------------------------------------------------------------------------------------


def chain(count: int) -> Dag:
    return {f"t{n}": (f"t{n - 1}",) if n else () for n in range(count)}


def to_one_end(count: int) -> Dag:
    return {**chain(count - 1), "end": tuple(f"t{n}" for n in range(count - 1))}


def tangle(count: int) -> Dag:
    dice = random.Random(7)
    return {
        f"t{n}": tuple({f"t{dice.randrange(max(0, n - 60), n)}" for _ in range(3)} if n else ())
        for n in range(count)
    }


def stages(count: int) -> Dag:
    return {
        f"t{n}": tuple(f"t{m}" for m in range(n // 100 * 100 - 100, n // 100 * 100) if m >= 0)
        for n in range(count)
    }


@pytest.mark.parametrize("shape", [chain, to_one_end, tangle, stages])
def test_the_work_grows_with_the_tasks_and_is_bounded(shape: Any) -> None:
    dag = shape(5000)
    edges = sum(map(len, dag.values()))
    calls = 0

    def count(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    known = nodes(dag)
    sys.setprofile(count)
    try:
        boxes = fold(known, frozenset(dag))
        plan = lay_out(boxes.boxes)
        channels = route(plan)
    finally:
        sys.setprofile(None)
    assert len(boxes.boxes) == 5000
    assert len(plan.row_of) <= 5000 + 10_000
    assert max(channel.tracks for channel in channels) <= MOST_TRACKS
    assert calls <= 600 * 5000 + 4 * edges


def test_edges_that_are_too_long_to_draw_are_marked_at_both_ends() -> None:
    boxes, plan, channels = laid_out(to_one_end(5000))
    end = (boxes.at or {})["end"]
    assert end in plan.cut_in
    assert 0 in plan.cut_out
    known = {node.id: node for node in nodes(to_one_end(5000))}
    scene = Drawing(boxes, plan, channels, known, columns=120, lines=40)
    spot = scene.spot("end")
    assert spot is not None
    assert "┄▸" in line(scene, spot.y, spot.x - 40, spot.x)
    assert strokes.ELSEWHERE in line(scene, scene.spot("t0").y, 0, 20)  # type: ignore[union-attr]  # it is there
