"""The API as an ASGI app: open parts, routes, layers."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware

from iidq.bullmq.mirror import open_bull_mirror
from iidq.database.pool import open_database
from iidq.observability import logs
from iidq.observability.logs import configure_logging
from iidq.observability.traces import open_traces
from iidq.process import raise_malloc_threshold
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.notify.watching import open_watch_hub
from iidq.redis.accelerator import open_accelerator
from iidq.redis.rate_counts import shared_counts
from iidq.settings import Settings, load_settings
from iidq.web import pages
from iidq.web.availability import watched
from iidq.web.guard.admission import Admission
from iidq.web.guard.proxies import PathPrefixes
from iidq.web.guard.rate_sharing import PostgresCounts, sharing
from iidq.web.operations import operations_routes
from iidq.web.reads import BoundedReads, JobReads, QueueState
from iidq.web.reply.error_replies import EXCEPTION_HANDLERS
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.request.submission import SubmissionRules
from iidq.web.request_context import RequestContextMiddleware
from iidq.web.routes import batch, docs, events, health, jobs, queue_control, scrape
from iidq.web.server.direct import DirectRoutes
from iidq.web.server.lingering_close import LingeringClose
from iidq.web.service import Service
from iidq.web.synchronous import SynchronousVerification

POOL_SIZE: Final = 8
"""Connections of one API process: two each for lists and for overviews (``reads.py``), the rest for others."""

STATEMENT_TIMEOUT_SECONDS: Final = 10.0
"""Longest time of one statement."""


def create_app(settings: Settings) -> Starlette:
    """Return the API under these settings, which also starts without Postgres.

    Raise :class:`SettingsFault` for an item of ``FETCH_ALLOW_PRIVATE`` that is neither host nor CIDR.
    """
    rules = SubmissionRules(settings)
    admission = Admission(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = None
        try:
            async with open_service(settings, rules, admission) as service:
                app.state.service = service
                yield
        except asyncio.CancelledError:
            # After a second signal the event loop ends at once: no error to report.
            if service is None or not service.stopping.is_set():
                raise

    routes = [
        *queue_control.ROUTES,
        *batch.ROUTES,
        *events.ROUTES,
        *jobs.ROUTES,
        *health.ROUTES,
        *scrape.ROUTES,
        *docs.routes(settings),
        *pages.routes(settings),
        *operations_routes.routes(settings),
    ]
    prefixes = PathPrefixes(settings.root_path, settings.trusted_proxies, [route.path for route in routes])
    layers = [
        Middleware(RequestContextMiddleware, refusal=admission.refusal, routes=routes, prefixes=prefixes),
        Middleware(DirectRoutes, exact=jobs.SUBMIT, collection=JOBS_PATH, item=jobs.SHOW, handlers=EXCEPTION_HANDLERS),
        Middleware(LingeringClose),
    ]
    app = Starlette(
        routes=routes,
        middleware=layers,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # ``RequestContextMiddleware`` removes a slash at the end of the path.
    app.router.redirect_slashes = False
    return app


@asynccontextmanager
async def open_service(settings: Settings, rules: SubmissionRules, admission: Admission) -> AsyncIterator[Service]:
    """Open the parts that the endpoints use, within the block."""
    async with AsyncExitStack() as stack:
        logs.database_parameters_ignored(settings.ignored_parameters)
        await stack.enter_async_context(open_traces(settings, "api"))
        database = await stack.enter_async_context(
            open_database(settings, pool_size=POOL_SIZE, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
        )
        await stack.enter_async_context(watched(settings, database))
        accelerator = await stack.enter_async_context(open_accelerator(settings))
        await stack.enter_async_context(open_bull_mirror(settings, accelerator.redis, database.faults))
        counts = shared_counts(settings, accelerator, PostgresCounts(database))
        await stack.enter_async_context(sharing(admission.limits, admission.clock, counts, database))
        enqueuer = await stack.enter_async_context(open_enqueuer(database, settings, accelerator.relay))
        synchronous = await stack.enter_async_context(SynchronousVerification(settings, accelerator))
        stopping = asyncio.Event()
        watching = await stack.enter_async_context(open_watch_hub(settings, database, stopping, accelerator.relay))
        threads = stack.enter_context(ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="iidq-hashing"))
        overviews = BoundedReads(database)
        yield Service(
            settings=settings,
            rules=rules,
            database=database,
            lists=BoundedReads(database),
            overviews=overviews,
            job_reads=JobReads(database, accelerator.ended_jobs),
            enqueuer=enqueuer,
            synchronous=synchronous,
            queue_state=QueueState(overviews),
            watching=watching,
            stopping=stopping,
            hashing=threads,
            accelerator=accelerator,
        )


def app_from_environment() -> Starlette:
    """``uvicorn --factory --no-proxy-headers iidq.web.app:app_from_environment``; proxies are ``TRUSTED_PROXIES``."""
    raise_malloc_threshold()
    settings = load_settings("database_url", "rpc_url")
    configure_logging(settings.log_level, settings.log_format)
    return create_app(settings)
