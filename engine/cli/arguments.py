"""What the grammar is made of: its parser, a level of commands, options that several share, types.

Whatever is typed wrong ends the program with 2 and says how it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import ValidationError
from engine.filters import STATES, state_terms
from engine.moments import parse_age
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

_MOST_WORKERS = 64
_LAST_PORT = 65535


class Once(argparse.Action):
    """Stores a value, and refuses a second one: the first would be lost without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the value of an option."""
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice; do one after the other")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """argparse, but what the user typed is cleaned before it is shown again."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        super().error(clean_text(message))


class Commands:
    """A level of commands; each takes `--state-dir`, which may stand before or after it."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def add(
        self, name: str, handler: str | None, text: str, *, json: bool = False, more: str = ""
    ) -> argparse.ArgumentParser:
        """Add a command. `handler` is "module:function"; `more` stands below its options."""
        command: argparse.ArgumentParser = self._group.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=more,
            allow_abbrev=False,
        )
        command.add_argument(
            "--state-dir",
            type=Path,
            metavar="DIR",
            default=argparse.SUPPRESS,  # or it would undo one that stands before the command
            help="where the store lies",
        )
        if json:
            command.add_argument("--json", action="store_true", help="print JSON")
        if handler is not None:
            command.set_defaults(handler=handler, command_parser=command)
        return command


def add_dag(command: argparse.ArgumentParser, name: str = "dag") -> None:
    """Let a command take a DAG: as its argument, or as an option."""
    default = "(default: the file last seeded, else agentmux/dag.yaml)"
    if name.startswith("-"):
        command.add_argument(name, type=Path, metavar="PATH", help=f"the DAG to seed {default}")
    else:
        command.add_argument(name, nargs="?", type=Path, metavar="DAG", help=default)


def add_selection(command: argparse.ArgumentParser) -> None:
    """Let a command choose tasks by state and agent."""
    command.add_argument(
        "--state", action=Once, type=state, metavar="S", help=f"only these: {', '.join(STATES)}"
    )
    command.add_argument("--agent", action=Once, metavar="A", help="only this agent's")


def add_dry_run(command: argparse.ArgumentParser) -> None:
    """Let a command only say what it would do."""
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")


def add_yes(command: argparse.ArgumentParser) -> None:
    """Let a command be carried out unasked."""
    command.add_argument(
        "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )


def need(command: argparse.ArgumentParser, *names: str, what: str) -> None:
    """Let a command end with 2 unless at least one of its arguments is given.

    The check runs after parsing, see `checked`.
    """

    def check(args: argparse.Namespace) -> None:
        if not any(getattr(args, name) for name in names):
            command.error(what)

    command.set_defaults(check=check)


def refuse_rest(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """End with 2 if words are left that a command does not take; with its own usage.

    `meant`, if the command set it, is the option that a word may have been meant for.
    """
    if not rest:
        return
    message = f"unrecognized arguments: {' '.join(rest)}"
    meant = getattr(args, "meant", None)
    if meant is not None and not rest[0].startswith("-"):
        message += f"; did you mean {meant} {rest[0]}?"
    args.command_parser.error(message)


def need_text(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with 2 if a word is not UTF-8: no store has it. The state folder may be any bytes."""
    for name, value in vars(args).items():
        for word in value if isinstance(value, list) else [value]:
            # The store notes where its DAG lies, so that name must be text too, folders included.
            text = str(word.absolute()) if isinstance(word, Path) else word
            if name != "state_dir" and isinstance(text, str) and not _is_text(text):
                parser.error(
                    f"{str(word)!r} is not UTF-8 text; rename it, or type it as it is shown"
                )


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def state(text: str) -> str:
    """Read the name of a state."""
    try:
        state_terms(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def workers(text: str) -> int:
    """Read a number of workers for each agent."""
    number = at_least_one(text)
    if number > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{number} is more than {_MOST_WORKERS} for each agent")
    return number


def pair(text: str) -> tuple[str, str]:
    """Read `key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key, value


def at_least_one(text: str) -> int:
    """Read a whole number above 0."""
    return int(_number(int, text, least=1, what="a whole number above 0"))


def at_least_none(text: str) -> int:
    """Read a whole number, 0 too."""
    return int(_number(int, text, least=0, what="a whole number"))


def seq(text: str) -> int:
    """Read the number of an event."""
    return int(_number(int, text, least=0, what="the number of an event"))


def port(text: str) -> int:
    """Read a port; 0 is any that is free."""
    number = at_least_none(text)
    if number > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{number} is no port; {_LAST_PORT} is the last")
    return number


def seconds(text: str) -> float:
    """Read a number of seconds."""
    return _number(float, text, least=0, what="a number of seconds")


def age(text: str) -> timedelta:
    """Read an age such as 30d."""
    try:
        return parse_age(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(convert: Callable[[str], float], text: str, *, least: float, what: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
