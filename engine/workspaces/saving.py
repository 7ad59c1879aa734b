"""Uncommitted work, kept as a commit under a ref of ours: refs/agentmux/saved/<task>/<run>."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.files import read_regular, saved_ref
from engine.text import clean_text, cut_middle
from engine.workspaces import missing, records
from engine.workspaces.copying import Copy
from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import last_words
from engine.workspaces.records import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.workspaces.git import Done, Git
    from engine.workspaces.records import Place, Record

_ID = re.compile(r"\A[0-9a-f]{40,64}$", re.MULTILINE)
_TRIES = 100
_MOST_TOLD = 20
_LONGEST_TOLD = 300
_MOST_BESIDE = 20
SHARED = ("refs/heads", "refs/tags", "refs/remotes", "refs/stash")
"""The refs of a user that stay when a worktree goes."""
OURS = "refs/agentmux"
"""And those of ours."""
_OWN = ("refs/bisect", "refs/rewritten", "refs/worktree")
"""Those that each worktree has for itself: they go with it."""
_AUTOSTASHES = ("rebase-merge/autostash", "rebase-apply/autostash", "MERGE_AUTOSTASH")
_OPERATIONS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisect",
}


class Saved(Struct, frozen=True):
    """What was saved: its ref and commit, None if all that there is could not be saved.

    `missing` says in words what of the worktree is not in there, at most some of it; empty if
    nothing is missing. Ignored files do not count.
    """

    ref: str | None
    commit: str | None
    missing: tuple[str, ...] = ()


def save(git: Git, place: Place, record: Record) -> tuple[Record, Saved | None]:
    """Save what is uncommitted, or committed where no branch has it; note the ref in the record.

    The commit stands on that which the worktree is on. Its further parents are what no file tells:
    versions that were staged and are in no file any more, what a rebase has put aside, and the
    commits that only a ref of the worktree's own has.

    None: there is nothing to save. Saving the same again makes no new ref. The lock of the task is
    held.

    Raises:
        WorkspaceError: nothing could be saved; everything is as it was.

    """
    path = records.worktree_path(place, record.task, record.attempt)
    admin = Path(record.admin) if record.admin and Path(record.admin, "HEAD").exists() else None
    there = path.is_dir() and not path.is_symlink()
    if record.stage not in {Stage.READY, Stage.OVER} or not there:
        return record, None
    try:
        with tempfile.TemporaryDirectory(dir=place.root, prefix=".saving-") as folder:
            found = _Work(Copy(git, record, path, admin, Path(folder))).saved()
    except OSError as error:
        raise WorkspaceError(
            f"cannot save what is uncommitted in {path}: {error.strerror or error}; it is still "
            "there"
        ) from error
    if found is not None and found.ref is not None and found.ref not in record.saved:
        record = replace(record, saved=(*record.saved, found.ref))
        records.write(place, record)
    return record, found


class _Work:
    """One save."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._record = copy.record
        self._admin = copy.admin
        self._git = copy.git
        self._must = copy.must

    def saved(self) -> Saved | None:
        head = self._head()
        base = self._tree_of(head)
        staged = self._copy.begin(head)
        tree = self._copy.add_all()
        # Names of files are an agent's, and may be no text at all.
        lost = [
            cut_middle(clean_text(sentence), _LONGEST_TOLD)
            for sentence in missing.find(self._copy, tree, head)
        ]
        told = tuple(lost[:_MOST_TOLD])
        beside = [*self._staged(head, base, staged, tree), *self._loose(head)]
        changed = tree != base or bool(beside)
        if not changed and (head is None or self._has_ref(head, *SHARED, OURS)):
            return Saved(None, None, told) if told else None
        changed = changed or head is None
        commit = self._commit(tree, head, beside, lost) if changed else head
        assert commit is not None
        return self._keep(commit, told)

    def _head(self) -> str | None:
        """Return the commit that the work is based on, None on an unborn branch."""
        return self._resolved("HEAD" if self._admin else f"refs/heads/{self._record.branch}")

    def _resolved(self, name: str) -> str | None:
        done = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        return done.text if done.code == 0 else None

    def _tree_of(self, head: str | None) -> str:
        if head is None:
            return self._must("hash-object", "-t", "tree", "--stdin")
        return self._must("rev-parse", "--verify", "--end-of-options", f"{head}^{{tree}}")

    def _staged(self, head: str | None, base: str, staged: str | None, tree: str) -> Iterator[str]:
        """Yield a commit of what was staged if something of it is neither in HEAD nor in a file."""
        if staged is None or staged in {base, tree}:
            return
        if self._contents(base, staged) - self._contents(base, tree):
            # The same whenever it is made: who saves the same again makes no new ref.
            moment = f"@{int(self._record.made_at.timestamp())} +0000"
            yield self._must(
                *("commit-tree", staged, *(("-p", head) if head else ())),
                given=f"Staged: {self._record.task}\n".encode(),
                variables={"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment},
            )

    def _contents(self, old: str, new: str) -> set[str]:
        """Return the ids of all contents that a tree has where it differs from another one."""
        told = self._must("diff-tree", "-r", "-z", "--no-renames", "--no-abbrev", old, new)
        found = set()
        for facts in filter(None, told.split("\0")[::2]):  # and between them the paths
            _, _, before, now, _ = facts.split(" ")
            if now != before and now.strip("0"):
                found.add(now)
        return found

    def _loose(self, head: str | None) -> Iterator[str]:
        """Yield the commits that are neither below HEAD nor below a ref that stays."""
        if self._admin is None:
            return
        found: list[str] = []
        if any(self._admin.glob("refs/*/*")) or (self._admin / "reftable").exists():
            found = self._git("for-each-ref", "--format=%(objectname)", *_OWN).text.split()
        for name in _AUTOSTASHES:
            with suppress(OSError):
                found += _ID.findall(read_regular(self._admin / name))
        commits = {self._resolved(name): None for name in found}
        kept = [commit for commit in commits if commit and not self._is_kept(commit, head)]
        yield from kept[:_MOST_BESIDE]

    def _is_kept(self, commit: str, head: str | None) -> bool:
        if head and self._git("merge-base", "--is-ancestor", commit, head).code == 0:
            return True
        return self._has_ref(commit, *SHARED)

    def _has_ref(self, commit: str, *refs: str) -> bool:
        """Say whether one of some refs keeps a commit: HEAD may be detached."""
        done = self._git("for-each-ref", "--count=1", f"--contains={commit}", "--format=x", *refs)
        return done.code == 0 and done.text != ""

    def _commit(self, tree: str, head: str | None, beside: list[str], lost: list[str]) -> str:
        operation = next(
            (
                f", in the midst of {what}"
                for name, what in _OPERATIONS.items()
                if self._admin and (self._admin / name).exists()
            ),
            "",
        )
        record = self._record
        message = (
            f"Saved by agentmux: {record.task}{operation}\n\n"
            f"What was not committed when run {record.run} ended (attempt {record.attempt},\n"
            f"branch {record.branch}).\n"
        )
        if beside:
            message += f"\nFurther parents, for no file has what is in them:\n{_listed(beside)}"
        if lost:
            message += f"\nNot in here:\n{_listed(lost)}"
        parents = [word for parent in (head, *beside) if parent for word in ("-p", parent)]
        return self._must("commit-tree", tree, *parents, given=message.encode(errors="replace"))

    def _keep(self, commit: str, told: tuple[str, ...]) -> Saved:
        """Give the commit a ref of its own; none is ever overwritten."""
        record, last = self._record, ""
        what = self._content(commit)
        for again in range(1, _TRIES):
            ref = saved_ref(record.task, record.run, again)
            done = self._update(ref, commit)
            if done.code == 0:
                return Saved(ref, commit, told)
            there = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", ref)
            if there.code != 0:
                raise self._copy.trouble(last_words(done))
            if self._content(there.text) == what:
                return Saved(ref, there.text, told)
            last = ref
        raise WorkspaceError(f"{last} and all before it are taken: delete those of no more use")

    def _update(self, ref: str, commit: str) -> Done:
        done = self._git("update-ref", "--", ref, commit, "")
        lock = self._copy.repo / f"{ref}.lock"
        if done.code != 0 and lock.is_file():
            # A save that was killed left it: nobody else writes there, and we hold the task's lock.
            lock.unlink(missing_ok=True)
            done = self._git("update-ref", "--", ref, commit, "")
        return done

    def _content(self, commit: str) -> str:
        return self._must("rev-parse", "--end-of-options", f"{commit}^{{tree}}", f"{commit}^@")


def _listed(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
