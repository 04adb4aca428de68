"""What one worker found out, for the others: verified manifests, and verdicts of the last seconds.

A manifest proves itself by its CID to whoever takes it (``provenance/manifest_source.py``). A verdict cannot, so it is
sealed like everything here, and ends when the worker that found it would ask anew.
"""

import json
from dataclasses import asdict
from typing import Final

from iidq.provenance.report import FetchedManifest, SourceTried
from iidq.redis.sealed_values import SealedValues

MANIFEST_SECONDS: Final = 600.0


class RedisManifests:
    """:class:`iidq.provenance.report.SharedManifests`."""

    def __init__(self, values: SealedValues) -> None:
        self._values = values

    async def get(self, cid: str) -> FetchedManifest | None:
        """What is kept for this CID."""
        kept = await self._values.get(cid)
        if kept is None:
            return None
        sources, _, body = kept.partition(b"\n")
        return FetchedManifest(body, True, tuple(SourceTried(**source) for source in json.loads(sources)))

    async def put(self, cid: str, manifest: FetchedManifest) -> None:
        """Keep it for ten minutes."""
        sources = json.dumps([asdict(source) for source in manifest.sources]).encode()
        await self._values.put(cid, sources + b"\n" + manifest.body)


class RedisVerdicts:
    """:class:`iidq.provenance.verdict_cache.SharedVerdicts`."""

    def __init__(self, values: SealedValues) -> None:
        self._values = values

    async def get(self, question: str) -> bytes | None:
        """The result's JSON."""
        return await self._values.get(question)

    async def put(self, question: str, result: bytes) -> None:
        """Keep it for ``RESULT_CACHE_SECONDS``."""
        await self._values.put(question, result)
