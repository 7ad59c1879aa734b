"""Promises about secrets: known by the names of their variables, kept out of what we write."""

from __future__ import annotations

import pytest

from engine.secrets import masks, names_secret, redact, redact_all


@pytest.mark.parametrize("name", ["API_KEY", "GITHUB_TOKEN", "client_secret", "DbPassword", "KEYS"])
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize("name", ["PATH", "HOME", "K_E_Y", "PASS"])
def test_names_of_others(name: str) -> None:
    assert not names_secret(name)


def test_values_of_secrets_are_replaced_by_their_names_the_longest_first() -> None:
    variables = {"A_KEY": "abcdef", "B_KEY": "abcdefgh", "C_KEY": "abc", "HOME": "/home/me"}
    assert redact("abcdefgh abcdef abc /home/me", variables) == "[B_KEY] [A_KEY] abc /home/me"


def test_a_secret_of_several_lines_is_found_as_json_writes_it_too() -> None:
    variables = {"DEPLOY_KEY": 'one\n"two" é'}
    said = 'plain: one\n"two" é; {"k": "one\\n\\"two\\" é", "ascii": "one\\n\\"two\\" \\u00e9"}'
    hidden = 'plain: [DEPLOY_KEY]; {"k": "[DEPLOY_KEY]", "ascii": "[DEPLOY_KEY]"}'
    assert redact(said, variables) == hidden


def test_a_mask_is_as_long_as_its_secret_and_names_it_as_far_as_that_goes() -> None:
    variables = {"A_KEY": "a" * 10, "LONG_NAME_TOKEN": "b" * 6, "HOME": "c" * 9, "SHORT_KEY": "d"}
    assert masks(variables) == ((b"a" * 10, b"[A_KEY]***"), (b"b" * 6, b"[LONG_"))
    assert (b"\xff" * 6, b"[ODD_T") in masks({"ODD_TOKEN": "\udcff" * 6})


def test_the_white_space_around_a_secret_is_no_part_of_it() -> None:
    assert redact("It is swordfish.", {"DOOR_KEY": " swordfish\n"}) == "It is [DOOR_KEY]."


def test_a_secret_is_found_however_deep_it_lies() -> None:
    value = {"a": "swordfish", "b": ["x", {"c": ("swordfish!", 7, None)}], "d": True}
    told = {"a": "[DOOR_KEY]", "b": ["x", {"c": ["[DOOR_KEY]!", 7, None]}], "d": True}
    assert redact_all(value, {"DOOR_KEY": "swordfish"}) == told
