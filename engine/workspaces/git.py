"""The one way in which git is called: quietly, with a limit of time, asking nobody for anything.

Every call that changes something names its repository (`--git-dir`), so none can act on one that
merely lies around its folder; only what asks which repository a folder is in does not. Nothing that
the environment says of repositories reaches it (`git rev-parse --local-env-vars`, see git(1)), no
hook runs, no pager, no editor, and no credentials are asked for: a helper or an SSH agent may give
them. Blocks: call it in a thread.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from engine.text import clean_text
from engine.workspaces.errors import WorkspaceError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOCAL = 600.0
"""Seconds that a call may take which only the disk can hold up."""
NETWORK = 1800.0
"""Seconds that a call may take which the network can hold up."""

_KEPT = re.compile(
    r"GIT_(?:SSH|SSL|HTTP|PROXY|CURL|LFS)(?:_.*)?|GIT_EXEC_PATH|GIT_CONFIG_(?:GLOBAL|SYSTEM|NOSYSTEM)"
)
"""The variables of git that say how to reach something; most others say on what to act."""
_PERSON = re.compile(r"GIT_(?:AUTHOR|COMMITTER)_(?:NAME|EMAIL|DATE)")
"""And those that say who commits, and when."""
_QUIET = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",  # empty: not even SSH_ASKPASS, see gitcredentials(7)
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
}
_OURSELVES = {
    "GIT_AUTHOR_NAME": "agentmux",
    "GIT_AUTHOR_EMAIL": "agentmux@localhost",
    "GIT_COMMITTER_NAME": "agentmux",
    "GIT_COMMITTER_EMAIL": "agentmux@localhost",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "worktree.useRelativePaths=false",  # what git calls a worktree is compared
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
)
LOGIN = re.compile(r"(?<=://)[^/\s]*@")
"""The credentials in a URL. Git itself takes some of them for none, and shows the rest."""
HALF_MADE = re.compile(r"failed to read \S*/worktrees/.*: ")
"""What git says of another worktree that is being made, or removed, in this moment: it looks at
all of them. Git 2.39 fails so once in some hundred calls beside twelve that add."""
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
_LOOKS = 0.1
_GRACE = 2.0


class Stopped(Exception):  # noqa: N818 - never reaches a user: whoever stopped it is told otherwise
    """The work was stopped from outside; what git was doing is over."""


class Done(Struct, frozen=True):
    """How a call ended: its exit code, what it wrote, and what it complained of, cleaned."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it wrote, as text without the last line's end; paths survive os.fsencode."""
        return os.fsdecode(self.out).removesuffix("\n")


