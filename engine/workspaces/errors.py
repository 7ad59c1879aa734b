"""What can go wrong with a workspace, and whether trying again could help."""

from __future__ import annotations

import errno

from engine.errors import AgentmuxError, Code

_LASTING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class WorkspaceError(AgentmuxError):
    """A workspace cannot be made, saved or removed.

    `hopeless`: no retry can help until a person has done what the sentence says.
    """

    code = Code.IO_ERROR

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class BadWorkspace(WorkspaceError):  # noqa: N818 - the name is the sentence, as in engine.errors
    """What the task names as its workspace is none: no repository, no such branch, no commit."""

    code = Code.VALIDATION_ERROR

    def __init__(self, message: str) -> None:
        super().__init__(message, hopeless=True)


def is_lasting(error: OSError) -> bool:
    """Say whether what the file system refuses stays refused until a person has mended that.

    Permissions and what may only be read do; a full disk may have room again in a minute.
    """
    return error.errno in _LASTING


def trouble(what: str, error: OSError) -> WorkspaceError:
    """Return what the file system has against something as an error; `what` begins its sentence."""
    lasting = is_lasting(error)
    then = "then retry the task" if lasting else "try again"
    return WorkspaceError(f"{what}: {error.strerror or error}; mend that, {then}", hopeless=lasting)
