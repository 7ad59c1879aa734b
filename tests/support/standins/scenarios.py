"""What a stand-in for an agent's CLI does, told in words that each of them says in its own format.

Read from the environment, so that a test can start the engine and have its agents do as it likes:

    STANDIN          the scenario, one of SCENARIOS (default: ok)
    STANDIN_PACE     seconds between two lines (default: 0; of endless ones: 0.02)
    STANDIN_SIZE     megabytes that `big` says (default: 4)
    STANDIN_WRITE    a file in the working folder that is written first, with the prompt in it
    STANDIN_RESETS   Unix seconds when the limit of `rate-limit` resets (default: in an hour)
    STANDIN_CLOCK    Unix seconds of the first line; each further one is a second later. Ids and
                     the folder that is named are then the same each time, too

Everything here is told by a program of its own: it imports nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

LONGEST_LIFE = 300.0
"""Seconds after which an endless one ends: nothing is left behind by a test that was killed."""
_ENDLESS_PACE = 0.02
_PLACE = "/home/dev/shop"
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Use:
    """A tool is used: its kind (`read`, `edit`, `shell`), its key argument, what it gave back."""

    kind: str
    argument: str
    answer: str = ""
    failed: bool = False


class Speaker(ABC):
    """Says things as one of the CLIs would, a JSON object a line."""

    on_term: int | None = None
    """What SIGTERM makes it exit with, if it does not simply end it."""

    def __init__(self, model: str | None) -> None:
        self.asked, self.model = model, model or "standin-1"
        self.answers = 0
        self._calls = 0
        self._lines = 0
        clock = os.environ.get("STANDIN_CLOCK")
        self._clock = int(clock) if clock else None
        self.session = str(uuid.UUID(int=7)) if clock else str(uuid.uuid4())
        self.place = _PLACE if clock else str(Path.cwd())
        self.pace = float(os.environ.get("STANDIN_PACE", "0"))

    @property
    def resets(self) -> int:
        """When its limit resets, in Unix seconds."""
        return int(os.environ.get("STANDIN_RESETS") or self.time() + 3600)

    def time(self) -> float:
        return time.time() if self._clock is None else self._clock + self._lines

    def timestamp(self) -> str:
        moment = datetime.fromtimestamp(self.time(), UTC)
        return moment.isoformat(timespec="milliseconds")[:23] + "Z"

    def path(self, name: str) -> str:
        return f"{self.place}/{name}"

    def new_call(self) -> str:
        self._calls += 1
        return f"call_{self._calls}"

    def line(self, data: Mapping[str, Any]) -> None:
        """Say a line, as JSON.stringify would write it."""
        self.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._lines += 1
        if self.pace:
            time.sleep(self.pace)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def use(self, use: Use) -> None:
        """Call a tool and say what it gave back."""
        self.answered(self.call(use), use)

    def refused(self) -> str:
        """What git says if the CLI's sandbox does not let it write to its own folders."""
        return ""

    @abstractmethod
    def begin(self, prompt: str) -> None:
        """Say that the session has begun."""

    @abstractmethod
    def think(self, words: str) -> None: ...

    @abstractmethod
    def say(self, words: str) -> None: ...

    @abstractmethod
    def call(self, use: Use) -> str:
        """Say that a tool is used; return the id of the call."""

    @abstractmethod
    def answered(self, call: str, use: Use) -> None: ...

    @abstractmethod
    def delegate(self) -> None:
        """Have a subagent do something."""

    @abstractmethod
    def retry(self) -> None:
        """Say that the API did not answer and is asked again."""

    @abstractmethod
    def odd(self) -> list[bytes]:
        """Return lines of types that nobody knows yet, and such as are of a known type but odd."""

    @abstractmethod
    def done(self, words: str) -> int:
        """Say the last word of a run that succeeded; return the exit code."""

    @abstractmethod
    def failed(self) -> int: ...

    @abstractmethod
    def limited(self) -> int: ...

    @abstractmethod
    def out_of_turns(self) -> int: ...

    @abstractmethod
    def logged_out(self) -> int: ...


def warn(words: str) -> None:
    """Say something where people may read it."""
    sys.stderr.write(words + "\n")


def refuse(words: str, code: int) -> NoReturn:
    """End as a CLI ends that does not like how it was called."""
    warn(words)
    sys.exit(code)


def arguments(
    words: Iterator[str],
    values: Mapping[str, str],
    flags: Collection[str],
    refuse_unknown: Callable[[str], NoReturn],
) -> tuple[dict[str, str], list[str]]:
    """Return the options of a command line, and what is none; `values` are those with a value."""
    options: dict[str, str] = {}
    others = []
    for word in words:
        name, _, value = word.partition("=")
        if name in values:
            options[values[name]] = value or next(words, "")
        elif word in flags:
            options[word] = ""
        elif word == "-" or not word.startswith("-"):
            others.append(word)
        else:
            refuse_unknown(word)
    return options, others


def piped() -> str:
    """Return what stands on standard input, if that is no terminal."""
    return "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8", "replace")


def act(speaker: Speaker, prompt: str) -> NoReturn:
    """Do what the environment asks for, and exit as it would."""
    name = os.environ.get("STANDIN") or "ok"
    if name not in SCENARIOS:
        refuse(f"there is no scenario {name}; there are {', '.join(SCENARIOS)}", 64)
    if target := os.environ.get("STANDIN_WRITE"):
        Path(target).write_text(prompt, "utf-8")
    code = speaker.on_term
    if code is not None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    try:
        status = SCENARIOS[name](speaker, prompt)
    except BrokenPipeError:
        status = 1
    os._exit(status)


