"""Promises about names: any id gives a folder and refs that git takes, and no two the same."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files import branch_name, plain_name, saved_ref, worktree_folder
from engine.workspaces import Source
from engine.workspaces.bases import _base_name
from engine.workspaces.git import Done, Git, environment, last_words

ODD = [
    ".", "..", "...", "a/b", "../../etc/passwd", "%2E", "~", "-rf", " ", "a" * 200, "@", "@{",
    "HEAD", "a.lock", ".lock", "lock.", "a..b", "a.", "impl:T-004", "x^{}", "é", "*", "a\\b", "[a]",
    "a b", "refs/heads/x", "-", "_", "0", "a-0123456789", "a.lock.lock", "\ud800",
]  # fmt: skip
IDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200
) | st.sampled_from(ODD)


def git_takes(branch: str, ref: str) -> bool:
    checks = (["--branch", branch], [ref])
    return all(
        subprocess.run(
            ["git", "check-ref-format", *check], capture_output=True, check=False
        ).returncode
        == 0
        for check in checks
    )


@pytest.mark.parametrize("task_id", ODD)
def test_git_takes_the_branch_and_the_ref_of_any_odd_id(task_id: str) -> None:
    assert git_takes(branch_name(task_id, 1), saved_ref(task_id, "01ab"))
    assert git_takes(branch_name(task_id, 12, 3), saved_ref(task_id, task_id, 2))


@given(IDS)
def test_a_plain_name_is_one_that_git_and_every_tool_takes(task_id: str) -> None:
    # git check-ref-format(1), rule by rule: it would take minutes to ask it each time.
    name = plain_name(task_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert ".." not in name
    assert not name.endswith((".", ".lock"))
    assert len(name) <= 60
    assert plain_name(name) == name or re.search(r"-[0-9a-f]{10}$", name)


@given(IDS, IDS)
def test_different_ids_have_different_names(one: str, other: str) -> None:
    assert (plain_name(one) == plain_name(other)) == (one == other)


@given(IDS)
def test_what_looks_like_a_name_that_was_made_up_is_kept_apart(task_id: str) -> None:
    made = plain_name(task_id)
    assert made == task_id or plain_name(made) != made


def test_names_are_the_same_in_every_version() -> None:
    assert plain_name("impl_T-004.b") == "impl_T-004.b"
    assert plain_name("impl:T-004") == "impl-T-004-28e9ee3b50"
    assert branch_name("a b", 2) == "agentmux/a-b-c8687a08aa/2"
    assert branch_name("a", 2, 3) == "agentmux/a/2.3"
    assert saved_ref("a", "r") == "refs/agentmux/saved/a/r"
    assert worktree_folder(Path("/w"), "a", 1) == Path("/w/a/1")


@pytest.mark.parametrize("task_id", ODD)
def test_a_worktree_lies_two_levels_below_the_root(task_id: str) -> None:
    root = Path("/root/of/all")
    assert worktree_folder(root, task_id, 1).resolve().parent.parent == root


@pytest.mark.parametrize(
    ("workspace", "url"),
    [
        (None, None),
        ({}, None),
        ({"url": "https://u:p@h/x.git"}, "https://u:p@h/x.git"),
        ({"url": "../other"}, "/home/other"),
        ({"url": "./in/it/"}, "/home/project/in/it"),
        ({"url": "/else/where"}, "/else/where"),
        ({"url": "git@host:owner/repo.git"}, "git@host:owner/repo.git"),
    ],
)
def test_a_source_is_what_the_payload_names_from_the_projects_folder(
    workspace: dict[str, str] | None, url: str | None
) -> None:
    assert Source.read(workspace, Path("/home/project")) == Source(url, None)


def test_a_source_is_shown_without_credentials() -> None:
    assert Source("https://user:s3cret@host/x.git").shown == "https://host/x.git"
    assert Source("ssh://git@host/x").shown == "ssh://host/x"
    assert Source("git@host:x").shown == "git@host:x"
    assert Source().shown == "."


def test_each_url_has_a_base_of_its_own_that_one_can_tell() -> None:
    urls = ["https://h/o/repo.git", "https://h/p/repo.git", "https://t@h/o/repo.git", "/x/repo"]
    names = [_base_name(url) for url in urls]
    assert len(set(names)) == len(urls)
    assert all(name.startswith("repo-") for name in names)
    assert not any("/" in _base_name(url) for url in ("/", "//", "h:", "file:///"))


def test_of_gits_variables_only_those_stay_that_say_how_to_reach_something() -> None:
    kept = {"GIT_SSH_COMMAND": "ssh", "GIT_SSL_CAINFO": "x", "GIT_CONFIG_GLOBAL": "y", "HOME": "/"}
    gone = dict.fromkeys(
        [
            "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0",
            "GIT_CONFIG_PARAMETERS", "GIT_CONFIG", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_LITERAL_PATHSPECS", "GIT_TRACE", "GIT_PREFIX",
        ],
        "x",
    )  # fmt: skip
    person = {"GIT_AUTHOR_NAME": "x", "GIT_COMMITTER_EMAIL": "x@y", "GIT_AUTHOR_DATE": "now"}
    assert environment({**kept, **gone, **person}) == kept
    assert environment({**kept, **gone, **person}, person=True) == kept | person


def test_every_variable_that_git_calls_local_is_dropped() -> None:
    told = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True
    )
    names = told.stdout.split()
    assert len(names) > 10
    assert environment(dict.fromkeys(names, "x")) == {}


def test_no_complaint_shows_a_secret_or_acts_on_a_terminal() -> None:
    git = Git(threading.Event(), secrets={"https://u:s3cret@h/x": "https://h/x"})
    cleaned = git._cleaned(b"remote: \x1b[31mno\nfatal: https://u:s3cret@h/x: no\n")
    assert cleaned == "remote: no\nfatal: https://h/x: no"


def test_the_line_that_says_most_ends_a_sentence() -> None:
    err = "warning: x\nerror: could not lock\nfatal: it failed\nPlease make sure you may.\n"
    assert last_words(Done(128, b"", err)) == "it failed"
    assert last_words(Done(1, b"", "strange\n\n")) == "strange"
    assert last_words(Done(3, b"", "")) == "exit code 3"
