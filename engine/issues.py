"""Issues on GitHub as tasks: those with a label are done, and told of their result.

One process of a state folder asks, whoever holds the lock. A new issue with the label is a new
task; one that was closed or lost the label cancels its task, if that is not over; one that is done
gets a comment. Everything is asked of the program gh. What an issue says is the agent's prompt: who
may set the label decides what agents are told to do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from engine import github
from engine.errors import AgentmuxError
from engine.files import take_lock
from engine.github import GithubError
from engine.model import FINISHED, State, TaskDef
from engine.secrets import redact
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from engine.config import GithubConfig
    from engine.files import Layout
    from engine.github import Issue
    from engine.store.lookout import IssueTask, Lookout
    from engine.store.store import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

_LONGEST_NAME = 500
_CHECKS = 20
"""Issues at most that are asked for one by one in a look: each costs a call."""
_MARK = "<!-- agentmux run "
"""What a comment of ours ends with, unseen, and then the run that it tells of."""
_LONGEST_TEXT = 30_000
"""Characters of a comment that are an agent's; GitHub takes twice as many."""


_MEND = "mend that (`gh auth status` tells of the login) or `github:` in agentmux.yaml; "
_AGAIN = "GitHub is asked again by itself"


class IssueFeed:
    """Asks every `every` seconds. `cancel` cancels a task as an operator would."""

    def __init__(
        self,
        *,
        config: GithubConfig,
        store: Store,
        lookout: Lookout,
        layout: Layout,
        cancel: Callable[[str], Awaitable[object]],
        find_unfit: Callable[[list[TaskDef]], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._config = config
        self._store = store
        self._lookout = lookout
        self._lock = layout.state / "github.lock"
        self._cancel = cancel
        self._find_unfit = find_unfit
        self._task: asyncio.Task[None] | None = None
        self._said: dict[int, str] = {}
        self._through: set[int] = set()
        self._warned: str | None = None
        self._noted: str | None = ""  # what an earlier process has noted is not known

    def open(self) -> None:
        """Begin to ask, as soon as no other process does."""
        self._task = asyncio.create_task(self._ask_forever(), name="issues")

    async def close(self) -> None:
        """Ask no more; what is being asked is given up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _ask_forever(self) -> None:
        try:
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("issues of %s: %s: %s", self._config.repo, self._lock, error.strerror)
            return
        try:
            while True:
                try:
                    if take_lock(handle):
                        await self._look_and_tell()
                except Exception:
                    # Whatever it is, the next look may find it mended.
                    log.exception("issues of %s", self._config.repo)
                await asyncio.sleep(self._config.every)
        finally:
            os.close(handle)

    async def _look_and_tell(self) -> None:
        """Look; whether that fails is noted in the store until it works again."""
        trouble = None
        try:
            await self.look()
        except AgentmuxError as error:
            trouble = f"{error}; {_MEND}{_AGAIN}"
            if isinstance(error, GithubError) and error.hopeless:
                trouble = f"{error}; {_AGAIN}"
        if trouble is not None and trouble != self._warned:
            log.warning("issues of %s: %s", self._config.repo, trouble)
        self._warned = trouble
        if trouble != self._noted:
            with suppress(AgentmuxError):  # the store may be what does not answer
                await self._store.note_feed(self._config.repo, trouble)
                self._noted = trouble

    async def look(self) -> None:
        """Ask once, and do what follows from it.

        Raises:
            AgentmuxError: GitHub or the store does not answer; the next look begins anew.

        """
        repo = self._config.repo
        found = await github.issues(repo, self._config.label)
        known = {one.number: one for one in await self._lookout.issue_tasks(repo)}
        listed = {issue.number for issue in found}
        self._through &= listed
        new = [one for one in found if one.number not in known.keys() | self._through]
        fresh = [
            issue
            for issue in new[:_CHECKS]
            if await self._about(issue.number, self._is_fresh(issue))
        ]
        await self._add(fresh)
        gone = [n for n, task in known.items() if n not in listed and task.state not in FINISHED]
        for number in gone[:_CHECKS]:
            await self._about(number, self._drop(number, known[number]))
        done = [
            (number, task, task.run_id)
            for number, task in known.items()
            if task.state is State.DONE and task.run_id is not None and not task.told
        ]
        for number, task, run_id in done[:_CHECKS]:
            await self._about(number, self._tell(number, task, run_id))

    async def _about(self, number: int, work: Awaitable[T]) -> T | None:
        """Do what concerns one issue; what goes wrong with it holds up no other."""
        try:
            result = await work
        except GithubError as error:
            if self._said.get(number) != str(error):
                self._said[number] = str(error)
                log.warning("issue %s: %s; it is tried again", number, error)
            return None
        self._said.pop(number, None)
        return result

    async def _is_fresh(self, issue: Issue) -> bool:
        """Say whether nothing was done for an issue: it has no comment of ours.

        Else it was done before, by a task that was purged since, say, or by another state folder.
        """
        if await github.has_comment(self._config.repo, issue.number, _MARK):
            self._through.add(issue.number)
            log.info("issue %s was done before: its comments say so", issue.number)
            return False
        return True

    async def _add(self, fresh: Sequence[Issue]) -> None:
        """Make tasks of issues."""
        taken = await self._lookout.taken(_id_of(issue.number) for issue in fresh)
        repo = self._config.repo
        tasks = []
        for issue in fresh:
            name = _id_of(issue.number)
            # Another repository, or a DAG, may have a task of that name.
            task_id = f"issue:{repo}#{issue.number}" if name in taken else name
            tasks.append(self._task_of(issue, task_id))
        if tasks:
            await self._store.add(tasks, await self._find_unfit(tasks))
            log.info("%s: %s", repo, ", ".join(task.id for task in tasks))

    def _task_of(self, issue: Issue, task_id: str) -> TaskDef:
        name = clean_text(issue.title).strip()[:_LONGEST_NAME] or f"issue {issue.number}"
        prompt = f"{issue.title}\n\n{issue.body or ''}\n\n({issue.url})\n"
        return TaskDef(
            id=task_id,
            name=name,
            agent=self._config.agent,
            payload={
                "kind": "agent",
                "prompt": prompt.replace("\0", ""),
                "workspace": {"url": f"https://github.com/{self._config.repo}.git"},
                "issue": {"repo": self._config.repo, "number": issue.number, "url": issue.url},
            },
        )

    async def _drop(self, number: int, task: IssueTask) -> None:
        # The list comes from a search, which forgets an issue now and then: ask for this one.
        if not await github.is_wanted(self._config.repo, number, self._config.label):
            await self._cancel(task.id)
            log.info("%s was cancelled: its issue is closed or lost its label", task.id)

    async def _tell(self, number: int, task: IssueTask, run_id: str) -> None:
        """Comment on what a run has done, once, and note that.

        The mark in the comment says so where the note was lost: with the process that wrote the
        comment, or with a database that was rebuilt from the log.
        """
        repo, mark = self._config.repo, f"{_MARK}{run_id} -->"
        if self._config.comment and not await github.has_comment(repo, number, mark):
            text = redact(comment_of(task.result or {}), os.environ)
            await github.comment(repo, number, f"{text}\n{mark}\n")
        await self._store.note_told(task.id, run_id)


def _id_of(number: int) -> str:
    return f"issue:{number}"


def comment_of(result: Mapping[str, Any]) -> str:
    """Return what is written under an issue whose task is done."""
    parts = ["Done by an agent."]
    pull = result.get("pullRequest")
    if isinstance(pull, dict):
        parts.append(f"Pull request: {pull.get('url')}")
    elif result.get("commits"):
        parts.append(
            f"Branch: `{result.get('branch')}`, commits: {result['commits']}. agentmux pushes"
            " nothing: unless the agent did, the branch is only on the machine that it worked on."
        )
    text = clean_text(str(result.get("text", "")), newlines=True).strip()
    # Nobody is called by what an agent says.
    text = re.sub(r"(?<![\w`])@(?=[A-Za-z0-9])", "@\u200b", text)
    if text:
        parts.append(text[:_LONGEST_TEXT])
    return "\n\n".join(parts) + "\n"
