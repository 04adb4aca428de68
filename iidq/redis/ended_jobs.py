"""Ended jobs, as the bodies of replies, for those who ask for them again and again without asking Postgres each time.

Kept only once Postgres has told of it, sealed, and for so short that a job which somebody changes in psql is shown as
it was for at most ``LASTS_SECONDS``. Jobs that are retried over HTTP leave an empty value for as long, so that whoever
read them before cannot put them back.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from iidq.concurrency.background import start_background
from iidq.redis.sealed_values import SealedValues

LASTS_SECONDS: Final = 2.0
_MOST_AT_ONCE: Final = 16
_IN_LINE_AGAIN: Final = b""


class EndedJobs:
    """Finds and keeps ended jobs."""

    def __init__(self, values: SealedValues) -> None:
        self._values = values
        self._keeping: set[asyncio.Task[None]] = set()

    async def find(self, job_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Those of the jobs that ended and were read lately."""
        found = await self._values.get_many([str(job_id) for job_id in job_ids])
        return {job_id: body for job_id, body in zip(job_ids, found, strict=True) if body}

    def keep(self, bodies: Mapping[UUID, bytes]) -> None:
        """Keep what Postgres has just told of jobs that ended. Returns at once; under load some are not kept."""
        if bodies and len(self._keeping) < _MOST_AT_ONCE:
            named = {str(job_id): body for job_id, body in bodies.items()}
            task = start_background(self._values.put_many(named, only_if_new=True), "redis ended jobs")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    async def forget(self, job_ids: Iterable[UUID]) -> None:
        """The jobs are in line again: whoever asks next asks Postgres."""
        await self._values.put_many(dict.fromkeys(map(str, job_ids), _IN_LINE_AGAIN))

    async def aclose(self) -> None:
        """Return when nothing is on its way."""
        await asyncio.gather(*self._keeping, return_exceptions=True)
