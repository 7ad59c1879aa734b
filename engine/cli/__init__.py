"""The command line: asks the engine, prints what it says. Decides nothing and stores nothing.

    parser     the grammar: every command, its options and the function behind it
    reading    ps, tasks ls / show, explain, history, events, status
    checking   doctor
    steering   tasks seed / release / retry, unlock, hold, resume, worker --stop
    working    run, worker
    tables     rows and details as text; `report` is status.md; `render` draws and prints

Each command imports only what it needs, for a short command must start fast.
"""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; a Ctrl+C while it is still loading is quiet too."""
    try:
        from engine.cli.main import main as run  # noqa: PLC0415 - so that loading it is guarded
    except KeyboardInterrupt:
        return 130
    return run(argv)


__all__ = ["main"]
