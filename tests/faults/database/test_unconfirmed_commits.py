"""A silent synchronous standby: no unconfirmed write is acknowledged, and every caller gets an answer."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from iidq.database import pool as databases
from iidq.database.connections import Connection
from iidq.database.migrate import migrate
from iidq.database.pool import Database, open_database
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.errors import DatabaseUnavailable
from iidq.queue import control, store
from iidq.queue import enqueuer as enqueuers
from iidq.queue.enqueuer import Enqueuer, open_enqueuer
from iidq.queue.job import ClaimedJob, IdempotencyKey
from iidq.queue.outcome import Outcome
from iidq.queue.processing.writers import OutcomeWriter
from iidq.queue.store import Fence
from iidq.settings import load_settings
from iidq.web import availability
from iidq.webhooks import delivery_store
from iidq.webhooks.delivery import Delivery, DeliveryResult, DeliveryState
from tests.database.attempts import WORKER, claim_one
from tests.eventually import eventually
from tests.faults.database.pgbouncer import find_pgbouncer, pool_transactions
from tests.faults.database.standby import tcp_url
from tests.faults.database.test_database_outage import until
from tests.faults.database.test_failover import ServerPair, servers  # noqa: F401 — a fixture
from tests.job_rows import CONTENT_HASH, FAILED, MANIFEST_URI, REGISTRY_ADDRESS, insert, new_job, scalar
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi
from tests.webhooks import cancel, insert_with_callback

Sql = psycopg.Connection[Any]
SUBMISSION = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": MANIFEST_URI, "contentHash": CONTENT_HASH}
URL = "https://receiver.example/hook"


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedPostgres]:
    """A migrated server; see :func:`stalled`."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        home = Path(folder)
        # Run by root, the server has another account, which must pass here.
        home.chmod(0o711)
        server = EmbeddedPostgres(home / "postgres", options={"fsync": "off"})
        server.start()
        try:
            migrate(server.url)
            yield server
        finally:
            server.close()


def waiting(admin: Sql, *, query: str = "", seconds: float = 0.0) -> int | None:
    """Return the pid of a server process in wait for a standby for ``seconds``, in a statement with ``query``."""
    row = admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND strpos(query, %s) > 0"
        " AND clock_timestamp() - query_start > make_interval(secs => %s)",
        [query, seconds],
    ).fetchone()
    return None if row is None else int(row[0])


def wait_for(admin: Sql, standby: str) -> None:
    """Name the synchronous standby; the server applies the setting a moment later."""
    admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'".encode())
    admin.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def stalled(server: EmbeddedPostgres) -> AsyncIterator[Sql]:
    """Let every commit wait for a missing standby until the block ends; yield a connection exempt from the wait."""
    with psycopg.connect(server.url, autocommit=True) as admin, psycopg.connect(server.url, autocommit=True) as trial:
        admin.execute("SET synchronous_commit = local")
        trial.execute("SET synchronous_commit = on")
        wait_for(admin, "missing")
        try:
            async with asyncio.timeout(15):
                while True:
                    committing = asyncio.create_task(
                        asyncio.to_thread(trial.execute, "SELECT pg_logical_emit_message(true, 'test', '')")
                    )
                    await eventually(lambda: committing.done() or waiting(admin) is not None)  # noqa: B023
                    trial.cancel()
                    if not committing.done():
                        await committing
                        break
            yield admin
        finally:
            wait_for(admin, "")


@asynccontextmanager
async def asking(
    url: str, *, statement_timeout_seconds: float | None = None
) -> AsyncIterator[tuple[Database, Enqueuer]]:
    """Yield the database and the enqueuer of an API process."""
    settings = load_settings(database_url=url)
    async with (
        open_database(settings, pool_size=4, statement_timeout_seconds=statement_timeout_seconds) as database,
        open_enqueuer(database, settings) as enqueuer,
    ):
        yield database, enqueuer


# Failover


