"""Issues with a label are done by agents, and GitHub is asked through gh alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest
from support.agents import AgentFleet, a_fleet, agent_task
from support.engines import until
from support.patience import PATIENCE
from support.repositories import git
from support.stores import select

from engine import github
from engine.care.facts import Kind
from engine.care.health import take_health
from engine.cli.checking import _in_settings
from engine.clock import SystemClock
from engine.commands import Purge, Retry, Seed
from engine.config import Config, GithubConfig

if TYPE_CHECKING:
    from pathlib import Path

    from engine.core import Engine

GH = """#!{python}
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(words) + "\\n")
while (here / "hang").exists():
    time.sleep(0.05)
issues = json.loads((here / "issues.json").read_text())
log = here / "comments"
comments = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
if words[:2] == ["issue", "list"]:
    json.dump([i for i in issues if i["listed"]], sys.stdout)
elif words[:2] == ["issue", "view"]:
    found = [i for i in issues if i["number"] == int(words[2])]
    if not found:
        sys.exit("GraphQL: Could not resolve to an issue or pull request with the number of 9.")
    if words[-1] == "comments":
        said = [{{"body": c[1], "viewerDidAuthor": c[2:] != ["stranger"]}}
                for c in comments if c[0] == int(words[2])]
        json.dump({{"comments": said}}, sys.stdout)
    else:
        json.dump({{"state": found[0]["state"], "labels": found[0]["labels"]}}, sys.stdout)
elif words[:2] == ["issue", "comment"]:
    if (here / "locked").exists():
        sys.exit("GraphQL: Unable to create comment because issue is locked.")
    with log.open("a") as file:
        file.write(json.dumps([int(words[2]), sys.stdin.read()]) + "\\n")
