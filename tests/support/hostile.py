"""Text that acts on terminals, and a state folder that is full of it.

What the engine takes goes through the engine: a DAG, runs, their output. What it would refuse is
written into the database, as a damaged or a malicious folder would have it.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import yaml
from support import transcripts
from support.program import Project

from engine.files import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TITLE, LINK, SECRET = "PWNED", "http://pwned", "UFdORUQ="
PLACE, STYLE = (444, 333), "38;2;1;2;3"
"""Where no cursor is put by us, and what is no colour of ours."""
MARKUP = ("[red]", "[/]", "[@click=app.quit]x[/]", "[b]bold[/b]", "[$error]", "{task}", "%s")
"""What markup would be if it were read. It is shown as it is."""
SEQUENCES = (
    f"\x1b]0;{TITLE}\x07", f"\x1b]2;{TITLE}\x1b\\", f"\x1b]8;;{LINK}\x1b\\",  # OSC
    f"\x1b]52;c;{SECRET}\x07", f"\x1b]52;c;{SECRET}", "\x1b]",
    "\x1b[2J", "\x1b[?1049l", "\x1b[6n", "\x1b[333;444H", f"\x1b[{STYLE}m", "\x1b[", "\x1b[3",
    "\x1bPq#0\x1b\\", "\x1bP$q", "\x1b_Ga=T\x1b\\", "\x1b_", "\x1b^x\x1b\\", "\x1bXx\x1b\\",
    "\x1bc", "\x1b(0", "\x1b7", "\x1b",  # RIS, line drawing, DECSC, alone
    "\x9b2J", "\x9b?1049l", f"\x9d0;{TITLE}\x9c", f"\x9d52;c;{SECRET}\x9c", "\x90q\x9c",  # C1
    "\x98", "\x9e", "\x9f", "\x85", "\x84", "\x8d",
    "\x7f", "\x07", "\x08\x08", "\r", "\t", "\n", "\x0b", "\x0c", "\x0e", "\x05",  # controls
    "\u202e", "\u2066", "\u2067", "\u200f", "\u061c",  # bidi
    "\u200b", "\u200d", "\ufeff", "\u2060", "\u2028", "\xad", "\U000e0041",  # not to be seen
)  # fmt: skip
"""What is to be nowhere in what a program writes, whole or in part."""
RAW = b"\x9b2J", b"\x9d0;PWNED\x9c", b"\x90q\x9c", b"\xff\xfe", b"\xc2", b"\xe2\x80"
"""C1 controls as single bytes, and what is no UTF-8."""
ALL = "".join(f"{sequence}e{number}" for number, sequence in enumerate((*SEQUENCES, *MARKUP)))
DAG_NAME = f"evil\x1b]0;{TITLE}\x07\u202e[red]\x9b2J.yaml"
SETTINGS = """
screen: {bell: false}
shell: {allow: [cat, sh, sleep]}
grace: 0.5
keys: {back: [escape, backspace]}
"""
BACK = "\x7f"
"""What goes back, and with no key behind it is taken for another one, as esc is."""
QUOTED = '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in ALL) + '"'
"""All of it as a string of YAML."""
LIVING = f"""
tasks:
  - {{id: "[red]long[/]\\u202e", name: "[b]n[/]", agent: codex,
     payload: {{kind: shell, argv: [sh, -c, "sleep 300; :", {QUOTED}]}}}}
