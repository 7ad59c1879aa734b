"""Windows of the long lists: what SQL picks and sorts is what plain Python picks and sorts."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import ManualClock
from support.lists import holds, picked, place_of, sorted_runs, sorted_tasks
from support.stores import a_dag, a_task, everything, opened

from engine.clock import to_iso
from engine.filters import (
    EVENT_FIELDS,
    OUTCOMES,
    RUN_FIELDS,
    STATES,
    TASK_FIELDS,
    TYPES,
    Fields,
    Filter,
    parse_filter,
)
from engine.model import EventType, RunOutcome, State
from engine.store.lookout import Lookout
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.views import IN_FILE, EventSpan, Order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator
    from pathlib import Path

    from support.stores import Opened

    from engine.files import Layout
    from engine.model import Event
    from engine.views import RunRow, TaskRow

T = TypeVar("T")

TASK_COLUMNS = (
    *("", "file", "id", "name", "agent", "worker", "try", "time", "priority", "state", "updated"),
)
RUN_COLUMNS = ("", "task", "agent", "worker", "try", "outcome", "started", "took")
TEXTS = (
    *("impl:T-004", "Impl", "Größe", "GRÖSSE", "Straße", "STRASSE", "σίσυφος", "ΣΊΣΥΦΟΣ"),
    *("100%", "a_b", "x' OR 1=1 --", '"quoted"', "two words", "new\nline", "\u212a", "[/]"),
)
WORDS = (
    *("impl", "größe", "ss", "straße", "SÍ", "Σ", "%", "_", "' OR", "--", "two w", "k", "["),
    *("codex", "claude-1", "upstream", "human", "failed", "timed", "error", "null", "zzz"),
)
PATTERNS = ("^impl", "e$", "ß", r"\\bor\\b", "^.{3}$", "codex-[12]", "a|e", "^$", "upstream$")
AGENTS = ("codex", "claude", "Codex")
WORKERS = ("codex-1", "codex-2", "claude-1")


@dataclass
class Shelf:
    """A store of rows made up at random, its queries, and all its rows as plain Python has them."""

    runner: asyncio.Runner
    queries: Queries
    clock: ManualClock
    tasks: list[TaskRow]
    runs: list[RunRow]
    events: list[Event]

    def get(self, query: Awaitable[T]) -> T:
        async def wait() -> T:
            return await query

        return self.runner.run(wait())

    def read(self, text: str, fields: Fields) -> Filter:
        return parse_filter(text, fields, now=self.clock.now())


def fill(layout: Layout, clock: ManualClock) -> None:
    """Put rows into an empty store, with every state, outcome and type, and with gaps."""
    dice = random.Random(7)
    moments = [clock.now() - timedelta(seconds=span) for span in range(0, 40_000, 997)]

    def moment() -> str:
        return to_iso(dice.choice(moments))

    def maybe(value: object) -> object:
        return dice.choice([None, value])

    tasks: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for n, (state, _) in enumerate(itertools.product(State, range(24))):
        ready = state is State.READY
        reasons = dice.sample(["human", "upstream", "removed"], dice.randint(1, 3))
        tasks.append(
            {
                "id": f"{dice.choice(TEXTS)}-{n}",
                "name": dice.choice(TEXTS),
                "agent": dice.choice(AGENTS),
                "state": state,
                "reasons": json.dumps(reasons if state is State.BLOCKED else []),
                "attempts": dice.randint(0, 3),
                "pending": dice.choice([0, 0, 1]) if ready else 0,
                "not_before": maybe(moment()) if ready else None,
                "ending": maybe("run") if ready else None,
                "error": maybe(dice.choice(TEXTS)),
                "created_at": moment(),
                "updated_at": moment(),
                "position": n // 2,
                "priority": dice.randint(-1, 1),
            }
        )
    for n in range(120):
        started = dice.choice(moments)
        outcome = maybe(dice.choice(list(RunOutcome)))
        runs.append(
            {
                "id": f"run-{n}",
                "task_id": dice.choice(tasks[:40])["id"],
                "agent": dice.choice(AGENTS),
                "worker_id": dice.choice(WORKERS),
                "attempt": dice.randint(1, 4),
                "outcome": outcome,
                "claimed_at": to_iso(started - timedelta(seconds=1)),
                "started_at": maybe(to_iso(started)),
                "ended_at": to_iso(started + timedelta(seconds=dice.choice([0.25, 90, 4000])))
                if outcome
                else None,
                "error": maybe(dice.choice(TEXTS)),
                "host_pid": 1,
                "host_started": "1",
            }
        )
    events: list[dict[str, Any]] = [
        {
            "seq": seq,
            "ts": moment(),
            "type": dice.choice(list(EventType)),
            "agent": maybe(dice.choice(AGENTS)),
            "worker_id": maybe(dice.choice(WORKERS)),
            "task_id": maybe(dice.choice(tasks)["id"]),
            "run_id": maybe("run-7"),
            "data": json.dumps(
                dice.choice(
                    [{}, {"retries": 1}, {dice.choice(["error", "note"]): dice.choice(TEXTS)}]
                )
            ),
        }
        for seq in range(1, 300)
        if seq % 50
    ]
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        for table, rows in (("tasks", tasks), ("runs", runs), ("events", events)):
            for row in rows:
                marks = ", ".join("?" * len(row))
                db.execute(
                    f"INSERT INTO {table}({', '.join(row)}) VALUES ({marks})", tuple(row.values())
                )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    clock = ManualClock()
    with asyncio.Runner() as runner:

        async def make() -> tuple[Reader, Shelf]:
            async with opened(tmp_path_factory.mktemp("shelf"), clock=clock) as it:
                layout = it.layout
            fill(layout, clock)
            reader = await Reader(layout.database).__aenter__()
            queries = Queries(reader, clock, lambda _: False)
            tasks = await queries.tasks(order=IN_FILE)
            runs = list(reversed(await queries.runs()))
            return reader, Shelf(runner, queries, clock, tasks, runs, await queries.events())

        reader, shelf = runner.run(make())
        yield shelf
        runner.run(reader.close())


def texts(fields: Fields) -> st.SearchStrategy[str]:
    """Filters as people type them, over what the shelf has and what it has not."""
    word = st.sampled_from(WORDS).map(json.dumps).map(lambda text: text.encode().decode())
    quoted = st.sampled_from([f'"{word}"' for word in WORDS])
    pattern = st.sampled_from([f"/{pattern.replace('/', chr(92) + '/')}/" for pattern in PATTERNS])
    values = {
        "state": st.lists(st.sampled_from(STATES), min_size=1, max_size=3).map(",".join),
        "outcome": st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3).map(",".join),
        "type": st.lists(st.sampled_from(TYPES), min_size=1, max_size=5).map(",".join),
        "agent": st.sampled_from([*AGENTS, "codex,claude", "nobody", "/^c/", "/x$/"]),
        "worker": st.sampled_from([*WORKERS, "codex-1,codex-2", "nobody", "/-1$/"]),
        "run": st.sampled_from(["run-7", "run-7,run-8", "nothing", "/7$/"]),
        "task": st.sampled_from(['"impl:T-004-0"', "/^impl/", "nothing"]),
        "took": st.sampled_from([">90s", "<90s", "<90.001s", ">250ms", "<251ms", ">1h"]),
    }
    moments = st.sampled_from(["1h", "3h", "5982s", "1970-01-01", "9999-12-30"])
    values |= dict.fromkeys(("after", "before"), moments)
    values |= dict.fromkeys(("id", "name", "why", "error"), st.one_of(quoted, pattern))
    terms = [quoted, word, pattern, *(values[f].map(f"{f}:{{}}".format) for f in fields.kinds)]
    negated = st.tuples(st.sampled_from(["", "!"]), st.one_of(terms)).map("".join)
    return st.lists(negated, min_size=1, max_size=3).map(" ".join)


@given(text=texts(TASK_FIELDS), column=st.sampled_from(TASK_COLUMNS), descending=st.booleans())
def test_sql_picks_the_tasks_that_the_words_mean(
    shelf: Shelf, text: str, column: str, descending: bool
) -> None:
    where, order = shelf.read(text, TASK_FIELDS), Order(column, descending)
    meant = picked(shelf.tasks, where)
    in_order = sorted_tasks(meant, order, shelf.clock.now())
    assert shelf.get(shelf.queries.tasks(where, order=order)) == in_order
    assert shelf.get(shelf.queries.count_tasks(where)) == len(meant)
    assert shelf.get(shelf.queries.task_ids(where)) == [task.id for task in meant]


@pytest.mark.parametrize("mark", ["", "!"])
@pytest.mark.parametrize("states", [*STATES, "ready,waiting", "waiting,done", "running,failed"])
def test_the_tallies_and_the_index_of_the_screen_know_every_state(
    shelf: Shelf, states: str, mark: str
) -> None:
    for more in ("", " agent:codex", " agent:!codex", " agent:/^C/", " !zzz"):
        where = shelf.read(f"{mark}state:{states}{more}", TASK_FIELDS)
        meant = picked(shelf.tasks, where)
        in_order = sorted_tasks(meant, Order(), shelf.clock.now())
        assert shelf.get(shelf.queries.tasks(where)) == in_order
        assert shelf.get(shelf.queries.count_tasks(where)) == len(meant)


@given(text=texts(RUN_FIELDS), column=st.sampled_from(RUN_COLUMNS), descending=st.booleans())
def test_sql_picks_the_runs_that_the_words_mean(
    shelf: Shelf, text: str, column: str, descending: bool
) -> None:
    where, order = shelf.read(text, RUN_FIELDS), Order(column, descending)
    in_order = sorted_runs(picked(shelf.runs, where), order)
    assert shelf.get(shelf.queries.runs(where=where, order=order)) == in_order
    assert shelf.get(shelf.queries.count_runs(where)) == len(in_order)


@given(text=texts(EVENT_FIELDS), after=st.integers(0, 300), count=st.integers(0, 300))
def test_sql_picks_the_events_that_the_words_mean(
    shelf: Shelf, text: str, after: int, count: int
) -> None:
    where = shelf.read(text, EVENT_FIELDS)
    meant = [one.seq for one in picked(shelf.events, where) if after < one.seq <= after + count]
    assert shelf.get(shelf.queries.event_seqs(where, after=after, upto=after + count)) == meant


@pytest.mark.parametrize(("column", "descending"), itertools.product(TASK_COLUMNS, [False, True]))
@pytest.mark.parametrize("text", ["", "state:ready,waiting,failed", "!agent:codex"])
def test_a_task_is_located_where_its_window_shows_it(
    shelf: Shelf, text: str, column: str, descending: bool
) -> None:
    where, order = shelf.read(text, TASK_FIELDS), Order(column, descending)
    rows = shelf.get(shelf.queries.tasks(where, order=order))
    ids = [row.id for row in rows]
    for task in shelf.tasks[::9]:
        found = shelf.get(shelf.queries.locate_task(where, task.id, order))
        assert found == (ids.index(task.id) if task.id in ids else None)
    window = shelf.get(shelf.queries.tasks(where, order=order, limit=7, offset=5))
    assert window == rows[5:12]
    assert shelf.get(shelf.queries.locate_task(where, "no such task", order)) is None


@pytest.mark.parametrize(("column", "descending"), itertools.product(RUN_COLUMNS, [False, True]))
@pytest.mark.parametrize("text", ["", "outcome:running,done", "!agent:codex"])
def test_a_run_is_located_where_its_window_shows_it(
    shelf: Shelf, text: str, column: str, descending: bool
) -> None:
    where, order = shelf.read(text, RUN_FIELDS), Order(column, descending)
    rows = shelf.get(shelf.queries.runs(where=where, order=order))
    for run in shelf.runs[::7]:
        found = shelf.get(shelf.queries.locate_run(where, run.id, order))
        assert found == place_of(run.id, rows)
    window = shelf.get(shelf.queries.runs(where=where, order=order, limit=7, offset=5))
    assert window == rows[5:12]
    assert shelf.get(shelf.queries.locate_run(where, "no such run", order)) is None


def test_the_runs_of_a_task_are_filtered_and_sorted_like_all(shelf: Shelf) -> None:
    ((task_id, _),) = Counter(run.task_id for run in shelf.runs).most_common(1)
    where = shelf.read("outcome:!running", RUN_FIELDS)
    mine = [run for run in picked(shelf.runs, where) if run.task_id == task_id]
    assert len(mine) > 1
    order = Order("took", descending=True)
    found = shelf.get(shelf.queries.runs(task_id, where=where, order=order))
    assert found == sorted_runs(mine, order)


def test_a_run_is_found_by_its_id(shelf: Shelf) -> None:
    assert shelf.get(shelf.queries.run("run-7")) == shelf.runs[7]
    assert shelf.get(shelf.queries.run("run-700")) is None


def test_spans_are_the_runs_that_went_on_between_two_moments(shelf: Shelf) -> None:
    now = shelf.clock.now()
    since, until = now - timedelta(hours=4), now - timedelta(hours=2)
    meant = [
        run
        for run in shelf.runs
        if run.claimed_at <= until and (run.ended_at is None or run.ended_at >= since)
    ]
    found = shelf.get(shelf.queries.spans(since, until))
    assert {run.id for run in found} == {run.id for run in meant}
    assert 0 < len(meant) < len(shelf.runs)
    assert [run.claimed_at for run in found] == sorted(run.claimed_at for run in meant)
    few = shelf.get(shelf.queries.spans(since, until, 3))
    assert {run.id for run in few} == {run.id for run in meant[-3:]}


def test_an_order_that_a_list_does_not_have_is_an_error_of_the_program(shelf: Shelf) -> None:
    with pytest.raises(ValueError, match="took"):
        shelf.get(shelf.queries.tasks(order=Order("took")))
    with pytest.raises(ValueError, match="updated"):
        shelf.get(shelf.queries.locate_run(None, "run-1", Order("updated")))


def test_events_are_read_by_their_numbers_and_gaps_are_left_out(shelf: Shelf) -> None:
    wanted = [299, 50, 3, 4, 1000, 3]
    found = shelf.get(shelf.queries.events_at(wanted))
    assert found == [one for one in shelf.events if one.seq in {3, 4, 299}]
    assert shelf.get(shelf.queries.events_at([])) == []
    many = list(range(1, 300))
    assert len(shelf.get(shelf.queries.events_at(many))) == len(shelf.events)


@pytest.mark.parametrize(
    ("seqs", "noted", "span"),
    [
        ([], "[[1, 2]]", EventSpan()),
        ([1, 2, 3], None, EventSpan(1, 3)),
        ([7, 8, 12], "[[9, 11]]", EventSpan(7, 12, ((9, 11),))),
        ([2, 5, 9], "[[6, 8], [3, 4]]", EventSpan(2, 9, ((3, 4), (6, 8)))),
        ([7, 8], "[[2, 3], [9, 9]]", EventSpan(7, 8)),
        ([7, 9], "no JSON", EventSpan(7, 9)),
    ],
)
async def test_which_events_there_are_is_told_by_both_ends_and_by_what_a_rebuild_lost(
    tmp_path: Path, seqs: list[int], noted: str | None, span: EventSpan
) -> None:
    async with opened(tmp_path) as it:
        with closing(sqlite3.connect(it.layout.database, isolation_level=None)) as db:
            for seq in seqs:
                row = (seq, to_iso(it.clock.now()), "RESET", "{}")
                db.execute("INSERT INTO events(seq, ts, type, data) VALUES (?, ?, ?, ?)", row)
            if noted is not None:
                db.execute("INSERT INTO meta VALUES ('lost', ?)", (noted,))
        async with Explaining(it.layout.database) as reader:
            reader.steps.clear()
            assert await Queries(reader, it.clock, lambda _: False).event_span() == span
            assert reader.steps
            assert not [step for step in reader.steps if step.startswith("SCAN events")]


def test_all_events_match_no_filter_and_chunks_add_up(shelf: Shelf) -> None:
    seqs = [
        seq
        for begin in range(0, 300, 70)
        for seq in shelf.get(
            shelf.queries.event_seqs(Filter(), after=begin, upto=min(begin + 70, 300))
        )
    ]
    assert seqs == [one.seq for one in shelf.events]


def test_what_is_null_does_not_have_a_value_and_so_passes_its_negation(shelf: Shelf) -> None:
    where = shelf.read("worker:!codex-1", TASK_FIELDS)
    never_run = {task.id for task in shelf.tasks if task.worker_id is None}
    assert never_run
    assert never_run <= set(shelf.get(shelf.queries.task_ids(where)))


@pytest.mark.parametrize(
    "text",
    ["'; DROP TABLE tasks; --", "' OR 1=1 --", '") OR 1', "%", "_", "?", ":now", "\\", "\x00"],
)
@pytest.mark.parametrize("field", ["", "id:", "agent:", "worker:", "why:"])
def test_what_looks_like_sql_is_only_text(shelf: Shelf, field: str, text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    where = shelf.read(f'{field}"{escaped}"', TASK_FIELDS)
    assert where.terms[0].value == text
    found = shelf.get(shelf.queries.tasks(where, order=IN_FILE))
    assert found == picked(shelf.tasks, where)
    assert len(found) < len(shelf.tasks)


async def test_a_pattern_that_would_hold_up_python_for_ever_takes_no_time(it: Opened) -> None:
    evil = "a" * 100
    await it.store.seed(a_dag(*[a_task(f"{evil}{n}!", name=evil + "!") for n in range(50)]))
    where = parse_filter("!/(a+)+$/ !/^(a|aa)+$/ !name:/(.*)*b/")
    async with Reader(it.layout.database) as reader:
        begun = time.process_time()
        found = await Queries(reader, it.clock, lambda _: False).task_ids(where)
        assert time.process_time() - begun < 2
    assert len(found) == 50


def test_a_filter_as_long_as_can_be_is_answered(shelf: Shelf) -> None:
    states = "state:" + ",".join(["failed"] * 1000)
    names = "agent:codex," + ",".join(f"n{n}" for n in range(900))
    for text in (states, names, " ".join(f"/a{n}?/" for n in range(100)), "x" * 10_000, "a " * 100):
        where = shelf.read(text, TASK_FIELDS)
        found = shelf.get(shelf.queries.tasks(where, order=IN_FILE))
        assert found == picked(shelf.tasks, where)


async def test_a_filter_changes_nothing(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    before = everything(it.layout)
    async with Reader(it.layout.database) as reader:
        queries = Queries(reader, it.clock, lambda _: False)
        assert await queries.task_ids(parse_filter("'); DELETE FROM tasks; --")) == []
        assert await queries.task_ids(parse_filter("/^[ab]$/")) == ["a", "b"]
    assert everything(it.layout) == before


class Explaining(Reader):
    """Notes how SQLite goes about what it is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.steps: list[str] = []

    async def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        values = list(parameters)
        if sql.startswith("SELECT"):
            self.steps += [
                row[3] for row in await super().rows(f"EXPLAIN QUERY PLAN {sql}", values)
            ]
        return await super().rows(sql, values)


