"""The host's side of its guard process: starts it, and tells it which runs are open (DESIGN §4.5).

The guard outlives the host by the few seconds that it takes to end the host's runs; see
`guardian`. It hears of a run before the run's first process is forked, so that there is no moment
at which a process could be left to nobody. Knows no task, no store and no event loop.

Where agentmux runs inside a run of another agentmux, the guard inherits the outer tag as the host
does. So both are part of the outer run: "stopped means gone" holds there for them too, and who
ends it finds the inner runs by descent. Only the tag of *this* state folder is taken off, for it
would make the guard a member of the very fleet that it guards: a search for what runs have left
behind here must not end the one that is about to end it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.processes.census import STATE_DIR
from engine.processes.guardian import AT_MOST
from engine.processes.trees import TAG_NAMES

if sys.platform != "linux":
    import psutil

if TYPE_CHECKING:
    from engine.model import ProcessId

log = logging.getLogger(__name__)

_LOST = "lost"
"""The kind of a guard's end: its pipe may tell of it before its exit code does."""

_BACKLOG = 1 << 20
"""Bytes that may wait for a guard that does not read; one so far behind is replaced."""
_STARTS, _SECONDS = 3, 3.0
"""At most so many starts in so many seconds: one that dies at once must not cost a core."""
_PATIENCE = 3.0

_BOOT = """\
# agentmux guard
import signal, sys
for number in signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT:
    signal.signal(number, signal.SIG_IGN)
sys.path += sys.argv[2:]
from engine.processes.guardian import main
main()
"""
"""A key pressed in the terminal, a hang-up or a polite stop must not end what guards the host."""


