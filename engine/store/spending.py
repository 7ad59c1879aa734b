"""What runs cost: noted as they tell it, summed by agent, and held against the budget.

The budget is one for all processes of a state folder: it stands in `meta`, written by whoever
starts workers or resumes claims with the settings of that moment.

What a run costs is known when it is over, so a budget is kept by estimate: a run is taken to cost
what those of its agent that are over cost on average, one at work at least what it has told. So
is one that took tokens and never told their cost, as one that was killed. Before any has told a
cost there is no estimate, so such a first one works alone; an agent that tells none works so on,
and a person is told to give its prices.

Whatever takes a transaction is called inside one, on the writer's thread.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.errors import CommandNotAllowed, StorageError
from engine.model import ALL_AGENTS, Budget, HoldCause, Spending, to_json
from engine.narrate import how_lifted
from engine.store import roster
from engine.store.held import tell_late
from engine.store.transaction import dump
from engine.text import money

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from sqlite3 import Connection
    from typing import Any

    from engine.store.transaction import Transaction

BUDGET = "budget"
"""The key in `meta` of the budget, as JSON; none: there is no budget."""
COSTLY = "agent"
"""The kind of tasks whose runs cost money."""
MOST_TOKENS = 10**12
"""No run takes more of anything that is counted: what is more was misread, and sums stay exact."""
MOST_DOLLARS = 1e6
"""No run costs more: what is more was misread, but a budget must not miss it."""
SPENT = "SELECT agent, runs, priced, unpriced, free, cost FROM spent"
AT_WORK = (
    "SELECT coalesce(r.agent, t.agent), r.cost,"
    " r.cost IS NULL AND coalesce(r.input_tokens, 0) + coalesce(r.output_tokens, 0) > 0"
    " FROM tasks t LEFT JOIN runs r ON r.id = t.run_id"
    f" WHERE t.state IN ('CLAIMED', 'RUNNING') AND json_extract(t.payload, '$.kind') = '{COSTLY}'"
)
"""The agents of the runs at work that cost money, each with what it has told of that.

