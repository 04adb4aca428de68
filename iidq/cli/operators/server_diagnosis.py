"""What ``iidq doctor --server`` looks at: all that can be told of a service from afar."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from iidq.cli.api_client import Body, JobClient, NotFoundOut
from iidq.cli.operators.diagnosis import CHECK_SECONDS, Answer, Finding, Outcome
from iidq.cli.operators.queue_access import NotAllowed, QueueOverHttp

_LONG_WAIT_SECONDS = 300.0


async def diagnose_server(server: str, api_key: str | None) -> list[Finding]:
    """Look at the service behind ``server``; what cannot be reached is looked at no further."""
    async with JobClient(server, api_key, timeout_seconds=CHECK_SECONDS) as client:
        service = await _look(
            "service", "GET /api/health", lambda: _health(client), "start `iidq serve` there, or correct --server"
        )
        if service.outcome is Outcome.BROKEN:
            return [service]
        findings = [
            service,
            await _look("readiness", "GET /readyz", lambda: _readiness(client), "run `iidq doctor` on its host"),
            await _look("queue", "GET …/stats", lambda: _queue(client), "see the service"),
        ]
        if api_key:
            findings.append(await _look("key", "GET /metrics with the key", lambda: _key(client), "ask the operator"))
        return findings


async def _look(check: str, tried: str, look: Callable[[], Awaitable[Answer]], to_do: str) -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            answer = await look()
    except TimeoutError:
        answer = Answer(Outcome.BROKEN, f"no answer within {CHECK_SECONDS:.0f} s", to_do)
    except (NotFoundOut, NotAllowed) as fault:
        answer = Answer(Outcome.BROKEN, str(fault), to_do)
    return Finding(check, answer.outcome, tried, answer.came_back, answer.to_do)


async def _health(client: JobClient) -> Answer:
    status, health = await client.probe("/api/health")
    if status != 200 or "status" not in health:
        return Answer(Outcome.BROKEN, f"HTTP {status}, and not as iidq does", "correct --server")
    shown = f"iidq {health.get('version')}, {health['status']}"
    if health.get("database") not in (None, "ok"):
        to_do = "run `iidq doctor` on its host; until then it answers without its queue, or with 503"
        return Answer(Outcome.BROKEN, f"{shown}: database {health['database']}", to_do)
    return Answer(Outcome.OK, shown)


async def _readiness(client: JobClient) -> Answer:
    status, ready = await client.probe("/readyz")
    if status != 200:
        to_do = "wait if it is just starting or stopping; else run `iidq doctor` on its host"
        return Answer(Outcome.BROKEN, f"HTTP {status}: {ready.get('status', 'no reason')}", to_do)
    if faults := ready.get("faults"):
        return Answer(Outcome.BROKEN, f"{ready.get('status')}: {'; '.join(map(str, faults))}", "mend it on its host")
    signs: Any = ready.get("queue")
    if not isinstance(signs, dict):
        return Answer(Outcome.OK, "ready")
    shown = f"ready; {signs.get('workers')} workers live, {signs.get('listeningWorkers')} of them woken by LISTEN"
    if not signs.get("workers"):
        return Answer(Outcome.BROKEN, "ready, but no live worker", "start one there: `iidq worker`")
    return Answer(Outcome.OK, shown)


async def _queue(client: JobClient) -> Answer:
    counts: Body = await QueueOverHttp(client).counts()
    shown = f"{counts.get('state')}; {counts.get('waiting')} waiting, {counts.get('active')} active"
    if counts.get("state") == "paused":
        reason = f": {counts['pauseReason']}" if counts.get("pauseReason") else ""
        return Answer(Outcome.WARNING, f"{shown}{reason}", "`iidq resume` when the reason is gone")
    age = counts.get("oldestWaitingSeconds")
    if isinstance(age, int | float) and age > _LONG_WAIT_SECONDS:
        return Answer(Outcome.WARNING, f"{shown}; the first in line has waited {age:.0f} s", "start more workers there")
    return Answer(Outcome.OK, shown)


async def _key(client: JobClient) -> Answer:
    status, _ = await client.probe("/metrics")
    if status == 401:
        return Answer(Outcome.BROKEN, "HTTP 401: it is not the service's", "correct IIDQ_API_KEY")
    return Answer(Outcome.OK, "taken, or none is needed")