class Git(Struct, frozen=True):
    """Git, as one piece of work uses it.

    Its processes inherit `lock`, a file that is locked: it stays locked until the last of them
    has ended, even if this process is killed. `stop` ends what runs. `variables` are added to the
    environment. `secrets` are texts that no complaint shows, and what stands there instead. It
    commits in agentmux's name; unless `ours`, in that of whom `variables` name, or its settings.
    """

    stop: threading.Event
    lock: tuple[int, ...] = ()
    variables: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    ours: bool = True

    def __call__(  # noqa: D102 - see run
        self,
        *arguments: str | Path,
        repo: Path | None = None,
        tree: Path | None = None,
        cwd: Path,
        variables: Mapping[str, str] | None = None,
        settings: tuple[str, ...] = (),
        given: bytes = b"",
        timeout: float = LOCAL,
        patient: bool = True,
    ) -> Done:
        for pause in (*(_PAUSES if patient else ()), None):
            done = self.run(
                arguments, repo, tree, cwd, {**self.variables, **(variables or {})},
                (*_SETTINGS, *settings), given, timeout,
            )  # fmt: skip
            if done.code == 0 or pause is None or not HALF_MADE.search(done.err):
                return done
            time.sleep(pause)
        raise AssertionError

    def run(
        self,
        arguments: tuple[str | Path, ...],
        repo: Path | None,
        tree: Path | None,
        cwd: Path,
        variables: Mapping[str, str],
        settings: tuple[str, ...],
        given: bytes,
        timeout: float,
    ) -> Done:
        """Call git in `cwd` and wait for its end; a complaint is no exception.

        `repo` is the git directory to act on, `tree` the working tree; `settings` are set for this
        call, `given` is its input, `timeout` in seconds.

        Raises:
            Stopped: `stop` was set.
            WorkspaceError: git is missing, cannot be started, or took too long.

        """
        if self.stop.is_set():
            raise Stopped
        person = _OURSELVES if self.ours else {}
        words: list[str | Path] = [_program(os.environ.get("PATH", os.defpath))]
        for setting in settings:
            words += ["-c", setting]
        if repo is not None:
            words.append(f"--git-dir={repo}")
        if tree is not None:
            words.append(f"--work-tree={tree}")
        try:
            with _input(given) as source:
                process = subprocess.Popen(  # noqa: S603 - words of ours; others follow `--`
                    [*words, *arguments],
                    cwd=cwd,
                    env={**environment(os.environ), **_QUIET, **person, **variables},
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # without a terminal nothing in there can ask
                    pass_fds=self.lock,
                )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise WorkspaceError(f"cannot start git in {cwd}: {why}") from error
        out, err = self._wait(process, str(arguments[0]), timeout)
        return Done(process.returncode, out, self._cleaned(err))

    def _wait(
        self, process: subprocess.Popen[bytes], what: str, timeout: float
    ) -> tuple[bytes, bytes]:
        deadline, over = time.monotonic() + timeout, math.inf
        while True:
            try:
                return process.communicate(timeout=_LOOKS)
            except subprocess.TimeoutExpired as told:
                now = time.monotonic()
                if process.poll() == 0:
                    # It is through, children and all, but for a daemon that holds its pipes: that
                    # of ssh (ControlPersist) may do so for hours.
                    over = min(over, now)
                    if now - over > _GRACE:
                        _close(process)
                        return told.stdout or b"", told.stderr or b""
                late = now > deadline
                if not (late or self.stop.is_set()):
                    continue
            except BaseException:
                _end(process)
                raise
            _end(process)
            if self.stop.is_set():
                raise Stopped
            raise WorkspaceError(
                f"git {what} was not through after {timeout:.0f} s and was ended; try again once "
                "the disk or the network answers"
            )

    def _cleaned(self, err: bytes) -> str:
        text = err.decode(errors="replace")
        for secret, instead in self.secrets.items():
            text = text.replace(secret, instead)
        text = LOGIN.sub("", text)
        return clean_text(text, newlines=True).strip()


@contextmanager
def _input(given: bytes) -> Iterator[IO[bytes] | int]:
    """Yield what a call reads as its input: a file, for `communicate` gives up its input when it
    is called again, and it is called until git is through.
    """  # noqa: D205
    if not given:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        yield file


def environment(base: Mapping[str, str], *, person: bool = False) -> dict[str, str]:
    """Return variables without those that would have git act on another repository.

    For our own calls, and for an agent in a worktree: a GIT_DIR that it inherits would beat the
    folder that it works in. Its commits are those of the `person` that the variables name.
    """
    return {
        name: value
        for name, value in base.items()
        if not name.startswith("GIT_")
        or _KEPT.fullmatch(name)
        or (person and _PERSON.fullmatch(name))
    }


def last_words(done: Done) -> str:
    """Return the line of a complaint that says most, for the end of a sentence."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    line = (told or lines or [f"exit code {done.code}"])[-1]
    return line.removeprefix("fatal: ").removeprefix("error: ")[:500].rstrip(" ;:,.")


@lru_cache(maxsize=4)
def _program(path: str) -> str:
    folders = [folder for folder in path.split(os.pathsep) if folder.startswith("/")]
    found = shutil.which("git", path=os.pathsep.join(folders))
    if found is None:
        raise WorkspaceError(
            "git was not found on this machine; install it or mend PATH, then retry the task",
            hopeless=True,
        )
    return found


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a call and its children: all of them hold its pipes, so the end of those tells."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
