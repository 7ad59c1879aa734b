"""What the dashboard remembers from one session to the next: theme, lists, panes, switches.

One JSON file in the user's config folder. It is a convenience: nothing that is wrong with it ever
stops or disturbs the dashboard, it is only told, once. What another dashboard wrote meanwhile, or
a newer version knows, is kept. Filters and marks are not remembered. Knows no widget.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.text import clean_text
from engine.views import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

VERSION = 1
FILE = "dashboard.json"
_LARGEST = 1 << 20
"""Bytes beyond which a file is not ours, whatever its name."""
_PATIENCE = 1.0
"""Seconds that a writer waits for another one; a suspended one may never be done."""


class Switch(StrEnum):
    """What can be switched on and off while the dashboard runs."""

    BELL = "bell"
    TITLE = "title"
    TOASTS = "toasts"


def preferences_file() -> Path:
    """Return where the preferences are: in the user's config folder (XDG_CONFIG_HOME counts)."""
    import platformdirs  # noqa: PLC0415 - only a real dashboard has a file

    return platformdirs.user_config_path("agentmux") / FILE


class Preferences:
    """The remembered choices. Without a `path` they last as long as the object.

    Reads and changes are in memory; `save` writes. `notices` tell what went wrong, in words for
    the user; whoever shows them empties the list.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.notices: list[str] = []
        self._path = path
        self._values: dict[str, Any] = {}
        self._unsaved: dict[str, Any] = {}
        self._due = False
        self._failed = False
        self._saving = asyncio.Lock()

    @classmethod
    def read(cls, path: Path) -> Preferences:
        """Read the preferences; blocks as long as a small file takes. Never raises."""
        preferences = cls(path)
        values, preferences.notices = _read(path)
        for key, value in values.items():
            if (wrong := _wrong(key, value)) is not None:
                preferences.notices.append(f"{path}: {_written(key)} {wrong}; it was ignored")
            else:
                preferences._values[key] = value
        return preferences

    # -- the choices -----------------------------------------------------------------------

    @property
    def theme(self) -> str:
        """The name of the theme chosen last, empty if none ever was."""
        return str(self._values.get("theme", ""))

    @theme.setter
    def theme(self, name: str) -> None:
        self._set("theme", name, self.theme)

    @property
    def pane(self) -> str:
        """The id of the pane that was current, empty if unknown."""
        return str(self._values.get("pane", ""))

    @pane.setter
    def pane(self, name: str) -> None:
        self._set("pane", name, self.pane)

    def switch(self, switch: Switch) -> bool | None:
        """Return how a switch was left, None if nobody ever touched it."""
        return self._values.get(switch)

    def set_switch(self, switch: Switch, on: bool) -> None:
        """Leave a switch on or off."""
        self._set(switch, on, self.switch(switch))

    def order(self, rows: str) -> Order:
        """Return how the list `rows` (tasks, history …) was sorted."""
        value = self._values.get(f"{rows}.order", {})
        return Order(value.get("column", ""), descending=value.get("descending", False))

    def set_order(self, rows: str, order: Order) -> None:
        """Remember how a list is sorted."""
        before = self.order(rows)
        self._set(f"{rows}.order", _as_json(order), _as_json(before))

    def hidden(self, rows: str) -> frozenset[str]:
        """Return the names of the columns of a list that nobody wanted to see."""
        return frozenset(self._values.get(f"{rows}.hidden", ()))

    def set_hidden(self, rows: str, columns: Collection[str]) -> None:
        """Remember which columns of a list are hidden."""
        self._set(f"{rows}.hidden", sorted(columns), sorted(self.hidden(rows)))

    def _set(self, key: str, value: Any, before: Any) -> None:
        if value != before:
            self._values[key] = self._unsaved[key] = value
            self._due = True

    # -- keeping them ----------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether something was chosen since the last attempt to save."""
        return self._due and self._path is not None

    async def save(self) -> None:
        """Write what was chosen since the last time, in a thread. Never raises for the disk's sake.

        Only what was chosen here is written; all else stays as the file has it by then. What
        cannot be written is told once, kept, and tried again after the next choice.
        """
        if self._path is None:
            return
        async with self._saving:
            chosen, self._unsaved = self._unsaved, {}
            self._due = False
            if not chosen:
                return
            try:
                notices = await asyncio.to_thread(_merge, self._path, chosen)
            except OSError as error:
                self._unsaved = chosen | self._unsaved
                if not self._failed:
                    reason = error.strerror or str(error)
                    self.notices.append(
                        f"what you choose is not remembered: cannot write {self._path}: {reason}"
                    )
                self._failed = True
            except asyncio.CancelledError:
                self._unsaved = chosen | self._unsaved
                self._due = True
                raise
            else:
                self._failed = False
                self.notices += notices


