"""What ``iidq doctor`` looks at: each check tries the thing itself, and says what came back and what to do."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import uuid4

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from iidq.database.connections import connect, server_fault
from iidq.database.obstacles import find_migration_fault, find_obstacles
from iidq.database.pool import Database, open_database
from iidq.database.queries import shipped_migrations
from iidq.errors import IidqError
from iidq.extras import install_command
from iidq.guarded_http.http_connection import Deadlines
from iidq.observability.redaction import redact_url
from iidq.provenance.ethereum.jsonrpc import quantity
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.ethereum.rpc_http import open_http
from iidq.provenance.ipfs.gateway import Gateway
from iidq.queue.notify import channels
from iidq.queue.read import queue_health
from iidq.setting_values.database_url import hide_options
from iidq.setting_values.redis_url import parse_redis_url
from iidq.settings import Settings

CHECK_SECONDS: Final = 10.0
_HEAR_SECONDS = 3.0
_LONG_WAIT_SECONDS = 300.0
_OLDEST_TESTED_POSTGRES = 15
# The empty file as an identity CID: gateways answer for it without looking anywhere (specs.ipfs.tech,
# trustless gateway, "probe paths").
_PROBE_TARGET = "/ipfs/bafkqaaa?format=raw"


class Outcome(StrEnum):
    """How a check went; only ``BROKEN`` keeps jobs from being done."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class Answer(NamedTuple):
    """What came back, and what to do about it (nothing where all is well)."""

    outcome: Outcome
    came_back: str
    to_do: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, whole."""

    check: str
    outcome: Outcome
    tried: str
    came_back: str
    to_do: str


async def diagnose(settings: Settings) -> list[Finding]:
    """Look at everything that these settings name, all at the same time; each check has its own deadline."""
    async with open_http() as http:
        groups = await asyncio.gather(
            _look_at_database(settings), _look_at_chains(settings, http), _look_at_gateways(settings)
        )
    findings = [finding for group in groups for finding in group]
    return [*findings, await _look_at_redis(settings)] if settings.redis_url else findings


async def _look(check: str, tried: str, look: Callable[[], Awaitable[Answer]], to_do: str) -> Finding:
    """Run one check; a failure of any foreseeable kind is its finding, with ``to_do`` beside it."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            answer = await look()
    except TimeoutError:
        answer = Answer(Outcome.BROKEN, f"no answer within {CHECK_SECONDS:.0f} s", to_do)
    except (IidqError, psycopg.Error, OSError) as error:
        answer = Answer(Outcome.BROKEN, _reason(error), to_do)
    return Finding(check, answer.outcome, tried, redact_url(answer.came_back), answer.to_do)


def _reason(error: BaseException) -> str:
    # An operator may see the driver's own words, which clients never do.
    cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
    text = cause.message if isinstance(cause, IidqError) else str(cause)
    return " ".join(text.split()) or type(cause).__name__


async def _look_at_database(settings: Settings) -> list[Finding]:
    url = settings.database_url
    if url is None:
        to_do = "set DATABASE_URL to the queue's Postgres: postgresql://user:password@host/database"
        return [Finding("database", Outcome.BROKEN, "DATABASE_URL", "it is not set", to_do)]

    async def greet() -> Answer:
        async with await connect(settings) as connection:
            version = connection.info.server_version
            fault = server_fault(connection.info)
        if fault is not None:
            return Answer(Outcome.BROKEN, fault, "move to another database and run `iidq migrate` there")
        shown = f"PostgreSQL {version // 10000}.{version % 10000}"
        if settings.ignored_parameters:
            shown += f"; without meaning here, in the URL: {', '.join(settings.ignored_parameters)}"
        if version // 10000 < _OLDEST_TESTED_POSTGRES:
            return Answer(Outcome.WARNING, shown, f"iidq is tested from PostgreSQL {_OLDEST_TESTED_POSTGRES} on")
        return Answer(Outcome.OK, shown)

    place = conninfo_to_dict(url)
    tried = f"connect to database {place.get('dbname', '(default)')} on {place.get('host', 'this machine')}"
    database = await _look("database", tried, greet, "start Postgres, or correct DATABASE_URL")
    if database.outcome is Outcome.BROKEN:
        return [replace(database, came_back=hide_options(database.came_back, url))]
    async with open_database(settings, pool_size=2, statement_timeout_seconds=CHECK_SECONDS) as pool:
        migrations = await _look(
            "migrations", "compare with the database's list", lambda: _migrations(pool), "run `iidq migrate`"
        )
        listening = await _look(
            "LISTEN", "notify oneself over a second connection", lambda: _listen(settings, pool), "see the database"
        )
        if migrations.outcome is Outcome.BROKEN:
            return [database, migrations, listening]
        rights = await _look("rights", "ask Postgres' catalogs", lambda: _rights(pool), "see the database")
        workers = await _look("workers", "ask queue_health", lambda: _workers(pool), "see the database")
        queue = await _look("queue", "ask queue_health", lambda: _queue(pool), "see the database")
    return [database, migrations, listening, rights, workers, queue]


