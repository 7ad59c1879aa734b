"""Agents that somebody else has started, below the workers: shown, ended, forgotten."""

from __future__ import annotations

import pytest
from support.desk import desk
from support.screens import FakeQueries, busy, external

from engine.commands import KillWorkers, Receipt, UnregisterAgents
from tui.screens.external import ExternalScreen
from tui.screens.main import MainScreen
from tui.screens.question import Question

LAST = ("1", "G")
"""Keys to the last row of the workers: an external agent."""
ENDED = Receipt(done={"helper-1": "ended"}, counts={"agents ended": 1})


def visited() -> FakeQueries:
    """The busy fleet with two external agents."""
    queries = busy()
    queries.all_externals = [
        external("cursor-9", type="cursor"),
        external("helper-1", pid=6201, tmux="dev:helper", meta={"branch": "main", "who": "ann"}),
    ]
    return queries


async def test_external_agents_stand_below_the_workers_and_are_counted() -> None:
    async with desk(visited(), size=(200, 60)) as at:
        assert "1 Workers  2 external" in at.screen
        assert "4 of 6 busy" in at.screen, "they are no workers of ours"
        row = next(line for line in at.lines if "helper-1" in line)
        assert "◇  helper-1  claude  external pid 6201" in row
        assert "branch=main who=ann" in row


async def test_one_that_comes_and_goes_is_seen() -> None:
    queries = visited()
    async with desk(queries, size=(200, 60)) as at:
        queries.all_externals = queries.all_externals[:1]
        await at.change()
        assert "helper-1" not in at.screen
        assert "1 external" in at.screen


async def test_enter_tells_all_that_is_known_of_it() -> None:
    queries = visited()
    async with desk(queries) as at:
        await at.press(*LAST, "enter")
        assert at.shows(ExternalScreen)
        for words in ("claude", "pid 6201, tmux dev:helper", "branch", "main", "ann", "30:00 ago"):
            assert words in at.screen
        assert at.footer.split()[:4] == ["K", "end", "D", "forget"]
        queries.all_externals = []
        await at.change()
        assert "registered no more" in at.screen
        assert "dev:helper" in at.screen, "as it was seen last"
        await at.press("K", "escape")
        assert at.shows(MainScreen)
        assert at.engine.dry_runs == []


@pytest.mark.parametrize("way", [LAST, (*LAST, "enter")], ids=["row", "screen"])
async def test_k_asks_and_ends_it(way: tuple[str, ...]) -> None:
    async with desk(visited()) as at:
        at.engine.receipt = ENDED
        await at.press(*way, "K")
        assert at.shows(Question)
        assert at.engine.dry_runs == [UnregisterAgents(("helper-1",), end=True)]
        for words in ("1 agent ended", "process 6201 gets SIGTERM, and after 5s SIGKILL"):
            assert words in at.screen
        assert "the window dev:helper of tmux is closed, with all that runs in it" in at.screen
        await at.press("y")
        assert at.engine.commands == [UnregisterAgents(("helper-1",), end=True)]
        assert at.toasts == ["helper-1: ended"]


async def test_d_asks_and_forgets_it_and_it_goes_on() -> None:
    async with desk(visited()) as at:
        at.engine.receipt = Receipt(
            done={"helper-1": "registered no more"}, counts={"agents forgotten": 1}
        )
        await at.press(*LAST, "D")
        assert "1 agent forgotten" in at.screen
        assert "helper-1 itself goes on: pid 6201, tmux dev:helper" in at.screen
        await at.press("y")
        assert at.engine.commands == [UnregisterAgents(("helper-1",))]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("s", "helper-1 is no worker of this fleet: K ends it, D forgets it"),
        ("u", "helper-1 holds no task"),
        ("c", "helper-1 holds no task"),
        ("r", "choose a task first"),
        ("l", "helper-1 holds no task"),
        ("w", "no worker here to show"),
        ("space", "external agents are ended and forgotten one by one"),
    ],
)
async def test_what_only_workers_can_is_refused_with_the_reason(key: str, why: str) -> None:
    async with desk(visited()) as at:
        await at.press(*LAST, key)
        assert at.toasts == [why]
        assert at.engine.commands == []


async def test_marks_are_for_workers_and_go_before_the_row() -> None:
    async with desk(visited()) as at:
        await at.press("1", "space", "G", "K")
        assert at.engine.dry_runs == [KillWorkers(("claude-1",))]
        await at.press("n", "D")
        assert "the marks are on workers" in at.toasts[-1]


async def test_who_only_watches_ends_nobody() -> None:
    async with desk(visited(), watching=True) as at:
        await at.press(*LAST, "K", "D")
        assert at.engine.dry_runs == []
        assert set(at.toasts) == {"this dashboard only watches; start it without --watch to steer"}


async def test_nothing_that_is_told_of_one_acts_on_the_terminal() -> None:
    queries = busy()
    queries.all_externals = [
        external("bad", type="x\x1b[2J", tmux="a\x07:b", meta={"k": "\x1b]52;c;x\x07\u202e"})
    ]
    async with desk(queries, size=(200, 60)) as at:
        shown = [at.screen]
        await at.press(*LAST, "enter")
        shown.append(at.screen)
        await at.press("K")
        shown.append(at.screen)
        assert all(line.isprintable() for one in shown for line in one.splitlines())
