"""What is looked at beside the picture: no more often than it must be, and never for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace
from support.screens import NOW, FakeEngine

from engine.errors import StorageError
from engine.views import AttentionRow, CriticalPath, Need, Usage
from tui.aside import NEEDS_EVERY, PATH_EVERY, USAGE_AFTER, Aside

NEED = AttentionRow("k", Need.HUMAN, "a", NOW, "it needs you")


@dataclass
class Counting:
    """Counts what is asked of a fake engine."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    asked: list[str] = field(default_factory=list)

    def aside(self) -> Aside:
        fake = self.engine
        attention, path = fake.attention, fake.queries.critical_path

        async def needs() -> list[AttentionRow]:
            self.asked.append("needs")
            return await attention()

        async def critical_path() -> CriticalPath:
            self.asked.append("path")
            return await path()

        fake.attention = needs  # type: ignore[method-assign]  # counted
        fake.queries.critical_path = critical_path  # type: ignore[method-assign]  # counted
        return Aside(fake)

    async def later(self, seconds: float) -> None:
        await self.engine.clock.sleep(seconds)


async def test_all_is_looked_at_first_and_then_only_what_may_have_changed() -> None:
    it = Counting()
    it.engine.needs = [NEED]
    aside = it.aside()
    assert await aside.look()
    assert aside.facts.needs == (NEED,)
    assert it.asked == ["needs", "path"]
    assert not await aside.look()
    assert it.asked == ["needs", "path"]
    await it.later(NEEDS_EVERY)
    await aside.look()
    assert it.asked == ["needs", "path", "needs"]
    aside.changed()
    await aside.look()
    assert it.asked == ["needs", "path", "needs", "needs"]
    await it.later(PATH_EVERY)
    await aside.look()
    assert it.asked[-2:] == ["needs", "path"]


async def test_the_path_is_not_looked_for_again_while_nothing_changes() -> None:
    it = Counting()
    aside = it.aside()
    await aside.look()
    await it.later(2 * PATH_EVERY)
    await aside.look()
    assert it.asked.count("path") == 1
    aside.changed()
    await aside.look()
    assert it.asked.count("path") == 2


async def test_processes_that_cannot_be_looked_at_hide_nobody_who_needs_somebody() -> None:
    it = Counting()
    it.engine.needs = [NEED]
    aside = it.aside()

    async def fails() -> dict[str, Usage]:
        raise StorageError("the processes cannot be looked at")

    it.engine.usage = fails  # type: ignore[method-assign]  # fails
    await aside.look()
    assert aside.facts.needs == (NEED,)


async def test_usage_is_always_fresh() -> None:
    it = Counting()
    aside = it.aside()
    await aside.look()
    it.engine.used = {"run": Usage(12.0, 1024, 2)}
    assert await aside.look()
    assert aside.facts.usage["run"].processes == 2
    await it.later(2 * USAGE_AFTER)
    it.engine.used = {"run": Usage(12.0, 1024, 3)}
    assert await aside.look()
    assert aside.facts.usage["run"].processes == 3


async def test_processes_are_not_looked_for_where_nothing_has_begun_for_long() -> None:
    it = Counting()
    aside = it.aside()
    await it.later(USAGE_AFTER)
    it.engine.used = {"run": Usage(12.0, 1024, 2)}
    await aside.look()
    assert not aside.facts.usage
    aside.changed()
    await aside.look()
    assert aside.facts.usage


async def test_what_cannot_be_looked_at_stays_as_it_was_and_is_tried_again() -> None:
    it = Counting()
    it.engine.needs = [NEED]
    aside = it.aside()
    await aside.look()
    before = aside.facts

    async def fails() -> list[AttentionRow]:
        raise StorageError("locked")

    works, it.engine.attention = it.engine.attention, fails  # type: ignore[method-assign]  # once
    aside.changed()
    assert not await aside.look()
    assert aside.facts == before
    it.engine.attention = works  # type: ignore[method-assign]  # as it was
    it.engine.needs = [NEED, replace(NEED, key="other")]
    assert await aside.look()
    assert len(aside.facts.needs) == 2
