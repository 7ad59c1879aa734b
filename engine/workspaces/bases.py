"""What a worktree starts from: the commit of a branch, in the current repository or for a URL.

For a URL there is a bare repository of our own: made by `init` and `fetch`, never by `clone
--mirror`, whose next fetch would delete the branches of worktrees. Its refs/heads are left to the
agents, what it fetched lies in refs/remotes/origin.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import from_iso, to_iso
from engine.files import plain_name, read_regular, write_private
from engine.workspaces import leftovers, records
from engine.workspaces.errors import BadWorkspace, WorkspaceError, trouble
from engine.workspaces.git import LOGIN, NETWORK, Done, Git, last_words
from engine.workspaces.locking import locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.clock import Clock
    from engine.workspaces.records import Place

CURRENT = "."
"""How records name the current repository."""

DEFAULT = "refs/agentmux/default"
"""What was fetched from a remote's default branch."""
_REMOTE = "refs/remotes/origin/"
_CLOSED = re.compile(
    r"could not read (?:Username|Password)|Authentication failed|Permission denied|"
    r"terminal prompts disabled|Host key verification failed|HTTP 40[13]|error: 40[13]",
)
_ABSENT = re.compile(
    r"[Rr]epository .*not found|does not appear to be a git repository|does not exist|"
    r"not found$|No such file or directory|HTTP 404|error: 404|not a git repository|"
    r"transport .* not allowed|blocked$",
    re.MULTILINE,
)


class Source(Struct, frozen=True):
    """Which repository (None: the one of the project's folder) and branch (None: the default)."""

    url: str | None = None
    branch: str | None = None

    @classmethod
    def read(cls, workspace: Mapping[str, Any] | None, project: Path) -> Source:
        """Return the source of a payload's `workspace`, as parsing.workspaces has normalised it.

        A path counts from the project's folder.
        """
        workspace = workspace or {}
        url = workspace.get("url")
        if url is not None and url.startswith((".", "/", "~")):
            # Not the method of Path: that raises for a user whom nobody knows.
            url = os.path.normpath(project / os.path.expanduser(url))  # noqa: PTH111
        return cls(url, workspace.get("branch"))

    @property
    def shown(self) -> str:
        """How people see it, and records: without credentials."""
        return CURRENT if self.url is None else without_login(self.url)


def without_login(url: str) -> str:
    """Return a URL without the credentials that it may hold."""
    return LOGIN.sub("", url)


class Base(Struct, frozen=True):
    """What a worktree starts from; see records.Record for the fields."""

    repo: Path
    commit: str
    ref: str
    behind: int | None


def repository(git: Git, place: Place, source: Source, project: Path) -> Path:
    """Return the git directory that worktrees of a source belong to; that of a URL may be missing.

    Raises:
        BadWorkspace: the project is in no repository.
        WorkspaceError: git cannot look.

    """
    if source.url is not None:
        return place.bases / f"{_base_name(source.url)}.git"
    done = git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=project)
    if done.code != 0:
        raise _no_repository(done, project)
    return Path(os.path.realpath(done.text))


def find(git: Git, place: Place, source: Source, project: Path, clock: Clock) -> Base:
    """Return what a new worktree starts from; for a URL, as it is now.

    Raises:
        BadWorkspace: no repository, no such branch, no commit, or no way in.
        WorkspaceError: the network, the disk or a lock is in the way.

    """
    if source.url is None:
        return _here(git, source.branch, project)
    repo = repository(git, place, source, project)
    git = Git(git.stop, git.lock, git.variables, {source.url: source.shown})
    asked = clock.now()
    with locked(base_lock(repo), git.stop, seconds=NETWORK) as lock:
        git = Git(git.stop, (*git.lock, lock), git.variables, git.secrets)
        _make(git, place, repo, source.url)
        _fetch(git, repo, source, asked, clock)
        if source.branch is not None:
            ref, name = f"{_REMOTE}{source.branch}", source.branch
        else:
            ref, name = DEFAULT, _default_name(git, repo)
        commit = _commit(git, repo, ref)
    if commit is None:
        raise _no_branch(source, name)
    return Base(repo, commit, name, 0)


