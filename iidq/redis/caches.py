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
"""Longest time for which a reply may differ from a job that was changed in psql."""
MANIFEST_SECONDS: Final = 600.0
_MOST_WRITES: Final = 16
_QUEUED_AGAIN: Final = b""


class FinishedJobCache:
    """Replies about finished jobs, so that repeated reads of a job do not reach Postgres.

    A job that is retried over HTTP leaves an empty value: a process that read the job before cannot put it back.
    """

    def __init__(self, values: SignedCache) -> None:
        self._values = values
        self._writes: set[asyncio.Task[None]] = set()

    async def find(self, job_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the cached replies by job id."""
        found = await self._values.get_many([str(job_id) for job_id in job_ids])
        return {job_id: body for job_id, body in zip(job_ids, found, strict=True) if body}

    def keep(self, bodies: Mapping[UUID, bytes]) -> None:
        """Cache replies that Postgres has just confirmed; return at once, and skip them while many writes run."""
        if bodies and len(self._writes) < _MOST_WRITES:
            named = {str(job_id): body for job_id, body in bodies.items()}
            task = start_background(self._values.put_many(named, only_if_new=True), "redis finished jobs")
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def forget(self, job_ids: Iterable[UUID]) -> None:
        """Drop the replies of jobs that are queued again: the next read reaches Postgres."""
        await self._values.put_many(dict.fromkeys(map(str, job_ids), _QUEUED_AGAIN))

    async def aclose(self) -> None:
        """Wait until no write is under way."""
        await asyncio.gather(*self._writes, return_exceptions=True)


class ManifestCache:
    """:class:`iidq.provenance.report.SharedManifests`: the reader checks the bytes by their CID once more."""

    def __init__(self, values: SignedCache) -> None:
        self._values = values

    async def get(self, cid: str) -> FetchedManifest | None:
        """Return the manifest that is cached for this CID."""
        kept = await self._values.get(cid)
        if kept is None:
            return None
        sources, _, body = kept.partition(b"\n")
        return FetchedManifest(body, True, tuple(SourceTried(**source) for source in json.loads(sources)))

    async def put(self, cid: str, manifest: FetchedManifest) -> None:
        """Cache a manifest for :data:`MANIFEST_SECONDS`."""
        sources = json.dumps([asdict(source) for source in manifest.sources]).encode()
        await self._values.put(cid, sources + b"\n" + manifest.body)
