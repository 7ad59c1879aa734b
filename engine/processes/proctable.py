"""What the system says of processes: who has a pid, in which session, with which variables.

Reads only. On Linux straight from /proc, for a scan looks at hundreds; elsewhere through psutil.
What cannot be known is raised as StorageError and never reads as "gone". Knows no runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import cache

from msgspec import Struct

from engine.errors import StorageError

if sys.platform != "linux":
    import psutil

OUTSIDE = 0
UNKNOWN = -1
_EXEC_TRIES = 50
_SETTLED = 5
_CHUNK = 32768
_READ = os.O_RDONLY | os.O_CLOEXEC

_EXITING = 0x4
"""PF_EXITING, among the flags of /proc/PID/stat."""
_KERNEL_THREAD = 0x200000
"""PF_KTHREAD, likewise."""
_LONGEST_EXIT = 2.0
"""Seconds; one that takes longer hangs in the kernel, and holds up nobody else."""


class Look(Struct, frozen=True):
    """One process at one moment. `ended` is True for a zombie, all of whose threads are gone.

    `started` is what ProcessId compares. On Linux the start tick, and the boot that it counts
    from: after the next boot the same tick may belong to a stranger with the same pid.
    """

    started: str
    ppid: int
    ended: bool


def session_of(pid: int) -> int | None:
    """Return a process's session, None if it is gone.

    OUTSIDE if it never had one, as kernel threads, init and the children of an init that calls
    no setsid; or if its leader is not in our pid namespace, as whatever is started into a
    container from without. UNKNOWN where the system keeps other sessions to itself.
    """
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
    except PermissionError:
        return UNKNOWN


def lineage(pid: int) -> set[int]:
    """Return the pids of a process, its ancestors and init."""
    found = {1}
    while pid and pid not in found:
        found.add(pid)
        look = look_at(pid)
        pid = look.ppid if look is not None else 0
    return found


def spared_pids() -> set[int]:
    """Return the pids of this process, its ancestors and init."""
    return lineage(os.getpid())


if sys.platform == "linux":

    def is_kernel_thread(pid: int) -> bool:
        """Tell whether a pid is a thread of the kernel's own, which no run can hold."""
        try:
            stat = _read(f"/proc/{pid}/stat")
        except OSError:
            return False  # gone, or nothing can be said: whoever looks further is told so
        return bool(int(stat[stat.rindex(b")") + 2 :].split()[6]) & _KERNEL_THREAD)

    def all_pids() -> set[int]:
        """Return every pid that is taken now.

        Raises:
            StorageError: they cannot be listed.

        """
        try:
            # A scan lists twice; Path objects would cost more than the listing.
            return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        except OSError as error:
            raise StorageError(f"cannot list the processes: {error.strerror}") from error

    def look_at(pid: int) -> Look | None:
        """Return what can be seen of a pid now, None if nobody has it.

        Raises:
            StorageError: it cannot be known.

        """
        try:
            stat = _read(f"/proc/{pid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            raise StorageError(f"cannot look at process {pid}: {error.strerror}") from error
        # From field 3 on; the name before it may hold anything, even a parenthesis.
        fields = stat[stat.rindex(b")") + 2 :].split()
        # A leader whose main thread has left shows as a zombie while other threads work on.
        ended = fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1
        return Look(f"{fields[19].decode()}@{_boot()}", int(fields[1]), ended)

    def variables_of(pid: int) -> bytes | None:
        r"""Return a process's environment as `NAME=value\0…`, None if it has ended.

        Empty if it has no variables, or belongs to somebody else.

        Raises:
            StorageError: it cannot be read for another reason.

        """
        try:
            settled = 0
            for _ in range(_EXEC_TRIES):
                block = _read(f"/proc/{pid}/environ")
                if block or settled == _SETTLED:
                    return block
                look = look_at(pid)
                if look is None or look.ended:
                    return None
                # It has no variables, or the kernel is just replacing its program. Only then is
                # its command line empty too; but it may do so again between two of our looks.
                if _read(f"/proc/{pid}/cmdline"):
                    settled += 1
                else:
                    _await_end(pid)
                    time.sleep(0.001)
        except (FileNotFoundError, ProcessLookupError):
            _await_end(pid)
            return None
        except PermissionError:
            return b""
        except OSError as error:
            raise StorageError(f"cannot look at process {pid}: {error.strerror}") from error
        return b""

    def _await_end(pid: int) -> None:
        """Wait for a process that is on its way out: nobody can tell any more whose it is.

        Its variables went first; its memory takes a while, and its files and locks go last.
        """
        deadline = time.monotonic() + _LONGEST_EXIT
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while time.monotonic() < deadline:
                stat = _read(f"/proc/{pid}/stat")
                fields = stat[stat.rindex(b")") + 2 :].split()
                if fields[0] in {b"Z", b"X"} or not int(fields[6]) & _EXITING:
                    return
                time.sleep(0.001)

    @cache
    def _boot() -> str:
        """Return what tells this boot from others, nothing where it is kept secret."""
        try:
            return _read("/proc/sys/kernel/random/boot_id")[:8].decode()
        except (FileNotFoundError, PermissionError):
            return ""
        except OSError as error:
            raise StorageError(f"cannot read the boot's id: {error.strerror}") from error

    def _read(path: str) -> bytes:
        file = os.open(path, _READ)
        try:
            data = os.read(file, _CHUNK)
            if len(data) < _CHUNK:
                return data
            parts = [data]
            while part := os.read(file, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(file)

else:

    def is_kernel_thread(pid: int) -> bool:  # noqa: ARG001 - as on Linux
        """Tell whether a pid is a thread of the kernel's own: none is listed on this system."""
        return False

    def all_pids() -> set[int]:
        """Return every pid that is taken now."""
        return set(psutil.pids())

    def look_at(pid: int) -> Look | None:
        """Return what can be seen of a pid now, None if nobody has it.

        Raises:
            StorageError: it cannot be known.

        """
        try:
            process = psutil.Process(pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return Look(repr(process.create_time()), process.ppid(), ended)
        except psutil.NoSuchProcess:
            return None  # a zombie that tells nothing is one of these too
        except (psutil.Error, OSError) as error:
            raise StorageError(f"cannot look at process {pid}: {error}") from error

    def variables_of(pid: int) -> bytes | None:
        r"""Return a process's environment as `NAME=value\0…`, None if it has ended.

        Empty if it has no variables, or belongs to somebody else.

        Raises:
            StorageError: it cannot be read for another reason.

        """
        try:
            variables = psutil.Process(pid).environ()
        except psutil.NoSuchProcess:  # or a zombie
            return None
        except psutil.AccessDenied:
            return b""
        except (psutil.Error, OSError) as error:
            raise StorageError(f"cannot look at process {pid}: {error}") from error
        return os.fsencode("".join(f"{name}={value}\0" for name, value in variables.items()))
