"""The checks of ``iidq doctor``: database, queue, chains, gateways, Redis."""

import asyncio
import contextlib
import time
from dataclasses import replace
from uuid import uuid4

import httpx
from psycopg.conninfo import conninfo_to_dict

from iidq.cli.operators.findings import (
    CHECK_SECONDS,
    CheckResult,
    Finding,
    Level,
    error_text,
    queue_result,
    run_check,
)
from iidq.cli.operators.queue_access import QueueInDatabase
from iidq.database.connections import connect, server_fault
from iidq.database.obstacles import find_migration_fault, find_obstacles
from iidq.database.pool import Database, open_database
from iidq.database.queries import shipped_migrations
from iidq.extras import install_command
from iidq.guarded_http.http_connection import Deadlines
from iidq.provenance.ethereum.jsonrpc import quantity
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.ethereum.rpc_http import open_http
from iidq.provenance.ipfs.gateway import Gateway
from iidq.queue.notify import channels
from iidq.queue.read import queue_health
from iidq.setting_values.database_url import hide_options
from iidq.setting_values.redis_url import parse_redis_url
from iidq.settings import Settings

_OLDEST_TESTED_POSTGRES = 15
# The empty file as an identity CID, which gateways serve without a search (specs.ipfs.tech, trustless gateway,
# "probe paths").
_PROBE_TARGET = "/ipfs/bafkqaaa?format=raw"


async def diagnose(settings: Settings, *, hear_seconds: float = 3.0) -> list[Finding]:
    """Check all parts that ``settings`` name, in parallel.

    The LISTEN check waits ``hear_seconds`` for a notification.
    """
    async with open_http() as http:
        groups = await asyncio.gather(
            _check_database(settings, hear_seconds), _check_chains(settings, http), _check_gateways(settings)
        )
    findings = [finding for group in groups for finding in group]
    return [*findings, await _check_redis(settings)] if settings.redis_url else findings


async def _check_database(settings: Settings, hear_seconds: float) -> list[Finding]:
    url = settings.database_url
    if url is None:
        to_do = "set DATABASE_URL to the queue's Postgres: postgresql://user:password@host/database"
        return [Finding("database", Level.BROKEN, "DATABASE_URL", "it is not set", to_do)]

    async def open_connection() -> CheckResult:
        async with await connect(settings) as connection:
            version = connection.info.server_version
            fault = server_fault(connection.info)
        if fault is not None:
            return CheckResult(Level.BROKEN, fault, "move to another database and run `iidq migrate` there")
        shown = f"PostgreSQL {version // 10000}.{version % 10000}"
        if settings.ignored_parameters:
            shown += f"; ignored parameters of the URL: {', '.join(settings.ignored_parameters)}"
        if version // 10000 < _OLDEST_TESTED_POSTGRES:
            return CheckResult(Level.WARNING, shown, f"iidq is tested from PostgreSQL {_OLDEST_TESTED_POSTGRES} on")
        return CheckResult(Level.OK, shown)

    target = conninfo_to_dict(url)
    tried = f"connect to database {target.get('dbname', '(default)')} on {target.get('host', 'this machine')}"
    database = await run_check("database", tried, open_connection, "start Postgres, or correct DATABASE_URL")
    if database.level is Level.BROKEN:
        return [replace(database, came_back=hide_options(database.came_back, url))]
    async with open_database(settings, pool_size=2, statement_timeout_seconds=CHECK_SECONDS) as pool:
        migrations = await run_check(
            "migrations", "compare with the database's list", lambda: _migrations(pool), "run `iidq migrate`"
        )
        listening = await run_check(
            "LISTEN",
            "send a notification over a second connection",
            lambda: _listen(settings, pool, hear_seconds),
            "see the database",
        )
        if migrations.level is Level.BROKEN:
            return [database, migrations, listening]
        rights = await run_check("rights", "read Postgres' catalogs", lambda: _rights(pool), "see the database")
        workers = await run_check("workers", "read queue_health", lambda: _workers(pool), "see the database")
        queue = await run_check("queue", "read queue_health", lambda: _queue(pool), "see the database")
    return [database, migrations, listening, rights, workers, queue]


