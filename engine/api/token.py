"""The token: a secret in a file that only its owner can read, made when it is first needed."""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING

from engine.errors import StorageError
from engine.files import open_regular, private

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN = re.compile(rb"[A-Za-z0-9_-]{43,200}")
_LONGEST = 256


def read_token(path: Path) -> bytes:
    """Return the token, made anew if there is no file.

    Raises:
        StorageError: the file cannot be read or made, others can read it, or it holds no token.

    """
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            _make(path)
            return _read(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; mend that, or remove it") from error


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise StorageError(
                f"{path} is not yours alone, so others may know the token: remove it, and a new "
                "one is made"
            )
        token = file.read(_LONGEST).strip()
    if not _TOKEN.fullmatch(token):
        raise StorageError(f"{path} holds no token: remove it, and a new one is made")
    return token


def _make(path: Path) -> None:
    """Make the file, whole from its first moment; another process may be quicker."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "w", encoding="ascii", opener=private) as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