def check(git: Git, source: Source, project: Path) -> None:
    """Look at what can be seen of a source without a network, and make nothing.

    Raises:
        BadWorkspace: it is a path where no repository is, or has no such branch, or no commit.
        WorkspaceError: there is no git.

    """
    if source.url is None:
        _here(git, source.branch, project)
    elif source.url.startswith("/"):
        wanted = "HEAD" if source.branch is None else f"refs/heads/{source.branch}"
        found = git("ls-remote", "--quiet", "--", source.url, wanted, cwd=project)
        if found.code != 0:
            raise _unreachable(found, source)
        if not found.out:
            raise _no_commit(source) if source.branch is None else _no_branch(source, source.branch)


def _here(git: Git, branch: str | None, project: Path) -> Base:
    if branch is not None:
        repo = repository(git, _NOWHERE, Source(), project)
        for prefix in ("refs/heads/", _REMOTE):
            commit = _commit(git, repo, prefix + branch)
            if commit is not None:
                behind = _behind(git, repo, branch, commit) if prefix == "refs/heads/" else None
                return Base(repo, commit, branch, behind)
        raise BadWorkspace(
            f"the repository of {project} has no branch {branch!r}; mend `branch:`, or fetch it"
        )
    # In one call, for this is what every task pays.
    done = git(
        *("rev-parse", "--path-format=absolute", "--git-common-dir"),
        *("HEAD^{commit}", "--symbolic-full-name", "HEAD"),
        cwd=project,
    )
    lines = done.text.split("\n")
    if done.code != 0 or len(lines) < 3:
        repository(git, _NOWHERE, Source(), project)
        raise BadWorkspace(
            f"the repository of {project} has no commit yet; commit something and retry the task"
        )
    repo, commit = Path(os.path.realpath("\n".join(lines[:-2]))), lines[-2]
    if not lines[-1].startswith("refs/heads/"):
        return Base(repo, commit, "HEAD", None)
    name = lines[-1].removeprefix("refs/heads/")
    return Base(repo, commit, name, _behind(git, repo, name, commit))


def _behind(git: Git, repo: Path, branch: str, commit: str) -> int | None:
    """Count the commits of a branch's upstream, as last fetched, that `commit` lacks."""
    done = git(
        *("rev-list", "--count", "--end-of-options", f"{branch}@{{upstream}}", f"^{commit}"),
        repo=repo,
        cwd=repo,
    )
    return int(done.text) if done.code == 0 and done.text.isdigit() else None


def _commit(git: Git, repo: Path, ref: str) -> str | None:
    done = git(
        *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"),
        repo=repo,
        cwd=repo,
    )
    return done.text if done.code == 0 else None


def _default_name(git: Git, repo: Path) -> str:
    """Return the name of the default branch; what was fetched from it is DEFAULT."""
    head = f"{_REMOTE}HEAD"
    if (commit := _commit(git, repo, DEFAULT)) is None:
        return "HEAD"
    if _commit(git, repo, head) != commit:  # asked over the network, so only if it may have moved
        git("remote", "set-head", "origin", "--auto", repo=repo, cwd=repo, timeout=NETWORK)
    done = git("symbolic-ref", "--quiet", head, repo=repo, cwd=repo)
    same = done.code == 0 and _commit(git, repo, head) == commit
    return done.text.removeprefix(_REMOTE) if same else "HEAD"


