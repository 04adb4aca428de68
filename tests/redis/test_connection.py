"""The connection to Redis through outages: no long wait, and Redis is used again after its return."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from iidq.errors import RedisUnavailable
from iidq.observability import metrics
from iidq.observability.exposition import exposition
from iidq.queue.identifiers import new_job_id
from iidq.redis.redis_connection import Redis, State, open_redis
from iidq.settings import Settings
from tests.eventually import eventually
from tests.exposition_format import samples
from tests.redis.conftest import Events, OpenAccelerator
from tests.redis_server import RedisServer


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[Redis]:
    """A connected Redis client."""
    async with open_redis(Settings(_env_file=None, redis_url=url, **settings)) as redis:
        assert redis is not None
        async with asyncio.timeout(15):
            await redis.until_available()
        yield redis


async def ping(redis: Redis) -> None:
    """Run one command."""
    await redis.run(lambda client: client.get("x"))


def kill(server: RedisServer) -> Callable[[], None]:
    server.kill()
    return server.start


def freeze(server: RedisServer) -> Callable[[], None]:
    server.freeze()
    return server.thaw


def refuse(server: RedisServer) -> Callable[[], None]:
    server.command("REPLICAOF", "127.0.0.1", "9")

    def promote() -> None:
        server.command("REPLICAOF", "NO", "ONE")

    return promote


@pytest.mark.parametrize("go_away", [kill, freeze, refuse])
async def test_redis_goes_and_comes_back(
    redis: RedisServer, go_away: Callable[[RedisServer], Callable[[], None]], events: Events
) -> None:
    """The circuit opens when Redis is killed, frozen or made a replica, and closes on its return, each logged once."""
    async with connected(redis.url) as connection:
        before = connection.since
        come_back = go_away(redis)
        with pytest.raises(RedisUnavailable):
            await connection.run(lambda client: client.set("x", "y"))
        await eventually(lambda: connection.state is State.OPEN)
        for _ in range(100):
            with pytest.raises(RedisUnavailable, match="away"):
                await ping(connection)
        assert connection.since > before
        come_back()
        await eventually(lambda: connection.available)
        await ping(connection)
        assert connection.state is State.UP
    assert events() == ["redis.up", "redis.lost", "redis.up"]


async def test_a_full_redis_refuses_writes_and_still_reads(redis: RedisServer, events: Events) -> None:
    """A full Redis refuses writes and still reads; the circuit stays closed, and the log has one line."""
    async with connected(redis.url) as connection:
        redis.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(10):
            with pytest.raises(RedisUnavailable):
                await connection.run(lambda client: client.set("x", "y"))
            await ping(connection)
        assert connection.state is State.UP
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await connection.run(lambda client: client.set("x", "y"))
    assert events() == ["redis.up", "redis.refuses"]


async def test_a_busy_event_loop_is_not_redis_fault(redis: RedisServer, events: Events) -> None:
    """A busy event loop, with replies read after the time-out, does not end the use of Redis."""
    async with connected(redis.url, redis_timeout_ms=1) as connection:
        for _ in range(20):
            asyncio.get_running_loop().call_soon(lambda: [None for _ in range(200_000)])
            try:
                await ping(connection)
            except RedisUnavailable:
                async with asyncio.timeout(15):
                    await connection.until_available()
    assert "redis.up" in events()


async def test_a_restart_costs_one_command(redis: RedisServer, events: Events) -> None:
    """A restart of Redis fails one command, not one for each old connection."""
    async with connected(redis.url) as connection:
        await asyncio.gather(*(ping(connection) for _ in range(10)))
        redis.restart()
        with pytest.raises(RedisUnavailable):
            await ping(connection)
        async with asyncio.timeout(15):
            await connection.until_available()
        await asyncio.gather(*(ping(connection) for _ in range(10)))
    assert events().count("redis.up") - events().count("redis.lost") == 1


async def test_the_start_needs_no_redis(redis: RedisServer, events: Events) -> None:
    """A process starts while Redis is away, and connects once Redis is up."""
    redis.kill()
    async with open_redis(Settings(_env_file=None, redis_url=redis.url)) as connection:
        assert connection is not None
        await eventually(lambda: events() == ["redis.lost"])
        redis.start()
        await eventually(lambda: connection.available)
    assert events() == ["redis.lost", "redis.up"]


async def test_without_the_variable_there_is_none() -> None:
    """Without ``REDIS_URL`` nothing is connected and nothing runs."""
    async with open_redis(Settings(_env_file=None, redis_url=None)) as connection:
        assert connection is None


async def test_password_and_user(events: Events) -> None:
    """User and password in the URL are used; wrong values open the circuit."""
    users = ("--user", "iidq", "on", ">hidden", "~*", "&*", "+@all", "--user", "default", "off")
    with RedisServer(*users) as server:
        async with connected(server.url.replace("redis://", "redis://iidq:hidden@")) as connection:
            await ping(connection)
        wrong = server.url.replace("redis://", "redis://iidq:wrong@")
        async with open_redis(Settings(_env_file=None, redis_url=wrong)) as refused:
            assert refused is not None
            await eventually(lambda: "redis.lost" in events())
            assert refused.state is State.OPEN


async def test_unix_socket(tmp_path: Path) -> None:
    """A URL with ``unix://`` reaches a server on the same host."""
    with RedisServer("--unixsocket", str(tmp_path / "redis.sock")):
        async with connected(f"unix://{tmp_path / 'redis.sock'}?db=1") as connection:
            await ping(connection)


