"""Reuse verdicts for the same inputs for a short while, marked as reused."""

import json
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Final, Protocol

from iidq.concurrency.bounded_cache import BoundedCache
from iidq.concurrency.single_flight import SingleFlight

_MAX_BYTES: Final = 16 << 20
# Rough size of a kept verdict beyond its JSON: key and bookkeeping.
_OVERHEAD_BYTES: Final = 1024

Result = dict[str, Any]


class SharedVerdicts(Protocol):
    """Results that several processes share, signed, each for at most ``RESULT_CACHE_SECONDS``.

    Both methods return soon and never raise.
    """

    async def get(self, name: str) -> bytes | None:
        """Return the JSON of the result for these inputs, or None."""
        ...

    async def put(self, name: str, value: bytes) -> None:
        """Share a result's JSON, if that is possible."""
        ...


class VerdictCache:
    """Results of verifications by inputs, each for ``keep_seconds``. Concurrent callers share a run.

    The report of a reused result has ``reused: true``, with the block and time of the verification. Faults are never
    kept.
    """

    def __init__(
        self, keep_seconds: float, shared: SharedVerdicts | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._keep_seconds = keep_seconds
        self._shared = shared
        # Kept as text: its size is exact, and no caller can change another caller's copy.
        self._kept: BoundedCache[bytes] = BoundedCache(_MAX_BYTES, lambda text: len(text) + _OVERHEAD_BYTES, clock)
        self._flights: SingleFlight[Hashable, Result] = SingleFlight()

    async def reuse_or(self, key: Hashable, verify: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the kept result of ``key``, else run ``verify``; raise the faults of ``verify``."""
        kept = self._kept.get(key)
        if kept is not None:
            return _reused(kept)
        led = False

        async def lead() -> Result:
            nonlocal led
            # Not kept in this process: the rest of its life is unknown.
            if self._shared is not None and (found := await self._shared.get(repr(key))) is not None:
                shared: Result = json.loads(found)
                return shared
            led = True
            result = await verify()
            text = json.dumps(result).encode()
            self._kept.put(key, text, for_seconds=self._keep_seconds)
            if self._shared is not None:
                await self._shared.put(repr(key), text)
            return result

        result = await self._flights.run(key, lead)
        return result if led else _reused(json.dumps(result).encode())


def _reused(kept: bytes) -> Result:
    result: Result = json.loads(kept)
    result["report"]["reused"] = True
    return result
