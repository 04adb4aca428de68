"""Verdicts that are given again to the same question for a short while, and say so."""

import json
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Final, Protocol

from iidq.concurrency.bounded_cache import BoundedCache
from iidq.concurrency.single_flight import SingleFlight

_MAX_BYTES: Final = 16 << 20
# What a kept verdict takes besides its JSON: key and bookkeeping, roughly.
_OVERHEAD_BYTES: Final = 1024

Result = dict[str, Any]


class SharedVerdicts(Protocol):
    """Verdicts that several processes share, unforgeable, each for at most as long as one process keeps its own."""

    async def get(self, question: str) -> bytes | None:
        """The result's JSON. Never raises, never takes long."""
        ...

    async def put(self, question: str, result: bytes) -> None:
        """Keep it for others, if that is possible. Never raises, never takes long."""
        ...


class VerdictCache:
    """Reuses a verification's result for ``keep_seconds``; those who ask meanwhile share the run that is under way.

    A result that was not found out for this very asker carries ``reused: true`` in its report, beside the block and
    the time that it rests on. Faults are never kept: whoever asks next asks anew.
    """

    def __init__(
        self, keep_seconds: float, shared: SharedVerdicts | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._keep_seconds = keep_seconds
        self._shared = shared
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
            # Not kept here, too: it is not known how long it is good.
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
