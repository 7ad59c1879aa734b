"""Which keys do what: those of the table of actions, or those that the operator chose instead.

It knows the table and the settings, and no widget: Textual gets the keys by `overrides`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from msgspec import Struct, field
from textual.binding import Binding
from textual.keys import Keys, format_key

from engine.config import load_config
from engine.parsing.checks import closest, show
from tui.actions.model import Action, Place
from tui.actions.table import ACTIONS, BY_NAME, shown

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from engine.config import Config
    from engine.parsing.checks import Place as At

Keyring = Mapping[str, tuple[str, ...]]
"""The keys of each action, by the action's name."""

_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
_NAMED = frozenset(key.value for key in Keys if key.value.isalnum() and len(key.value) > 1)
_NAMED_TOO = {
    "esc": "escape",
    "return": "enter",
    "del": "delete",
    "pgup": "pageup",
    "pgdn": "pagedown",
}
_SENT_AS = {
    "ctrl+i": "tab",
    "ctrl+m": "enter",
    "ctrl+h": "backspace",
    "ctrl+question_mark": "backspace",
    "ctrl+left_square_bracket": "escape",
}
"""What terminals send another key for."""
_RESERVED = {
    "ctrl+space": "not every terminal says so when it is pressed",
    "ctrl+at": "not every terminal says so when it is pressed",
    "ctrl+z": "it suspends the program",
    "ctrl+q": "it always quits",
    "ctrl+pageup": "it scrolls sideways",
    "ctrl+pagedown": "it scrolls sideways",
}
_LEAVES = "back"
"""The action that must work while one types, too."""
_EVERYWHERE = frozenset(Place)


class Keymap(Struct, frozen=True):
    """The keys in force. `chosen` has what differs from the table, in Textual's names.

    `plain`: keys are written in ASCII.
    """

    chosen: Keyring = field(default_factory=dict)
    plain: bool = False

    def keys_of(self, action: Action) -> tuple[str, ...]:
        """Return the keys that do an action, the one to show first."""
        return self.chosen.get(action.name, action.keys)

    def shown(self, action: Action) -> str:
        """Return the key of an action as footer and palette write it."""
        return self._written(self.keys_of(action)[0])

    def all_shown(self, action: Action) -> tuple[str, ...]:
        """Return all keys of an action as the help writes them, none of them twice."""
        return tuple(dict.fromkeys(map(self._written, self.keys_of(action))))

    def leaving(self, taken: Collection[str] = ()) -> dict[str, str]:
        """Return the keys that leave a dialog, each as it is written; the first is to be shown.

        They are those of `back`, but for what the dialog itself has `taken`.
        """
        keys = [key for key in self.keys_of(BY_NAME[_LEAVES]) if key not in taken]
        return {key: self._written(key) for key in keys or ["escape"]}

    def _written(self, key: str) -> str:
        text = written(key)
        return text if text.isascii() or not self.plain else key

    def overrides(self) -> dict[str, str]:
        """Return what `App.set_keymap` wants: keys by the id of a binding."""
        return {name: ",".join(keys) for name, keys in self.chosen.items()}


def written(key: str) -> str:
    """Return a key as people write it: `?` for question_mark, `^p` for ctrl+p."""
    plain = shown(key)
    return format_key(key) if plain == key else plain


def read_settings(settings: Path) -> tuple[Config, Keymap]:
    """Read what the settings say of the screen, and the keymap that they ask for.

    The rest of them is the engine's: it reads, and refuses, the file as a whole when it opens.

    Raises:
        ValidationError: with every problem of the file, those of its `keys` among them.
        StorageError: the file is there and cannot be read.

    """
    keymap = Keymap()

    def wrong(config: Config) -> list[tuple[At, str]]:
        nonlocal keymap
        keymap, problems = check_keys(config.keys) if config.keys else (keymap, [])
        return problems

    config = load_config(settings, also=wrong, only=("keys", "screen"))
    return config, keymap


def check_keys(chosen: Keyring) -> tuple[Keymap, list[tuple[At, str]]]:
    """Return the keymap, and what is wrong with it: where in the settings, and in which words."""
    problems: list[tuple[At, str]] = []
    good: dict[str, tuple[str, ...]] = {}
    for name, keys in chosen.items():
        if name not in BY_NAME:
            problems.append((("keys", name), _unknown_action(name)))
            continue
        if not keys:
            problems.append((("keys", name), "needs a key; leave the line out for its own"))
            continue
        read = [_read(key) for key in keys]
        wrong = [why for _, why in read if why]
        problems += [(("keys", name), why) for why in wrong]
        if not wrong:
            good[name] = tuple(dict.fromkeys(key for key, _ in read))
    problems += _clashes(good)
    if _LEAVES in good and not any(map(_leaves_a_line, good[_LEAVES])):
        problems.append(
            (
                ("keys", _LEAVES),
                "needs a key that can also leave a line one types in, such as escape or f10",
            )
        )
    return Keymap(good), problems


