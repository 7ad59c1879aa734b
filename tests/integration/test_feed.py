"""Promises of the feed: whoever listens is told of every commit, whoever made it, and soon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from support.engines import until
from support.patience import PATIENCE
from support.stores import Opened, opened

from engine import feed as feed_module
from engine.errors import StorageError
from engine.feed import Feed
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it


@pytest.fixture
async def reader(it: Opened) -> AsyncIterator[Reader]:
    async with Reader(it.layout.database) as reader:
        yield reader


@pytest.fixture
async def feed(it: Opened, reader: Reader) -> AsyncIterator[Feed]:
    feed = Feed(reader, it.layout.database)
    await feed.open()
    yield feed
    await feed.close()


async def heard(event: asyncio.Event) -> float:
    """Wait for the next news; return the seconds that took."""
    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        await event.wait()
    event.clear()
    return time.monotonic() - begun


async def quiet(event: asyncio.Event) -> None:
    """Let the news of before come in, until two looks of the feed brought none."""
    silent = time.monotonic()
    while time.monotonic() - silent < 3 * feed_module.POLL:
        if event.is_set():
            silent = time.monotonic()
        event.clear()
        await asyncio.sleep(feed_module.POLL / 5)


async def test_a_subscriber_is_told_at_once_and_after_each_commit_of_another_process(
    it: Opened, feed: Feed
) -> None:
    async with feed.subscribe() as event:
        assert event.is_set(), "what is there already must be looked at"
        await quiet(event)
        for n in range(3):
            await it.store.hold(f"agent-{n}")
            assert await heard(event) < 1
            await quiet(event)


async def test_nobody_is_told_when_nothing_happens(feed: Feed) -> None:
    async with feed.subscribe() as event:
        await quiet(event)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 4 * feed_module.POLL)


async def test_what_this_process_publishes_is_told_to_all_without_waiting(
    it: Opened, reader: Reader
) -> None:
    feed = Feed(reader, it.layout.database)  # not opened: it does not look by itself
    async with feed.subscribe() as one, feed.subscribe() as other:
        one.clear()
        other.clear()
        feed.publish()
        assert one.is_set()
        assert other.is_set()
    feed.publish()
    one.clear()
    feed.publish()
    assert not one.is_set(), "whoever left is told no more"


async def test_a_slow_listener_misses_no_news_but_only_repeats(it: Opened, feed: Feed) -> None:
    seen: list[int] = []

    async def slow() -> None:
        async for _ in feed.changes():
            rows = await feed._reader.rows("SELECT count(*) FROM holds")
            seen.append(rows[0][0])
            await asyncio.sleep(0.02)

    listener = asyncio.create_task(slow())
    for n in range(50):
        await it.store.hold(f"agent-{n}")
        feed.publish()
    await until(lambda: seen and seen[-1] == 50, "the last state was seen")
    assert len(seen) < 50, "many commits are told as one"
    assert seen == sorted(seen)
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener


@pytest.mark.parametrize("error", [StorageError("disk I/O error"), ValueError("a bug")])
async def test_trouble_with_the_store_is_told_and_survived(
    it: Opened, reader: Reader, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(feed_module, "_AFTER_TROUBLE", 0.01)
    version, trouble = reader.data_version, True

    async def sometimes() -> int:
        if trouble:
            raise error
        return await version()

    monkeypatch.setattr(reader, "data_version", sometimes)
    feed = Feed(reader, it.layout.database)
    await feed.open()
    async with feed.subscribe() as event:
        event.clear()
        await heard(event)
        trouble = False
        await quiet(event)
        await it.store.hold("codex")
        await heard(event)
    await feed.close()
    await feed.close()
