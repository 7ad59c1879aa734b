"""Where everything lies on disk, and the one place where an id becomes a path (DESIGN §4.7, §5)."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

from engine.errors import StorageError, ValidationError
from engine.model import NAME
from engine.text import clean_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_LONGEST = 120
_SAFE = " !#$&'()+,;=@[]^_`{}~-."
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-])){0,59}", re.ASCII)
_DIGEST = re.compile(r".*-[0-9a-f]{10}", re.ASCII)
_UNPLAIN = re.compile(r"[^A-Za-z0-9_]+", re.ASCII)


def safe_name(text: str) -> str:
    """Turn any id into one file name: unsafe characters percent-encoded, never `.` or `..`.

    Different ids give different names; one that would grow too long ends in a digest instead.
    """
    name = quote(text, safe=_SAFE)
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST:
        import hashlib  # noqa: PLC0415 - it brings OpenSSL along, and hardly any id is so long

        # A bare % cannot come from quote, so no short id can look like a cut one.
        name = f"{name[: _LONGEST - 18]}%~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name


def plain_name(text: str) -> str:
    """Turn any id into one name that no tool trips over: letters, digits, `_`, `-` and dots.

    For folders that people's programs work in, and for parts of git refs: build tools fail on
    spaces and on `%` in a path. Different ids give different names: one that cannot stay as it is
    ends in a digest of 40 bits. Its form is what `git check-ref-format` wants of a part.
    """
    if _PLAIN.fullmatch(text) and not _DIGEST.fullmatch(text) and not text.endswith(".lock"):
        return text
    import hashlib  # noqa: PLC0415 - see safe_name

    readable = _UNPLAIN.sub("-", text).strip("-")[:40] or "_"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{readable}-{digest}"


def branch_name(task_id: str, attempt: int, again: int = 1) -> str:
    """Return the branch that an attempt works on; `again` > 1 where the former ones are taken."""
    tail = f".{again}" if again > 1 else ""
    return f"agentmux/{plain_name(task_id)}/{attempt}{tail}"


def worktree_folder(root: Path, task_id: str, attempt: int) -> Path:
    """Return the folder of an attempt's worktree; that of its task is above."""
    return root / plain_name(task_id) / str(attempt)


def saved_ref(task_id: str, run_id: str, again: int = 1) -> str:
    """Return the ref under which what a run left uncommitted is kept; `again` as in branches."""
    tail = f"-{again}" if again > 1 else ""
    return f"refs/agentmux/saved/{plain_name(task_id)}/{plain_name(run_id)}{tail}"


def shown_path(path: Path, folder: Path) -> str:
    """Return a path as somebody in `folder` names it: from there on if it lies within. Clean."""
    return clean_text(str(path.relative_to(folder) if path.is_relative_to(folder) else path))


def check_name(name: str, what: str) -> str:
    """Return `name` if it may stand for an agent or a worker, else raise ValidationError."""
    if not NAME.fullmatch(name) or set(name) == {"."}:
        raise ValidationError(
            f"{what} {name!r} must be 1 to 64 of the characters A-Z a-z 0-9 . _ -"
        )
    return name


