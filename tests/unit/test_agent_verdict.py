"""Promises about how an agent's run ended: every case that a CLI documents, and sudden ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from support.standins.install import transcript

from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.verdict import Verdict, VerdictKind, judge
from engine.agents.vocabulary import Entry, Kind, Role, Trouble
from engine.text import clean_text

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
RESETS = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
DONE, FAILED, LATER = VerdictKind.DONE, VerdictKind.FAILED, VerdictKind.LATER
TURNS, LOGIN = VerdictKind.TURNS, VerdictKind.LOGIN
NO_AUTH = (
    "Please set an Auth method in your ~/.gemini/settings.json or specify one of the following"
    " environment variables before running: GEMINI_API_KEY, GOOGLE_GENAI_USE_VERTEXAI"
)


def of(*entries: Entry) -> Summary:
    summary = Summary()
    for entry in entries:
        summary.take(entry)
    return summary


def recorded(name: str, scenario: str) -> Summary:
    path, reader = transcript(name, scenario), reader_for(name)
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return of(*(entry for line in lines for entry in reader.read(line)))


def verdict(form: str, code: int, summary: Summary, stderr: str = "") -> Verdict:
    return judge(form, code, summary, stderr, NOW, UTC)


SAID = Entry(Kind.MESSAGE, "I am at it.", role=Role.AGENT)
SUCCESS = Entry(Kind.RESULT, "Done.")
ERROR = Entry(Kind.RESULT, "it broke", failed=True)


@pytest.mark.parametrize(
    ("name", "scenario", "code", "stderr", "kind", "words"),
    [
        ("claude", "ok", 0, "", DONE, None),
        ("claude", "subagents", 0, "", DONE, None),
        ("claude", "unknown-types", 0, "", DONE, None),
        ("claude", "retries", 0, "", DONE, None),
        ("claude", "fails", 1, "", FAILED, "the agent failed: [ede_diagnostic]"),
        ("claude", "rate-limit", 1, "", LATER, "You've hit your session limit"),
        ("claude", "turn-limit", 1, "", TURNS, "Reached maximum number of turns (3)"),
        ("claude", "no-login", 1, "", LOGIN, "Not logged in · Please run /login"),
        ("claude", "sudden-death", -9, "", FAILED, "SIGKILL without a result"),
        ("codex", "ok", 0, "", DONE, None),
        ("codex", "unknown-types", 0, "", DONE, None),
        ("codex", "retries", 0, "", DONE, None),
        ("codex", "fails", 1, "", FAILED, "the agent failed: stream disconnected"),
        ("codex", "rate-limit", 1, "", LATER, "You've hit your usage limit"),
        ("codex", "turn-limit", 1, "", TURNS, "token budget exhausted"),
        ("codex", "no-login", 1, "", LOGIN, "401 Unauthorized"),
        ("codex", "sudden-death", 137, "", FAILED, "SIGKILL without a result"),
        ("gemini", "ok", 0, "", DONE, None),
        ("gemini", "unknown-types", 0, "", DONE, None),
        ("gemini", "fails", 1, "", FAILED, "the model went away"),
        ("gemini", "rate-limit", 173, "", LATER, "exhausted your capacity"),
        ("gemini", "turn-limit", 53, "", TURNS, "Reached max session turns"),
        ("gemini", "no-login", 41, NO_AUTH, LOGIN, "Please set an Auth method"),
        ("gemini", "sudden-death", -9, "", FAILED, "SIGKILL without a result"),
    ],
)
def test_what_the_clis_document(
    name: str, scenario: str, code: int, stderr: str, kind: VerdictKind, words: str | None
) -> None:
    found = verdict(name, code, recorded(name, scenario), stderr)
    assert found.kind is kind
    assert (words is None and found.error is None) or (words or "") in (found.error or "")
    if kind is LATER:
        assert found.not_before is not None
        assert abs(found.not_before - RESETS) < timedelta(seconds=5)
    else:
        assert found.not_before is None


@pytest.mark.parametrize(
    ("form", "code", "entries", "stderr", "kind", "words"),
    [
        # Neither the exit code alone nor the last word alone is a success.
        ("claude", 0, [SAID], "", FAILED, "exited with 0 without a result"),
        ("claude", 0, [SAID, ERROR], "", FAILED, "the agent failed: it broke"),
        ("claude", 1, [SAID, SUCCESS], "", FAILED, "gave its result, but exited with 1"),
        ("claude", 143, [SAID], "", FAILED, "was ended by SIGTERM without a result"),
        ("claude", -15, [SAID, SUCCESS], "", FAILED, "gave its result, but was ended by SIGTERM"),
        ("claude", 0, [Entry(Kind.RESULT)], "", FAILED, "said and did nothing"),
        ("codex", 0, [SAID], "", FAILED, "exited with 0 without a result"),
        ("codex", 0, [SAID, ERROR], "", FAILED, "the agent failed: it broke"),
        ("codex", -9, [], "", FAILED, "without a result; see its transcript and stderr.log"),
        ("gemini", 0, [SAID], "", FAILED, "exited with 0 without a result"),
        ("gemini", 0, [SAID, ERROR], "", FAILED, "the agent failed: it broke"),
        # What a CLI says on stderr when it does not even begin.
        ("claude", 1, [], "Error: Session ID x is already in use.\n\n", FAILED, "already in use."),
        ("claude", 1, [], "Invalid API key · Fix external API key", LOGIN, "Invalid API key"),
        ("codex", 2, [], "error: unexpected argument '--full-auto' found", FAILED, "`args`"),
        ("codex", 1, [], "Not inside a trusted directory", FAILED, "Not inside a trusted"),
        ("gemini", 1, [], "Unknown argument: x", FAILED, "Unknown argument: x"),
        ("gemini", 41, [], "", LOGIN, "not logged in"),
        ("gemini", 42, [], "No input provided via stdin.", FAILED, "its prompt"),
        ("gemini", 44, [], "", FAILED, "sandbox"),
        ("gemini", 52, [], "", FAILED, "settings"),
        ("gemini", 53, [], "", TURNS, "turns"),
        ("gemini", 54, [], "", FAILED, "disk"),
        ("gemini", 55, [], "not running in a trusted directory", FAILED, "TRUST_WORKSPACE"),
        ("gemini", 173, [SAID], "", LATER, "limit"),
        ("gemini", 145, [SAID], "", LOGIN, "not logged in"),
        # What was retried on the way is not why it failed, if it says why.
        ("gemini", 1, [SAID, ERROR], "Attempt 1 failed: Please retry in 6s", FAILED, "it broke"),
        # The CLI's own cap ends with a success that is none.
        ("gemini", 0, [SAID, Entry(Kind.ERROR, "Maximum", trouble=Trouble.TURNS), SUCCESS], "",
         TURNS, "Maximum"),
        # A limit that was told counts though the result does not say so; one that was got over
        # does not, nor does it explain a signal.
        ("claude", 1, [Entry(Kind.ERROR, "x", trouble=Trouble.RATE), ERROR], "", LATER, "it broke"),
        ("claude", 1, [Entry(Kind.ERROR, "x", trouble=Trouble.RATE), SAID, ERROR], "", FAILED, ""),
        ("claude", -9, [Entry(Kind.ERROR, "x", trouble=Trouble.RATE)], "", FAILED, "SIGKILL"),
        ("codex", 1, [SAID, Entry(Kind.ERROR, "no server")], "", FAILED, "no server"),
        # What has no format is judged by its exit code alone.
        ("text", 0, [], "", DONE, None),
        ("text", 0, [SAID], "rate limit", DONE, None),
        ("text", 3, [SAID], "a\nlast words\n", FAILED, "program exited with 3: last words"),
        ("text", -11, [], "", FAILED, "was ended by SIGSEGV"),
        ("text", -99, [], "", FAILED, "was ended by signal 99"),
        ("text", 41, [], NO_AUTH, FAILED, "exited with 41"),
    ],
)  # fmt: skip
def test_how_a_run_ended(
    form: str, code: int, entries: list[Entry], stderr: str, kind: VerdictKind, words: str | None
) -> None:
    found = verdict(form, code, of(*entries), stderr)
    assert found.kind is kind
    assert (found.error is None) == (words is None)
    assert (words or "") in (found.error or "")


@pytest.mark.parametrize(
    ("until", "text", "not_before"),
    [
        (RESETS, "resets 11am", RESETS),
        (None, "resets 11am", NOW + timedelta(hours=1)),
        (None, "try again later", None),
        # What is past or far away was misread.
        (NOW - timedelta(hours=1), "later", None),
        (NOW + timedelta(days=30), "resets 11am", NOW + timedelta(hours=1)),
    ],
)
def test_a_number_counts_before_words(
    until: datetime | None, text: str, not_before: datetime | None
) -> None:
    limit = Entry(Kind.ERROR, text, trouble=Trouble.RATE, until=until)
    found = verdict("claude", 1, of(limit))
    assert (found.kind, found.not_before) == (LATER, not_before)


def test_a_hint_on_stderr_says_when_a_limit_is_over() -> None:
    found = verdict("gemini", 173, of(SAID), "Attempt 10 failed: Please retry in 60s.\n")
    assert found.not_before == NOW + timedelta(minutes=1)


def test_a_sentence_is_one_clean_line_of_bounded_length() -> None:
    evil = Entry(Kind.RESULT, "\x1b]0;x\x07bad\n\n" + "long " * 100_000, failed=True)
    error = verdict("claude", 1, of(evil)).error
    assert error is not None
    assert error == clean_text(error)
    assert len(error) < 700