"""
"""A DAG of one task that goes on, and that its own arguments tell lies of."""
TALK = "[red]talk[/]"
BLOCK = 256 * 1024
"""Bytes of a log that are read at once."""
_CUT = (
    (f"\x1b]52;c;{SECRET}\x07", 1),
    (f"\x1b]52;c;{SECRET}\x07", 6),
    ("\x1b[2J", 2),
    ("\x9d0;PWNED\x9c", 1),
    ("\u202e", 2),
)
"""Sequences, and after how many of their bytes a block of the log ends."""
_DAG: dict[str, Any] = {
    "tasks": [
        {"id": "[red]log[/]", "name": "[b]it[/b] \u202eprints\u2066", "agent": "codex",
         "payload": {"kind": "shell", "argv": ["cat", "hostile.bin"]}},
        {"id": "[@click=app.quit]x[/]", "name": "[/]", "agent": "codex", "deps": ["[red]log[/]"],
         "payload": {"kind": "shell", "argv": [f"su{ALL}do"], "env": {"X": ALL}}},
        {"id": "{task}%s\u200b", "agent": "codex",
         "payload": {"kind": "shell", "argv": ["cat", f"no{ALL}"]}},
    ],
}  # fmt: skip
_STATES = ("RUNNING", "BLOCKED", "FAILED", "DONE", "READY", "CANCELLED")
_TS = "2026-01-02T03:04:05.678Z"
_FAR = "2099-01-02T03:04:05.678Z"


def haunted(folder: Path) -> Project:
    """Make a project whose store, logs and file names are full of hostile text."""
    project = Project(folder)
    project.write(SETTINGS, "agentmux.yaml")
    project.write(yaml.safe_dump(_DAG), DAG_NAME)
    (folder / "hostile.bin").write_bytes(output())
    ran = project.run("run", DAG_NAME)
    assert project.states(), ran
    with closing(sqlite3.connect(project.state / "tasks.db")) as db, db:
        for number, sequence in enumerate((*SEQUENCES, *MARKUP)):
            _haunt(db, number, sequence)
        _split(db)
        db.execute("INSERT INTO holds(agent, since) VALUES (?, ?)", (f"held{ALL}", _TS))
    for run_id, task_id in _runs(project.state / "tasks.db"):
        home = Layout(project.state.absolute()).run_folder(task_id, run_id)
        home.mkdir(parents=True, exist_ok=True)
        for name in ("stdout.log", "stderr.log"):
            if not (home / name).exists():
                (home / name).write_bytes(output())
    return project


def talking(folder: Path) -> Project:
    """Make a project in which an agent said all of it, in every way that it can be said."""
    project = Project(folder)
    project.write(SETTINGS, "agentmux.yaml")
    project.write("tasks: [{id: other, agent: codex}]", DAG_NAME)
    project.ok("tasks", "seed", DAG_NAME)
    with closing(sqlite3.connect(project.state / "tasks.db")) as db, db:
        db.execute("UPDATE tasks SET state = 'BLOCKED', reasons = '[\"human\"]'")
        db.execute("INSERT INTO holds(agent, since) VALUES ('other', ?)", (_TS,))
        _insert(
            db, "tasks", id=TALK, name=TALK, agent="codex", state="DONE", attempts=1, position=9,
            created_at=_TS, updated_at=_TS, payload='{"kind": "agent", "prompt": "ask"}',
        )  # fmt: skip
        _insert(
            db, "runs", id="r-talk", task_id=TALK, agent="codex", worker_id="codex-1", attempt=1,
            outcome="done", claimed_at=_TS, started_at=_TS, ended_at=_TS, exit_code=0,
            host_pid=4_190_000, host_started="1@nowhere",
        )  # fmt: skip
    home = Layout(project.state.absolute()).run_folder(TALK, "r-talk")
    path = transcripts.write(home, _talk(), prompt=f"asked {ALL}")
    with path.open("ab") as file:
        file.write(b"".join(b"raw " + one + b"\n" for one in RAW) + output())
    with (home / "transcript.times").open("a") as times:
        times.writelines(f"{one} 17\n" for one in SEQUENCES)
    return project


def _talk() -> Iterator[str]:
    everything = (*SEQUENCES, *MARKUP)
    yield from (transcripts.says(f"said {one} so") for one in everything)
    for one in everything:
        word = f"w{one}d"
        yield transcripts.thinks(word)
        yield transcripts.calls(f"T{word}", path=word, **{f"key{word}": f"{word}\n{word}"})
        yield transcripts.answers(word, failed=True)
        yield transcripts.line("system", subtype="init", model=word, cwd=word, tools=[word])
        yield transcripts.line("result", subtype=word, is_error=True, result=word, errors=[word])
        yield one.replace("\n", " ")
    yield transcripts.says(ALL)


def output() -> bytes:
    """Return what a hostile program prints: each sequence, whole, cut by a block, never ended."""
    lines = [f"said {one} so".encode() for one in (*SEQUENCES, *MARKUP)]
    lines += [b"raw " + one + b" so" for one in RAW]
    text = b"\n".join(lines) + b"\n"
    for one, cut in _CUT:
        # The file is read in blocks from its beginning.
        filler = -(len(text) + len(b"cut ") + cut) % BLOCK
        text += b"." * (filler - 1) + b"\n"
        text += b"cut " + one.encode() + b" so\n"
    return text + ALL.encode() + f"\x1b]52;c;{SECRET}".encode()


def _haunt(db: sqlite3.Connection, number: int, sequence: str) -> None:
    """Make a task, its run, its worker and events of all kinds from one sequence."""
    word = f"{sequence}e{number}"
    task, run, worker, agent = f"t{word}", f"r{word}", f"w{word}", f"a{word}"
    state = _STATES[number % len(_STATES)]
    active = state == "RUNNING"
    pid = 4_190_000 + number
    _insert(
        db, "tasks", id=task, name=f"n{word}", agent=agent, state=state, attempts=1,
        reasons='["human"]' if state == "BLOCKED" else "[]",
        run_id=run if active else None, claimed_by=worker if active else None,
        lease_until=_FAR if active else None, timeout_at=_FAR if active else None,
        error=None if active or state == "DONE" else f"because{word}", created_at=_TS,
        updated_at=_TS, position=100 + number, pending=int(number % 12 == 4), retries=1,
        deps=json.dumps([f"t{SEQUENCES[0]}e0"] if number % 12 == 4 else []),
        payload=json.dumps({"kind": f"kind{word}", f"key{word}": f"value{word}", "prompt": ALL}),
    )  # fmt: skip
    if number % 12 == 4:
        _insert(db, "edges", dep=f"t{SEQUENCES[0]}e0", task=task)
    _insert(
        db, "runs", id=run, task_id=task, agent=agent, worker_id=worker, attempt=1,
        outcome=None if active else "failed", claimed_at=_TS, started_at=_TS,
        ended_at=None if active else "2026-01-02T03:05:05.678Z", exit_code=3,
        error=f"because{word}", result=json.dumps({f"key{word}": f"value{word}", "all": ALL}),
        host_pid=pid, host_started="1@nowhere",
    )  # fmt: skip
    _insert(
        db, "workers", id=worker, agent=agent, pid=pid, pid_started="1@nowhere",
        status="live" if active else "lost", started_at=_TS, beat_at=_TS, note=f"note{word}",
    )  # fmt: skip
    about = {"agent": agent, "worker_id": worker, "task_id": task, "run_id": run}
    for kind, data in told(word):
        tell(db, kind, data, **about)


def told(word: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return an event of each kind that carries words of somebody else."""
    yield "TASK_PROGRESS", {"note": f"note{word}"}
    yield "TASK_FAILED", {"error": f"because{word}", "outcome": "failed"}
    yield "TASK_BLOCKED", {"reasons": ["human"], "error": f"because{word}"}
    yield "TASK_UPDATED", {"changed": [f"field{word}"]}
    yield "TASK_COMPLETED", {"result": {f"key{word}": word}}
    yield "TASK_RELEASED", {"by": f"by{word}"}
    yield "LATE_RESULT", {"error": f"because{word}"}
    yield "ALERT", {"message": f"message{word}"}
    yield "SEEDED", {"dag": f"dag{word}", "created": 1}
    yield "WORKER_LOST", {}
    yield "HELD", {}