def _as_json(order: Order) -> dict[str, Any]:
    return {"column": order.column, "descending": order.descending}


# -- the file ------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what the file holds and what is to be told; a broken one is set aside."""
    try:
        # Opening a pipe would wait for its writer; O_NONBLOCK means nothing to a real file.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            data = file.read(_LARGEST + 1)
        values = None if len(data) > _LARGEST else json.loads(data)
    except FileNotFoundError:
        return {}, []
    except NotADirectoryError:
        return {}, []  # writing will say so
    except (OSError, ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        return values, []
    return {}, _set_aside(path)


def _set_aside(path: Path) -> list[str]:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return []  # another dashboard was quicker
    except OSError as error:
        reason = error.strerror or str(error)
        return [f"{path} cannot be read, nor set aside ({reason}); nothing is remembered"]
    return [f"{path} could not be read; it was set aside as {aside.name}"]


def _merge(path: Path, chosen: Mapping[str, Any]) -> list[str]:
    """Write what was chosen over what the file holds now; return what is to be told.

    Raises:
        OSError: the folder or the file cannot be written. The file is then as it was.

    """
    # A link to a file elsewhere (people keep their settings in a repository) stays a link.
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path.parent):
        values, notices = _read(path)
        if notices and path.exists():
            return notices  # it could not be set aside: it is not ours to overwrite
        kept = {key: value for key, value in values.items() if _wrong(key, value) is None}
        text = json.dumps({"version": VERSION, **kept, **chosen}, indent=2, sort_keys=True) + "\n"
        _replace(path, text.encode())
    return notices


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other dashboards from writing meanwhile, as far as the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            except OSError:
                pass  # no locks here: the last writer wins
            break
        yield
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


# -- what the values may be ----------------------------------------------------------------


def _text(value: object) -> str | None:
    good = isinstance(value, str) and len(value) <= 200 and clean_text(value) == value
    return None if good else "must be a short text"


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _order(value: object) -> str | None:
    good = (
        isinstance(value, dict)
        and _text(value.get("column", "")) is None
        and isinstance(value.get("descending", False), bool)
    )
    return None if good else 'must be like {"column": "name", "descending": true}'


def _names(value: object) -> str | None:
    good = isinstance(value, list) and all(_text(one) is None for one in value)
    return None if good else "must be a list of texts"


def _version(value: object) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if whole else "must be a whole number"


_RULES: Mapping[str, Callable[[object], str | None]] = {
    "version": _version,
    "theme": _text,
    "pane": _text,
    **dict.fromkeys(Switch, _switch),
}
_LIST_RULES: Mapping[str, Callable[[object], str | None]] = {"order": _order, "hidden": _names}


def _wrong(key: str, value: object) -> str | None:
    """Return what is wrong with a value; what nobody here knows is left alone."""
    rule = _RULES.get(key) or _LIST_RULES.get(key.rpartition(".")[2])
    return None if rule is None else rule(value)


def _written(key: str) -> str:
    return repr(clean_text(key)[:60])
