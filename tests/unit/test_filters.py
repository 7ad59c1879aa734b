"""What people type into a filter means what it says, and unknown states are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ValidationError
from engine.filters import AGENT, STATE, STATES, WORD, TaskFilter, Term, parse_filter, state_terms

TERMS = st.one_of(
    st.builds(Term, st.just(STATE), st.sampled_from(STATES), st.booleans()),
    st.builds(Term, st.sampled_from([WORD, AGENT]), st.text(min_size=1), st.booleans()),
    st.builds(
        Term,
        st.sampled_from([WORD, AGENT]),
        st.text('ab "\\!:\t\n', min_size=1).map(lambda text: "state:" * (len(text) % 2) + text),
        st.booleans(),
    ),
)


@given(st.builds(TaskFilter, st.lists(TERMS, max_size=5).map(tuple)))
def test_every_filter_reads_back_as_it_was_written(where: TaskFilter) -> None:
    assert parse_filter(str(where)) == where


@given(st.text())
def test_any_text_is_a_filter_or_is_refused_with_a_sentence(text: str) -> None:
    try:
        where = parse_filter(text)
    except ValidationError as error:
        assert str(error)  # noqa: PT017 - both ends are right; only another exception is wrong
    else:
        assert parse_filter(str(where)) == where


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        ("  tests \t impl ", (Term(WORD, "tests"), Term(WORD, "impl"))),
        ("impl:T-004", (Term(WORD, "impl:T-004"),)),
        ("!word", (Term(WORD, "word", negated=True),)),
        ("state:failed", (Term(STATE, "failed"),)),
        ("STATE:Failed", (Term(STATE, "failed"),)),
        ("state:!done", (Term(STATE, "done", negated=True),)),
        ("!state:done", (Term(STATE, "done", negated=True),)),
        ("!state:!done", (Term(STATE, "done"),)),
        ("state:waiting agent:codex", (Term(STATE, "waiting"), Term(AGENT, "codex"))),
        ("agent:!codex", (Term(AGENT, "codex", negated=True),)),
        ('"two words" agent:"a b"', (Term(WORD, "two words"), Term(AGENT, "a b"))),
        ('!"a \\"b\\" \\\\"', (Term(WORD, 'a "b" \\', negated=True),)),
        ('"state:x"', (Term(WORD, "state:x"),)),
        ("restate:x isn't", (Term(WORD, "restate:x"), Term(WORD, "isn't"))),
        ('5"disk', (Term(WORD, '5"disk'),)),
    ],
)
def test_words_and_fields_are_told_apart(text: str, terms: tuple[Term, ...]) -> None:
    assert parse_filter(text) == TaskFilter(terms)


@pytest.mark.parametrize("text", ["state:finished", "state:", "!state:!", 'state:""'])
def test_an_unknown_state_is_refused_with_the_list_of_states(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_filter(text)
    assert all(state in str(caught.value) for state in STATES)


@pytest.mark.parametrize("text", ["!", "agent:", "a !agent:! b", '""', '"open', 'a "b', '"a"b'])
def test_what_is_not_finished_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_filter(text)


def test_an_empty_filter_is_false_and_any_term_makes_it_true() -> None:
    assert not TaskFilter()
    assert TaskFilter((Term(WORD, "x"),))


def test_a_state_of_the_store_is_meant_whole() -> None:
    assert state_terms("DONE") == (Term(STATE, "done"),)
    assert state_terms("waiting") == (Term(STATE, "waiting"),)
    assert {term.value for term in state_terms("READY")} == set(STATES) - {"ready", "waiting"}
    assert all(term.negated for term in state_terms("READY"))
    with pytest.raises(ValidationError, match="waiting, ready, claimed"):
        state_terms("SLEEPING")
