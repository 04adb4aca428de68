"""The checks of ``iidq doctor --server``: all checks from outside."""

from typing import Any

from iidq.cli.api_client import JobClient
from iidq.cli.operators.findings import CHECK_SECONDS, CheckResult, Finding, Level, queue_result, run_check
from iidq.cli.operators.queue_access import QueueOverHttp


async def diagnose_server(server: str, api_key: str | None) -> list[Finding]:
    """Check the service at ``server``; only the first check if the service is broken."""
    async with JobClient(server, api_key, timeout_seconds=CHECK_SECONDS) as client:

        async def queue() -> CheckResult:
            return queue_result(await QueueOverHttp(client).counts())

        service = await run_check(
            "service", "GET /api/health", lambda: _health(client), "start `iidq serve` there, or correct --server"
        )
        if service.level is Level.BROKEN:
            return [service]
        findings = [
            service,
            await run_check("readiness", "GET /readyz", lambda: _readiness(client), "run `iidq doctor` on its host"),
            await run_check("queue", "GET …/stats", queue, "see the service"),
        ]
        if api_key:
            findings.append(
                await run_check("key", "GET /metrics with the key", lambda: _key(client), "ask the operator")
            )
        return findings


async def _health(client: JobClient) -> CheckResult:
    status, health = await client.probe("/api/health")
    if status != 200 or "status" not in health:
        return CheckResult(Level.BROKEN, f"HTTP {status}, but not as iidq does", "correct --server")
    shown = f"iidq {health.get('version')}, {health['status']}"
    if health.get("database") not in (None, "ok"):
        to_do = "run `iidq doctor` on its host; until then it answers without its queue, or with 503"
        return CheckResult(Level.BROKEN, f"{shown}: database {health['database']}", to_do)
    return CheckResult(Level.OK, shown)


async def _readiness(client: JobClient) -> CheckResult:
    status, ready = await client.probe("/readyz")
    if status != 200:
        to_do = "wait if it is just starting or stopping; else run `iidq doctor` on its host"
        return CheckResult(Level.BROKEN, f"HTTP {status}: {ready.get('status', 'no reason')}", to_do)
    if faults := ready.get("faults"):
        return CheckResult(Level.BROKEN, f"{ready.get('status')}: {'; '.join(map(str, faults))}", "fix it on its host")
    signs: Any = ready.get("queue")
    if not isinstance(signs, dict):
        return CheckResult(Level.OK, "ready")
    shown = f"ready; {signs.get('workers')} workers live, {signs.get('listeningWorkers')} of them woken by LISTEN"
    if not signs.get("workers"):
        return CheckResult(Level.BROKEN, "ready, but no live worker", "start one there: `iidq worker`")
    return CheckResult(Level.OK, shown)


async def _key(client: JobClient) -> CheckResult:
    status, _ = await client.probe("/metrics")
    if status == 401:
        return CheckResult(Level.BROKEN, "HTTP 401: it is not the service's", "correct IIDQ_API_KEY")
    return CheckResult(Level.OK, "taken, or none is needed")
