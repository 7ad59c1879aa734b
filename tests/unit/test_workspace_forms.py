"""Promises of `workspace:`: every form that names a repository, and no other."""

from __future__ import annotations

import pytest

from engine.parsing.checks import Findings
from engine.parsing.workspaces import FORMS, normalise

GITHUB = "https://github.com/acme/site.git"


def read(value: object, **variables: str) -> tuple[dict[str, str] | None, list[str]]:
    findings = Findings()
    return normalise(value, ("w",), findings, variables), [f.message for f in findings.items]


@pytest.mark.parametrize("value", [None, ".", {}, {"x-note": 1}])
def test_without_a_word_it_is_the_current_repository(value: object) -> None:
    assert read(value) == ({}, [])


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ({"url": "https://github.com/acme/site"}, "https://github.com/acme/site"),
        ({"url": GITHUB}, GITHUB),
        ({"owner": "acme", "repo": "site"}, GITHUB),
        ({"owner": "acme", "repo": "site.git"}, GITHUB),
        ({"repo": "acme/site"}, GITHUB),
        ("acme/site", GITHUB),
        ({"url": "git@host.example:acme/site.git"}, "git@host.example:acme/site.git"),
        ({"url": "ssh://git@host.example/site"}, "ssh://git@host.example/site"),
        ({"url": "../other"}, "../other"),
        ("/srv/git/site.git", "/srv/git/site.git"),
        ("~/src/site", "~/src/site"),
    ],
)
def test_every_form_names_one_repository(value: object, url: str) -> None:
    assert read(value) == ({"url": url}, [])


def test_a_name_alone_needs_the_owner_from_the_environment() -> None:
    assert read({"repo": "site"}, AGENTMUX_GITHUB_OWNER="acme") == ({"url": GITHUB}, [])
    assert read("site", AGENTMUX_GITHUB_OWNER="acme") == ({"url": GITHUB}, [])
    workspace, faults = read({"repo": "site"})
    assert workspace is None
    assert faults == [f"'site' has no owner; {FORMS}"]


def test_a_branch_goes_with_every_form() -> None:
    assert read({"branch": "release/1.2"}) == ({"branch": "release/1.2"}, [])
    assert read({"repo": "acme/site", "branch": "dev"}) == ({"url": GITHUB, "branch": "dev"}, [])


@pytest.mark.parametrize(
    "value",
    [
        3,
        [],
        {"url": 3},
        {"url": ""},
        {"url": "name"},
        {"url": "-upload-pack=touch x"},
        {"url": "--upload-pack=touch x"},
        {"url": "ext::sh -c touch% x"},
        {"url": "ftp://host.example/x"},
        {"url": "ssh://-oProxyCommand=x/y"},
        {"url": GITHUB, "repo": "x"},
        {"owner": "acme"},
        {"repo": "a/b/c"},
        {"owner": "acme", "repo": ".."},
        {"owner": "-a", "repo": "x"},
        {"repositry": "x"},
    ],
)
def test_anything_else_is_refused_with_the_forms_there_are(value: object) -> None:
    workspace, faults = read(value)
    assert workspace is None
    assert faults


def test_the_refusal_of_a_form_names_them_all() -> None:
    for value in (3, {"url": "name"}, {"owner": "acme"}, {"repo": "a/b/c"}):
        assert FORMS in read(value)[1][0]


@pytest.mark.parametrize(
    "branch", ["-x", "a..b", "a b", "a.lock", "a//b", "/a", "a/", ".a", "a/.b", "@", "HEAD", "a~1"]
)
def test_what_git_takes_for_no_branch_is_refused(branch: str) -> None:
    assert read({"branch": branch}) == (None, [f"{branch!r} cannot name a branch"])