async def test_sentinels_name_the_master(tmp_path: Path) -> None:
    """Commands go to the master named by the Sentinels, also while one of two Sentinels is away."""
    with RedisServer() as master:
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\n")
        with RedisServer(configuration=configuration) as sentinel:
            url = f"redis+sentinel://127.0.0.1:9,127.0.0.1:{sentinel.port}/main"
            async with connected(url, redis_timeout_ms=500) as connection:
                await connection.run(lambda client: client.set("x", "y"))
                assert b"y" in master.command("GET", "x")
                client = await connection.clients.subscriber()
                assert await client.get("x") == b"y"
                await client.aclose(close_connection_pool=True)


async def test_a_cluster_takes_all_keys(accelerate: OpenAccelerator) -> None:
    """A Cluster's nodes share the keys, and a message published at one node is heard at any."""
    with RedisServer("--cluster-enabled", "yes") as first, RedisServer("--cluster-enabled", "yes") as second:
        for server, slots in ((first, range(8192)), (second, range(8192, 16384))):
            assert server.command("CLUSTER", "ADDSLOTS", *map(str, slots)) == b"+OK\r\n"
        second.command("CLUSTER", "SET-CONFIG-EPOCH", "2")
        first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        await eventually(
            lambda: all(b"cluster_state:ok" in each.command("CLUSTER", "INFO") for each in (first, second))
        )
        url = f"redis+cluster://127.0.0.1:{first.port}"
        async with (
            accelerate(redis_url=url, redis_timeout_ms=1000) as one,
            accelerate(redis_url=url, redis_timeout_ms=1000) as other,
        ):
            assert one.ended_jobs is not None
            assert other.ended_jobs is not None
            bodies = {new_job_id(): b"%d" % number for number in range(20)}
            one.ended_jobs.keep(bodies)
            await one.ended_jobs.aclose()
            assert await other.ended_jobs.find(list(bodies)) == bodies
            heard: list[str] = []
            hearing = asyncio.create_task(other.relay.run({"iidq_jobs": heard.append}, lambda: None))
            await eventually(lambda: other.relay.is_subscribed("iidq_jobs"))
            one.relay.publish("iidq_jobs", "rest")
            await eventually(lambda: heard == ["rest"])
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


def test_metrics_tell_the_state() -> None:
    """A scrape shows the state of Redis, the time of its last change, and commands and reads by outcome."""
    metrics.redis_changed("open", 1_800_000_000.0)
    metrics.redis_command("refused")
    metrics.redis_read("jobs", "rejected")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value for sample in samples(exposition("")[0].decode())
    }
    assert found["iidq_redis_state", ("state", "open")] == 1
    assert found["iidq_redis_state", ("state", "up")] == 0
    assert found[("iidq_redis_last_change_timestamp_seconds",)] == 1_800_000_000.0
    assert found["iidq_redis_commands_total", ("outcome", "refused")] >= 1
    assert found["iidq_redis_reads_total", ("outcome", "rejected"), ("use", "jobs")] >= 1