class Guard:
    """The guard process of this host, started with the first run. For one thread only.

    No call raises, and none but `close` waits: a message is a write to a pipe. What cannot be
    done is logged, and done at the next call of any kind.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state = str(state_dir.resolve())
        self._open: dict[str, list[ProcessId]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._unsent = bytearray()
        self._starts: deque[float] = deque(maxlen=_STARTS)
        self._complaint = ""

    @property
    def pid(self) -> int | None:
        """The guard's pid, None while there is no need of one, or none could be started."""
        return self._guard.pid if self._guard is not None else None

    def begin(self, run_id: str) -> None:
        """Say that a run begins; to be called before anything is started for it."""
        self._open.setdefault(run_id, [])
        self._tell(_message(run_id))

    def lead(self, run_id: str, process: ProcessId) -> None:
        """Say who leads a run; it may have several leaders, one after the other or at once."""
        self._open.setdefault(run_id, []).append(process)
        self._tell(_message(run_id, process))

    def over(self, run_id: str) -> None:
        """Say that a run's tree is gone. Does nothing if the run never began."""
        if self._open.pop(run_id, None) is not None:
            self._tell(_message(run_id, over=True))

    def tend(self) -> None:
        """Replace a guard that has died, and send what it could not take; call it now and then.

        Without it both wait for the next message, which may be hours away.
        """
        self._tell(b"")

    def close(self) -> None:
        """End the guard and wait for it; what runs are open still, it ends first.

        At once if none is. Else up to 10 s: call it off the event loop.
        """
        self.tend()
        if self._unsent:
            self._restart()  # one that does not listen would not know what to end
        guard, self._guard = self._guard, None
        runs = list(self._open)
        self._open.clear()
        self._unsent.clear()
        if guard is None:
            if runs:
                log.error("no guard could be started; these runs were left: %s", ", ".join(runs))
        elif not runs:
            _bury(guard)
        else:
            assert guard.stdin is not None
            guard.stdin.close()
            try:
                code: int | None = guard.wait(AT_MOST + _PATIENCE)
            except subprocess.TimeoutExpired:
                code = None
            _bury(guard)
            if code != 0:
                log.error(
                    "the guard could not end all processes of %s (exit code %s); "
                    "`agentmux doctor` shows who is left",
                    ", ".join(runs),
                    code,
                )

    def _tell(self, message: bytes) -> None:
        if self._is_up():
            self._unsent += message
            if self._send():
                return
        elif not self._open:
            return  # nobody needs one
        self._restart()

    def _is_up(self) -> bool:
        if self._guard is None:
            return False
        code = self._guard.poll()
        if code is None:
            if time.monotonic() > self._starts[-1] + _SECONDS:
                self._complaint = ""  # this one is well; the next trouble is another
            return True
        if self._open:
            self._complain(
                f"the guard process has ended (exit code {code}); another one is started", _LOST
            )
        _bury(self._guard)
        self._guard = None
        return False

    def _send(self) -> bool:
        """Write what the pipe takes; False if this guard will not take what is left."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        try:
            while self._unsent:
                taken = os.write(self._guard.stdin.fileno(), self._unsent)
                del self._unsent[:taken]
        except BlockingIOError:
            if len(self._unsent) <= _BACKLOG:
                return True
            self._complain("the guard process does not listen; another one is started")
        except OSError as error:
            self._complain(
                f"the guard process is lost ({error.strerror}); another one is started", _LOST
            )
        else:
            return True
        return False

    def _restart(self) -> None:
        """Start a guard that knows of all open runs, in place of one that is of no use."""
        now = time.monotonic()
        if len(self._starts) == _STARTS and now - self._starts[0] < _SECONDS:
            return
        if self._guard is not None:
            _bury(self._guard)
            self._guard = None
        self._unsent.clear()
        if not self._open:
            return
        try:
            self._guard = _start(self._state)
        except OSError as error:
            self._complain(
                f"no guard process can be started: {error.strerror}; "
                "until one can, runs outlive this host if it is killed"
            )
            return
        self._starts.append(now)
        for run_id, leaders in self._open.items():
            self._unsent += _message(run_id)
            for leader in leaders:
                self._unsent += _message(run_id, leader)
        self._send()

    def _complain(self, what: str, kind: str = "") -> None:
        """Say once what is wrong, however often that, or its `kind`, is met in a row."""
        if (kind or what) != self._complaint:
            self._complaint = kind or what
            log.warning(what)


def _message(run_id: str, leader: ProcessId | None = None, *, over: bool = False) -> bytes:
    """Return one line; shorter than what a pipe takes whole or not at all."""
    message: dict[str, object] = {"run": run_id}
    if leader is not None:
        message |= {"pid": leader.pid, "started": leader.started}
    if over:
        message["over"] = True
    return json.dumps(message).encode() + b"\n"


def _start(state: str) -> subprocess.Popen[bytes]:
    """Start a guard, the other end of whose input is ours alone.

    Raises:
        OSError: there is no program, no memory or no file handle for it.

    """
    # The flags: no folder of the user's is searched, and no package may join in at the start.
    # The pipe is closed in every program that is started; only a bare fork would keep it open.
    folders = [str(Path(__file__).parents[2]), str(Path(msgspec.__file__).parents[1])]
    if sys.platform != "linux":
        folders.append(str(Path(psutil.__file__).parents[1]))
    guard = subprocess.Popen(  # noqa: S603 - our own program, and no shell
        [sys.executable, "-PsBS", "-c", _BOOT, state, *folders],
        bufsize=0,
        cwd="/",
        env=_environment(state),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guard.stdin is not None
    # A guard that was suspended must not suspend the host.
    os.set_blocking(guard.stdin.fileno(), False)
    return guard


def _environment(state: str) -> dict[str, str]:
    """Return our variables without the tag of this state folder, and without Python's settings."""
    ours = os.environ.get(STATE_DIR) == state
    return {
        name: value
        for name, value in os.environ.items()
        # PYTHONHOME says where the interpreter itself lives.
        if not (ours and name in TAG_NAMES)
        and (name == "PYTHONHOME" or not name.startswith("PYTHON"))
    }


def _bury(guard: subprocess.Popen[bytes]) -> None:
    """Kill a guard, reap it, and only then close its pipe: its runs are not over by that."""
    guard.kill()
    try:
        guard.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        # It hangs in the kernel; it will not do a thing any more, and Python reaps it later.
        log.warning("guard process %d does not die", guard.pid)
    assert guard.stdin is not None
    guard.stdin.close()