class Layout(Struct, frozen=True):
    """The paths of one state folder. `artifacts/` lies beside it."""

    state: Path

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.state / "tasks.db"

    @property
    def write_lock(self) -> Path:
        """What writers of all processes queue on."""
        return self.state / "write.lock"

    @property
    def log(self) -> Path:
        """The mirror of the events table."""
        return self.state / "events.jsonl"

    @property
    def log_lock(self) -> Path:
        """Who holds it appends to the log."""
        return self.state / "events.lock"

    @property
    def reset_lock(self) -> Path:
        """Who holds it resets."""
        return self.state / "reset.lock"

    @property
    def status(self) -> Path:
        """Written by `agentmux status`."""
        return self.state / "status.md"

    @property
    def heartbeats(self) -> Path:
        """A file for each worker, and one for each agent: its latest worker."""
        return self.state / "heartbeats"

    @property
    def pids(self) -> Path:
        """A file for each live worker."""
        return self.state / "pids"

    @property
    def control(self) -> Path:
        """Stop files."""
        return self.state / "control"

    @property
    def quarantine(self) -> Path:
        """What is damaged, moved aside and never deleted: a folder for each time."""
        return self.state / "quarantine"

    @property
    def backup(self) -> Path:
        """Stores as they were before they were changed for good: a folder for each time."""
        return self.state / "backup"

    @property
    def alerts(self) -> Path:
        """What alerts have to tell that does not fit into a line, and drafts of that."""
        return self.state / "alerts"

    @property
    def own_log(self) -> Path:
        """What the engine warns of."""
        return self.state / "agentmux.log"

    @property
    def watch_lock(self) -> Path:
        """Who holds it watches logs and hands alerts on."""
        return self.state / "watch.lock"

    @property
    def services(self) -> Path:
        """What services print, and what is done to them."""
        return self.state / "services"

    @property
    def services_lock(self) -> Path:
        """Who holds it keeps the services."""
        return self.state / "services.lock"

    @property
    def api_token(self) -> Path:
        """What whoever asks over HTTP must show."""
        return self.state / "api.token"

    @property
    def artifacts(self) -> Path:
        """What runs leave behind."""
        return self.state.parent / "artifacts"

    @property
    def worktrees(self) -> Path:
        """Where worktrees lie unless the settings name another folder."""
        return self.state.parent / "worktrees"

    def pid_file(self, agent: str, worker_id: str) -> Path:
        """Return the file that holds the pid of this worker's process, and nothing else."""
        return self.pids / f"{check_name(agent, 'agent')}-{check_name(worker_id, 'worker')}.pid"

    def stop_file(self, agent: str, worker_id: str) -> Path:
        """Return the file that stops this worker once it exists."""
        return self.control / f"{check_name(agent, 'agent')}-{check_name(worker_id, 'worker')}.stop"

    def heartbeat_file(self, name: str) -> Path:
        """Return the heartbeat file of a worker, or of an agent (its latest worker)."""
        return self.heartbeats / f"{check_name(name, 'worker')}.json"

    def run_folder(self, task_id: str, run_id: str) -> Path:
        """Return the folder of one run's artifacts; not made yet."""
        return self.artifacts / safe_name(task_id) / safe_name(run_id)

    def alert_body(self, stamp: str, subject: str) -> Path:
        """Return the file in which an alert tells more; not made yet."""
        return self.alerts / f"{stamp}-{plain_name(subject)}.md"

    def alert_file(self, body: str) -> Path:
        """Return the file that an alert names as its body: one of alerts, whatever it names."""
        return self.alerts / body.rpartition("/")[2]

    def alert_draft(self, source: str) -> Path:
        """Return the file with what was found in a log and not told of yet."""
        return self.alerts / f"{plain_name(source)}.draft"

    def service_log(self, name: str) -> Path:
        """Return the file with what a service prints."""
        return self.services / f"{check_name(name, 'service')}.log"

    def create(self) -> None:
        """Make the folders of the state folder, 0700.

        Raises:
            StorageError: the folder cannot be made or is not writable.

        """
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.state, self.heartbeats, self.pids, self.control, self.alerts):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make {error.filename}: {error.strerror}; "
                "choose another folder with --state-dir"
            ) from error
        if not os.access(self.state, os.W_OK | os.X_OK):
            raise StorageError(f"{self.state} is not writable; mend its permissions")


def open_regular(path: Path, *, linked: bool = False) -> BinaryIO:
    """Open a file for reading if it is a regular one, and wait for nothing: no pipe, no device.

    `linked`: what it is a link to counts, too.

    Raises:
        OSError: as the file system has it, or `path` "is no regular file".

    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if linked else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
            raise _not_regular(path) from error
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def append_regular(path: Path, data: bytes) -> None:
    """Append to a file, made 0600, as one write: others may append to it. No pipe, no device.

    Raises:
        OSError: as the file system has it, or it "is no regular file"; a part may be written.

    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    handle = private(str(path), flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _not_regular(path)
        if os.write(handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(handle)


def read_regular(path: Path) -> str:
    """Return the text of a file as `open_regular` opens it; what is no UTF-8 is replaced."""
    with open_regular(path) as file:
        return file.read().decode("utf-8", "replace")


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file", str(path))


def take_lock(handle: int) -> bool:
    """Take the lock on an open file, if no other process has it; it is good until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync(path: Path) -> None:
    """Make a file durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Replace a file's content atomically; the file is 0600.

    Raises:
        OSError: as the file system has it; the old content is still there.

    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(draft, "w", encoding="utf-8", opener=private) as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def private(path: str, flags: int) -> int:
    """Open a file that is 0600 if it is made; an opener for `open`."""
    return os.open(path, flags, 0o600)
