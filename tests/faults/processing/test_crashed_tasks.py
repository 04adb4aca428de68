"""Every long-lived task of API and worker crashes once on purpose, is logged at once, and begins again."""

import asyncio
import functools
import inspect
import signal
from collections import Counter
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from iidq.bullmq.mirror import BullMirror
from iidq.queue.notify.announcer import Announcer, ChangeAnnouncer
from iidq.queue.notify.listener import Listener
from iidq.queue.notify.watching import WatchHub
from iidq.queue.processing.leases import LeaseKeeper
from iidq.queue.processing.loop import WorkLoop
from iidq.queue.processing.maintenance import Maintenance
from iidq.queue.processing.writers import OutcomeWriter, ProgressWriter
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis
from iidq.redis.redis_hint_bus import RedisRelay
from iidq.settings import load_settings
from iidq.web.availability import Availability
from iidq.web.guard.rate_sharing import RateSharing
from iidq.web.reply.wire import job_shape
from iidq.webhooks.deliverer import Deliverer, open_deliverer
from tests.database.processing.test_work_loop import Executions
from tests.database.working import working
from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS, insert, statuses
from tests.redis_server import RedisServer
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

OF_WORKER: list[tuple[type, str, str]] = [
    (Listener, "run", "listener"),
    (ChangeAnnouncer, "run", "changes"),
    (ProgressWriter, "run", "progress"),
    (Maintenance, "_purge", "retention"),
    (WorkLoop, "_hear_relay", "relay"),
    (LeaseKeeper, "_keep", "lease renewal"),
    (OutcomeWriter, "_write_all", "outcomes"),
    (Deliverer, "run", "webhooks"),
]
OF_API: list[tuple[type, str, str]] = [
    (Availability, "watch", "database availability"),
    (RateSharing, "run", "rate sharing"),
    (WatchHub, "run", "watching"),
    (Listener, "run", "listener"),
    (Announcer, "_run", "announcements"),
    (Redis, "watch", "redis"),
    (RedisRelay, "send", "redis relay"),
    (RedisRelay, "run", "relay"),
    (SharedKey, "load", "redis key"),
    (BullMirror, "run", "BullMQ keys"),
]


class Crashes:
    """Makes methods fail at their first call, and counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, table: list[tuple[type, str, str]]) -> None:
        self.table = table
        self.calls: Counter[str] = Counter()
        for owner, method, name in table:
            monkeypatch.setattr(owner, method, self._failing_once(getattr(owner, method), name))

    def _failing_once(self, run: Any, name: str) -> Any:
        assert inspect.iscoroutinefunction(run)

        @functools.wraps(run)
        async def fail_once(*arguments: Any) -> Any:
            self.calls[name] += 1
            if self.calls[name] == 1:
                raise LookupError(name)
            return await run(*arguments)

        return fail_once

    def all_began_again(self) -> bool:
        """Return whether every task runs for the second time."""
        return all(self.calls[name] >= 2 for _, _, name in self.table)


def crashed(logged: list[Any]) -> list[str]:
    """Return the names of the crashed tasks in the log."""
    return sorted(line["what"] for line in logged if line["event"] == "background.crashed")


async def test_the_tasks_of_a_worker_begin_again(
    database_url: str, ledger: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are run and stored after each background task of a worker crashed once, and the loop goes on."""
    crashes = Crashes(monkeypatch, OF_WORKER)
    insert(ledger)
    settings = load_settings(database_url=database_url, webhook_secret="whsec_" + "A" * 43 + "=")
    with capture_logs() as logged:
        async with (
            open_deliverer(settings, job_shape),
            working(database_url, Executions(), poll_interval_seconds=0.1) as work,
        ):
            await eventually(crashes.all_began_again)
            await eventually(lambda: statuses(ledger) == {"completed": 1})
            await eventually(lambda: work.loop.listener.listening)
    assert crashed(logged) == sorted(name for _, _, name in OF_WORKER)
    assert not work.loop.crashed


async def test_the_tasks_of_an_api_begin_again(
    database_url: str,
    serve_api: ServeApi,  # noqa: F811 — the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests get replies after each background task of an API process crashed once."""
    crashes = Crashes(monkeypatch, OF_API)
    fields = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": MANIFEST_URI, "contentHash": CONTENT_HASH}
    with capture_logs() as logged, RedisServer() as redis:
        limits = {"rate_limit_submit_per_minute": 1000, "rate_limit_read_per_minute": 1000}
        settings = {"database_url": database_url, "redis_url": redis.url, "redis_bull_keys": "on", **limits}
        async with serve_api(**settings) as api:
            answer = await api.post(f"{JOBS}/verify", json=fields)
            assert answer.json()["mode"] == "async"
            watching = asyncio.create_task(api.get(answer.json()["pollUrl"], headers={"Prefer": "wait=60"}))
            await eventually(crashes.all_began_again)
            watching.cancel()
            await asyncio.wait([watching])
            assert (await api.get(answer.json()["pollUrl"])).json()["status"] == "queued"
    assert crashed(logged) == sorted(name for _, _, name in OF_API)


async def test_a_crashed_loop_ends_the_process(database_url: str, start_worker: StartWorker) -> None:
    """A crashed work loop ends the process with exit code 1, after its reason in the log and a drain."""
    worker = start_worker(database_url, module="tests.faults.crashing_worker_process")
    assert await asyncio.to_thread(worker.exit_code) == 1
    log = worker.log.read_text()
    assert log.index("on purpose") < log.index("worker.draining") < log.index("worker.stopped")


@pytest.mark.parametrize("hang", ["task", "thread"])
async def test_nothing_keeps_a_process_from_its_end(database_url: str, start_worker: StartWorker, hang: str) -> None:
    """A task or thread without end keeps no worker alive beyond the drain's deadline; the exit code is 1."""
    worker = start_worker(
        database_url, module="tests.faults.crashing_worker_process", HANG=hang, DRAIN_TIMEOUT_SECONDS="0"
    )
    await eventually(lambda: worker.says("hangs now"))
    worker.signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.exit_code) == 1
    assert worker.says("process.hangs")
