"""Run ``iidq serve`` as an operator: several processes on one port, replaced and stopped under load."""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from tests.cli.sandbox import Running, Sandbox
from tests.eventually import eventually
from tests.job_rows import MANIFEST_URI, REGISTRY_ADDRESS

JOBS = "/api/verification-jobs"
PROCESSES = 2


class Load:
    """Clients submitting without a pause, without retries, on kept and on new connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self.job_ids: list[str] = []
        self.failures: list[str] = []

    async def submit(self, **headers: str) -> None:
        """Submit as one client until cancelled."""
        async with httpx.AsyncClient(base_url=self._url, timeout=30, headers=headers) as client:
            while True:
                fields = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": MANIFEST_URI}
                fields["contentHash"] = f"0x{next(self._numbers):064x}"
                try:
                    reply = await client.post(f"{JOBS}/verify", json=fields)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if reply.status_code == 200 and reply.json()["mode"] == "async":
                    self.job_ids.append(reply.json()["jobId"])
                else:
                    self.failures.append(f"{reply.status_code} {reply.text}")

    async def some_more(self, replies: int = 50) -> None:
        """Wait for ``replies`` further replies."""
        wanted = len(self.job_ids) + replies
        await eventually(lambda: len(self.job_ids) >= wanted or self.failures)


@asynccontextmanager
async def load_on(url: str) -> AsyncIterator[Load]:
    """Run two clients with kept connections and two with a new connection per request; stop them at the end."""
    load = Load(url)
    clients = [asyncio.create_task(load.submit(**headers)) for headers in 2 * ({}, {"Connection": "close"})]
    try:
        yield load
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def events(running: Running, name: str) -> list[dict[str, Any]]:
    """Return the log entries of the event ``name``."""
    lines = [json.loads(line) for line in running.output.splitlines() if line.startswith("{") and f'"{name}"' in line]
    return [line for line in lines if line["event"] == name]


async def started(sandbox: Sandbox, database_url: str, processes: int, **settings: str) -> tuple[Running, str]:
    """Start ``iidq serve`` and wait for all processes; return the process and the URL."""
    running = sandbox.start(
        "serve",
        DATABASE_URL=database_url,
        RPC_URL="http://127.0.0.1:9",
        PORT="0",
        LOG_FORMAT="json",
        WEB_CONCURRENCY=str(processes),
        RATE_LIMIT_SUBMIT_PER_MINUTE="0",
        **settings,
    )
    await eventually(lambda: len(events(running, "api.serving")) == processes or running.process.poll() is not None, 60)
    found = re.search(r"listens on (\S+)", running.output)
    assert found, running.output
    return running, found[1]


async def test_a_rolling_restart_and_a_killed_process_under_load(sandbox: Sandbox, database_url: str) -> None:
    """SIGHUP replaces every process while clients submit: no request fails, and each acknowledged job is stored.

    A killed process is replaced, too. SIGTERM ends all processes with exit code 0, with nothing left.
    """
    running, url = await started(sandbox, database_url, PROCESSES)
    first = {event["pid"] for event in events(running, "api.serving")}
    async with load_on(url) as load:
        await load.some_more()
        running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(events(running, "api.process_replaced")) == PROCESSES, 60)
        await load.some_more()
        assert load.failures == []
    second = {event["pid"] for event in events(running, "api.serving")} - first
    assert len(second) == PROCESSES
    assert {event["old_pid"] for event in events(running, "api.process_replaced")} == first
    assert not first & sandbox.processes().keys()
    with psycopg.connect(database_url) as connection:
        stored = Counter(str(job_id) for (job_id,) in connection.execute('SELECT id FROM "VerificationJob"'))
    # A client cancelled at the end may not have read the last reply.
    assert not Counter(load.job_ids) - stored
    assert len(stored) - len(load.job_ids) <= 4

    victim = second.pop()
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: len(events(running, "api.serving")) == 2 * PROCESSES + 1, 60)
    assert [event["pid"] for event in events(running, "api.process_ended")] == [victim]
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/readyz")).status_code == 200

    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.wait) == 0, running.output
    sandbox.assert_nothing_left()


async def test_processes_do_not_outlive_their_killed_parent(sandbox: Sandbox, database_url: str) -> None:
    """After `kill -9` of the parent process the others end in order."""
    running, _ = await started(sandbox, database_url, PROCESSES)
    running.process.kill()
    await eventually(lambda: not sandbox.processes(), 60)
    assert len(events(running, "api.stopped")) == PROCESSES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_one_process_ends_in_order(sandbox: Sandbox, database_url: str, number: signal.Signals) -> None:
    """A process stopped by a signal ends with exit code 0."""
    running, _ = await started(sandbox, database_url, 1)
    running.process.send_signal(number)
    assert await asyncio.to_thread(running.wait) == 0, running.output


async def test_a_second_signal_ends_it_at_once(sandbox: Sandbox, database_url: str) -> None:
    """A second SIGTERM ends the drain: exit code 1, and no traceback for interrupted requests."""
    running, url = await started(sandbox, database_url, 1, SHUTDOWN_DELAY_SECONDS="300")
    running.process.send_signal(signal.SIGTERM)
    await eventually(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 503, 60)
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.wait) == 1, running.output
    assert "Traceback" not in running.output


async def test_a_start_that_fails_is_not_repeated(sandbox: Sandbox, database_url: str) -> None:
    """A permanent fault ends the command, with the reason and an exit code."""
    running = sandbox.start(
        "serve",
        DATABASE_URL=database_url,
        RPC_URL="http://127.0.0.1:9",
        PORT="0",
        WEB_CONCURRENCY="2",
        FETCH_ALLOW_PRIVATE="not a host",
    )
    assert await asyncio.to_thread(running.wait) != 0
    assert "FETCH_ALLOW_PRIVATE" in running.output
    sandbox.assert_nothing_left()
