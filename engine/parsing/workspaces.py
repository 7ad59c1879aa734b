"""The forms in which a task says which repository it works in, brought to one form.

Looks at nothing but the text: whether the repository is there is found out by who needs it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from engine.parsing.checks import line_of_text, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.parsing.checks import Check, Findings, Place

OWNER = "AGENTMUX_GITHUB_OWNER"
"""The variable that names the owner of repositories given by their name alone."""
FORMS = (
    "leave it out for the current repository, or give `url:` (any git URL or path), "
    "`owner:` and `repo:`, `repo: owner/name`, or `repo: name` with AGENTMUX_GITHUB_OWNER set; "
    "each with `branch:` if it is not the default one"
)

_LINE = line_of_text(longest=4096)
_FIELDS: Mapping[str, Check] = dict.fromkeys(("url", "owner", "repo", "branch"), _LINE)
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")
_REPO = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SCHEMES = ("https://", "http://", "ssh://", "git://", "file://")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9.-]+:(?!//).+")


def normalise(
    value: object, place: Place, findings: Findings, variables: Mapping[str, str]
) -> dict[str, str] | None:
    """Return a workspace as `url` and `branch`, each only if given; none: the current repository.

    What is wrong is noted, and answered with None. `variables` is the environment.
    """
    if value is None or value == ".":
        return {}
    if isinstance(value, str):
        value = {"url": value} if _is_location(value) else {"repo": value}
    if not isinstance(value, dict):
        findings.add(place, f"must be a mapping, not {show(value)}; {FORMS}")
        return None
    before = len(findings.items)
    findings.check_fields(value, _FIELDS, place)
    if len(findings.items) > before:
        return None
    fields = cast("Mapping[str, str]", value)
    url = _url(fields, place, findings, variables)
    if len(findings.items) > before:
        return None
    branch = fields.get("branch")
    if branch is not None and not _is_branch(branch):
        findings.add((*place, "branch"), f"{show(branch)} cannot name a branch")
        return None
    return {k: v for k, v in (("url", url), ("branch", branch)) if v is not None}


def _url(
    fields: Mapping[str, str], place: Place, findings: Findings, variables: Mapping[str, str]
) -> str | None:
    url, owner, repo = (fields.get(key) for key in ("url", "owner", "repo"))
    if url is not None:
        if owner is not None or repo is not None:
            findings.add(place, f"has a url beside owner or repo; {FORMS}")
        elif not _is_location(url):
            findings.add((*place, "url"), f"{show(url)} is no git URL and no path; {FORMS}")
        return url
    if repo is None:
        if owner is not None:
            findings.add(place, f"has an owner and no repo; {FORMS}")
        return None
    if owner is None and "/" in repo:
        owner, _, repo = repo.partition("/")
    owner = owner or variables.get(OWNER)
    if owner is None:
        findings.add((*place, "repo"), f"{show(repo)} has no owner; {FORMS}")
        return None
    repo = repo.removesuffix(".git")
    if not (_OWNER.fullmatch(owner) and _REPO.fullmatch(repo)) or repo in {"", ".", ".."}:
        findings.add((*place, "repo"), f"{show(f'{owner}/{repo}')} names no repository; {FORMS}")
        return None
    return f"https://github.com/{owner}/{repo}.git"


def _is_location(text: str) -> bool:
    """Say whether git could take this as a URL or a path, and as nothing else."""
    if text.startswith("-") or "::" in text:
        return False  # an option; a helper program (`ext::sh -c …`) that git would run
    if _SCHEME.match(text):
        return text.lower().startswith(_SCHEMES) and "://-" not in text
    return text.startswith((".", "/", "~")) or _SCP.fullmatch(text) is not None


def _is_branch(name: str) -> bool:
    """Say whether git takes this as the name of a branch (git check-ref-format)."""
    if name.startswith("-") or name.endswith(("/", ".")) or name in {"@", "HEAD"}:
        return False
    if re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//", name):
        return False
    return not any(
        part.startswith(".") or part.endswith(".lock") or not part for part in name.split("/")
    )