"""


class Hub:
    """A gh that answers from a file, and notes what it is asked."""

    def __init__(self, fleet: AgentFleet) -> None:
        self.folder = fleet.folder.parent / "bin"
        self.issues: list[dict[str, object]] = []
        program = self.folder / "gh"
        program.write_text(GH.format(python=sys.executable))
        program.chmod(0o755)
        self.write()

    def write(self) -> None:
        draft = self.folder / "issues.new"
        draft.write_text(json.dumps(self.issues))
        draft.rename(self.folder / "issues.json")

    def add(self, number: int, title: str, body: str = "") -> dict[str, object]:
        issue: dict[str, object] = {
            "number": number,
            "title": title,
            "body": body,
            "url": f"https://github.com/acme/site/issues/{number}",
            "state": "OPEN",
            "labels": [{"name": "agentmux"}],
            "listed": True,
        }
        self.issues.append(issue)
        self.write()
        return issue

    def comments(self) -> list[tuple[int, str]]:
        file = self.folder / "comments"
        lines = file.read_text().splitlines() if file.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentFleet:
    fleet = a_fleet(tmp_path, monkeypatch, "edits")
    fleet.settings("github: {repo: acme/site, agent: claude, every: 3600}\n")
    # What is fetched from GitHub comes from here instead.
    settings = tmp_path / "gitconfig"
    instead = f"url.file://{fleet.folder}.insteadOf"
    git(fleet.folder, "config", "--file", settings, instead, "https://github.com/acme/site.git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    return fleet


@pytest.fixture
def hub(fleet: AgentFleet) -> Hub:
    return Hub(fleet)


async def look(engine: Engine) -> None:
    assert engine._issues is not None
    await engine._issues.look()


async def test_an_issue_becomes_a_task_is_done_and_told_so(fleet: AgentFleet, hub: Hub) -> None:
    hub.add(12, "Fix the\x1b[31m price", "It is wrong. {{not.ours}}")
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        await until(lambda: "TASK_COMPLETED" in fleet.kinds(), "the issue is done")
        await look(engine)
        await look(engine)
    assert fleet.state("issue:12") == "DONE"
    (row,) = select(fleet.layout, "SELECT name, agent FROM tasks")
    assert row == {"name": "Fix the price", "agent": "claude"}
    prompt = (fleet.artifacts("issue:12") / "prompt.md").read_text()
    assert prompt.startswith("Fix the\x1b[31m price\n\nIt is wrong. {{not.ours}}\n\n(https://")
    ((number, text),) = hub.comments()
    assert number == 12
    assert "Branch: `agentmux/issue" in text
    (run_id,) = [row["id"] for row in select(fleet.layout, "SELECT id FROM runs")]
    assert text.endswith(f"Written and committed.\n\n<!-- agentmux run {run_id} -->\n")
    assert hub.asked()[0][:6] == ["issue", "list", "--repo", "acme/site", "--label", '"agentmux"']
    fleet.check()


async def test_a_comment_is_written_once_though_nobody_noted_it(
    fleet: AgentFleet, hub: Hub
) -> None:
    """The note was lost with the process that commented, or with the database."""
    hub.add(12, "Fix the price")
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        await until(lambda: "TASK_COMPLETED" in fleet.kinds(), "the issue is done")
        await look(engine)
        assert len(hub.comments()) == 1
        with closing(sqlite3.connect(fleet.layout.database)) as db:
            assert db.execute("DELETE FROM meta WHERE key LIKE 'told:%'").rowcount == 1
            db.commit()
        await look(engine)
        await look(engine)
    assert len(hub.comments()) == 1
    assert hub.asked()[-2][-1] == "comments", "it was looked for, and found, and noted"
    assert hub.asked()[-1][:2] == ["issue", "list"]


async def test_what_is_done_while_its_former_result_is_told_is_told_too(
    fleet: AgentFleet, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(12, "Fix the price")
    comment = github.comment

    async with fleet.engine() as engine:

        async def retried(repo: str, number: int, text: str) -> None:
            await comment(repo, number, text)
            if len(hub.comments()) == 1:
                await engine.execute(Retry(("issue:12",)))
                await until(lambda: fleet.kinds().count("TASK_COMPLETED") == 2, "done again")

        monkeypatch.setattr(github, "comment", retried)
        await engine.start_worker("claude")
        await until(lambda: "TASK_COMPLETED" in fleet.kinds(), "the issue is done")
        await look(engine)
        await look(engine)
        await look(engine)
    marks = [text.split("agentmux run ")[1] for _, text in hub.comments()]
    runs = [row["id"] for row in select(fleet.layout, "SELECT id FROM runs ORDER BY n")]
    assert marks == [f"{run} -->\n" for run in runs]
    assert len(runs) == 2


async def test_what_a_stranger_comments_makes_no_issue_count_as_done(
    fleet: AgentFleet, hub: Hub
) -> None:
    hub.add(12, "Fix the price")
    forged = json.dumps([12, "<!-- agentmux run 1 -->", "stranger"])
    (hub.folder / "comments").write_text(f"{forged}\n")
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        await until(lambda: "TASK_COMPLETED" in fleet.kinds(), "the issue is done all the same")
        await look(engine)
    assert len(hub.comments()) == 2


async def test_an_issue_that_was_done_is_not_done_again_after_its_task_was_purged(
    fleet: AgentFleet, hub: Hub
) -> None:
    hub.add(12, "Fix the price")
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        await until(lambda: "TASK_COMPLETED" in fleet.kinds(), "the issue is done")
        await look(engine)
        await engine.execute(Purge(("issue:12",)))
        hub.add(13, "another")
        await look(engine)
        await until(lambda: fleet.states() == {"DONE": 1}, "the other is done")
        await look(engine)
    assert [row["id"] for row in select(fleet.layout, "SELECT id FROM tasks")] == ["issue:13"]
    assert [number for number, _ in hub.comments()] == [12, 13]


async def test_what_is_wrong_with_one_issue_holds_up_no_other(
    fleet: AgentFleet, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(1, "one")
    hub.add(2, "two")
    (hub.folder / "locked").touch()
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        await until(lambda: fleet.states() == {"DONE": 2}, "both are done")
        for _ in range(3):
            await look(engine)
        assert caplog.text.count("issue 1: gh issue comment failed: GraphQL: Unable to create") == 1
        assert caplog.text.count("issue 2: gh issue comment failed") == 1
        (hub.folder / "locked").unlink()
        await look(engine)
    assert [number for number, _ in hub.comments()] == [1, 2]


async def test_a_task_of_another_that_has_the_name_is_left_alone(
    fleet: AgentFleet, hub: Hub
) -> None:
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task("issue:1", agent="nobody-works"))))
        hub.add(1, "one")
        await engine.start_worker("other")
        await until(lambda: sum(fleet.states().values()) == 2, "it became a task")
        await look(engine)
        await look(engine)
    rows = select(fleet.layout, "SELECT id, agent FROM tasks ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        ("issue:1", "nobody-works"),
        ("issue:acme/site#1", "claude"),
    ]


async def test_a_gh_that_hangs_holds_up_no_end(
    fleet: AgentFleet, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub.folder / "hang").touch()
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        await engine.start_worker("other")
        await until((hub.folder / "asked").exists, "gh is asked")
        (gh,) = [p for p in psutil.Process().children() if "issue" in p.cmdline()]
    assert not gh.is_running()
    monkeypatch.setattr(github, "TIMEOUT", 0.5)
    with pytest.raises(github.GithubError, match="gh issue list did not answer"):
        await github.issues("acme/site", "agentmux")


async def test_without_gh_it_says_what_to_install(
    fleet: AgentFleet, hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub.folder / "gh").unlink()
    monkeypatch.setenv("PATH", str(hub.folder))
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: "the program gh was not found; install it" in caplog.text, "told")
    (finding,) = _in_settings(fleet.folder / "agentmux.yaml")
    assert finding.check == "github"
    assert (
        "issues of acme/site cannot be asked for: the program gh was not found" in finding.message
    )


async def test_an_issue_that_lost_its_label_is_cancelled_and_one_the_search_forgot_is_not(
    fleet: AgentFleet, hub: Hub
) -> None:
    first, second, third = hub.add(1, "one"), hub.add(2, "two"), hub.add(3, "three")
    fourth = hub.add(4, "four")
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: fleet.states() == {"READY": 4}, "all became tasks")
        first |= {"listed": False, "labels": []}
        second |= {"listed": False, "state": "CLOSED"}
        third |= {"listed": False}
        hub.issues.remove(fourth)  # deleted, or moved elsewhere
        hub.write()
        await look(engine)
    states = [fleet.state(f"issue:{number}") for number in (1, 2, 3, 4)]
    assert states == ["CANCELLED", "CANCELLED", "READY", "CANCELLED"]


async def test_seeding_a_dag_leaves_tasks_from_issues_alone(fleet: AgentFleet, hub: Hub) -> None:
    hub.add(1, "one")
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: fleet.states() == {"READY": 1}, "it became a task")
        receipt = await engine.execute(Seed(fleet.dag(agent_task("a"))))
        assert receipt.counts["blocked"] == 0
    assert fleet.states() == {"READY": 2}
    fleet.check()


async def test_a_gh_that_does_not_answer_is_told_once_and_asked_again(
    fleet: AgentFleet, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    (hub.folder / "issues.json").write_text("no json")
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: "issues of acme/site: gh issue list failed" in caplog.text, "told")
        assert engine._issues is not None
        await engine._issues._look_and_tell()
        assert caplog.text.count("issues of acme/site: ") == 1
        hub.add(1, "one")
        await look(engine)
    assert fleet.state("issue:1") == "READY"


async def test_a_feed_that_fails_is_told_wherever_one_looks_until_it_works(
    fleet: AgentFleet, hub: Hub
) -> None:
    async def told() -> list[str]:
        health = await take_health(fleet.layout, fleet.folder, config, SystemClock())
        return [alert.message for alert in health.alerts if alert.kind is Kind.FEED]

    def noted() -> bool:
        return bool(select(fleet.layout, "SELECT 1 FROM meta WHERE key = 'feed:acme/site'"))

    config = Config(github=GithubConfig("acme/site", "claude"))
    gh = (hub.folder / "gh").read_text()
    (hub.folder / "gh").write_text("#!/bin/sh\necho 'HTTP 401: Bad credentials' >&2; exit 1\n")
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(noted, "it failed")
        (said,) = await told()
        assert said == (
            "issues of acme/site are not heard of: gh issue list failed: HTTP 401: Bad credentials;"
            " mend that (`gh auth status` tells of the login) or `github:` in agentmux.yaml;"
            " GitHub is asked again by itself"
        )
        (need,) = [row for row in await engine.attention() if row.subject == "acme/site"]
        assert need.words == said
    assert await told() == [said], "though nobody asks now"
    (hub.folder / "gh").write_text(gh)
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: not noted(), "it works")
        assert await told() == []