And whether it told tokens, but no cost of them.
"""

_COLUMNS = ("turns", "input_tokens", "cached_tokens", "output_tokens", "cost")
_NAMES = tuple(to_json(Spending()))
_KNOWN = f"SELECT agent, {', '.join(_COLUMNS)} FROM runs WHERE id = ?"
# The row of a run goes with its task; then the log alone tells whose it was, and what it has told.
_PURGED = (
    "SELECT agent, (SELECT json_extract(t.data, '$.spending') FROM events t"
    "  WHERE t.task_id = ?2 AND t.run_id = ?1 AND json_type(t.data, '$.spending') = 'object'"
    "  ORDER BY t.seq DESC LIMIT 1)"
    " FROM events WHERE task_id = ?2 AND run_id = ?1 AND type = 'TASK_CLAIMED'"
)
_NOTE = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE id = ?"
# Costs are whole millionths: so a sum is the same in whatever order it was made.
_ADD = (
    "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(agent) DO UPDATE SET"
    " runs = runs + excluded.runs, priced = priced + excluded.priced,"
    " unpriced = unpriced + excluded.unpriced, free = free + excluded.free,"
    " input_tokens = input_tokens + excluded.input_tokens,"
    " cached_tokens = cached_tokens + excluded.cached_tokens,"
    " output_tokens = output_tokens + excluded.output_tokens,"
    " cost = round(cost + excluded.cost, 6)"
)
_COLUMNS_BEFORE = "input_tokens, cached_tokens, output_tokens, cost"
_KEEP = (
    f"INSERT INTO spent_before SELECT agent, {_COLUMNS_BEFORE} FROM spent WHERE true"
    " ON CONFLICT(agent) DO UPDATE SET input_tokens = input_tokens + excluded.input_tokens,"
    " cached_tokens = cached_tokens + excluded.cached_tokens,"
    " output_tokens = output_tokens + excluded.output_tokens,"
    " cost = round(cost + excluded.cost, 6)"
)
SPENT_EVER = (
    "SELECT agent, sum(input_tokens), sum(cached_tokens), sum(output_tokens), round(sum(cost), 6)"
    f" FROM (SELECT agent, {_COLUMNS_BEFORE} FROM spent UNION ALL"
    f" SELECT agent, {_COLUMNS_BEFORE} FROM spent_before) GROUP BY agent ORDER BY agent"
)
"""What each agent ever took, before and after resets."""
_HAIR = 5e-7
"""Dollars by which means, which are no whole millionths, may be off."""


class Account(Struct, frozen=True):
    """How an agent stands, in US dollars. `mean`: of a run that is over; None: nobody knows yet.

    `spent` has that mean for each run that is over and told no cost, `silent` counts these.

    `coming` is what the runs at work may still cost beyond what they have told, and `at_work` how
    many they are.
    """

    spent: float = 0.0
    mean: float | None = None
    coming: float = 0.0
    at_work: int = 0
    silent: int = 0


def note(
    tx: Transaction, run_id: str, task_id: str, spending: Spending, *, over: bool = False
) -> dict[str, Any]:
    """Note what a run has taken until now, in all; return what it has told, as its event has it.

    What was told before and is not told now stays, and money that is spent stays so; what cannot
    be so (less than nothing, not a number) counts as not told. `over`: a run that is over is
    counted. Otherwise what is no news returns nothing, and nothing must be told of it.
    """
    tx.flush_runs()
    found = _known(tx, run_id, task_id)
    if found is None:
        return {}
    agent, known = found
    now = [old if new is None else new for old, new in zip(known, _sound(spending), strict=True)]
    now[-1] = max(now[-1] or 0.0, known[-1]) if known[-1] else now[-1]
    if now == known and not over:
        return {}
    tx.db.execute(_NOTE, (*now, run_id))
    added = [round((new or 0) - (old or 0), 6) for old, new in zip(known[1:], now[1:], strict=True)]
    priced = bool(now[-1]) - bool(known[-1])
    unpriced = _told_tokens(now, None) - _told_tokens(known, None)
    free = _told_tokens(now, 0) - _told_tokens(known, 0)
    tx.db.execute(_ADD, (agent, int(over), priced, unpriced, free, *added))
    return {name: value for name, value in zip(_NAMES, now, strict=True) if value is not None}


def note_late(tx: Transaction, run_id: str, task_id: str, spending: Spending | None) -> None:
    """Note what a run has taken that can report nothing else any more; its money is spent."""
    told = note(tx, run_id, task_id, spending) if spending is not None else {}
    if told:
        tell_late(tx, run_id, task_id, {"spending": told})


def _known(tx: Transaction, run_id: str, task_id: str) -> tuple[str, list[Any]] | None:
    """Return the agent of a run and what it has told, in the order of _COLUMNS."""
    row = tx.db.execute(_KNOWN, (run_id,)).fetchone()
    if row is not None:
        return row[0], list(row[1:])
    row = tx.db.execute(_PURGED, (run_id, task_id)).fetchone()
    if row is None:
        return None
    told = json.loads(row[1] or "{}")
    return row[0], [told.get(name) for name in _NAMES]


def _told_tokens(told: list[Any], its_cost: float | None) -> bool:
    _, read, _, written, cost = told
    return cost == its_cost and bool(read or written)


def _sound(spending: Spending) -> list[int | float | None]:
    """Return what of it can be so. Executors of other packages report, too."""
    counts: list[int | float | None] = [
        value if type(value) is int and 0 <= value <= MOST_TOKENS else None
        for value in (getattr(spending, name) for name in _COLUMNS[:-1])
    ]
    cost = spending.cost
    if type(cost) not in {int, float} or cost is None or not cost >= 0:
        return [*counts, None]
    return [*counts, round(min(float(cost), MOST_DOLLARS), 6)]


def accounts(
    spent: Iterable[tuple[str, int, int, int, int, float]],
    at_work: Iterable[tuple[str, float | None, int]],
) -> dict[str, Account]:
    """Return how each agent stands, from the rows of SPENT and AT_WORK."""
    told: dict[str, list[float]] = {}
    unpriced: Counter[str] = Counter()
    for agent, cost, silent in at_work:
        told.setdefault(agent, []).append(cost or 0.0)
        unpriced[agent] += silent
    sums = {row[0]: row[1:] for row in spent}
    found = {}
    for agent in sums.keys() | told.keys():
        runs, priced, silent, free, cost = sums.get(agent, (0, 0, 0, 0, 0.0))
        now = told.get(agent, [])
        over = priced - sum(one > 0 for one in now)
        silent -= unpriced[agent]
        mean = None
        if over > 0:
            mean = max(0.0, cost - sum(now)) / over
        elif free or (runs and not silent):
            mean = 0.0  # nothing else can be expected
        coming = sum(max(0.0, (mean or 0.0) - one) for one in now)
        found[agent] = Account(cost + silent * (mean or 0.0), mean, coming, len(now), silent)
    return found


def why_spent(
    found: Mapping[str, Account], budget: Budget, agent: str, *, costly: bool = True
) -> str | None:
    """Say why one more run of an agent could pass a budget; None: it could not.

    A task that is not `costly` may begin as long as anything is left.
    """
    mine = found.get(agent, Account())
    next_one = mine.mean or 0.0
    for limit, whose, those in (
        (budget.agents.get(agent), f"of {agent}", [mine]),
        (budget.total, "of all agents", list(found.values())),
    ):
        if limit is None:
            continue
        costs = sum(one.spent for one in those)
        coming = sum(one.coming for one in those)
        full = costs >= limit - _HAIR
        if full or (costly and costs + coming + next_one > limit + _HAIR):
            at_work = f", runs at work may take {money(coming)} more" if coming else ""
            one = f", the next one about {money(next_one)}" if next_one else ""
            return f"{money(costs)} of the {money(limit)} {whose} are spent{at_work}{one}"
    return None


def must_wait(found: Mapping[str, Account], budget: Budget, agent: str) -> str | None:
    """Return the agent whose first run has to be over before one of this agent may begin.

    What that costs is not known before; so of all whose cost is not known one works at a time.
    """
    if found.get(agent, Account()).mean is not None:
        return None
    those = [agent] if budget.total is None else sorted(found, key=lambda one: one != agent)
    return next((one for one in those if _is_unknown(found.get(one, Account()))), None)


def _is_unknown(account: Account) -> bool:
    return account.mean is None and account.at_work > 0


def may_begin(tx: Transaction, agent: str, budget: Budget, *, costly: bool) -> bool:
    """Say whether one more run may begin. If it could pass the budget, claims are held."""
    found = _accounts(tx)
    reason = why_spent(found, budget, agent, costly=costly)
    if reason is not None:
        roster.hold(tx, agent=agent, cause=HoldCause.BUDGET, reason=reason)
        return False
    return not (costly and must_wait(found, budget, agent))


def _accounts(tx: Transaction) -> dict[str, Account]:
    return accounts(tx.db.execute(SPENT), tx.db.execute(AT_WORK))


def unpriced(db: Connection) -> dict[str, int]:
    """Return the agents that a budget concerns and cannot count: how many runs told no cost."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (BUDGET,)).fetchone()
    if row is None:
        return {}
    found = accounts(db.execute(SPENT), db.execute(AT_WORK))
    silent = {agent: one.silent for agent, one in found.items() if one.silent and one.mean is None}
    try:
        return {agent: runs for agent, runs in sorted(silent.items()) if budget_of(row[0], agent)}
    except StorageError:
        return {}  # whoever claims says so