def _split(db: sqlite3.Connection) -> None:
    """Put halves of a sequence into fields that are shown side by side."""
    _insert(
        db, "tasks", id="split\x1b", name=f"]52;c;{SECRET}\x07end\x1b", agent="[2Jodd\x1b",
        state="RUNNING", claimed_by=f"]0;{TITLE}\x07\xc2", run_id="r-split", lease_until=_FAR,
        timeout_at=_FAR, created_at=_TS, updated_at=_TS, position=0, priority=9,
    )  # fmt: skip
    _insert(
        db, "workers", id=f"]0;{TITLE}\x07\xc2", agent="\x1b", pid=4_180_000,
        pid_started="1@nowhere", status="live", started_at=_TS, beat_at=_TS, note="[2J\x1b",
    )  # fmt: skip


def tell(db: sqlite3.Connection, kind: str, data: dict[str, Any], **about: str) -> None:
    """Append an event."""
    ((last,),) = db.execute("SELECT max(seq) FROM events").fetchall()
    state = {"TASK_FAILED": "FAILED", "TASK_BLOCKED": "BLOCKED"}.get(kind)
    _insert(
        db, "events", seq=last + 1, ts=_TS, type=kind, state=state, data=json.dumps(data), **about
    )


def _insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _runs(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute("SELECT id, task_id FROM runs").fetchall()
