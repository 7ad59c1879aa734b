"""A folder takes the place of another in one step, and can give it back."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renamex_np(2)."""
_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


def exchange(one: Path, other: Path) -> None:
    """Let two folders change places. In one step where the system can; both must be there.

    Else in three renames: whoever dies between them leaves both folders, one under `<one>.swap`,
    which the next call puts right.

    Raises:
        OSError: as the file system has it; both are where they were.

    """
    mend(one)
    try:
        _exchange(os.fsencode(one), os.fsencode(other))
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    else:
        return
    aside = one.with_name(f"{one.name}.swap")
    one.rename(aside)
    try:
        other.rename(one)
    except OSError:
        aside.rename(one)
        raise
    aside.rename(other)


def mend(one: Path) -> None:
    """Put right what somebody left who died in the midst of an exchange. Raises OSError."""
    aside = one.with_name(f"{one.name}.swap")
    if aside.exists() and not one.exists():
        aside.rename(one)


def _exchange(one: bytes, other: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            code = libc.renamex_np(one, other, _EXCHANGE)
        else:
            code = libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(one), None, os.fsdecode(other))


def remove(path: Path) -> None:
    """Remove a folder and all in it, or what is there in its place. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