async def _migrations(database: Database) -> Answer:
    if fault := await database.run(find_migration_fault):
        came_back, _, to_do = fault.partition(": ")
        return Answer(Outcome.BROKEN, came_back, to_do)
    shipped = shipped_migrations()
    applied = await database.run(queue_health.applied_migrations)
    if missing := [name for name in shipped if name not in applied]:
        return Answer(Outcome.BROKEN, f"not applied: {', '.join(missing)}", "run `iidq migrate`")
    if newer := sorted(applied - set(shipped)):
        to_do = "nothing during a rollout; else install the iidq that they belong to"
        return Answer(Outcome.WARNING, f"the database is ahead of this iidq: {', '.join(newer)}", to_do)
    return Answer(Outcome.OK, f"all {len(shipped)} applied")


async def _listen(settings: Settings, database: Database) -> Answer:
    channel = f"iidq_echo_{uuid4().hex}"
    async with await connect(settings) as connection:
        await channels.listen(connection, channel)
        # Through a pooler one hears oneself while one speaks, and nothing afterwards.
        await database.run(lambda speaker: channels.echo(speaker, channel))
        deadline = time.monotonic() + _HEAR_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            async for notification in connection.notifies(timeout=left, stop_after=1):
                if notification.channel == channel:
                    return Answer(Outcome.OK, "heard")
    return Answer(
        Outcome.WARNING,
        f"nothing heard in {_HEAR_SECONDS:.0f} s: a transaction pooler is between, so workers only poll "
        f"(every {settings.poll_interval_seconds:g} s)",
        "nothing if that is quick enough; else point the workers' DATABASE_URL at the server itself",
    )


async def _rights(database: Database) -> Answer:
    if obstacles := await database.run(find_obstacles):
        return Answer(Outcome.BROKEN, "; ".join(obstacles), "let the tables' owner run what stands after each colon")
    return Answer(Outcome.OK, "every object is there, with all rights that API and workers need")


async def _workers(database: Database) -> Answer:
    counts = await database.run(queue_health.read_health)
    if counts.workers == 0:
        waits = f", and {counts.waiting} jobs wait" if counts.waiting else ""
        return Answer(Outcome.BROKEN, f"no live worker{waits}", "start one: `iidq worker`")
    shown = f"{counts.workers} live, {counts.listening_workers} of them woken by LISTEN"
    if counts.faults:
        to_do = "mend it; each worker tries again at its next poll"
        return Answer(Outcome.BROKEN, f"{shown}; {'; '.join(counts.faults)}", to_do)
    if counts.listening_workers < counts.workers:
        return Answer(Outcome.WARNING, shown, "the others poll: look for listener.down in their logs")
    return Answer(Outcome.OK, shown)


async def _queue(database: Database) -> Answer:
    if miscounts := await _miscounts(database):
        return Answer(Outcome.WARNING, "; ".join(miscounts), "call iidq_recount_queue() in the database")
    counts = await database.run(queue_health.read_health)
    age = counts.oldest_waiting_seconds
    shown = f"{counts.state}; {counts.waiting} waiting, {counts.active} active, {counts.failed} failed"
    if counts.state == "paused":
        reason = f": {counts.pause_reason}" if counts.pause_reason else ""
        return Answer(Outcome.WARNING, f"{shown}{reason}", "`iidq resume` when the reason is gone")
    if age is not None and age > _LONG_WAIT_SECONDS:
        return Answer(Outcome.WARNING, f"{shown}; the first in line has waited {age:.0f} s", "start more workers")
    return Answer(Outcome.OK, shown)


async def _miscounts(database: Database) -> list[str]:
    """Return one sentence per state whose kept count is wrong; none where there are too many jobs to count them."""
    wrong: list[tuple[str, int, int]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHECK_SECONDS / 2):
            wrong = await database.run(queue_health.miscounts)
    return [f"{real} jobs are {state}, and {kept} are counted" for state, kept, real in wrong]


async def _look_at_chains(settings: Settings, http: httpx.AsyncClient) -> list[Finding]:
    looks = [
        _look_at_chain(f"RPC_URLS_{chain_id}", urls, chain_id, http) for chain_id, urls in settings.rpc_urls.items()
    ]
    # Where RPC_URL is listed, the other endpoints of its chain stand in for it.
    if settings.rpc_url is not None and not any(settings.rpc_url in urls for urls in settings.rpc_urls.values()):
        looks.insert(0, _look_at_chain("RPC_URL", (settings.rpc_url,), None, http))
    findings = [finding for group in await asyncio.gather(*looks) for finding in group]
    if settings.rpc_url is None:
        to_do = "set RPC_URL to an Ethereum JSON-RPC endpoint"
        findings.insert(0, Finding("chain", Outcome.BROKEN, "RPC_URL", "it is not set", to_do))
    return findings


