"""The executor for `mcp-call`: one tool of one MCP server, named in agentmux.yaml.

`order` reads what is asked for, `asking` starts and ends what answers it, `conversation` speaks the
protocol over one of the `ways`, `schema` judges arguments, `response` keeps what comes back;
`lookahead` finds beforehand what cannot succeed. Only `conversation`, `schema` and `ways` import
the package `mcp` and what comes with it, and only `asking` imports them, once a task needs it.
"""

from __future__ import annotations

from engine.executors.mcp.executor import McpExecutor

__all__ = ["McpExecutor"]
