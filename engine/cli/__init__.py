"""The command line: asks the engine, prints what it says. Decides nothing and stores nothing.

    parser     the grammar: every command, its options and the function behind it; from `arguments`
    reading    ps, tasks ls / show, explain, history, events, status
    watching   status --watch; its sentences are in `spoken`
    checking   doctor, health
    collecting gc
    steering   tasks seed / cancel / release / retry / kill / purge, unlock, stop, kill, hold,
               resume, reset, worker --stop; it asks in `asking`, answers by engine.receipts
    working    run, worker
    serving    serve
    session    opens the engine; `signals` and `progress` are about how long that and all else takes
    tables     rows and details as text; `report` is status.md; `render` draws and prints

Each command imports only what it needs, for a short command must start fast.
"""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; Ctrl+C is quiet also while it loads or ends."""
    try:
        from engine.cli.main import main as run  # noqa: PLC0415 - so that loading it is guarded

        return run(argv)
    except KeyboardInterrupt:
        return 130


__all__ = ["main"]