@pytest.mark.parametrize(
    "text", ["", "state:failed", "state:!done", "state:ready,waiting agent:codex", "state:done x"]
)
async def test_what_a_screen_asks_again_and_again_is_a_walk_along_an_index(
    it: Opened, text: str
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    where = parse_filter(text)
    async with Explaining(it.layout.database) as reader:
        reader.steps.clear()
        queries = Queries(reader, it.clock, lambda _: False)
        await queries.tasks(where, limit=50, offset=1)
        await queries.locate_task(where, "b")
        assert any("on_screen" in step for step in reader.steps)
        assert "SCAN t" not in reader.steps
        if "state:" in text and "!" not in text:  # only that stretch of it
            assert not [step for step in reader.steps if step.startswith("SCAN t ")]
        sorting = [step for step in reader.steps if "TEMP B-TREE" in step]
        assert len(sorting) <= 1  # of the few rows that are shown


async def test_who_works_is_told_without_a_look_at_every_task(it: Opened) -> None:
    async with Explaining(it.layout.database) as reader:
        reader.steps.clear()
        queries, lookout = Queries(reader, it.clock, lambda _: True), Lookout(reader, it.clock)
        await queries.workers()
        await queries.progress()
        await lookout.workers()
        await lookout.idle_live()
        await lookout.active()
        assert len(reader.steps) > 9
        # An index that SQLite makes for one statement reads the whole table each time.
        assert not [step for step in reader.steps if "AUTOMATIC" in step]
        scans = [step.removeprefix("SCAN ") for step in reader.steps if step.startswith("SCAN ")]
        assert not {"t", "tasks"} & {*scans}


def test_every_kind_of_term_holds_for_some_rows_and_not_for_others(shelf: Shelf) -> None:
    """The rows made up at random are worth comparing: no term is true of all, or of none."""
    rows: dict[Fields | str, Any] = {}
    for text, fields, found in (
        ("größe", TASK_FIELDS, shelf.tasks),
        ("why:human", TASK_FIELDS, shelf.tasks),
        ("state:waiting", TASK_FIELDS, shelf.tasks),
        ("state:ready", TASK_FIELDS, shelf.tasks),
        ("worker:codex-1", TASK_FIELDS, shelf.tasks),
        ("took:>90s", RUN_FIELDS, shelf.runs),
        ("outcome:timed-out", RUN_FIELDS, shelf.runs),
        ("after:3h", RUN_FIELDS, shelf.runs),
        ("größe", EVENT_FIELDS, shelf.events),
        ("type:failed", EVENT_FIELDS, shelf.events),
    ):
        (term,) = shelf.read(text, fields).terms
        rows[text] = [holds(row, term) for row in found]
    assert all(any(held) and not all(held) for held in rows.values()), rows