def budget_of(text: str | None, agent: str) -> Budget | None:
    """Return the budget that a value of `meta` tells, None if it does not concern an agent.

    Raises:
        StorageError: somebody has edited it.

    """
    if text is None:
        return None
    try:
        told = json.loads(text)
        budget = Budget(told["total"], told["agents"])
        concerns = budget.total is not None or agent in budget.agents
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "the budget in the store cannot be read; whoever starts workers writes it anew"
        ) from error
    return budget if concerns else None


def set_budget(tx: Transaction, *, budget: Budget) -> list[str]:
    """Let a budget count from now on, for every process; return the agents that it frees.

    Those are the ones that a smaller one had held.
    """
    if budget.total is None and not budget.agents:
        tx.db.execute("DELETE FROM meta WHERE key = ?", (BUDGET,))
    else:
        text = dump({"total": budget.total, "agents": dict(sorted(budget.agents.items()))})
        tx.db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (BUDGET, text),
        )
    tx.rules.clear()
    held = _held(tx)
    found = _accounts(tx) if held else {}
    free = [agent for agent in held if why_spent(found, budget, agent) is None]
    for agent in free:
        roster.lift(tx, agent=agent)
    return free


def _held(tx: Transaction) -> dict[str, str]:
    """Return the agents that a budget holds, each with the reason."""
    rows = tx.db.execute("SELECT agent, reason FROM holds WHERE cause = ?", (HoldCause.BUDGET,))
    return dict(rows.fetchall())


def resume(tx: Transaction, *, agent: str, budget: Budget | None = None) -> bool:
    """Lift a hold, or (`*`) all; but not where the next claim would be held again by the budget.

    `budget`: that of today's settings, None: the one that counted until now. False: nothing was
    held.

    Raises:
        CommandNotAllowed: the budget holds the agent, or all that are held.

    """
    free = [] if budget is None else set_budget(tx, budget=budget)
    spent = _held(tx) if budget is not None else {}
    everything = agent == ALL_AGENTS
    if agent in spent:
        raise _still_spent(agent, spent[agent])
    lifted = roster.resume(tx, agent=agent, but=spent) or agent in free or (everything and free)
    if everything and spent and not lifted:
        raise _still_spent(*next(iter(spent.items())))
    return bool(lifted)


def _still_spent(agent: str, reason: str) -> CommandNotAllowed:
    lifted = how_lifted(HoldCause.BUDGET, agent)
    return CommandNotAllowed(f"claims of {agent} stay held: {reason}; {lifted}")


def forget_all(tx: Transaction) -> None:
    """Begin to count anew, as a reset does; what a budget held goes on."""
    tx.db.execute(_KEEP)
    tx.db.execute("DELETE FROM spent")
    for agent in _held(tx):
        roster.lift(tx, agent=agent)
