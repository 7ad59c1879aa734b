"""What doctor finds in a state folder, and what `doctor --repair` mends of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support.patience import PATIENCE
from support.program import agentmux

from engine.care.inspection import inspect
from engine.core import Engine
from engine.findings import Finding, Level
from engine.store.audit import audit

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from engine.files import Layout

_LOOK = 20.0
"""Seconds until a look at everything has failed."""


def only_errors(findings: Iterable[Finding]) -> list[Finding]:
    return [one for one in findings if one.level is Level.ERROR]


def in_words(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.check}: {one.message}" for one in findings]


def audit_errors(layout: Layout) -> list[Finding]:
    """Return what contradicts itself in the database alone."""
    return only_errors(audit(layout.database))


async def doctor(layout: Layout) -> list[Finding]:
    """Return all that doctor finds; for each it says what to do."""
    async with asyncio.timeout(_LOOK):
        found = await inspect(layout)
    assert all(one.advice for one in found), found
    return found


async def errors(layout: Layout) -> list[Finding]:
    return only_errors(await doctor(layout))


async def repair(layout: Layout) -> list[str]:
    """Have everything mended; return what was done, in sentences."""
    async with Engine(layout.state, project=layout.state.parent) as engine:
        async with asyncio.timeout(PATIENCE):
            return await engine.repair()


async def mends(layout: Layout, check: str, *sentences: str) -> list[str]:
    """Assert that doctor finds something of this check, that repair says so and that it is gone."""
    found = await errors(layout)
    assert check in {one.check for one in found}, found
    done = await repair(layout)
    for sentence in sentences:
        assert any(sentence in one for one in done), done
    assert await errors(layout) == []
    assert await repair(layout) == [], "once is enough"
    return done


def run_doctor(layout: Layout, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `agentmux doctor` on a state folder, as its users do."""
    folder = str(layout.state)
    return agentmux(layout.state.parent, "doctor", *options, "--state-dir", folder)