def _work(speaker: Speaker, prompt: str) -> None:
    speaker.begin(prompt)
    speaker.think("Let me look at the file first.")
    speaker.use(Use("read", speaker.path("src/shop.py"), "def price():\n    return 1\n"))
    speaker.say("I change the price and run the tests. 🛒")
    speaker.use(Use("edit", speaker.path("src/shop.py"), "ok"))
    speaker.use(Use("shell", "pytest -q", "1 failed, 2 passed\n", failed=True))
    speaker.use(Use("shell", "pytest -q", "3 passed\n"))


def _ok(speaker: Speaker, prompt: str) -> int:
    _work(speaker, prompt)
    return speaker.done("The price is 2 now, and the tests pass.")


def _edits(speaker: Speaker, prompt: str) -> int:
    """Write a file and commit it, in earnest."""
    speaker.begin(prompt)
    name = "standin.txt"
    with Path(name).open("a", encoding="utf-8") as file:
        file.write(prompt + "\n")
    speaker.use(Use("edit", speaker.path(name), "ok"))
    git = ["git", "-c", "user.name=Stand-in", "-c", "user.email=standin@localhost"]
    for command in (["add", name], ["commit", "-q", "-m", "Write what was asked for"]):
        said = speaker.refused()
        if not said:
            ran = subprocess.run([*git, *command], capture_output=True, text=True, check=False)
            said = (ran.stderr or "it failed") if ran.returncode else ""
        speaker.use(Use("shell", " ".join(["git", *command]), said, failed=bool(said)))
        if said:
            return speaker.failed()
    return speaker.done("Written and committed.")


def _long_lines(speaker: Speaker, prompt: str) -> int:
    speaker.begin(prompt)
    speaker.use(Use("shell", "cat " + "x" * 100_000, "all of it, and more\n" * 150_000))
    speaker.say("long " * 200_000)
    return speaker.done("That was long.")


def _partial_line(speaker: Speaker, prompt: str) -> int:
    """Write lines in pieces that end anywhere, also within a character."""
    whole, pieces = speaker.write, 7

    def write(data: bytes) -> None:
        step = max(len(data) // pieces, 1)
        for start in range(0, len(data), step):
            whole(data[start : start + step])
            time.sleep(max(speaker.pace, 0.01))

    speaker.write = write  # type: ignore[method-assign]
    return _ok(speaker, prompt)


def _unknown_types(speaker: Speaker, prompt: str) -> int:
    speaker.begin(prompt)
    for line in speaker.odd():
        speaker.write(line + b"\n")
    speaker.write(b"a warning on the wrong stream\n\n")
    speaker.write(b'{"type":"no json\n\0\0\0\n{"type":17}\n[1,2]\nnull\n')
    speaker.write(b'{"type":"' + b"\xff\xfe" + b'"}\n')
    return speaker.done("Whatever that was, I am done.")


def _subagents(speaker: Speaker, prompt: str) -> int:
    speaker.begin(prompt)
    speaker.delegate()
    return speaker.done("My helper found it.")


def _retries(speaker: Speaker, prompt: str) -> int:
    speaker.begin(prompt)
    speaker.retry()
    speaker.retry()
    return speaker.done("It answered after all.")


def _sudden_death(speaker: Speaker, prompt: str) -> int:
    _work(speaker, prompt)
    speaker.write(b'{"type":"assist')
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _limited(speaker: Speaker, prompt: str) -> int:
    speaker.begin(prompt)
    return speaker.limited()


def _out_of_turns(speaker: Speaker, prompt: str) -> int:
    _work(speaker, prompt)
    return speaker.out_of_turns()


def _logged_out(speaker: Speaker, _prompt: str) -> int:
    return speaker.logged_out()


def _fails(speaker: Speaker, prompt: str) -> int:
    _work(speaker, prompt)
    return speaker.failed()


def _leaves_child(speaker: Speaker, prompt: str) -> int:
    """Leave a process in a session of its own, which holds the output open."""
    speaker.begin(prompt)
    child = subprocess.Popen(["sleep", str(int(LONGEST_LIFE))], start_new_session=True)
    speaker.say(f"A server runs as process {child.pid}.")
    return speaker.done("It is still there.")


def _endless(speaker: Speaker, prompt: str) -> int:
    speaker.pace = speaker.pace or _ENDLESS_PACE
    ends = time.monotonic() + LONGEST_LIFE
    speaker.begin(prompt)
    while time.monotonic() < ends:
        speaker.use(Use("shell", f"make step-{speaker.answers}", "done\n"))
        speaker.say("One more step.")
    return 99


def _ignores_term(speaker: Speaker, prompt: str) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return _endless(speaker, prompt)


def _big(speaker: Speaker, prompt: str) -> int:
    """Say some megabytes in ordinary lines."""
    left = float(os.environ.get("STANDIN_SIZE", "4")) * _MEGABYTE
    whole = speaker.write

    def write(data: bytes) -> None:
        nonlocal left
        left -= len(data)
        whole(data)

    speaker.write = write  # type: ignore[method-assign]
    speaker.begin(prompt)
    while left > 0:
        speaker.use(Use("read", speaker.path(f"src/part_{speaker.answers}.py"), "x = 1\n" * 200))
        speaker.say("Nothing to change in this one either.")
    return speaker.done("All of it is read.")


SCENARIOS: Mapping[str, Callable[[Speaker, str], int]] = {
    "ok": _ok,
    "edits": _edits,
    "long-lines": _long_lines,
    "partial-line": _partial_line,
    "unknown-types": _unknown_types,
    "subagents": _subagents,
    "retries": _retries,
    "sudden-death": _sudden_death,
    "rate-limit": _limited,
    "turn-limit": _out_of_turns,
    "no-login": _logged_out,
    "fails": _fails,
    "leaves-child": _leaves_child,
    "endless": _endless,
    "ignores-term": _ignores_term,
    "big": _big,
}
