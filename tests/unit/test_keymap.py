"""Promises of remapped keys: what is wrong is told at once, with its line, before the start."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from engine.errors import ValidationError
from tui.actions.model import Place
from tui.actions.table import ACTIONS, BY_NAME
from tui.keymap import Keymap, canonical, check_keys, read_settings, share_a_place, written

if TYPE_CHECKING:
    from pathlib import Path


def keymap(**chosen: str | tuple[str, ...]) -> Keymap:
    made, problems = check_keys(
        {name: (keys,) if isinstance(keys, str) else keys for name, keys in chosen.items()}
    )
    assert problems == []
    return made


def problem(**chosen: str | tuple[str, ...]) -> str:
    _, problems = check_keys(
        {name: (keys,) if isinstance(keys, str) else keys for name, keys in chosen.items()}
    )
    ((place, message),) = problems
    assert place[0] == "keys"
    assert place[1] in chosen
    return message


def test_no_two_actions_of_the_table_have_one_key_in_one_place() -> None:
    for one, other in combinations(ACTIONS, 2):
        shared = set(map(canonical, one.keys)) & set(map(canonical, other.keys))
        assert not (shared and share_a_place(one, other)), (one.name, other.name, shared)


def test_every_key_of_the_table_is_a_key_by_the_rules_for_operators() -> None:
    everything = {a.name: a.keys for a in ACTIONS if "ctrl+q" not in a.keys}
    assert check_keys(everything)[1] == []


def test_without_settings_the_keys_are_those_of_the_table() -> None:
    for action in ACTIONS:
        assert Keymap().keys_of(action) == action.keys
    assert Keymap().overrides() == {}


def test_a_remapped_action_has_its_new_keys_and_only_those() -> None:
    made = keymap(cancel="X", quit=("Q", "f10"), help="?")
    assert made.keys_of(BY_NAME["cancel"]) == ("X",)
    assert made.shown(BY_NAME["quit"]) == "Q"
    assert made.all_shown(BY_NAME["quit"]) == ("Q", "f10")
    assert made.keys_of(BY_NAME["kill"]) == ("K",)
    assert made.overrides() == {"cancel": "X", "quit": "Q,f10", "help": "question_mark"}


def test_two_actions_may_swap_their_keys() -> None:
    made = keymap(stop="K", kill="s")
    assert made.overrides() == {"stop": "K", "kill": "s"}


@pytest.mark.parametrize(
    ("key", "name", "shown"),
    [
        ("X", "X", "X"),
        ("é", "é", "é"),
        ("?", "question_mark", "?"),
        ("#", "number_sign", "#"),
        (",", "comma", ","),
        ("+", "plus", "+"),
        ("-", "minus", "-"),
        ("comma", "comma", ","),
        ("question_mark", "question_mark", "?"),
        ("Space", "space", "space"),
        ("F5", "f5", "f5"),
        ("esc", "escape", "esc"),
        ("PgUp", "pageup", "pgup"),
        ("Ctrl+B", "ctrl+b", "^b"),
        ("alt+x", "alt+x", "alt+x"),
        ("shift+tab", "shift+tab", "shift+tab"),
        ("shift+ctrl+up", "ctrl+shift+up", "^shift+up"),
        ("alt+X", "alt+shift+x", "alt+shift+x"),
    ],
)
def test_keys_are_read_as_people_write_them(key: str, name: str, shown: str) -> None:
    made, problems = check_keys({"transcript": (key,)})
    assert [message for _, message in problems if "already" not in message] == []
    assert made.keys_of(BY_NAME["transcript"]) == (name,)
    assert written(name) == shown


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"stopp": "x"}, "no action 'stopp'; did you mean 'stop'?"),
        ({"frobnicate": "x"}, "there are acknowledge, add, "),
        ({"kill": "enterr"}, "'enterr' is no key; did you mean 'enter'?"),
        ({"kill": "foo bar"}, "is no key"),
        ({"kill": "ctlr+b"}, "is no key"),
        ({"kill": "ctrl+"}, "is no key"),
        ({"kill": " "}, "is no key"),
        ({"kill": "shift+x"}, "write X"),
        ({"kill": "ctrl+i"}, "write tab"),
        ({"kill": "ctrl+m"}, "write enter"),
        ({"kill": "ctrl+["}, "write escape"),
        ({"kill": "ctrl+h"}, "write backspace"),
        ({"kill": "ctrl+?"}, "write backspace"),
        ({"kill": "ctrl+space"}, "not every terminal says so"),
        ({"kill": "ctrl+@"}, "not every terminal says so"),
        ({"kill": "ctrl+ctrl+a"}, "'ctrl+ctrl+a' has the same key twice"),
        ({"kill": "Shift+f5+shift"}, "is no key"),
        ({"kill": "ctrl+z"}, "suspends"),
        ({"kill": "ctrl+q"}, "always quits"),
        ({"kill": ()}, "needs a key"),
        ({"kill": "r"}, "r is the key of retry already"),
        ({"kill": ("X", "?")}, "? is the key of help already"),
        ({"kill": "X", "cancel": "X"}, "X is the key of kill already"),
        ({"down": "s"}, "s is the key of stop already"),
        ({"find": "n"}, "n is the key of find_next already"),
        ({"follow": "p"}, "p is the key of hold already"),
        ({"kill": "1"}, "1 is the key of pane_1 already"),
        ({"back": "b"}, "can also leave a line"),
        ({"back": "backspace"}, "can also leave a line"),
        ({"back": "ctrl+e"}, "can also leave a line"),
    ],
)
def test_a_key_that_would_not_work_is_refused_in_words(
    chosen: dict[str, str | tuple[str, ...]], words: str
) -> None:
    assert words in problem(**chosen)


def test_going_back_needs_but_one_key_that_leaves_a_line() -> None:
    assert keymap(back=("b", "f10")).keys_of(BY_NAME["back"]) == ("b", "f10")


def test_one_key_may_do_two_things_in_two_places() -> None:
    # As the table has it: / finds in a log and filters in lists.
    assert keymap(find="x", filter="x").shown(BY_NAME["find"]) == "x"
    assert Place.LOG not in BY_NAME["filter"].places


def test_all_problems_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    settings = tmp_path / "agentmux.yaml"
    settings.write_text("grace: 1\nkeys:\n  kil: x\n  stop: [S, foo]\n  retry: c\n  hold: []\n")
    with pytest.raises(ValidationError) as caught:
        read_settings(settings)
    assert [(one.line, one.field) for one in caught.value.problems] == [
        (3, "keys.kil"),
        (4, "keys.stop"),
        (5, "keys.retry"),
        (6, "keys.hold"),
    ]
    assert str(caught.value).startswith(f"{settings} has 4 problems")


def test_keys_that_would_not_work_are_told_with_all_else_that_is_wrong(tmp_path: Path) -> None:
    settings = tmp_path / "agentmux.yaml"
    settings.write_text("grase: 1\nkeys:\n  kil: x\n  stop: 7\n  retry: c\nlease: -1\n")
    with pytest.raises(ValidationError) as caught:
        read_settings(settings)
    assert [(one.line, one.field) for one in caught.value.problems] == [
        (1, "grase"),
        (3, "keys.kil"),
        (4, "keys.stop"),
        (5, "keys.retry"),
        (6, "lease"),
    ], "each once, and none of them only in the next round"


def test_without_a_file_every_key_is_the_tables(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "gone.yaml")[1] == Keymap()