async def _migrations(database: Database) -> CheckResult:
    if fault := await database.run(find_migration_fault):
        came_back, _, to_do = fault.partition(": ")
        return CheckResult(Level.BROKEN, came_back, to_do)
    shipped = shipped_migrations()
    applied = await database.run(queue_health.applied_migrations)
    if missing := [name for name in shipped if name not in applied]:
        return CheckResult(Level.BROKEN, f"not applied: {', '.join(missing)}", "run `iidq migrate`")
    if newer := sorted(applied - set(shipped)):
        to_do = "nothing during a rollout; else install the iidq that they belong to"
        return CheckResult(Level.WARNING, f"the database is ahead of this iidq: {', '.join(newer)}", to_do)
    return CheckResult(Level.OK, f"all {len(shipped)} applied")


async def _listen(settings: Settings, database: Database, hear_seconds: float) -> CheckResult:
    channel = f"iidq_echo_{uuid4().hex}"
    async with await connect(settings) as connection:
        await channels.listen(connection, channel)
        # Sent over another connection: a pooler delivers notifications to a connection that is in use.
        await database.run(lambda sender: channels.echo(sender, channel))
        deadline = time.monotonic() + hear_seconds
        while (left := deadline - time.monotonic()) > 0:
            async for notification in connection.notifies(timeout=left, stop_after=1):
                if notification.channel == channel:
                    return CheckResult(Level.OK, "heard")
    return CheckResult(
        Level.WARNING,
        f"nothing heard in {hear_seconds:.0f} s: a transaction pooler is between, so workers only poll "
        f"(every {settings.poll_interval_seconds:g} s)",
        "nothing if that is quick enough; else point the workers' DATABASE_URL at the server itself",
    )


async def _rights(database: Database) -> CheckResult:
    if obstacles := await database.run(find_obstacles):
        return CheckResult(
            Level.BROKEN, "; ".join(obstacles), "let the tables' owner run the statement after each colon"
        )
    return CheckResult(Level.OK, "every object exists, with all rights that API and workers need")


async def _workers(database: Database) -> CheckResult:
    counts = await database.run(queue_health.read_health)
    if counts.workers == 0:
        waits = f", and {counts.waiting} jobs wait" if counts.waiting else ""
        return CheckResult(Level.BROKEN, f"no live worker{waits}", "start one: `iidq worker`")
    shown = f"{counts.workers} live, {counts.listening_workers} of them woken by LISTEN"
    if counts.faults:
        to_do = "fix it; each worker tries again at its next poll"
        return CheckResult(Level.BROKEN, f"{shown}; {'; '.join(counts.faults)}", to_do)
    if counts.listening_workers < counts.workers:
        return CheckResult(Level.WARNING, shown, "the others poll: look for listener.down in their logs")
    return CheckResult(Level.OK, shown)


async def _queue(database: Database) -> CheckResult:
    if miscounts := await _miscounts(database):
        return CheckResult(Level.WARNING, "; ".join(miscounts), "call iidq_recount_queue() in the database")
    return queue_result(await QueueInDatabase(database).counts())


async def _miscounts(database: Database) -> list[str]:
    """Return a sentence per state with a wrong count; none if there are too many jobs to count."""
    wrong: list[tuple[str, int, int]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHECK_SECONDS / 2):
            wrong = await database.run(queue_health.miscounts)
    return [f"{real} jobs are {state}, and {kept} are counted" for state, kept, real in wrong]


async def _check_chains(settings: Settings, http: httpx.AsyncClient) -> list[Finding]:
    checks = [
        _check_chain(f"RPC_URLS_{chain_id}", urls, chain_id, http) for chain_id, urls in settings.rpc_urls.items()
    ]
    # A listed RPC_URL has the other endpoints of its chain as fallbacks.
    if settings.rpc_url is not None and not any(settings.rpc_url in urls for urls in settings.rpc_urls.values()):
        checks.insert(0, _check_chain("RPC_URL", (settings.rpc_url,), None, http))
    findings = [finding for group in await asyncio.gather(*checks) for finding in group]
    if settings.rpc_url is None:
        to_do = "set RPC_URL to an Ethereum JSON-RPC endpoint"
        findings.insert(0, Finding("chain", Level.BROKEN, "RPC_URL", "it is not set", to_do))
    return findings


