"""A cache in memory of the most recently used values, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Values of at most ``max_bytes`` by ``cost``, each with an optional time of expiry."""

    def __init__(self, max_bytes: int, cost: Callable[[Value], int], clock: Callable[[], float] = monotonic) -> None:
        self._max_bytes = max_bytes
        self._cost = cost
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[Value, float | None]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Value | None:
        """Return the value under ``key``, or None when missing or expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until = entry
        if until is not None and self._clock() >= until:
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Value, *, for_seconds: float | None = None) -> None:
        """Store a value, with or without expiry; a value larger than the whole cache is dropped."""
        self._forget(key)
        cost = self._cost(value)
        if cost > self._max_bytes:
            return
        self._entries[key] = (value, None if for_seconds is None else self._clock() + for_seconds)
        self._bytes += cost
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= self._cost(entry[0])
