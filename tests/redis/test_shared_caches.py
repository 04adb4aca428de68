"""Manifests and verdicts of one worker serve the others; forged values serve none."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iidq.errors import GatewayFault
from iidq.provenance.ipfs.cid import DAG_PB, RAW
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest_source import ManifestSource, open_manifest_source
from iidq.provenance.report import FetchedManifest, SharedManifests, SourceTried
from iidq.provenance.verdict_cache import VerdictCache
from iidq.settings import Settings
from tests.redis.conftest import OpenAccelerator
from tests.redis_server import RedisServer
from tests.unit.guarded_http.scripted_server import always, response, serving
from tests.unit.ipfs.ipfs_blocks import cid_v0, cid_v1

CONTENT = b'{"content_hash": "0x00"}'
BLOCK = wrap_file(CONTENT)
CLOSED = "http://127.0.0.1:9"


@asynccontextmanager
async def source(gateway: str, shared: SharedManifests | None) -> AsyncIterator[ManifestSource]:
    """A worker's source of manifests."""
    settings = Settings(_env_file=None, ipfs_gateways=(gateway,), fetch_allow_private=("127.0.0.1",))
    async with open_manifest_source(settings, shared) as opened:
        yield opened


@pytest.mark.parametrize(
    ("uri", "block"),
    [(f"ipfs://{cid_v1(RAW, CONTENT)}", CONTENT), (f"ipfs://{cid_v0(BLOCK)}", BLOCK)],
    ids=["raw", "wrapped"],
)
async def test_a_manifest_is_fetched_once_for_all(accelerate: OpenAccelerator, uri: str, block: bytes) -> None:
    """A second worker gets a manifest from Redis without any gateway, with the sources of the first worker."""
    async with accelerate() as one, accelerate() as other:
        async with serving(always(response(block))) as server, source(server.url, one.manifests) as manifests:
            first = await manifests.fetch(uri)
        async with source(CLOSED, other.manifests) as manifests:
            second = await manifests.fetch(uri)
    assert first == second
    assert (second.body, second.cid_verified) == (CONTENT, True)


async def test_a_manifest_proves_itself_by_its_cid(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """Bytes that do not match the CID are refused, even with a valid signature; then the gateways are asked."""
    cid = cid_v1(RAW, CONTENT)
    lie = FetchedManifest(b'{"content_hash": "0x01"}', True, (SourceTried("manifest", "u", None, "used", "m"),))
    async with accelerate() as worker:
        assert worker.manifests is not None
        await worker.manifests.put(cid, lie)
        assert await worker.manifests.get(cid) == lie
        async with source(CLOSED, worker.manifests) as manifests:
            with pytest.raises(GatewayFault):
                await manifests.fetch(f"ipfs://{cid}")


async def test_paths_and_large_files_are_not_shared(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """A manifest below a path is never taken from Redis: its bytes alone prove nothing."""
    cid = cid_v1(DAG_PB, BLOCK)
    async with accelerate() as worker, source(CLOSED, worker.manifests) as manifests:
        assert worker.manifests is not None
        await worker.manifests.put(cid, FetchedManifest(CONTENT, True, ()))
        with pytest.raises(GatewayFault):
            await manifests.fetch(f"ipfs://{cid}/manifest.json")


class Verifying:
    """Counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self) -> dict[str, Any]:
        self.runs += 1
        return {"status": "FAIL", "report": {"reused": False}}


async def test_a_verdict_is_shared_for_a_moment(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """Another worker gives the same verdict, marked as reused; another question is verified."""
    verify = Verifying()
    async with accelerate() as one, accelerate() as other:
        first, second = VerdictCache(10, one.verdicts), VerdictCache(10, other.verdicts)
        assert (await first.reuse_or("question", verify))["report"]["reused"] is False
        assert (await second.reuse_or("question", verify))["report"]["reused"] is True
        assert verify.runs == 1
        assert (await second.reuse_or("other", verify))["report"]["reused"] is False
        remaining = redis.command("PTTL", _keys(redis, "verdict")[0])
        assert 0 < int(remaining[1:]) <= 10_000


async def test_no_forged_verdict_is_given(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """A forged verdict in Redis is ignored, and the question is verified again."""
    verify = Verifying()
    async with accelerate() as one:
        await VerdictCache(10, one.verdicts).reuse_or("question", verify)
        [key] = _keys(redis, "verdict")
        signed = redis.command("GET", key).partition(b"\r\n")[2][:-2]
        lies = (json.dumps({"status": "OK", "report": {}}).encode(), signed.replace(b"FAIL", b"OK  "), b"")
        for count, lie in enumerate(lies, start=2):
            redis.command("SET", key, lie)
            assert (await VerdictCache(10, one.verdicts).reuse_or("question", verify))["status"] == "FAIL"
            assert verify.runs == count


def _keys(redis: RedisServer, kind: str) -> list[str]:
    words = redis.command("KEYS", f"iidq:1:*:{kind}:*").decode().split("\r\n")
    return [word for word in words if word.startswith("iidq:")]