async def _check_chain(
    variable: str, urls: tuple[str, ...], chain_id: int | None, http: httpx.AsyncClient
) -> list[Finding]:
    async def check(url: str) -> Finding:
        endpoint = RpcEndpoint(url, http, deadline_seconds=CHECK_SECONDS)
        to_do = f"correct {variable}, or find out why {endpoint.origin} does not answer"
        try:
            return await run_check(
                "chain", f"newest block at {endpoint.origin}", lambda: _head(endpoint, chain_id), to_do
            )
        finally:
            await endpoint.aclose()

    return _one_is_enough(await asyncio.gather(*map(check, urls)))


async def _head(endpoint: RpcEndpoint, chain_id: int | None) -> CheckResult:
    answer, block = await endpoint.calls(("eth_chainId",), ("eth_getBlockByNumber", "latest", False))
    actual = quantity(answer)
    if chain_id is not None and actual != chain_id:
        return CheckResult(
            Level.BROKEN, f"it serves chain {actual}, not {chain_id}", f"name it in RPC_URLS_{actual} instead"
        )
    if not isinstance(block, dict):
        return CheckResult(Level.BROKEN, f"chain {actual}, but no newest block", "wait until the node has synchronised")
    age = max(0, time.time() - quantity(block.get("timestamp")))
    return CheckResult(Level.OK, f"chain {actual}, block {quantity(block.get('number'))}, {age:.0f} s old")


async def _check_gateways(settings: Settings) -> list[Finding]:
    async def check(url: str) -> Finding:
        host = httpx.URL(url).host
        to_do = f"take {host} out of IPFS_GATEWAYS, or allow connections to it"
        return await run_check("gateway", f"the empty file at {host}", lambda: _probe_gateway(url), to_do)

    return _one_is_enough(await asyncio.gather(*map(check, settings.ipfs_gateways)))


async def _probe_gateway(url: str) -> CheckResult:
    gateway = Gateway(url, deadlines=Deadlines(first_byte_seconds=5, idle_seconds=2, total_seconds=8))
    base = gateway.address.base
    try:
        answer = await gateway.fetcher.fetch(
            replace(base, target=base.target + _PROBE_TARGET), max_bytes=1024, headers=gateway.address.headers
        )
    finally:
        await gateway.fetcher.aclose()
    if answer.may_pass:
        return CheckResult(
            Level.BROKEN, f"HTTP {answer.status}", "it is overloaded or limits requests: add another gateway"
        )
    if answer.status in (401, 403):
        return CheckResult(Level.BROKEN, f"HTTP {answer.status}", "put user and password, or the key, into its URL")
    # A gateway for its owner's files alone replies 404 here, and works.
    return CheckResult(Level.OK, f"HTTP {answer.status}")


def _one_is_enough(findings: list[Finding]) -> list[Finding]:
    """Turn faults into warnings while at least one alternative endpoint works."""
    if all(finding.level is Level.BROKEN for finding in findings):
        return findings
    return [replace(finding, level=Level.WARNING) if finding.level is Level.BROKEN else finding for finding in findings]


async def _check_redis(settings: Settings) -> Finding:
    url, limit_ms = settings.redis_url or "", settings.redis_timeout_ms
    to_do = "start Redis, or correct or unset REDIS_URL: nothing depends on it"

    async def read() -> CheckResult:
        try:
            from redis import RedisError

            from iidq.redis.redis_client import RedisClients
        except ImportError:
            return CheckResult(Level.BROKEN, "the package redis is not installed", install_command("redis"))
        clients = RedisClients(parse_redis_url(url), connect_seconds=CHECK_SECONDS, answer_seconds=CHECK_SECONDS)
        try:
            await clients.commands.set("iidq:1:doctor", b"", px=1000)
            began = time.perf_counter()
            await clients.commands.get("iidq:1:doctor")
            took_ms = (time.perf_counter() - began) * 1000
        except RedisError as error:
            return CheckResult(Level.WARNING, error_text(error), to_do)
        finally:
            await clients.aclose()
        shown = f"read and written, {took_ms:.1f} ms; used for {', '.join(settings.redis_use) or 'nothing'}"
        if took_ms > limit_ms:
            return CheckResult(Level.WARNING, shown, f"it answers too late for REDIS_TIMEOUT_MS={limit_ms}: raise that")
        return CheckResult(Level.OK, shown)

    tried = f"write and read a key at {parse_redis_url(url).place}"
    finding = await run_check("Redis", tried, read, to_do)
    missing = "not installed" in finding.came_back
    return finding if missing or finding.level is not Level.BROKEN else replace(finding, level=Level.WARNING)