def canonical(key: str) -> str:
    """Return Textual's name of a key: question_mark for `?`, comma for `,`."""
    *modifiers, base = _parts(key)
    if len(base) == 1:
        # Textual takes a comma for the end of a key.
        base = "comma" if base == "," else next(iter(Binding.make_bindings([(base, "", "")]))).key
    return "+".join([*modifiers, base])


def _parts(key: str) -> list[str]:
    if key == "+" or key.endswith("++"):  # the plus itself, with or without modifiers
        return [*key[:-1].split("+")[:-1], "+"]
    return key.split("+")


def _read(key: str) -> tuple[str, str]:
    """Return Textual's name of a key as the operator wrote it, and why it is none."""
    *modifiers, base = _parts(key.strip() or key)
    modifiers = [modifier.lower() for modifier in modifiers]
    if len(base) > 1:
        base = _NAMED_TOO.get(base.lower(), base.lower())
    elif "ctrl" in modifiers:
        base = base.lower()
    elif "alt" in modifiers and base.isupper():
        modifiers, base = [*modifiers, "shift"], base.lower()
    strange = [modifier for modifier in modifiers if modifier not in _MODIFIERS]
    if strange or not _is_key(base):
        return "", _unknown_key(key, base)
    if len(set(modifiers)) < len(modifiers):
        return "", f"{show(key)} has the same key twice"
    if "shift" in modifiers and "alt" not in modifiers and len(base) == 1:
        return "", f"{show(key)} is sent as the capital; write {base.upper()}"
    name = canonical("+".join([*sorted(modifiers), base]))
    if name in _SENT_AS:
        return "", f"terminals send {_SENT_AS[name]} for {name}; write {_SENT_AS[name]}"
    if name in _RESERVED:
        return "", f"{name} is not to be had: {_RESERVED[name]}"
    return name, ""


def _is_key(base: str) -> bool:
    if len(base) == 1:
        return base.isprintable() and base != " "
    character = format_key(base)
    return base in _NAMED or (len(character) == 1 and canonical(character) == base)


def _unknown_key(key: str, base: str) -> str:
    close = closest(base, _NAMED)
    hint = f"did you mean {show(close)}?" if close else "write a, X, ?, f5, space or ctrl+b"
    return f"{show(key)} is no key; {hint}"


def _unknown_action(name: str) -> str:
    close = closest(name, BY_NAME)
    hint = f"did you mean {show(close)}?" if close else f"there are {', '.join(sorted(BY_NAME))}"
    return f"there is no action {show(name)}; {hint}"


def _clashes(good: Keyring) -> list[tuple[At, str]]:
    """Return what is wrong with keys that two actions have in one place."""
    used: dict[str, list[Action]] = {}
    for action in ACTIONS:
        for key in good.get(action.name, tuple(map(canonical, action.keys))):
            if action not in used.setdefault(key, []):
                used[key].append(action)
    order = list(good)
    problems: list[tuple[At, str]] = []
    for key, actions in used.items():
        for one, other in combinations(actions, 2):
            chosen = sorted((a.name for a in (one, other) if a.name in good), key=order.index)
            if not chosen or not share_a_place(one, other):
                continue
            mine = chosen[-1]
            theirs = other.name if one.name == mine else one.name
            problems.append(
                (
                    ("keys", mine),
                    f"{written(key)} is the key of {theirs} already; one needs another",
                )
            )
    return problems


def share_a_place(one: Action, other: Action) -> bool:
    """Say whether one key for both would leave it open which of them is meant.

    What is not local is bound on every screen. A local action goes before it where it belongs,
    which hurts nobody in places where the footer does not offer the other.
    """
    if not one.local and not other.local:
        return True
    return bool((one.places or _EVERYWHERE) & (other.places or _EVERYWHERE))


def _leaves_a_line(key: str) -> bool:
    # Imported here: only a keymap that is looked at needs to know what a line does with keys.
    from textual.widgets import Input  # noqa: PLC0415

    taken = {binding.key for binding in Binding.make_bindings(Input.BINDINGS)}
    return len(format_key(key)) > 1 and key not in taken | {"space"}