async def _look_at_chain(
    variable: str, urls: tuple[str, ...], chain_id: int | None, http: httpx.AsyncClient
) -> list[Finding]:
    async def look(url: str) -> Finding:
        endpoint = RpcEndpoint(url, http, deadline_seconds=CHECK_SECONDS)
        to_do = f"correct {variable}, or see why {endpoint.origin} is away"
        try:
            return await _look("chain", f"newest block at {endpoint.origin}", lambda: _head(endpoint, chain_id), to_do)
        finally:
            await endpoint.aclose()

    return _one_is_enough(await asyncio.gather(*map(look, urls)))


async def _head(endpoint: RpcEndpoint, chain_id: int | None) -> Answer:
    told, block = await endpoint.calls(("eth_chainId",), ("eth_getBlockByNumber", "latest", False))
    actual = quantity(told)
    if chain_id is not None and actual != chain_id:
        return Answer(
            Outcome.BROKEN, f"it serves chain {actual}, not {chain_id}", f"name it in RPC_URLS_{actual} instead"
        )
    if not isinstance(block, dict):
        return Answer(Outcome.BROKEN, f"chain {actual}, but no newest block", "wait until the node is in step")
    age = max(0, time.time() - quantity(block.get("timestamp")))
    return Answer(Outcome.OK, f"chain {actual}, block {quantity(block.get('number'))}, {age:.0f} s old")


async def _look_at_gateways(settings: Settings) -> list[Finding]:
    async def look(url: str) -> Finding:
        host = httpx.URL(url).host
        to_do = f"take {host} out of IPFS_GATEWAYS, or open the way to it"
        return await _look("gateway", f"the empty file at {host}", lambda: _probe_gateway(url), to_do)

    return _one_is_enough(await asyncio.gather(*map(look, settings.ipfs_gateways)))


async def _probe_gateway(url: str) -> Answer:
    gateway = Gateway(url, deadlines=Deadlines(first_byte_seconds=5, idle_seconds=2, total_seconds=8))
    base = gateway.address.base
    try:
        answer = await gateway.fetcher.fetch(
            replace(base, target=base.target + _PROBE_TARGET), max_bytes=1024, headers=gateway.address.headers
        )
    finally:
        await gateway.fetcher.aclose()
    if answer.may_pass:
        return Answer(Outcome.BROKEN, f"HTTP {answer.status}", "it is overloaded or limits us: name another one too")
    if answer.status in (401, 403):
        return Answer(Outcome.BROKEN, f"HTTP {answer.status}", "put user and password or key into its URL")
    # A gateway that serves only its owner's files says 404 here, and is well.
    return Answer(Outcome.OK, f"HTTP {answer.status}")


def _one_is_enough(findings: list[Finding]) -> list[Finding]:
    """Endpoints that stand in for one another: while one answers, the others' faults are warnings."""
    if all(finding.outcome is Outcome.BROKEN for finding in findings):
        return findings
    return [
        replace(finding, outcome=Outcome.WARNING) if finding.outcome is Outcome.BROKEN else finding
        for finding in findings
    ]


async def _look_at_redis(settings: Settings) -> Finding:
    url, limit_ms = settings.redis_url or "", settings.redis_timeout_ms
    to_do = "start Redis, or correct or unset REDIS_URL: nothing depends on it"

    async def read() -> Answer:
        try:
            from redis import RedisError

            from iidq.redis.redis_client import RedisClients
        except ImportError:
            return Answer(Outcome.BROKEN, "the package redis is not installed", install_command("redis"))
        clients = RedisClients(parse_redis_url(url), connect_seconds=CHECK_SECONDS, answer_seconds=CHECK_SECONDS)
        try:
            await clients.commands.set("iidq:1:doctor", b"", px=1000)
            began = time.perf_counter()
            await clients.commands.get("iidq:1:doctor")
            took_ms = (time.perf_counter() - began) * 1000
        except RedisError as error:
            return Answer(Outcome.WARNING, _reason(error), to_do)
        finally:
            await clients.aclose()
        shown = f"read and written, {took_ms:.1f} ms; used for {', '.join(settings.redis_use) or 'nothing'}"
        if took_ms > limit_ms:
            return Answer(Outcome.WARNING, shown, f"it answers too late for REDIS_TIMEOUT_MS={limit_ms}: raise that")
        return Answer(Outcome.OK, shown)

    tried = f"write and read a key at {parse_redis_url(url).place}"
    finding = await _look("Redis", tried, read, to_do)
    missing = "not installed" in finding.came_back
    return finding if missing or finding.outcome is not Outcome.BROKEN else replace(finding, outcome=Outcome.WARNING)
