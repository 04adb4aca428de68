"""The signed caches in Redis: replies about finished jobs, verified manifests, and verdicts of the last seconds."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final
from uuid import UUID

from iidq.concurrency.background import start_background
from iidq.provenance.report import FetchedManifest, SourceTried
from iidq.redis.signed_cache import SignedCache

FINISHED_JOB_SECONDS: Final = 2.0
"""Longest delay, in seconds, until a change in psql is visible in replies."""
MANIFEST_SECONDS: Final = 600.0
_MOST_WRITES: Final = 16
_QUEUED_AGAIN: Final = b""


class FinishedJobCache:
    """Replies about finished jobs: repeated reads of a job need no Postgres.

    A retry over HTTP leaves an empty value, so that a process with an older reply cannot store that reply.
    """

    def __init__(self, values: SignedCache) -> None:
        self._values = values
        self._writes: set[asyncio.Task[None]] = set()

    async def find(self, job_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the cached replies by job id."""
        found = await self._values.get_many([str(job_id) for job_id in job_ids])
        return {job_id: body for job_id, body in zip(job_ids, found, strict=True) if body}

    def keep(self, bodies: Mapping[UUID, bytes]) -> None:
        """Cache fresh replies from Postgres without a wait; skip the replies while many writes run."""
        if bodies and len(self._writes) < _MOST_WRITES:
            named = {str(job_id): body for job_id, body in bodies.items()}
            task = start_background(self._values.put_many(named, only_if_new=True), "redis finished jobs")
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def forget(self, job_ids: Iterable[UUID]) -> None:
        """Drop the replies of retried jobs: the next read reaches Postgres."""
        await self._values.put_many(dict.fromkeys(map(str, job_ids), _QUEUED_AGAIN))

    async def aclose(self) -> None:
        """Wait until no write is under way."""
        await asyncio.gather(*self._writes, return_exceptions=True)


class ManifestCache:
    """:class:`iidq.provenance.report.SharedManifests`: the reader checks the bytes by their CID once more."""

    def __init__(self, values: SignedCache) -> None:
        self._values = values

    async def get(self, cid: str) -> FetchedManifest | None:
        """Return the cached manifest of a CID, or None."""
        kept = await self._values.get(cid)
        if kept is None:
            return None
        sources, _, body = kept.partition(b"\n")
        return FetchedManifest(body, True, tuple(SourceTried(**source) for source in json.loads(sources)))

    async def put(self, cid: str, manifest: FetchedManifest) -> None:
        """Cache a manifest for :data:`MANIFEST_SECONDS`."""
        sources = json.dumps([asdict(source) for source in manifest.sources]).encode()
        await self._values.put(cid, sources + b"\n" + manifest.body)
