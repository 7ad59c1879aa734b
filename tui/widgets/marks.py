"""Which rows are marked: their keys, in the order in which they were marked. Knows no widget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable


class Marks:
    """An ordered set of keys; looking a key up costs the same however many there are."""

    def __init__(self) -> None:
        self._keys: dict[Hashable, None] = {}
        self._told: tuple[Hashable, ...] | None = ()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """The keys, the one marked first first."""
        if self._told is None:
            self._told = tuple(self._keys)
        return self._told

    def toggle(self, key: Hashable) -> None:
        """Mark, or take the mark away."""
        if key in self._keys:
            del self._keys[key]
        else:
            self._keys[key] = None
        self._told = None

    def add(self, keys: Iterable[Hashable]) -> bool:
        """Mark these too. Return whether that changed anything."""
        before = len(self._keys)
        self._keys.update(dict.fromkeys(keys))
        return self._changed(before)

    def keep(self, keys: Collection[Hashable] = ()) -> bool:
        """Take all marks away but those of `keys`. Return whether that changed anything."""
        before = len(self._keys)
        self._keys = {key: None for key in self._keys if key in keys}
        return self._changed(before)

    def _changed(self, before: int) -> bool:
        if len(self._keys) == before:
            return False
        self._told = None
        return True
