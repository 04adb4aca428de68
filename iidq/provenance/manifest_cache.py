"""Manifests kept in memory: the most recently used ones, as many as fit."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic

from iidq.provenance.report import FetchedManifest

# What a kept manifest costs besides its body: its sources' texts and the bookkeeping, roughly.
_OVERHEAD_BYTES = 2048


class ManifestCache:
    """At most ``max_bytes`` of manifests; an entry may have an end."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[FetchedManifest, float | None]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> FetchedManifest | None:
        """The manifest kept under ``key``, unless its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        manifest, until = entry
        if until is not None and self._clock() >= until:
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return manifest

    def put(self, key: Hashable, manifest: FetchedManifest, *, for_seconds: float | None = None) -> None:
        """Keep a manifest, for ever or for a while; one that is too large for the whole cache is not kept."""
        self._forget(key)
        if _cost(manifest) > self._max_bytes:
            return
        self._entries[key] = (manifest, None if for_seconds is None else self._clock() + for_seconds)
        self._bytes += _cost(manifest)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _cost(entry[0])


def _cost(manifest: FetchedManifest) -> int:
    return len(manifest.body) + _OVERHEAD_BYTES
