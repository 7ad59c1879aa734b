"""Which variables hold secrets, how settings name them, and how their values are kept unwritten.

By their names alone: whoever names a secret otherwise is not protected here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_HOLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST = 6
"""A value that is shorter would be found in half of all words."""
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
"""What JSON writes as it is."""


def names_secret(name: str) -> bool:
    """Say whether a variable of this name holds a secret."""
    return _SECRET.search(name) is not None


def redact(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with the value of each secret variable replaced by the variable's name.

    The values are found as they are and as JSON writes them; nothing else that may be made of
    them (base64, a part of one) is.
    """
    # The longest first: one may be the beginning of another.
    for secret, name in sorted(_secrets(variables), key=_length):
        text = text.replace(secret, f"[{name}]")
    return text


def redact_all(value: Any, variables: Mapping[str, str]) -> Any:
    """Return what JSON can hold with each text in it redacted, however deep; see `redact`."""
    if isinstance(value, str):
        return redact(value, variables)
    if isinstance(value, dict):
        return {name: redact_all(one, variables) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(one, variables) for one in value]
    return value


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with each `${NAME}` replaced by that variable. Raises KeyError: the name."""
    return _HOLE.sub(lambda hole: variables[hole[1]], text)


def named_in(text: str) -> list[str]:
    """Return the variables that a text names as `${NAME}`."""
    return _HOLE.findall(text)


def masks(variables: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return what must not stand in a file, and as many bytes to stand there instead.

    Those begin with the variable's name as far as it fits: `[API_TOKEN]***`. The longest first.
    """
    found = []
    for secret, name in sorted(_secrets(variables), key=_length):
        needle = secret.encode(errors="surrogateescape")
        shown = f"[{name}]".encode("ascii", errors="replace")[: len(needle)]
        found.append((needle, shown.ljust(len(needle), b"*")))
    return tuple(found)


def _secrets(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each text that is not to be told, and the name of its variable.

    White space around it is no part of it: many come from a file with a line end.
    """
    for name, written in variables.items():
        value = written.strip()
        if len(value) < _SHORTEST or not names_secret(name):
            continue
        yield value, name
        if not _PLAIN.fullmatch(value):
            # A private key, say, of which most programs write the line ends as \n.
            forms = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            yield from ((form, name) for form in sorted(forms - {value}))


def _length(secret: tuple[str, str]) -> int:
    return -len(secret[0])
