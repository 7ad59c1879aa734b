"""Promises about what is read of an agent's output: everything that is told, and nothing raises."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins.install import NAMES, TRANSCRIPTS

from engine.agents.lines import LONGEST
from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.vocabulary import Entry, Kind, Role, Trouble
from engine.config.sections import FORMATS
from engine.model import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINES = sorted({line for file in TRANSCRIPTS.iterdir() for line in file.read_bytes().splitlines()})


def read(form: str, data: object, folder: str = "") -> tuple[Entry, ...]:
    line = data if isinstance(data, bytes) else json.dumps(data).encode()
    return reader_for(form, folder).read(line, NOON)


def only(form: str, data: object, folder: str = "") -> Entry:
    (entry,) = read(form, data, folder)
    return entry


def agent(*blocks: object, **rest: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": [*blocks]}, **rest}


def call(name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "t1", "name": name, "input": given}


def item(kind: str, stage: str = "completed", **rest: Any) -> dict[str, Any]:
    return {"type": f"item.{stage}", "item": {"id": "item_1", "type": kind, **rest}}


def test_there_is_a_reader_for_each_format_that_can_be_set() -> None:
    for form in FORMATS:
        assert reader_for(form).read(b"") == ()


@pytest.mark.parametrize("form", FORMATS)
@given(line=st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise(form: str, line: bytes) -> None:
    reader_for(form).read(line)


@pytest.mark.parametrize("form", NAMES)
@given(line=st.sampled_from(LINES), data=st.data())
def test_no_change_of_a_known_line_makes_a_reader_raise(
    form: str, line: bytes, data: st.DataObject
) -> None:
    try:
        fields = json.loads(line.decode(errors="replace"))
    except ValueError:
        return
    place: Any = fields
    while isinstance(place, dict | list) and place:
        key = data.draw(
            st.sampled_from(list(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    for entry in reader_for(form, "/home/dev/shop").read(json.dumps(fields).encode()):
        # What is read can be written again.
        json.dumps([entry.text, entry.detail]).encode()


@pytest.mark.parametrize("form", NAMES)
def test_deep_nesting_is_no_fault_of_ours(form: str) -> None:
    # Somewhere in between, a line can be decoded and a part of it not be encoded again.
    for depth in (*range(100, 1100), 5000, 100_000):
        deep = b"[" * depth + b"]" * depth
        for line in (
            b'{"type":"assistant","message":{"content":[{"type":"tool_use","input":%b}]}}',
            b'{"type":"item.started","item":{"type":"mcp_tool_call","arguments":%b}}',
            b'{"type":"tool_use","parameters":%b}',
        ):
            assert reader_for(form).read(line % deep)


@pytest.mark.parametrize("form", NAMES)
def test_a_line_that_is_not_understood_is_kept_as_it_is(form: str) -> None:
    for line in (
        b"Warning: no stdin",
        b'{"type":"telepathy"}',
        b'{"type":{}}',
        b"[]",
        b"{}",
        b'{"',
    ):
        assert read(form, line + b"\r\n") == (Entry(Kind.UNKNOWN, line.decode(), NOON),)
    assert read(form, b"\0\0\n") == ()
    assert only(form, b"\xff\n").text == "\ufffd"


def test_a_line_behind_zeros_with_half_an_emoji_and_broken_bytes_is_read() -> None:
    line = rb'{"type":"assistant","message":{"content":"a\ud83d \\ud83d \ud83d\uded2 ' + b'\xff"}}'
    assert only("claude", b"\0\0" + line).text == "a\ufffd \\ud83d \N{SHOPPING TROLLEY} \ufffd"


def test_a_huge_line_is_read_and_its_call_stays_one_short_line() -> None:
    entry = only("claude", agent(call("Bash", command="echo \n" * 2_000_000)))
    assert len(entry.text) == LONGEST
    assert "\n" not in entry.text
    assert len(entry.detail) > 10_000_000


@pytest.mark.parametrize(
    ("tool", "given", "shown"),
    [
        ("Edit", {"file_path": "/w/src/x.py", "old_string": "a"}, "src/x.py"),
        ("Read", {"file_path": "/world/x.py"}, "/world/x.py"),
        ("Bash", {"command": "pytest -q\n  -x", "description": "Run"}, "pytest -q -x"),
        ("Grep", {"path": "/w/src", "pattern": "def x"}, "def x"),
        ("Task", {"prompt": "Look at …", "description": "Find x"}, "Find x"),
        ("WebFetch", {"prompt": "What?", "url": "https://x.org"}, "https://x.org"),
        (
            "TodoWrite",
            {"todos": [{"status": "completed"}, {"status": "in_progress", "content": "Test"}]},
            "1 of 2 done: Test",
        ),
        ("mcp__x__y", {"depth": 3, "words": "some"}, "some"),
        ("mcp__x__y", {"depth": 3, "deep": True}, "3"),
        ("mcp__x__y", {"path": ["/w/a", "b"]}, "a, b"),
        ("mcp__x__y", {}, ""),
    ],
)
def test_a_call_is_told_by_its_key_argument(
    tool: str, given: Mapping[str, Any], shown: str
) -> None:
    entry = only("claude", agent(call(tool, **given)), "/w")
    assert (entry.kind, entry.tool, entry.text) == (Kind.CALL, tool, shown)
    assert json.loads(entry.detail) == given


def test_claude_session_is_told_once_until_it_changes() -> None:
    reader = reader_for("claude")
    line = b'{"type":"system","subtype":"init","session_id":"%b","model":"m","cwd":"/w"}'
    assert reader.read(line % b"a") == (Entry(Kind.SESSION, "/w", session="a", model="m"),)
    assert reader.read(line % b"a") == ()
    assert [entry.session for entry in reader.read(line % b"b")] == ["b"]


def test_claude_blocks_are_entries_with_the_time_and_the_subagent_of_their_line() -> None:
    line = agent(
        {"type": "thinking", "thinking": "hm"},
        {"type": "thinking", "thinking": "", "signature": "x"},
        {"type": "text", "text": "Yes."},
        {"type": "hologram"},
        parent_tool_use_id="t0",
        timestamp="2026-11-22T13:00:00.500+01:00",
    )
    entries = read("claude", line)
    assert [(entry.kind, entry.role) for entry in entries] == [
        (Kind.MESSAGE, Role.THOUGHT),
        (Kind.MESSAGE, Role.AGENT),
        (Kind.UNKNOWN, None),
    ]
    assert {entry.parent for entry in entries} == {"t0"}
    assert {entry.at for entry in entries} == {NOON.replace(microsecond=500_000)}


def test_claude_tool_results_are_paired_by_id() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content, "is_error": True}
    line = {"type": "user", "message": {"role": "user", "content": [block]}}
    entry = Entry(Kind.ANSWER, "a\n[image]\nb", NOON, call="t1", failed=True)
    assert only("claude", line) == entry
    del block["is_error"]
    assert not only("claude", line).failed


def test_claude_says_what_was_read_until_now_once_for_each_message() -> None:
    reader = reader_for("claude")
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}

    def line(name: str, parent: str | None) -> bytes:
        message = {"id": name, "content": "x", "usage": usage}
        said = {"type": "assistant", "message": message, "parent_tool_use_id": parent}
        return json.dumps(said).encode()

    said = [line("a", None), line("a", None), line("s", "t1"), line("b", None)]
    spent = [entry.spending for text in said for entry in reader.read(text)]
    assert spent == [
        Spending(1, 111, 100),
        Spending(1, 111, 100),
        Spending(1, 222, 200),
        Spending(2, 333, 300),
    ]


def test_claude_totals_are_those_of_all_models() -> None:
    model = {"inputTokens": 1, "cacheReadInputTokens": 20, "cacheCreationInputTokens": 300}
    line = {
        "type": "result", "subtype": "success", "is_error": False, "result": "Yes.",
        "num_turns": 3, "total_cost_usd": 0.25, "usage": {"input_tokens": 1},
        "modelUsage": {"a": {**model, "outputTokens": 5}, "b": {**model, "outputTokens": 6}},
    }  # fmt: skip
    entry = only("claude", line)
    assert (entry.kind, entry.text, entry.failed) == (Kind.RESULT, "Yes.", False)
    assert entry.spending == Spending(3, 642, 40, 11, 0.25)
    line["modelUsage"] = {}
    line["usage"] = {"input_tokens": 7, "cache_read_input_tokens": 1, "output_tokens": 2}
    assert only("claude", line).spending == Spending(3, 8, 1, 2, 0.25)
    line["usage"] = {"input_tokens": 0}
    assert only("claude", line).spending == Spending(3, cost=0.25)


def test_claude_has_a_result_more_for_each_background_task_and_its_turns_are_added() -> None:
    summary, reader = Summary(), reader_for("claude")
    for turns in (2, 1):
        line = {
            "type": "result", "subtype": "success", "result": "Yes.", "num_turns": turns,
            "total_cost_usd": 0.25, "usage": {"input_tokens": 7, "output_tokens": 2},
        }  # fmt: skip
        for entry in reader.read(json.dumps(line).encode()):
            summary.take(entry)
    assert summary.spending == Spending(3, 7, None, 2, 0.25)


@pytest.mark.parametrize(
    ("rest", "trouble"),
    [
        ({"result": "You've hit your weekly limit · resets Mon 12:00am"}, Trouble.RATE),
        ({"result": "Claude AI usage limit reached|1760000400"}, Trouble.RATE),
        ({"result": "API Error: Request rejected (429) · this may be temporary"}, Trouble.RATE),
        ({"result": "API Error: Repeated 529 Overloaded errors", "api_error_status": 529},
         Trouble.RATE),
        ({"result": "Not logged in · Please run /login"}, Trouble.LOGIN),
        ({"result": "Invalid API key · Fix external API key"}, Trouble.LOGIN),
        ({"result": "Failed to authenticate. API Error: 401 Invalid bearer token"}, Trouble.LOGIN),
        ({"result": "Credit balance is too low"}, Trouble.LOGIN),
        ({"result": "who knows", "api_error_status": 403}, Trouble.LOGIN),
        ({"subtype": "error_max_turns", "errors": ["Reached maximum number of turns (1)"]},
         Trouble.TURNS),
        ({"subtype": "error_max_budget_usd", "errors": ["Reached maximum budget ($1)"]}, None),
        ({"result": "Prompt is too long"}, None),
    ],
)  # fmt: skip
def test_claude_says_success_and_means_an_error(
    rest: Mapping[str, Any], trouble: Trouble | None
) -> None:
    line = {"type": "result", "subtype": "success", "is_error": True, **rest}
    entry = only("claude", line)
    assert (entry.failed, entry.trouble) == (True, trouble)
    assert entry.text
    assert only("claude", {**line, "subtype": "success", "is_error": False}).trouble is None


def test_claude_limits_count_only_when_they_are_reached() -> None:
    info = {"status": "rejected", "resetsAt": 1795350600, "rateLimitType": "seven_day_opus"}
    line = {"type": "rate_limit_event", "rate_limit_info": info}
    entry = only("claude", line)
    assert (entry.kind, entry.trouble) == (Kind.ERROR, Trouble.RATE)
    assert entry.until == datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
    assert "seven day opus" in entry.text
    for status in ("allowed", "allowed_warning"):
        assert read("claude", {**line, "rate_limit_info": {**info, "status": status}}) == ()


def test_claude_speaks_in_the_agents_name_of_what_went_wrong() -> None:
    line = agent({"type": "text", "text": "Not logged in"}, error="authentication_failed")
    line["message"]["model"] = "<synthetic>"
    entry = only("claude", line)
    assert (entry.kind, entry.trouble) == (Kind.ERROR, Trouble.LOGIN)
    # An answer that was cut off is an answer all the same.
    cut = agent({"type": "text", "text": "It is"}, error="max_output_tokens")
    assert [entry.kind for entry in read("claude", cut)] == [Kind.MESSAGE, Kind.ERROR]


def test_claude_tells_of_a_request_that_is_tried_again() -> None:
    line = {"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10,
            "retry_delay_ms": 600, "error_status": 529, "error": "overloaded"}  # fmt: skip
    entry = only("claude", line)
    assert entry.text == (
        "the API said overloaded (529); attempt 2 of 10 failed, the next one in 0.6 s"
    )
    assert entry.trouble is Trouble.RATE


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/bin/bash -lc ls", "ls"),
        ("/bin/bash -lc 'pytest -q'", "pytest -q"),
        ('/bin/zsh -lc "echo \\"\\$HOME\\" it\'s"', 'echo "$HOME" it\'s'),
        ("/bin/sh -c 'a'\\''b'", "'a'\\''b'"),
        ("make all", "make all"),
    ],
)
def test_codex_commands_are_shown_without_the_shell_around_them(command: str, shown: str) -> None:
    entry = only("codex", item("command_execution", "started", command=command))
    assert (entry.kind, entry.tool, entry.text) == (Kind.CALL, "shell", shown)


@pytest.mark.parametrize(
    ("rest", "failed", "text"),
    [
        ({"aggregated_output": "ok", "exit_code": 0, "status": "completed"}, False, "ok"),
        (
            {"aggregated_output": "", "exit_code": 3, "status": "failed"},
            True,
            "failed, exit code 3",
        ),
        ({"aggregated_output": "", "exit_code": None, "status": "declined"}, True, "declined"),
        ({"aggregated_output": "x", "exit_code": 1, "status": "completed"}, True, "x"),
    ],
)
def test_codex_answers_are_paired_with_their_calls(
    rest: Mapping[str, Any], failed: bool, text: str
) -> None:
    entry = only("codex", item("command_execution", **rest))
    assert entry == Entry(Kind.ANSWER, text, NOON, tool="shell", call="item_1", failed=failed)


def test_codex_items_of_every_kind() -> None:
    change = {"path": "/w/a.py", "kind": "update"}
    edit = only("codex", item("file_change", "started", changes=[change, change]), "/w")
    assert (edit.tool, edit.text) == ("edit", "a.py, a.py")
    mcp = item("mcp_tool_call", server="git", tool="log", error={"message": "no"}, status="failed")
    answer = only("codex", mcp)
    assert (answer.tool, answer.text, answer.failed) == ("git.log", "no", True)
    mcp = item("mcp_tool_call", result={"content": [{"type": "text", "text": "ok"}]})
    assert only("codex", mcp).text == "ok"
    plan = item("todo_list", "updated", items=[{"text": "a", "completed": True}, {"text": "b"}])
    assert only("codex", plan).text == "1 of 2 done: b"
    assert read("codex", item("todo_list", items=[])) == ()
    thought = only("codex", item("reasoning", text="hm"))
    assert thought.role is Role.THOUGHT
    warning = only("codex", item("error", message="rate limit reached soon"))
    assert (warning.kind, warning.trouble) == (Kind.ERROR, None)


def test_codex_web_search_has_two_ids_and_the_last_one_pairs() -> None:
    line = b'{"type":"item.%b","item":{"id":"item_1","type":"web_search","id":"ws_1","query":"x"}}'
    begun, over = only("codex", line % b"started"), only("codex", line % b"completed")
    assert (begun.call, begun.text) == (over.call, "x") == ("ws_1", "x")


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        ("You've hit your usage limit. Try again at 3:05 PM.", Trouble.RATE),
        ("You've hit your usage limit for X. Switch to another model now", Trouble.RATE),
        ("exceeded retry limit, last status: 429 Too Many Requests, request id: x", Trouble.RATE),
        ("Quota exceeded. Check your plan and billing details.", Trouble.LOGIN),
        ("stream disconnected before completion: Rate limit reached for x", Trouble.RATE),
        ("Selected model is at capacity. Please try a different model.", Trouble.RATE),
        ("unexpected status 401 Unauthorized: Missing bearer", Trouble.LOGIN),
        ("Your workspace is out of credits. Add credits to continue.", Trouble.LOGIN),
        ("To use Codex with your ChatGPT plan, upgrade to Plus", Trouble.LOGIN),
        ("shared rollout token budget exhausted", Trouble.TURNS),
        ("Codex ran out of room in the model's context window.", None),
    ],
)
def test_codex_failures_by_their_words(words: str, trouble: Trouble | None) -> None:
    entry = only("codex", {"type": "turn.failed", "error": {"message": words}})
    assert entry == Entry(Kind.RESULT, words, NOON, failed=True, trouble=trouble)
    entry = only("codex", {"type": "error", "message": words})
    assert entry == Entry(Kind.ERROR, words, NOON, trouble=trouble)


def test_codex_usage_is_told_with_the_turn() -> None:
    usage = {"input_tokens": 13085, "cached_input_tokens": 9984, "cache_write_input_tokens": 0,
             "output_tokens": 5, "reasoning_output_tokens": 0}  # fmt: skip
    entry = only("codex", {"type": "turn.completed", "usage": usage})
    assert (entry.failed, entry.spending) == (False, Spending(None, 13085, 9984, 5))


def test_gemini_pieces_make_one_message() -> None:
    summary = Summary()
    for piece in ("Fin", "al ", "answer"):
        line = {"type": "message", "role": "assistant", "content": piece, "delta": True,
                "timestamp": "2026-11-22T10:00:03.000Z"}  # fmt: skip
        entry = only("gemini", line)
        assert entry.at == NOON.replace(hour=10, second=3)
        summary.take(entry)
    assert (summary.text, summary.messages) == ("Final answer", 1)


def test_gemini_counts_what_was_thought_as_output_and_names_the_model_at_last() -> None:
    models = {
        "a": {"total_tokens": 130, "input_tokens": 100, "output_tokens": 10, "cached": 60},
        "b": {"total_tokens": 11, "input_tokens": 10, "output_tokens": 1, "cached": 0},
    }
    line = {"type": "result", "status": "success", "stats": {"input_tokens": 1, "models": models}}
    entry = only("gemini", line)
    assert (entry.spending, entry.model) == (Spending(None, 110, 60, 31), "a")
    assert only("gemini", {"type": "result", "status": "success"}).spending == Spending()


@pytest.mark.parametrize(
    ("kind", "words", "trouble"),
    [
        (
            "unknown",
            "[API Error: You have exhausted your daily quota on this model.]",
            Trouble.RATE,
        ),
        ("unknown", "[API Error: … Please retry in 11.2s.]", Trouble.RATE),
        ("FatalTurnLimitedError", "Reached max session turns", Trouble.TURNS),
        ("unknown", "[API Error: API key not valid. Please pass a valid API key.]", Trouble.LOGIN),
        ("UnauthorizedError", "[API Error: no]", Trouble.LOGIN),
        ("unknown", "[API Error: the model went away]", None),
    ],
)
def test_gemini_failures_by_their_words(kind: str, words: str, trouble: Trouble | None) -> None:
    line = {"type": "result", "status": "error", "error": {"type": kind, "message": words}}
    entry = only("gemini", line)
    assert (entry.text, entry.failed, entry.trouble) == (words, True, trouble)


def test_text_is_what_the_agent_says() -> None:
    assert only("text", b"{} done \xff\r\n") == Entry(
        Kind.MESSAGE, "{} done \ufffd", NOON, role=Role.AGENT
    )
    assert read("text", b" \n") == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_begins_in_the_middle_reads_the_same(name: str) -> None:
    lines = (TRANSCRIPTS / f"{name}-ok.jsonl").read_bytes().splitlines()
    whole = reader_for(name)
    for line in lines:
        here = [(e.kind, e.text, e.call, e.failed) for e in whole.read(line)]
        assert here == [(e.kind, e.text, e.call, e.failed) for e in reader_for(name).read(line)]
