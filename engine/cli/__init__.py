"""The command line: asks the engine, prints what it says. Decides nothing and stores nothing.

    parser     the grammar: every command, its options and the function behind it
    reading    ps, tasks ls / show, explain, history, events, status
    checking   doctor
    steering   tasks seed / release, unlock, hold, resume, worker --stop
    working    run, worker
    tables     rows and details as text; `report` is status.md; `render` draws and prints

Each command imports only what it needs, for a short command must start fast.
"""

from __future__ import annotations

from engine.cli.main import main

__all__ = ["main"]
