"""GET /metrics: counts of this API, and the queue's depth, for Prometheus."""

import asyncio
from collections.abc import Iterable

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.observability.exposition import exposition
from iidq.queue.read.queue_health import QueueHealth
from iidq.web.guard.access import with_key
from iidq.web.service import service_of


async def metrics(request: Request) -> Response:
    """GET /metrics: also without a database. A set ``API_KEY`` is required."""
    depth = await service_of(request).queue_state.read()
    accept = request.headers.get("accept", "")
    body, content_type = await asyncio.to_thread(exposition, accept, [QueueGauges(depth)])
    return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


class QueueGauges(Collector):
    """One reading of the queue as gauges; without a database only ``iidq_database_up``.

    Every API process and replica reports the same values: use the maximum, not the sum.
    """

    def __init__(self, depth: QueueHealth | None) -> None:
        self._depth = depth

    def collect(self) -> Iterable[Metric]:
        yield _gauge("iidq_database_up", "1 while Postgres answers and is migrated", float(self._depth is not None))
        if (depth := self._depth) is None:
            return
        jobs = GaugeMetricFamily("iidq_queue_jobs", "Jobs by state", labels=["state"])
        for state in ("waiting", "delayed", "active", "completed", "failed", "cancelled"):
            jobs.add_metric([state], getattr(depth, state))
        yield jobs
        oldest = GaugeMetricFamily(
            "iidq_queue_oldest_seconds",
            "How long the oldest has been waiting though due, delayed beyond its time, or active in one attempt",
            labels=["state"],
        )
        oldest.add_metric(["waiting"], depth.oldest_waiting_seconds or 0.0)
        oldest.add_metric(["delayed"], depth.overdue_seconds or 0.0)
        oldest.add_metric(["active"], depth.oldest_active_seconds or 0.0)
        yield oldest
        yield _gauge("iidq_queue_paused", "1 while operators have paused the queue", float(depth.paused))
        yield _gauge("iidq_queue_expired_leases", "Running jobs whose worker fell silent", depth.expired_leases)
        yield _gauge("iidq_queue_workers", "Live worker processes", depth.workers)
        yield _gauge(
            "iidq_queue_listening_workers", "Live workers that hear of new jobs at once", depth.listening_workers
        )
        yield _gauge("iidq_queue_slots", "Jobs that all live workers together run at a time", depth.slots)
        if depth.upkeep_age_seconds is not None:
            yield _gauge(
                "iidq_queue_upkeep_age_seconds",
                "Since some worker last took back lost jobs and put due ones in line",
                depth.upkeep_age_seconds,
            )


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


ROUTES = [Route("/metrics", with_key(metrics), methods=["GET"])]
