"""Verdicts that are given again to the same question for a short while, and say so."""

import json
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Final

from iidq.provenance.bounded_cache import BoundedCache
from iidq.provenance.single_flight import SingleFlight

_MAX_BYTES: Final = 16 << 20
# What a kept verdict takes besides its JSON: key and bookkeeping, roughly.
_OVERHEAD_BYTES: Final = 1024

Result = dict[str, Any]


class VerdictCache:
    """Reuses a verification's result for ``keep_seconds``; those who ask meanwhile share the run that is under way.

    A result that was not found out for this very asker carries ``reused: true`` in its report, beside the block and
    the time that it rests on. Faults are never kept: whoever asks next asks anew.
    """

    def __init__(self, keep_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._keep_seconds = keep_seconds
        # Kept as text: exactly as large as counted, and nobody can change another's copy.
        self._kept: BoundedCache[bytes] = BoundedCache(_MAX_BYTES, lambda text: len(text) + _OVERHEAD_BYTES, clock)
        self._flights: SingleFlight[Hashable, Result] = SingleFlight()

    async def reuse_or(self, key: Hashable, verify: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result kept for ``key``, or what ``verify`` finds; raise what it raises."""
        kept = self._kept.get(key)
        if kept is not None:
            return _reused(kept)
        led = False

        async def lead() -> Result:
            nonlocal led
            led = True
            result = await verify()
            self._kept.put(key, json.dumps(result).encode(), for_seconds=self._keep_seconds)
            return result

        result = await self._flights.run(key, lead)
        return result if led else _reused(json.dumps(result).encode())


def _reused(kept: bytes) -> Result:
    result: Result = json.loads(kept)
    result["report"]["reused"] = True
    return result
