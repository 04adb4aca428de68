"""The API as an ASGI app: what it opens, its routes, its layers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware

from iidq import logs
from iidq.accelerator.accelerator import open_accelerator
from iidq.accelerator.bull_mirror import open_bull_mirror
from iidq.accelerator.rate_counts import shared_counts
from iidq.database import open_database
from iidq.logs import configure_logging
from iidq.queue.batching import open_enqueuer
from iidq.queue.watching import open_watch_hub
from iidq.settings import Settings, load_settings
from iidq.traces import open_traces
from iidq.web import batch, control, docs, events, health, jobs, legacy, metrics, operations, pages
from iidq.web.admission import Admission
from iidq.web.allocation import keep_freed_memory
from iidq.web.availability import watched
from iidq.web.exchange import Exchanges
from iidq.web.fast_lane import FastLane
from iidq.web.hashing import hashing_threads
from iidq.web.job_reads import JobReads
from iidq.web.path_prefix import PathPrefixes
from iidq.web.queue_state import QueueState
from iidq.web.rate_sharing import PostgresCounts, sharing
from iidq.web.reads import Reads
from iidq.web.replies import EXCEPTION_HANDLERS
from iidq.web.service import Service
from iidq.web.submission import SubmissionRules
from iidq.web.synchronous import SynchronousVerification
from iidq.web.unread_bodies import UnreadBodies
from iidq.web.wire import JOBS_PATH

POOL_SIZE: Final = 8
"""Connections of one API process: two each for lists and for overviews (``reads.py``), the rest for what is cheap."""

STATEMENT_TIMEOUT_SECONDS: Final = 10.0
"""Bounds what one statement can cost."""


def create_app(settings: Settings) -> Starlette:
    """The API under these settings; the start succeeds without Postgres, too.

    Raises :class:`SettingsFault` for an item of ``FETCH_ALLOW_PRIVATE`` that is neither host nor CIDR.
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
            # After a second signal the loop ends over us: no error, and nothing to tell.
            if service is None or not service.stopping.is_set():
                raise

    routes = [
        *control.ROUTES,
        *batch.ROUTES,
        *events.ROUTES,
        *jobs.ROUTES,
        *legacy.ROUTES,
        *health.ROUTES,
        *metrics.ROUTES,
        *docs.routes(settings),
        *pages.routes(settings),
        *operations.routes(settings),
    ]
    prefixes = PathPrefixes(settings.root_path, settings.trusted_proxies, [route.path for route in routes])
    layers = [
        Middleware(Exchanges, admission.refusal, routes, prefixes),
        Middleware(FastLane, jobs.SUBMIT, JOBS_PATH, jobs.SHOW, EXCEPTION_HANDLERS),
        Middleware(UnreadBodies),
    ]
    app = Starlette(
        routes=routes,
        middleware=layers,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # ``Exchanges`` takes a slash off the path's end.
    app.router.redirect_slashes = False
    return app


@asynccontextmanager
async def open_service(settings: Settings, rules: SubmissionRules, admission: Admission) -> AsyncIterator[Service]:
    """Everything that the endpoints work with, for as long as the block lasts."""
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
        threads = stack.enter_context(hashing_threads())
        overviews = Reads(database)
        yield Service(
            settings,
            rules,
            database,
            Reads(database),
            overviews,
            JobReads(database, accelerator.ended_jobs),
            enqueuer,
            synchronous,
            QueueState(overviews),
            watching,
            stopping,
            threads,
            accelerator,
        )


def app_from_environment() -> Starlette:
    """``uvicorn --factory --no-proxy-headers iidq.web.app:app_from_environment``; proxies are ``TRUSTED_PROXIES``."""
    keep_freed_memory()
    settings = load_settings("database_url", "rpc_url")
    configure_logging(settings.log_level, settings.log_format)
    return create_app(settings)
