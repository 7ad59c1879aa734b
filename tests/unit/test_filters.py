"""What people type into a filter means what it says, and what it cannot mean is refused."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ValidationError
from engine.filters import (
    AFTER,
    AGENT,
    BEFORE,
    ERROR,
    EVENT_FIELDS,
    ID,
    NAME,
    OUTCOME,
    OUTCOMES,
    RUN_FIELDS,
    STATE,
    STATES,
    TASK,
    TASK_FIELDS,
    TOOK,
    TYPE,
    TYPES,
    WORD,
    WORKER,
    Fields,
    Filter,
    Term,
    likely_meant,
    parse_filter,
    state_terms,
)
from engine.moments import parse_moment
from engine.patterns import has_match, has_word

NOW = datetime(2026, 3, 14, 10, 12, 46, tzinfo=UTC)
TABLES = (TASK_FIELDS, RUN_FIELDS, EVENT_FIELDS)

TEXT = st.one_of(
    st.text(min_size=1),
    st.text('ab "\\!:/,\t\n', min_size=1).map(lambda text: "state:" * (len(text) % 2) + text),
    st.sampled_from(
        ["outcome:x", "agnet:x", "http://x", "/x/", "!", "a,b", "stat:", "-", "impl:T-004"]
    ),
)
PATTERNS = st.sampled_from(
    ["^a b$", r"a\/b", "x|y", r"\d+", '"', "!", ":", r"\\", "[ /]".replace("/", r"\/")]
)
NAMES = st.from_regex(r"\A[A-Za-z0-9._-]{1,9}\Z")


def _term(field: str, value: str, negated: bool = False, regex: bool = False) -> Term:
    # Hypothesis looks at the annotations of what it builds, and those of rows are for mypy only.
    return Term(field, value, negated, regex)


def terms(fields: Fields) -> st.SearchStrategy[Term]:
    """Every term that a table of fields knows, as the parser makes it."""
    choices = [
        st.builds(
            lambda field, values, negated: Term(
                field, values[0], negated, others=tuple(values[1:])
            ),
            st.just(field),
            st.lists(st.sampled_from(values), min_size=1, max_size=3),
            st.booleans(),
        )
        for field, values in fields.choices.items()
    ]
    texts = [WORD, *(f for f in (ID, NAME, ERROR, TASK, AGENT, WORKER) if f in fields.kinds)]
    found = [
        *choices,
        st.builds(_term, st.sampled_from(texts), TEXT, st.booleans()),
        st.builds(
            _term,
            st.sampled_from(texts),
            PATTERNS,
            st.booleans(),
            st.just(True),
        ),
        st.builds(
            lambda names, negated: Term(AGENT, names[0], negated, others=tuple(names[1:])),
            st.lists(NAMES, min_size=1, max_size=3),
            st.booleans(),
        ),
    ]
    if AFTER in fields.kinds:
        moments = st.sampled_from(["2h", "3d", "10:12", "2026-03-14", "2026-03-14T10:12:46.123Z"])
        found.append(
            st.builds(
                lambda field, value, negated: Term(
                    field, value, negated, at=parse_moment(value, NOW)
                ),
                st.sampled_from([AFTER, BEFORE]),
                moments,
                st.booleans(),
            )
        )
    if TOOK in fields.kinds:
        found.append(
            st.builds(
                _term,
                st.just(TOOK),
                st.sampled_from([">90s", "<1.5m", ">9ms"]),
            )
        )
    return st.one_of(found)


@given(st.data(), st.sampled_from(TABLES))
def test_every_filter_reads_back_as_it_was_written(data: st.DataObject, fields: Fields) -> None:
    where = data.draw(st.lists(terms(fields), max_size=5).map(lambda found: Filter(tuple(found))))
    assert parse_filter(str(where), fields, now=NOW) == where


@given(st.one_of(st.text(), st.text('!/"\\:,aest ')), st.sampled_from(TABLES))
def test_any_text_is_a_filter_or_is_refused_with_a_sentence(text: str, fields: Fields) -> None:
    try:
        where = parse_filter(text, fields, now=NOW)
    except ValidationError as error:
        assert str(error)  # noqa: PT017 - both ends are right; only another exception is wrong
    else:
        assert parse_filter(str(where), fields, now=NOW) == where


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        ("  tests \t impl ", (Term(WORD, "tests"), Term(WORD, "impl"))),
        ("impl:T-004", (Term(WORD, "impl:T-004"),)),
        ("http://x", (Term(WORD, "http://x"),)),
        ("src/a/b", (Term(WORD, "src/a/b"),)),
        ("!word", (Term(WORD, "word", negated=True),)),
        ("state:failed", (Term(STATE, "failed"),)),
        ("STATE:Failed", (Term(STATE, "failed"),)),
        ("state:failed,Blocked", (Term(STATE, "failed", others=("blocked",)),)),
        ("state:!done", (Term(STATE, "done", negated=True),)),
        ("!state:done,failed", (Term(STATE, "done", negated=True, others=("failed",)),)),
        ("!state:!done", (Term(STATE, "done"),)),
        ("state:waiting agent:codex", (Term(STATE, "waiting"), Term(AGENT, "codex"))),
        ("agent:!codex", (Term(AGENT, "codex", negated=True),)),
        ("agent:codex,claude", (Term(AGENT, "codex", others=("claude",)),)),
        ("name:a,b", (Term(NAME, "a,b"),)),
        ('"two words" agent:"a b"', (Term(WORD, "two words"), Term(AGENT, "a b"))),
        ('!"a \\"b\\" \\\\"', (Term(WORD, 'a "b" \\', negated=True),)),
        ('"state:x"', (Term(WORD, "state:x"),)),
        ("restate:x isn't", (Term(WORD, "restate:x"), Term(WORD, "isn't"))),
        ('5"disk', (Term(WORD, '5"disk'),)),
        ("/^a b$/", (Term(WORD, "^a b$", regex=True),)),
        ("!/x/ y", (Term(WORD, "x", negated=True, regex=True), Term(WORD, "y"))),
        (r"name:/a\/b/", (Term(NAME, r"a\/b", regex=True),)),
        ("worker:/^codex/", (Term(WORKER, "^codex", regex=True),)),
        ('"/usr/bin"', (Term(WORD, "/usr/bin"),)),
    ],
)
def test_words_fields_and_patterns_are_told_apart(text: str, terms: tuple[Term, ...]) -> None:
    assert parse_filter(text) == Filter(terms)


@pytest.mark.parametrize(
    ("text", "fields", "term"),
    [
        ("outcome:timed-out,running", RUN_FIELDS, Term(OUTCOME, "timed-out", others=("running",))),
        ('outcome:"timed out"', RUN_FIELDS, Term(OUTCOME, "timed-out")),
        ("task:impl:T-004", RUN_FIELDS, Term(TASK, "impl:T-004")),
        ("took:>90s", RUN_FIELDS, Term(TOOK, ">90s")),
        ("type:TASK_FAILED", EVENT_FIELDS, Term(TYPE, "task_failed")),
        ("type:failed,lost", EVENT_FIELDS, Term(TYPE, "task_failed", others=("worker_lost",))),
        ("after:2h", RUN_FIELDS, Term(AFTER, "2h", at=NOW - timedelta(hours=2))),
        ("outcome:done", TASK_FIELDS, Term(WORD, "outcome:done")),
    ],
)
def test_each_list_has_fields_of_its_own(text: str, fields: Fields, term: Term) -> None:
    assert parse_filter(text, fields, now=NOW) == Filter((term,))


@pytest.mark.parametrize(
    ("text", "fields", "allowed"),
    [
        ("state:finished", TASK_FIELDS, STATES),
        ("state:", TASK_FIELDS, STATES),
        ("!state:!", TASK_FIELDS, STATES),
        ('state:""', TASK_FIELDS, STATES),
        ("state:done,", TASK_FIELDS, STATES),
        ("outcome:finished", RUN_FIELDS, OUTCOMES),
        ("type:nothing", EVENT_FIELDS, TYPES),
    ],
)
def test_an_unknown_choice_is_refused_with_the_list_of_choices(
    text: str, fields: Fields, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_filter(text, fields, now=NOW)
    assert all(choice in str(caught.value) for choice in allowed)


@pytest.mark.parametrize("text", ["stat:failed", "agnet:codex", "!Workers:x", "stat:", "agents:"])
def test_a_slip_in_the_name_of_a_field_is_refused_and_the_fields_are_named(text: str) -> None:
    with pytest.raises(ValidationError, match="state, agent, worker, id, name, why"):
        parse_filter(text)
    assert parse_filter(f'"{text}"') == Filter((Term(WORD, text),))


@pytest.mark.parametrize("text", ["stage:build", "work:it", "ids:3", "start:up", "tests:race"])
def test_what_stands_before_a_colon_may_be_a_word_all_the_same(text: str) -> None:
    assert parse_filter(text) == Filter((Term(WORD, text),))


@pytest.mark.parametrize(
    "text",
    [
        *("!", "agent:", "a !agent:! b", "agent:a,"),
        *('""', '"open', 'a "b', '"a"b', "/open", "/usr/bin", "//"),
        *("/(/", "name:/[/", "state:/x/", "/(?=x)/", r"/(a)\1/", "/a{2000}/"),
        *("\ud800", "a " * 101, "x" * 10_001),
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        *("after:", "after:soon", "after:25:00", "before:2026-02-30", "after:/x/"),
        *("after:0001-01-01T00:00+23:59", "after:999999999999d", "took:90s", "took:>x"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_filter(text, RUN_FIELDS, now=NOW)


def test_a_bad_pattern_is_told_in_the_filter_and_not_on_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValidationError, match=r"/\(/ is no regular expression: missing \)"):
        parse_filter("/(/")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (Term(AGENT, "a,b"), 'agent:"a,b"'),
        (Term(AGENT, "a", others=("b",)), "agent:a,b"),
        (Term(NAME, "a,b"), "name:a,b"),
        (Term(WORD, "state:x"), '"state:x"'),
        (Term(WORD, "outcome:x"), '"outcome:x"'),  # in the list of runs that is a field
        (Term(WORD, "impl:T-004"), "impl:T-004"),
        (Term(WORD, "a/b", negated=True, regex=True), r"!/a\/b/"),
    ],
)
def test_a_term_is_written_as_people_would_type_it(term: Term, text: str) -> None:
    assert str(term) == text


def test_an_empty_filter_is_false_and_any_term_makes_it_true() -> None:
    assert not Filter()
    assert Filter((Term(WORD, "x"),))


def test_a_state_of_the_store_is_meant_whole() -> None:
    assert state_terms("DONE") == (Term(STATE, "done"),)
    assert state_terms("waiting") == (Term(STATE, "waiting"),)
    assert state_terms("READY") == (Term(STATE, "ready", others=("waiting",)),)
    with pytest.raises(ValidationError, match="waiting, ready, claimed"):
        state_terms("SLEEPING")


@pytest.mark.parametrize(
    ("text", "fields", "meant"),
    [
        ("impl Running", TASK_FIELDS, "state:running"),
        ("timed-out", RUN_FIELDS, "outcome:timed-out"),
        ("failed", EVENT_FIELDS, "type:task_failed"),
        ("outcome:done", TASK_FIELDS, "tasks have the fields state"),
        ("impl:T-004 state:running", TASK_FIELDS, ""),
        ("/running/", TASK_FIELDS, ""),
    ],
)
def test_a_filter_that_finds_nothing_is_told_what_it_may_have_meant(
    text: str, fields: Fields, meant: str
) -> None:
    said = likely_meant(parse_filter(text, fields, now=NOW), fields)
    assert meant in said
    assert bool(said) == bool(meant)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("45s", NOW - timedelta(seconds=45)),
        ("30m", NOW - timedelta(minutes=30)),
        ("3d", NOW - timedelta(days=3)),
        ("10:12", datetime(2026, 3, 14, 8, 12, tzinfo=UTC)),
        ("9:05:06", datetime(2026, 3, 14, 7, 5, 6, tzinfo=UTC)),
        ("2026-03-14", datetime(2026, 3, 13, 22, tzinfo=UTC)),
        ("2026-03-14T10:12", datetime(2026, 3, 14, 8, 12, tzinfo=UTC)),
        ("2026-03-14T10:12:46.123Z", datetime(2026, 3, 14, 10, 12, 46, 123_000, tzinfo=UTC)),
        ("2026-03-14T10:12+01:00", datetime(2026, 3, 14, 9, 12, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_the_zone_in_which_they_are_shown(
    text: str, moment: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-2")
        time.tzset()
        found = parse_moment(text, NOW)
    time.tzset()
    assert found == moment


def test_the_readme_tells_every_field_and_shows_filters_that_can_be_read() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Filters")[2].partition("\n## ")[0]
    terms, _, lists = section.partition("| list | fields |")
    for fields in TABLES:
        (line,) = (line for line in lists.splitlines() if line.startswith(f"| {fields.rows} |"))
        assert set(fields.kinds) <= set(re.findall(r"`(\w+)`", line))
        for shown in re.findall(r"`(\w+:[^`]+)`", line):
            assert parse_filter(shown, fields, now=NOW).terms[0].field in fields.kinds
    examples = re.findall(r"^\| `([^`]+)`", terms, re.MULTILINE)
    assert len(examples) == 6
    for example in examples:
        assert parse_filter(example)


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("IMPL", "the impl", True),
        ("ärger", "Großer ÄRGER", True),
        ("ÄRGER", "großer ärger", True),
        ("straße", "STRASSE", True),
        ("strasse", "Straße", False),  # ASCII words are compared as SQLite does
        ("k", "\u212a", False),  # the sign of Kelvin, likewise
        ("ΣΊΣΥΦΟΣ", "σίσυφος", True),
        ("x", None, False),
    ],
)
def test_words_are_found_whatever_the_case(word: str, text: str | None, found: bool) -> None:
    assert has_word(word, None, text) is found


def test_patterns_are_found_whatever_the_case_and_anchors_mean_each_text() -> None:
    assert has_match("^größe$", "a", "GRÖSSE", "Größe")
    assert not has_match("^b", "ab", None)
    assert has_match("(?-m:^b)", "a", "b")
    assert has_match(r"[^\x00-\x7f]", "a", "ä")


@given(
    st.lists(st.one_of(st.none(), st.text("ab\nß Z")), max_size=4),
    st.sampled_from(
        [
            "^a",
            "b$",
            "^$",
            "^a.*b$",
            r"\Aa",
            r"b\z",
            "(?s)a.b",
            "[^a]",
            r"\s",
            r"\bß",
            r"\B",
            "z|^b",
            "(?-m:^b)",
        ]
    ),
)
def test_a_pattern_is_found_in_texts_if_it_is_found_in_one(
    texts: list[str | None], pattern: str
) -> None:
    alone = [re2.compile(pattern, _whatever_the_case()).search(t) for t in texts if t is not None]
    assert has_match(pattern, *texts) is any(found is not None for found in alone)


def _whatever_the_case() -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    return options


def test_no_pattern_can_take_more_than_linear_time() -> None:
    begun = time.process_time()
    assert not has_match("(a+)+$", "a" * 200_000 + "!")
    assert not has_match("(a|aa)+$", "a" * 200_000 + "!")
    assert time.process_time() - begun < 2