async def test_no_acknowledged_job_is_lost_with_a_primary_whose_standby_was_silent(
    servers: ServerPair,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No acknowledged job is lost with a primary under a silent standby: unconfirmed jobs get an error."""
    primary, standby = servers
    monkeypatch.setattr(enqueuers, "WRITE_SECONDS", 1.5, raising=False)
    acknowledged: set[UUID] = set()
    # As in the API, but shorter.
    async with asking(primary.url, statement_timeout_seconds=0.5) as (_, enqueuer):
        acknowledged |= set(await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(20))))
        standby.fall_silent()
        answers = await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(20)), return_exceptions=True)
        acknowledged |= {answer for answer in answers if isinstance(answer, UUID)}
        await asyncio.to_thread(primary.stop, signal.SIGKILL)
    await asyncio.to_thread(standby.forget)
    await asyncio.to_thread(standby.promote)
    with psycopg.connect(standby.url, autocommit=True) as sql:
        assert acknowledged <= {row[0] for row in sql.execute('SELECT id FROM "VerificationJob"')}
    assert len(acknowledged) == 20
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}


async def test_the_api_while_a_standby_is_silent(
    servers: ServerPair,  # noqa: F811
    serve_api: ServeApi,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under a silent standby every write gets 503, at once when the circuit is open; reads go on."""
    primary, standby = servers
    # Shorter times, so that the bound of a single write is not the cause of the open circuit.
    monkeypatch.setattr(databases, "DOUBT_SECONDS", 0.2, raising=False)
    monkeypatch.setattr(availability, "CONFIRM_SECONDS", 0.3, raising=False)
    async with serve_api(database_url=tcp_url(primary), sync_fallback="off") as api:

        async def submit(**headers: str) -> httpx.Response:
            return await api.post(f"{JOBS}/verify", json=SUBMISSION, headers=headers)

        known = {"Idempotency-Key": "known"}
        first, keyed = await submit(), await submit(**known)
        shown = first.headers["location"]
        standby.fall_silent()
        replies = await asyncio.gather(
            *(submit() for _ in range(20)),
            submit(**{"Idempotency-Key": "new"}),
            submit(**known),
            api.post(f"{JOBS}/batch", json={"jobs": [SUBMISSION | {"type": "verify"}]}),
            api.post(f"{shown}/cancel"),
            api.post(f"{JOBS}/pause", json={}),
            api.post(f"{JOBS}/resume"),
        )
        assert {reply.status_code for reply in replies} == {503}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
        await until(api, "open")
        monkeypatch.setattr(databases, "WRITE_SECONDS", 3600.0)
        monkeypatch.setattr(enqueuers, "WRITE_SECONDS", 3600.0)
        assert (await submit()).json()["code"] == "database.not_confirmed"
        assert (await api.get(shown)).status_code == 200
        assert (await api.get(JOBS)).status_code == 200
        # The probe's own commits hold at most one server process during the silence.
        with psycopg.connect(primary.url, autocommit=True) as admin:
            probes = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
            assert scalar(admin, probes, "%pg_logical_emit_message%") <= 1
        standby.speak()
        await until(api, "closed")
        again = await submit(**known)
        assert (again.status_code, again.json()["jobId"]) == (200, keyed.json()["jobId"])
        assert (await submit()).status_code == 200


# Each acknowledgement


@dataclass
class Prepared:
    """The database, and the objects of the writes below; all of it is confirmed."""

    database: Database
    enqueuer: Enqueuer
    waiting: UUID
    failed: UUID
    running: ClaimedJob
    delivery: Delivery


KNOWN, KNOWN_BATCH = IdempotencyKey("s", "known", b"f"), IdempotencyKey("s", "batch", b"f")


async def prepare(database: Database, enqueuer: Enqueuer, sql: Sql) -> Prepared:
    sql.execute('TRUNCATE "VerificationJob", iidq_idempotency_key, iidq_webhook_delivery')
    await database.run(control.resume)
    running = insert(sql)
    claimed = await database.run(claim_one)
    assert claimed.id == running
    await enqueuer.enqueue(new_job(key=KNOWN))
    await enqueuer.enqueue_batch(uuid4(), [new_job()], KNOWN_BATCH)
    cancel(sql, insert_with_callback(sql, URL))
    [delivery] = await database.run(
        lambda connection: delivery_store.claim(connection, slots=1, per_host=1, running={}, lease_seconds=60)
    )
    return Prepared(database, enqueuer, insert(sql), insert(sql, FAILED), claimed, delivery)


Write = Callable[[Prepared], Awaitable[object]]
ACKNOWLEDGEMENTS: dict[str, Write] = {
    "enqueue": lambda it: it.enqueuer.enqueue(new_job()),
    "enqueue with a callback": lambda it: it.enqueuer.enqueue(new_job(callback_url=URL)),
    "enqueue under a new key": lambda it: it.enqueuer.enqueue(new_job(key=IdempotencyKey("s", "new", b"f"))),
    "enqueue under a known key": lambda it: it.enqueuer.enqueue(new_job(key=KNOWN)),
    "batch": lambda it: it.enqueuer.enqueue_batch(uuid4(), [new_job(), new_job()], None),
    "batch under a known key": lambda it: it.enqueuer.enqueue_batch(uuid4(), [new_job()], KNOWN_BATCH),
    "cancel": lambda it: it.database.run(lambda c: control.cancel(c, it.waiting)),
    "retry": lambda it: it.database.run(lambda c: control.retry(c, it.failed)),
    "retry of a cause": lambda it: it.database.run(lambda c: control.retry_failures(c, "manifest.missing", batch=9)),
    "pause": lambda it: it.database.run(lambda c: control.pause(c, None)),
    "resume": lambda it: it.database.run(control.resume),
    "outcome": lambda it: it.database.run(
        lambda c: store.store_outcomes(c, [Outcome.completed(it.running, {"status": "OK"})], worker_id=WORKER)
    ),
    "delivery": lambda it: it.database.run(
        lambda c: delivery_store.settle(c, it.delivery, DeliveryResult(DeliveryState.DELIVERED, 200))
    ),
}


async def not_confirmed(writing: Awaitable[object]) -> bool:
    with pytest.raises(DatabaseUnavailable) as refused:
        await writing
    return refused.value.code == "database.not_confirmed"


@pytest.mark.parametrize("name", ACKNOWLEDGEMENTS)
async def test_a_wait_that_is_cancelled_acknowledges_nothing(primary: EmbeddedPostgres, name: str) -> None:
    """A cancelled wait for the standby is an error for the caller, though Postgres reports success."""
    async with asking(primary.url) as (database, enqueuer):
        with psycopg.connect(primary.url, autocommit=True) as sql:
            prepared = await prepare(database, enqueuer, sql)
        async with stalled(primary) as admin:
            writing = asyncio.ensure_future(ACKNOWLEDGEMENTS[name](prepared))
            pid = await eventually(lambda: waiting(admin))
            admin.execute("SELECT pg_cancel_backend(%s)", [pid])
            assert await not_confirmed(writing)
        # The error is for one commit only.
        assert await enqueuer.enqueue(new_job())


@pytest.fixture
def pooled_url(primary: EmbeddedPostgres) -> Iterator[str]:
    """The URL of the same database through a pooler."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # Run by root, the pooler has another account, which must read the configuration.
        Path(folder).chmod(0o755)
        with pool_transactions(Path(folder), primary.url) as url:
            yield url


@pytest.mark.skipif(find_pgbouncer() is None, reason="pgbouncer is not installed")
@pytest.mark.parametrize("statement_timeout_seconds", [None, 10.0])
async def test_a_warning_passes_a_pooler(
    primary: EmbeddedPostgres, pooled_url: str, statement_timeout_seconds: float | None
) -> None:
    """An unconfirmed commit is noticed behind PgBouncer, with and without a transaction around the statement."""
    async with asking(pooled_url, statement_timeout_seconds=statement_timeout_seconds) as (_, enqueuer):
        await enqueuer.enqueue(new_job())
        async with stalled(primary) as admin:
            writing = asyncio.create_task(enqueuer.enqueue(new_job()))
            pid = await eventually(lambda: waiting(admin))
            admin.execute("SELECT pg_cancel_backend(%s)", [pid])
            assert await not_confirmed(writing)


@pytest.mark.parametrize("name", ["enqueue", "enqueue under a new key", "batch", "outcome"])
async def test_a_statement_timeout_does_not_end_the_wait(primary: EmbeddedPostgres, name: str) -> None:
    """A commit waits for its standby beyond the role's ``statement_timeout``, and is acknowledged then."""
    with psycopg.connect(primary.url, autocommit=True) as sql:
        sql.execute("ALTER ROLE iidq SET statement_timeout = '200ms'")
        try:
            async with asking(primary.url) as (database, enqueuer):
                prepared = await prepare(database, enqueuer, sql)
                async with stalled(primary) as admin:
                    writing = asyncio.ensure_future(ACKNOWLEDGEMENTS[name](prepared))
                    await eventually(lambda: writing.done() or waiting(admin, seconds=0.5))
                    assert not writing.done()
                await writing
        finally:
            sql.execute("ALTER ROLE iidq RESET statement_timeout")


@pytest.mark.parametrize("setting", ["local", "off"])
async def test_an_operator_may_do_without_standbys(primary: EmbeddedPostgres, setting: str) -> None:
    """Commits of a role with ``synchronous_commit`` off or local are acknowledged while the standby is missing."""
    with psycopg.connect(primary.url, autocommit=True) as sql:
        sql.execute(f"ALTER ROLE iidq SET synchronous_commit = {setting}".encode())
        try:
            async with asking(primary.url) as (_, enqueuer), stalled(primary):
                assert await enqueuer.enqueue(new_job())
        finally:
            sql.execute("ALTER ROLE iidq RESET synchronous_commit")


# Bounds


async def test_every_caller_is_answered_in_time(primary: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every caller gets an answer in time while commits wait: with and without a key, and for a batch."""
    monkeypatch.setattr(enqueuers, "WRITE_SECONDS", 0.4, raising=False)
    monkeypatch.setattr(databases, "WRITE_SECONDS", 0.4, raising=False)
    async with asking(primary.url, statement_timeout_seconds=10) as (_, enqueuer):
        await enqueuer.enqueue(new_job())
        async with stalled(primary), asyncio.timeout(9):
            for _ in range(2):
                callers = [asyncio.create_task(enqueuer.enqueue(new_job())) for _ in range(30)]
                await asyncio.sleep(0)
                callers += [
                    asyncio.create_task(enqueuer.enqueue(new_job(key=IdempotencyKey("s", str(uuid4()), b"f"))))
                    for _ in range(5)
                ]
                callers.append(asyncio.create_task(enqueuer.enqueue_batch(uuid4(), [new_job()], None)))
                answers = await asyncio.gather(*callers, return_exceptions=True)
                assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert await enqueuer.enqueue(new_job())


def test_the_bounds_fit_together() -> None:
    """A stall is known before the time of the first stalled write ends, within 5 s."""
    assert databases.WRITE_SECONDS <= 5
    look_seconds = availability.PROBE_INTERVAL_SECONDS + availability.PROBE_ANSWER_SECONDS
    assert databases.DOUBT_SECONDS + look_seconds + availability.CONFIRM_SECONDS < databases.WRITE_SECONDS
    assert databases.WRITE_SECONDS < databases.ANSWER_SECONDS


async def test_a_confirmation_in_vain_leaves_nothing_behind(primary: EmbeddedPostgres) -> None:
    """A confirmation without success leaves no server process waiting, and the next confirmation succeeds."""
    async with asking(primary.url) as (database, _), database.connection() as connection:
        async with stalled(primary) as admin:
            for _ in range(3):
                assert await not_confirmed(store.confirm(connection, 0.2))
                assert waiting(admin) is None
        await store.confirm(connection, 15)
        connection.unconfirmed.clear()


# Outcomes


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_an_outcome_is_written_until_it_is_confirmed(primary: EmbeddedPostgres, end: str) -> None:
    """An unconfirmed outcome is written again until confirmed, is no lost lease, and counts once."""
    settled: list[set[Fence]] = []
    async with asking(primary.url) as (database, enqueuer):
        with psycopg.connect(primary.url, autocommit=True) as sql:
            prepared = await prepare(database, enqueuer, sql)
            done = "SELECT succeeded FROM (SELECT sum(succeeded) AS succeeded FROM iidq_queue_count) AS counts"
            before = scalar(sql, done)
            writer = OutcomeWriter(database, WORKER, lambda _, lost: settled.append(lost))
            async with stalled(primary) as admin:
                writer.put(Outcome.completed(prepared.running, {"status": "OK"}))
                pid = await eventually(lambda: waiting(admin, query="mine"))
                admin.execute(f"SELECT {end}(%s)".encode(), [pid])
                await eventually(lambda: waiting(admin, query="pg_logical_emit_message"))
                assert settled == []
            await writer.written()
            assert settled == [set()]
            assert scalar(sql, done) == before + 1


async def test_a_long_stall_does_not_use_up_the_server(
    primary: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated outcome holds one server process, not one for each try."""
    monkeypatch.setattr(databases, "ANSWER_SECONDS", 0.6)
    tries = asyncio.Semaphore(0)

    async def confirm(connection: Connection) -> None:
        tries.release()
        await store_confirm(connection, 0.1)

    store_confirm = store.confirm
    monkeypatch.setattr(store, "confirm", confirm)
    settled: list[set[Fence]] = []
    async with asking(primary.url) as (database, enqueuer):
        with psycopg.connect(primary.url, autocommit=True) as sql:
            prepared = await prepare(database, enqueuer, sql)
        writer = OutcomeWriter(database, WORKER, lambda _, lost: settled.append(lost))
        async with stalled(primary) as admin:
            writer.put(Outcome.completed(prepared.running, {"status": "OK"}))
            for _ in range(5):
                await tries.acquire()
            held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND strpos(query, 'emit') = 0"
            assert scalar(admin, held) == 1
        await writer.written()
    assert settled == [set()]


async def test_a_delivery_that_is_settled_again_is_settled(primary: EmbeddedPostgres) -> None:
    """The same end of the same attempt of a delivery can be stored twice; another end is refused."""
    async with asking(primary.url) as (database, enqueuer):
        with psycopg.connect(primary.url, autocommit=True) as sql:
            prepared = await prepare(database, enqueuer, sql)
        delivered = DeliveryResult(DeliveryState.DELIVERED, 200)
        gave_up = DeliveryResult(DeliveryState.GAVE_UP, error="webhook.lost: the worker fell silent")
        for settlement, stored in ((delivered, True), (delivered, True), (gave_up, False)):
            assert stored is await database.run(
                lambda c: delivery_store.settle(c, prepared.delivery, settlement)  # noqa: B023
            )
