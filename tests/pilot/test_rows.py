"""The list under the fingers: cursor, marks, sorting, columns. With rows of its own, no engine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from support.screens import screen_text
from textual.app import App

from engine.views import Order
from tui.theme import meanings
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column, fit, next_order, reversed_order, sorted_by, visible
from tui.widgets.marks import Marks
from tui.widgets.painted import MARK
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from textual.app import ComposeResult
    from textual.message import Message
    from textual.pilot import Pilot

COLUMNS = (
    Column("", 1, name="symbol"),
    Column("id", 6, 12, middle=True, sort="id"),
    Column("agent", 6, drop=2, sort="agent"),
    Column("try", 3, right=True, drop=1, sort="attempts"),
    Column("note", 4, fills=True, drop=3),
)


class Names(RowList[str]):
    """A list of names; the first letter of a name is its symbol."""

    COLUMNS: ClassVar[tuple[Column, ...]] = COLUMNS
    MARKS = True

    looked_at = 0

    def key_of(self, row: str) -> str:
        return row

    def cells_of(self, row: str) -> Line:
        self.looked_at += 1
        return (
            (row[:1], Tone.TEXT),
            (row, Tone.TEXT),
            ("codex", Tone.DIM),
            ("1/2", Tone.DIM),
            ("a note", Tone.DIM),
        )


class Unmarked(Names):
    MARKS = False


class Newest(Names):
    NEWEST_FIRST = True


class Stand(App[None]):
    """Shows one list, and remembers what it said."""

    CSS = "RowList { width: 1fr; height: 1fr; }"

    def __init__(self, rows: Names) -> None:
        super().__init__()
        self.rows = rows
        self.heard: list[Message] = []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return meanings(self.current_theme)

    def compose(self) -> ComposeResult:
        yield self.rows

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        self.heard.append(message)

    def on_row_list_sorted(self, message: RowList.Sorted) -> None:
        self.heard.append(message)


class Hands:
    """A list on a screen, and the hands on its keys."""

    def __init__(self, app: Stand, pilot: Pilot[None]) -> None:
        self.app = app
        self.rows = app.rows
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    @property
    def lines(self) -> list[str]:
        return screen_text(self.app).splitlines()

    def line(self, text: str) -> str:
        return next(line for line in self.lines if text in line)


@asynccontextmanager
async def shown(
    rows: Names | None = None,
    names: tuple[str, ...] = ("anna", "bert", "carl", "dora"),
    size: tuple[int, int] = (60, 10),
) -> AsyncIterator[Hands]:
    app = Stand(rows or Names())
    async with asyncio.timeout(30), app.run_test(size=size) as pilot:
        app.rows.put(names)
        await pilot.pause()
        app.heard.clear()
        yield Hands(app, pilot)


# -- marks -----------------------------------------------------------------------------------


async def test_a_mark_is_shown_beside_the_row_and_the_cursor_goes_on() -> None:
    async with shown() as at:
        at.rows.toggle_mark()
        at.rows.toggle_mark()
        await at.pilot.pause()
        assert list(at.rows.marked) == ["anna", "bert"]
        assert at.line("anna").startswith(f" {MARK}a  anna")
        assert at.line("carl").startswith("▌ c  carl")
        assert any(isinstance(message, RowList.Moved) for message in at.app.heard)


async def test_the_row_under_the_cursor_shows_its_mark_too() -> None:
    async with shown() as at:
        at.rows.toggle_mark()
        await at.press("k")
        assert at.line("anna").startswith(f"▌{MARK}a  anna")
        at.rows.toggle_mark()
        await at.press("k")
        assert list(at.rows.marked) == []
        assert MARK not in "".join(at.lines)


async def test_marks_stay_with_their_rows_while_rows_move_and_go() -> None:
    async with shown() as at:
        at.rows.toggle_mark()
        at.rows.put(("zoe", "dora", "carl", "anna"))
        await at.pilot.pause()
        assert at.line("anna")[1] == MARK
        assert at.line("zoe")[1] == " "
        at.rows.put(("zoe",))
        assert list(at.rows.marked) == ["anna"]
        at.rows.put(("anna", "zoe"))
        await at.pilot.pause()
        assert at.line("anna")[1] == MARK


async def test_marks_of_rows_that_are_gone_fall_when_the_owner_says_so() -> None:
    async with shown() as at:
        at.rows.mark_all(["dora", "anna", "far-away"])
        await at.pilot.pause()
        assert list(at.rows.marked) == ["dora", "anna", "far-away"]
        assert at.line("dora")[1] == at.line("anna")[1] == MARK
        at.app.heard.clear()
        at.rows.keep_marks({"anna", "dora"})
        assert list(at.rows.marked) == ["dora", "anna"]
        at.rows.clear_marks()
        at.rows.clear_marks()
        await at.pilot.pause()
        assert list(at.rows.marked) == []
        assert MARK not in "".join(at.lines)
        assert len(at.app.heard) == 2


async def test_an_empty_list_marks_nothing() -> None:
    async with shown(names=()) as at:
        at.rows.toggle_mark()
        assert list(at.rows.marked) == []


async def test_a_list_without_marks_keeps_no_room_for_them() -> None:
    async with shown(Unmarked()) as at:
        assert at.line("anna").startswith("▌a  anna")


def test_marks_keep_the_order_in_which_they_were_made() -> None:
    marks = Marks()
    for key in ("c", "a", "b", "a"):
        marks.toggle(key)
    assert list(marks.keys) == ["c", "b"]
    assert marks.add(["b", "x"])
    assert not marks.add(["x"])
    assert list(marks.keys) == ["c", "b", "x"]
    assert "x" in marks
    assert "a" not in marks
    assert marks.keep({"x", "c"})
    assert not marks.keep({"x", "c"})
    assert list(marks.keys) == ["c", "x"]
    assert marks.keep()
    assert list(marks.keys) == []


# -- sorting ---------------------------------------------------------------------------------


async def test_the_header_says_by_which_column_the_rows_are_sorted() -> None:
    async with shown() as at:
        at.rows.order = Order("agent")
        await at.pilot.pause()
        assert "agent▲" in at.lines[0]
        at.rows.order = Order("attempts", descending=True)
        await at.pilot.pause()
        assert "agent▲" not in at.lines[0]
        assert "try▼" in at.lines[0]
        where = {word: line.index(word) for line in at.lines[:1] for word in ("id", "agent", "try")}
        at.rows.order = Order()
        await at.pilot.pause()
        assert not {"▲", "▼"} & set(at.lines[0])
        assert where == {word: at.lines[0].index(word) for word in ("id", "agent", "try")}


@pytest.mark.parametrize(
    ("word", "order"),
    [("id", Order("id")), ("agent", Order("agent", descending=True)), ("try", Order("attempts"))],
)
async def test_a_click_on_a_title_asks_for_that_order(word: str, order: Order) -> None:
    async with shown() as at:
        at.rows.order = Order("agent")
        await at.pilot.pause()
        await at.pilot.click(Names, offset=(at.lines[0].index(word), 0))
        await at.pilot.pause()
        asked = [message.order for message in at.app.heard if isinstance(message, RowList.Sorted)]
        assert asked == [order]
        assert at.rows.order == Order("agent"), "the owner sorts, not the list"


async def test_a_click_on_a_title_that_sorts_nothing_does_nothing() -> None:
    async with shown() as at:
        for x in (0, 1, at.lines[0].index("note"), 59):
            await at.pilot.click(Names, offset=(x, 0))
        await at.pilot.pause()
        assert not [message for message in at.app.heard if isinstance(message, RowList.Sorted)]


def test_the_next_order_goes_through_the_columns_on_screen_and_back_to_the_lists_own() -> None:
    order, seen = Order(), []
    for _ in range(5):
        order = next_order(COLUMNS, order, {"agent"})
        seen.append(order.column)
    assert seen == ["id", "attempts", "", "id", "attempts"]
    assert next_order(COLUMNS, Order("gone")) == Order("id")
    assert next_order((), Order()) == Order()


def test_an_order_is_turned_by_picking_its_column_again() -> None:
    assert sorted_by(Order(), "id") == Order("id")
    assert sorted_by(Order("id"), "id") == Order("id", descending=True)
    assert sorted_by(Order("id", descending=True), "id") == Order("id")
    assert sorted_by(Order("id", descending=True), "agent") == Order("agent")
    assert reversed_order(Order("id")) == Order("id", descending=True)
    assert reversed_order(Order(descending=True)) == Order()


# -- columns ---------------------------------------------------------------------------------


async def test_hidden_columns_are_not_shown_and_come_back() -> None:
    async with shown() as at:
        at.rows.hidden = frozenset({"agent", "note"})
        await at.pilot.pause()
        assert "agent" not in at.lines[0]
        assert "codex" not in "".join(at.lines)
        assert "1/2" in at.line("anna")
        at.rows.hidden = frozenset()
        await at.pilot.pause()
        assert "codex" in at.line("anna")


async def test_columns_may_have_another_title_in_one_list() -> None:
    async with shown() as at:
        at.rows.columns = (*COLUMNS[:4], Column("remark", 4, fills=True, drop=3, name="note"))
        await at.pilot.pause()
        assert "remark" in at.lines[0]
        assert Names.COLUMNS is COLUMNS
        with pytest.raises(ValueError, match="5 columns"):
            at.rows.columns = COLUMNS[:2]


def test_columns_that_never_drop_cannot_be_hidden_and_one_always_stays() -> None:
    everything = {column.name for column in COLUMNS}
    assert visible(COLUMNS, everything) == [0, 1]
    loose = (Column("a", 3, drop=1), Column("b", 3, drop=2))
    assert visible(loose, {"a", "b"}) == [0]
    assert visible(loose, {"a"}) == [1]
    assert visible(()) == []
    assert fit(loose, [3, 3], 1, {"a"}) == [(1, 3)]


def test_a_column_is_called_by_its_title_unless_it_has_a_name() -> None:
    assert Column("agent", 3).name == "agent"
    assert Column("", 1, name="symbol").name == "symbol"


# -- the cursor ------------------------------------------------------------------------------


async def test_a_row_that_is_chosen_for_an_action_is_not_lost() -> None:
    async with shown() as at:
        at.rows.choose()
        at.rows.put(("zoe", "anna", "bert"))
        assert at.rows.current == "anna"


async def test_the_cursor_of_the_list_that_has_the_keys_looks_like_it_at_once() -> None:
    async with shown() as at:
        assert at.line("anna").startswith("▌")
        at.app.screen.set_focus(None)
        await at.pilot.pause()
        assert at.line("anna").startswith(" ")
        at.app.screen.set_focus(at.rows)
        await at.pilot.pause()
        assert at.line("anna").startswith("▌")


async def test_until_a_row_is_chosen_the_cursor_rests_at_the_top() -> None:
    async with shown() as at:
        at.rows.put(("zoe", "anna", "bert"))
        assert at.rows.current == "zoe"
        await at.press("j")
        at.rows.put(("yve", "zoe", "anna", "bert"))
        assert at.rows.current == "anna"


async def test_newest_rows_come_into_view_at_the_top_while_the_chosen_one_stays() -> None:
    names = tuple(f"run-{number:02d}" for number in range(40, 0, -1))
    async with shown(Newest(), names) as at:
        await at.press("j")
        at.rows.put(("run-42", "run-41", *names))
        await at.pilot.pause()
        assert at.rows.current == "run-39"
        assert "run-42" in at.lines[1]
        assert at.line("run-39").startswith("▌")
        at.rows.put((*(f"new-{number}" for number in range(9)), "run-42", "run-41", *names))
        await at.pilot.pause()
        assert at.line("run-39").startswith("▌")


async def test_a_list_keeps_its_place_under_the_eye_while_rows_come_above() -> None:
    names = tuple(f"run-{number:02d}" for number in range(40, 0, -1))
    async with shown(Names(), names) as at:
        await at.press("j")
        place = at.lines.index(at.line("run-39"))
        at.rows.put(("run-42", "run-41", *names))
        await at.pilot.pause()
        assert at.lines.index(at.line("run-39")) == place


async def test_a_key_looks_at_the_rows_on_screen_and_no_others() -> None:
    names = tuple(f"n{number}" for number in range(100_000))
    async with shown(names=names) as at:
        at.rows.mark_all(names)
        await at.pilot.pause()
        at.rows.looked_at = 0
        await at.press("j")
        at.rows.toggle_mark()
        at.rows.order = Order("id")
        await at.pilot.pause()
        assert len(at.rows.marked) == 99_999
        assert at.rows.looked_at < 100
