"""Snapshot of the queue for the operations page, read at most once a second per process, and only on request."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from time import monotonic
from typing import Any, Final
from uuid import UUID

from iidq.concurrency.background import start_background
from iidq.concurrency.single_flight import SingleFlight
from iidq.database.faults import sentences
from iidq.errors import DatabaseRefusal, DatabaseUnavailable
from iidq.observability.redaction import redact_url
from iidq.portable_values import iso_milliseconds
from iidq.queue.read.queue_health import (
    MOST_COUNTED,
    SAMPLE_PER_MINUTE,
    LiveOverview,
    RecentOverview,
    read_live_overview,
    read_recent_overview,
)
from iidq.web.reply.conditional import entity_tag
from iidq.web.reply.wire import JsonReply, redis_shape
from iidq.web.service import Service

KEEP_SECONDS: Final = 1.0
"""How long a snapshot is reused."""
KEEP_LATELY_SECONDS: Final = 5.0
"""How long its recent part (rates, durations, causes) is reused, which costs more to read."""
READ_SECONDS: Final = 3.0
"""Longest time for reading the present state."""
READ_LATELY_SECONDS: Final = 10.0
"""Longest time for reading the recent part."""
LATELY_PATIENCE_SECONDS: Final = 0.1
"""Longest wait of a snapshot for the recent part; after it the snapshot contains the previous one."""


class Snapshots:
    """The newest snapshot of one process: bytes of JSON and an entity tag."""

    def __init__(self) -> None:
        self._flights: SingleFlight[None, tuple[bytes, str]] = SingleFlight()
        self._newest = (b"", "")
        self._made_at = float("-inf")
        self._lately: dict[str, Any] | None = None
        self._lately_at = float("-inf")
        self._reading_lately: asyncio.Task[None] | None = None

    async def read(self, service: Service) -> tuple[bytes, str]:
        """Return a snapshot of the last second; concurrent callers share one reading."""
        if monotonic() - self._made_at >= KEEP_SECONDS:
            self._newest = await self._flights.run(None, lambda: self._make(service))
            self._made_at = monotonic()
        return self._newest

    async def _make(self, service: Service) -> tuple[bytes, str]:
        redis = service.accelerator
        state: dict[str, Any] = {
            "available": False,
            "circuit": "open" if service.database.refuses_writes else "closed",
            "redis": redis_shape(redis.state, redis.since),
        }
        try:
            async with asyncio.timeout(READ_SECONDS):
                now = await service.overviews.run(read_live_overview)
                await self._renew_lately(service)
            state |= {"available": True, **_now_shape(now), "lately": self._lately}
        except DatabaseUnavailable as error:
            state["reason"] = error.message
        except DatabaseRefusal as error:
            state["reason"] = "; ".join(sentences(error))
        except TimeoutError:
            state["reason"] = "the database took too long"
        body = bytes(JsonReply(state).body)
        return body, entity_tag(body)

    async def _renew_lately(self, service: Service) -> None:
        if self._reading_lately is None and monotonic() - self._lately_at >= KEEP_LATELY_SECONDS:
            self._reading_lately = start_background(self._read_lately(service), "operations snapshot")
        if self._reading_lately is not None:
            await asyncio.wait([self._reading_lately], timeout=LATELY_PATIENCE_SECONDS)

    async def _read_lately(self, service: Service) -> None:
        try:
            async with asyncio.timeout(READ_LATELY_SECONDS):
                self._lately = _lately_shape(await service.overviews.run(read_recent_overview))
        except (DatabaseUnavailable, DatabaseRefusal, TimeoutError):
            # The snapshot itself reports an unavailable database; a slow one is read again later.
            pass
        finally:
            self._lately_at = monotonic()
            self._reading_lately = None


def _now_shape(now: LiveOverview) -> dict[str, Any]:
    queue = asdict(now.health)
    # Faults are for /readyz and the log.
    del queue["faults"]
    return {"queue": camel(queue), "workers": [camel(asdict(worker)) for worker in now.workers]}


def _lately_shape(lately: RecentOverview) -> dict[str, Any]:
    causes = [camel(asdict(cause)) for cause in lately.causes]
    for cause in causes:
        cause["latestError"] = redact_url(cause["latestError"])
    return {
        "rates": [camel(asdict(rate)) for rate in lately.rates],
        "durations": [camel(asdict(duration)) for duration in lately.durations],
        "sample": SAMPLE_PER_MINUTE,
        "causes": causes,
        "mostCounted": MOST_COUNTED - 1,
    }


def camel(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON: camelCase names, times in ISO 8601."""
    return {_name(name): _value(value) for name, value in row.items()}


def _name(snake: str) -> str:
    first, *rest = snake.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_milliseconds(value)
    return str(value) if isinstance(value, UUID) else value
