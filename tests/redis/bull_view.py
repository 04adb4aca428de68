"""Two views of the queue for comparison: BullMQ's keys in Redis, and the rows."""

import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from iidq.bullmq.mirror import open_bull_mirror
from iidq.redis.redis_connection import open_redis
from iidq.settings import load_settings
from tests.eventually import eventually
from tests.redis_server import RedisServer

QUEUE = "bull:verification"


@dataclass
class View:
    """Job ids by state, and each job's name.

    Waiting jobs have the next job last, as in BullMQ; completed and failed jobs have no order.
    """

    wait: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    delayed: list[str] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    paused: bool = False
    names: dict[str, str] = field(default_factory=dict)


class RedisCli:
    """The redis-cli program."""

    def __init__(self, server: RedisServer) -> None:
        self._command = server.cli()

    def __call__(self, *words: str) -> list[str]:
        """Return the lines of the reply."""
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.splitlines()

    def hash(self, job_id: str) -> dict[str, str]:
        """Return the fields of one job, by ``HGETALL``."""
        lines = self("HGETALL", f"{QUEUE}:{job_id}")
        return dict(zip(lines[::2], lines[1::2], strict=True))


def shown(client: Any) -> View:
    """Return the view in Redis; ``client`` is a decoding client of redis-py."""
    view = View(
        wait=client.lrange(f"{QUEUE}:wait", 0, -1),
        active=client.lrange(f"{QUEUE}:active", 0, -1),
        delayed=sorted(client.zrange(f"{QUEUE}:delayed", 0, -1)),
        completed=set(client.zrange(f"{QUEUE}:completed", 0, -1)),
        failed=set(client.zrange(f"{QUEUE}:failed", 0, -1)),
        paused=bool(client.hexists(f"{QUEUE}:meta", "paused")),
    )
    for job_id in (*view.wait, *view.active, *view.delayed, *view.completed, *view.failed):
        view.names[job_id] = client.hget(f"{QUEUE}:{job_id}", "name")
    return view


def due(sql: psycopg.Connection[Any]) -> View:
    """Return the view by the rows."""
    rows = sql.execute(
        'SELECT id::text, status, ready, type FROM "VerificationJob"'
        ' ORDER BY iidq_claim_order("runAt", type, priority), id'
    ).fetchall()
    view = View(names={job_id: kind for job_id, status, _, kind in rows if status != "cancelled"})
    view.wait = [job_id for job_id, status, ready, _ in rows if status == "queued" and ready][::-1]
    view.completed = {job_id for job_id, status, *_ in rows if status == "completed"}
    view.failed = {job_id for job_id, status, *_ in rows if status == "failed"}
    view.active = _ids(sql, 'WHERE "workerId" IS NOT NULL ORDER BY "startedAt" DESC, id DESC')
    # In no order: Redis keeps whole milliseconds, and many jobs fall due in the same millisecond.
    view.delayed = sorted(_ids(sql, "WHERE status = 'queued' AND NOT ready"))
    view.paused = bool(sql.execute('SELECT "pausedAt" IS NOT NULL FROM iidq_queue_control').fetchone() == (True,))
    return view


def _ids(sql: psycopg.Connection[Any], condition: str) -> list[str]:
    rows = sql.execute(f'SELECT id::text FROM "VerificationJob" {condition}'.encode()).fetchall()  # noqa: S608
    return [job_id for (job_id,) in rows]


@contextlib.asynccontextmanager
async def mirroring(database_url: str, server: RedisServer, **overrides: Any) -> AsyncIterator[None]:
    """Keep the keys until the block ends."""
    usual: dict[str, Any] = {"redis_url": server.url, "redis_bull_keys": "on", "redis_timeout_ms": 1000}
    settings = load_settings(database_url=database_url, **(usual | overrides))
    async with open_redis(settings) as connection, open_bull_mirror(settings, connection):
        yield


async def agree(client: Any, sql: psycopg.Connection[Any]) -> None:
    """Wait until the keys agree with the rows."""
    from redis.exceptions import ResponseError

    def difference() -> Any:
        # A key may have a wrong type for a while, by another client's write.
        with contextlib.suppress(ResponseError):
            return shown(client) == due(sql)

    with contextlib.suppress(AssertionError):
        await eventually(difference)
    found, expected = vars(shown(client)), vars(due(sql))
    wrong = {name: (found[name], expected[name]) for name in expected if found[name] != expected[name]}
    assert not wrong, wrong
