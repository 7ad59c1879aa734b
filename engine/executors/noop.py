"""The executor that only lets time pass: for demos, smoke tests and benchmarks. No processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.model import Outcome, RunOutcome

if TYPE_CHECKING:
    from engine.executors.base import RunContext

_DEFAULT_SECONDS = 2


class NoopExecutor:
    """Sleeps `seconds` (default 2; 0 costs nothing); its first `fail_attempts` attempts fail."""

    prepares = False

    async def run(self, context: RunContext) -> Outcome:
        """Sleep on the context's clock; writes no artifacts."""
        payload = context.claim.task.payload
        seconds = payload.get("seconds", _DEFAULT_SECONDS)
        if not _is_number(seconds) or not 0 <= seconds < math.inf:
            return _refused(f"seconds: must be a number from 0 on, not {seconds!r}")
        failures = payload.get("fail_attempts", 0)
        if type(failures) is not int or failures < 0:
            return _refused(f"fail_attempts: must be a whole number from 0 on, not {failures!r}")
        if seconds:
            await context.clock.sleep(seconds)
        attempt = context.claim.attempt
        if attempt <= failures:
            return Outcome(
                RunOutcome.FAILED,
                error=f"attempt {attempt} of a task told to fail its first {failures} attempts",
            )
        return Outcome(RunOutcome.DONE, result={"slept": seconds})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(error: str) -> Outcome:
    return Outcome(RunOutcome.BLOCKED, error=f"payload.{error}; mend the DAG, then retry the task")
