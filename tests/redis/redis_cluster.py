"""A real Redis Cluster of two nodes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.eventually import eventually
from tests.redis_server import RedisServer


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """Yield two nodes, each with half of the slots."""
    with RedisServer("--cluster-enabled", "yes") as first, RedisServer("--cluster-enabled", "yes") as second:
        for server, slots in ((first, range(8192)), (second, range(8192, 16384))):
            assert server.command("CLUSTER", "ADDSLOTS", *map(str, slots)) == b"+OK\r\n"
        second.command("CLUSTER", "SET-CONFIG-EPOCH", "2")
        first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        await eventually(
            lambda: all(b"cluster_state:ok" in each.command("CLUSTER", "INFO") for each in (first, second))
        )
        yield first, second
