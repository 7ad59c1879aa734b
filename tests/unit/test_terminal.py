"""What the terminal's driver does with the signals that suspend and resume it."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tui.terminal import TitleBar


class Driver:
    """Notes what a signal makes it do, as Textual's driver for Linux does it in its handlers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, at_once: bool = False) -> None:
        self._loop = loop
        self.done: list[str] = []
        if at_once:
            self._sigcont_application()

    def _sigtstp_application(self, *_: object) -> None:
        self.done.append("suspended")

    def _sigcont_application(self, *_: object) -> None:
        self.done.append("resumed")


def titled(loop: asyncio.AbstractEventLoop, *, at_once: bool = False) -> Any:
    made: Any = TitleBar().driver_class(Driver)  # type: ignore[arg-type]  # no driver, but its likeness
    return made(loop, at_once=at_once)


@pytest.mark.parametrize(
    ("handler", "does"),
    [("_sigtstp_application", "suspended"), ("_sigcont_application", "resumed")],
)
async def test_a_signal_interrupts_nothing_that_is_written(handler: str, does: str) -> None:
    driver = titled(asyncio.get_running_loop())
    before = signal.signal(signal.SIGUSR1, getattr(driver, handler))
    try:
        for n in (1, 2):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
            assert len(driver.done) == n - 1
            await asyncio.sleep(0)
            assert driver.done == [does] * n
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_signals_are_answered_in_their_order() -> None:
    driver = titled(asyncio.get_running_loop())
    for handler in (driver._sigtstp_application, driver._sigcont_application) * 2:
        handler()
    await asyncio.sleep(0)
    assert driver.done == ["suspended", "resumed"] * 2


async def test_a_signal_at_the_very_beginning_is_answered() -> None:
    driver = titled(asyncio.get_running_loop(), at_once=True)
    await asyncio.sleep(0)
    assert driver.done == ["resumed"]


def test_a_signal_at_the_very_end_does_nothing() -> None:
    loop = asyncio.new_event_loop()
    driver = titled(loop)
    loop.close()
    driver._sigcont_application()
    assert driver.done == []
