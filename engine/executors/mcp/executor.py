"""The executor that calls one tool of an MCP server: `{kind: mcp-call, server, tool, arguments}`.

A server on stdio is started for one call, as a process of its run, and ended after it: so there is
nothing left to look after, and whoever ends a run ends its server. A server behind a url is asked
over streamable HTTP. Knows nothing of timeouts: whoever wants the run to end cancels it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from engine.executors.mcp.asking import Failed, ask
from engine.executors.mcp.lookahead import Lookahead
from engine.executors.mcp.order import read_call, read_server
from engine.executors.mcp.response import keep_response
from engine.executors.programs import Refused
from engine.model import Outcome, RunOutcome
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engine.executors.base import RunContext, Site
    from engine.executors.mcp.order import Call, Server
    from engine.model import TaskDef


class McpExecutor:
    """Calls one tool; its response is DONE, an error response FAILED with its text.

    result.json of the run's folder has the whole response, beside it are its images and the like;
    stderr.log has what a server on stdio says there.
    """

    prepares = False

    def __init__(self) -> None:
        self._lookahead = Lookahead()

    async def preflight(self, tasks: Sequence[TaskDef], site: Site) -> Mapping[str, str]:
        """Ask each server for its tools, and compare the arguments with what they take."""
        return await self._lookahead.find_unfit(tasks, site)

    async def run(self, context: RunContext) -> Outcome:
        """Call the tool, then end the server and what it left behind.

        Raises:
            TreeSurvived: a process of the run cannot be killed.
            StorageError: the run's processes cannot be looked at.

        """
        begun = context.clock.monotonic()
        try:
            call = read_call(context.claim.task.payload)
            server = await asyncio.to_thread(
                read_server, call.server, context.config.mcp, dict(os.environ), context.project
            )
            response = await ask(context, server, call)
        except Refused as refusal:
            return Outcome(RunOutcome.BLOCKED, error=str(refusal))
        except Failed as failure:
            return Outcome(RunOutcome.FAILED, error=str(failure), exit_code=failure.code)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return Outcome(RunOutcome.FAILED, error=f"cannot start: {where}{error.strerror}")
        took = round((context.clock.monotonic() - begun) * 1000)
        # Once the tool has answered, a stop must not lose its result.
        report = asyncio.to_thread(_report, context.artifacts, server, call, response, took)
        return await shielded(report, reraise=False)


def _report(
    folder: Path, server: Server, call: Call, response: Mapping[str, Any], took: int
) -> Outcome:
    result = keep_response(folder, response, server.secrets) | {"durationMs": took}
    if not response.get("isError"):
        return Outcome(RunOutcome.DONE, result=result)
    said = server.hide(result["text"]) or "it says no more"
    tool = server.hide(call.tool)
    return Outcome(RunOutcome.FAILED, result=result, error=f"{tool} answers with an error: {said}")