def _make(git: Git, place: Place, repo: Path, url: str) -> None:
    """Make the bare repository of a URL, whole or not at all; its lock is held."""
    if repo.exists():
        return
    for old in place.bases.glob(f".{repo.stem}.*"):  # of somebody who was killed here
        shutil.rmtree(old, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(dir=place.bases, prefix=f".{repo.stem}."))
    try:
        calls = (
            ("init", "--quiet", "--bare", "--template=", "--", draft),
            ("config", "remote.origin.url", url),
            ("config", "remote.origin.fetch", f"+refs/heads/*:{_REMOTE}*"),
        )
        for call in calls:
            done = git(*call, repo=None if call[0] == "init" else draft, cwd=draft)
            if done.code != 0:
                raise WorkspaceError(f"cannot make {repo}: {last_words(done)}; mend that")
        draft.rename(repo)
    except OSError as error:
        raise trouble(f"cannot make {repo}", error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def base_lock(repo: Path) -> Path:
    """Return the file whose lock is needed to make, fetch or remove the repository of a URL."""
    return repo.with_suffix(".lock")


def fetch_mark(repo: Path) -> Path:
    """Return the file that tells when the repository of a URL was fetched last."""
    return repo.with_suffix(".fetched")


def _fetch(git: Git, repo: Path, source: Source, asked: datetime, clock: Clock) -> None:
    """Fetch, unless a fetch has begun since `asked`: who waited for the lock shares its result."""
    mark = fetch_mark(repo)
    key = source.branch is None
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(read_regular(mark))
        if from_iso(told["begun"]) >= asked and (told["head"] or not key):
            return
    begun = to_iso(clock.now())
    fetch = (
        *("fetch", "--quiet", "--no-tags", "--prune", "--no-auto-gc", "--no-write-fetch-head"),
        *("--", "origin", f"+refs/heads/*:{_REMOTE}*"),
        *((f"+HEAD:{DEFAULT}",) if key else ()),
    )
    done = git(*fetch, repo=repo, cwd=repo, timeout=NETWORK)
    if leftovers.is_locked(done) and leftovers.clear_repository(git, repo):
        done = git(*fetch, repo=repo, cwd=repo, timeout=NETWORK)
    if done.code != 0:
        raise _unreachable(done, source, repo)
    write_private(mark, json.dumps({"begun": begun, "head": key}))


def _unreachable(done: Done, source: Source, repo: Path | None = None) -> WorkspaceError:
    where, why = source.shown, last_words(done)
    if repo is not None and f"not a git repository: '{repo}'" in done.err:
        return WorkspaceError(
            f"{repo}, the clone of {where}, is damaged; see what is in it, move it away, and "
            "retry the task",
            hopeless=True,
        )
    if "couldn't find remote ref HEAD" in done.err:
        return _no_commit(source)
    if "dubious ownership" in done.err:
        return _dubious(where)
    if _CLOSED.search(done.err):
        return BadWorkspace(
            f"{where} cannot be read without a login ({why}); set up a credential helper of git or "
            "an SSH key, so that `git ls-remote` of it works unasked, then retry the task"
        )
    if _ABSENT.search(done.err):
        return BadWorkspace(
            f"there is no repository at {where} ({why}); mend `workspace:` (for an issue `github:` "
            "in agentmux.yaml), or the login of git"
        )
    return WorkspaceError(f"cannot fetch {where}: {why}; try again")


def _no_branch(source: Source, name: str) -> BadWorkspace:
    return BadWorkspace(f"{source.shown} has no branch {name!r}; mend `branch:` and retry the task")


def _no_commit(source: Source) -> BadWorkspace:
    return BadWorkspace(
        f"{source.shown} has no commit on its default branch; name one as `branch:`"
    )


def _no_repository(done: Done, project: Path) -> WorkspaceError:
    if "dubious ownership" in done.err:
        return _dubious(str(project))
    if "not a git repository" in done.err:
        return BadWorkspace(
            f"{project} is in no git repository; make one there (`git init`, and a commit), or "
            "give the task a `workspace:`"
        )
    return WorkspaceError(f"git cannot look at {project}: {last_words(done)}; mend that")


def _dubious(where: str) -> WorkspaceError:
    return BadWorkspace(
        f"git does not trust {where}, for it belongs to another user; if you do: "
        f"git config --global --add safe.directory {where}"
    )


def _base_name(url: str) -> str:
    """Return the name of a URL's bare repository: readable, and one for each URL."""
    last = re.split(r"[/:]", url.rstrip("/").removesuffix(".git"))[-1] or "repository"
    digest = hashlib.sha256(os.fsencode(url)).hexdigest()[:12]
    return f"{plain_name(last)[:60]}-{digest}"


_NOWHERE = records.Place(Path(), Path())
