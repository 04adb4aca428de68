"""With ``REDIS_BULL_KEYS=on`` the queue is readable by BullMQ's keys. Real Redis, real Postgres."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from iidq.bullmq import mirror, outline, plan
from iidq.bullmq.mirror import LEASE_KEY
from iidq.errors import GatewayFault
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import (
    CANCELLED,
    COMPLETED,
    CONTENT_HASH,
    FAILED,
    MANIFEST_URI,
    PROCESSING,
    QUEUED,
    REGISTRY_ADDRESS,
    Sql,
    insert,
    statuses,
    update,
)
from tests.redis.bull_view import QUEUE, RedisCli, agree, mirroring
from tests.redis.redis_cluster import two_nodes
from tests.redis_server import RedisServer
from tests.web.serving import JOBS, ServeApi

redis = pytest.importorskip("redis")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One Redis for all tests of the file, emptied before each."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    """A redis-py client, on an empty Redis."""
    with redis.Redis(port=server.port, decode_responses=True, socket_timeout=10) as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all pauses of the mirror."""
    monkeypatch.setattr(mirror, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(mirror, "_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "_BUSY_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "_FOREIGN_SECONDS", 0.1)
    monkeypatch.setattr(mirror, "_LONGEST_PAUSE_SECONDS", 0.1)


async def test_every_state_has_its_key(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """Waiting, delayed, active, completed and failed jobs are at BullMQ's keys, the next job last."""
    for _ in range(3):
        insert(sql)
    insert(sql, type="proof")
    insert(sql, priority=3)
    later = insert(sql, QUEUED, runAt=Sql("now() + interval '1 hour'"))
    active, ended = insert(sql, PROCESSING, progress=30), insert(sql, COMPLETED)
    insert(sql, FAILED)
    cancelled = insert(sql, CANCELLED)
    async with mirroring(database_url, server):
        await agree(client, sql)
    cli = RedisCli(server)
    assert cli("LLEN", f"{QUEUE}:wait") == ["5"]
    assert cli.hash(str(active))["progress"] == "30"
    assert json.loads(cli.hash(str(ended))["returnvalue"]) == {"status": "OK"}
    (run_at,) = sql.execute(
        'SELECT extract(epoch FROM "runAt") * 1000 FROM "VerificationJob" WHERE id = %s', [later]
    ).fetchone()
    assert client.zscore(f"{QUEUE}:delayed", str(later)) // 4096 == round(run_at)
    assert client.exists(f"{QUEUE}:{cancelled}") == 0


async def test_keys_follow_the_work(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """The keys follow claims, progress, retries and ends of jobs, and agree with the rows at the end."""
    go_on = asyncio.Event()

    async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        progress(50)
        await go_on.wait()
        if job.attempt == 1:
            raise GatewayFault("try again", code="gateway.timeout")
        if job.type.value == "proof":
            raise ValueError("unforeseen")
        return {"status": "OK", "attempt": job.attempt}

    for number in range(12):
        insert(sql, type="proof" if number % 4 == 0 else "verify")
    async with mirroring(database_url, server), working(database_url, handle, worker_concurrency=5):
        await eventually(lambda: client.llen(f"{QUEUE}:active") == 5)
        running = client.lrange(f"{QUEUE}:active", 0, -1)
        await eventually(lambda: all(client.hget(f"{QUEUE}:{job_id}", "progress") == "50" for job_id in running))
        assert client.llen(f"{QUEUE}:wait") == 7
        go_on.set()
        await eventually(lambda: statuses(sql).get("completed") == 9 and "processing" not in statuses(sql))
        await agree(client, sql)
    job = RedisCli(server).hash(client.zrange(f"{QUEUE}:completed", 0, 0)[0])
    assert json.loads(job["returnvalue"]) == {"status": "OK", "attempt": 2}
    assert (job["atm"], job["ats"], job["name"]) == ("2", "2", "verify")
    assert job["finishedOn"] >= job["processedOn"] >= job["timestamp"]
    assert json.loads(job["stacktrace"])[0].startswith("gateway.timeout: try again\n")


async def test_any_change_is_shown(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """Every change of rows, by the service or in psql, reaches the keys."""
    draw = random.Random(6)
    async with mirroring(database_url, server):
        for round_number in range(8):
            for _ in range(12):
                ids = [job_id for (job_id,) in sql.execute('SELECT id FROM "VerificationJob"')]
                job_id = draw.choice(ids) if ids else insert(sql)
                match draw.randrange(9):
                    case 0:
                        insert(sql, draw.choice([QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED]))
                    case 1:
                        insert(sql, copies=3, priority=draw.randint(-2, 2))
                    case 2:
                        sql.execute("SELECT cancel_job(%s)", [job_id])
                    case 3:
                        sql.execute("SELECT retry_job(%s)", [job_id])
                    case 4:
                        sql.execute('DELETE FROM "VerificationJob" WHERE id = %s', [job_id])
                    case 5:
                        sql.execute("SELECT pause_queue()")
                    case 6:
                        sql.execute("SELECT resume_queue()")
                    case 7:
                        update(sql, job_id, runAt=Sql("now() + interval '10 minutes'"))
                    case 8:
                        update(sql, job_id, progress=draw.randint(0, 100))
            if round_number % 2:
                await agree(client, sql)
        await agree(client, sql)
        sql.execute('TRUNCATE "VerificationJob"')
        await agree(client, sql)


async def test_what_others_write_is_repaired(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """Foreign changes of the keys never reach the rows, and are repaired from the rows."""
    waiting = [str(insert(sql)) for _ in range(4)]
    ended = str(insert(sql, COMPLETED))
    async with mirroring(database_url, server):
        await agree(client, sql)
        rows = sql.execute('SELECT * FROM "VerificationJob" ORDER BY id').fetchall()
        client.lrem(f"{QUEUE}:wait", 0, waiting[2])
        client.lpush(f"{QUEUE}:wait", "1", waiting[0], waiting[0])
        client.zadd(f"{QUEUE}:failed", {waiting[1]: 5})
        client.zrem(f"{QUEUE}:completed", ended)
        client.hset(f"{QUEUE}:{waiting[3]}", "name", "forged")
        client.delete(f"{QUEUE}:{ended}")
        client.set(f"{QUEUE}:active", "no list")
        client.hset(f"{QUEUE}:meta", "paused", "1")
        await agree(client, sql)
        assert sql.execute('SELECT * FROM "VerificationJob" ORDER BY id').fetchall() == rows


async def test_redis_comes_and_goes(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """The queue works on while Redis is flushed, restarted or frozen, and the keys agree afterwards."""

    async def handle(_job: ClaimedJob, _progress: Progress) -> dict[str, Any]:
        return {"status": "OK"}

    async with mirroring(database_url, server, redis_timeout_ms=50), working(database_url, handle):
        insert(sql, copies=5)
        await agree(client, sql)
        client.flushall()
        await agree(client, sql)
        server.restart()
        await agree(client, sql)
        server.freeze()
        insert(sql, copies=5)
        await eventually(lambda: statuses(sql) == {"completed": 10})
        server.thaw()
        await agree(client, sql)


async def test_a_full_redis(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """A full Redis does no harm, and gets the keys once it has room."""
    async with mirroring(database_url, server):
        insert(sql)
        await agree(client, sql)
        client.config_set("maxmemory", "1")
        try:
            insert(sql, copies=3)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.set("more", "of it")
        finally:
            client.config_set("maxmemory", "0")
        await agree(client, sql)


async def test_a_real_bullmq_queue_is_left_alone(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """A real BullMQ queue of the same name is left alone until its keys are gone."""
    insert(sql)
    client.lpush(f"{QUEUE}:wait", "17")
    client.set(f"{QUEUE}:id", "17")
    client.hset(f"{QUEUE}:17", mapping={"name": "verify", "data": "{}"})
    async with mirroring(database_url, server):
        await eventually(lambda: client.exists(LEASE_KEY))
        seen = client.info("stats")["total_commands_processed"]
        await eventually(lambda: client.info("stats")["total_commands_processed"] > seen + 20)
        assert sorted(client.keys("bull:*")) == [f"{QUEUE}:17", f"{QUEUE}:id", f"{QUEUE}:wait"]
        assert client.lrange(f"{QUEUE}:wait", 0, -1) == ["17"]
        client.flushall()
        await agree(client, sql)


async def test_one_process_at_a_time(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """Of several processes one keeps the keys; another goes on when the first stops or falls silent."""
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(mirroring(database_url, server))
        await eventually(lambda: client.get(LEASE_KEY))
        holder = client.get(LEASE_KEY)
        async with mirroring(database_url, server):
            insert(sql)
            await agree(client, sql)
            assert client.get(LEASE_KEY) == holder
            await first.aclose()
            await eventually(lambda: client.get(LEASE_KEY) not in (None, holder))
            insert(sql)
            await agree(client, sql)
    assert client.get(LEASE_KEY) is None
    # A killed holder: its lease runs out.
    client.set(LEASE_KEY, "gone", ex=1)
    async with mirroring(database_url, server):
        insert(sql)
        await agree(client, sql)


async def test_bounded_and_passing(
    database_url: str, server: RedisServer, sql: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys show the newest ended jobs and both ends of a long line in full, and every key expires."""
    monkeypatch.setattr(plan, "MOST_ENDED", 3)
    monkeypatch.setattr(outline, "MOST_WHOLE", 2)
    line = [str(insert(sql)) for _ in range(9)]
    ended = [
        str(insert(sql, base, completedAt=Sql("clock_timestamp()"))) for _ in range(5) for base in (COMPLETED, FAILED)
    ]
    async with mirroring(database_url, server):

        def whole() -> set[str]:
            keys = {key.removeprefix(f"{QUEUE}:") for key in client.keys(f"{QUEUE}:*")}
            return keys - {"wait", "active", "delayed", "completed", "failed", "meta"}

        await eventually(lambda: whole() == {*line[:2], *line[-2:], *ended[-6:]})
        assert client.lrange(f"{QUEUE}:wait", 0, -1) == line[::-1]
        assert client.zrange(f"{QUEUE}:completed", 0, -1) == ended[4::2]
        newest = str(insert(sql, COMPLETED, completedAt=Sql("clock_timestamp()")))
        await eventually(lambda: newest in whole() and ended[4] not in whole())
    assert all(0 < client.ttl(key) <= 3600 for key in client.scan_iter())


async def test_long_lines_are_read_in_pieces(
    database_url: str, server: RedisServer, sql: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a line beyond the bound the first jobs are listed, also by a process that starts later."""
    monkeypatch.setattr(outline, "MOST_LISTED", 300)
    monkeypatch.setattr(mirror, "_IDS_PER_READ", 100)
    monkeypatch.setattr(mirror, "_WORDS_PER_PIPELINE", 200)
    line = [str(insert(sql)) for _ in range(320)]
    for _ in range(2):
        async with mirroring(database_url, server):
            await eventually(lambda: client.lrange(f"{QUEUE}:wait", 0, -1) == line[:300][::-1])
            update(sql, UUID(line.pop(0)), runAt=Sql("now() + interval '1 hour'"))
            await eventually(lambda: client.lrange(f"{QUEUE}:wait", 0, -1) == line[:300][::-1])
            assert client.zcard(f"{QUEUE}:delayed") > 0


async def test_the_api_keeps_them_too(database_url: str, server: RedisServer, client: Any, serve_api: ServeApi) -> None:
    """An API process keeps the keys too, so ``LLEN`` shows the length of the line while no worker lives."""
    settings = {"redis_url": server.url, "redis_bull_keys": "on", "redis_timeout_ms": 1000}
    async with serve_api(database_url=database_url, **settings) as api:
        fields = {"contentHash": CONTENT_HASH, "manifestURI": MANIFEST_URI, "registryAddress": REGISTRY_ADDRESS}
        job_id = (await api.post(f"{JOBS}/verify", json=fields)).json()["jobId"]
        await eventually(lambda: client.lrange(f"{QUEUE}:wait", 0, -1) == [job_id])
        await api.post(f"{JOBS}/{job_id}/cancel")
        await eventually(lambda: client.llen(f"{QUEUE}:wait") == 0)
        assert client.hget(f"{QUEUE}:{job_id}", "failedReason") == "cancelled"


async def test_off_unless_asked_for(database_url: str, server: RedisServer, sql: Any, client: Any) -> None:
    """A Redis without ``REDIS_BULL_KEYS=on`` has no keys of BullMQ."""
    insert(sql)
    async with mirroring(database_url, server, redis_bull_keys="off"):
        await eventually(lambda: client.info("clients")["connected_clients"] > 1)
    assert client.keys("bull:*") == []


async def test_in_a_cluster(database_url: str, sql: Any) -> None:
    """The keys are kept in a Cluster, over several nodes."""
    async with two_nodes() as (first, second):
        for base in (QUEUED, QUEUED, PROCESSING, COMPLETED, FAILED):
            insert(sql, base)
        url = f"redis+cluster://127.0.0.1:{first.port}"
        with redis.RedisCluster(port=first.port, host="127.0.0.1", decode_responses=True) as client:
            async with mirroring(database_url, first, redis_url=url):
                await agree(client, sql)
                insert(sql)
                sql.execute(
                    "UPDATE \"VerificationJob\" SET \"runAt\" = now() + interval '1 hour' WHERE status = 'queued'"
                )
                await agree(client, sql)
        assert all(server.command("DBSIZE") != b":0\r\n" for server in (first, second))
